// SPDX-License-Identifier: MIT

/// What one would write without a library: std::deque, a mutex and two condition variables, between pinned threads.

#include "../support/pinned_thread.hpp"
#include "problem.hpp"

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <vector>

namespace {

class bounded_queue {
public:
    void push(std::uint64_t item) {
        std::unique_lock lock(mutex_);
        not_full_.wait(lock, [this] { return items_.size() < channel::room; });
        items_.push_back(item);
        lock.unlock();
        not_empty_.notify_one();
    }
    std::optional<std::uint64_t> pop() {
        std::unique_lock lock(mutex_);
        not_empty_.wait(lock, [this] { return !items_.empty() || closed_; });
        if (items_.empty()) return {};
        const std::uint64_t item = items_.front();
        items_.pop_front();
        lock.unlock();
        not_full_.notify_one();
        return item;
    }
    void close() {
        const std::scoped_lock lock(mutex_);
        closed_ = true;
        not_empty_.notify_all();
    }

private:
    std::mutex mutex_;
    std::condition_variable not_full_, not_empty_;
    std::deque<std::uint64_t> items_;
    bool closed_ = false;
};

std::uint64_t pass(const contest::request& asked) {
    bounded_queue between;
    const std::vector<int> cpus = contest::request::cpus();
    std::vector<std::uint64_t> sums(asked.shape);
    std::vector<std::unique_ptr<pinned_thread>> consumers, producers;
    for (std::uint64_t i = 0; i < asked.shape; ++i) {
        consumers.push_back(std::make_unique<pinned_thread>(cpus[(i + 1) % cpus.size()], [&, i] {
            channel::received all(asked.shape);
            while (const std::optional<std::uint64_t> item = between.pop()) all.add(*item);
            sums[i] = all.sum();
        }));
        producers.push_back(std::make_unique<pinned_thread>(cpus[i % cpus.size()], [&, i] {
            for (std::uint64_t item = i; item < asked.size; item += asked.shape) between.push(item);
        }));
    }
    for (const auto& each : producers) each->join();
    between.close();
    for (const auto& each : consumers) each->join();
    return std::accumulate(sums.begin(), sums.end(), std::uint64_t{0});
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    return contest::answer(asked, {{"mutex", [&] { return pass(asked); }}});
}
