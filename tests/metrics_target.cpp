// SPDX-License-Identifier: MIT

// A program with known metrics, for prometheus.sh: prints them, or with the argument `serve` its port, and answers every
// request with them until SIGTERM.

#include "executor/executor.hpp"
#include "token/operation_stats.hpp"

#include <tokengate/tokengate.hpp>

#include <array>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tg = tokengate;

namespace {

const tg::operation key{{.name = "metrics_target_key"},
                        tg::sticky{"metrics_target", [](int k) { return k; }},
                        [](int k) { return k; }};
const tg::operation chain{{.name = "metrics_target_chain"},
                          tg::lead{"metrics_target_key"},
                          [](int k) -> tg::task<int> { co_return co_await key(k); }};
/// Never runs: its counts are made here, so that they are known to the last.
const tg::operation by_hand{{.name = R"(by hand: "quotes" and \)"}, [] {}};

void count_by_hand() {
    tg::detail::operation_stats* known = nullptr;
    for (const tg::detail::operation_record* each : tg::detail::known_operations())
        if (std::strstr(each->name, "by hand"))
            known = tg::detail::this_core->host->stats->of(each->index);
    if (!known) throw std::bad_alloc();
    known->admitted.add(100);
    known->started.add(100);
    known->completed.add(42);
    known->failed.add(58);
    for (std::uint64_t i = 0; i < 100; ++i)
        known->run_time.record(i < 90 ? 3'000'000 : 300'000'000);
}

tg::task<> answer(tg::tcp::stream client, const tg::runtime& runtime) {
    std::string request;
    std::array<char, 4096> piece;
    while (request.find("\r\n\r\n") == request.npos) {
        const std::size_t came = co_await client.read(std::as_writable_bytes(std::span(piece)));
        if (came == 0) co_return;
        request.append(piece.data(), came);
    }
    const std::string text = runtime.metrics();
    const std::string reply =
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n"
        "Content-Length: " +
        std::to_string(text.size()) + "\r\n\r\n" + text;
    co_await client.write_all(std::as_bytes(std::span(reply)));
}

tg::task<> serve(const tg::runtime& runtime) {
    tg::tcp::listener listener = tg::tcp::listen({"127.0.0.1", 0});
    std::printf("%u\n", static_cast<unsigned>(listener.local_endpoint().port()));
    std::fflush(stdout);
    const auto accept_all = [&](tg::scope& clients) -> tg::task<> {
        for (;;) {
            tg::tcp::stream client = co_await listener.accept();
            co_await clients.spawn(answer(std::move(client), runtime));
        }
    };
    co_await tg::with_scope(tg::scope_options{.on_failure = tg::on_failure::report}, accept_all);
}

tg::task<> asked_to_end() { co_await tg::signal(SIGTERM); }

tg::task<int> run(const tg::runtime& runtime, bool serves) {
    count_by_hand();
    std::vector<tg::token<int>> all;
    for (int i = 0; i < 7; ++i) all.push_back(chain(i));
    co_await tg::when_all(std::move(all));
    if (serves)
        co_await tg::when_any(tg::as_token(serve(runtime)), tg::as_token(asked_to_end()));
    else
        std::fputs(runtime.metrics().c_str(), stdout);
    co_return 0;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        tg::runtime runtime{{.cores = 2, .storage = {.slow = 3}, .metrics = true}};
        return runtime.run(run(runtime, argc > 1 && std::string_view(argv[1]) == "serve"));
    } catch (const std::exception& error) {
        std::fprintf(stderr, "metrics_target: %s\n", error.what());
        return 1;
    }
}
