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

/// The runtime as its owner and its operator use it: it begins, is lent a thread, is controlled,
/// and ends. See life_cycle.cpp and gate_control.cpp. Its base in shared.hpp is all that executors
/// use.

namespace tokengate::detail {

struct runtime_core final : shared_state {
    runtime_core(runtime_options&& chosen, core_layout layout);
    ~runtime_core() override;

    void control_opened() noexcept override { services_.open(); }
    [[nodiscard]] bool may_end() noexcept override { return services_.close(); }

    // Called by the owner; stop also by any other thread.
    void run_main(promise_base& main);
    void start();
    stop_report stop(std::chrono::nanoseconds deadline, std::chrono::nanoseconds grace);
    [[nodiscard]] task<stop_report> stop_others(std::chrono::nanoseconds deadline,
                                                std::chrono::nanoseconds grace);
    void submit(token_record& token);
    /// The live tokens. With `services`, also those of services and of detached tasks.
    [[nodiscard]] std::vector<token_info> tokens(bool services = true) const;
    [[nodiscard]] service_desk& services() noexcept { return services_; }

    // Called by gate_control; see gate_control.cpp.
    void pause(const selection& what);
    bool resume(const selection& what);
    void lift_holds_for_good();
    /// Adds the drain's rule. `marks` separates the tokens that must end from later ones.
    void begin_drain(const selection& what, const sequence_marks& marks);
    [[nodiscard]] std::size_t kill(const selection& what, std::string_view reason);
    /// The live tokens that `what` selects and that were made before `made_before`.
    [[nodiscard]] std::vector<token_info> alive(const selection& what,
                                                const sequence_marks& made_before) const;

private:
    struct stop_hook : hook {
        runtime_core* of;
    };
    struct release_hook : hook {
        runtime_core* of;
        std::mutex mutex;  // guards the queue
        hook_queue freed;  // released tokens on their way back to the gate
        /// The thread that posts the hook exchanges it (acq_rel) to true. The control loop
        /// exchanges it (acq_rel) to false before it takes the queue.
        std::atomic<bool> under_way{false};
    };

    void holds_changed(hook_queue& freed) noexcept;
    void release(hook_queue& freed) noexcept;
    void release_some() noexcept;
    void settle_attention() noexcept;
    void begin_to_stop(bool for_ever);
    class insider;
    /// Called under lifecycle_: the tokens inside stop_others, and their awaiters.
    [[nodiscard]] std::vector<const token_record*> insiders();
    [[nodiscard]] bool only_insiders_are_left();
    [[nodiscard]] stop_report outsiders();
    void ask_everything_to_stop() noexcept;

    /// While an object of it lives, its thread hosts the control loop.
    class hosting {
    public:
        explicit hosting(runtime_core& of);
        ~hosting();
        hosting(const hosting&) = delete;
        hosting& operator=(const hosting&) = delete;

    private:
        runtime_core& of_;
    };

    void check_hostable() const;  // called under `lifecycle_`
    void leave_control() noexcept;
    void serve_until(std::chrono::steady_clock::time_point until);
    void join_executors() noexcept;

    // Both post to loops, so they are destroyed before the executors.
    signal_desk signals_{*this};
    service_desk services_{*this};

    std::mutex lifecycle_;          // guards the plain members below and the thread
    std::condition_variable left_;  // notified when the control loop's host has left it
    bool hosted_ = false;
    bool stop_posted_ = false;
    std::vector<const token_record*> inside_;  // the tokens suspended in stop_others
    /// The control loop stores it (release) when it has taken all mail from before the stop.
    /// only_insiders_are_left loads it (acquire); `stop` polls it (relaxed).
    std::atomic<bool> stop_seen_{false};
    bool stopped_ = false;  // all threads have been joined
    bool all_asked_ = false;
    stop_hook stop_;
    release_hook release_;
    /// Orders the changes of `holding`: it is not cleared while another thread sets it.
    std::mutex attention_change_;

    std::thread control_thread_;  // set by start()
};

/// Checks the options and fills in those that the user left open. Throws configuration_error.
[[nodiscard]] core_layout settle(runtime_options& options);

}  // namespace tokengate::detail
