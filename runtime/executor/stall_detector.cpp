// SPDX-License-Identifier: MIT
#include "executor/stall_detector.hpp"

#include "base/quoted.hpp"
#include "executor/shared.hpp"

#include <tokengate/error.hpp>

#include <cxxabi.h>
#include <dlfcn.h>
#include <execinfo.h>
#include <signal.h>
#include <ucontext.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <span>
#include <string_view>

namespace tokengate {

std::string stall_report::line() const {
    std::string text;
    if (!id.operation.empty())
        text = "token " + id.text() + " of operation " + std::string(id.operation);
    else if (!backtrace.empty())
        text = "something that is no token";
    else
        text = "something unknown, whose thread did not answer,";
    text += " has held ";
    text += core == control_core ? "the control loop" : "core " + std::to_string(core);
    text += " for " +
            std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(held).count()) +
            " ms";
    const char* between = ": ";
    for (const std::string& frame : backtrace) {
        text += between + frame;
        between = " < ";
    }
    return detail::on_one_line(text);
}

namespace detail {

namespace {

static_assert(std::atomic<std::uint32_t>::is_always_lock_free,
              "the handler of a signal must not lock");

// Phases of stall_detector::question_.
constexpr std::uint32_t nothing = 0;
constexpr std::uint32_t asked = 1;
constexpr std::uint32_t answering = 2;
constexpr std::uint32_t answered = 3;

constexpr std::uint32_t at(unsigned position, std::uint32_t phase) noexcept {
    return position << 2 | phase;
}

constexpr std::uint64_t longest_period_ns = 3'600'000'000'000;
/// If a thread cannot run its handler for so long (it waits for a disk, for example), it is
/// reported without an answer.
constexpr std::uint64_t patience_ns = 1'000'000'000;

thread_local const stall_detector* watched_by_this_thread = nullptr;

/// The signal handler: on any thread, in the midst of anything.
void on_signal(int, siginfo_t*, void* machine_context) {
    const int interrupted_errno = errno;
    // Set while the thread runs a loop; the runtime of that loop lives meanwhile.
    if (const core_context* core = this_core;
        core && core->host && core->runtime && core->runtime->stalls)
        core->runtime->stalls->answer(*core, machine_context);
    errno = interrupted_errno;
}

bool is_ours(const struct ::sigaction& now) noexcept {
    return (now.sa_flags & SA_SIGINFO) && now.sa_sigaction == &on_signal;
}

bool is_free(const struct ::sigaction& now) noexcept {
    return !(now.sa_flags & SA_SIGINFO) && now.sa_handler == SIG_DFL;
}

std::mutex taking;  // serializes two runtimes that choose a signal

/// A signal once taken is never given back: a signal still in flight would end the process.
bool take(int signal) {
    struct ::sigaction now{};
    if (::sigaction(signal, nullptr, &now) != 0) return false;
    if (is_ours(now)) return true;
    if (!is_free(now)) return false;
    struct ::sigaction ours{};
    ours.sa_sigaction = &on_signal;
    ours.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
    ::sigfillset(&ours.sa_mask);
    return ::sigaction(signal, &ours, nullptr) == 0;
}

int take_signal(int wanted) {
    void* frame;
    ::backtrace(&frame, 1);  // the first call loads a library, which a handler must not do
    const std::scoped_lock lock(taking);
    if (wanted != 0) {
        // The handler of a fault would return to the fault.
        const bool may_be =
            wanted != SIGSEGV && wanted != SIGBUS && wanted != SIGFPE && wanted != SIGILL;
        if (may_be && take(wanted)) return wanted;
        throw configuration_error(
            "configuration_error: runtime_options.stall.signal is " + std::to_string(wanted) +
            ", which cannot be caught, or which this process handles or ignores already: choose "
            "another, or 0 for one that is free");
    }
    constexpr int usual = 7;
    const int count = SIGRTMAX - SIGRTMIN + 1;
    for (int i = 0; i < count; ++i)
        if (const int signal = SIGRTMIN + (usual + i) % count; take(signal)) return signal;
    throw configuration_error(
        "configuration_error: runtime_options.stall: this process handles every real-time signal "
        "already: name another "
        "in stall.signal, or leave stall.threshold at 0");
}

const void* interrupted_in(const void* machine_context) noexcept {
    const auto& registers = static_cast<const ucontext_t*>(machine_context)->uc_mcontext;
#if defined(__x86_64__)
    return reinterpret_cast<const void*>(registers.gregs[REG_RIP]);
#elif defined(__aarch64__)
    return reinterpret_cast<const void*>(registers.pc);
#else
    static_cast<void>(registers);
    return nullptr;
#endif
}

std::string in_hex(std::uintptr_t number) {
    char digits[2 * sizeof number + 3];
    std::snprintf(digits, sizeof digits, "%#zx", static_cast<std::size_t>(number));
    return digits;
}

/// `function (file+offset)`; parts that are not known are left out.
std::string describe(const void* address) {
    const auto number = reinterpret_cast<std::uintptr_t>(address);
    Dl_info found{};
    if (::dladdr(address, &found) == 0 || !found.dli_fname) return in_hex(number);
    std::string_view file = found.dli_fname;
    if (const auto slash = file.rfind('/'); slash != std::string_view::npos)
        file.remove_prefix(slash + 1);
    const std::string place = std::string(file) + "+" +
                              in_hex(number - reinterpret_cast<std::uintptr_t>(found.dli_fbase));
    if (!found.dli_sname) return place;
    int status = 0;
    const std::unique_ptr<char, void (*)(void*)> readable(
        abi::__cxa_demangle(found.dli_sname, nullptr, nullptr, &status), std::free);
    return (readable ? readable.get() : found.dli_sname) + (" (" + place + ")");
}

}  // namespace

stall_detector::stall_detector(shared_state& of)
    : of_(of),
      threshold_ns_(static_cast<std::uint64_t>(of.options.stall.threshold.count())),
      period_ns_(std::min(threshold_ns_ / 2, longest_period_ns)),
      signal_(take_signal(of.options.stall.signal)),
      loops_(of.executors.size()) {
    ::sem_init(&news_, 0, 0);
}

stall_detector::~stall_detector() {
    stop();
    ::sem_destroy(&news_);
}

void stall_detector::start() {
    sigset_t all, before;
    ::sigfillset(&all);
    // The detector's thread inherits the mask: the process's signals are for other threads.
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
        thread_ = std::thread([this] { watch(); });
    } catch (...) {
        ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
        throw;
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void stall_detector::stop() noexcept {
    if (!thread_.joinable()) return;
    stopping_.store(true, std::memory_order_relaxed);
    ::sem_post(&news_);
    thread_.join();
}

// ---- scanning -----------------------------------------------------------------------------------

bool stall_detector::on_own_thread() const noexcept { return watched_by_this_thread == this; }

void stall_detector::watch() noexcept {
    watched_by_this_thread = this;
    ::pthread_setname_np(::pthread_self(), "tokengate-stall");
    for (;;) {
        const std::uint64_t next_ns = event_loop::steady_ns() + period_ns_;
        while (wait_until(next_ns) && !stopping_.load(std::memory_order_relaxed)) {}
        if (stopping_.load(std::memory_order_relaxed)) return;
        try {
            look(event_loop::steady_ns());
        } catch (const std::exception& thrown) {
            of_.warn(std::string("a stall could not be reported: ") + thrown.what());
        } catch (...) {
            of_.warn(
                "a stall could not be reported: something was thrown that is no std::exception");
        }
        looks_.add(1);
    }
}

/// False once the time has come; true when there may be an answer or a stop.
bool stall_detector::wait_until(std::uint64_t steady_ns) noexcept {
    const timespec until{static_cast<time_t>(steady_ns / 1'000'000'000),
                         static_cast<long>(steady_ns % 1'000'000'000)};
    return ::sem_clockwait(&news_, CLOCK_MONOTONIC, &until) == 0 || errno == EINTR;
}

void stall_detector::look(std::uint64_t now_ns) {
    for (unsigned position = 0; position < loops_.size(); ++position) {
        const executor& at = *of_.executors[position];
        loop_state& known = loops_[position];
        const std::uint64_t turn_ns = at.loop.turn_began_ns();
        if (turn_ns == 0) continue;
        std::uint64_t since_ns = turn_ns;
        const std::uint64_t in_place = at.counts().in_place.load();
        if (turn_ns == known.reported_turn) {
            if (in_place == known.reported_in_place) continue;
            if (in_place != known.in_place) {
                known.in_place = in_place;
                known.in_place_since_ns = now_ns;
            }
            since_ns = known.in_place_since_ns;
        }
        if (now_ns > since_ns && now_ns - since_ns > threshold_ns_) {
            known.in_place = known.reported_in_place = in_place;
            look_at(position, turn_ns, since_ns);
        }
    }
}

void stall_detector::look_at(unsigned position, std::uint64_t turn_ns, std::uint64_t since_ns) {
    const event_loop& loop = of_.executors[position]->loop;
    const bool has_answered = ask(position);
    if (stopping_.load(std::memory_order_relaxed)) return;
    // The loop has begun another turn.
    if ((has_answered ? answer_.turn_ns : loop.turn_began_ns()) != turn_ns) return;
    // Before the report: a report that fails is not tried again.
    loops_[position].reported_turn = turn_ns;
    stall_report seen;
    seen.core = of_.core_of(position);
    seen.held = std::chrono::nanoseconds(event_loop::steady_ns() - since_ns);
    if (has_answered) {
        if (answer_.operation)
            seen.id = {answer_.operation->name, answer_.created_ns, answer_.sequence};
        seen.backtrace = backtrace_of(answer_);
    }
    tell(seen);
}

void stall_detector::tell(const stall_report& seen) const {
    if (of_.options.stall.report)
        of_.options.stall.report(seen);
    else
        of_.warn(seen.line());
}

std::vector<std::string> stall_detector::backtrace_of(const sighting& seen) const {
    const auto frames = std::span(seen.frames).first(static_cast<std::size_t>(seen.depth));
    // Above the interrupted frame are the handler's own: at least the handler itself, and the frame
    // that the kernel returns to from it.
    auto first = std::find(frames.begin(), frames.end(), seen.interrupted_at);
    const bool found = first != frames.end();
    if (!found) first = frames.begin() + std::min<std::ptrdiff_t>(2, seen.depth);
    std::vector<std::string> text;
    for (auto each = first; each != frames.end(); ++each) {
        // A return address may belong to the next function already; the call is before it.
        const bool exact = found && each == first;
        text.push_back(describe(static_cast<const char*>(*each) - (exact ? 0 : 1)));
    }
    return text;
}

// ---- asking -------------------------------------------------------------------------------------

bool stall_detector::ask(unsigned position) noexcept {
    question_.store(at(position, asked), std::memory_order_release);
    const std::uint64_t until_ns = event_loop::steady_ns() + patience_ns;
    bool waiting = send_signal(position);
    while (waiting && question_.load(std::memory_order_acquire) != at(position, answered) &&
           !stopping_.load(std::memory_order_relaxed))
        waiting = wait_until(until_ns);
    std::uint32_t found = at(position, asked);
    if (question_.compare_exchange_strong(found, nothing, std::memory_order_acq_rel)) return false;
    // The handler has begun to answer, or has answered. It waits for no other thread.
    while (question_.load(std::memory_order_acquire) != at(position, answered))
        while (::sem_wait(&news_) != 0) {}
    question_.store(nothing, std::memory_order_relaxed);
    return true;
}

bool stall_detector::send_signal(unsigned position) noexcept {
    const std::scoped_lock lock(threads_);  // a thread in the list cannot leave now
    const auto& thread = loops_[position].thread;
    return thread && ::pthread_kill(*thread, signal_) == 0;
}

void stall_detector::answer(const core_context& core, const void* machine_context) noexcept {
    std::uint32_t question = at(core.position, asked);
    if (!question_.compare_exchange_strong(question, at(core.position, answering),
                                           std::memory_order_acq_rel))
        return;
    answer_.turn_ns = core.runtime->executors[core.position]->loop.turn_began_ns();
    const token_record* token = core.current;
    answer_.operation = token ? token->operation.load() : nullptr;
    answer_.created_ns = token ? token->created_ns.load() : 0;
    answer_.sequence = token ? token->sequence.load() : 0;
    answer_.interrupted_at = interrupted_in(machine_context);
    answer_.depth = ::backtrace(answer_.frames.data(), deepest);
    question_.store(at(core.position, answered), std::memory_order_release);
    ::sem_post(&news_);
}

void stall_detector::enter(unsigned position) noexcept {
    sigset_t ours, before;
    ::sigemptyset(&ours);
    ::sigaddset(&ours, signal_);
    ::pthread_sigmask(SIG_UNBLOCK, &ours, &before);
    const std::scoped_lock lock(threads_);
    loops_[position].was_blocked = ::sigismember(&before, signal_) == 1;
    loops_[position].thread = ::pthread_self();
}

void stall_detector::leave(unsigned position) noexcept {
    bool was_blocked = false;
    {
        const std::scoped_lock lock(threads_);
        loops_[position].thread.reset();
        was_blocked = loops_[position].was_blocked;
    }
    if (!was_blocked) return;
    sigset_t ours;
    ::sigemptyset(&ours);
    ::sigaddset(&ours, signal_);
    ::pthread_sigmask(SIG_BLOCK, &ours, nullptr);
}

}  // namespace detail

}  // namespace tokengate
