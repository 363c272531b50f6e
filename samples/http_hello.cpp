// SPDX-License-Identifier: MIT

// Answers every GET with a greeting, by HTTP/1.1 with keep-alive and pipelining, with an
// independent listener on each core:
//
//     http_hello --port 8080 &  wrk -c 64 http://127.0.0.1:8080/
//
// It parses only what a greeting needs of HTTP: the request line, the end of the headers, and
// "Connection: close". A server that does more should use a complete HTTP library.

#include "support/command_line.hpp"
#include "support/server.hpp"

#include <tokengate/tokengate.hpp>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <span>
#include <string>
#include <string_view>

namespace tg = tokengate;
using namespace std::chrono_literals;
using namespace std::string_view_literals;

namespace {

constexpr auto greeting =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 14\r\n\r\nHello, world!\n"sv;
constexpr auto bad_request =
    "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"sv;
constexpr auto wrong_method =
    "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"sv;
constexpr auto too_large =
    "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"sv;

bool same_text(std::string_view a, std::string_view b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](unsigned char x, unsigned char y) {
        return std::tolower(x) == std::tolower(y);
    });
}

bool wants_close(std::string_view head) {
    for (std::size_t line = head.find("\r\n"); line != head.npos;
         line = head.find("\r\n", line + 2)) {
        std::string_view field = head.substr(line + 2, head.find("\r\n", line + 2) - line - 2);
        const std::size_t colon = field.find(':');
        if (colon == field.npos || !same_text(field.substr(0, colon), "connection")) continue;
        std::string_view value = field.substr(colon + 1);
        while (value.starts_with(' ') || value.starts_with('\t')) value.remove_prefix(1);
        while (value.ends_with(' ') || value.ends_with('\t')) value.remove_suffix(1);
        if (same_text(value, "close")) return true;
    }
    return false;
}

/// `head`: a request from its first line through the end of its last header line.
std::string_view answer_to(std::string_view head) {
    const std::string_view line = head.substr(0, head.find("\r\n"));
    if (!line.ends_with(" HTTP/1.1")) return bad_request;
    return line.starts_with("GET /") ? greeting : wrong_method;
}

tg::task<> serve_client(tg::tcp::stream client) {
    std::array<char, 8192> buffer;
    std::string answers;
    std::size_t held = 0;
    for (bool open = true; open;) {
        const std::size_t came =
            co_await client.read(std::as_writable_bytes(std::span(buffer).subspan(held)));
        if (came == 0) co_return;
        held += came;
        std::string_view left(buffer.data(), held);
        answers.clear();
        for (std::size_t end; open && (end = left.find("\r\n\r\n")) != left.npos;
             left.remove_prefix(end + 4)) {
            const std::string_view head = left.substr(0, end + 2);
            const std::string_view answer = answer_to(head);
            answers += answer;
            open = answer == greeting && !wants_close(head);
        }
        if (open && left.size() == buffer.size()) {
            answers += too_large;
            open = false;
        }
        if (!answers.empty()) co_await client.write_all(std::as_bytes(std::span(answers)));
        held = left.size();
        std::copy(left.begin(), left.end(), buffer.begin());
    }
}

}  // namespace

int main(int argc, char** argv) {
    support::command_line line(argc, argv, "http_hello",
                               "Answers every GET with a greeting, until SIGINT or SIGTERM.");
    const std::string host = line.text("--host", "127.0.0.1", "the numeric address to listen on");
    const unsigned port =
        line.number("--port", 1, 65535, "the port (default: 8080)").value_or(8080);
    const auto cores = line.cores();
    line.finish();
    try {
        tg::runtime runtime{{.cores = cores}};
        const support::server settings{.at = {host, static_cast<std::uint16_t>(port)}, .grace = 1s};
        std::fprintf(stderr, "http_hello: http://%s/ on %u cores\n", settings.at.text().c_str(),
                     runtime.cores());
        return runtime.run(support::serve_until_signal(settings, serve_client, runtime.cores()));
    } catch (const std::exception& error) {
        std::fprintf(stderr, "http_hello: %s\n", error.what());
        return 1;
    }
}
