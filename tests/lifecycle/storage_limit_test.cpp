// SPDX-License-Identifier: MIT

#include <tokengate/gate.hpp>

#include <tokengate/error.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/time.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;

namespace {

std::atomic<int> started{0}, may_leave{0};

/// Holds its permit, for it waits for no other token, until it is let go.
tg::task<> hold() {
    ++started;
    for (;;) {
        int left = may_leave;
        while (left > 0 && !may_leave.compare_exchange_weak(left, left - 1)) {}
        if (left > 0) break;
        co_await tg::sleep_for(50us);
    }
}
const tg::operation holds{{.name = "gate_control_test_holds", .storage = tg::storage::slow}, hold};

tg::task<> until(std::atomic<int>& count, int value) {
    while (count != value) co_await tg::sleep_for(50us);
}
tg::task<> until_in_use(tg::runtime& runtime, int value) {
    while (runtime.gate().storage_in_use(tg::storage::slow) != value) co_await tg::sleep_for(50us);
}

std::string refusal(tg::runtime& runtime, tg::storage tier, int limit) {
    try {
        runtime.gate().storage_limit(tier, limit);
    } catch (const tg::configuration_error& error) {
        return error.what();
    }
    return "none";
}

}  // namespace

TEST_SUITE("gate control") {
    TEST_CASE("a tier's limit while its operations run: raised, by whatever thread, and lowered") {
        started = may_leave = 0;
        tg::runtime runtime{{.cores = 2, .storage = {.slow = 2}}};
        runtime.run([&]() -> tg::task<> {
            constexpr int all = 20;
            std::vector<tg::token<void>> tokens;
            for (int i = 0; i < all; ++i) {
                tokens.push_back(holds());
                tokens.back().admit();
            }
            co_await until(started, 2);
            CHECK(runtime.gate().storage_in_use(tg::storage::slow) == 2);

            std::thread([&] { runtime.gate().storage_limit(tg::storage::slow, 5); }).join();
            CHECK(runtime.gate().storage_limit(tg::storage::slow) == 5);
            co_await until(started, 5);
            CHECK(runtime.gate().storage_in_use(tg::storage::slow) == 5);

            runtime.gate().storage_limit(tg::storage::slow, 1);
            may_leave = 4;
            co_await until_in_use(runtime, 1);
            CHECK(started == 5);  // none of those that left made room
            may_leave = 1;
            co_await until(started, 6);
            CHECK(runtime.gate().storage_in_use(tg::storage::slow) == 1);

            runtime.gate().storage_limit(tg::storage::slow, all);
            co_await until(started, all);
            may_leave = all;
            co_await tg::when_all(std::move(tokens));
        });
        CHECK(runtime.gate().storage_in_use(tg::storage::slow) == 0);
        CHECK(runtime.gate().storage_limit(tg::storage::moderate) == 25);
    }

    TEST_CASE("limits that cannot be are refused, and change nothing") {
        tg::runtime runtime{{.cores = 1}};
        for (const int limit : {0, -1}) {
            const std::string text = refusal(runtime, tg::storage::fast, limit);
            CHECK(text.find("configuration_error") == 0);
            CHECK(text.find(std::to_string(limit)) != std::string::npos);
        }
        CHECK(refusal(runtime, tg::storage::none, 5).find("configuration_error") == 0);
        CHECK(runtime.gate().storage_limit(tg::storage::fast) == 50);
        CHECK(refusal(runtime, tg::storage::fast, 1) == "none");
        CHECK(runtime.gate().storage_limit(tg::storage::fast) == 1);
    }
}
