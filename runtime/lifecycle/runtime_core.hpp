// SPDX-License-Identifier: MIT
#pragma once

#include "await/signal_desk.hpp"
#include "executor/shared.hpp"
#include "lifecycle/service.hpp"

#include <tokengate/error.hpp>
#include <tokengate/gate.hpp>
#include <tokengate/task.hpp>
#include <tokengate/token_info.hpp>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

/// A runtime as its owner and its operator have it: how it begins, is lent a thread, is steered and ends; see life_cycle.cpp and
/// gate_control.cpp. What its executors know of it is below, in shared.hpp.

namespace tokengate::detail {

struct runtime_core final : shared_state {
    runtime_core(runtime_options&& chosen, core_layout layout);
    ~runtime_core() override;

    void control_opened() noexcept override { services_.open(); }
    [[nodiscard]] bool may_end() noexcept override { return services_.close(); }

    // The owner's calls, and stop from any thread.
    void run_main(promise_base& main);
    void start();
    stop_report stop(std::chrono::nanoseconds deadline, std::chrono::nanoseconds grace);
    [[nodiscard]] task<stop_report> stop_others(std::chrono::nanoseconds deadline,
                                                std::chrono::nanoseconds grace);
    void submit(token_record& token);
    /// `services`: also those, and what works for them.
    [[nodiscard]] std::vector<token_info> tokens(bool services = true) const;
    [[nodiscard]] service_desk& services() noexcept { return services_; }

    // What gate_control says; gate_control.cpp.
    void pause(const selection& what);
    bool resume(const selection& what);
    void lift_holds_for_good();
    /// Begins to drain; `marks` says who is to end.
    void begin_drain(const selection& what, const sequence_marks& marks);
    [[nodiscard]] std::size_t kill(const selection& what, std::string_view reason);
    /// Tokens alive that are meant and had been made by then.
    [[nodiscard]] std::vector<token_info> alive(const selection& what,
                                                const sequence_marks& made_before) const;

private:
    struct stop_hook : hook {
        runtime_core* of;
    };
    struct release_hook : hook {
        runtime_core* of;
        std::mutex mutex;  // guards the queue
        hook_queue freed;  // held ones that have been let go, on their way back to the gate
        /// Exchanged (acq_rel) to true by whoever posts the hook, to false by the control loop before it looks.
        std::atomic<bool> under_way{false};
    };

    void holds_changed(hook_queue& freed) noexcept;
    void release(hook_queue& freed) noexcept;
    void release_some() noexcept;
    void settle_attention() noexcept;
    void begin_to_stop(bool for_ever);
    class insider;
    /// Under lifecycle_: those inside of stop_others and who waits for them.
    [[nodiscard]] std::vector<const token_record*> insiders();
    [[nodiscard]] bool only_insiders_are_left();
    [[nodiscard]] stop_report outsiders();
    void ask_everything_to_stop() noexcept;

    /// While it lives, this thread hosts the control loop.
    class hosting {
    public:
        explicit hosting(runtime_core& of);
        ~hosting();
        hosting(const hosting&) = delete;
        hosting& operator=(const hosting&) = delete;

    private:
        runtime_core& of_;
    };

    void check_hostable() const;  // under `lifecycle_`
    void leave_control() noexcept;
    void serve_until(std::chrono::steady_clock::time_point until);
    void join_executors() noexcept;

    // These post to loops, and therefore go before the executors.
    signal_desk signals_{*this};
    service_desk services_{*this};

    std::mutex lifecycle_;          // guards what follows
    std::condition_variable left_;  // notified when the control loop's host has left it
    bool hosted_ = false;
    bool stop_posted_ = false;
    std::vector<const token_record*> inside_;  // of stop_others; suspended there
    /// Stored by the control loop (release) when it has taken all mail from before the stop; loaded by those who wait for
    /// the end (acquire).
    std::atomic<bool> stop_seen_{false};
    bool stopped_ = false;  // all threads have been joined
    bool all_asked_ = false;
    stop_hook stop_;
    release_hook release_;
    std::mutex attention_change_;  // so that `holding` is not lowered while somebody raises it

    std::thread control_thread_;  // after start()
};

/// Fills in what the user left open. Throws configuration_error.
[[nodiscard]] core_layout settle(runtime_options& options);

}  // namespace tokengate::detail
