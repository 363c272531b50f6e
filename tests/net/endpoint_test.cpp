// SPDX-License-Identifier: MIT

#include <tokengate/detail/unique_fd.hpp>
#include <tokengate/endpoint.hpp>
#include <tokengate/error.hpp>

#include <doctest/doctest.h>

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/un.h>
#include <unistd.h>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_set>
#include <vector>

namespace tg = tokengate;
using namespace std::string_literals;
using namespace std::string_view_literals;
using tg::endpoint;
using tg::detail::unique_fd;

static_assert(std::is_trivially_copyable_v<endpoint>);
static_assert(!std::is_default_constructible_v<endpoint>);
static_assert(!std::is_convertible_v<std::string_view, endpoint>);

namespace {

constexpr std::size_t longest_path = sizeof(sockaddr_un::sun_path);
constexpr std::size_t path_offset = offsetof(sockaddr_un, sun_path);

std::string text_of(const endpoint& where) {
    return where.text();
}  // takes braces, as tcp::listen does

/// What the configuration_error says, or "" if none was thrown.
template <typename Call>
std::string refusal(Call call) {
    try {
        static_cast<void>(call());
    } catch (const tg::configuration_error& error) {
        return error.what();
    }
    return {};
}

/// How every message about `text` begins.
std::string about(const std::string& text) {
    return "configuration_error: endpoint \"" + text + "\": ";
}

bool has(const std::string& text, std::string_view part) { return text.find(part) != text.npos; }

endpoint copied(const endpoint& where) { return endpoint::from(where.data(), where.size()); }

/// Two equal endpoints must not be told apart by their hashes or bytes either.
bool same(const endpoint& a, const endpoint& b) {
    return a == b && std::hash<endpoint>{}(a) == std::hash<endpoint>{}(b) && a.size() == b.size() &&
           std::memcmp(a.data(), b.data(), a.size()) == 0;
}

template <typename Address>
endpoint from(const Address& address, std::size_t size = sizeof(Address)) {
    return endpoint::from(reinterpret_cast<const sockaddr*>(&address),
                          static_cast<socklen_t>(size));
}

sockaddr_un unix_address(std::string_view bytes) {
    sockaddr_un un{};
    un.sun_family = AF_UNIX;
    std::memcpy(un.sun_path, bytes.data(), bytes.size());
    return un;
}

template <typename Address>
Address as(const endpoint& where) {
    REQUIRE(where.size() == sizeof(Address));
    Address out{};
    std::memcpy(&out, where.data(), sizeof out);
    return out;
}

/// Where the kernel says that a socket is.
endpoint name_of(int socket, bool peer = false) {
    sockaddr_storage storage{};
    socklen_t size = sizeof storage;
    REQUIRE((peer ? ::getpeername : ::getsockname)(socket, reinterpret_cast<sockaddr*>(&storage),
                                                   &size) == 0);
    return from(storage, size);
}

struct directory {
    std::string path = "/tmp/endpoint_test_XXXXXX";
    directory() { REQUIRE(::mkdtemp(path.data())); }
    ~directory() { ::rmdir(path.c_str()); }
    directory(const directory&) = delete;
    directory& operator=(const directory&) = delete;
};

}  // namespace

TEST_SUITE("endpoint") {
    TEST_CASE("braces make one") {
        CHECK(text_of({"127.0.0.1", 7000}) == "127.0.0.1:7000");
        CHECK(text_of({"::1", 7000}) == "[::1]:7000");
        CHECK(text_of({"127.0.0.1"s, 0}) == "127.0.0.1:0");
    }

    TEST_CASE("IPv4: what the kernel gets is what was written") {
        const endpoint where("192.0.2.1", 0x1234);
        CHECK(where.family() == AF_INET);
        CHECK(where.port() == 0x1234);
        CHECK(where.address() == "192.0.2.1");
        CHECK_FALSE(where.is_local());
        const auto in = as<sockaddr_in>(where);
        CHECK(in.sin_family == AF_INET);
        CHECK(in.sin_port == htons(0x1234));
        CHECK(in.sin_addr.s_addr == htonl(0xc0000201));
    }

    TEST_CASE("IPv6: what the kernel gets is what was written") {
        const endpoint where("2001:DB8:0::1", 443);
        CHECK(where.family() == AF_INET6);
        CHECK(where.port() == 443);
        CHECK(where.address() == "2001:db8::1");
        CHECK(where.text() == "[2001:db8::1]:443");
        CHECK_FALSE(where.is_local());
        const auto in = as<sockaddr_in6>(where);
        CHECK(in.sin6_port == htons(443));
        CHECK(in.sin6_scope_id == 0);
        CHECK(in.sin6_flowinfo == 0);
        CHECK(in.sin6_addr.s6_addr[0] == 0x20);
        CHECK(in.sin6_addr.s6_addr[15] == 1);
    }

    TEST_CASE("a scope by name and by index are one") {
        const unsigned lo = ::if_nametoindex("lo");
        if (lo == 0) return;  // a network namespace may lack it in theory
        const endpoint by_name("fe80::1%lo", 80);
        CHECK(as<sockaddr_in6>(by_name).sin6_scope_id == lo);
        CHECK(by_name.text() == "[fe80::1%lo]:80");
        CHECK(same(by_name, endpoint("fe80::1%" + std::to_string(lo), 80)));
        CHECK(same(by_name, endpoint::parse(by_name.text())));
        CHECK(by_name != endpoint("fe80::1", 80));
    }

    TEST_CASE("a scope whose interface has gone is its index") {
        CHECK(endpoint("fe80::1%4294967295", 1).text() == "[fe80::1%4294967295]:1");
        CHECK(same(endpoint::parse("[fe80::1%4294967295]:1"), {"fe80::1%4294967295", 1}));
    }

    TEST_CASE("an IPv4-mapped address stays IPv6") {
        const endpoint mapped("::ffff:192.0.2.1", 80);
        CHECK(mapped.family() == AF_INET6);
        CHECK(mapped.text() == "[::ffff:192.0.2.1]:80");
        CHECK(same(mapped, endpoint::parse(mapped.text())));
        CHECK(same(mapped, endpoint("::ffff:c000:201", 80)));
        CHECK(mapped != endpoint("192.0.2.1", 80));
    }

    TEST_CASE("the named ones") {
        CHECK(same(endpoint::any_v4(1), {"0.0.0.0", 1}));
        CHECK(same(endpoint::any_v6(2), {"::", 2}));
        CHECK(same(endpoint::loopback_v4(3), {"127.0.0.1", 3}));
        CHECK(same(endpoint::loopback_v6(4), {"::1", 4}));
        CHECK(endpoint::any_v6(65535).text() == "[::]:65535");
    }

    TEST_CASE("ports 0 and 65535") {
        for (const std::string host : {"127.0.0.1", "[::1]"})
            for (const unsigned port : {0U, 1U, 65535U}) {
                const std::string text = host + ':' + std::to_string(port);
                CHECK(endpoint::parse(text).port() == port);
                CHECK(endpoint::parse(text).text() == text);
            }
    }

    TEST_CASE("UNIX, a path") {
        const endpoint where = endpoint::local("/run/backend.sock");
        CHECK(where.is_local());
        CHECK(where.family() == AF_UNIX);
        CHECK(where.port() == 0);
        CHECK(where.address() == "/run/backend.sock");
        CHECK(where.text() == "unix:/run/backend.sock");
        CHECK(where.size() == path_offset + "/run/backend.sock"sv.size() + 1);
        CHECK(same(where, endpoint::parse(where.text())));
        CHECK(endpoint::parse("unix:a:b%[c]").address() == "a:b%[c]");
    }

    TEST_CASE("UNIX, abstract") {
        const endpoint where = endpoint::local("@backend");
        CHECK(where.size() == path_offset + "@backend"sv.size());
        CHECK(std::memcmp(where.data()->sa_data, "\0backend", 8) == 0);
        CHECK(where.address() == "@backend");
        CHECK(same(where, endpoint::parse("unix:@backend")));
        CHECK(where != endpoint::local("backend"));
        CHECK(where != endpoint::local("@backend\0"sv));  // every byte counts there, NULs as well
        CHECK(endpoint::local("@a\0b"sv).text() == "unix:@a\0b"s);
        CHECK(same(endpoint::parse("unix:@a\0b"sv), endpoint::local("@a\0b"sv)));
        CHECK(endpoint::local("@").size() == path_offset + 1);
        CHECK(same(endpoint::parse("unix:@"), endpoint::local("@")));
    }

    TEST_CASE("UNIX, unnamed: its text is for people, not for parse") {
        const endpoint where = from(unix_address(""), path_offset);
        CHECK(where.is_local());
        CHECK(where.size() == path_offset);
        CHECK(where.address().empty());
        CHECK(where.text() == "unix:");
        CHECK(same(where, copied(where)));
        CHECK(where != endpoint::local("@"));
    }

    TEST_CASE("a file whose name begins with '@' is not taken for an abstract name") {
        const endpoint file = from(unix_address("@file"));
        CHECK(file.text() == "unix:./@file");
        CHECK(file != endpoint::local("@file"));
        CHECK(endpoint::local("./@file").text() == "unix:./@file");
    }

    TEST_CASE("the longest path and abstract name") {
        for (const char first : {'/', '@'}) {
            const std::string longest = first + std::string(longest_path - 1, 'x');
            const endpoint where = endpoint::local(longest);
            CHECK(where.address() == longest);
            CHECK(where.size() == sizeof(sockaddr_un));
            CHECK(same(where, endpoint::parse(where.text())));
            CHECK(same(where, copied(where)));
            const std::string what = refusal([&] { return endpoint::local(longest + 'x'); });
            CHECK(has(what, "at most 108 bytes, and this one 109"));
            CHECK(has(what, longest + 'x'));
            CHECK(refusal([&] { return endpoint::parse("unix:" + longest + 'x'); }) == what);
        }
        CHECK(endpoint::local(std::string(longest_path - 1, 'x')).size() == sizeof(sockaddr_un));
    }

    TEST_CASE("bad numeric addresses: the text is named, and where names are resolved") {
        for (const std::string_view bad : {""sv,
                                           "*"sv,
                                           "localhost"sv,
                                           "example.org"sv,
                                           "127.0.0.1:80"sv,
                                           "[::1]"sv,
                                           "127.0.0.256"sv,
                                           "127.0.1"sv,
                                           "1"sv,
                                           "0x7f.0.0.1"sv,
                                           "010.0.0.1"sv,
                                           " 127.0.0.1"sv,
                                           "127.0.0.1 "sv,
                                           "127.0.0.1%lo"sv,
                                           "::1::"sv,
                                           "12345::"sv,
                                           ":"sv,
                                           "%lo"sv,
                                           "example.org%lo"sv,
                                           "1:2:3:4:5:6:7:8:9"sv,
                                           "/run/x"sv,
                                           "unix:/run/x"sv}) {
            CAPTURE(bad);
            const std::string what = refusal([&] { return endpoint(bad, 80); });
            CHECK(what.starts_with(about(std::string(bad))));
            CHECK(has(what,
                      "is no numeric IPv4 or IPv6 address; names are resolved by tg::resolve"));
        }
    }

    TEST_CASE("a NUL or another control character does not cut an address or its message short") {
        CHECK(has(refusal([] { return endpoint("127.0.0.1\0.evil"sv, 80); }),
                  "\"127.0.0.1\\x00.evil\""));
        CHECK(has(refusal([] { return endpoint("::1\0"sv, 80); }), "\"::1\\x00\""));
        CHECK(has(refusal([] { return endpoint("fe80::1%lo\0"sv, 80); }), "\"fe80::1%lo\\x00\""));
        CHECK(has(refusal([] { return endpoint("a\n\"\\\xff", 80); }), R"("a\x0a\"\\\xff")"));
    }

    TEST_CASE("bad scopes") {
        for (const std::string scope : {"", "0", "4294967296", "-1", "+1", "1x", "no/interface",
                                        "longer_than_any_interface"}) {
            CAPTURE(scope);
            const std::string address = "fe80::1%" + scope, whole = '[' + address + "]:80";
            const std::string why =
                "the scope \"" + scope + "\" is no network interface's name or index (";
            CHECK(refusal([&] { return endpoint(address, 80); }).starts_with(about(address) + why));
            CHECK(refusal([&] { return endpoint::parse(whole); }).starts_with(about(whole) + why));
        }
    }

    TEST_CASE("bad texts for parse: the shape") {
        for (const std::string bad : {"", "*", "127.0.0.1", "localhost", "::1", "::1:80", "[::1]",
                                      "[::1]80", "[127.0.0.1]:80", "[localhost]:80", "[]:80",
                                      "[::1:80", "::1]:80", "[[::1]:80", "unix", "UNIX:/x:y"}) {
            CAPTURE(bad);
            const std::string what = refusal([&] { return endpoint::parse(bad); });
            CHECK(what.starts_with(about(bad)));
            CHECK(has(what, "tg::resolve"));
        }
        CHECK(has(refusal([] { return endpoint::parse("::1:80"); }), "\"[IPV6]:PORT\""));
    }

    TEST_CASE("bad texts for parse: the host") {
        for (const std::string bad : {"localhost:80", ":80", "*:80", "127.0.0:80", " 127.0.0.1:80",
                                      "[::x]:80", "[ ::1]:80"}) {
            CAPTURE(bad);
            const std::string what = refusal([&] { return endpoint::parse(bad); });
            CHECK(what.starts_with(about(bad)));
            CHECK(has(what,
                      "is no numeric IPv4 or IPv6 address; names are resolved by tg::resolve"));
        }
    }

    TEST_CASE("bad texts for parse: the port") {
        for (const std::string port :
             {"", "65536", "-1", "+1", " 1", "1 ", "0x50", "http", "99999999999999999999"}) {
            CAPTURE(port);
            const std::string why = '"' + port + "\" is no port: 0 to 65535";
            for (const std::string& text : {"127.0.0.1:" + port, "[::1]:" + port})
                CHECK(refusal([&] { return endpoint::parse(text); }) == about(text) + why);
        }
    }

    TEST_CASE("bad paths") {
        CHECK(refusal([] { return endpoint::local(""); }) ==
              "configuration_error: endpoint \"\": a UNIX address needs a path, or '@' and an "
              "abstract name");
        CHECK(has(refusal([] { return endpoint::parse("unix:"); }), "needs a path"));
        CHECK(has(refusal([] { return endpoint::local("\0name"sv); }),
                  "\"\\x00name\": a path has no NUL in it"));
        CHECK(has(refusal([] { return endpoint::local("/a\0b"sv); }),
                  "\"/a\\x00b\": a path has no NUL in it"));
    }

    TEST_CASE("from keeps only what says where the socket is") {
        sockaddr_in four = as<sockaddr_in>({"192.0.2.1", 1});
        std::memset(four.sin_zero, 0xee, sizeof four.sin_zero);
        CHECK(same(from(four), {"192.0.2.1", 1}));
        sockaddr_in6 six = as<sockaddr_in6>({"2001:db8::1%7", 1});
        six.sin6_flowinfo = htonl(12345);
        CHECK(same(from(six), {"2001:db8::1%7", 1}));
        sockaddr_un path = unix_address("/x\0garbage"sv);
        for (const std::size_t counted : {2U, 3U, 5U, 108U})
            CHECK(same(from(path, path_offset + counted), endpoint::local("/x")));
    }

    TEST_CASE("from takes a buffer of any size and alignment") {
        for (const endpoint& where : {endpoint("192.0.2.1", 1), endpoint("2001:db8::1", 2),
                                      endpoint::local("/x"), endpoint::local("@x")}) {
            alignas(16) std::array<char, sizeof(sockaddr_storage) + 1> buffer{};
            std::memcpy(buffer.data() + 1, where.data(), where.size());
            CHECK(same(endpoint::from(reinterpret_cast<const sockaddr*>(buffer.data() + 1),
                                      where.size()),
                       where));
        }
        const endpoint where("192.0.2.1", 1);
        sockaddr_storage storage{};
        std::memcpy(&storage, where.data(), where.size());
        CHECK(same(from(storage), where));
    }

    TEST_CASE("from refuses what it cannot hold") {
        const std::string prefix = "configuration_error: endpoint: ";
        CHECK(refusal([] { return endpoint::from(nullptr, 0); }) ==
              prefix + "a socket address of 0 bytes is too short for its family");
        CHECK(has(refusal([] { return from(sockaddr_in{}, 1); }), "of 1 bytes is too short"));
        const auto four = as<sockaddr_in>({"192.0.2.1", 1});
        CHECK(has(refusal([&] { return from(four, sizeof four - 1); }),
                  "of 15 bytes is too short"));
        const auto six = as<sockaddr_in6>({"::1", 1});
        CHECK(has(refusal([&] { return from(six, sizeof six - 1); }), "of 27 bytes is too short"));
        sockaddr_storage storage{};
        storage.ss_family = AF_UNIX;
        CHECK(has(refusal([&] { return from(storage, path_offset + 109); }),
                  "of 111 bytes is too long"));
        std::memset(reinterpret_cast<char*>(&storage) + path_offset, 'x', 109);
        CHECK(has(refusal([&] { return from(storage, path_offset + 109); }),
                  "of 111 bytes is too long"));
        storage.ss_family = AF_NETLINK;
        CHECK(refusal([&] { return from(storage); }) ==
              prefix + "address family 16 is none of IPv4, IPv6 and UNIX");
        storage.ss_family = AF_UNSPEC;
        CHECK(has(refusal([&] { return from(storage); }), "address family 0 is none"));
    }

    TEST_CASE("from reads no byte beyond the size it is told") {
        for (const endpoint& where :
             {endpoint("192.0.2.1", 1), endpoint("2001:db8::1", 2), endpoint::local("/x"),
              endpoint::local("@x"), endpoint::local(std::string(longest_path, 'x'))}) {
            const std::vector<char> exact(reinterpret_cast<const char*>(where.data()),
                                          reinterpret_cast<const char*>(where.data()) +
                                              where.size());
            CHECK(same(endpoint::from(reinterpret_cast<const sockaddr*>(exact.data()),
                                      where.size()),
                       where));
        }
        const std::vector<char> family{AF_UNIX,
                                       0};  // little-endian; elsewhere a family that is refused
        refusal([&] {
            return endpoint::from(reinterpret_cast<const sockaddr*>(family.data()), 2);
        });
    }

    TEST_CASE("equal is equal address, port, scope and family") {
        const std::vector<endpoint> all{{"127.0.0.1", 1},
                                        {"127.0.0.1", 2},
                                        {"127.0.0.2", 1},
                                        {"0.0.0.0", 1},
                                        {"::", 1},
                                        {"::1", 1},
                                        {"::1", 2},
                                        {"::1%1", 1},
                                        {"::1%2", 1},
                                        {"::127.0.0.1", 1},
                                        {"::ffff:127.0.0.1", 1},
                                        endpoint::local("x"),
                                        endpoint::local("xx"),
                                        endpoint::local("@x"),
                                        endpoint::local("@")};
        std::unordered_set<endpoint> set;
        for (std::size_t a = 0; a < all.size(); ++a) {
            CHECK(set.insert(all[a]).second);
            CHECK_FALSE(set.insert(copied(all[a])).second);
            for (std::size_t b = 0; b < all.size(); ++b) CHECK((all[a] == all[b]) == (a == b));
        }
    }

    TEST_CASE("the kernel takes TCP addresses and gives them back") {
        for (const endpoint& wanted : {endpoint::loopback_v4(0), endpoint::loopback_v6(0)}) {
            const unique_fd listener(::socket(wanted.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
            if (!listener || ::bind(listener.get(), wanted.data(), wanted.size()) != 0) {
                CHECK(wanted.family() == AF_INET6);  // which not every machine has
                continue;
            }
            REQUIRE(::listen(listener.get(), 1) == 0);
            const endpoint bound = name_of(listener.get());
            CHECK(bound.port() != 0);
            CHECK(bound.address() == wanted.address());
            CHECK(same(bound, {wanted.address(), bound.port()}));
            const unique_fd client(::socket(wanted.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
            REQUIRE(::connect(client.get(), bound.data(), bound.size()) == 0);
            CHECK(same(name_of(client.get(), true), bound));
        }
    }

    TEST_CASE("the kernel takes UNIX addresses and gives them back, the longest as well") {
        const directory here;
        std::string longest = here.path + '/';
        longest.append(longest_path - longest.size(), 'x');
        const std::string abstract = "@" + here.path;  // nobody else has this name now
        for (const std::string& path :
             {here.path + "/s", longest, abstract,
              abstract + std::string(longest_path - abstract.size(), '\0')}) {
            CAPTURE(path);
            const endpoint wanted = endpoint::local(path);
            const unique_fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
            REQUIRE(::bind(socket.get(), wanted.data(), wanted.size()) == 0);
            CHECK(same(name_of(socket.get()), wanted));
            if (path.front() != '@') CHECK(::unlink(path.c_str()) == 0);
        }
    }

    TEST_CASE("a socket pair is unnamed") {
        std::array<int, 2> ends{};
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
        const unique_fd one(ends[0]), other(ends[1]);
        CHECK(name_of(one.get()).text() == "unix:");
        CHECK(same(name_of(one.get()), name_of(other.get(), true)));
    }

    TEST_CASE("stress: every endpoint comes back from its text, its address and its bytes") {
        constexpr unsigned seed = 20250621;
        INFO("seed " << seed);
        std::mt19937 random(seed);
        const auto random_endpoint = [&] {
            const auto port = static_cast<std::uint16_t>(random());
            switch (random() % 4) {
                case 0: {
                    sockaddr_in in{};
                    in.sin_family = AF_INET;
                    in.sin_port = port;
                    in.sin_addr.s_addr = static_cast<in_addr_t>(random());
                    return from(in);
                }
                case 1: {
                    sockaddr_in6 in{};
                    in.sin6_family = AF_INET6;
                    in.sin6_port = port;
                    for (auto& byte :
                         in.sin6_addr.s6_addr)  // mostly zeros, for the short forms of the text
                        byte = static_cast<std::uint8_t>(random() % 3 ? 0 : random());
                    if (random() % 4 == 0)
                        in.sin6_addr.s6_addr[10] = in.sin6_addr.s6_addr[11] = 0xff;
                    if (random() % 2)
                        in.sin6_scope_id = static_cast<std::uint32_t>(random() >> random() % 32);
                    return from(in);
                }
                default: {
                    std::string path(1 + random() % longest_path, '\0');
                    for (char& each : path) each = static_cast<char>(1 + random() % 255);
                    if (random() % 2)
                        for (char& each : path) each = random() % 3 ? each : '\0';
                    if (path.find('\0') != path.npos) path.front() = '@';
                    return endpoint::local(path);
                }
            }
        };
        std::size_t wrong = 0;
        std::string first_wrong;
        for (int round = 0; round < 20'000; ++round) {
            const endpoint where = random_endpoint();
            const endpoint again = where.is_local() ? endpoint::local(where.address())
                                                    : endpoint(where.address(), where.port());
            if (same(where, endpoint::parse(where.text())) && same(where, again) &&
                same(where, copied(where)))
                continue;
            if (wrong++ == 0) first_wrong = where.text();
        }
        CHECK(wrong == 0);
        CHECK(first_wrong == "");
    }

    TEST_CASE("stress: parse takes random texts or refuses them, and what it takes comes back") {
        constexpr unsigned seed = 20250622;
        INFO("seed " << seed);
        std::mt19937 random(seed);
        const std::string_view pieces[] = {"127.0.0.1", "::1", "[",     "]", ":",   "80",
                                           "%",         "1",   "unix:", "@", "/x",  "lo",
                                           ".",         "::",  "ff",    "0", "\0"sv};
        std::size_t wrong = 0, taken = 0;
        for (int round = 0; round < 100'000; ++round) {
            std::string text;
            for (std::size_t count = random() % 8; count; --count)
                text += pieces[random() % std::size(pieces)];
            try {
                const endpoint where = endpoint::parse(text);
                ++taken;
                wrong += !same(where, endpoint::parse(where.text()));
            } catch (const tg::configuration_error& error) {
                wrong +=
                    !std::string_view(error.what()).starts_with("configuration_error: endpoint \"");
            }
        }
        CHECK(wrong == 0);
        CHECK(taken > 1'000);
    }
}
