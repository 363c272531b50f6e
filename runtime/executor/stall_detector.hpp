// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/relaxed.hpp>
#include <tokengate/stall.hpp>

#include <pthread.h>
#include <semaphore.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

/// Polls the loops of one runtime. If a turn of a loop lasts too long, asks the loop's thread what
/// it runs.
///
///     stall_detector stalls(runtime);  // may throw configuration_error: the signal is in use
///     stalls.enter(position);          // a thread begins to run a loop …
///     stalls.start();
///     stalls.leave(position);          // … and ends
///     stalls.stop();                   // before the last executor's thread is joined
///
/// # How a thread is asked
///
/// Only a thread itself knows what it runs, in plain fields. So the thread itself answers, in the
/// handler of a signal. There is one question at a time, in one word. The detector writes *asked*
/// with the position, sends the signal, and waits. If the word names the handler's own position,
/// the handler exchanges *asked* for *answering*, fills in the answer, and writes *answered*. If
/// the detector has waited too long, it exchanges *asked* for *nothing*. A handler that comes late
/// finds another word and does nothing. The answer names the turn in which it was given: if the
/// loop has begun another turn meanwhile, there is no stall.
///
/// The handler reads the current token's record. The record must therefore be alive while its token
/// is the current one: a token that ends clears `current` first (end_elsewhere).
///
/// A turn ends by itself after the first measured resumption that ends beyond 200 µs, and after 128
/// short ones, which take 6.4 ms at most. So if a turn has lasted for `shortest_threshold`, the
/// resumption at hand holds it. Children in place run inside that resumption. The executor counts
/// them: after a report, the detector reports the same turn again only if a later child has held it
/// for as long.

namespace tokengate::detail {

struct operation_record;
struct shared_state;

class stall_detector {
public:
    static constexpr std::chrono::milliseconds shortest_threshold{10};

    /// Takes the signal. Throws configuration_error if it cannot.
    explicit stall_detector(shared_state& of);
    ~stall_detector();
    stall_detector(const stall_detector&) = delete;
    stall_detector& operator=(const stall_detector&) = delete;

    // ---- the owner ----

    void start();
    /// Waits for a report that is under way. Not on the detector's own thread.
    void stop() noexcept;

    // ---- any thread ----

    [[nodiscard]] bool on_own_thread() const noexcept;
    [[nodiscard]] std::uint64_t looks() const noexcept { return looks_.load(); }

    // ---- the thread of the loop ----

    void enter(unsigned position) noexcept;
    void leave(unsigned position) noexcept;
    /// Called by the signal handler.
    void answer(const core_context& core, const void* machine_context) noexcept;

private:
    static constexpr int deepest = 48;

    struct loop_state {
        std::optional<pthread_t> thread;  // under `threads_`: a listed thread is alive
        bool was_blocked = false;  // whether that thread had blocked the signal; only it uses this
        // The detector's own: the turn of the last report, the number of children that had run in
        // place by then, and since when a later child has run.
        std::uint64_t reported_turn = 0;
        std::uint64_t reported_in_place = 0;
        std::uint64_t in_place = 0;
        std::uint64_t in_place_since_ns = 0;
    };

    struct sighting {
        std::uint64_t turn_ns;
        const operation_record* operation;  // null: no token runs
        std::uint64_t created_ns;
        std::uint64_t sequence;
        const void* interrupted_at;
        int depth;
        std::array<void*, deepest> frames;
    };

    void watch() noexcept;
    void look(std::uint64_t now_ns);
    void look_at(unsigned position, std::uint64_t turn_ns, std::uint64_t since_ns);
    [[nodiscard]] bool ask(unsigned position) noexcept;
    [[nodiscard]] bool send_signal(unsigned position) noexcept;
    void tell(const stall_report& seen) const;
    [[nodiscard]] std::vector<std::string> backtrace_of(const sighting& seen) const;
    bool wait_until(std::uint64_t steady_ns) noexcept;

    shared_state& of_;
    const std::uint64_t threshold_ns_;
    const std::uint64_t period_ns_;
    const int signal_;

    std::mutex threads_;
    std::vector<loop_state> loops_;  // by position

    /// A phase, and the position above it: see the head of this file. Its release stores and
    /// acquire loads publish `answer_` and give it to one thread at a time.
    std::atomic<std::uint32_t> question_{0};
    sighting answer_{};
    sem_t news_;  // posted by the handler when it has answered, and by `stop`
    std::atomic<bool> stopping_{
        false};  // stored by `stop`, which then posts; loaded by the detector (relaxed)
    relaxed<std::uint64_t> looks_{};
    std::thread thread_;
};

}  // namespace tokengate::detail
