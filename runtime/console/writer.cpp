// SPDX-License-Identifier: MIT
#include "writer.hpp"

#include <tokengate/stop.hpp>

#include <utility>

namespace tokengate::detail {

console_writer::console_writer() : thread_([this] { work(); }) {}

console_writer::~console_writer() {
    {
        const std::scoped_lock lock(mutex_);
        ending_ = true;
    }
    changed_.notify_one();
    thread_.join();
}

task<std::string> console_writer::write(std::function<std::string()> make) {
    job mine;
    mine.make = std::move(make);
    {
        const std::scoped_lock lock(mutex_);
        next_ = &mine;
    }
    changed_.notify_one();
    co_await shield(mine.done.wait());
    if (mine.error) std::rethrow_exception(std::move(mine.error));
    co_return std::move(mine.text);
}

void console_writer::work() noexcept {
    std::unique_lock lock(mutex_);
    for (;;) {
        changed_.wait(lock, [&] { return next_ || ending_; });
        job* const current = std::exchange(next_, nullptr);
        if (!current) return;
        lock.unlock();
        try {
            current->text = current->make();
        } catch (...) {
            current->error = std::current_exception();
        }
        current->done.set();  // afterwards `*current` may be gone
        lock.lock();
    }
}

}  // namespace tokengate::detail
