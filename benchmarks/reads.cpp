// SPDX-License-Identifier: MIT

/// Random 4 KiB reads of a 256 MiB file, ns a read, with 1 to 64 of them in flight, on CPU 0: `device` reads past the page
/// cache (O_DIRECT, where the file system of /tmp can do that), `cache` from it, where no device hides what the software
/// costs.
///
///   tokengate       a token for each read in flight, on one core
///   raw             a hand-written liburing loop that does nothing else
///   raw registered  the same with its file registered, which spares the kernel a look-up
///   pread           the plain call, one at a time
///
/// Every block says which one it is, and every read is checked.

#include "support/pinned_thread.hpp"
#include "support/raw_reads.hpp"
#include "support/side_by_side.hpp"

#include <tokengate/tokengate.hpp>

#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

namespace tg = tokengate;

constexpr std::uint64_t blocks = 65536;
constexpr std::uint64_t seed = 20240229;

/// Unlinked at once: it goes with its descriptor.
class test_file {
public:
    test_file() {
        std::string name = "/tmp/tokengate-reads-XXXXXX";
        file_ = mkstemp(name.data());
        if (file_ < 0) throw std::system_error(errno, std::generic_category(), name);
        rival::stamps::write(file_, blocks);
        fsync(file_);
        direct_ = open(name.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
        unlink(name.c_str());
    }
    ~test_file() {
        close(file_);
        if (direct_ >= 0) close(direct_);
    }
    test_file(const test_file&) = delete;
    test_file& operator=(const test_file&) = delete;
    [[nodiscard]] int descriptor() const noexcept { return file_; }
    [[nodiscard]] int direct() const noexcept {
        return direct_;
    }  ///< negative if there is no such thing

private:
    int file_;
    int direct_;
};

struct alignas(rival::block_size) block {
    std::array<std::byte, rival::block_size> bytes;
};

struct work {
    const tg::file::handle* file;
    rival::random_blocks order;
    std::uint64_t left;
};

tg::task<> read_some(work* of, block* into) {
    while (of->left != 0) {
        --of->left;
        const std::uint64_t number = of->order.next();
        const std::size_t came =
            co_await of->file->read_at(into->bytes, number * rival::block_size);
        if (came != rival::block_size || !rival::stamps::right(into->bytes.data(), number))
            throw std::runtime_error("a wrong block");
    }
}

tg::task<double> read_all(int file, unsigned depth, std::uint64_t count) {
    const tg::file::handle opened(dup(file), "the test file");
    work all{&opened, rival::random_blocks(blocks, seed), count};
    const auto buffers = std::make_unique<block[]>(depth);
    stopwatch watch;
    std::vector<tg::token<>> readers;
    for (unsigned i = 0; i < depth; ++i)
        readers.push_back(tg::as_token(read_some(&all, &buffers[i])));
    co_await tg::when_all(std::move(readers));
    co_return watch.lap();
}

tg::task<double> on_core(int file, unsigned depth, std::uint64_t count) {
    co_return co_await tg::as_token(read_all(file, depth, count), 0);
}

double ours(int file, unsigned depth, std::uint64_t count) {
    tg::runtime runtime{{.cores = 1, .cpus = {0}}};
    return runtime.run(on_core(file, depth, count));
}

double raw(int file, unsigned depth, std::uint64_t count, bool registered) {
    double seconds = 0;
    pinned_thread there(0, [&] {
        rival::raw_reads reads(
            file, {.blocks = blocks, .depth = depth, .registered_file = registered, .seed = seed});
        seconds = reads.run(count);
    });
    there.join();
    return seconds;
}

double plain(int file, std::uint64_t count) {
    double seconds = 0;
    pinned_thread there(0, [&] {
        const auto buffer = std::make_unique<block>();
        rival::random_blocks order(blocks, seed);
        stopwatch watch;
        for (std::uint64_t i = 0; i < count; ++i) {
            const std::uint64_t number = order.next();
            const auto offset = static_cast<off_t>(number * rival::block_size);
            if (pread(file, buffer->bytes.data(), rival::block_size, offset) != rival::block_size ||
                !rival::stamps::right(buffer->bytes.data(), number))
                throw std::runtime_error("a wrong block");
        }
        seconds = watch.lap();
    });
    there.join();
    return seconds;
}

void compare(benchmark::State& state, int file, std::uint64_t count) {
    const auto depth = static_cast<unsigned>(state.range(0));
    side_by_side rounds(state, static_cast<double>(count));
    for (auto _ : state) {
        rounds.note("tokengate", ours(file, depth, count));
        rounds.note("raw", raw(file, depth, count, false));
        rounds.note("raw registered", raw(file, depth, count, true));
        rounds.note("pread", plain(file, count));
    }
    rounds.report();
}

const test_file& the_file() {
    static const test_file file;
    return file;
}

void cache(benchmark::State& state) { compare(state, the_file().descriptor(), 200'000); }

void device(benchmark::State& state) {
    if (the_file().direct() < 0)
        state.SkipWithError("the file system of /tmp cannot read past its cache");
    else
        compare(state, the_file().direct(), 5'000);
}

BENCHMARK(cache)->Arg(1)->Arg(8)->Arg(64)->ArgName("depth")->UseManualTime()->Iterations(7);
BENCHMARK(device)->Arg(1)->Arg(8)->Arg(64)->ArgName("depth")->UseManualTime()->Iterations(7);

}  // namespace

BENCHMARK_MAIN();
