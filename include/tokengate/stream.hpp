// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/socket_wait.hpp>
#include <tokengate/endpoint.hpp>

#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <concepts>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

/// A stream is a connected stream of bytes, TCP or UNIX; tcp::connect, local::connect and
/// listener::accept make it. `read` and `write` do what one call of the kernel does; `read_all` and
/// `write_all` continue until all is done. `receive` makes one request to the kernel. From then on
/// the loop puts arriving bytes into its buffers, awaited or not (until 32 pieces wait; then the
/// peer is held back). Reads take bytes from there first, so `read` and `receive` may be mixed.
///
///     while (std::size_t n = co_await client.read(buffer))
///         co_await client.write_all(std::span(buffer).first(n));
///     // without a buffer of one's own
///     while (tg::chunk bytes = co_await client.receive()) co_await client.write_all(bytes);
///     co_await client.write_all(header, body);  // as one message
///
/// Thread safety: A stream may move, between cores too, and may be destroyed on any thread. One
/// token may read while another, on any core, writes.
///
/// Lifetime: Buffers belong to the caller and must stay in place until the await has ended. `close`
/// and the destructor end the waits of other tokens with socket_closed. The descriptor is closed
/// when the last of these waits has ended.
///
/// Errors:
/// * std::system_error, which names the peer.
/// * unexpected_end from `read_all` if the stream ends before the buffer is full.
/// * token_stopped if the token is asked to stop, socket_closed after `close`, socket_busy for a
///   second reader or a second writer at a time.
/// * wrong_thread where no event loop runs, wrong_runtime if the stream still receives in another
///   runtime.
///
/// Stop: A stop ends each wait but that of `close`. If bytes were read or written all the same,
/// `read`, `receive` and `write` return them. A stopped `read_all` or `write_all` does not report
/// how far it came.

namespace tokengate {

namespace detail {

class stream_core;

class reading final : public inward {
public:
    reading(const char* what, stream_core* from, std::span<std::byte> into, bool all) noexcept;
    bool take() noexcept override;
    std::size_t await_resume();

private:
    void ask(core_context& core) override;
    void prepare() noexcept;
    static void came(event_loop& loop, io_request& request, std::int32_t result,
                     std::uint32_t flags, bool last) noexcept;
    [[nodiscard]] stream_core& from() const noexcept;

    std::span<std::byte> into_;
    std::size_t done_ = 0;
    const bool all_;
};

class receiving;

class writing final : public at_socket {
public:
    enum class how : std::uint8_t { some, all, all_without_copy };

    writing(const char* what, stream_core* to, std::span<const std::byte> bytes, how much) noexcept;
    bool await_suspend(std::coroutine_handle<> awaiting);
    std::size_t await_resume();

private:
    void prepare() noexcept;
    static void went(event_loop& loop, io_request& request, std::int32_t result,
                     std::uint32_t flags, bool last) noexcept;
    static void stop_lending(core_context& core, wait_point& point) noexcept;
    void give_up() noexcept;

    std::span<const std::byte> bytes_;
    std::size_t done_ = 0;
    how how_;
    bool lent_ = false;      // the kernel refers to the bytes, and the peer has not taken them
    bool given_up_ = false;  // this write has reset the connection
};

/// A write of several spans; the kernel has a window of them at a time.
class gathering : public at_socket {
public:
    gathering(stream_core* to, std::span<const std::span<const std::byte>> parts) noexcept;
    bool await_suspend(std::coroutine_handle<> awaiting);
    void await_resume();

private:
    bool prepare() noexcept;
    static void went(event_loop& loop, io_request& request, std::int32_t result,
                     std::uint32_t flags, bool last) noexcept;

    std::span<const std::span<const std::byte>> parts_;
    std::size_t into_first_ = 0;  // how many bytes of parts_[0] are written
    msghdr message_{};
    iovec window_[16];
};

template <std::size_t N>
struct kept_parts {
    std::array<std::span<const std::byte>, N> parts;
};

/// The same with the spans in its own frame.
template <std::size_t N>
class gathering_these : kept_parts<N>, public gathering {
public:
    gathering_these(stream_core* to,
                    const std::array<std::span<const std::byte>, N>& parts) noexcept
        : kept_parts<N>{parts}, gathering(to, kept_parts<N>::parts) {}
};

}  // namespace detail

/// Bytes that arrived, in one of the loop's buffers, which the destructor gives back. A chunk may
/// be kept, moved to other threads, and outlive its stream and its runtime. An empty chunk is the
/// end of the stream.
class chunk {
public:
    chunk() noexcept = default;
    chunk(chunk&& other) noexcept : piece_(std::exchange(other.piece_, nullptr)) {}
    chunk& operator=(chunk&& other) noexcept {
        chunk taken(std::move(other));
        std::swap(piece_, taken.piece_);
        return *this;
    }
    ~chunk() {
        if (piece_) detail::give_back(piece_);
    }

    [[nodiscard]] std::byte* data() const noexcept { return piece_ ? piece_->bytes : nullptr; }
    [[nodiscard]] std::size_t size() const noexcept { return piece_ ? piece_->size : 0; }
    [[nodiscard]] std::byte* begin() const noexcept { return data(); }
    [[nodiscard]] std::byte* end() const noexcept { return data() + size(); }
    [[nodiscard]] bool empty() const noexcept { return size() == 0; }
    [[nodiscard]] explicit operator bool() const noexcept { return !empty(); }
    [[nodiscard]] std::span<std::byte> bytes() const noexcept { return {data(), size()}; }
    [[nodiscard]] std::string_view text() const noexcept {
        return {reinterpret_cast<const char*>(data()), size()};
    }

private:
    friend detail::receiving;
    explicit chunk(detail::piece* holds) noexcept : piece_(holds) {}

    detail::piece* piece_ = nullptr;
};

namespace detail {

class receiving final : public inward {
public:
    explicit receiving(stream_core* from) noexcept;
    ~receiving();
    bool take() noexcept override;
    chunk await_resume();

private:
    [[nodiscard]] stream_core& from() const noexcept;

    piece* taken_ = nullptr;
};

}  // namespace detail

/// Requests that the kernel sends from the caller's memory instead of from a copy. See
/// stream::write_all.
struct zero_copy_t {};
inline constexpr zero_copy_t zero_copy{};

class stream {
public:
    /// No stream: every operation on it throws socket_closed.
    stream() noexcept = default;
    stream(stream&& other) noexcept : core_(std::exchange(other.core_, nullptr)) {}
    stream& operator=(stream&& other) noexcept {
        stream taken(std::move(other));
        std::swap(core_, taken.core_);
        return *this;
    }
    ~stream();

    /// Returns the number of bytes read, as soon as there are some; 0 at the end of the stream (or
    /// for an empty buffer).
    [[nodiscard]] detail::reading read(std::span<std::byte> into) noexcept {
        return {"read from a stream", core_, into, false};
    }
    /// Fills the buffer. If the stream ends before, it throws unexpected_end, which has the number
    /// of bytes that arrived.
    [[nodiscard]] detail::reading read_all(std::span<std::byte> into) noexcept {
        return {"read all from a stream", core_, into, true};
    }
    /// Returns the bytes that have arrived, piece by piece; an empty chunk at the end of the
    /// stream.
    [[nodiscard]] detail::receiving receive() noexcept { return detail::receiving(core_); }

    /// Returns the number of bytes written: some of them, or (`write_all`) all.
    [[nodiscard]] detail::writing write(std::span<const std::byte> bytes) noexcept {
        return {"write to a stream", core_, bytes, detail::writing::how::some};
    }
    [[nodiscard]] detail::writing write_all(std::span<const std::byte> bytes) noexcept {
        return {"write all to a stream", core_, bytes, detail::writing::how::all};
    }
    [[nodiscard]] detail::writing write_all(std::string_view text) noexcept {
        return write_all(std::as_bytes(std::span(text)));
    }
    /// Writes the parts in order, in as few calls as possible.
    template <class... Parts>
        requires(sizeof...(Parts) >= 2 &&
                 (std::convertible_to<Parts, std::span<const std::byte>> && ...))
    [[nodiscard]] auto write_all(Parts&&... parts) noexcept {
        return detail::gathering_these<sizeof...(Parts)>(
            core_, std::array<std::span<const std::byte>, sizeof...(Parts)>{
                       std::span<const std::byte>(parts)...});
    }
    /// The same. The spans, too, must stay in place until the await has ended.
    [[nodiscard]] detail::gathering write_all(
        std::span<const std::span<const std::byte>> parts) noexcept {
        return {core_, parts};
    }
    /// Sends the bytes from where they lie, and waits until the peer has acknowledged them. It pays
    /// for large writes through a network device that supports it; within a machine the kernel
    /// copies after all, and this is slower. If the kernel or the kind of socket does not support
    /// it, or too little memory may be locked, it is an ordinary write_all. A stop or a close
    /// meanwhile resets the connection, because a peer that reads nothing could delay the end
    /// without limit.
    [[nodiscard]] detail::writing write_all(std::span<const std::byte> bytes,
                                            zero_copy_t) noexcept {
        return {"write all to a stream", core_, bytes, detail::writing::how::all_without_copy};
    }

    /// Ends the outgoing direction: the peer reads to the end. Reads go on. Does not wait.
    void shutdown();
    /// Closes the stream, and waits until the operations of other tokens on it have ended. A second
    /// close does nothing. It never throws token_stopped: a token that was asked to stop closes
    /// too. The destructor does the same without waiting.
    [[nodiscard]] detail::closing_socket close() noexcept;

    [[nodiscard]] endpoint local_endpoint() const;
    [[nodiscard]] endpoint remote_endpoint() const;  ///< as at the time of the connection
    [[nodiscard]] bool is_open() const noexcept;
    /// For calls that this class does not have; the descriptor stays the stream's. Throws
    /// socket_closed.
    [[nodiscard]] int descriptor() const;

    /// TCP: small writes leave at once; on by default. The writes of a program that answers
    /// requests are whole messages, which else would wait for the peer's delayed acknowledgement
    /// (40 ms). write_all of several parts makes one message of them.
    void no_delay(bool on);
    /// TCP: detects that a silent peer is gone.
    void keep_alive(bool on);

    /// Makes a stream from a connected socket, and takes the descriptor over.
    static stream from_descriptor(int fd, const endpoint& remote);

private:
    explicit stream(detail::stream_core* core) noexcept : core_(core) {}
    void set_option(const char* what, int level, int name, int value);

    detail::stream_core* core_ = nullptr;
};

}  // namespace tokengate
