// SPDX-License-Identifier: MIT
#pragma once

#include "costs.hpp"

#include <tokengate/options.hpp>

#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

/// What the simulated machine has to do: producers outside the cores make tokens, at random times (open loop) or in waves
/// (each begins when the one before has ended); tokens may make children while they run, or go on as chains.

namespace simulation {

/// xorshift64*: the same numbers with every standard library.
class random_numbers {
public:
    explicit random_numbers(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15U + 0x1234567) {}

    std::uint64_t next() {
        state_ ^= state_ >> 12;
        state_ ^= state_ << 25;
        state_ ^= state_ >> 27;
        return state_ * 0x2545f4914f6cdd1dU;
    }

    /// In (0, 1].
    double uniform() { return (static_cast<double>(next() >> 11) + 1) * 0x1p-53; }

    std::uint64_t below(std::uint64_t end) { return next() % end; }

    double exponential(double mean) { return -mean * std::log(uniform()); }

    /// Pareto with density ~ x^(-alpha - 1) on [least, most].
    double pareto(double alpha, double least, double most) {
        const double cut = 1 - std::pow(least / most, alpha);
        return least / std::pow(1 - (1 - uniform()) * cut, 1 / alpha);
    }

private:
    std::uint64_t state_;
};

/// What is known of a token when it is made.
struct token_spec {
    time_ns run = 0;
    tokengate::weight weight = tokengate::weight::heavy;
    std::uint8_t operation = 0;  ///< tokens of one operation are measured together
    bool measured = true;        ///< its wait counts
    std::uint32_t children = 0;  ///< made while it runs, before it computes
    time_ns child_gap = 0;       ///< between one child and the next
    time_ns child_run = 0;
    std::uint32_t more_steps = 0;  ///< of its chain, each made by the one before
    time_ns moved = 0;  ///< a step takes so much longer on another core than the one before
};

/// What a workload is; `make` is called with the random numbers of the producer.
struct workload {
    std::string name;
    std::function<token_spec(random_numbers&)> make;
    // ---- open loop ----
    double mean_run = 0;       ///< ns, all that one token brings with it; sets the rate of arrivals
    double load = 0;           ///< 0 … 1
    std::uint64_t tokens = 0;  ///< made by all producers
    // ---- waves ----
    std::vector<std::uint32_t> waves;
    time_ns pause = 0;  ///< before each wave
};

}  // namespace simulation
