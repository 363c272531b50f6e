// SPDX-License-Identifier: MIT

/// Ours: a token on one core awaits an empty token on another, which ends there. Executors spin longer than a trip
/// lasts, or not at all. `event`: two tokens that live for all trips wake each other.

#include "problem.hpp"

#include <tokengate/tokengate.hpp>

#include <chrono>
#include <cstdint>
#include <stdexcept>

namespace {

namespace tg = tokengate;
using namespace std::chrono_literals;

tg::task<std::uint64_t> answer(std::uint64_t trip) {
    if (tg::this_token::core() != 1) throw std::logic_error("the answer came from the wrong core");
    co_return ping_pong::answer(trip);
}

tg::task<> travel(std::uint64_t trips) {
    for (std::uint64_t trip = 0; trip < trips; ++trip) {
        const std::uint64_t answered = co_await tg::as_token(answer(trip), 1);
        ping_pong::expect(answered == ping_pong::answer(trip));
    }
}

struct table {
    tg::event ping, pong;
    std::uint64_t ball = 0;
};
tg::task<> play_there(table* on, std::uint64_t trips) {
    for (std::uint64_t trip = 0; trip < trips; ++trip) {
        co_await on->ping.wait();
        on->ping.reset();
        on->ball = ping_pong::answer(on->ball);
        on->pong.set();
    }
}
tg::task<> play(std::uint64_t trips) {
    table on;
    tg::token<> there = tg::as_token(play_there(&on, trips), 1);
    there.admit();
    for (std::uint64_t trip = 0; trip < trips; ++trip) {
        on.ball = trip;
        on.ping.set();
        co_await on.pong.wait();
        on.pong.reset();
        ping_pong::expect(on.ball == ping_pong::answer(trip));
    }
    co_await there;
}

tg::task<double> timed(tg::task<> (*trips)(std::uint64_t), std::uint64_t count) {
    co_await tg::as_token(trips(count / 10), 0);
    const auto began = contest::clock::now();
    co_await tg::as_token(trips(count), 0);
    co_return contest::seconds_since(began);
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    const tg::time_span spin =
        asked.shape == ping_pong::awake ? tg::time_span(1s) : tg::time_span(0ns);
    const auto run = [&](tg::task<> (*trips)(std::uint64_t)) {
        tg::runtime runtime{{.cores = 2, .cpus = {0, 1}, .spin = spin}};
        return ping_pong::sample(asked, runtime.run(timed(trips, asked.size)));
    };
    return contest::answer(asked, {{"token", [&] { return run(travel); }},
                                   {"event", [&] { return run(play); }}});
}
