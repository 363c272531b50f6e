// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/frame_pool.hpp>
#include <tokengate/detail/relaxed.hpp>
#include <tokengate/detail/token_record.hpp>

#include <array>
#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>

/// Everything that one thread needs on the token path, reached through one thread-local pointer.
/// The thread of a loop has one, and so has a foreign thread that makes tokens. Contexts are never
/// freed: a thread that ends leaves its context to the next thread, so that no sequence number is
/// given out twice.
///
/// Owned by its thread. Other threads may read only the `relaxed` fields.

namespace tokengate::detail {

class executor;

/// A thread's knowledge of an operation. The memory is zero until its first use.
struct operation_counters {
    std::uint32_t longest_ns;      ///< longest recent run on this core, decaying
    std::uint16_t until_measured;  ///< runs left before a short operation is measured again
    bool is_short;                 ///< false while unknown
};

/// The counters of an executor. They lie in the context while a thread hosts the executor, so that
/// the token path reaches them directly.
struct executor_counts {
    relaxed<std::uint64_t> admitted{};
    /// Children that ran inside their awaiter's turn. Not in `admitted` and `ended`.
    relaxed<std::uint64_t> in_place{};
    /// Stored with release at each end, loaded with acquire by the thread that sums; see
    /// shared.hpp.
    relaxed<std::uint64_t> ended{};
    relaxed<std::uint64_t> live_domains{};
    relaxed<std::uint64_t> sticky_bypassed{};
    relaxed<std::uint64_t> redirections{};
    relaxed<std::uint64_t> retries{};

    void take_over(const executor_counts& from) noexcept {
        for (auto counter :
             {&executor_counts::admitted, &executor_counts::in_place, &executor_counts::ended,
              &executor_counts::live_domains, &executor_counts::sticky_bypassed,
              &executor_counts::redirections, &executor_counts::retries})
            (this->*counter).store((from.*counter).load());
    }
};

/// Words of the runtime whose loop the thread hosts. Each must be 0 for an operation's child to be
/// kept without a further check (admission.hpp, keeps_at_once). Loaded relaxed; the code that
/// stores a word documents when the store takes effect.
struct keeping_words {
    static inline const std::atomic<std::uint32_t> never{1};

    const std::atomic<std::uint32_t>* attention = &never;  ///< shared_state::attention
    const std::atomic<std::uint32_t>* at_start = &never;   ///< shared_state::at_start
    /// By weight: the number of hungry positions in its home range. `never` for a class that this
    /// loop does not serve.
    std::array<const std::atomic<std::uint32_t>*, 3> hungry{&never, &never, &never};
};

struct core_context {
    frame_pool* pool = nullptr;
    token_record* current = nullptr;  ///< the token whose body runs
    executor* host = nullptr;         ///< the loop of this thread; null on a foreign thread
    shared_state* runtime = nullptr;
    /// The coroutine that the innermost `resume` on the stack resumes next (compilers without tail
    /// calls); see transfer.hpp.
    std::coroutine_handle<> next = nullptr;
    /// If the stack has grown below this address, a child is no longer resumed on the awaiter's
    /// stack.
    char* stack_mark = nullptr;
    /// How many children may still run in place before the loop has a turn.
    int inline_budget = 0;
    /// The same while steps are instrumented. Then `inline_budget` is 0.
    int watched_budget = 0;
    std::uint16_t position = no_position;
    std::uint16_t runtime_slot = 0;
    std::uint64_t turn_ns = 0;  ///< wall clock of the loop's turn
    relaxed<std::uint64_t> next_sequence{};
    operation_counters* operations = nullptr;

    /// The group of the tokens that ended here last.
    token_group* ended_group = nullptr;
    /// How many of them are not yet subtracted from `ended_group`.
    std::uint32_t ended_in_group = 0;

    executor_counts counts;  ///< of the executor this thread hosts

    keeping_words keeping;
    /// The token_word of a child that begins in place here, without the child's own flags.
    std::uint64_t in_place = 0;

    /// Domains of an ended executor still name this context, so no thread may reuse it.
    bool outlived_by_domains = false;
    core_context* next_unused = nullptr;
};

/// Initial-exec: one load yields the address, also from a shared library.
extern constinit thread_local core_context* this_core [[gnu::tls_model("initial-exec")]];

/// The context of a thread that has none yet. Throws std::bad_alloc.
core_context& make_context();

inline core_context& context() { return this_core ? *this_core : make_context(); }

/// The context's pool, one load nearer than the context. It is `none` while the thread has no
/// context, so that code that makes or frees a frame need not check.
extern constinit thread_local frame_pool* this_pool [[gnu::tls_model("initial-exec")]];

/// The frame made last, for check_frame(). It is an integer, which no store through a pointer can
/// change. The compiler sees both the store and the comparison, and therefore knows that a frame it
/// has just made is the newest.
extern constinit thread_local std::uintptr_t newest_frame [[gnu::tls_model("initial-exec")]];

/// Allocate and free a frame in the thread's pool when the inline path failed. The first throws
/// std::bad_alloc.
void* allocate_frame_slowly(std::size_t bytes);
void free_frame_slowly(void* frame, std::size_t bytes) noexcept;

[[gnu::always_inline]] inline void* allocate_frame(std::size_t bytes) {
    void* frame = this_pool->try_allocate(bytes, slab_kind::frame);
    if (!frame) [[unlikely]]
        frame = allocate_frame_slowly(bytes);
#if !defined(__clang__)
    newest_frame = reinterpret_cast<std::uintptr_t>(frame);
#endif
    return frame;
}
[[gnu::always_inline]] inline void free_frame(void* frame, std::size_t bytes) noexcept {
    if (!this_pool->try_deallocate(frame, bytes, slab_kind::frame)) [[unlikely]]
        free_frame_slowly(frame, bytes);
}

}  // namespace tokengate::detail
