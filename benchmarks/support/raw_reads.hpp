// SPDX-License-Identifier: MIT
#pragma once

#include "raw_ring.hpp"

#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

/// The hand-written limit of random 4 KiB reads: one thread, one ring, `depth` of them in flight at all times.
///
///     rival::stamps::write(file, 65536);                    // every block says which one it is
///     rival::raw_reads reads(file, {.blocks = 65536, .depth = 64});
///     const double seconds = reads.run(1'000'000);
///
/// The file is the caller's, opened as he likes: through the page cache, where a read is done before its submission
/// returns, or with O_DIRECT. What the kernel knows beforehand is an option: registering the file spares its look-up;
/// registered buffers spare O_DIRECT the pinning of pages, but make copies from the page cache dearer.
/// The order of blocks follows from `seed`, so that rivals can read the same. One thread makes and runs it. Throws
/// std::system_error where a read fails, std::runtime_error where a block is not the one that was asked for.

namespace rival {

constexpr std::size_t block_size = 4096;

/// What a block holds in its first and last 8 bytes.
class stamps {
public:
    static constexpr std::uint64_t of(std::uint64_t block) noexcept {
        return (block + 1) * 0x9e3779b97f4a7c15U;
    }

    static bool right(const std::byte* read, std::uint64_t block) noexcept {
        std::uint64_t first = 0, last = 0;
        std::memcpy(&first, read, sizeof first);
        std::memcpy(&last, read + block_size - sizeof last, sizeof last);
        return first == of(block) && last == ~of(block);
    }

    /// Fills the file; not for one that was opened with O_DIRECT.
    static void write(int file, std::uint64_t blocks) {
        std::vector<std::byte> block(block_size);
        for (std::uint64_t i = 0; i < blocks; ++i) {
            const std::uint64_t first = of(i), last = ~first;
            std::memcpy(block.data(), &first, sizeof first);
            std::memcpy(block.data() + block_size - sizeof last, &last, sizeof last);
            if (pwrite(file, block.data(), block_size, static_cast<off_t>(i * block_size)) !=
                block_size)
                throw std::system_error(errno, std::generic_category(), "pwrite");
        }
    }
};

/// Blocks in random order: splitmix64, scaled without a division.
class random_blocks {
public:
    random_blocks(std::uint64_t blocks, std::uint64_t seed) noexcept
        : blocks_(blocks), state_(seed) {}

    std::uint64_t next() noexcept {
        std::uint64_t mixed = state_ += 0x9e3779b97f4a7c15U;
        mixed = (mixed ^ (mixed >> 30U)) * 0xbf58476d1ce4e5b9U;
        mixed = (mixed ^ (mixed >> 27U)) * 0x94d049bb133111ebU;
        return ((mixed ^ (mixed >> 31U)) >> 32U) * blocks_ >>
               32U;  // fewer than 2^32 blocks: 16 TiB
    }

private:
    std::uint64_t blocks_;
    std::uint64_t state_;
};

class raw_reads {
public:
    struct options {
        std::uint64_t blocks = 1;
        unsigned depth = 1;
        bool registered_file = true;
        bool registered_buffers = false;
        std::uint64_t seed = 20240229;
    };

    raw_reads(int file, const options& how)
        : file_(file),
          how_(how),
          random_(how.blocks, how.seed),
          ring_(how.depth),
          expected_(how.depth) {
        // mmap for the alignment that O_DIRECT wants.
        void* mapped = mmap(nullptr, how.depth * block_size, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (mapped == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap");
        buffers_ = static_cast<std::byte*>(mapped);
        try {
            enrol();
        } catch (...) {
            munmap(mapped, how.depth * block_size);
            throw;
        }
    }
    /// run() leaves nothing in flight unless it throws; then the kernel may still write, and the buffers stay.
    ~raw_reads() {
        if (in_flight_ == 0) munmap(buffers_, how_.depth * block_size);
    }
    raw_reads(const raw_reads&) = delete;
    raw_reads& operator=(const raw_reads&) = delete;

    /// Seconds. The clock is read twice a run: where a read takes a microsecond, once a read would be a tax.
    double run(std::uint64_t reads) {
        const auto began = std::chrono::steady_clock::now();
        left_ = reads;
        for (unsigned slot = 0; slot < how_.depth && left_ != 0; ++slot) issue(slot);
        while (in_flight_ != 0) {
            ring_.submit_and_wait();
            ring_.for_each_completion([this](const io_uring_cqe& done) { finish(done); });
        }
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
        return took.count();
    }

private:
    void enrol() {
        if (how_.registered_file)
            raw_ring::check(io_uring_register_files(ring_.get(), &file_, 1),
                            "io_uring_register_files");
        if (!how_.registered_buffers) return;
        std::vector<iovec> all(how_.depth);
        for (unsigned slot = 0; slot < how_.depth; ++slot) all[slot] = {buffer(slot), block_size};
        raw_ring::check(io_uring_register_buffers(ring_.get(), all.data(), how_.depth),
                        "io_uring_register_buffers");
    }

    [[nodiscard]] std::byte* buffer(unsigned slot) const noexcept {
        return buffers_ + slot * block_size;
    }

    void issue(unsigned slot) {
        const std::uint64_t block = expected_[slot] = random_.next();
        io_uring_sqe* entry = ring_.entry();
        const int file = how_.registered_file ? 0 : file_;
        if (how_.registered_buffers)
            io_uring_prep_read_fixed(entry, file, buffer(slot), block_size, block * block_size,
                                     static_cast<int>(slot));
        else
            io_uring_prep_read(entry, file, buffer(slot), block_size, block * block_size);
        entry->flags |= how_.registered_file ? IOSQE_FIXED_FILE : 0;
        io_uring_sqe_set_data64(entry, slot);
        --left_;
        ++in_flight_;
    }

    void finish(const io_uring_cqe& done) {
        const auto slot = static_cast<unsigned>(done.user_data);
        --in_flight_;
        raw_ring::check(done.res, "read");
        if (done.res != block_size || !stamps::right(buffer(slot), expected_[slot]))
            throw std::runtime_error("block " + std::to_string(expected_[slot]) +
                                     " was not read, or another one was");
        if (left_ != 0) issue(slot);
    }

    int file_;
    options how_;
    random_blocks random_;
    raw_ring ring_;
    std::vector<std::uint64_t> expected_;  // by slot: the block that it reads
    std::byte* buffers_ = nullptr;
    std::uint64_t left_ = 0;
    std::uint64_t in_flight_ = 0;
};

}  // namespace rival
