// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/io_wait.hpp>
#include <tokengate/file_system.hpp>
#include <tokengate/registered_buffer.hpp>
#include <tokengate/task.hpp>

#include <sys/stat.h>
#include <sys/uio.h>
#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

/// Files, without holding a core while the device works.
///
///     tg::file::handle log = co_await tg::file::open("/data/log", tg::file::append | tg::file::create);
///     co_await log.write_all(line);              co_await log.sync_data();
///     tg::file::handle index = co_await tg::file::open("/data/index", tg::file::read);
///     const std::vector<std::byte> all = co_await index.read_all();
///     const std::size_t came = co_await index.read_at(page, 4096 * n);    // any number at a time, from any core
///
/// A handle owns its descriptor (always close-on-exec). It may be used from every core, moved while no operation on it
/// is in flight, and destroyed on any thread. `read` and `write` use and move the file's own position: one of them at a
/// time; those that end in `_at` do not know of it. Buffers must stay where they are until the operation has been
/// awaited.
///
/// `close` tells what a late write-back came to (EIO, ENOSPC, EDQUOT); it is refused with EBUSY while operations are in
/// flight. The destructor hands the descriptor to the kernel through the ring, without waiting, and cannot report: what
/// must be on the device needs `sync` first. To destroy or move a handle under operations in flight ends the process
/// with a text; code that awaits what it starts cannot do it, for the awaiting frames hold on to the handle.
///
/// Short reads and writes are as the kernel makes them; the `_all` forms go on to the end, in pieces of at most 1 MiB
/// so that copying does not hold up the loop. Empty spans are fine: nothing is moved. A stop: before, nothing is done;
/// while waiting, the kernel is asked to give it up, and what it has done all the same is delivered, but an `_all` form
/// that is not through throws token_stopped: part of it may have been read or written, and the position have moved. The
/// same holds when an `_all` form fails midway.
///
/// Errors: std::system_error, code() the errno in std::system_category, what() as "write to /data/log failed: No space
/// left on device"; configuration_error for flags that cannot be; token_stopped; wrong_thread; std::bad_alloc.

namespace tokengate::file {

/// How to open; combine with |.
enum class flags : unsigned {
    read = 1,
    write = 2,
    append = 4 | write,  ///< every write goes to the end, wherever that is by then
    create = 8,          ///< if it is not there
    exclusive = 16,      ///< with create: EEXIST if it is there
    truncate = 32,       ///< to nothing
    direct = 64,  ///< past the page cache: buffers, lengths and offsets in the device's blocks
    sync = 128    ///< each write is on the device when it has ended
};
using enum flags;
constexpr flags operator|(flags a, flags b) noexcept {
    return static_cast<flags>(static_cast<unsigned>(a) | static_cast<unsigned>(b));
}
constexpr bool operator&(flags all, flags one) noexcept {
    return (static_cast<unsigned>(all) & static_cast<unsigned>(one)) == static_cast<unsigned>(one);
}

using read_pieces = std::span<const std::span<std::byte>>;
using write_pieces = std::span<const std::span<const std::byte>>;

}  // namespace tokengate::file

namespace tokengate::detail {
class closing;
class file_call;
class file_stat;
class file_wait;
class opening;
class reading_whole;
class transfer;
}  // namespace tokengate::detail

namespace tokengate::file {

/// `mode` is for a file that is created, less the umask. Neither read nor write, truncate without write, exclusive
/// without create: configuration_error.
[[nodiscard]] detail::opening open(std::string path, flags how, mode_t mode = 0666);

class handle {
public:
    /// No file: every operation fails with EBADF, as after `close` and after being moved from.
    handle() noexcept = default;
    /// Takes over an open descriptor, of whatever kind; `path` is what errors will call it. Writing to a pipe that nobody
    /// reads raises SIGPIPE, as write(2) does.
    handle(int descriptor, std::string path) noexcept;
    handle(handle&& other) noexcept;
    handle& operator=(handle&& other) noexcept;
    ~handle();

    // How many bytes came or went: from 1, as the kernel likes; a read of 0 is the end of the file.
    [[nodiscard]] detail::transfer read(std::span<std::byte> into);
    [[nodiscard]] detail::transfer read(read_pieces into);
    [[nodiscard]] detail::transfer read_at(std::span<std::byte> into, std::uint64_t offset) const;
    [[nodiscard]] detail::transfer read_at(read_pieces into, std::uint64_t offset) const;
    [[nodiscard]] detail::transfer write(std::span<const std::byte> from);
    [[nodiscard]] detail::transfer write(write_pieces from);
    [[nodiscard]] detail::transfer write_at(std::span<const std::byte> from, std::uint64_t offset);
    [[nodiscard]] detail::transfer write_at(write_pieces from, std::uint64_t offset);

    // The first `length` bytes of a registered buffer, or all.
    [[nodiscard]] detail::transfer read_at(const registered_buffer& into, std::uint64_t offset,
                                           std::size_t length = SIZE_MAX) const;
    [[nodiscard]] detail::transfer write_at(const registered_buffer& from, std::uint64_t offset,
                                            std::size_t length = SIZE_MAX);

    // All of it. How many came: fewer only at the end of the file. How many went: all.
    [[nodiscard]] detail::transfer read_all(std::span<std::byte> into);
    [[nodiscard]] detail::transfer read_all(read_pieces into);
    [[nodiscard]] detail::transfer read_all_at(std::span<std::byte> into,
                                               std::uint64_t offset) const;
    [[nodiscard]] detail::transfer read_all_at(read_pieces into, std::uint64_t offset) const;
    [[nodiscard]] detail::transfer write_all(std::span<const std::byte> from);
    [[nodiscard]] detail::transfer write_all(write_pieces from);
    [[nodiscard]] detail::transfer write_all_at(std::span<const std::byte> from,
                                                std::uint64_t offset);
    [[nodiscard]] detail::transfer write_all_at(write_pieces from, std::uint64_t offset);

    /// From the position to the end; also of what does not know its size (/proc, pipes) or grows meanwhile: then what has
    /// come is copied, at once, each time that it has doubled.
    [[nodiscard]] detail::reading_whole read_all();

    [[nodiscard]] detail::file_call sync();  ///< contents and status are on the device
    [[nodiscard]] detail::file_call
    sync_data();  ///< contents, and the status that is needed to find them
    /// Room for these bytes, so that writing there cannot fail for want of it; the file grows as needed, by zeros.
    [[nodiscard]] detail::file_call allocate(std::uint64_t offset, std::uint64_t length);
    [[nodiscard]] task<> truncate(std::uint64_t size);  ///< or extend, by a hole
    [[nodiscard]] detail::file_stat stat() const;

    /// Moves the position from which the next read or write goes on; returns it. Does not wait.
    std::uint64_t seek(std::uint64_t position);
    [[nodiscard]] std::uint64_t position() const;

    /// Ends the handle whatever it throws, except EBUSY, EBADF and what is thrown before anything is done (see the head).
    /// It never throws token_stopped: a token that has been asked to stop closes too.
    [[nodiscard]] detail::closing close();

    [[nodiscard]] bool is_open() const noexcept { return descriptor_ >= 0; }
    [[nodiscard]] int descriptor() const noexcept { return descriptor_; }
    [[nodiscard]] const std::string& path() const noexcept { return path_; }

private:
    friend detail::closing;
    friend detail::file_wait;

    static constexpr std::uint32_t closed = 1U << 31;

    /// Every operation is between these two. `begin_use` returns the descriptor, or throws EBADF.
    int begin_use(const char* verb) const;
    void end_use() const noexcept;
    std::uint64_t seek_in(std::int64_t offset, int whence) const;
    void check_unused(const char* deed) const noexcept;
    void take(handle& other) noexcept;
    void let_go() noexcept;

    std::string path_;
    int descriptor_ = -1;  // written only by who has the handle to himself, or has set `closed`
    /// Operations in flight, or `closed`. `close` turns 0 into `closed` (acquire; pairs with the release of end_use); who
    /// finds `closed` when he begins leaves the descriptor alone.
    mutable std::atomic<std::uint32_t> uses_{closed};
};

}  // namespace tokengate::file

namespace tokengate::detail {

class opening : public io_wait {
public:
    opening(std::string path, file::flags how, mode_t mode);
    bool await_suspend(std::coroutine_handle<> awaiting);
    file::handle await_resume();

private:
    std::string path_;  // the kernel reads it until the last completion
};

/// One operation, or several one after the other, on an open file.
class file_wait : public io_wait {
public:
    bool await_suspend(std::coroutine_handle<> awaiting);

protected:
    /// "`verb` /the/path failed", "… it did not `what` /the/path".
    file_wait(const file::handle& of, const char* what, const char* verb) noexcept
        : io_wait(what), of_(of), verb_(verb) {}
    ~file_wait() = default;

    /// Instead of `finished`: the handle is free again. Throws what is a failure.
    std::int32_t ended();
    [[noreturn]] void fail(int code) const;
    /// For those that go on from within `completed`: asks again, unless a stop has come meanwhile.
    static void go_on(event_loop& loop, file_wait& self) noexcept;
    static file_wait& of(io_request& request) noexcept { return static_cast<file_wait&>(request); }

private:
    const file::handle& of_;
    const char* verb_;
};

/// Reads and writes, however many pieces, at the position or elsewhere.
class transfer : public file_wait {
public:
    enum class direction : std::uint8_t { read, write };
    enum class extent : std::uint8_t { some, all };
    static constexpr std::uint64_t at_position = ~std::uint64_t{0};

    transfer(const file::handle& of, direction to, extent much, const void* base,
             std::size_t length, std::uint64_t offset, int registered = -1) noexcept;
    transfer(const file::handle& of, direction to, extent much, std::unique_ptr<iovec[]> pieces,
             std::size_t count, std::uint64_t offset) noexcept;

    std::size_t await_resume();

private:
    transfer(const file::handle& of, direction to, extent much, std::uint64_t offset) noexcept;

    void ask() noexcept;
    void advance(std::size_t moved) noexcept;
    static void went_on(event_loop& loop, io_request& request, std::int32_t result,
                        std::uint32_t flags, bool last) noexcept;

    iovec one_{};
    std::unique_ptr<iovec[]> many_;
    iovec* rest_ = &one_;  // what is still to be moved: this many, none of them empty at the front
    std::size_t count_ = 0;
    std::uint64_t offset_;
    std::size_t moved_ = 0;
    int registered_ = -1;  // the slot of the registered buffer that it is about
    direction direction_;
    extent extent_;
};

/// Asks for the size, then reads until nothing comes.
class reading_whole : public file_wait {
public:
    explicit reading_whole(const file::handle& of) noexcept;
    std::vector<std::byte> await_resume();

private:
    bool ask() noexcept;
    static void went_on(event_loop& loop, io_request& request, std::int32_t result,
                        std::uint32_t flags, bool last) noexcept;

    std::vector<std::byte> bytes_;
    std::size_t came_ = 0;
    bool knows_size_ = false;
    bool out_of_memory_ = false;
    struct statx status_{};
};

class file_call : public file_wait {
public:
    enum class kind : std::uint8_t { sync, sync_data, allocate, truncate };

    file_call(const file::handle& of, kind what, std::uint64_t offset,
              std::uint64_t length) noexcept;
    void await_resume() { static_cast<void>(ended()); }
};

class file_stat : public file_wait {
public:
    explicit file_stat(const file::handle& of) noexcept;
    fs::status await_resume();

private:
    struct statx found_;
};

class closing : public io_wait {
public:
    explicit closing(file::handle& of) noexcept;
    bool await_suspend(std::coroutine_handle<> awaiting);
    void await_resume();

private:
    file::handle& of_;
};

}  // namespace tokengate::detail
