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

/// A file handle reads and writes a file without holding a core while the device works. `read` and
/// `write` use and move the file's own position; the forms that end in `_at` take an offset and do
/// not touch it. Short reads and writes are as the kernel makes them. The `_all` forms go on to the
/// end, in pieces of at most 1 MiB, so that copying does not hold up the loop. Empty spans are
/// allowed: nothing is moved. `open` opens every descriptor close-on-exec.
///
///     tg::file::handle log =
///         co_await tg::file::open("/data/log", tg::file::append | tg::file::create);
///     co_await log.write_all(line);
///     co_await log.sync_data();
///     tg::file::handle index = co_await tg::file::open("/data/index", tg::file::read);
///     const std::vector<std::byte> all = co_await index.read_all();
///     // any number at a time, from any core
///     const std::size_t came = co_await index.read_at(page, 4096 * n);
///
/// Thread safety: A handle may be used from every core. At most one `read` or `write` may use the
/// position at a time; any number of the `_at` forms may be in flight at once.
///
/// Lifetime: A handle owns its descriptor. It may be destroyed on any thread, and moved while no
/// operation on it is in flight. If it is destroyed or moved while one is, the process ends with a
/// text. Code that awaits what it starts cannot do that, because the awaiting frames keep the
/// handle. Buffers must stay in place until the operation has been awaited. The destructor passes
/// the descriptor to the kernel through the ring, without waiting; on a thread without an event
/// loop it calls close(2). It cannot report errors: data that must be on the device needs `sync`
/// first.
///
/// Errors:
/// * std::system_error for what the kernel rejects. code() is the errno in std::system_category,
///   and what() is like "write to /data/log failed: No space left on device".
/// * From `close`, std::system_error for a failed late write-back (EIO, ENOSPC, EDQUOT), and with
///   EBUSY while operations are in flight.
/// * configuration_error from `open` for an invalid combination of flags.
/// * token_stopped if the token is asked to stop; wrong_thread where no event loop runs;
///   std::bad_alloc.
///
/// If an `_all` form fails midway, part of it may have been read or written, and the position may
/// have moved.
///
/// Stop: If the stop comes before the operation, nothing is done. If it comes while the token
/// waits, the loop asks the kernel to cancel the operation. If the kernel has completed it all the
/// same, the token gets the result. An `_all` form that is not complete throws token_stopped: part
/// of it may have been read or written, and the position may have moved. A stop neither prevents
/// nor ends a `close`.

namespace tokengate::file {

/// How to open a file; combine the flags with |.
enum class flags : unsigned {
    read = 1,
    write = 2,
    append = 4 | write,  ///< every write goes to the end that the file has by then
    create = 8,          ///< if the file does not exist
    exclusive = 16,      ///< with create: EEXIST if the file exists
    truncate = 32,       ///< to a length of 0
    direct = 64,  ///< past the page cache: buffers, lengths and offsets in the device's blocks
    sync = 128    ///< a write that has ended is on the device
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

/// Opens a file. A file that is created gets `mode`, less the umask. Neither read nor write,
/// truncate without write, and exclusive without create throw configuration_error.
[[nodiscard]] detail::opening open(std::string path, flags how, mode_t mode = 0666);

class handle {
public:
    /// No file: every operation fails with EBADF, as after `close` and after a move from the
    /// handle.
    handle() noexcept = default;
    /// Takes over an open descriptor of any kind; errors name it by `path`. Writing to a pipe
    /// without a reader raises SIGPIPE, as write(2) does.
    handle(int descriptor, std::string path) noexcept;
    handle(handle&& other) noexcept;
    handle& operator=(handle&& other) noexcept;
    ~handle();

    // One call of the kernel. Returns how many bytes it moved, at least 1; a read of 0 bytes is the
    // end of the file.
    [[nodiscard]] detail::transfer read(std::span<std::byte> into);
    [[nodiscard]] detail::transfer read(read_pieces into);
    [[nodiscard]] detail::transfer read_at(std::span<std::byte> into, std::uint64_t offset) const;
    [[nodiscard]] detail::transfer read_at(read_pieces into, std::uint64_t offset) const;
    [[nodiscard]] detail::transfer write(std::span<const std::byte> from);
    [[nodiscard]] detail::transfer write(write_pieces from);
    [[nodiscard]] detail::transfer write_at(std::span<const std::byte> from, std::uint64_t offset);
    [[nodiscard]] detail::transfer write_at(write_pieces from, std::uint64_t offset);

    // The same with the first `length` bytes of a registered buffer, or with all of them.
    [[nodiscard]] detail::transfer read_at(const registered_buffer& into, std::uint64_t offset,
                                           std::size_t length = SIZE_MAX) const;
    [[nodiscard]] detail::transfer write_at(const registered_buffer& from, std::uint64_t offset,
                                            std::size_t length = SIZE_MAX);

    // Move all bytes. A read returns fewer only at the end of the file; a write returns the number
    // of all.
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

    /// Reads from the position to the end. If the file has no known size (/proc, pipes) or grows
    /// meanwhile, the bytes read so far are copied, in one go, each time that they have doubled.
    [[nodiscard]] detail::reading_whole read_all();

    /// Returns when contents and status are on the device.
    [[nodiscard]] detail::file_call sync();
    /// Returns when the contents are on the device, and the status that is needed to find them.
    [[nodiscard]] detail::file_call sync_data();
    /// Allocates room for these bytes, so that writing there cannot fail for lack of it. The file
    /// grows as needed, by zeros.
    [[nodiscard]] detail::file_call allocate(std::uint64_t offset, std::uint64_t length);
    /// Truncates the file to this size, or extends it by a hole. If the kernel has no such
    /// operation (before 6.9), a thread of the blocking pool does it.
    [[nodiscard]] task<> truncate(std::uint64_t size);
    [[nodiscard]] detail::file_stat stat() const;

    /// Moves the position of the next read or write, and returns it. Does not wait.
    std::uint64_t seek(std::uint64_t position);
    [[nodiscard]] std::uint64_t position() const;

    /// Closes the file. Also if it throws, the handle is closed, except after EBUSY, EBADF,
    /// wrong_thread and std::bad_alloc. It never throws token_stopped: a token that was asked to
    /// stop closes too.
    [[nodiscard]] detail::closing close();

    [[nodiscard]] bool is_open() const noexcept { return descriptor_ >= 0; }
    [[nodiscard]] int descriptor() const noexcept { return descriptor_; }
    [[nodiscard]] const std::string& path() const noexcept { return path_; }

private:
    friend detail::closing;
    friend detail::file_wait;

    static constexpr std::uint32_t closed = 1U << 31;

    /// Every operation on the descriptor is between these two. `begin_use` returns the descriptor,
    /// or throws EBADF.
    int begin_use(const char* verb) const;
    void end_use() const noexcept;
    std::uint64_t seek_in(std::int64_t offset, int whence) const;
    void check_unused(const char* deed) const noexcept;
    void take(handle& other) noexcept;
    void let_go() noexcept;

    std::string path_;
    int descriptor_ = -1;  // written by the sole user of the handle, or after `closed` is set
    /// The number of operations in flight, or `closed`. `close` turns 0 into `closed` (acquire;
    /// pairs with the release in end_use). An operation that finds `closed` when it begins does not
    /// touch the descriptor.
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

/// One operation on an open file, or several in sequence.
class file_wait : public io_wait {
public:
    bool await_suspend(std::coroutine_handle<> awaiting);

protected:
    /// The texts are "`verb` /the/path failed" and "… it did not `what` /the/path".
    file_wait(const file::handle& of, const char* what, const char* verb) noexcept
        : io_wait(what), of_(of), verb_(verb) {}
    ~file_wait() = default;

    /// Replaces `finished`: ends the use of the handle, and throws if the operation failed.
    std::int32_t ended();
    [[noreturn]] void fail(int code) const;
    /// Continues from within `completed`: starts the next request, unless a stop has come
    /// meanwhile.
    static void go_on(event_loop& loop, file_wait& self) noexcept;
    static file_wait& of(io_request& request) noexcept { return static_cast<file_wait&>(request); }

private:
    const file::handle& of_;
    const char* verb_;
};

/// A read or write of any number of pieces, at the position or at an offset.
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
    iovec* rest_ = &one_;  // the pieces left, `count_` of them; the first is not empty
    std::size_t count_ = 0;
    std::uint64_t offset_;
    std::size_t moved_ = 0;
    int registered_ = -1;  // the slot of the registered buffer; -1: none
    direction direction_;
    extent extent_;
};

/// Requests the size, then reads until the kernel returns no bytes.
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
