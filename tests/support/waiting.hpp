// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/task.hpp>
#include <tokengate/time.hpp>
#include <tokengate/token.hpp>

#include <atomic>
#include <thread>

/// How tests wait until something is so, and see to it that it is not.
///
///     wait_until([&] { return started == 3; });             // a thread without a loop
///     co_await until([&] { return started == 3; });         // a body; others of its loop run meanwhile
///     co_await begun(token);

namespace tokengate::test {

template <class Condition>
void wait_until(Condition condition) {
    while (!condition()) std::this_thread::yield();
}

template <class Condition>
task<> until(Condition condition) {
    while (!condition()) co_await yield();
}

/// Until the token has started; one of this loop then waits somewhere.
template <class T>
task<> begun(const token<T>& token) {
    while (detail::token_access::record(token).state.load() < token_state::executing)
        co_await yield();
}

/// What holds a core, or several, until it is let go.
struct blockade {
    std::atomic<int> blocking{0};
    std::atomic<bool> go{false};

    void wait() {
        ++blocking;
        go.wait(false);
    }
    void until(int blocked) {
        while (blocking < blocked) std::this_thread::yield();
    }
    void end() {
        go = true;
        go.notify_all();
    }
    ~blockade() { end(); }
};

}  // namespace tokengate::test
