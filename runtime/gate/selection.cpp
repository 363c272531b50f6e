// SPDX-License-Identifier: MIT
#include "gate/selection.hpp"

#include "token/operations.hpp"

#include <tokengate/detail/admission.hpp>
#include <tokengate/detail/domain.hpp>
#include <tokengate/error.hpp>

#include <string>

namespace tokengate::detail {

bool is_users(const token_record& token) noexcept {
    return token.operation.load()->index != own_operation;
}

bool selects(const selection& what, const token_record& token) noexcept {
    switch (what.of()) {
        case selection::kind::all: return is_users(token);
        case selection::kind::operation:
            return is_users(token) && what.operation() == token.operation.load()->name;
        case selection::kind::one:
        case selection::kind::chain:
            return is_users(token) && token.sequence.load() == what.id().sequence;
    }
    return false;
}

bool in_chain(const token_record& token, std::uint64_t lead_sequence, bool on_its_thread) noexcept {
    if (!(token.flags & in_domain)) return false;
    for (const auto* each = static_cast<const domain*>(token.anchor); each;
         each = on_its_thread ? each->outer : nullptr)
        if (each->lead_sequence.load() == lead_sequence ||
            each->call_sequence.load() == lead_sequence)
            return true;
    return false;
}

bool means(const selection& what, const token_info& info) noexcept {
    switch (what.of()) {
        case selection::kind::all: return true;
        case selection::kind::operation: return info.id.operation == what.operation();
        case selection::kind::one: return info.id.sequence == what.id().sequence;
        case selection::kind::chain:
            return info.id.sequence == what.id().sequence ||
                   info.domain.sequence == what.id().sequence;
    }
    return false;
}

bool same_selection(const selection& a, const selection& b) noexcept {
    if (a.of() != b.of()) return false;
    switch (a.of()) {
        case selection::kind::all: return true;
        case selection::kind::operation: return a.operation() == b.operation();
        default: return a.id().sequence == b.id().sequence;
    }
}

selection settled(const selection& what) {
    if (what.of() != selection::kind::operation) {
        if (what.of() != selection::kind::all && what.id().sequence == 0 &&
            what.id().operation.empty())
            throw configuration_error("configuration_error: gate: this token_id names no token");
        return what;
    }
    const char* name = operation_name_of(what.operation());
    if (!name)
        throw configuration_error("configuration_error: gate: no operation is named \"" +
                                  std::string(what.operation()) +
                                  "\": the name is the one in its operation_options");
    return {name};
}

}  // namespace tokengate::detail

namespace tokengate {

std::string selection::text() const {
    switch (of_) {
        case kind::all: return "all tokens";
        case kind::operation: return "tokens of \"" + std::string(id_.operation) + '"';
        case kind::one: return id_.text();
        case kind::chain: return "the chain of " + id_.text();
    }
    return {};
}

}  // namespace tokengate
