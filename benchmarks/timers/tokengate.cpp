// SPDX-License-Identifier: MIT

/// Ours: sleep_until in a token each; no ring timeout and no thread per timer. A sleeper is a token: its making,
/// admission, start and end are in the figures, while the rivals' timers run a bare callback. "token_ns" is what
/// the same tokens take, on memory touched for the first time, with deadlines that have passed, so that they do not
/// sleep; the sleepers then use that memory again. (The rivals touch theirs for the first time.)

#include "problem.hpp"

#include <tokengate/detail/frame_pool.hpp>
#include <tokengate/tokengate.hpp>

#include <cstddef>
#include <stdexcept>
#include <utility>
#include <vector>

namespace {

namespace tg = tokengate;
using timers::clock;

struct dormitory {
    std::size_t sleepers = 0;
    std::size_t armed = 0, fired = 0, early = 0;  // one core's, so plain
    clock::time_point all_armed{}, all_fired{};
};

tg::task<> sleep_there(dormitory* in, clock::time_point until) {
    if (++in->armed == in->sleepers) in->all_armed = clock::now();
    co_await tg::sleep_until(until);
    if (++in->fired != in->sleepers && in->fired % 1024 != 0)
        co_return;  // a look at the clock now and then
    in->all_fired = clock::now();
    if (in->all_fired < until) ++in->early;
}
const tg::operation sleeper{{.name = "sleeper"}, sleep_there};

tg::task<> sleep_all(dormitory* in, clock::time_point first,
                     const std::vector<clock::duration>* after) {
    *in = {.sleepers = after->size()};
    std::vector<tg::token<>> tokens;
    tokens.reserve(after->size());
    for (const auto delay : *after) tokens.push_back(sleeper(in, first + delay));
    co_await tg::when_all(std::move(tokens));
}

tg::task<contest::sample> measure(const std::vector<clock::duration>* after) {
    const std::size_t sleepers = after->size();
    dormitory in;
    const auto warm_up = clock::now();
    co_await sleep_all(&in, warm_up - timers::window(sleepers), after);
    const double token = contest::seconds_since(warm_up);
    const auto began = clock::now();
    const auto first = began + timers::until_first(sleepers);
    co_await sleep_all(&in, first, after);
    if (in.all_armed > first) throw std::logic_error("arming took longer than the first sleep");
    timers::figures seen{.fired = in.fired, .early = in.early};
    seen.arm = std::chrono::duration<double>(in.all_armed - began).count();
    seen.fire = std::chrono::duration<double>(in.all_fired - first).count();
    contest::sample all = timers::sample(seen, sleepers);
    all.more.emplace_back("token_ns", token * 1e9 / static_cast<double>(sleepers));
    co_return all;
}

tg::task<contest::sample> on_core(const std::vector<clock::duration>* after) {
    co_return co_await tg::as_token(measure(after), 0);
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    return contest::answer(asked, {{"sleep_until", [&] {
                                        tg::detail::frame_pool::keep(
                                            std::size_t{1} << 30);  // more than the frames
                                        const auto after = timers::delays(asked);
                                        tg::runtime runtime{{.cores = 1, .cpus = {0}}};
                                        return runtime.run(on_core(&after));
                                    }}});
}
