// SPDX-License-Identifier: MIT

// A mixed load to observe and control, with the console on:
//
//     openssl rand -hex 32 > token
//     dashboard --port 9180 --token-file token         prints http://127.0.0.1:9180/
//
// Its tokens crunch numbers, visit sessions, import batches and write files. They also call one
// simulated service that answers late or not at all, and another that is down for some seconds from
// time to time. The load takes about half of the machine and rises and falls. Each kind of work has
// a producer, which waits while the allowed number of its tokens is alive. So tokens of a paused
// operation accumulate at the gate only up to that limit. The program runs until SIGINT or SIGTERM,
// or for --seconds.

#include "support/command_line.hpp"
#include "support/workload.hpp"

#include <tokengate/console.hpp>
#include <tokengate/tokengate.hpp>

#include <stdlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <numbers>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;

namespace {

using steady = std::chrono::steady_clock;

unsigned random_below(unsigned limit) {
    thread_local std::minstd_rand random(std::random_device{}());
    return std::uniform_int_distribution<unsigned>(0, limit - 1)(random);
}
std::chrono::milliseconds some_time(unsigned least, unsigned most) {
    return std::chrono::milliseconds(least + random_below(most - least));
}

// ---- work of four kinds -------------------------------------------------------------------------

const tg::operation crunch{{.name = "crunch", .weight = tg::weight::light}, workload::cpu_crunch};
const tg::operation transform{{.name = "transform", .weight = tg::weight::light},
                              workload::string_transform};
const tg::operation sort{{.name = "sort", .weight = tg::weight::medium}, workload::data_sort};
const tg::operation hash{
    {.name = "hash", .weight = tg::weight::heavy},
    [](std::string seed, unsigned rounds) { return workload::hash_chain(seed, rounds); }};

// ---- sessions: all visits of a session in flight run on one core --------------------------------

// Not atomic: while a session is pinned, only one thread accesses its entry.
std::array<std::uint64_t, 64> visits{};

tg::task<> visit_session(unsigned session) {
    ++visits[session];
    co_await tg::sleep_for(some_time(5, 60));
}
const tg::operation visit{{.name = "visit", .weight = tg::weight::light},
                          tg::sticky{"session", [](unsigned session) { return session; }},
                          visit_session};

// ---- imports: conducted chains, each on the core of its lead ------------------------------------

const tg::operation parse{{.name = "parse"}, workload::data_sort};
const tg::operation index_row{{.name = "index_row"}, workload::string_transform};

tg::task<> import_rows(unsigned rows) {
    for (unsigned row = 0; row < rows; ++row) {
        co_await parse(2000 + 100 * row);
        co_await tg::when_all(index_row(row), index_row(row + 1));
        co_await tg::sleep_for(some_time(20, 120));  // simulates the wait for the next row
    }
}
const tg::operation import_batch{
    {.name = "import_batch"}, tg::lead{"parse", "index_row"}, import_rows};

// ---- files: as many at a time as their storage tier admits --------------------------------------

tg::task<> write_file(std::string path, std::size_t bytes) {
    const std::vector<std::byte> contents(bytes, std::byte{'.'});
    tg::file::handle file =
        co_await tg::file::open(path, tg::file::write | tg::file::create | tg::file::truncate);
    co_await file.write_all(contents);
    co_await file.sync_data();
    co_await file.close();
}
const tg::operation write_note{{.name = "write_note", .storage = tg::storage::insane}, write_file};
const tg::operation write_page{{.name = "write_page", .storage = tg::storage::fast}, write_file};
const tg::operation write_archive{{.name = "write_archive", .storage = tg::storage::slow},
                                  write_file};

class temporary_directory {
public:
    temporary_directory() : path_(std::filesystem::temp_directory_path() / "tokengate-XXXXXX") {
        if (mkdtemp(path_.data()) == nullptr)
            throw std::system_error(errno, std::system_category(), "mkdtemp " + path_);
    }
    ~temporary_directory() {
        std::error_code failure;
        std::filesystem::remove_all(path_, failure);
        if (failure)
            std::fprintf(stderr, "dashboard: %s stays: %s\n", path_.c_str(),
                         failure.message().c_str());
    }
    temporary_directory(const temporary_directory&) = delete;
    temporary_directory& operator=(const temporary_directory&) = delete;

    [[nodiscard]] std::string file(const char* kind, unsigned number) const {
        return path_ + '/' + kind + std::to_string(number);
    }

private:
    std::string path_;
};

// ---- external services that fail ----------------------------------------------------------------

/// About one of five attempts fails or takes too long. The retry usually succeeds.
tg::task<> ask_store(unsigned) {
    co_await tg::sleep_for(random_below(10) == 0 ? 1000ms : some_time(5, 60));
    if (random_below(10) == 0) throw std::runtime_error("the store has lost the connection");
}
const tg::operation fetch{
    {.name = "fetch", .retry = {.attempts = 4, .backoff = 20ms}, .timeout = 500ms}, ask_store};

/// Down for 12 s of every 45 s; meanwhile the breaker rejects the tokens.
tg::task<> ask_bank(unsigned) {
    static const steady::time_point began = steady::now();
    co_await tg::sleep_for(some_time(2, 20));
    if ((steady::now() - began) % 45s > 33s) throw std::runtime_error("the bank does not answer");
}
const tg::operation charge{
    {.name = "charge", .breaker = {.failure_rate = 0.5, .window = 30, .open_for = 4s}}, ask_bank};

const tg::operation guess{{.name = "guess", .weight = tg::weight::light}, [](unsigned number) {
                              if (random_below(10) < 3) throw std::runtime_error("wrong");
                              return number;
                          }};

// ---- the load -----------------------------------------------------------------------------------

constexpr auto tick = 20ms;

/// Varies from 0.5 to 1.5 and back every half minute.
double tide() {
    const std::chrono::duration<double> now = steady::now().time_since_epoch();
    return 1 + 0.5 * std::sin(2 * std::numbers::pi * now.count() / 30);
}

/// Makes tokens at this rate, and waits while `limit` of them are alive. Some tokens fail on
/// purpose.
template <class Make>
tg::task<> produce(double per_second, std::size_t limit, Make make) {
    const auto body = [&](tg::scope& jobs) -> tg::task<> {
        double due = 0;
        for (unsigned number = 0;;) {
            co_await tg::sleep_for(tick);
            due += per_second * tide() * std::chrono::duration<double>(tick).count();
            for (; due >= 1; --due) co_await jobs.spawn(make(number++));
        }
    };
    co_await tg::with_scope(tg::scope_options{.limit = limit, .on_failure = tg::on_failure::report},
                            body);
}

tg::task<> produce_all(const temporary_directory& folder, unsigned cores) {
    const auto note = [&](unsigned n) { return write_note(folder.file("note", n % 64), 4096); };
    const auto page = [&](unsigned n) { return write_page(folder.file("page", n % 64), 65536); };
    const auto archive = [&](unsigned n) {
        return write_archive(folder.file("archive", n % 16), 1 << 20);
    };

    std::vector<tg::task<>> producers;
    producers.push_back(produce(250.0 * cores, 500,
                                [](unsigned n) { return crunch(10'000 + n % 2000); }));
    producers.push_back(produce(300.0 * cores, 500, [](unsigned n) { return transform(31 * n); }));
    producers.push_back(produce(150.0 * cores, 500,
                                [](unsigned n) { return sort(8'000 + n % 4000); }));
    producers.push_back(produce(80.0 * cores, 500, [](unsigned n) {
        return hash("seed " + std::to_string(n), 4000);
    }));
    producers.push_back(produce(400, 200,
                                [](unsigned) { return visit(random_below(visits.size())); }));
    producers.push_back(produce(12, 40, [](unsigned n) { return import_batch(4 + n % 12); }));
    producers.push_back(produce(40, 100, note));
    producers.push_back(produce(20, 100, page));
    producers.push_back(produce(3, 40, archive));
    producers.push_back(produce(50, 200, [](unsigned n) { return fetch(n); }));
    producers.push_back(produce(30, 200, [](unsigned n) { return charge(n); }));
    producers.push_back(produce(25, 200, [](unsigned n) { return guess(n); }));
    co_await tg::when_all(std::move(producers));
}

// ---- the program --------------------------------------------------------------------------------

tg::task<> until_signal() { co_await tg::signal(SIGINT, SIGTERM); }
tg::task<> until_over(std::chrono::seconds time) { co_await tg::sleep_for(time); }

tg::task<> work(const tg::console& console, const temporary_directory& folder, unsigned cores) {
    std::printf("%s\n", console.url().c_str());
    std::fflush(stdout);
    co_await produce_all(folder, cores);
}

tg::task<> serve(const tg::console& console, const temporary_directory& folder, unsigned cores,
                 std::optional<unsigned> seconds) {
    // They start in this order: a signal sent after the address was printed must find the wait for
    // it.
    std::vector<tg::task<>> parts;
    parts.push_back(until_signal());
    if (seconds) parts.push_back(until_over(std::chrono::seconds(*seconds)));
    parts.push_back(work(console, folder, cores));
    // The first to end stops the others, and with the producers all their tokens, paused or not.
    co_await tg::when_any(std::move(parts));
}

/// The first line of the file, without trailing blanks.
std::optional<std::string> token_in(const std::string& file) {
    std::string line;
    std::ifstream from(file);
    if (!std::getline(from, line)) return std::nullopt;
    line.erase(line.find_last_not_of(" \t\r\v\f") + 1);
    return line;
}

}  // namespace

int main(int argc, char** argv) try {
    support::command_line line(argc, argv, "dashboard",
                               "a mixed load with the console on, to play with.");
    const unsigned port =
        line.number("--port", 0, 65535, "the console's; 0: any (default: 9180)").value_or(9180);
    const std::string token_file =
        line.text("--token-file", "",
                  "whose first line is the token for the controls; without one: read-only");
    const auto seconds =
        line.number("--seconds", 1, 1'000'000, "ends after so long (default: on SIGINT, SIGTERM)");
    const auto cores = line.cores();
    line.finish();

    std::string token;
    if (!token_file.empty()) {
        token = token_in(token_file).value_or("");
        if (token.empty()) {
            std::fprintf(stderr,
                         "dashboard: --token-file %s cannot be read, or its first line is empty\n",
                         token_file.c_str());
            return 2;
        }
    }

    const temporary_directory folder;
    tg::runtime runtime{{.cores = cores,
                         .timing = tg::timing::sampled,
                         .trace_events = 4096,
                         .metrics = true,
                         // Failures are not printed: the console's page counts them.
                         .on_failure = [](const tg::failure&) {}}};
    const tg::console console(runtime, {.port = static_cast<std::uint16_t>(port), .token = token});
    runtime.run(serve(console, folder, runtime.cores(), seconds));
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "dashboard: %s\n", error.what());
    return 1;
}
