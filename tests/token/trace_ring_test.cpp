// SPDX-License-Identifier: MIT
#include "token/trace_ring.hpp"

#include "support/waiting.hpp"

#include <tokengate/detail/token_record.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

using tokengate::detail::operation_record;
using tokengate::detail::trace_event;
using tokengate::detail::trace_kind;
using tokengate::detail::trace_reading;
using tokengate::detail::trace_ring;
using tokengate::test::wait_until;

namespace {

const std::array<operation_record, 7> operations{};

/// Event number `at`: every part of it tells the number.
trace_event numbered(std::uint64_t at) {
    return {1000 + at, at, &operations[at % operations.size()], ~at,
            static_cast<trace_kind>(at % 9)};
}

void note(trace_ring& in, std::uint64_t at) {
    const trace_event event = numbered(at);
    in.note(event.kind, event.sequence, event.operation, event.argument, event.ns);
}

/// Whether a reading is of consecutive whole events, from the one after those it says are lost.
bool is_whole(const trace_reading& read) {
    for (std::size_t i = 0; i < read.events.size(); ++i)
        if (read.events[i] != numbered(read.lost + i)) return false;
    return true;
}

}  // namespace

TEST_CASE("A trace ring gives back what was noted, oldest first") {
    trace_ring ring(64);
    CHECK(ring.read(1000).events.empty());
    for (std::uint64_t at = 0; at < 20; ++at) note(ring, at);
    const trace_reading read = ring.read(1000);
    CHECK(read.events.size() == 20);
    CHECK(read.lost == 0);
    CHECK(is_whole(read));
}

TEST_CASE("A trace ring's size is a power of two, at least what was asked for") {
    CHECK(trace_ring(1).capacity() == 16);
    CHECK(trace_ring(16).capacity() == 16);
    CHECK(trace_ring(17).capacity() == 32);
    CHECK(trace_ring(100'000).capacity() == 131'072);
}

TEST_CASE("A trace ring that goes round keeps the last ones") {
    trace_ring ring(16);
    std::uint64_t noted = 0;
    for (const std::uint64_t count : {15U, 16U, 17U, 31U, 32U, 33U, 1000U}) {
        while (noted < count) note(ring, noted++);
        const trace_reading read = ring.read(1000);
        CHECK(read.events.size() == 15);
        CHECK(read.lost == count - 15);
        CHECK(is_whole(read));
    }
}

TEST_CASE("A trace ring's times are whole, whatever the machine's uptime") {
    constexpr std::uint64_t turn = std::uint64_t{1} << 56;  // ns, what the events keep of the time
    for (const std::uint64_t now :
         {std::uint64_t{5'000}, turn - 1, turn, turn + 1'000, 7 * turn + 3}) {
        const std::vector<std::uint64_t> times{now - 5'000, now - 1, now,
                                               now + 1};  // the last one noted meanwhile
        trace_ring ring(16);
        for (const std::uint64_t ns : times)
            ring.note(trace_kind::ended, 1, operations.data(), 0, ns);
        std::vector<std::uint64_t> read;
        for (const trace_event& each : ring.read(now).events) read.push_back(each.ns);
        CHECK(read == times);
    }
}

TEST_CASE("What is read from a trace ring while its owner writes is consecutive and never torn") {
    constexpr std::uint64_t at_least = 1'000'000;
    constexpr int readings_at_least = 10;
    trace_ring ring(1024);
    std::atomic<int> readings{0};  // that found something
    std::atomic<std::uint64_t> noted{0};
    std::thread owner([&] {
        std::uint64_t at = 0;
        while (at < at_least || readings < readings_at_least) {
            note(ring, at);
            noted.store(++at, std::memory_order_relaxed);
        }
    });
    wait_until([&] { return noted != 0; });
    bool whole = true;
    bool forward = true;
    std::uint64_t reached = 0;
    while (noted.load(std::memory_order_relaxed) < at_least || readings < readings_at_least) {
        const trace_reading read = ring.read(1000);
        whole = whole && is_whole(read);
        if (read.events.empty()) continue;
        forward = forward && read.lost + read.events.size() >= reached;
        reached = read.lost + read.events.size();
        ++readings;
    }
    owner.join();
    CHECK(whole);
    CHECK(forward);
    const trace_reading last = ring.read(1000);
    CHECK(last.lost + last.events.size() == noted);
    CHECK(last.events.size() == ring.capacity() - 1);
    CHECK(is_whole(last));
}
