// SPDX-License-Identifier: MIT
#include "gate/guard.hpp"

#include "base/deadline.hpp"

#include <tokengate/error.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <memory>
#include <new>
#include <utility>

namespace tokengate::detail {

namespace {

template <class... Values>
std::string printed(const char* format, Values... values) {
    std::array<char, 64> text;
    std::snprintf(text.data(), text.size(), format, values...);
    return text.data();
}

std::string percent(double share) { return printed("%.3g %%", share * 100); }

std::string duration(std::uint64_t ns) {
    constexpr std::pair<std::uint64_t, const char*> units[] = {
        {1'000'000'000, "s"}, {1'000'000, "ms"}, {1'000, "µs"}, {1, "ns"}};
    for (const auto& [size, name] : units)
        if (ns >= size) {
            const double value = static_cast<double>(ns) / static_cast<double>(size);
            return printed(value < 100 ? "%.3g " : "%.0f ", value) + name;
        }
    return "0 s";
}

std::string date(std::chrono::system_clock::time_point at) {
    const std::time_t seconds = std::chrono::system_clock::to_time_t(at);
    std::tm fields{};
    gmtime_r(&seconds, &fields);
    std::array<char, 32> text{};
    std::strftime(text.data(), text.size(), "%F %T UTC", &fields);
    return text.data();
}

double share(std::uint64_t part, std::uint64_t whole) noexcept {
    return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

// ---- run_history --------------------------------------------------------------------------------

std::uint32_t run_history::rank(double q, std::uint32_t of) noexcept {
    return std::clamp(static_cast<std::uint32_t>(std::ceil(q * of)), std::uint32_t{1}, of);
}

void run_history::record(std::uint64_t ns) noexcept {
    if (count_ == most) forget_half();
    const std::size_t bucket = bucket_of(ns);
    ++counts_[bucket];
    ++count_;
    ++runs_;
    if (bucket <= at_) ++up_to_;
    settle();
}

void run_history::forget_half() noexcept {
    count_ = up_to_ = 0;
    // The remainder of a bucket that cannot be halved goes to the next: thin tails keep their
    // weight.
    std::uint32_t odd = 0;
    for (std::size_t i = 0; i < buckets; ++i) {
        const std::uint32_t whole = counts_[i] + odd;
        counts_[i] = whole / 2;
        odd = whole % 2;
        count_ += counts_[i];
        if (i <= at_) up_to_ += counts_[i];
    }
}

void run_history::settle() noexcept {
    const std::uint32_t wanted = rank(quantile_, count_);
    while (up_to_ < wanted) up_to_ += counts_[++at_];
    while (up_to_ - counts_[at_] >= wanted) up_to_ -= counts_[at_--];
}

std::uint64_t run_history::quantile(double q) const noexcept {
    if (count_ == 0) return 0;
    const std::uint32_t wanted = rank(q, count_);
    std::size_t bucket = 0;
    for (std::uint32_t seen = counts_[0]; seen < wanted;) seen += counts_[++bucket];
    return middle_of(bucket);
}

// ---- the desk -----------------------------------------------------------------------------------

guard_desk::guard_desk(const operation_record& of, clock now) : of_(of), now_(now) {
    if (of.breaker.failure_rate != 0) {
        last_.failed.resize(of.breaker.window);
        probing_.reserve(std::min(of.breaker.probes, 16U));
    }
    if (of.quarantine.factor != 0) history_.emplace(of.quarantine.quantile);
}

double guard_desk::failure_rate() const noexcept {
    return share(failed_ + timed_out_, completed_ + failed_ + timed_out_);
}

bool guard_desk::may_probe(time_point now) const noexcept {
    if (state_ == breaker_state::open) return now >= retry_at_;
    return probing_.size() + succeeded_ < of_.breaker.probes;
}

std::exception_ptr guard_desk::admit(const token_id& token) {
    const std::scoped_lock lock(mutex_);
    ++admitted_;
    if (!offence_ && state_ == breaker_state::closed) return nullptr;
    const time_point now = now_();
    if (!offence_ && may_probe(now)) {
        probing_.push_back(token.sequence);
        if (std::exchange(state_, breaker_state::half_open) == breaker_state::open) succeeded_ = 0;
        return nullptr;
    }
    // Half open, `now`: probes are running.
    const time_point retry_at = offence_                        ? time_point::max()
                                : state_ == breaker_state::open ? retry_at_
                                                                : now;
    return std::make_exception_ptr(operation_blocked(
        "operation_blocked: " + token.text() + " was not let in: \"" + of_.name + "\" is " +
            reason(now) + "; gate().release(\"" + of_.name + "\") lets it in at once",
        offence_ ? failure_rate() : rate_, retry_at));
}

void guard_desk::started() noexcept { started_.fetch_add(1, std::memory_order_relaxed); }

void guard_desk::ended(const ended_run& run) noexcept {
    const std::scoped_lock lock(mutex_);
    switch (run.outcome) {
        case run_outcome::completed: ++completed_; break;
        case run_outcome::failed: ++failed_; break;
        case run_outcome::timed_out: ++timed_out_; break;
        case run_outcome::killed: ++killed_; break;
        case run_outcome::refused: ++refused_; break;
        case run_outcome::expired: ++expired_; break;
    }
    const bool counts = run.outcome < run_outcome::killed;
    if (of_.breaker.failure_rate != 0) {
        if (state_ == breaker_state::half_open)
            end_probe(run.token.sequence, run.outcome);
        else if (state_ == breaker_state::closed && counts)
            note_run(run.outcome != run_outcome::completed);
    }
    if (history_ && counts && run.took) judge(run);
}

void guard_desk::note_run(bool failed) noexcept {
    if (last_.count == last_.failed.size())
        last_.failures -= last_.failed[last_.next];
    else
        ++last_.count;
    last_.failed[last_.next] = failed;
    last_.failures += failed;
    last_.next = (last_.next + 1) % last_.failed.size();
    if (last_.count < of_.breaker.min_runs) return;
    const double rate = share(last_.failures, last_.count);
    if (!(rate > of_.breaker.failure_rate)) return;
    rate_ = rate;
    rate_of_ = last_.count;
    open();
}

void guard_desk::end_probe(std::uint64_t sequence, run_outcome outcome) noexcept {
    // The token was admitted before the breaker opened.
    if (std::erase(probing_, sequence) == 0) return;
    if (outcome == run_outcome::failed || outcome == run_outcome::timed_out)
        open();
    else if (outcome == run_outcome::completed && ++succeeded_ == of_.breaker.probes)
        close();
}

void guard_desk::open() noexcept {
    retry_at_ = later(now_(), of_.breaker.open_for);
    state_ = breaker_state::open;
    probing_.clear();
}

void guard_desk::close() noexcept {
    state_ = breaker_state::closed;
    probing_.clear();
    last_.count = last_.failures = 0;
    last_.next = 0;
}

void guard_desk::judge(const ended_run& run) noexcept {
    const auto took = static_cast<std::uint64_t>(std::max<std::int64_t>(run.took->count(), 0));
    const std::uint64_t usual = history_->quantile();
    const bool leaves =
        history_->runs() >= of_.quarantine.min_runs &&
        static_cast<double>(took) > of_.quarantine.factor * static_cast<double>(usual);
    if (!leaves) {
        history_->record(took);
        return;
    }
    if (offence_) return;  // only the first offence is kept
    offence_.emplace(offence{run.token, run.arguments ? std::move(*run.arguments) : std::string(),
                             took, usual, std::chrono::system_clock::now()});
}

bool guard_desk::release() noexcept {
    const std::scoped_lock lock(mutex_);
    const bool was_blocked = offence_ || state_ != breaker_state::closed;
    if (offence_) {
        offence_.reset();
        // Its present run times become usual: else it would be in quarantine again at once.
        history_.emplace(of_.quarantine.quantile);
    }
    if (was_blocked) close();
    return was_blocked;
}

std::string guard_desk::blocked() const {
    const std::scoped_lock lock(mutex_);
    return offence_ || state_ != breaker_state::closed ? reason(now_()) : std::string();
}

std::string guard_desk::reason(time_point now) const {
    if (offence_)
        return "in quarantine since " + date(offence_->since) + ": " + offence_->token.text() +
               '(' + offence_->arguments + ") ran " + duration(offence_->took_ns) + ", while " +
               percent(of_.quarantine.quantile) + " end within " + duration(offence_->usual_ns);
    const std::string broken = "kept out by its breaker, since " + percent(rate_) +
                               " of its last " + std::to_string(rate_of_) + " runs failed";
    if (state_ == breaker_state::half_open && !may_probe(now))
        return broken + "; it is being tried again now";
    if (may_probe(now)) return broken + "; the next token tries it again";
    if (retry_at_ == time_point::max()) return broken;
    return broken + "; it is tried again in " +
           duration(static_cast<std::uint64_t>((retry_at_ - now).count()));
}

void guard_desk::add_to(operation_health& health) const noexcept {
    const std::scoped_lock lock(mutex_);
    health.admitted += admitted_;
    health.started += started_.load(std::memory_order_relaxed);
    health.completed += completed_;
    health.failed += failed_;
    health.killed += killed_;
    health.timed_out += timed_out_;
    health.refused += refused_;
    health.expired += expired_;
    if (history_ && history_->runs() != 0) {
        health.run_p50 = std::chrono::nanoseconds(history_->quantile(0.5));
        health.run_p99 = std::chrono::nanoseconds(history_->quantile(0.99));
    }
}

// ---- the table ----------------------------------------------------------------------------------

guard_desk& guard_table::of(const operation_record& operation) {
    if (guard_desk* known = find(operation.index)) return *known;
    const std::scoped_lock lock(making_);
    if (guard_desk* known = find(operation.index)) return *known;
    return table_.add(operation.index, std::make_unique<guard_desk>(operation));
}

}  // namespace tokengate::detail
