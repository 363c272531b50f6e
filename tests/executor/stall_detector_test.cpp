// SPDX-License-Identifier: MIT
#include "executor/stall_detector.hpp"

#include "lifecycle/runtime_core.hpp"
#include "support/waiting.hpp"

#include <tokengate/error.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/stall.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/time.hpp>

#include <doctest/doctest.h>

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <future>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;
using tg::test::until;
using tg::test::wait_until;

namespace {

/// Long enough that a busy machine hardly makes a thread wait for a CPU for as long; `never` outlasts every test.
constexpr auto soon = 100ms;
constexpr auto never = 1h;

/// What was reported, by whom it was.
class reports {
public:
    void operator()(const tg::stall_report& seen) {
        const std::scoped_lock lock(mutex_);
        all_.push_back(seen);
    }
    [[nodiscard]] std::vector<tg::stall_report> of(const tg::token_id& id) const {
        const std::scoped_lock lock(mutex_);
        std::vector<tg::stall_report> found;
        for (const auto& each : all_)
            if (each.id == id) found.push_back(each);
        return found;
    }
    [[nodiscard]] std::vector<tg::stall_report> of(std::string_view operation) const {
        const std::scoped_lock lock(mutex_);
        std::vector<tg::stall_report> found;
        for (const auto& each : all_)
            if (each.id.operation == operation) found.push_back(each);
        return found;
    }
    [[nodiscard]] std::size_t count() const {
        const std::scoped_lock lock(mutex_);
        return all_.size();
    }

private:
    mutable std::mutex mutex_;
    std::vector<tg::stall_report> all_;
};

tg::runtime_options reporting_to(reports& to, tg::time_span threshold = soon) {
    return {.cores = 2,
            .stall = {.threshold = threshold, .report = [&to](const auto& seen) { to(seen); }}};
}

tg::detail::shared_state& this_runtime() { return *tg::detail::this_core->runtime; }

/// The detector has gone round at least once from its beginning.
void outlast_a_look(const tg::detail::stall_detector& stalls) {
    const std::uint64_t before = stalls.looks();
    wait_until([&] { return stalls.looks() >= before + 2; });
}

}  // namespace

/// Exported under this name, for backtraces to find.
extern "C" [[gnu::noinline, gnu::visibility("default")]] void tokengate_test_hold_the_core(
    const reports& to, const tg::token_id& id) {
    wait_until([&] { return !to.of(id).empty(); });
    outlast_a_look(*this_runtime().stalls);
}

namespace {

struct where {
    tg::token_id id;
    unsigned core = 0;
};

const tg::operation hold{{.name = "stall_detector_test_hold"}, [](const reports* to) {
                             const where here{tg::this_token::id(), tg::this_token::core()};
                             tokengate_test_hold_the_core(*to, here.id);
                             return here;
                         }};
const tg::operation leads_holders{{.name = "stall_detector_test_leads_holders"},
                                  tg::lead{"stall_detector_test_hold"},
                                  [](const reports* to) -> tg::task<std::vector<where>> {
                                      std::vector<where> all;
                                      for (int i = 0; i < 3; ++i) all.push_back(co_await hold(to));
                                      co_return all;
                                  }};
const tg::operation nothing{{.name = "stall_detector_test_nothing"}, [] {}};

bool names(const std::vector<std::string>& backtrace, std::string_view function) {
    return std::any_of(backtrace.begin(), backtrace.end(),
                       [&](const std::string& frame) { return frame.starts_with(function); });
}

/// The signals that this process handles.
std::vector<int> handled_signals() {
    std::vector<int> found;
    for (int signal = 1; signal <= SIGRTMAX; ++signal) {
        struct ::sigaction now{};
        if (::sigaction(signal, nullptr, &now) == 0 &&
            ((now.sa_flags & SA_SIGINFO) || now.sa_handler != SIG_DFL))
            found.push_back(signal);
    }
    return found;
}

std::size_t threads_named(std::string_view wanted) {
    std::size_t found = 0;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
        std::string name;
        std::ifstream(task.path() / "comm") >> name;
        found += name == wanted;
    }
    return found;
}

}  // namespace

TEST_CASE("a token that holds its core is reported once, with its place and a backtrace") {
    reports heard;
    tg::runtime runtime{reporting_to(heard)};
    const where held = runtime.run([&]() -> tg::task<where> { co_return co_await hold(&heard); });
    const auto of_it = heard.of(held.id);
    REQUIRE(of_it.size() == 1);
    CHECK(of_it[0].id.operation == "stall_detector_test_hold");
    CHECK(of_it[0].core == held.core);
    CHECK(of_it[0].held > soon);
    REQUIRE_FALSE(of_it[0].backtrace.empty());
    INFO(of_it[0].line());
    CHECK(names(of_it[0].backtrace, "tokengate_test_hold_the_core ("));
    // Not the handler, nor what called it.
    CHECK_FALSE(names({of_it[0].backtrace.front()}, "tokengate::detail::stall_detector"));
    const std::string line = of_it[0].line();
    CHECK(line.starts_with("token " + held.id.text() +
                           " of operation stall_detector_test_hold has held core " +
                           std::to_string(held.core) + " for "));
    CHECK(line.find('\n') == std::string::npos);
}

TEST_CASE("each stall is reported, one after the other and side by side") {
    reports heard;
    tg::runtime runtime{reporting_to(heard)};
    runtime.start();
    const tg::token_id first = runtime.submit(hold(&heard)).get().id;
    auto second = runtime.submit(hold(&heard));
    auto third = runtime.submit(hold(&heard));
    CHECK(heard.of(first).size() == 1);
    CHECK(heard.of(second.get().id).size() == 1);
    CHECK(heard.of(third.get().id).size() == 1);
}

TEST_CASE(
    "children that run in place hold their chain's core one after the other: each is reported") {
    reports heard;
    tg::runtime runtime{reporting_to(heard)};
    runtime.start();
    const std::vector<where> all = runtime.submit(leads_holders(&heard)).get();
    REQUIRE(all.size() == 3);
    for (const where& each : all) CHECK(heard.of(each.id).size() == 1);
}

TEST_CASE("the main coroutine stalls the control loop") {
    reports heard;
    tg::runtime runtime{reporting_to(heard)};
    const tg::token_id main = runtime.run([&]() -> tg::task<tg::token_id> {
        const tg::token_id id = tg::this_token::id();
        tokengate_test_hold_the_core(heard, id);
        co_return id;
    });
    const auto of_it = heard.of(main);
    REQUIRE(of_it.size() == 1);
    CHECK(of_it[0].core == tg::control_core);
    CHECK(of_it[0].line().find(" has held the control loop for ") != std::string::npos);
    CHECK(names(of_it[0].backtrace, "tokengate_test_hold_the_core ("));
}

TEST_CASE("what holds a core and is no token is reported as such") {
    reports heard;
    tg::runtime runtime{reporting_to(heard)};
    struct holder : tg::detail::hook {
        const reports* to;
        std::atomic<bool> over{false};
    } holds;
    holds.to = &heard;
    holds.run = [](tg::detail::hook* self) noexcept {
        auto& it = *static_cast<holder*>(self);
        tokengate_test_hold_the_core(*it.to, {});
        it.over = true;
    };
    runtime.run([&]() -> tg::task<> {
        this_runtime().executors[1]->loop.post(&holds);
        co_await until([&] { return holds.over.load(); });
    });
    const auto all = heard.of("");
    const auto found = std::find_if(all.begin(), all.end(), [](const auto& each) {
        return each.core == 1 && names(each.backtrace, "tokengate_test_hold_the_core (");
    });
    REQUIRE(found != all.end());
    CHECK(found->line().starts_with("something that is no token has held core 1 for "));
}

TEST_CASE("who awaits, and a loop without work, hold no core however long") {
    reports heard;
    tg::runtime runtime{reporting_to(heard, 2 * soon)};
    runtime.run([]() -> tg::task<> {
        const auto& stalls = *this_runtime().stalls;
        const std::uint64_t before = stalls.looks();
        while (stalls.looks() < before + 5) co_await tg::sleep_for(6 * soon);
        // A loop that has nothing to run has no turn that could be too old.
        auto& core = this_runtime();
        while (core.executors[0]->loop.turn_began_ns() != 0 ||
               core.executors[1]->loop.turn_began_ns() != 0)
            co_await tg::sleep_for(1ms);
    });
    CHECK(heard.count() == 0);
}

TEST_CASE("many short tokens hold no core together") {
    reports heard;
    tg::runtime runtime{reporting_to(heard, 1s)};
    runtime.run([]() -> tg::task<> {
        const auto& stalls = *this_runtime().stalls;
        const std::uint64_t before = stalls.looks();
        for (int ran = 0; ran < 100'000 || stalls.looks() < before + 3; ++ran) co_await nothing();
    });
    CHECK(heard.count() == 0);
}

TEST_CASE("a report that throws becomes a warning, and the next is made") {
    std::atomic<int> calls{0};
    std::mutex mutex;
    std::vector<std::string> warnings;
    tg::runtime_options options{.cores = 1};
    options.stall = {.threshold = soon, .report = [&](const tg::stall_report&) {
                         if (calls++ % 2 == 0) throw std::runtime_error("no log");
                         throw 7;
                     }};
    options.on_warning = [&](std::string_view text) {
        const std::scoped_lock lock(mutex);
        warnings.emplace_back(text);
    };
    const auto warned = [&](std::string_view of) {
        const std::scoped_lock lock(mutex);
        return std::any_of(warnings.begin(), warnings.end(), [&](const auto& each) {
            return each.starts_with("a stall could not be reported: ") && each.ends_with(of);
        });
    };
    {
        tg::runtime runtime{std::move(options)};
        const tg::operation stall{{.name = "stall_detector_test_throw"},
                                  [&](int call) { wait_until([&] { return calls > call; }); }};
        runtime.run([&]() -> tg::task<> {
            for (int call = 0; call < 2; ++call) co_await stall(call);
        });
    }
    CHECK(warned("no log"));
    CHECK(warned("something was thrown that is no std::exception"));
}

TEST_CASE("without a callback a stall is a warning of one line") {
    std::mutex mutex;
    std::vector<std::string> warnings;
    tg::runtime_options options{.cores = 1, .stall = {.threshold = soon}};
    options.on_warning = [&](std::string_view text) {
        const std::scoped_lock lock(mutex);
        warnings.emplace_back(text);
    };
    const auto warned = [&] {
        const std::scoped_lock lock(mutex);
        return std::any_of(warnings.begin(), warnings.end(), [](const std::string& each) {
            return each.find(" of operation stall_detector_test_warn has held core 0 for ") !=
                       std::string::npos &&
                   each.find('\n') == std::string::npos;
        });
    };
    tg::runtime runtime{std::move(options)};
    const tg::operation stall{{.name = "stall_detector_test_warn"}, [&] { wait_until(warned); }};
    runtime.run([&]() -> tg::task<> { co_await stall(); });
    CHECK(warned());
}

TEST_CASE("a report must not stop the runtime, and is told so") {
    std::promise<std::string> answer;
    std::future<std::string> answered = answer.get_future();
    tg::runtime* runtime_of_it = nullptr;
    std::atomic<int> calls{0};
    tg::runtime runtime{
        {.cores = 1, .stall = {.threshold = soon, .report = [&](const tg::stall_report&) {
                                   if (calls++ != 0) return;
                                   try {
                                       static_cast<void>(runtime_of_it->stop(0s));
                                       answer.set_value("");
                                   } catch (const tg::wrong_thread& refused) {
                                       answer.set_value(refused.what());
                                   }
                               }}}};
    runtime_of_it = &runtime;
    const tg::operation stall{{.name = "stall_detector_test_stop"},
                              [&] { wait_until([&] { return calls > 0; }); }};
    runtime.run([&]() -> tg::task<> { co_await stall(); });
    CHECK(answered.get().find("runtime::stop was called by a report of a stall") !=
          std::string::npos);
}

TEST_CASE("a thread that cannot answer is reported without a backtrace") {
    reports heard;
    tg::runtime runtime{reporting_to(heard)};
    const tg::operation deaf{{.name = "stall_detector_test_deaf"}, [&] {
                                 sigset_t all, before;
                                 ::sigfillset(&all);
                                 ::pthread_sigmask(SIG_SETMASK, &all, &before);
                                 const unsigned here = tg::this_token::core();
                                 const auto unanswered = [&] {
                                     for (const auto& each : heard.of(""))
                                         if (each.core == here && each.backtrace.empty())
                                             return true;
                                     return false;
                                 };
                                 wait_until(unanswered);
                                 // Now the signal comes, too late, and finds that nobody asks.
                                 ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
                             }};
    runtime.run([&]() -> tg::task<> {
        co_await deaf();
        co_await hold(&heard);  // the next stall is seen as ever
    });
    CHECK(heard.of("stall_detector_test_deaf").empty());
    CHECK(heard.of("stall_detector_test_hold").size() == 1);
    const auto unknown = heard.of("");
    const auto found = std::find_if(unknown.begin(), unknown.end(),
                                    [](const auto& each) { return each.backtrace.empty(); });
    REQUIRE(found != unknown.end());
    CHECK(found->line().starts_with(
        "something unknown, whose thread did not answer, has held core "));
}

TEST_CASE(
    "a thread that blocks the signal hears it while it hosts the control loop, and only then") {
    reports heard;
    tg::runtime_options options = reporting_to(heard);
    options.stall.signal = SIGUSR2;
    sigset_t ours, before, after;
    ::sigemptyset(&ours);
    ::sigaddset(&ours, SIGUSR2);
    ::pthread_sigmask(SIG_BLOCK, &ours, &before);
    {
        tg::runtime runtime{std::move(options)};
        const tg::token_id main = runtime.run([&]() -> tg::task<tg::token_id> {
            const tg::token_id id = tg::this_token::id();
            tokengate_test_hold_the_core(heard, id);
            co_return id;
        });
        CHECK(heard.of(main).size() == 1);
    }
    ::pthread_sigmask(SIG_SETMASK, &before, &after);
    CHECK(::sigismember(&after, SIGUSR2) == 1);
}

TEST_CASE("a signal that comes to nobody's question does nothing") {
    reports heard;
    tg::runtime runtime{reporting_to(heard, never)};
    const std::vector<int> handled = handled_signals();
    const auto ours =
        std::find_if(handled.begin(), handled.end(), [](int signal) { return signal >= SIGRTMIN; });
    REQUIRE(ours != handled.end());
    ::pthread_kill(::pthread_self(), *ours);  // a thread that runs no loop
    const tg::operation signalled{{.name = "stall_detector_test_signalled"}, [&] {
                                      ::pthread_kill(::pthread_self(),
                                                     *ours);  // one that runs a loop, and no stall
                                      return tg::this_token::core();
                                  }};
    CHECK(runtime.run([&]() -> tg::task<unsigned> { co_return co_await signalled(); }) < 2);
    CHECK(heard.count() == 0);
}

TEST_CASE("without a threshold there is no thread and no handler") {
    const std::vector<int> handled = handled_signals();
    {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            CHECK_FALSE(this_runtime().stalls);
            co_await nothing();
        });
        CHECK(threads_named("tokengate-stall") == 0);
        CHECK(handled_signals() == handled);
    }
    reports heard;
    tg::runtime runtime{reporting_to(heard, never)};
    wait_until([] { return threads_named("tokengate-stall") == 1; });
}

TEST_CASE("options that cannot be are refused") {
    const auto refused = [](tg::stall_options stall) -> std::string {
        try {
            tg::runtime runtime{{.cores = 1, .stall = std::move(stall)}};
        } catch (const tg::configuration_error& error) {
            return error.what();
        }
        return {};
    };
    CHECK(refused({.threshold = 9ms}).find("stall.threshold is 9000000 ns") != std::string::npos);
    CHECK(refused({.threshold = -1s}).find("stall.threshold") != std::string::npos);
    CHECK(refused({.threshold = tg::time_span::max()}).empty());
    for (const int never_ours : {SIGKILL, SIGSEGV, -1, 9999})
        CHECK(refused({.threshold = never, .signal = never_ours})
                  .find("stall.signal is " + std::to_string(never_ours)) != std::string::npos);

    SUBCASE("a signal that the host handles, or ignores") {
        const int theirs = SIGRTMIN + 20;
        struct ::sigaction own{}, before{}, after{};
        for (void (*handler)(int) : {+[](int) {}, SIG_IGN}) {
            own.sa_handler = handler;
            REQUIRE(::sigaction(theirs, &own, &before) == 0);
            const std::string text = refused({.threshold = never, .signal = theirs});
            ::sigaction(theirs, &before, &after);
            CHECK(text.find("stall.signal is " + std::to_string(theirs)) != std::string::npos);
            CHECK((after.sa_handler == handler));
        }
        CHECK(refused({.threshold = never}).empty());
    }
}

TEST_CASE("two runtimes share the signal, and each reports its own") {
    reports heard, also_heard;
    tg::runtime one{reporting_to(heard)};
    tg::runtime other{reporting_to(also_heard)};
    one.start();
    other.start();
    auto first = one.submit(hold(&heard));
    auto second = other.submit(hold(&also_heard));
    const tg::token_id in_one = first.get().id;
    const tg::token_id in_other = second.get().id;
    CHECK(heard.of(in_one).size() == 1);
    CHECK(heard.of(in_other).empty());
    CHECK(also_heard.of(in_other).size() == 1);
    CHECK(also_heard.of(in_one).empty());
}

TEST_CASE("a report is one line whatever the names contain") {
    const tg::stall_report seen{
        .id = {"of_mine", 5, 6}, .core = 3, .held = 1234ms, .backtrace = {"f\ng", "h\r\x80"}};
    CHECK(seen.line() ==
          "token of_mine_5_6 of operation of_mine has held core 3 for 1234 ms: f\\x0ag < "
          "h\\x0d\\x80");
}
