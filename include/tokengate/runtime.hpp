// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/admission.hpp>
#include <tokengate/detail/promise.hpp>
#include <tokengate/error.hpp>
#include <tokengate/gate.hpp>
#include <tokengate/runtime_options.hpp>
#include <tokengate/task.hpp>
#include <tokengate/time_span.hpp>
#include <tokengate/token.hpp>
#include <tokengate/token_info.hpp>

#include <chrono>
#include <concepts>
#include <cstdint>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

/// A runtime is a pinned executor on every CPU that the process may use, and a control loop.
/// Several runtimes may live side by side.
///
///     tg::runtime runtime;  // in a program: this thread hosts the control loop
///     int status = runtime.run([]() -> tg::task<int> { co_return co_await twice(21); });
///
///     tg::runtime runtime{{.cores = 8}};  // in a server that has its threads: embed it
///     runtime.start();
///     std::future<int> done = runtime.submit(twice(21));  // from any thread but the runtime's own
///     tg::stop_report left = runtime.stop(5s);
///
/// Thread safety: `submit`, `stop`, `gate`, `tokens`, `snapshot`, `metrics` and `trace` may be
/// called from any thread, `submit` and `stop` with the exceptions below. The owner constructs and
/// destroys the runtime and calls `run` and `start`. A token awaits `stop_others`.
///
/// Lifetime: The runtime must outlive its gate_controls and consoles. The destructor waits for all
/// tokens that the runtime has admitted.
///
/// Errors: Each is thrown before anything has happened.
/// * From the constructor: configuration_error for an invalid option, ring_unavailable if the
///   kernel does not grant the rings.
/// * From `run` and `start`: wrong_thread on the thread of an event loop, and if the runtime runs
///   already; gate_closed once it is stopping. `run` also throws already_awaited for an empty task.
/// * From `submit`: wrong_thread on a thread of this runtime, wrong_runtime for a token that
///   inherited a seed in another one. already_awaited for an empty handle or an admitted token,
///   admission_rejected if the backlog is full and its policy is reject, gate_closed once the
///   runtime is stopping.
/// * From `stop`: wrong_thread on the thread of an event loop, and in a report of a stall.
/// * From `stop_others`: wrong_runtime outside of this runtime's own tokens.
///
/// Stop: A stop does not end the wait of `stop_others`; the token is notified of it after the
/// report.

namespace tokengate {

namespace detail {
struct runtime_access;
}

class runtime {
public:
    explicit runtime(runtime_options options = {});
    runtime(const runtime&) = delete;
    runtime& operator=(const runtime&) = delete;
    /// Stops, with a grace of 5 s, and waits for the survivors. A warning names them every 10 s.
    ~runtime();

    /// Runs a coroutine to its end as the main token on this thread, then serves until everything
    /// that it left detached has ended. Takes a task, or a callable that returns one. May be called
    /// again.
    template <class T>
    T run(task<T> main);
    template <std::invocable Main>
    decltype(auto) run(Main main) {
        return run(main());  // `main` outlives the coroutine, and so do its captures
    }

    /// Hosts the control loop on a thread of its own.
    void start();

    /// Admits a token from a foreign thread. The future always gets the result or the exception;
    /// the failure handler does not get that exception. If the call throws, the token stays with
    /// the caller.
    template <class T>
    [[nodiscard]] std::future<T> submit(token<T>&& work);

    /// Closes the gate to submissions, waits until everything admitted has ended, and ends the
    /// threads. `deadline` and `grace` are timeouts.
    ///
    /// * When the grace is over, the tokens that are left are asked to stop, and those that have
    ///   not started never start.
    /// * When the deadline is over, the call returns and names the survivors, which run on. It may
    ///   be called again.
    /// * If no grace is given, it is half of the deadline; without a deadline it never ends, and
    ///   all ends by itself.
    /// * Without a deadline, the gate releases the tokens that it holds, which would never end.
    ///
    /// Blocks; on the thread of an event loop it throws wrong_thread.
    stop_report stop(time_span deadline = time_span::max(), std::optional<time_span> grace = {});

    /// The same from inside, for a body that ends the program that it is part of. It does not wait
    /// for the body itself, nor for the token's awaiters, and reports the others that are left. The
    /// body is asked to stop like all others, but is notified of that after the report. Several
    /// bodies may wait for the others at once. The runtime ends when they have ended; its threads
    /// end with `run`, `stop` or the destructor. Awaited by a token of another runtime, it throws
    /// wrong_runtime.
    ///
    ///     const tg::operation shut_down{
    ///         {.name = "shut_down"}, [](tg::runtime* runtime) -> tg::task<> {
    ///             const tg::stop_report left = co_await runtime->stop_others(5s); … }};
    [[nodiscard]] task<stop_report> stop_others(time_span deadline = time_span::max(),
                                                std::optional<time_span> grace = {});

    /// Lists every token that this runtime has admitted and that has not ended. It also lists the
    /// tokens that were made on its threads and are not admitted yet (`created`). It halts no
    /// thread; it scans every frame.
    [[nodiscard]] std::vector<token_info> tokens() const;
    /// The counts of this runtime, which may be polled while it runs.
    [[nodiscard]] tokengate::snapshot snapshot() const;
    /// The counts, gauges and histograms of this runtime in Prometheus' text format (version
    /// 0.0.4). Serve it as `text/plain; version=0.0.4`. It has the values of `snapshot`, of the
    /// gate, the cores and the memory; with runtime_options::metrics also every operation on every
    /// core. It is cheap enough to poll: it reads the threads' own counts, and waits for no thread.
    /// Throws std::bad_alloc. docs/how-to/watch.md explains the names.
    [[nodiscard]] std::string metrics() const;

    /// Which token ran where and which token spawned it, as far as the threads keep events
    /// (runtime_options::trace_events). The format is Chrome's trace event format: JSON to open in
    /// ui.perfetto.dev or chrome://tracing. It halts no thread, and takes memory in proportion to
    /// the events, some 300 bytes each.
    [[nodiscard]] std::string trace() const;

    /// The controls for operators while the runtime runs; see gate.hpp.
    [[nodiscard]] gate_control gate() noexcept { return gate_control(*core_); }

    [[nodiscard]] unsigned cores() const noexcept;
    [[nodiscard]] unsigned executors() const noexcept;

private:
    friend detail::runtime_access;

    void run_main(detail::promise_base& main);
    void submit_record(detail::token_record& token);

    std::unique_ptr<detail::runtime_core, void (*)(detail::runtime_core*)> core_;
};

namespace detail {

/// Is notified of the end of a submitted token, on the core where it ended, and fulfils the future.
template <class T>
struct submission final : waiter {
    explicit submission(std::coroutine_handle<detail::promise<T>> submitted) noexcept
        : waiter{&fulfil, nullptr, nullptr}, coroutine(submitted) {}

    static void fulfil(token_record&, waiter& self) noexcept {
        std::unique_ptr<submission> mine(static_cast<submission*>(&self));
        // The frame is destroyed before the future is ready: the thread that waits for the future
        // may then destroy the operation.
        const auto destroy_frame = [&] { std::exchange(mine->coroutine, nullptr).destroy(); };
        try {
            if constexpr (std::is_void_v<T>) {
                mine->coroutine.promise().take();
                destroy_frame();
                mine->result.set_value();
            } else {
                T value = mine->coroutine.promise().take();
                destroy_frame();
                mine->result.set_value(static_cast<T&&>(value));
            }
        } catch (...) {
            if (mine->coroutine) destroy_frame();  // else the move of the result has thrown
            mine->result.set_exception(std::current_exception());
        }
    }

    std::coroutine_handle<detail::promise<T>> coroutine;
    std::promise<T> result;
};

}  // namespace detail

template <class T>
T runtime::run(task<T> main) {
    auto coroutine = detail::task_access::release(std::move(main));
    if (!coroutine) detail::throw_empty_task();
    struct frame {
        std::coroutine_handle<detail::promise<T>> held;
        ~frame() { held.destroy(); }
    } owned{coroutine};
    run_main(coroutine.promise());
    return coroutine.promise().take();
}

template <class T>
std::future<T> runtime::submit(token<T>&& work) {
    if (!work.valid()) detail::throw_already_awaited();
    detail::token_record& token = detail::token_access::record(work);
    if (detail::token_access::admitted(work)) detail::throw_already_admitted(token);
    auto waiting = std::make_unique<detail::submission<T>>(detail::token_access::handle_of(work));
    std::future<T> result = waiting->result.get_future();
    token.owner = reinterpret_cast<std::uintptr_t>(static_cast<detail::waiter*>(waiting.get()));
    try {
        submit_record(token);
    } catch (...) {
        token.owner = detail::owner_unclaimed;
        throw;
    }
    static_cast<void>(waiting.release());  // fulfil() owns both from here on
    static_cast<void>(detail::token_access::release(work));
    return result;
}

}  // namespace tokengate
