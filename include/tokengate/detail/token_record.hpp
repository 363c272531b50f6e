// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/hook.hpp>
#include <tokengate/detail/relaxed.hpp>
#include <tokengate/options.hpp>
#include <tokengate/token_info.hpp>

#include <atomic>
#include <bit>
#include <chrono>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

/// The control block of a token, and the objects that it refers to. The record lies inside the
/// promise of the token's own coroutine frame. A plain task's frame carries the bytes unused.
///
/// Which thread touches the record: the creating thread, until the token is admitted; then the
/// thread that has the token in hand (a queue hands it over with release/acquire); from its start
/// on, the thread of its core; after its end, the awaiter's thread. Any thread may read the
/// `relaxed` fields at any time (`runtime::tokens()`). `owner` is the one shared word.

namespace tokengate::detail {

struct core_context;
class executor;
struct shared_state;
struct token_record;

enum token_flags : std::uint16_t {
    in_domain = 1,      ///< `anchor` is a domain: conducted, or a lead that has started
    leads = 2,          ///< opens a domain when it starts
    sticky_key = 4,     ///< `anchor` is a hashed key, not pinned yet
    pinned = 8,         ///< `anchor` is a pin of the sticky registry
    has_tier = 16,      ///< needs a permit of its storage tier
    holds_permit = 32,  ///< has it now
    windowed = 64,      ///< counts in its core's window until it starts
    /// Its group counts it with the plain counter of the group's home; see group.hpp.
    counted_here = 128,
    /// Never leaves the loop where it was made (the main coroutine, services, tasks, wrapper
    /// tokens).
    unroutable = 256,
    opened = 512,  ///< a lead that has opened its domain
    /// Began inside its awaiter's turn. Counted once there, not as admitted and ended.
    ran_in_place = 1024,
    /// Its body is inside tg::shield. A stop waits until the body has left it.
    shielded = 2048,
    /// Admitted from inside a shield. A stop of the whole runtime does not apply to it.
    exempt = 4096,
    has_callbacks = 8192,  ///< its core has stop_callbacks of it
    bound = 16384,         ///< `anchor` is the position that it runs on
    /// Instrumented: its steps go through steps.cpp. Decided at its admission, or for every token
    /// of a guarded operation when it is made.
    watched = 32768
};

inline constexpr std::uint16_t no_position = 0xffff;

/// The small fields of a record as one word, so that code that sets all of them does so by one
/// store.
struct token_word {
    std::uint16_t position;
    std::uint16_t runtime;
    std::uint16_t flags;
    token_state state;
    std::uint8_t stop;

    using raw [[gnu::may_alias]] = std::uint64_t;

    [[nodiscard]] constexpr std::uint64_t bits() const noexcept {
        return std::bit_cast<std::uint64_t>(*this);
    }
};
static_assert(sizeof(token_word) == sizeof(std::uint64_t) &&
              std::has_unique_object_representations_v<token_word>);

/// Indices of operations. `own_operation`: the runtime's own (main, services). `task_index`: tokens
/// that run where they are admitted (tasks, and the wrapper tokens, which keep time or arguments
/// for an operation's tokens). Users' operations begin at `first_operation`.
inline constexpr std::uint32_t own_operation = 0, task_index = 1, first_operation = 2;

/// The runtime's knowledge of an operation, kept for as long as the process lives; see
/// operation.cpp.
struct operation_record {
    const char* name;
    weight weight_class;
    storage tier;
    std::uint16_t flags;  ///< token_flags with which every token of it starts
    std::uint32_t index;  ///< its row in every thread's counters
    /// The token_word with which its tokens start.
    std::uint64_t made = token_word{no_position, 0, flags, token_state::created, 0}.bits();
    /// Bits of operation_specials. Every call reads this one word, which covers all that calls do
    /// beyond making a token.
    relaxed<std::uint8_t> special{};
    std::vector<const char*> calls{};  ///< a lead's declared calls
    std::chrono::nanoseconds timeout{};
    retry_options retry{};
    breaker_options breaker{};
    quarantine_options quarantine{};
    /// With a timeout or retries: the record of the wrapper tokens, which await the other tokens,
    /// keep their time and make new ones.
    const operation_record* keeper = nullptr;
};

enum operation_specials : std::uint8_t {
    wraps = 1,  ///< each of its tokens is inside a wrapper token, of `keeper`
    /// The operation has a breaker or a quarantine, and its tokens are instrumented from their
    /// making on; see runtime/gate/guard.hpp.
    guarded = 2
};

/// Why a token is requested to stop. Bits of token_record::stop.
enum stop_reasons : std::uint8_t {
    stop_asked = 1,
    stop_timeout = 2,
    stop_killed = 4,   ///< from the gate
    stop_refused = 8,  ///< by the gate: it never starts, and its error has the reason
    stop_unrun = 16    ///< no reason of its own: it ended without having started
};

/// Where a body is suspended, if a stop can reach it there. Lies in the body's frame. The token
/// refers to it from the suspension until the resumption has been decided. On the token's thread
/// only.
struct wait_point {
    /// Ends the wait early, if that is possible. The body is resumed sooner or later. Called at
    /// most once.
    void (*on_stop)(core_context&, wait_point&) noexcept;
};

/// Is notified of a token's end. Lives in the awaiter's frame (or on the heap, for a future) until
/// that.
struct waiter {
    /// Null for a coroutine_waiter. Runs on home's thread, or where the token ended if home is
    /// null. The call ends the hand-over.
    void (*done)(token_record&, waiter&) noexcept;
    // The loop. Another thread may host it by the time of the call.
    executor* home;
    token_record* token;  ///< the token whose body awaits; null: no token's body
};

/// A coroutine that awaits one token. Its own token refers to the awaited one:
/// token_record::wait_for.
struct coroutine_waiter : waiter {
    /// Null while the awaiter is still on the stack below the token.
    std::coroutine_handle<> handle;
};

/// A coroutine that awaits many tokens. Its home resumes it once, when all have ended; see
/// group.hpp. Tokens that end inside the await are not counted. `here` counts the tokens that have
/// suspended or wait on home's loop, plus one while not all have begun. The routed tokens share
/// `elsewhere`: each thread subtracts in batches the tokens that ended on it. A group of a million
/// tokens therefore costs its home one message: the thread that brings `elsewhere` to zero sends
/// the group's hook.
struct token_group : coroutine_waiter, wait_point, hook {
    // Only home's thread touches these, except for the last two.
    /// Null: the child has been taken before.
    token_record* (*child)(token_group&, std::uint32_t index, bool take) noexcept;
    /// The next older of the groups of this loop with children that other cores may take.
    token_group* older;
    token_group* newer;  ///< the next newer one
    std::uint32_t size;  ///< children
    /// How many children, counted from the first, have begun or are another core's to begin.
    std::uint32_t begun;
    /// How many children, counted from the first, are no longer offered to other cores.
    std::uint32_t offered;
    std::uint32_t here;
    std::uint32_t routed;  ///< children that share `elsewhere`
    bool elsewhere_done;
    bool gives;  ///< is among the groups with children that other cores may take
    /// The children that have not begun are listed as admitted here, because the loop has had a
    /// turn.
    bool listed;
    /// Stored by the thread that ends a failing child, before it counts the child. Read when all
    /// are counted.
    relaxed<bool> any_failed;
    /// Every thread subtracts by fetch_sub(acq_rel). The one that reaches zero sends the hook.
    std::atomic<std::uint32_t> elsewhere;
};

/// Values of token_record::owner other than a waiter's address.
enum : std::uintptr_t { owner_unclaimed = 0, owner_done = 1, owner_dropped = 2 };

struct token_record : hook {
    relaxed<const operation_record*> operation;
    relaxed_pointer anchor;  ///< domain, key, pin or position, according to `flags`
    /// A waiter fixed before admission is stored plainly, and the end needs no handshake. For a
    /// token admitted through a kept handle, each side exchanges once, with acq_rel: the end stores
    /// `owner_done`, the handle a waiter's address or `owner_dropped`. The side that comes second
    /// acts.
    std::uintptr_t owner;
    relaxed<std::uint64_t> sequence;
    relaxed<std::uint64_t> created_ns;
    relaxed<std::uint64_t> awaited_by;  ///< sequence of the awaiting token
    // What follows is a token_word.
    relaxed<std::uint16_t> position;  ///< executor to which it was routed
    relaxed<std::uint16_t> runtime;   ///< slot of the runtime that admitted it; 0 before
    relaxed_bits<std::uint16_t> flags;
    relaxed<token_state> state;
    /// Bits of stop_reasons. Set by any thread that requests a stop, read by the body, never
    /// cleared. It orders nothing: a message follows, see stop.cpp.
    relaxed<std::uint8_t> stop;

    /// Owner only: stores all five fields at once, and publishes the owner's earlier writes.
    void set_word(std::uint64_t bits) noexcept {
        __atomic_store_n(reinterpret_cast<token_word::raw*>(reinterpret_cast<char*>(this) +
                                                            word_offset()),
                         bits, __ATOMIC_RELEASE);
    }
    [[nodiscard]] std::uint64_t word() const noexcept {
        return __atomic_load_n(reinterpret_cast<const token_word::raw*>(
                                   reinterpret_cast<const char*>(this) + word_offset()),
                               __ATOMIC_RELAXED);
    }

    /// The body's place of suspension. It shares the link, which no queue uses between a token's
    /// start and its end. On the token's thread only.
    void wait_at(wait_point& point) noexcept { next = reinterpret_cast<hook*>(&point); }
    void wait_for(token_record& child) noexcept {
        next = reinterpret_cast<hook*>(reinterpret_cast<std::uintptr_t>(&child) | 1);
    }
    void wait_is_over() noexcept { next = nullptr; }
    [[nodiscard]] wait_point* waits_at() const noexcept {
        const auto word = reinterpret_cast<std::uintptr_t>(next);
        return word & 1 ? nullptr : reinterpret_cast<wait_point*>(word);
    }
    [[nodiscard]] token_record* waits_for() const noexcept {
        const auto word = reinterpret_cast<std::uintptr_t>(next);
        return word & 1 ? reinterpret_cast<token_record*>(word & ~std::uintptr_t{1}) : nullptr;
    }

    [[nodiscard]] bool stop_requested() const noexcept { return stop.load() != 0; }
    /// Whether the body is to be notified now.
    [[nodiscard]] bool stop_pending() const noexcept {
        return stop_requested() && !(flags & shielded);
    }
    [[nodiscard]] std::atomic_ref<std::uintptr_t> shared_owner() noexcept {
        return std::atomic_ref(owner);
    }
    [[nodiscard]] token_id id() const noexcept {
        return {operation.load()->name, created_ns.load(), sequence.load()};
    }

private:
    /// The word is the last part of the record.
    static constexpr std::size_t word_offset() noexcept;
};

constexpr std::size_t token_record::word_offset() noexcept {
    return sizeof(token_record) - sizeof(token_word);
}
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winvalid-offsetof"
static_assert(offsetof(token_record, position) % alignof(std::uint64_t) == 0 &&
              offsetof(token_record, position) + sizeof(token_word) == sizeof(token_record) &&
              offsetof(token_record, flags) - offsetof(token_record, position) ==
                  offsetof(token_word, flags) &&
              offsetof(token_record, stop) - offsetof(token_record, position) ==
                  offsetof(token_word, stop));
#pragma GCC diagnostic pop

/// The words of tokens without any special property: an unconducted call, a conducted child, a
/// task's token outside of chains, and one inside.
inline constexpr std::uint64_t made_call =
    token_word{no_position, 0, 0, token_state::created, 0}.bits();
inline constexpr std::uint64_t made_conducted =
    token_word{no_position, 0, in_domain, token_state::created, 0}.bits();
inline constexpr std::uint64_t made_task =
    token_word{no_position, 0, unroutable, token_state::created, 0}.bits();
inline constexpr std::uint64_t made_task_conducted = made_conducted | made_task;
/// Bits of an awaiter. If any is set, its child does not run in place.
inline constexpr std::uint64_t forbids_in_place =
    token_word{0, 0, holds_permit | shielded | exempt, token_state{}, 0xff}.bits();

static_assert(alignof(wait_point) >= 2 && alignof(token_record) >= 2,
              "the low bit of an address tells them apart");
static_assert(std::is_trivially_default_constructible_v<token_record>,
              "a task's frame must not pay for it");

}  // namespace tokengate::detail
