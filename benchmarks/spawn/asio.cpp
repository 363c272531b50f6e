// SPDX-License-Identifier: MIT

/// asio: post to a thread_pool. The pool is made within the time: it cannot be joined twice.

#include "../support/contender.hpp"
#include "problem.hpp"

#include <asio/post.hpp>
#include <asio/thread_pool.hpp>

#include <cstdint>

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    return contest::answer(asked, {{"post", [&] {
                                        return spawn::counted([&] {
                                            asio::thread_pool pool(asked.threads);
                                            for (std::uint64_t i = 0; i < asked.size; ++i)
                                                asio::post(pool, [] { tally::count(); });
                                            pool.join();
                                        });
                                    }}});
}
