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

/// The control block of a token, and those it speaks with. It lies inside the promise of the token's own coroutine frame;
/// a plain task's frame carries the bytes unused.
///
/// Who touches what: the creating thread until the token is admitted; then the thread that has it in hand (a queue hands it
/// over with release/acquire); from its start on, the thread of its core; after its end, the awaiter's thread. The fields
/// that are `relaxed` may be looked at by anybody at any time (`runtime::tokens()`); `owner` is the one shared word.

namespace tokengate::detail {

struct core_context;
class executor;
struct shared_state;
struct token_record;

enum token_flags : std::uint16_t {
    in_domain = 1,       ///< `anchor` is a domain: conducted, or a lead that has started
    leads = 2,           ///< opens a domain when it starts
    sticky_key = 4,      ///< `anchor` is a hashed key, not pinned yet
    pinned = 8,          ///< `anchor` is a pin of the sticky registry
    has_tier = 16,       ///< needs a permit of its storage tier
    holds_permit = 32,   ///< has it now
    windowed = 64,       ///< counts in its core's window until it starts
    counted_here = 128,  ///< its group counts it with the plain counter of its home; see group.hpp
    unroutable = 256,    ///< never leaves the loop it was made on (the main coroutine)
    opened = 512,        ///< a lead that has opened its domain
    ran_in_place =
        1024,         ///< began inside its awaiter's turn: counted once, not as admitted and ended
    shielded = 2048,  ///< its body is inside tg::shield: a stop waits until it has left
    exempt = 4096,    ///< admitted from inside a shield: a stop of the whole runtime passes it by
    has_callbacks = 8192,  ///< its core knows stop_callbacks of it
    bound = 16384,         ///< `anchor` is the number of the position it runs on
    watched = 32768        ///< its steps go through steps.cpp; decided at its admission
};

inline constexpr std::uint16_t no_position = 0xffff;

/// The small fields of a record as one word, so that those who set them all do it by one store.
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

/// Indices of operations: the runtime's own (main, services), what runs where it is admitted (tasks, and those who keep
/// time or arguments for an operation's tokens), and from `first_operation` on those that users have made.
inline constexpr std::uint32_t own_operation = 0, task_index = 1, first_operation = 2;

/// What the runtime knows of an operation for as long as the process lives; see operation.cpp.
struct operation_record {
    const char* name;
    weight weight_class;
    storage tier;
    std::uint16_t flags;  ///< token_flags that every token of it starts with
    std::uint32_t index;  ///< its row in every thread's counters
    /// The word that they start with.
    std::uint64_t made = token_word{no_position, 0, flags, token_state::created, 0}.bits();
    /// Bits of operation_specials. What every call looks at, and therefore one word for all that calls do beyond making a
    /// token.
    relaxed<std::uint8_t> special{};
    std::vector<const char*> calls{};  ///< a lead's declared calls
    std::chrono::nanoseconds timeout{};
    retry_options retry{};
    breaker_options breaker{};
    quarantine_options quarantine{};
    /// With a timeout or retries: of the tokens that await the others, keep their time and make new ones.
    const operation_record* keeper = nullptr;
};

enum operation_specials : std::uint8_t {
    wraps = 1,  ///< each of its tokens has another around it, of `keeper`
    guarded =
        2  ///< it has a breaker or a quarantine: its tokens are watched from the beginning; see runtime/gate/guard.hpp
};

/// Why a token is to stop; bits of token_record::stop.
enum stop_reasons : std::uint8_t {
    stop_asked = 1,
    stop_timeout = 2,
    stop_killed = 4,   ///< from the gate
    stop_refused = 8,  ///< by the gate: it never starts, and its error says why
    stop_unrun = 16    ///< no reason: it has ended without having started
};

/// What a suspended body waits for, where a stop can reach it. Lies in the body's frame, and is known to the token from the
/// suspension until the resumption has been decided; all on the token's thread.
struct wait_point {
    /// Ends the wait early, if that can be done: sooner or later the body is resumed. Called at most once.
    void (*on_stop)(core_context&, wait_point&) noexcept;
};

/// Who wants to hear of a token's end. Lives in the awaiter's frame (or on the heap, for a future) until it has heard.
struct waiter {
    /// Null for a coroutine_waiter. Runs on home's thread, or where the token ended if home is null; ends the hand-over.
    void (*done)(token_record&, waiter&) noexcept;
    executor* home;       // the loop; the thread that hosts it may have changed by then
    token_record* token;  ///< whose body awaits; null: no token's
};

/// A coroutine that awaits one token. (Its token knows which: token_record::wait_for.)
struct coroutine_waiter : waiter {
    std::coroutine_handle<>
        handle;  ///< null while the awaiter is still on the stack below the token
};

/// A coroutine that awaits many tokens and is resumed once, by its home, when all have ended; see group.hpp. What ends
/// inside the await is not counted. `here` counts those that have suspended or wait on home's loop, and one more while not
/// all have begun; those that were routed share `elsewhere`, from which each thread subtracts what ended on it in batches,
/// so that a group of a million costs its home one message: its hook, from whoever reaches zero.
struct token_group : coroutine_waiter, wait_point, hook {
    // All of home's thread alone, but for the last two.
    token_record* (*child)(token_group&, std::uint32_t index,
                           bool take) noexcept;  ///< null: it has been taken before
    token_group* older;   ///< among the groups of this loop that may give children away
    token_group* newer;   ///< the same
    std::uint32_t size;   ///< children
    std::uint32_t begun;  ///< so many from the first on have begun, or are somebody else's to begin
    std::uint32_t offered;  ///< so many from the first on are not given away any more
    std::uint32_t here;
    std::uint32_t routed;  ///< share `elsewhere`
    bool elsewhere_done;
    bool gives;  ///< it is among those that may give children away
    bool
        listed;  ///< those that have not begun say that they are here to begin: the loop has had a turn
    relaxed<bool>
        any_failed;  ///< stored by whoever ends a failing child, before it is counted; read when all are
    std::atomic<std::uint32_t>
        elsewhere;  ///< fetch_sub(acq_rel) by all; the one that reaches zero sends the hook
};

/// States of token_record::owner beside a waiter's address.
enum : std::uintptr_t { owner_unclaimed = 0, owner_done = 1, owner_dropped = 2 };

struct token_record : hook {
    relaxed<const operation_record*> operation;
    relaxed_pointer anchor;  ///< domain, key or pin, as `flags` says
    /// A waiter fixed before admission is simply there, and the end needs no handshake. For a token admitted through a kept
    /// handle, each side comes once: the end exchanges `done` in, the handle a waiter's address or `dropped`, acq_rel; who
    /// comes second acts.
    std::uintptr_t owner;
    relaxed<std::uint64_t> sequence;
    relaxed<std::uint64_t> created_ns;
    relaxed<std::uint64_t> awaited_by;  ///< sequence of the awaiting token
    // What follows is a token_word.
    relaxed<std::uint16_t> position;  ///< executor it was routed to
    relaxed<std::uint16_t> runtime;   ///< slot of the runtime that admitted it, 0 before
    relaxed_bits<std::uint16_t> flags;
    relaxed<token_state> state;
    /// Bits of stop_reasons: set by whoever asks, read by the body; never cleared. It orders nothing: a message
    /// follows, see stop.cpp.
    relaxed<std::uint8_t> stop;

    /// The owner: all five at once; what it did before is published.
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

    /// Where the body is suspended. Shares the link, which no queue uses between a token's start and its end. Thread of the
    /// token alone.
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
    /// Whether the body is to be told now.
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
    /// The word is the end of the record.
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

/// What has been made and has nothing special about it: an unconducted call, a conducted child, a task's token outside of
/// chains, and inside.
inline constexpr std::uint64_t made_call =
    token_word{no_position, 0, 0, token_state::created, 0}.bits();
inline constexpr std::uint64_t made_conducted =
    token_word{no_position, 0, in_domain, token_state::created, 0}.bits();
inline constexpr std::uint64_t made_task =
    token_word{no_position, 0, unroutable, token_state::created, 0}.bits();
inline constexpr std::uint64_t made_task_conducted = made_conducted | made_task;
/// Of an awaiter: its child does not run in place.
inline constexpr std::uint64_t forbids_in_place =
    token_word{0, 0, holds_permit | shielded | exempt, token_state{}, 0xff}.bits();

static_assert(alignof(wait_point) >= 2 && alignof(token_record) >= 2,
              "the low bit of an address tells them apart");
static_assert(std::is_trivially_default_constructible_v<token_record>,
              "a task's frame must not pay for it");

}  // namespace tokengate::detail
