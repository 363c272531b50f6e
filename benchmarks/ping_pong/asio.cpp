// SPDX-License-Identifier: MIT

/// asio: two io_contexts, each with one pinned thread, that post to each other. They sleep when nothing is there.

#include "../support/pinned_thread.hpp"
#include "problem.hpp"

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>

#include <cstdint>

namespace {

class trips {
public:
    explicit trips(std::uint64_t count) : count_(count) {}

    double run() {
        auto stay = asio::make_work_guard(there_);
        auto serve = asio::make_work_guard(here_);
        pinned_thread away(1, [this] { there_.run(); });
        double seconds = 0;
        pinned_thread home(0, [&] {
            const auto began = contest::clock::now();
            go();
            here_.run();
            seconds = contest::seconds_since(began);
        });
        home.join();
        stay.reset();
        there_.stop();
        away.join();
        ping_pong::expect(right_);
        return seconds;
    }

private:
    void go() {
        asio::post(there_, [this, trip = trip_] {
            asio::post(here_, [this, answered = ping_pong::answer(trip)] { back(answered); });
        });
    }
    void back(std::uint64_t answered) {
        right_ &= answered == ping_pong::answer(trip_);
        ++trip_ < count_ ? go() : here_.stop();
    }

    std::uint64_t count_;
    std::uint64_t trip_ = 0;  // this and right_: the thread of here_
    bool right_ = true;
    asio::io_context here_{1}, there_{1};
};

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    return contest::answer(asked, {{"post", [&] {
                                        ping_pong::only(asked, ping_pong::asleep);
                                        return ping_pong::sample(asked, trips(asked.size).run());
                                    }}});
}
