// SPDX-License-Identifier: MIT
#include <tokengate/resolve.hpp>

#include "support/manual_event.hpp"

#include <tokengate/blocking.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <netdb.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <random>
#include <semaphore>
#include <string>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace std::string_literals;
using tg::test::manual_event;

namespace {

using endpoints = std::vector<tg::endpoint>;

const tg::operation resolves{{.name = "resolve_test_resolves"},
                             [](std::string host, std::string service, sa_family_t family) {
                                 return tg::resolve(host, service, family);
                             }};

/// Outside of the runtime: what a call gives.
endpoints found(std::string host, std::string service, sa_family_t family = AF_UNSPEC) {
    tg::runtime runtime{{.cores = 1}};
    return runtime.run(tg::resolve(std::move(host), std::move(service), family));
}

struct refusal {
    int code;
    std::string text;
};

refusal refused(std::string host, std::string service, sa_family_t family = AF_UNSPEC) {
    try {
        found(std::move(host), std::move(service), family);
    } catch (const tg::resolve_error& error) {
        return {error.code(), error.what()};
    }
    return {0, {}};
}

}  // namespace

TEST_SUITE("resolve") {
    TEST_CASE("numbers are taken as they are, each once, without a thread") {
        tg::runtime runtime{{.cores = 1, .blocking_threads = 1}};
        std::binary_semaphore go{0};
        manual_event begun;
        auto hold = [&] {
            begun.set();
            go.acquire();
        };
        const tg::operation holds{{.name = "resolve_test_holds"},
                                  [&hold]() -> tg::task<> { co_await tg::blocking(hold); }};
        runtime.run([&]() -> tg::task<> {
            tg::token<> held = holds();
            held.admit();
            co_await begun;  // the only thread of the pool is busy from here on
            const endpoints four = co_await tg::resolve("127.0.0.1", "80");
            CHECK(four == endpoints{{"127.0.0.1", 80}});
            const endpoints six = co_await tg::resolve("::1", "65535");
            CHECK(six == endpoints{{"::1", 65535}});
            const endpoints scoped = co_await tg::resolve("fe80::1%lo", "0");
            CHECK(scoped == endpoints{{"fe80::1%lo", 0}});
            const endpoints as_asked = co_await tg::resolve("::1", "00080", AF_INET6);
            CHECK(as_asked == endpoints{{"::1", 80}});
            go.release();
            co_await std::move(held);
        });
    }

    TEST_CASE("names of hosts and services") {
        const endpoints local = found("localhost", "7000");
        CHECK(std::ranges::find(local, tg::endpoint("127.0.0.1", 7000)) != local.end());
        for (const tg::endpoint& each : local) CHECK(std::ranges::count(local, each) == 1);
        for (const tg::endpoint& each : found("localhost", "1", AF_INET))
            CHECK(each.family() == AF_INET);
        if (::getservbyname("http", "tcp") && ::getservbyname("tftp", "udp")) {
            CHECK(found("127.0.0.1", "http") == endpoints{{"127.0.0.1", 80}});
            CHECK(found("127.0.0.1", "tftp") == endpoints{{"127.0.0.1", 69}});
        }
    }

    TEST_CASE("an address of the other family, and a family that has no names") {
        CHECK(refused("127.0.0.1", "80", AF_INET6).code != 0);
        CHECK(refused("::1", "80", AF_INET).code != 0);
        CHECK(refused("127.0.0.1", "80", AF_UNIX).code == EAI_FAMILY);
    }

    TEST_CASE("what is not known is refused with both names, and what it is") {
        const std::string nowhere(300, 'x');  // no resolver asks for a name of that length
        const refusal no_host = refused(nowhere, "80");
        CHECK(no_host.code == EAI_NONAME);
        CHECK(no_host.text == "resolve_error: \"" + nowhere +
                                  "\", service \"80\": " + std::string(::gai_strerror(EAI_NONAME)));
        const refusal no_service = refused("127.0.0.1", "no-such-service");
        CHECK(no_service.code == EAI_SERVICE);
        CHECK(no_service.text == "resolve_error: \"127.0.0.1\", service \"no-such-service\": " +
                                     std::string(::gai_strerror(EAI_SERVICE)));
    }

    TEST_CASE("ports that strtoul would take for others") {
        for (const auto& service :
             {"65536"s, "4294967376"s, "-1"s, "+80"s, " 80"s, "80 "s, ""s, "80\0"s, "http\0x"s}) {
            CAPTURE(service);
            const refusal bad = refused("127.0.0.1", service);
            CHECK(bad.code == EAI_SERVICE);
            CHECK(bad.text.ends_with(
                ": that is neither a port (0 to 65535) nor the name of a service"));
        }
        CHECK(refused("127.0.0.1", "65536")
                  .text.starts_with("resolve_error: \"127.0.0.1\", service \"65536\": "));
    }

    TEST_CASE("hosts that a C string would cut") {
        CHECK(refused("", "80").code == EAI_NONAME);
        const refusal cut = refused("127.0.0.1\0.example.org\n"s, "80");
        CHECK(cut.code == EAI_NONAME);
        CHECK(cut.text ==
              "resolve_error: \"127.0.0.1\\x00.example.org\\x0a\", service \"80\": that is no name "
              "of a host");
    }

    TEST_CASE("a stop takes back what waits for a thread") {
        tg::runtime runtime{{.cores = 1, .blocking_threads = 1}};
        std::binary_semaphore go{0};
        manual_event begun;
        auto hold = [&] {
            begun.set();
            go.acquire();
        };
        const tg::operation holds{{.name = "resolve_test_holds_again"},
                                  [&hold]() -> tg::task<> { co_await tg::blocking(hold); }};
        const tg::operation nothing{{.name = "resolve_test_nothing"}, [] {}};
        bool stopped = false;
        runtime.run([&]() -> tg::task<> {
            tg::token<> held = holds();
            held.admit();
            co_await begun;
            tg::token<endpoints> asked = resolves("localhost", "80", AF_UNSPEC);
            asked.admit();
            co_await nothing();  // behind it, on the only core
            asked.request_stop();
            try {
                co_await std::move(asked);
            } catch (const tg::token_stopped&) {
                stopped = true;
            }
            go.release();
            co_await std::move(held);
        });
        CHECK(stopped);
    }

    TEST_CASE("stress: names and numbers from all cores") {
        constexpr unsigned seed = 20250713;
        MESSAGE("seed " << seed);
        tg::runtime runtime{{.cores = 4}};
        std::atomic<unsigned> wrong{0};
        const tg::operation checks{
            {.name = "resolve_test_checks"}, [&](bool by_name, int port) -> tg::task<> {
                const unsigned core = tg::this_token::core();
                const endpoints all = co_await tg::resolve(by_name ? "localhost" : "127.0.0.1",
                                                           std::to_string(port), AF_INET);
                const tg::endpoint expected("127.0.0.1", static_cast<std::uint16_t>(port));
                if (std::ranges::find(all, expected) == all.end()) ++wrong;
                if (tg::this_token::core() != core) ++wrong;
            }};
        runtime.run([&]() -> tg::task<> {
            std::minstd_rand random(seed);
            std::vector<tg::token<>> all;
            for (int i = 0; i < 500; ++i)
                all.push_back(checks(random() % 2 == 0, static_cast<int>(random() % 65536)));
            co_await tg::when_all(std::move(all));
        });
        CHECK(wrong == 0);
    }
}
