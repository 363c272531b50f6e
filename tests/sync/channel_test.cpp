// SPDX-License-Identifier: MIT

#include <tokengate/channel.hpp>

#include <tokengate/error.hpp>
#include <tokengate/event.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/time.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <coroutine>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace tg = tokengate;

namespace {

/// Move-only, without a default, counted; throws when it is moved while `fragile` says so, and is moved slowly (until
/// `stuck` changes) while that does.
class parcel {
public:
    explicit parcel(int n) : n_(n) { ++alive; }
    parcel(parcel&& other) : n_(other.n_) {
        if (n_ == stuck) {
            being_moved = true;
            stuck.wait(n_);
            being_moved = false;
        }
        if (n_ == fragile) throw std::runtime_error("dropped");
        other.n_ = -1;
        ++alive;
    }
    parcel& operator=(parcel&&) = delete;
    ~parcel() { --alive; }
    [[nodiscard]] int number() const { return n_; }

    static inline std::atomic<int> alive{0};
    static inline std::atomic<int> fragile{-2}, stuck{-2};
    static inline std::atomic<bool> being_moved{false};

private:
    int n_;
};

const tg::operation passes{{.name = "channel_test_passes"}, [] {}};
const tg::operation sends{{.name = "channel_test_sends"},
                          [](tg::channel<parcel>* into, int n) -> tg::task<std::string> {
                              parcel mine(n);
                              std::string outcome = "sent";
                              try {
                                  co_await into->send(std::move(mine));
                              } catch (const tg::channel_closed&) {
                                  outcome = "closed";
                              } catch (const tg::token_stopped&) {
                                  outcome = "stopped";
                              } catch (const std::runtime_error& error) {
                                  outcome = error.what();
                              }
                              if (outcome != "sent" && mine.number() != n) outcome = "lost";
                              co_return outcome;
                          }};
/// -1: closed, -2: stopped, -3: dropped.
const tg::operation receives{{.name = "channel_test_receives"},
                             [](tg::channel<parcel>* from) -> tg::task<int> {
                                 try {
                                     const std::optional<parcel> got = co_await from->receive();
                                     co_return got ? got->number() : -1;
                                 } catch (const tg::token_stopped&) {
                                     co_return -2;
                                 } catch (const std::runtime_error&) {
                                     co_return -3;
                                 }
                             }};

/// A thread that keeps one end of a channel busy, from here until `free`: it moves a parcel that is stuck.
class busy_thread {
public:
    template <class Moves>
    busy_thread(int number, Moves moves) {
        parcel::stuck = number;
        thread_ = std::thread(std::move(moves));
        while (!parcel::being_moved) std::this_thread::yield();
    }
    ~busy_thread() {
        free();
        thread_.join();
    }
    static void free() {
        parcel::stuck = -2;
        parcel::stuck.notify_all();
    }

private:
    std::thread thread_;
};

struct traffic {
    explicit traffic(std::size_t capacity) : items(capacity) {}
    tg::channel<std::unique_ptr<int>> items;
    std::atomic<long> sent{0}, received{0}, sum_sent{0}, sum_received{0};
    std::atomic<int> lost{0}, disordered{0}, strayed{0}, stopped{0};
};

/// Values n, n + 1, … of one sender.
const tg::operation produces{{.name = "channel_test_produces", .weight = tg::weight::heavy},
                             [](traffic* in, int sender, int times, unsigned seed) -> tg::task<> {
                                 const unsigned here = tg::this_token::executor();
                                 std::minstd_rand random(seed);
                                 for (int i = 0; i < times; ++i) {
                                     const int n = sender * 100'000 + i;
                                     auto item = std::make_unique<int>(n);
                                     bool done = false;
                                     try {
                                         if (random() % 4 == 0)
                                             done = in->items.try_send(std::move(item));
                                         else {
                                             co_await in->items.send(std::move(item));
                                             done = true;
                                         }
                                     } catch (const tg::token_stopped&) {
                                         ++in->stopped;
                                         in->lost += !item;
                                         co_return;
                                     }
                                     in->lost += done == static_cast<bool>(item);
                                     in->strayed += tg::this_token::executor() != here;
                                     if (!done) continue;
                                     ++in->sent;
                                     in->sum_sent += n;
                                 }
                             }};
const tg::operation consumes{{.name = "channel_test_consumes", .weight = tg::weight::heavy},
                             [](traffic* in, unsigned seed) -> tg::task<> {
                                 const unsigned here = tg::this_token::executor();
                                 std::minstd_rand random(seed);
                                 std::vector<int> last(64, -1);
                                 while (true) {
                                     std::optional<std::unique_ptr<int>> got;
                                     if (random() % 4 == 0) got = in->items.try_receive();
                                     if (!got) {
                                         try {
                                             got = co_await in->items.receive();
                                         } catch (const tg::token_stopped&) {
                                             ++in->stopped;
                                             co_return;
                                         }
                                         if (!got) co_return;
                                     }
                                     in->strayed += tg::this_token::executor() != here;
                                     ++in->received;
                                     in->sum_received += **got;
                                     int& before = last[static_cast<std::size_t>(**got / 100'000)];
                                     in->disordered += **got <= before;
                                     before = **got;
                                 }
                             }};

}  // namespace

TEST_SUITE("channel") {
    TEST_CASE("on a thread of no runtime: try_send, try_receive, close; waiting is refused") {
        tg::channel<std::string> words(2);
        const std::string hello = "hello";
        CHECK(words.try_send(hello));
        CHECK(words.try_send("you"));
        std::string kept = "kept";
        CHECK(!words.try_send(std::move(kept)));
        CHECK(kept == "kept");  // NOLINT(bugprone-use-after-move)
        CHECK(words.size() == 2);
        CHECK(words.capacity() == 2);
        CHECK(words.try_receive() == "hello");
        CHECK(words.try_send(std::move(kept)));
        words.close();
        words.close();
        CHECK(words.closed());
        CHECK(!words.try_send(hello));
        CHECK(words.try_receive() == "you");
        CHECK(words.try_receive() == "kept");
        CHECK(!words.try_receive());
        CHECK(words.size() == 0);
        auto receiving = words.receive();
        CHECK(!receiving.await_ready());
        CHECK_THROWS_AS(receiving.await_suspend(std::noop_coroutine()), tg::wrong_thread);
    }

    TEST_CASE("no room at all is a configuration_error") {
        CHECK_THROWS_AS(tg::channel<int>(0), tg::configuration_error);
    }

    TEST_CASE("move-only, without a default; what is left goes with the channel") {
        {
            tg::channel<parcel> parcels(5);
            for (int i = 0; i < 5; ++i) CHECK(parcels.try_send(parcel(i)));
            CHECK(!parcels.try_send(parcel(5)));
            CHECK(parcels.try_receive()->number() == 0);
            CHECK(parcels.try_send(parcel(6)));
            CHECK(parcel::alive == 5);
        }
        CHECK(parcel::alive == 0);
    }

    TEST_CASE("in order, and who waits longest is served first: senders") {
        tg::runtime runtime{{.cores = 1}};
        tg::channel<parcel> parcels(3);
        runtime.run([&]() -> tg::task<> {
            std::vector<tg::token<std::string>> all;
            for (int i = 0; i < 10; ++i) {
                all.push_back(sends(&parcels, i));
                all.back().admit();
            }
            co_await passes();
            CHECK(parcels.size() == 3);
            for (int i = 0; i < 10; ++i) {
                const int got =
                    i % 2 ? co_await receives(&parcels) : parcels.try_receive()->number();
                CHECK(got == i);
                CHECK(parcels.size() ==
                      static_cast<std::size_t>(std::min(3, 9 - i)));  // filled at once
            }
            for (const std::string& outcome : co_await tg::when_all(std::move(all)))
                CHECK(outcome == "sent");
        });
        CHECK(parcel::alive == 0);
    }

    TEST_CASE("in order, and who waits longest is served first: receivers") {
        tg::runtime runtime{{.cores = 1}};
        tg::channel<parcel> parcels(3);
        runtime.run([&]() -> tg::task<> {
            std::vector<tg::token<int>> all;
            for (int i = 0; i < 10; ++i) {
                all.push_back(receives(&parcels));
                all.back().admit();
            }
            co_await passes();
            for (int i = 0; i < 10; ++i) {
                CHECK(parcels.try_send(parcel(i)));
                CHECK(parcels.size() == 0);  // it was handed over
            }
            const std::vector<int> got = co_await tg::when_all(std::move(all));
            for (int i = 0; i < 10; ++i) CHECK(got[static_cast<std::size_t>(i)] == i);
        });
        CHECK(parcel::alive == 0);
    }

    TEST_CASE("closed while senders wait: they keep their values; what was in it can be received") {
        tg::runtime runtime{{.cores = 2}};
        tg::channel<parcel> parcels(1);
        std::thread closer;
        runtime.run([&]() -> tg::task<> {
            co_await parcels.send(parcel(0));
            std::vector<tg::token<std::string>> all;
            for (int i = 1; i < 6; ++i) {
                all.push_back(sends(&parcels, i));
                all.back().admit();
            }
            co_await passes();
            closer = std::thread([&parcels] { parcels.close(); });
            for (const std::string& outcome : co_await tg::when_all(std::move(all)))
                CHECK(outcome == "closed");
            const int first = co_await receives(&parcels);
            CHECK(first == 0);
            const int second = co_await receives(&parcels);
            CHECK(second == -1);
            const std::string late = co_await sends(&parcels, 9);
            CHECK(late == "closed");
        });
        closer.join();
        CHECK(parcel::alive == 0);
    }

    TEST_CASE("closed while receivers wait") {
        tg::runtime runtime{{.cores = 2}};
        tg::channel<parcel> parcels(1);
        runtime.run([&]() -> tg::task<> {
            std::vector<tg::token<int>> all;
            for (int i = 0; i < 5; ++i) {
                all.push_back(receives(&parcels));
                all.back().admit();
            }
            co_await passes();
            parcels.close();
            for (const int got : co_await tg::when_all(std::move(all))) CHECK(got == -1);
        });
    }

    TEST_CASE("a stop ends either wait; nothing is lost") {
        tg::runtime runtime{{.cores = 1}};
        tg::channel<parcel> parcels(1);
        runtime.run([&]() -> tg::task<> {
            tg::token<int> receiver = receives(&parcels);
            receiver.admit();
            co_await passes();
            receiver.request_stop();
            const int got = co_await receiver;
            CHECK(got == -2);

            CHECK(parcels.try_send(parcel(0)));
            tg::token<std::string> first = sends(&parcels, 1);
            tg::token<std::string> second = sends(&parcels, 2);
            first.admit();
            second.admit();
            co_await passes();
            first.request_stop();
            const std::string outcome = co_await first;
            CHECK(outcome == "stopped");
            CHECK(parcels.try_receive()->number() == 0);
            CHECK(parcels.try_receive()->number() == 2);
            const std::string sent = co_await second;
            CHECK(sent == "sent");
        });
        CHECK(parcel::alive == 0);
    }

    TEST_CASE("a move that throws: its owner hears of it, and the channel goes on") {
        tg::runtime runtime{{.cores = 1}};
        tg::channel<parcel> parcels(1);
        runtime.run([&]() -> tg::task<> {
            parcel::fragile = 7;
            CHECK_THROWS_AS(static_cast<void>(parcels.try_send(parcel(7))),
                            std::runtime_error);  // into the channel
            CHECK(parcels.size() == 0);

            tg::token<int> receiver = receives(&parcels);
            receiver.admit();
            co_await passes();
            CHECK_THROWS_AS(static_cast<void>(parcels.try_send(parcel(7))),
                            std::runtime_error);  // into the receiver, who waits on
            CHECK(parcels.try_send(parcel(1)));
            const int got = co_await receiver;
            CHECK(got == 1);

            parcel::fragile = -2;
            CHECK(parcels.try_send(parcel(2)));
            tg::token<std::string> unlucky = sends(&parcels, 7);
            tg::token<std::string> next = sends(&parcels, 8);
            unlucky.admit();
            next.admit();
            co_await passes();
            parcel::fragile = 7;
            CHECK(parcels.try_receive()->number() == 2);  // lets in who waits
            const std::string dropped = co_await unlucky;
            CHECK(dropped == "dropped");
            const std::string sent = co_await next;
            CHECK(sent == "sent");

            parcel::fragile = 8;
            CHECK_THROWS_AS(static_cast<void>(parcels.try_receive()),
                            std::runtime_error);  // out of the channel
            CHECK(parcels.size() == 1);
            parcel::fragile = -2;
            CHECK(parcels.try_receive()->number() == 8);
        });
        CHECK(parcel::alive == 0);
    }

    TEST_CASE("whoever received the last may destroy it") {
        tg::runtime runtime{{.cores = 2}};
        const tg::operation drains{
            {.name = "channel_test_drains"},
            [](std::unique_ptr<tg::channel<int>>* of, int count) -> tg::task<> {
                for (int i = 0; i < count; ++i) co_await (*of)->receive();
                of->reset();
            }};
        for (int round = 0; round < 200; ++round) {
            auto numbers = std::make_unique<tg::channel<int>>(4);
            std::thread sender;
            runtime.run([&]() -> tg::task<> {
                tg::token<> last = drains(&numbers, 3);
                last.admit();
                if (round % 2 == 0) co_await passes();
                sender = std::thread([into = numbers.get()] {
                    for (int i = 0; i < 3; ++i) static_cast<void>(into->try_send(i));
                });
                co_await last;
            });
            sender.join();
        }
    }

    TEST_CASE("a thread of no runtime sends, another receives") {
        constexpr int count = 20'000;
        tg::runtime runtime{{.cores = 2}};
        tg::channel<int> there(16), back(16);
        const tg::operation forwards{{.name = "channel_test_forwards"}, [&]() -> tg::task<> {
                                         while (true) {
                                             const std::optional<int> got =
                                                 co_await there.receive();
                                             if (!got) break;
                                             co_await back.send(*got);
                                         }
                                         back.close();
                                     }};
        int wrong = 0, next = 0;
        std::thread sender([&] {
            for (int i = 0; i < count;) {
                if (there.try_send(i))
                    ++i;
                else
                    std::this_thread::yield();
            }
            there.close();
        });
        std::thread receiver([&] {
            while (true) {
                const bool over = back.closed();  // before the look, so that nothing comes after it
                if (const std::optional<int> got = back.try_receive())
                    wrong += *got != next++;
                else if (over)
                    break;
                else
                    std::this_thread::yield();
            }
        });
        runtime.run([&]() -> tg::task<> { co_await forwards(); });
        sender.join();
        receiver.join();
        CHECK(next == count);
        CHECK(wrong == 0);
    }

    TEST_CASE(
        "stress: many senders and receivers on four cores, stops among them; every value arrives "
        "once, in order") {
        constexpr unsigned seed = 20260118;
        MESSAGE("seed ", seed);
        std::mt19937 random(seed);
        tg::runtime runtime{{.cores = 4}};
        long operations = 0;
        for (int round = 0; operations < 100'000; ++round) {
            traffic now(round % 4 == 0 ? 1 : 1 + random() % 20);
            runtime.run([&]() -> tg::task<> {
                std::vector<tg::token<>> producers, consumers;
                for (int i = 0; i < 12; ++i) {
                    producers.push_back(produces(&now, i, 200, static_cast<unsigned>(random())));
                    producers.back().admit();
                    consumers.push_back(consumes(&now, static_cast<unsigned>(random())));
                    consumers.back().admit();
                }
                for (int i = 0; i < 6; ++i) {
                    producers[random() % 12].request_stop();
                    consumers[random() % 11].request_stop();  // the last one goes on
                    if (random() % 2 == 0) co_await tg::yield();
                }
                for (tg::token<>& each : producers) {
                    try {
                        co_await each;
                    } catch (const tg::token_stopped&) {}  // it had not started
                }
                now.items.close();
                for (tg::token<>& each : consumers) {
                    try {
                        co_await each;
                    } catch (const tg::token_stopped&) {}
                }
            });
            operations += now.sent + now.received;
            CHECK(now.sent == now.received);
            CHECK(now.sum_sent == now.sum_received);
            CHECK(now.lost == 0);
            CHECK(now.disordered == 0);
            CHECK(now.strayed == 0);
            CHECK(now.items.size() == 0);
        }
    }

    TEST_CASE(
        "stress: four send to four across cores; closed or stopped at random; nothing is lost, "
        "nothing comes twice") {
        constexpr unsigned seed = 20261130;
        MESSAGE("seed ", seed);
        std::mt19937 random(seed);
        tg::runtime runtime{{.cores = 3}};
        struct flow {
            explicit flow(std::size_t capacity) : parcels(capacity) {}
            tg::channel<parcel> parcels;
            std::atomic<int> closed{0}, lost{0};
            std::vector<std::atomic<int>> arrived = std::vector<std::atomic<int>>(4000);
            std::vector<std::atomic<bool>> sent = std::vector<std::atomic<bool>>(4000);
        };
        const tg::operation from{{.name = "channel_test_four_send", .weight = tg::weight::heavy},
                                 [](flow* in, int first) -> tg::task<> {
                                     for (int i = first; i < first + 1000; ++i) {
                                         parcel next(i);
                                         bool sent = false;
                                         try {
                                             co_await in->parcels.send(std::move(next));
                                             sent = true;
                                         } catch (const tg::channel_closed&) {
                                             ++in->closed;
                                         } catch (const tg::token_stopped&) {}
                                         in->lost += sent != (next.number() == -1);
                                         if (!sent) co_return;
                                         in->sent[static_cast<std::size_t>(i)] = true;
                                     }
                                 }};
        const tg::operation to{{.name = "channel_test_four_receive", .weight = tg::weight::heavy},
                               [](flow* in) -> tg::task<> {
                                   try {
                                       while (true) {
                                           const std::optional<parcel> got =
                                               co_await in->parcels.receive();
                                           if (!got) break;
                                           ++in->arrived[static_cast<std::size_t>(got->number())];
                                       }
                                   } catch (const tg::token_stopped&) {}
                               }};
        for (int round = 0; round < 60; ++round) {
            flow now(round % 3 == 0 ? 1 : 1 + random() % 64);
            const unsigned kind = random() % 4;  // closed early: 1; stops: 2; both: 3
            runtime.run([&]() -> tg::task<> {
                std::vector<tg::token<>> senders, receivers;
                for (int i = 0; i < 4; ++i) {
                    senders.push_back(from(&now, i * 1000));
                    senders.back().admit();
                }
                for (int i = 0; i < 4; ++i) {
                    receivers.push_back(to(&now));
                    receivers.back().admit();
                }
                for (unsigned turns = random() % 50; turns != 0; --turns) co_await tg::yield();
                if (kind & 2) {
                    senders[random() % 4].request_stop();
                    receivers[random() % 3].request_stop();  // the last one goes on
                    for (unsigned turns = random() % 50; turns != 0; --turns) co_await tg::yield();
                }
                if (kind & 1) now.parcels.close();
                for (tg::token<>& each : senders) {
                    try {
                        co_await each;
                    } catch (const tg::token_stopped&) {}  // it had not started
                }
                now.parcels.close();
                for (tg::token<>& each : receivers) {
                    try {
                        co_await each;
                    } catch (const tg::token_stopped&) {}
                }
            });
            CHECK(now.lost == 0);
            CHECK(now.parcels.size() == 0);
            if (kind == 0) CHECK(now.closed == 0);
            int wrong = 0;
            for (std::size_t i = 0; i < 4000; ++i) wrong += now.arrived[i] != (now.sent[i] ? 1 : 0);
            CHECK(wrong == 0);
        }
        CHECK(parcel::alive == 0);
    }
}
