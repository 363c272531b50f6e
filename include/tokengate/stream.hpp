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

/// A connected stream of bytes, TCP or UNIX. Made by tcp::connect, local::connect and listener::accept.
///
///     while (std::size_t n = co_await client.read(buffer)) co_await client.write_all(std::span(buffer).first(n));
///     while (tg::chunk bytes = co_await client.receive()) co_await client.write_all(bytes);    // without a buffer of one's own
///     co_await client.write_all(header, body);                                                 // as one message
///
/// `read` and `write` do what one call of the kernel does; `read_all` and `write_all` all of it. `receive` asks the kernel
/// once, and from then on what arrives is put into buffers of the loop, awaited or not (until 32 pieces wait, then the
/// peer is held back); reads are served from there first, so that the two may be mixed. Buffers belong to the caller, and
/// stay as they are until the await has ended. A stop ends each wait; what was read or written all the same counts, but a
/// stopped read_all or write_all does not tell how far it came.
///
/// Owner: whoever holds it; it moves, between cores too, and may die on any thread. A token may read while another one,
/// on whatever core, writes; two readers or two writers at a time: socket_busy. `close`, and the destructor, end what
/// others wait for: they get socket_closed. The descriptor is given back when the last of them has gone. Errors:
/// std::system_error that names the peer; unexpected_end; token_stopped; wrong_thread.

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
    bool lent_ = false;      // the kernel has taken the bytes, and the peer has not yet
    bool given_up_ = false;  // the connection has been reset for it
};

/// Several spans, a window of which is with the kernel.
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
    std::size_t into_first_ = 0;  // bytes of parts_[0] that are written
    msghdr message_{};
    iovec window_[16];
};

template <std::size_t N>
struct kept_parts {
    std::array<std::span<const std::byte>, N> parts;
};

/// Keeps the spans too.
template <std::size_t N>
class gathering_these : kept_parts<N>, public gathering {
public:
    gathering_these(stream_core* to,
                    const std::array<std::span<const std::byte>, N>& parts) noexcept
        : kept_parts<N>{parts}, gathering(to, kept_parts<N>::parts) {}
};

}  // namespace detail

/// Bytes that arrived, in one of the loop's buffers, which goes back where it came from with this. May be kept, moved to
/// other threads, and outlive its stream and its runtime. Empty: the end of the stream.
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

/// Asks that the kernel sends from the caller's memory instead of from a copy. See stream::write_all.
struct zero_copy_t {};
inline constexpr zero_copy_t zero_copy{};

class stream {
public:
    /// No stream: every operation at it throws socket_closed.
    stream() noexcept = default;
    stream(stream&& other) noexcept : core_(std::exchange(other.core_, nullptr)) {}
    stream& operator=(stream&& other) noexcept {
        stream taken(std::move(other));
        std::swap(core_, taken.core_);
        return *this;
    }
    ~stream();

    /// Bytes read, as soon as there are some; 0 at the end of the stream (or for an empty buffer).
    [[nodiscard]] detail::reading read(std::span<std::byte> into) noexcept {
        return {"read from a stream", core_, into, false};
    }
    /// Fills the buffer. Throws unexpected_end if the stream ends before, which says how many bytes came.
    [[nodiscard]] detail::reading read_all(std::span<std::byte> into) noexcept {
        return {"read all from a stream", core_, into, true};
    }
    /// What has arrived, as it arrived; an empty chunk at the end of the stream.
    [[nodiscard]] detail::receiving receive() noexcept { return detail::receiving(core_); }

    /// Bytes written: some, or all.
    [[nodiscard]] detail::writing write(std::span<const std::byte> bytes) noexcept {
        return {"write to a stream", core_, bytes, detail::writing::how::some};
    }
    [[nodiscard]] detail::writing write_all(std::span<const std::byte> bytes) noexcept {
        return {"write all to a stream", core_, bytes, detail::writing::how::all};
    }
    [[nodiscard]] detail::writing write_all(std::string_view text) noexcept {
        return write_all(std::as_bytes(std::span(text)));
    }
    /// One after the other, in as few calls as it takes.
    template <class... Parts>
        requires(sizeof...(Parts) >= 2 &&
                 (std::convertible_to<Parts, std::span<const std::byte>> && ...))
    [[nodiscard]] auto write_all(Parts&&... parts) noexcept {
        return detail::gathering_these<sizeof...(Parts)>(
            core_, std::array<std::span<const std::byte>, sizeof...(Parts)>{
                       std::span<const std::byte>(parts)...});
    }
    /// The spans stay as they are until the await has ended, too.
    [[nodiscard]] detail::gathering write_all(
        std::span<const std::span<const std::byte>> parts) noexcept {
        return {core_, parts};
    }
    /// Waits until the peer has acknowledged the bytes, which leave from where they lie. Pays for large writes through
    /// a network device that can do it; within a machine the kernel copies after all, and this is slower. Where the
    /// kernel or the kind of socket cannot do it, or too little memory may be locked, it is an ordinary write_all. A
    /// stop or a close meanwhile resets the connection: a peer that reads nothing could else make us wait for as long
    /// as it likes.
    [[nodiscard]] detail::writing write_all(std::span<const std::byte> bytes,
                                            zero_copy_t) noexcept {
        return {"write all to a stream", core_, bytes, detail::writing::how::all_without_copy};
    }

    /// Ends what is written: the peer reads to the end. Reading goes on. Does not wait.
    void shutdown();
    /// Closes it, and waits until operations of others at it have ended; a second close does nothing. In a token that
    /// was asked to stop, too: it throws no token_stopped. The destructor does the same without waiting.
    [[nodiscard]] detail::closing_socket close() noexcept;

    [[nodiscard]] endpoint local_endpoint() const;
    [[nodiscard]] endpoint remote_endpoint() const;  ///< as it was when connected
    [[nodiscard]] bool is_open() const noexcept;
    [[nodiscard]] int descriptor()
        const;  ///< for what is not offered here; it stays the stream's. Throws socket_closed

    /// TCP. Small writes leave at once: on unless switched off, because the writes of a program that answers requests
    /// are whole messages, which else would wait for the peer's delayed acknowledgement (40 ms); write_all of several
    /// parts makes one of many.
    void no_delay(bool on);
    /// TCP: finds out that a silent peer is gone.
    void keep_alive(bool on);

    /// For those who make streams; takes the descriptor.
    static stream from_descriptor(int fd, const endpoint& remote);

private:
    explicit stream(detail::stream_core* core) noexcept : core_(core) {}
    void set_option(const char* what, int level, int name, int value);

    detail::stream_core* core_ = nullptr;
};

}  // namespace tokengate
