// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/admission.hpp>
#include <tokengate/detail/group.hpp>
#include <tokengate/detail/suspension.hpp>
#include <tokengate/task_token.hpp>
#include <tokengate/token.hpp>

#include <coroutine>
#include <cstddef>
#include <exception>
#include <functional>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

/// `when_all` admits several tokens at once and waits for all of them. It also takes tasks, which
/// become tokens of this loop (task_token.hpp). Tokens start in the order given as their cores have
/// room. Those that run on this core start one by one inside the await, each until it ends or
/// suspends (docs/explanation/fairness.md, "Order"). The results come in that order, a void result
/// as std::monostate, a reference as std::reference_wrapper. If members fail, the first failure by
/// position is rethrown after all have ended, and the others go to the runtime's failure handler.
///
///     // void results are std::monostate
///     auto [page, size] = co_await tg::when_all(fetch(url), measure(path));
///     // of one type; void: no result
///     std::vector<int> all = co_await tg::when_all(std::move(tokens));
///
/// Errors: Before any member is admitted:
/// * already_awaited for an empty handle, and for a group that was awaited before.
/// * wrong_thread where no event loop runs, wrong_runtime for a token of another runtime.
/// * std::length_error for more than 2^32 - 2 tokens.
///
/// After all members have ended, the await throws the first failure by position.
///
/// Stop: A stop of the awaiter passes to all members. The await ends when all have ended.

namespace tokengate {

namespace detail {

/// Collects the failures of a group, in order of position.
class failures {
public:
    template <class T>
    bool hold(const token<T>& ended) noexcept {
        std::exception_ptr& error = token_access::promise_of(ended).error;
        if (!error) return false;
        if (!first_)
            first_ = std::move(error);
        else
            report_failure(token_access::record(ended), std::move(error));
        return true;
    }
    void rethrow() {
        if (first_) std::rethrow_exception(std::move(first_));
    }

private:
    std::exception_ptr first_;
};

/// The common part of both forms: the group, in the awaiter's frame. It passes a stop of the
/// awaiter to all members.
template <class Derived>
class group_awaiter : token_group {
public:
    group_awaiter() = default;
    group_awaiter(group_awaiter&&) noexcept {}  // only before the await, which makes the group
    group_awaiter& operator=(group_awaiter&&) = delete;

    [[gnu::always_inline]] bool await_suspend(std::coroutine_handle<> awaiter) {
        auto& self = static_cast<Derived&>(*this);
        if (awaited_) throw_already_awaited();
        if (self.size() > most_in_a_group)
            throw std::length_error("tokengate::when_all takes at most 2^32 - 2 tokens");
        const core_context* known = this_core;
        bool any_kept = false;
        const bool at_once = known && known->current &&
                             (known->current->word() & forbids_in_place) == 0 &&
                             self.each([&](auto& token) {
                                 if (!token.valid() || token_access::admitted(token)) return false;
                                 const token_record& record = token_access::record(token);
                                 if (is_plain(*known, record)) return true;
                                 any_kept = true;
                                 return keeps_at_once(*known, record);
                             });
        if (!at_once) check();
        core_context& core = *this_core;
        awaited_ = true;
        on_stop = [](core_context&, wait_point& point) noexcept {
            static_cast<group_awaiter&>(static_cast<token_group&>(point)).stop_all();
        };
        begin_group(core, *this, awaiter, static_cast<std::uint32_t>(self.size()), child_of);
        if (!at_once) return begin_any(core);
        return any_kept ? begin_kept(core)
                        : begin_all(core, [](const token_record&) { return true; });
    }

protected:
    /// Throws the first failure by position, and reports the others.
    void resumed() {
        ended_ = true;
        core_context& core = context();
        if (core.current) {
            core.current->wait_is_over();
            retake_permit(core, *core.current);
        }
        if (!any_failed.load()) return;
        failures failed;
        static_cast<Derived&>(*this).each([&](auto& token) {
            failed.hold(token);
            return true;
        });
        failed.rethrow();
    }

    /// For the destructor of the derived class. After the group has ended, it owns the frames of
    /// its members; before, the handles do.
    void destroy_ended() noexcept {
        if (!ended_) return;
        static_cast<Derived&>(*this).each([](auto& token) {
            if (token.valid()) token_access::destroy(token);
            return true;
        });
    }

private:
    static constexpr std::size_t most_in_a_group = 0xffff'fffe;

    /// Throws before any member is admitted. A function of its own, like those below, because a
    /// group of plain children needs none of them.
    [[gnu::noinline]] void check() {
        suspension::on_a_loop("await a group");
        static_cast<Derived&>(*this).each([](auto& token) {
            if (!token.valid()) throw_already_awaited();
            // A token that is neither admitted nor in a domain belongs to no runtime.
            if (token_access::bound(token)) check_admissible(token_access::record(token));
            return true;
        });
    }

    /// Begins all children in order, except those that have been admitted. `at_once` returns
    /// whether a child may begin without a further check. Returns as await_suspend does.
    template <class AtOnce>
    [[gnu::always_inline]] bool begin_all(core_context& core, AtOnce at_once) {
        const bool all_begun = static_cast<Derived&>(*this).each([&](auto& token) {
            ++begun;  // first: the child may give away those behind it
            if (token_access::admitted(token)) return true;
            token_record& record = token_access::record(token);
            if (begin_child(core, *this, record, at_once(record)) == beginning::not_yet) {
                --begun;
                return false;
            }
            token_access::mark_admitted(token);
            return true;
        });
        if (!all_begun) {
            leave_rest(core, *this);
            return true;
        }
        return !finish_group(core, *this);
    }

    /// Other loops may take some of the children. Each child is checked anew, because the children
    /// that ran before may have changed the result.
    [[gnu::noinline]] bool begin_kept(core_context& core) {
        offer_children(core, *this);
        return begin_all(core,
                         [&](const token_record& token) { return is_plain_or_kept(core, token); });
    }

    [[gnu::noinline]] bool begin_any(core_context& core) {
        admit_some(core);
        return begin_all(core, [](const token_record&) { return false; });
    }

    /// Admits the children that may not run in place, before the others begin.
    [[gnu::noinline]] void admit_some(core_context& core) noexcept {
        if (core.current) give_up_permit(core, *core.current);
        // The awaiter was asked to stop before it began to wait, so its children are asked, too.
        if (core.current && core.current->stop_pending()) stop_all();
        const bool all = all_through_gate(core);
        bool any_left = false, any_kept = false;
        static_cast<Derived&>(*this).each([&](auto& token) {
            token_record& record = token_access::record(token);
            const bool admitted = token_access::admitted(token);
            const place at = admitted || all ? place::gate : place_of(core, record);
            const bool goes = at == place::gate || (at == place::kept && !may_keep(core, record));
            any_left |= !goes;
            any_kept |= !goes && at == place::kept;
            if (!goes) return true;
            token_access::mark_admitted(token);
            admit_in_group(core, *this, record, admitted);
            return true;
        });
        if (!any_left) return;
        if (any_kept) offer_children(core, *this);
        if (routed != 0) send_routed(core);
    }

    void stop_all() noexcept {
        static_cast<Derived&>(*this).each([](auto& token) {
            request_stop(token_access::record(token), stop_asked);
            return true;
        });
    }

    static token_record* child_of(token_group& group, std::uint32_t index, bool take) noexcept {
        token_record* found = nullptr;
        static_cast<Derived&>(static_cast<group_awaiter&>(group)).at(index, [&](auto& token) {
            if (token_access::admitted(token)) return;
            found = &token_access::record(token);
            if (take) token_access::mark_admitted(token);
        });
        return found;
    }

    bool awaited_ = false;
    bool ended_ = false;
};

template <class T>
using group_result =
    std::conditional_t<std::is_void_v<T>, std::monostate,
                       std::conditional_t<std::is_reference_v<T>,
                                          std::reference_wrapper<std::remove_reference_t<T>>, T>>;

template <class T>
group_result<T> take_result(token<T>& ended) {
    if constexpr (std::is_void_v<T>)
        return {};
    else
        return token_access::promise_of(ended).take();
}

template <class T>
class all_of_vector : public group_awaiter<all_of_vector<T>> {
public:
    explicit all_of_vector(std::vector<token<T>>&& tokens) noexcept : tokens_(std::move(tokens)) {}
    all_of_vector(all_of_vector&&) = default;
    ~all_of_vector() { this->destroy_ended(); }

    bool await_ready() const noexcept { return tokens_.empty(); }

    auto await_resume() {
        this->resumed();
        if constexpr (!std::is_void_v<T>) {
            std::vector<group_result<T>> results;
            results.reserve(tokens_.size());
            for (auto& token : tokens_) {
                results.push_back(take_result(token));
                token_access::destroy(token);
            }
            return results;
        }
    }

    /// Visits until a visit returns false; returns false then.
    template <class Visit>
    [[gnu::always_inline]] bool each(Visit visit) {
        for (auto& token : tokens_)
            if (!visit(token)) return false;
        return true;
    }
    template <class Visit>
    void at(std::size_t index, Visit visit) {
        visit(tokens_[index]);
    }
    [[nodiscard]] std::size_t size() const noexcept { return tokens_.size(); }

private:
    std::vector<token<T>> tokens_;
};

template <class... T>
class all_of_tuple : public group_awaiter<all_of_tuple<T...>> {
public:
    explicit all_of_tuple(token<T>&&... tokens) noexcept : tokens_(std::move(tokens)...) {}
    all_of_tuple(all_of_tuple&&) = default;
    ~all_of_tuple() { this->destroy_ended(); }

    bool await_ready() const noexcept { return sizeof...(T) == 0; }

    std::tuple<group_result<T>...> await_resume() {
        this->resumed();
        return std::apply(
            [](auto&... token) { return std::tuple<group_result<T>...>{take_result(token)...}; },
            tokens_);
    }

    template <class Visit>
    [[gnu::always_inline]] bool each(Visit visit) {
        return std::apply([&](auto&... token) { return (visit(token) && ...); }, tokens_);
    }
    template <class Visit>
    void at(std::size_t index, Visit visit) {
        std::size_t before = 0;
        each([&](auto& token) {
            if (before++ != index) return true;
            visit(token);
            return false;
        });
    }
    [[nodiscard]] std::size_t size() const noexcept { return sizeof...(T); }

private:
    std::tuple<token<T>...> tokens_;
};

}  // namespace detail

template <class T>
[[nodiscard]] auto when_all(std::vector<token<T>> tokens) {
    return detail::all_of_vector<T>(std::move(tokens));
}

template <class T>
[[nodiscard]] auto when_all(std::vector<task<T>> tasks) {
    return when_all(detail::to_members(std::move(tasks)));
}

template <detail::group_member... Work>
[[nodiscard]] auto when_all(Work... work) {
    return detail::all_of_tuple<typename Work::value_type...>(
        detail::to_member(std::move(work))...);
}

}  // namespace tokengate
