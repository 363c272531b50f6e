// SPDX-License-Identifier: MIT

/// Waves of 4, 8, 16 … pieces, each wave by every contender in turn, in one process:
///
///     waves [--size LARGEST] [--rounds N] [--threads T]
///
/// prints a line of JSON for each wave and contender: "ideal" is the time of the same calls on one thread of the
/// first and last CPU, half before the contenders and half after them, divided by T; "to_ideal" the time over that,
/// the inverse of the efficiency. "result" is how many pieces were right: the calls' results are compared. Every
/// contender has a thread of its own that starts its waves; others sleep meanwhile. The order of the contenders
/// rotates from wave to wave.

#include "../support/contender.hpp"
#include "../support/pinned_thread.hpp"
#include "contenders.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

/// A contender on a thread of its own.
class host {
public:
    host(std::string name, waves::maker make, unsigned threads)
        : name_(std::move(name)),
          thread_([this, make = std::move(make), threads] { serve(make, threads); }) {}
    host(const host&) = delete;
    host& operator=(const host&) = delete;
    ~host() {
        tell(nullptr);
        thread_.join();
    }

    [[nodiscard]] const std::string& name() const noexcept { return name_; }

    /// Seconds.
    double run(std::vector<std::uint64_t>& fingerprints) {
        tell(&fingerprints);
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return !told_; });
        if (error_) std::rethrow_exception(error_);
        return seconds_;
    }

private:
    void tell(std::vector<std::uint64_t>* work) {
        const std::scoped_lock lock(mutex_);
        work_ = work;
        told_ = true;
        changed_.notify_all();
    }

    void serve(const waves::maker& make, unsigned threads) {
        std::unique_ptr<waves::contender> contender;
        for (;;) {
            std::unique_lock lock(mutex_);
            changed_.wait(lock, [this] { return told_; });
            if (!work_) return;
            try {
                if (!contender) contender = make(threads);
                const auto began = contest::clock::now();
                contender->run(*work_);
                seconds_ = contest::seconds_since(began);
            } catch (...) {
                error_ = std::current_exception();
            }
            told_ = false;
            changed_.notify_all();
        }
    }

    std::string name_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<std::uint64_t>* work_ = nullptr;  // this and the following: under the mutex
    bool told_ = false;
    double seconds_ = 0;
    std::exception_ptr error_;
    std::thread thread_;  // last: it uses the others
};

double call_directly(std::size_t first, std::size_t last, int cpu,
                     std::vector<std::uint64_t>& into) {
    double seconds = 0;
    pinned_thread caller(cpu, [&] {
        for (unsigned i = 0; i < 4; ++i)
            static_cast<void>(waves::piece(i));  // a thread's first calls set things up
        const auto began = contest::clock::now();
        for (; first < last; ++first) into[first] = waves::piece(static_cast<unsigned>(first));
        seconds = contest::seconds_since(began);
    });
    caller.join();
    return seconds;
}

void wave(std::size_t size, std::vector<std::unique_ptr<host>>& contenders, unsigned threads,
          const std::vector<int>& cpus) {
    std::vector<std::uint64_t> expected(size);
    double direct = call_directly(0, size / 2, cpus.front(), expected);
    std::vector<std::pair<const host*, double>> times;
    std::vector<std::vector<std::uint64_t>> results;
    for (const auto& each : contenders) {
        std::this_thread::sleep_for(
            std::chrono::milliseconds(2));  // the one before has fallen asleep
        std::vector<std::uint64_t>& result = results.emplace_back(size);
        times.emplace_back(each.get(), each->run(result));
    }
    direct += call_directly(size / 2, size, cpus.back(), expected);
    for (std::size_t i = 0; i < times.size(); ++i) {
        const auto& [by, seconds] = times[i];
        std::size_t right = 0;
        for (std::size_t k = 0; k < size; ++k) right += results[i][k] == expected[k] ? 1 : 0;
        std::printf(
            "{\"contender\": \"%s\", \"size\": %zu, \"result\": %zu, \"seconds\": %.9g, \"items\": "
            "%zu, \"to_ideal\": "
            "%.6g",
            by->name().c_str(), size, right, seconds, size, seconds * threads / direct);
        if (by->name() == "tokengate")
            for (const auto& [other, theirs] : times)
                if (other != by)
                    std::printf(", \"to_%s\": %.6g", other->name().c_str(), seconds / theirs);
        std::printf("}\n");
    }
    std::rotate(contenders.begin(), contenders.begin() + 1, contenders.end());
}

}  // namespace

int main(int argc, char** argv) try {
    std::uint64_t largest = 65'536, rounds = 5, threads = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        std::uint64_t* const to = !std::strcmp(argv[i], "--size")      ? &largest
                                  : !std::strcmp(argv[i], "--rounds")  ? &rounds
                                  : !std::strcmp(argv[i], "--threads") ? &threads
                                                                       : nullptr;
        const char* const end = argv[i + 1] + std::strlen(argv[i + 1]);
        if (!to || std::from_chars(argv[i + 1], end, *to).ptr != end) {
            std::fprintf(stderr, "waves [--size LARGEST] [--rounds N] [--threads T]\n");
            return 2;
        }
    }
    const std::vector<int> cpus = contest::request::cpus();
    const auto used =
        threads != 0 ? static_cast<unsigned>(threads) : static_cast<unsigned>(cpus.size());
    std::vector<std::unique_ptr<host>> contenders;
    contenders.push_back(std::make_unique<host>("tokengate", waves::make_tokengate, used));
#ifdef TOKENGATE_PEER_TBB
    contenders.push_back(std::make_unique<host>("onetbb", waves::make_onetbb, used));
#endif
    contenders.push_back(std::make_unique<host>("team", waves::make_team, used));
    std::vector<std::uint64_t> warm_up(std::min<std::uint64_t>(largest, 4096));
    for (const auto& each : contenders) static_cast<void>(each->run(warm_up));
    for (std::uint64_t round = 0; round < rounds; ++round)
        for (std::uint64_t size = 4; size <= largest; size *= 2) wave(size, contenders, used, cpus);
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "waves: %s\n", error.what());
    return 1;
}
