// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/domain.hpp>
#include <tokengate/detail/token_record.hpp>

#include <coroutine>
#include <cstdint>
#include <exception>

/// What tokens, groups and operations ask of the runtime; the compiled side of the token path.

namespace tokengate::detail {

/// Throws wrong_thread or wrong_runtime.
[[noreturn]] void throw_not_admissible(const token_record& token);

/// Throws wrong_thread if no event loop runs on this thread, wrong_runtime if the token was admitted in another runtime or
/// inherited a seed there.
inline void check_admissible(const token_record& token) {
    const core_context* core = this_core;
    if (!core || !core->host) [[unlikely]]
        throw_not_admissible(token);
    if (const std::uint16_t admitted_in = token.runtime.load(); admitted_in != 0) {
        if (admitted_in != core->runtime_slot) [[unlikely]]
            throw_not_admissible(token);
    } else if ((token.flags & in_domain) && static_cast<domain*>(token.anchor)->runtime != core->runtime) [[unlikely]] {
        throw_not_admissible(token);
    }
}

/// Hands a token to the gate of this thread's runtime. Its owner word is fixed already. The token is not touched after it
/// has been handed over.
void admit(core_context& core, token_record& token) noexcept;

/// A conducted child is about to run in place, and somebody watches. On the domain's core.
void watch_in_place(core_context& core, token_record& token) noexcept;

/// The handle of a token goes away: before admission (its domain is told, its frame destroyed), or after.
void drop_unadmitted(token_record& token) noexcept;
void drop_admitted(token_record& token) noexcept;

void release_permit(core_context& core, token_record& holder) noexcept;
void force_permit(core_context& core, token_record& resumed) noexcept;

/// The running token is about to await others: its storage permit goes back to the gate …
inline void give_up_permit(core_context& core, token_record& awaiting) noexcept {
    if (awaiting.flags & holds_permit) [[unlikely]]
        release_permit(core, awaiting);
}
/// … and is taken again, over the limit if need be, when it resumes.
inline void retake_permit(core_context& core, token_record& resumed) noexcept {
    if ((resumed.flags & (has_tier | holds_permit)) == has_tier) [[unlikely]]
        force_permit(core, resumed);
}

/// Subtracts what ended here last from its group; see token_group.
void flush_ended_group(core_context& core) noexcept;

/// A failure nobody can hear: to the failure handler of the runtime that admitted the token. Any thread.
void report_failure(token_record& token, std::exception_ptr error) noexcept;
/// The state in which a token has ended, and its error in the words of what ended it: a stop from the gate has become
/// token_killed.
void note_failure(core_context& core, token_record& token) noexcept;
/// Whether a failure says only that the token did what it was asked for.
[[nodiscard]] bool was_asked_for(const token_record& token, const std::exception_ptr& error) noexcept;

/// Asks a token to stop: bits of stop_reasons. From whoever knows its frame to live: its awaiter, on the awaiter's loop, or
/// the holder of its handle, on any thread.
void request_stop(token_record& token, std::uint8_t reason) noexcept;

/// Marks a waiter as a group, which counts instead of being called.
void group_done(token_record& token, waiter& self) noexcept;

/// Admits the tokens of a group one by one, and then tells whether its awaiter must suspend.
///
///     group_admission admission(core, group, awaiter, tokens.size());
///     for (auto& t : tokens) admission.add(record_of(t), was_admitted(t));
///     return admission.finish() ? stay_suspended() : not_suspended(awaiter);
class group_admission {
public:
    group_admission(core_context& core, token_group& group, std::coroutine_handle<> awaiter,
                    std::uint32_t size) noexcept;
    void add(token_record& token, bool admitted) noexcept;
    [[nodiscard]] bool finish() noexcept;

private:
    core_context& core_;
    token_group& group_;
    std::uint32_t size_;
    std::uint32_t not_elsewhere_ = 0;  // bound to this thread, or ended before
};

/// What is said of a handle without a token, and of one that was admitted before.
[[noreturn]] void throw_already_awaited();
[[noreturn]] void throw_already_admitted(const token_record& token);

}  // namespace tokengate::detail
