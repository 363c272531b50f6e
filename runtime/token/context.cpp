// SPDX-License-Identifier: MIT
#include <tokengate/detail/core_context.hpp>

#include "loop/event_loop.hpp"
#include "token/context.hpp"

#include <tokengate/detail/promise.hpp>

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

namespace tokengate::detail {

constinit thread_local core_context* this_core = nullptr;
constinit thread_local frame_pool* this_pool = &frame_pool::none;
constinit thread_local std::uintptr_t newest_frame = 0;

namespace {

/// The contexts whose threads have ended, for the next threads. No context is ever freed.
struct registry {
    std::mutex mutex;
    core_context* unused = nullptr;  // linked through next_unused
    std::vector<core_context*> all;  // by number
};

registry& contexts() {
    static auto* forever = new registry;
    return *forever;
}

/// A thread-specific key instead of a thread_local object. The key's destructor runs after those of
/// all thread_locals, which may still destroy tokens. It runs once more if they have needed a
/// context again.
void at_thread_end(void* held) {
    auto& context = *static_cast<core_context*>(held);
    this_core = nullptr;
    this_pool = &frame_pool::none;
    frame_pool::release(std::exchange(context.pool, nullptr));
    if (!context.outlived_by_domains) give_back_context(context);
}

pthread_key_t thread_end_key() {
    static const pthread_key_t forever = [] {
        pthread_key_t made;
        if (pthread_key_create(&made, at_thread_end) != 0) throw std::bad_alloc();
        return made;
    }();
    return forever;
}

operation_counters* map_counters() {
    // Zero pages. They cost memory only once an operation has been called on this thread.
    void* memory = mmap(nullptr, most_operations * sizeof(operation_counters),
                        PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    return static_cast<operation_counters*>(memory);
}

core_context* new_context(registry& r) {
    auto made = std::make_unique<core_context>();
    made->operations = map_counters();
    // 0 is reserved for "no token"; see token_record::awaited_by.
    made->next_sequence.store((std::uint64_t{r.all.size()} << sequence_bits) + 1);
    r.all.push_back(made.get());
    return made.release();
}

/// The address down to which children run on the awaiter's stack: 256 KiB below, or half of what is
/// left of the stack, whichever is less.
char* mark_of_this_stack() noexcept {
    constexpr std::size_t used_at_most = 256 * 1024;
    char* here = static_cast<char*>(__builtin_frame_address(0));
    pthread_attr_t attributes;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0) return here - used_at_most / 4;
    void* lowest = nullptr;
    std::size_t size = 0;
    pthread_attr_getstack(&attributes, &lowest, &size);
    pthread_attr_destroy(&attributes);
    const auto left = static_cast<std::size_t>(here - static_cast<char*>(lowest));
    return here - std::min(used_at_most, left / 2);
}

}  // namespace

core_context& make_context() {
    const pthread_key_t key = thread_end_key();
    registry& r = contexts();
    core_context* taken;
    {
        const std::scoped_lock lock(r.mutex);
        taken = r.unused;
        if (taken)
            r.unused = taken->next_unused;
        else
            taken = new_context(r);
    }
    taken->pool = this_pool = frame_pool::acquire();
    taken->stack_mark = mark_of_this_stack();
    taken->current = nullptr;
    this_core = taken;
    if (pthread_setspecific(key, taken) != 0) throw std::bad_alloc();
    return *taken;
}

void* allocate_frame_slowly(std::size_t bytes) {
    return context().pool->allocate(bytes, slab_kind::frame);
}
void free_frame_slowly(void* frame, std::size_t bytes) noexcept {
    context().pool->deallocate(frame, bytes, slab_kind::frame);
}

void give_back_context(core_context& unused) noexcept {
    unused.outlived_by_domains = false;
    registry& r = contexts();
    const std::scoped_lock lock(r.mutex);
    unused.next_unused = r.unused;
    r.unused = &unused;
}

sequence_marks mark_sequences() {
    registry& r = contexts();
    const std::scoped_lock lock(r.mutex);
    sequence_marks marks;
    marks.next.reserve(r.all.size());
    for (const core_context* each : r.all) marks.next.push_back(each->next_sequence.load());
    return marks;
}

std::size_t live_frames_of(const operation_record& operation) {
    std::size_t live = 0;
    frame_pool::for_each_slot([&](void* slot, std::size_t) {
        const token_record& token = promise_base::record_in(slot);
        live +=
            token.state.load_acquire() != token_state::none && token.operation.load() == &operation;
    });
    return live;
}

void note_time(core_context& core) noexcept { core.turn_ns = event_loop::wall_ns(); }

}  // namespace tokengate::detail
