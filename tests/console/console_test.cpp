// SPDX-License-Identifier: MIT
#include <tokengate/console.hpp>

#include <doctest/doctest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <tokengate/detail/unique_fd.hpp>
#include <tokengate/endpoint.hpp>
#include <tokengate/error.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/stop.hpp>
#include <tokengate/time.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <future>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "support/child.hpp"
#include "support/waiting.hpp"

namespace tg = tokengate;
using namespace std::chrono_literals;
using nlohmann::json;
using tg::test::wait_until;

namespace {

constexpr const char* secret = "correct-horse-battery-staple";

struct answer {
    int status = 0;  // 0: the connection was closed without one
    std::string head;
    std::string body;

    [[nodiscard]] bool has(std::string_view line) const {
        return head.find("\r\n" + std::string(line)) != std::string::npos;
    }
    [[nodiscard]] json parsed() const { return json::parse(body); }
};

/// A blocking client. What does not answer within half a minute has not answered.
class client {
public:
    explicit client(std::uint16_t port, const char* address = "127.0.0.1") {
        const tg::endpoint to(address, port);
        socket_ = tg::detail::unique_fd(::socket(to.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
        REQUIRE(socket_.get() >= 0);
        REQUIRE(::connect(socket_.get(), to.data(), to.size()) == 0);
        const timeval patience{30, 0};
        ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        ::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    }

    /// False if the other side has closed.
    bool send(std::string_view text) {
        while (!text.empty()) {
            const auto sent = ::send(socket_.get(), text.data(), text.size(), MSG_NOSIGNAL);
            if (sent < 0 && errno == EINTR) continue;
            if (sent <= 0) return false;
            text.remove_prefix(static_cast<std::size_t>(sent));
        }
        return true;
    }

    answer read(bool of_head = false) {
        answer got;
        std::size_t end;
        while ((end = buffer_.find("\r\n\r\n")) == std::string::npos)
            if (!more()) return got;
        got.head = buffer_.substr(0, end + 2);
        buffer_.erase(0, end + 4);
        got.status = std::atoi(got.head.c_str() + std::string_view("HTTP/1.1 ").size());
        if (of_head) return got;
        if (const auto length = got.head.find("Content-Length: "); length != std::string::npos) {
            const std::size_t size = std::strtoull(got.head.c_str() + length + 16, nullptr, 10);
            while (buffer_.size() < size)
                if (!more()) return got;
            got.body = buffer_.substr(0, size);
            buffer_.erase(0, size);
        }
        return got;
    }

    answer ask(std::string_view text) {
        send(text);
        return read();
    }

    /// Says one character after the other, and in between looks for a moment whether the other side closes. False if it
    /// has not when all is said.
    bool trickles_until_closed(std::string_view text) {
        for (const char each : text) {
            if (!send({&each, 1})) return true;
            pollfd closing{socket_.get(), POLLIN, 0};
            if (::poll(&closing, 1, 20) == 1 && !more()) return over_;
        }
        return false;
    }

    /// Until the other side closes.
    bool closed() {
        while (more()) buffer_.clear();
        return over_;
    }

private:
    bool more() {
        std::array<char, 16384> piece;
        ssize_t count;
        // With a time limit the kernel restarts nothing, and io_uring interrupts.
        while ((count = ::recv(socket_.get(), piece.data(), piece.size(), 0)) < 0 &&
               errno == EINTR) {}
        over_ = count == 0 || (count < 0 && errno == ECONNRESET);
        if (count <= 0) return false;
        buffer_.append(piece.data(), static_cast<std::size_t>(count));
        return true;
    }

    tg::detail::unique_fd socket_;
    std::string buffer_;
    bool over_ = false;
};

std::string get(std::string_view path, std::string_view method = "GET") {
    return std::string(method) + ' ' + std::string(path) + " HTTP/1.1\r\nHost: here\r\n\r\n";
}

std::string post(std::string_view path, std::string_view body, std::string_view authorization) {
    std::string text = "POST " + std::string(path) + " HTTP/1.1\r\nHost: here\r\n";
    if (!authorization.empty()) text += "Authorization: " + std::string(authorization) + "\r\n";
    return text + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
}

const std::string right = "Bearer " + std::string(secret);

/// A runtime that runs, with its console.
struct served {
    explicit served(tg::console_options options = {.token = secret})
        : runtime{{.cores = 2}}, console(runtime, options) {
        runtime.start();
    }
    answer ask(std::string_view text) const { return client(console.port()).ask(text); }
    answer control(std::string_view action, std::string_view body) const {
        return ask(post("/gate/" + std::string(action), body, right));
    }

    tg::runtime runtime;
    tg::console console;
};

const tg::operation add_one{{.name = "console_test add"}, [](int n) { return n + 1; }};
const tg::operation other{{.name = "console_test other"}, [](int n) { return n + 2; }};

bool is_ready(const std::future<int>& future) {
    return future.wait_for(0s) == std::future_status::ready;
}

void allow_descriptors(rlim_t wanted) {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = std::min(std::max(limit.rlim_cur, wanted), limit.rlim_max);
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
    REQUIRE(limit.rlim_cur >= wanted);
}

std::string thrown_by(const auto& body) {
    try {
        body();
    } catch (const std::exception& thrown) {
        return thrown.what();
    }
    return "nothing";
}

}  // namespace

TEST_CASE("every document is served, under headers that keep it where it is") {
    const served here;
    const std::pair<const char*, const char*> all[] = {
        {"/", "text/html; charset=utf-8"},
        {"/metrics", "text/plain; version=0.0.4; charset=utf-8"},
        {"/snapshot.json", "application/json; charset=utf-8"},
        {"/tokens.json", "application/json; charset=utf-8"},
        {"/trace.json", "application/json; charset=utf-8"}};
    for (const auto& [path, type] : all) {
        CAPTURE(path);
        const answer got = here.ask(get(path));
        CHECK(got.status == 200);
        CHECK(got.has("Content-Type: " + std::string(type) + "\r\n"));
        CHECK(got.has("Cache-Control: no-store\r\n"));
        CHECK(got.has("X-Content-Type-Options: nosniff\r\n"));
        CHECK(got.has("Content-Security-Policy: default-src 'self' 'unsafe-inline'"));

        client headed(here.console.port());
        headed.send(get(path, "HEAD"));
        const answer head = headed.read(true);
        CHECK(head.status == 200);
        CHECK(head.has("Content-Type: " + std::string(type) + "\r\n"));
        CHECK(headed.ask(get("/nowhere")).status == 404);  // no body came before it
    }
}

TEST_CASE("the page is whole, and asks nobody else") {
    const served here;
    const std::string page = here.ask(get("/")).body;
    CHECK(page.starts_with("<!DOCTYPE html>"));
    CHECK(page.find("</html>") != std::string::npos);
    std::size_t links = 0;
    for (std::size_t found = 0; (found = page.find("//", found)) != std::string::npos; found += 2)
        if (page[found - 1] == ':' && page.compare(found, 10, "//www.w3.o") != 0)
            ++links;  // a name space is no link
    CHECK(page.find("src=") == std::string::npos);
    CHECK(page.find("innerHTML") == std::string::npos);
    CHECK(links <= 1);  // "chrome://tracing", as text
}

TEST_CASE("the snapshot tells what the runtime does") {
    served here;
    CHECK(here.runtime.submit(add_one(1)).get() == 2);
    const json now = here.ask(get("/snapshot.json")).parsed();
    CHECK(now["version"].get<std::string>() != "");
    CHECK(now["controls"] == true);
    CHECK(now["paused"] == false);
    CHECK(now["cores"].size() == 3);
    CHECK(now["cores"].back()["core"].is_null());
    CHECK(now["tokens"].size() == 4);
    CHECK(now["tokens"]["executing"] == 1);  // the console itself
    CHECK(now["live_domains"].is_array());
    const json later = here.ask(get("/snapshot.json")).parsed();
    CHECK(later["uptime_ms"] >= now["uptime_ms"]);
    CHECK(later["admitted"] >= now["admitted"]);
    CHECK(served{tg::console_options{}}.ask(get("/snapshot.json")).parsed()["controls"] == false);
}

TEST_CASE("tokens are listed, chosen and limited") {
    served here;
    here.runtime.gate().pause("console_test add");
    std::vector<std::future<int>> held;
    for (int i = 0; i < 5; ++i) held.push_back(here.runtime.submit(add_one(i)));
    wait_until([&] { return here.runtime.snapshot().held == 5; });
    const json all = here.ask(get("/tokens.json?operation=console_test%20add")).parsed();
    CHECK(all["tokens"].size() == 5);
    CHECK(all["total"] == 5);
    CHECK(all["more"] == 0);
    CHECK(all["tokens"][0]["state"] == "waiting");
    CHECK(all["tokens"][0]["id"].get<std::string>().starts_with("console_test add_"));
    const json some = here.ask(get("/tokens.json?operation=console_test%20add&limit=2")).parsed();
    CHECK(some["tokens"].size() == 2);
    CHECK(some["more"] == 3);
    CHECK(some["tokens"][0] != all["tokens"][4]);
    CHECK(here.ask(get("/tokens.json?operation=console_test%20add&state=executing"))
              .parsed()["total"] == 0);
    CHECK(here.ask(get("/tokens.json?state=executing")).parsed()["total"] == 1);
    for (const char* wrong : {"limit=0", "limit=10001", "limit=-1", "limit=2x",
                              "limit=99999999999999999999", "state=asleep", "state=completed"}) {
        CAPTURE(wrong);
        const answer got = here.ask(get("/tokens.json?" + std::string(wrong)));
        CHECK(got.status == 400);
        CHECK(got.parsed()["ok"] == false);
    }
    here.runtime.gate().resume("console_test add");
    for (auto& each : held) each.get();
}

TEST_CASE("what is not there, and methods that a path does not take") {
    const served here;
    for (const char* path :
         {"/nowhere", "/gate", "/gate/", "/gate/kill", "/snapshot.json/", "/../etc/passwd", "//"}) {
        CAPTURE(path);
        CHECK(here.ask(get(path)).status == 404);
    }
    for (const char* method : {"POST", "PUT", "DELETE", "OPTIONS", "PATCH"}) {
        CAPTURE(method);
        const answer got =
            here.ask(std::string(method) +
                     " /snapshot.json HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n");
        CHECK(got.status == 405);
        CHECK(got.has("Allow: GET, HEAD\r\n"));
    }
    const answer got = here.ask(get("/gate/pause"));
    CHECK(got.status == 405);
    CHECK(got.has("Allow: POST\r\n"));
    CHECK_FALSE(here.ask(get("/snapshot.json")).parsed()["paused"].get<bool>());
}

TEST_CASE("only who knows the token may turn the gate") {
    const served here;
    const std::string all = R"({"operation": null})";
    for (const std::string& wrong :
         {std::string(), std::string("Bearer"), std::string("Bearer "), std::string("Bearer x"),
          "Basic " + std::string(secret), std::string(secret),
          "Bearer " + std::string(secret) + "x", "Bearer " + std::string(secret).substr(1),
          "Bearer " + std::string(200, 'x')}) {
        CAPTURE(wrong);
        const answer got = here.ask(post("/gate/pause", all, wrong));
        CHECK(got.status == 401);
        CHECK(got.has("WWW-Authenticate: Bearer"));
        CHECK(got.parsed()["ok"] == false);
    }
    CHECK_FALSE(here.ask(get("/snapshot.json")).parsed()["paused"].get<bool>());
    CHECK(here.ask(post("/gate/pause", all, right)).status == 200);
    CHECK(here.ask(post("/gate/resume", all, "bearer " + std::string(secret))).status == 200);

    const served read_only{tg::console_options{}};
    for (const std::string& tried : {std::string(), right, std::string("Bearer ")}) {
        const answer got = read_only.ask(post("/gate/pause", all, tried));
        CHECK(got.status == 403);
        CHECK(got.body.find("read-only") != std::string::npos);
    }
    CHECK_FALSE(read_only.ask(get("/snapshot.json")).parsed()["paused"].get<bool>());
}

TEST_CASE("pause and resume, of one operation and of all") {
    served here;
    const answer paused = here.control("pause", R"({"operation": "console_test add"})");
    CHECK(paused.status == 200);
    CHECK(paused.parsed() == json({{"ok", true},
                                   {"action", "pause"},
                                   {"operation", "console_test add"},
                                   {"changed", true}}));
    CHECK(here.control("pause", R"({"operation": "console_test add"})").parsed()["changed"] ==
          false);
    auto held = here.runtime.submit(add_one(1));
    CHECK(here.runtime.submit(other(1)).get() == 3);
    wait_until([&] { return here.ask(get("/snapshot.json")).parsed()["held"] == 1; });
    CHECK_FALSE(is_ready(held));
    CHECK(here.control("resume", R"({"operation": "console_test add"})").parsed()["changed"] ==
          true);
    CHECK(held.get() == 2);

    CHECK(here.control("pause", R"({"operation":null})").status == 200);
    CHECK(here.ask(get("/snapshot.json")).parsed()["paused"] == true);
    auto held_too = here.runtime.submit(other(1));
    wait_until([&] { return here.runtime.snapshot().held == 1; });
    CHECK(here.control("resume", R"({"operation":null})").status == 200);
    CHECK(held_too.get() == 3);
    CHECK(here.control("resume", R"({"operation":null})").parsed()["changed"] == false);
}

TEST_CASE("a drain is accepted, goes on by itself, and holds what comes") {
    served here;
    CHECK(here.control("pause", R"({"operation": "console_test add"})").status == 200);
    auto before = here.runtime.submit(add_one(1));
    wait_until([&] { return here.runtime.snapshot().held == 1; });
    const answer accepted = here.control("drain", R"({"operation": "console_test add"})");
    CHECK(accepted.status == 202);
    CHECK(accepted.parsed()["action"] == "drain");
    CHECK(before.get() == 2);
    CHECK(here.runtime.gate().paused("console_test add"));
    auto after = here.runtime.submit(add_one(2));
    wait_until([&] { return here.runtime.snapshot().held == 1; });
    CHECK(here.control("resume", R"({"operation": "console_test add"})").status == 200);
    CHECK(after.get() == 3);
}

TEST_CASE("what is no request of ours changes nothing") {
    const served here;
    for (const std::string& body :
         {std::string(), std::string("{"), std::string("null"), std::string("[]"),
          std::string("\"console_test add\""), std::string("{}"),
          std::string(R"({"operation": 3})"), std::string(R"({"operation": ["a"]})"),
          std::string(R"({"operation": ""})"), std::string(R"({"operations": null})"),
          std::string(R"({"operation": null, "force": true})"),
          std::string(R"({"operation": null} x)"), std::string("\xff\xfe{}"),
          std::string("{\"operation\": \"\xff\"}"), std::string(4000, '[')}) {
        CAPTURE(body);
        for (const char* action : {"pause", "drain", "resume"}) {
            const answer got = here.control(action, body);
            CHECK(got.status == 400);
            CHECK(got.parsed()["ok"] == false);
        }
    }
    for (const char* action : {"pause", "drain", "resume"}) {
        const answer got = here.control(action, R"({"operation": "nobody's"})");
        CHECK(got.status == 404);
        CHECK(got.parsed()["error"].get<std::string>().find("nobody's") != std::string::npos);
    }
    CHECK_FALSE(here.ask(get("/snapshot.json")).parsed()["paused"].get<bool>());
}

TEST_CASE("a body that is too large is refused, and one without an end is not read to it") {
    const served here;
    CHECK(here.control("pause", std::string(5000, ' ')).status == 413);
    CHECK(here.ask("POST /gate/pause HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: "
                   "chunked\r\nAuthorization: " +
                   right + "\r\n\r\n1400\r\n" + std::string(0x1400, ' ') + "\r\n0\r\n\r\n")
              .status == 413);
    client endless(here.console.port());
    endless.send("POST /gate/pause HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n");
    const std::string piece = "1000\r\n" + std::string(0x1000, ' ') + "\r\n";
    int sent = 0;
    while (sent < 10000 && endless.send(piece)) ++sent;
    CHECK(sent < 10000);
    CHECK(here.ask(get("/snapshot.json")).parsed()["paused"] == false);
}

TEST_CASE("a head that is too large is refused or cut off") {
    const served here;
    for (const std::string& head :
         {"GET / HTTP/1.1\r\nHost: here\r\nX-Long: " + std::string(100'000, 'x') + "\r\n\r\n",
          "GET /" + std::string(100'000, 'x') + " HTTP/1.1\r\nHost: here\r\n\r\n", [] {
              std::string many = "GET / HTTP/1.1\r\nHost: here\r\n";
              for (int i = 0; i < 20'000; ++i) many += "X" + std::to_string(i) + ": y\r\n";
              return many + "\r\n";
          }()}) {
        const int status = here.ask(head).status;
        CAPTURE(status);
        CHECK((status == 0 || status == 431 || status == 414 || status == 413));
        CHECK(here.ask(get("/snapshot.json")).status == 200);
    }
}

TEST_CASE(
    "requests that follow each other at once are answered in order; garbage between them ends the "
    "connection") {
    const served here;
    client many(here.console.port());
    std::string text;
    for (int i = 0; i < 20; ++i) text += get("/snapshot.json") + get("/nowhere");
    many.send(text + "\x01\x02 rubbish\r\n\r\n");
    for (int i = 0; i < 20; ++i) {
        CHECK(many.read().status == 200);
        CHECK(many.read().status == 404);
    }
    const int status = many.read().status;
    CHECK((status == 0 || status == 400 || status == 501 || status == 505));
    CHECK(many.closed());
    for (const std::string& rubbish :
         {std::string(1000, '\0'), std::string("\r\n\r\n\r\n"), std::string("GET\r\n\r\n"),
          std::string("\x16\x03\x01\x02\x00", 5), std::string("GET / HTTP/9.9\r\n\r\n"),
          std::string("POST /gate/pause HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n"),
          std::string("POST /gate/pause HTTP/1.1\r\nHost: x\r\nContent-Length: "
                      "99999999999999999999\r\n\r\n"),
          std::string("GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n")}) {
        client rude(here.console.port());
        rude.send(rubbish);
    }
    CHECK(here.ask(get("/snapshot.json")).status == 200);
}

TEST_CASE("a thousand connections at once, and the runtime goes on") {
    allow_descriptors(2200);
    const std::size_t before = tg::test::open_descriptors();
    {
        served here{{.token = secret, .idle_timeout = 1s}};
        std::vector<std::unique_ptr<client>> crowd;
        for (int i = 0; i < 1000; ++i) {
            crowd.push_back(std::make_unique<client>(here.console.port()));
            crowd.back()->send(i % 2 ? get("/snapshot.json") : "GET /snapshot.json HTT");
            if (i % 100 == 0) CHECK(here.runtime.submit(add_one(i)).get() == i + 1);
        }
        CHECK(here.runtime.submit(add_one(1)).get() == 2);
        CHECK(crowd[1]->read().status == 200);  // among the first that were let in
        crowd.clear();
        CHECK(here.ask(get("/snapshot.json")).status == 200);
        CHECK(here.runtime.submit(add_one(2)).get() == 3);
        CHECK(here.runtime.stop(60s).complete());
    }
    CHECK(tg::test::open_descriptors() == before);
}

TEST_CASE("who says nothing, or stops in the middle, makes room for others after a while") {
    const served here{{.connections = 2, .idle_timeout = 1s}};
    client silent(here.console.port());
    client half(here.console.port());
    half.send("POST /gate/pause HTTP/1.1\r\nHost: here\r\nContent-Length: 50\r\n\r\n{\"oper");
    CHECK(here.ask(get("/snapshot.json")).status == 200);  // waits for one of the two places
    CHECK(silent.closed());
    CHECK(half.closed());
}

TEST_CASE("who goes on talking, but never to an end, makes room for others too") {
    const std::string much(3000, 'x');  // a minute's worth
    const std::string head = "GET /snapshot.json HTTP/1.1\r\nHost: here\r\n";
    const std::string post_head = "POST /gate/pause HTTP/1.1\r\nHost: here\r\n";
    std::string lines;
    while (lines.size() < much.size()) lines += "\r\n";
    std::string chunks;
    while (chunks.size() < much.size()) chunks += "1\r\nx\r\n";
    const std::pair<std::string, std::string> all[] = {
        {"", much},
        {"", lines},
        {head + "X-Long: ", much},
        {post_head + "Content-Length: 4000\r\n\r\n", much},
        {post_head + "Transfer-Encoding: chunked\r\n\r\n", chunks},
        {get("/snapshot.json") + "GET /", much}};
    constexpr int size = std::size(all);
    served here{{.token = secret, .connections = size, .idle_timeout = 1s}};
    std::atomic<int> talking{0};
    std::atomic<int> dismissed{0};
    std::vector<std::thread> talkers;
    for (const auto& [first, rest] : all)
        talkers.emplace_back([&, first = std::string_view(first), rest = std::string_view(rest)] {
            client endless(here.console.port());
            const bool closed_already = !endless.send(first);  // on a slow machine
            ++talking;
            if (closed_already || endless.trickles_until_closed(rest)) ++dismissed;
        });
    wait_until([&] { return talking == size; });
    CHECK(here.runtime.submit(add_one(1)).get() == 2);     // the runtime has nothing to do with it
    CHECK(here.ask(get("/snapshot.json")).status == 200);  // waits for one of their places
    for (std::thread& each : talkers) each.join();
    CHECK(dismissed == size);
    CHECK(here.ask(get("/snapshot.json")).parsed()["paused"] == false);
    CHECK(here.runtime.stop(60s).complete());
}

TEST_CASE("who asks again and again stays, while those who trickle are closed") {
    constexpr auto idle = 1s;
    const served here{{.token = secret, .idle_timeout = idle}};
    using steady = std::chrono::steady_clock;
    std::atomic<bool> over{false};
    std::thread talker([&] {
        for (int i = 0; i < 2; ++i) {
            client endless(here.console.port());
            endless.send("GET /");
            CHECK(endless.trickles_until_closed(std::string(3000, 'x')));
        }
        over = true;
    });
    client regular(here.console.port());
    int cut_off = 0;
    steady::time_point last = steady::now();
    while (!over) {
        const steady::time_point before = std::exchange(last, steady::now());
        const bool answered = regular.ask(get("/nowhere")).status == 404;
        if (answered) continue;
        if (steady::now() - before < idle)
            ++cut_off;  // else the machine was slow, and it has been silent
        regular = client(here.console.port());
    }
    talker.join();
    CHECK(cut_off == 0);
}

TEST_CASE("who asks and goes away is no trouble") {
    const std::size_t before = tg::test::open_descriptors();
    {
        const served here;
        for (int i = 0; i < 200; ++i)
            client(here.console.port()).send(get(i % 2 ? "/tokens.json" : "/trace.json"));
        CHECK(here.ask(get("/snapshot.json")).status == 200);
    }
    CHECK(tg::test::open_descriptors() == before);
}

TEST_CASE("many ask at once while tokens run") {
    served here;
    std::atomic<int> right_answers{0};
    std::vector<std::thread> askers;
    for (int i = 0; i < 8; ++i)
        askers.emplace_back([&, i] {
            client mine(here.console.port());
            for (int n = 0; n < 25; ++n)
                if (mine.ask(get(i % 2 ? "/snapshot.json"
                                       : "/tokens.json?limit=" + std::to_string(i + 1)))
                        .status == 200)
                    ++right_answers;
        });
    int sum = 0;
    for (int i = 0; i < 500; ++i) sum += here.runtime.submit(add_one(i)).get();
    for (std::thread& each : askers) each.join();
    CHECK(sum == 500 * 501 / 2);
    CHECK(right_answers == 200);
}

TEST_CASE("a console does not keep its runtime, serves each run, and between runs who asks waits") {
    tg::runtime runtime{{.cores = 1}};
    const tg::console console(runtime);
    client early(console.port());
    early.send(get("/snapshot.json"));
    for (int times = 0; times < 2; ++times) {
        std::atomic<bool> answered{false};
        std::thread asker([&] {
            const answer got =
                times == 0 ? early.read() : client(console.port()).ask(get("/snapshot.json"));
            CHECK(got.status == 200);
            answered = true;
        });
        runtime.run([&]() -> tg::task<> {
            co_await tg::test::until([&] { return answered.load(); });
        });
        asker.join();
    }
}

TEST_CASE("made and destroyed while the runtime runs, also by its own coroutines") {
    const std::size_t before = tg::test::open_descriptors();
    {
        tg::runtime runtime{{.cores = 1}};
        runtime.start();
        for (int i = 0; i < 10; ++i) {
            const tg::console console(runtime);
            if (i % 2) CHECK(client(console.port()).ask(get("/")).status == 200);
        }
        CHECK(runtime.stop(60s).complete());
    }
    {
        tg::runtime runtime{{.cores = 1}};
        std::thread asker;
        runtime.run([&]() -> tg::task<> {
            std::atomic<bool> answered{false};
            const tg::console console(runtime);
            asker = std::thread([&, port = console.port()] {
                CHECK(client(port).ask(get("/snapshot.json")).status == 200);
                answered = true;
            });
            co_await tg::test::until([&] { return answered.load(); });
            asker.join();
        });
    }
    CHECK(tg::test::open_descriptors() == before);
}

TEST_CASE("a stop is on time, with whoever is connected") {
    served here;
    client silent(here.console.port());
    client busy(here.console.port());
    CHECK(busy.ask(get("/snapshot.json")).status == 200);
    CHECK(here.runtime.stop(60s).complete());
}

TEST_CASE("where it listens") {
    tg::runtime runtime{{.cores = 1}};
    const tg::console console(runtime);
    CHECK(console.port() != 0);
    CHECK(console.url() == "http://127.0.0.1:" + std::to_string(console.port()) + "/");

    std::string said;
    int code = 0;
    try {
        const tg::console second(runtime, {.port = console.port()});
    } catch (const std::system_error& taken) {
        said = taken.what();
        code = taken.code().value();
    }
    CHECK(code == EADDRINUSE);
    CHECK(said.find("127.0.0.1:" + std::to_string(console.port())) != std::string::npos);
    CHECK(said.find("choose another port") != std::string::npos);
}

TEST_CASE("options that cannot be are refused, by name") {
    tg::runtime runtime{{.cores = 1}};
    const auto refused = [&](const tg::console_options& options) {
        return thrown_by([&] { const tg::console never(runtime, options); });
    };
    CHECK(refused({.address = "example.org"}).find("example.org") != std::string::npos);
    CHECK(refused({.token = "correct horse battery staple"}).find("console_options.token") !=
          std::string::npos);
    CHECK(refused({.token = "0123456789abcdef\n"}).find("console_options.token") !=
          std::string::npos);
    CHECK(refused({.token = "short"}).find("at least 16") != std::string::npos);
    CHECK(refused({.connections = 0}).find("console_options.connections") != std::string::npos);
    CHECK(refused({.idle_timeout = 0s}).find("console_options.idle_timeout") != std::string::npos);
    CHECK(refused({.idle_timeout = 25h}).find("console_options.idle_timeout") != std::string::npos);
}
