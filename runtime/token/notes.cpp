// SPDX-License-Identifier: MIT
#include "token/notes.hpp"

#include <tokengate/detail/arguments.hpp>
#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/promise.hpp>

#include <memory>
#include <new>
#include <utility>

namespace tokengate::detail {

void forget(frame_pool& pool, token_notes& notes) noexcept {
    delete notes.arguments;
    pool.deallocate(&notes, sizeof(token_notes), slab_kind::object);
}

void begin_notes(token_record& token, argument_text&& arguments) {
    promise_base& promise = promise_base::of(token);
    promise.keep_notes(nullptr);  // if what follows throws
    if (token.operation.load()->quarantine.factor == 0) return;
    auto text = std::make_unique<std::string>(std::move(arguments).take());
    auto* notes =
        new (context().pool->allocate(sizeof(token_notes), slab_kind::object)) token_notes;
    notes->arguments = text.release();
    promise.keep_notes(notes);
}

token_notes* guarded_notes(token_record& token) noexcept {
    return is_guarded(token) ? promise_base::of(token).notes() : nullptr;
}

}  // namespace tokengate::detail
