// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/admission.hpp>
#include <tokengate/detail/suspension.hpp>
#include <tokengate/token.hpp>
#include <tokengate/when_all.hpp>

#include <coroutine>
#include <cstddef>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

/// `when_any` admits several tokens at once and takes the first that ends. It asks the others to
/// stop, and waits until they have ended, so that nothing runs on afterwards. It also takes tasks,
/// which become tokens of this loop (task_token.hpp). The first to end decides, also if it fails:
/// then its exception is thrown. The results of the others are dropped. A failure of theirs that is
/// not the requested stop goes to the runtime's failure handler. A void result is std::monostate, a
/// reference std::reference_wrapper.
///
///     // first.index; std::get<0>(first.value), …
///     auto first = co_await tg::when_any(fetch(a), fetch(b));
///     // of one type: first.index, first.value
///     auto first = co_await tg::when_any(std::move(tokens));
///
/// Errors: Before any member is admitted:
/// * already_awaited for an empty handle, and for a group that was awaited before.
/// * wrong_thread where no event loop runs, wrong_runtime for a token of another runtime.
/// * std::invalid_argument for a group without tokens, which would never end; std::bad_alloc.
///
/// After all members have ended, the await throws the failure of the first to end.
///
/// Stop: A stop of the awaiter passes to all members that have not ended. The await ends when all
/// have ended.

namespace tokengate {

/// The position of the first member to end, and its result.
template <class Value>
struct first_of {
    std::size_t index;
    Value value;
};

namespace detail {

[[noreturn]] void throw_none_of_any();

/// The part that does not depend on types. All of it runs on the awaiter's thread.
class any_core : public suspension {
public:
    any_core(const any_core&) = delete;
    any_core& operator=(const any_core&) = delete;

protected:
    struct entry : waiter {
        any_core* of;
        token_record* work;
        bool ended;
    };
    static constexpr std::size_t none = ~std::size_t{0};

    any_core() = default;
    ~any_core() = default;

    void begin(core_context& core, std::coroutine_handle<> awaiting, entry* entries,
               std::size_t count) noexcept;
    void add(core_context& core, std::size_t index, token_record& token, bool admitted) noexcept;
    /// Returns true if the awaiter stays suspended.
    bool finish(core_context& core) noexcept;
    void resumed();
    /// The member whose end decides. The failures of the others are reported.
    [[nodiscard]] std::size_t first() const noexcept { return first_; }

private:
    static void entry_ended(token_record& token, waiter& self) noexcept;
    void note_end(entry& ended) noexcept;
    void stop_others() noexcept;

    entry* entries_ = nullptr;
    std::size_t count_ = 0;
    std::size_t left_ = 0;
    std::size_t first_ = none;
    bool suspended_ = false;
};

template <class Derived>
class any_awaiter : public any_core {
public:
    bool await_ready() const noexcept { return false; }

    bool await_suspend(std::coroutine_handle<> awaiting) {
        auto& self = static_cast<Derived&>(*this);
        if (entries_) throw_already_awaited();
        if (self.size() == 0) throw_none_of_any();
        on_a_loop("await a group");
        self.each([](auto& token) {
            if (!token.valid()) throw_already_awaited();
            if (token_access::bound(token)) check_admissible(token_access::record(token));
        });
        entries_ = std::make_unique<entry[]>(self.size());
        core_context& core = *this_core;
        begin(core, awaiting, entries_.get(), self.size());
        std::size_t index = 0;
        self.each([&](auto& token) {
            const bool admitted = token_access::admitted(token);
            token_access::mark_admitted(token);
            add(core, index++, token_access::record(token), admitted);
        });
        return finish(core);
    }

protected:
    /// Reports the failures of the others, and throws the failure of the first.
    void settle() {
        resumed();
        ended_ = true;
        std::size_t index = 0;
        std::exception_ptr thrown;
        static_cast<Derived&>(*this).each([&](auto& token) {
            std::exception_ptr& error = token_access::promise_of(token).error;
            const bool decides = index++ == first();
            if (!error) return;
            if (decides)
                thrown = std::move(error);
            else
                report_failure(token_access::record(token), std::move(error));
        });
        if (thrown) std::rethrow_exception(std::move(thrown));
    }

    void destroy_ended() noexcept {
        if (!ended_) return;
        static_cast<Derived&>(*this).each([](auto& token) {
            if (token.valid()) token_access::destroy(token);
        });
    }

private:
    std::unique_ptr<entry[]> entries_;
    bool ended_ = false;
};

template <class T>
class any_of_vector : public any_awaiter<any_of_vector<T>> {
public:
    explicit any_of_vector(std::vector<token<T>>&& tokens) noexcept : tokens_(std::move(tokens)) {}
    ~any_of_vector() { this->destroy_ended(); }

    first_of<group_result<T>> await_resume() {
        this->settle();
        return {this->first(), take_result(tokens_[this->first()])};
    }

    template <class Visit>
    void each(Visit visit) {
        for (auto& token : tokens_) visit(token);
    }
    [[nodiscard]] std::size_t size() const noexcept { return tokens_.size(); }

private:
    std::vector<token<T>> tokens_;
};

template <class... T>
class any_of_tuple : public any_awaiter<any_of_tuple<T...>> {
    using value = std::variant<group_result<T>...>;

public:
    explicit any_of_tuple(token<T>&&... tokens) noexcept : tokens_(std::move(tokens)...) {}
    ~any_of_tuple() { this->destroy_ended(); }

    first_of<value> await_resume() {
        this->settle();
        return {this->first(), take_first(std::index_sequence_for<T...>{})};
    }

    template <class Visit>
    void each(Visit visit) {
        std::apply([&](auto&... token) { (visit(token), ...); }, tokens_);
    }
    [[nodiscard]] std::size_t size() const noexcept { return sizeof...(T); }

private:
    template <std::size_t... I>
    value take_first(std::index_sequence<I...>) {
        std::optional<value> taken;
        static_cast<void>(
            ((I == this->first() &&
              (taken.emplace(std::in_place_index<I>, take_result(std::get<I>(tokens_))), true)) ||
             ...));
        return std::move(*taken);
    }

    std::tuple<token<T>...> tokens_;
};

}  // namespace detail

template <class T>
[[nodiscard]] auto when_any(std::vector<token<T>> tokens) {
    return detail::any_of_vector<T>(std::move(tokens));
}

template <class T>
[[nodiscard]] auto when_any(std::vector<task<T>> tasks) {
    return when_any(detail::to_members(std::move(tasks)));
}

template <detail::group_member First, detail::group_member... Work>
[[nodiscard]] auto when_any(First first, Work... others) {
    return detail::any_of_tuple<typename First::value_type, typename Work::value_type...>(
        detail::to_member(std::move(first)), detail::to_member(std::move(others))...);
}

}  // namespace tokengate
