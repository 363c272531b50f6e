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

/// The runtime: a pinned executor on every CPU the process may use, and a control loop.
///
///     tg::runtime runtime;                               // in a program: this thread hosts the control loop
///     int status = runtime.run([]() -> tg::task<int> { co_return co_await twice(21); });
///
///     tg::runtime runtime{{.cores = 8}};                 // in a server that has its threads: embed it
///     runtime.start();
///     std::future<int> done = runtime.submit(twice(21)); // from any thread but the runtime's own
///     tg::stop_report left = runtime.stop(5s);
///
/// Thread safety: `submit`, `stop`, `tokens`, `snapshot`, `metrics`, `trace` from any thread; construction, `run`, `start` and
/// destruction by the owner. Several runtimes may live side by side. Errors: configuration_error and ring_unavailable
/// from the constructor; gate_closed, admission_rejected, wrong_thread, wrong_runtime, already_awaited from the calls, each
/// before anything has happened.

namespace tokengate {

namespace detail {
struct runtime_access;
}

class runtime {
public:
    explicit runtime(runtime_options options = {});
    runtime(const runtime&) = delete;
    runtime& operator=(const runtime&) = delete;
    /// Stops, with a grace of 5 s, and waits for survivors; says who they are every 10 s.
    ~runtime();

    /// Runs a coroutine to its end as the main token on this thread, then serves until everything it left detached has
    /// ended. Takes a task, or a callable that returns one. May be called again.
    template <class T>
    T run(task<T> main);
    template <std::invocable Main>
    decltype(auto) run(Main main) {
        return run(main());  // `main` outlives the coroutine, so its captures do
    }

    /// Hosts the control loop on a thread of its own.
    void start();

    /// Admits a token from a foreign thread. The future is always fulfilled: with the result or the exception, which
    /// then is the future's, not the failure handler's. A token that is refused stays with the caller.
    template <class T>
    [[nodiscard]] std::future<T> submit(token<T>&& work);

    /// Closes the gate to new submissions, lets everything admitted end, and ends the threads. What has not ended when the
    /// grace is over is asked to stop, and what has not started then never starts; what has not ended by the deadline is
    /// reported and goes on; `stop` may be called again. Without a deadline nothing is asked, and all ends by itself. The
    /// grace is half the deadline unless given. Blocks; on an event loop's thread: wrong_thread.
    stop_report stop(time_span deadline = time_span::max(), std::optional<time_span> grace = {});

    /// The same from inside, for a body that ends the program it is part of: does not wait for the body itself, nor for whoever
    /// awaits it, and reports who else is left. It is asked to stop like all others, but hears of that after the report.
    /// Several bodies may wait for the others at once. The runtime ends when they have ended; its threads, with `run`, `stop`
    /// or the destructor. Awaited by a token of another runtime: wrong_runtime.
    ///
    ///     const tg::operation shut_down{{.name = "shut_down"}, [](tg::runtime* runtime) -> tg::task<> {
    ///         const tg::stop_report left = co_await runtime->stop_others(5s); … }};
    [[nodiscard]] task<stop_report> stop_others(time_span deadline = time_span::max(),
                                                std::optional<time_span> grace = {});

    /// Every token that this runtime has admitted and that has not ended, and those `created` on its threads that nobody has
    /// admitted yet. Nothing is stopped for it; it looks at every frame there is.
    [[nodiscard]] std::vector<token_info> tokens() const;
    [[nodiscard]] tokengate::snapshot snapshot() const;
    /// The counts, gauges and histograms of this runtime in Prometheus' text format (version 0.0.4), to be served as
    /// `text/plain; version=0.0.4`: what `snapshot` has, the gate, cores and memory; with runtime_options::metrics also
    /// every operation on every core. Cheap enough to poll: it reads what threads count by themselves, and waits for none of
    /// them. Throws std::bad_alloc. docs/how-to/watch.md explains the names.
    [[nodiscard]] std::string metrics() const;

    /// What ran where and who spawned whom, as far as the threads remember it (runtime_options::trace_events), in Chrome's
    /// trace event format: JSON to open in ui.perfetto.dev or chrome://tracing. Nothing is stopped for it. Takes memory in
    /// proportion to what is remembered, some 300 bytes an event.
    [[nodiscard]] std::string trace() const;

    /// What can be turned while it runs.
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

/// Hears the end of a submitted token, on the core where it ended, and fulfils the future.
template <class T>
struct submission final : waiter {
    explicit submission(std::coroutine_handle<detail::promise<T>> submitted) noexcept
        : waiter{&fulfil, nullptr, nullptr}, coroutine(submitted) {}

    static void fulfil(token_record&, waiter& self) noexcept {
        std::unique_ptr<submission> mine(static_cast<submission*>(&self));
        // The frame goes before the future is ready: who waits for it may then destroy the operation.
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
            if (mine->coroutine) destroy_frame();  // else it was the result's own move that threw
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
    static_cast<void>(waiting.release());  // fulfil() has them both
    static_cast<void>(detail::token_access::release(work));
    return result;
}

}  // namespace tokengate
