// SPDX-License-Identifier: MIT

/// libuv: two loops, each on one pinned thread, that wake each other by uv_async_send. The number lies beside the
/// handle.

#include "../support/pinned_thread.hpp"
#include "problem.hpp"

#include <uv.h>

#include <atomic>
#include <cstdint>
#include <stdexcept>

namespace {

void check(int result) {
    if (result < 0) throw std::runtime_error(uv_strerror(result));
}

class side {
public:
    side(void* owner, uv_async_cb heard) {
        check(uv_loop_init(&loop_));
        check(uv_async_init(&loop_, &news_, heard));
        news_.data = owner;
    }
    side(const side&) = delete;
    side& operator=(const side&) = delete;
    ~side() { uv_loop_close(&loop_); }

    void tell(std::uint64_t number) {
        number_.store(number, std::memory_order_release);  // pairs with told
        check(uv_async_send(&news_));
    }
    [[nodiscard]] std::uint64_t told() const noexcept {
        return number_.load(std::memory_order_acquire);
    }
    void run() { uv_run(&loop_, UV_RUN_DEFAULT); }
    void end() {
        uv_close(reinterpret_cast<uv_handle_t*>(&news_), nullptr);
    }  // on its thread; then run returns

private:
    uv_loop_t loop_{};
    uv_async_t news_{};
    std::atomic<std::uint64_t> number_{0};
};

class trips {
public:
    explicit trips(std::uint64_t count) : count_(count), here_(this, back), there_(this, away) {}

    double run() {
        pinned_thread other(1, [this] { there_.run(); });
        double seconds = 0;
        pinned_thread one(0, [&] {
            const auto began = contest::clock::now();
            there_.tell(trip_);
            here_.run();
            seconds = contest::seconds_since(began);
        });
        one.join();
        other.join();
        ping_pong::expect(right_);
        return seconds;
    }

private:
    static constexpr std::uint64_t over = ~std::uint64_t{0};

    static void away(uv_async_t* news) {
        auto& self = *static_cast<trips*>(news->data);
        const std::uint64_t trip = self.there_.told();
        if (trip == over) return self.there_.end();
        self.here_.tell(ping_pong::answer(trip));
    }
    static void back(uv_async_t* news) {
        auto& self = *static_cast<trips*>(news->data);
        self.right_ &= self.here_.told() == ping_pong::answer(self.trip_);
        const bool more = ++self.trip_ <= self.count_;
        self.there_.tell(more ? self.trip_ : over);
        if (!more) self.here_.end();
    }

    std::uint64_t count_;
    std::uint64_t trip_ = 1;  // this and right_: the thread of here_
    bool right_ = true;
    side here_, there_;
};

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    return contest::answer(asked, {{"async", [&] {
                                        ping_pong::only(asked, ping_pong::asleep);
                                        return ping_pong::sample(asked, trips(asked.size).run());
                                    }}});
}
