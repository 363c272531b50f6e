// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/io_request.hpp>
#include <tokengate/detail/socket_wait.hpp>
#include <tokengate/detail/unique_fd.hpp>
#include <tokengate/endpoint.hpp>

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>

/// What a socket is between the operations at it: the descriptor, and who uses it. The user's object (stream, listener,
/// udp::socket) holds it; operations hold it while they last; the last of all frees it.
///
/// # Why close never meets another's descriptor
///
/// One word, `use_`, counts who is at the descriptor: inward, outward, armed source, guests (a call in between), and
/// says whether it is held and whether it is closing. Who comes in does so by one compare-and-swap, which fails once it
/// is closing; who goes out subtracts himself. So there is one change of the word after which it is closing and nobody
/// is there, and whoever made it closes the descriptor: no operation on it is pending, none is queued, and none will
/// be. A close that finds others there shuts the socket down first (as a guest): that ends what they wait for, on
/// whichever loop.
///
/// # The source
///
/// A multishot request, and what it has brought that nobody has taken. `home_` says on which loop it is armed. While it
/// is, everything of the source belongs to that loop's thread; while it is not, to whoever is there inward (there is
/// one at most). It is armed by who is inward, on his own loop. Its last completion lets go of it: `home_` becomes 0
/// (release), and who is inward elsewhere finds that (acquire), or is sent home from there.

namespace tokengate::detail {

class executor;
struct core_context;

/// The directions at a socket, as what they add to `use_`: room for 4095 guests, and in either direction for as many waits
/// as a loop can have with the kernel.
enum class way : std::uint64_t { guest = 1ULL << 5, in = 1ULL << 17, out = 1ULL << 41 };

/// Where a socket is bound. Throws std::system_error.
[[nodiscard]] endpoint local_of(int fd);

class socket_core {
public:
    /// `known`: the peer, or who we are where there is none.
    socket_core(int fd, const endpoint& known) : fd_(fd), known_(known) {}
    socket_core(const socket_core&) = delete;
    socket_core& operator=(const socket_core&) = delete;

    [[nodiscard]] int fd() const noexcept { return fd_; }
    [[nodiscard]] const endpoint& known() const noexcept { return known_; }
    /// For the user. Throws socket_closed: the number may be somebody else's by then.
    [[nodiscard]] static int open_fd(socket_core* of, const char* what);

    /// Throws socket_closed, and socket_busy if somebody is there already.
    void enter_alone(way direction, const char* what);
    /// As many as like.
    void enter(way direction, const char* what);
    /// May free this.
    void leave(way direction) noexcept { go_out(static_cast<std::uint64_t>(direction)); }

    /// Its holder is gone.
    void drop() noexcept { begin_to_close(held, nullptr); }
    /// True if the waiter will be woken when it is closed; else it is.
    [[nodiscard]] bool close(suspension* waiter) noexcept { return begin_to_close(0, waiter); }
    [[nodiscard]] bool is_closing() const noexcept {
        return use_.load(std::memory_order_relaxed) & closing;
    }

    // ---- by who writes without copying: the kernel holds on to the bytes until the peer has taken them ----

    /// False if the socket is being closed: then who closes may have missed it.
    [[nodiscard]] bool lend() noexcept;
    void take_back() noexcept;
    /// Ends the connection at once, with what is queued: the peer, if it reads nothing, would decide how long we wait.
    void reset() noexcept;

    [[nodiscard]] endpoint local() const { return local_of(fd_); }  ///< throws std::system_error
    /// For texts: the peer, or who we are where it has no name. By whoever holds it or is there.
    [[nodiscard]] virtual std::string name() noexcept;
    /// std::system_error "what name: why", or socket_closed if that is the reason.
    [[noreturn]] void fail(int error, const char* what, const char* remedy = "");
    [[noreturn]] void fail_closed(const char* what);
    [[noreturn]] void fail_stopped(const token_record& token, const char* what);
    /// "read from a stream (127.0.0.1:7000)", as texts say it.
    [[nodiscard]] std::string deed(const char* what);
    /// The user's object has no socket.
    [[noreturn]] static void fail_none(const char* what);

    /// Where a wait begins: suspension::enter, whose token_stopped names the socket; throws socket_closed if that is null.
    static core_context& begin(socket_core* of, const char* what);

protected:
    static constexpr std::uint64_t closing = 1, held = 2, lent = 4,
                                   armed = 8;  // armed: twice, for a moment
    static constexpr std::uint64_t users = ~(closing | held | lent);

    virtual ~socket_core() = default;

    /// May free this.
    void go_out(std::uint64_t user) noexcept;

    /// Compare-and-swapped by who enters (acquire), leaves and closes (acq_rel): what one inward user has left of the
    /// source is there for the next; and between who lends (fetch_or, acq_rel) and who closes, the second sees the first.
    std::atomic<std::uint64_t> use_{held};

private:
    /// What it finds instead, if it cannot: closing, or no room beside `others`.
    bool try_enter(way direction, std::uint64_t others, std::uint64_t& seen) noexcept;
    bool begin_to_close(std::uint64_t given_up, suspension* waiter) noexcept;
    [[noreturn]] void refuse(std::uint64_t seen, const char* what);

    const int fd_;
    suspension* closer_ =
        nullptr;  // of who set `closing`, while a guest; read by who closes the descriptor
    const endpoint known_;
};

/// Throws std::system_error, with what can be done about it.
unique_fd make_socket(const endpoint& of, int type, const char* what);
/// A sentence to append, or nothing.
const char* remedy_of(int error) noexcept;

/// In await_resume: out of the socket at the end.
class leaving {
public:
    leaving(socket_core& of, way direction) noexcept : of_(of), direction_(direction) {}
    ~leaving() { of_.leave(direction_); }
    leaving(const leaving&) = delete;
    leaving& operator=(const leaving&) = delete;

private:
    socket_core& of_;
    const way direction_;
};

/// A call in between: the descriptor is not closed meanwhile. Throws socket_closed, also if there is no socket.
class visit : leaving {
public:
    visit(socket_core* of, const char* what) : leaving(entered(of, what), way::guest) {}

private:
    static socket_core& entered(socket_core* of, const char* what) {
        if (!of) socket_core::fail_none(what);
        of->enter(way::guest, what);
        return *of;
    }
};

class source_core : public socket_core {
public:
    using socket_core::socket_core;

    // ---- by who is there inward, on his loop ----

    /// The other loop that the source is armed on, or 0. If not 0, nothing else of it may be looked at. Throws
    /// wrong_runtime.
    [[nodiscard]] std::uint32_t elsewhere(const core_context& here, const char* what);
    [[nodiscard]] bool is_armed() const noexcept {
        return home_.load(std::memory_order_acquire) != 0;
    }
    /// `take` of the waiter is called whenever something has come, until it returns true; then the waiter is woken.
    void await_here(core_context& here, inward& waiter);
    void forget_waiter() noexcept { waiter_ = nullptr; }
    /// Has it detached there; the waiter comes back by `come_back`.
    void fetch_from(std::uint32_t elsewhere, const core_context& here, inward& waiter) noexcept;

    // ---- the thread of its loop ----

    void cancel(executor& here) noexcept;

protected:
    ~source_core() = default;

    /// Fills in the entry of the request. May throw.
    virtual void prepare(executor& here, io_request& request) = 0;
    /// Keeps what has come.
    virtual void keep(executor& here, std::int32_t result, std::uint32_t flags) noexcept = 0;
    /// Nobody has taken so much: no more for now.
    [[nodiscard]] virtual bool is_full() const noexcept = 0;

private:
    friend executor;
    friend inward;

    struct multishot : io_request {
        source_core* of;
    };

    void arm(core_context& here);
    void detach(executor& here) noexcept;
    static void came(event_loop& loop, io_request& request, std::int32_t result,
                     std::uint32_t flags, bool last) noexcept;

    multishot request_{};
    /// The loop that it is armed on (slot of its runtime and position), or 0. Stored by the loop: at arming (relaxed;
    /// nobody else is inward) and at the end (release); loaded (acquire) by who is inward, wherever.
    std::atomic<std::uint32_t> home_{0};
    inward* waiter_ = nullptr;         // on this loop
    inward* successor_ = nullptr;      // on another, and waits for the source to be detached
    source_core* previous_ = nullptr;  // in its executor's list
    source_core* next_ = nullptr;
};

}  // namespace tokengate::detail
