// SPDX-License-Identifier: MIT
// Copies a file; the core serves other tokens while the device works.
#include <tokengate/tokengate.hpp>

#include <cstddef>
#include <cstdio>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace tg = tokengate;

tg::task<std::size_t> copy(std::string from, std::string to) {
    tg::file::handle source = co_await tg::file::open(std::move(from), tg::file::read);
    tg::file::handle target =
        co_await tg::file::open(std::move(to),
                                tg::file::write | tg::file::create | tg::file::truncate);
    std::vector<std::byte> buffer(64 * 1024);
    std::size_t copied = 0;
    for (;;) {
        const std::size_t came = co_await source.read(buffer);
        if (came == 0) break;
        copied += co_await target.write_all(std::span(buffer).first(came));
    }
    co_await target.close();  // reports a full disk; a destructor cannot
    co_return copied;
}

int main(int argc, char** argv) {
    if (argc != 3) {
        std::fprintf(stderr, "usage: %s FROM TO\n", argv[0]);
        return 2;
    }
    tg::runtime runtime;
    std::printf("%zu bytes\n", runtime.run(copy(argv[1], argv[2])));
}
