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

/// Everything one thread needs at hand on the token path, reached through one thread-local pointer. A loop's thread and a
/// foreign thread that makes tokens both have one. Contexts are never freed: a thread that ends leaves its context to the
/// next, so that a sequence number is never given out twice.
///
/// Owned by its thread; only the `relaxed` fields may be read by others.

namespace tokengate::detail {

class executor;

/// What a thread knows of an operation. Its memory is zero until first used.
struct operation_counters {
    std::uint32_t longest_ns;      ///< longest recent run on this core, decaying
    std::uint16_t until_measured;  ///< runs left before a short operation is measured again
    bool is_short;                 ///< false while unknown
};

/// What an executor counts. Lives in the context while a thread hosts it, so that the path reaches it directly.
struct executor_counts {
    relaxed<std::uint64_t> admitted{};
    relaxed<std::uint64_t>
        in_place{};  ///< conducted children that ran inside their awaiter's turn; not in `admitted`, `ended`
    relaxed<std::uint64_t> ended{};  ///< released at each end, acquired by who sums: see shared.hpp
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

/// Words that stand against keeping an operation's child without asking (admission.hpp, keeps_at_once), of the runtime whose
/// loop the thread hosts: each must be 0. Loaded relaxed; who stores them says when that is heard.
struct keeping_words {
    static inline const std::atomic<std::uint32_t> never{1};

    const std::atomic<std::uint32_t>* attention = &never;  ///< shared_state::attention
    const std::atomic<std::uint32_t>* at_start = &never;   ///< shared_state::at_start
    /// By weight: hungry positions of its home range; `never` for a class that this loop does not serve.
    std::array<const std::atomic<std::uint32_t>*, 3> hungry{&never, &never, &never};
};

struct core_context {
    frame_pool* pool = nullptr;
    token_record* current = nullptr;  ///< the token whose body runs
    executor* host = nullptr;         ///< the loop of this thread; null on a foreign thread
    shared_state* runtime = nullptr;
    std::coroutine_handle<> next =
        nullptr;  ///< to be resumed by whoever resumed last (compilers without tail calls)
    char* stack_mark = nullptr;  ///< below it a child is no longer resumed on the awaiter's stack
    int inline_budget = 0;   ///< children that may still run in place before the loop has a turn
    int watched_budget = 0;  ///< the same while somebody watches: then the one above is 0
    std::uint16_t position = no_position;
    std::uint16_t runtime_slot = 0;
    std::uint64_t turn_ns = 0;  ///< wall clock of the loop's turn
    relaxed<std::uint64_t> next_sequence{};
    operation_counters* operations = nullptr;

    token_group* ended_group = nullptr;  ///< group of the tokens that ended here last …
    std::uint32_t ended_in_group = 0;    ///< … and how many of them are not yet subtracted from it

    executor_counts counts;  ///< of the executor this thread hosts

    keeping_words keeping;
    std::uint64_t in_place =
        0;  ///< token_word of a child that begins in place here, but for its own flags

    bool outlived_by_domains =
        false;  ///< domains of an ended executor still name this context: it is not used again
    core_context* next_unused = nullptr;
};

/// Initial-exec: the address is one load away, also from a shared library.
extern constinit thread_local core_context* this_core [[gnu::tls_model("initial-exec")]];

/// The context of a thread that has none yet. Throws std::bad_alloc.
core_context& make_context();

inline core_context& context() { return this_core ? *this_core : make_context(); }

/// The context's pool, one load nearer than the context; `none` while the thread has no context, so that nobody who makes
/// or frees a frame asks whether it has.
extern constinit thread_local frame_pool* this_pool [[gnu::tls_model("initial-exec")]];

/// The frame made last, for check_frame(). An integer, which no store of a pointer can change: so the compiler, which sees
/// both, knows that a frame it has just made is the newest.
extern constinit thread_local std::uintptr_t newest_frame [[gnu::tls_model("initial-exec")]];

/// The frame in the thread's pool when the short way did not do. The first throws std::bad_alloc.
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
