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

/// The state of a socket between the operations on it: the descriptor, and the count of its users.
/// The user's object (stream, listener, udp::socket) holds it. Each operation holds it while the
/// operation lasts. The last of them frees it.
///
/// # Why close never closes a reused descriptor number
///
/// One word, `use_`, counts the users of the descriptor: inward waits, outward waits, an armed
/// source, and guests (synchronous calls). It also has a bit for *held* and one for *closing*. A
/// user enters by one compare-and-swap, which fails once the socket is closing. A user leaves by
/// subtracting itself. So exactly one change of the word leaves it closing and without users, and
/// the thread that makes this change closes the descriptor. At that moment no operation on the
/// descriptor is pending or queued, and none can follow. If a close finds other users, it shuts the
/// socket down first, as a guest. That ends their waits, on whichever loop they are.
///
/// # The source
///
/// The source is a multishot request, together with what it has received and no wait has taken.
/// `home_` names the loop on which it is armed. While the source is armed, all its members belong
/// to that loop's thread. While it is not armed, they belong to the inward user, of which there is
/// one at most. The inward user arms the source, on its own loop. The last completion of the
/// request detaches the source: it stores 0 in `home_` (release). An inward user on another loop
/// loads that (acquire), or is sent home by the loop that detaches the source.

namespace tokengate::detail {

class executor;
struct core_context;

/// The directions of use. The value of each is what one user adds to `use_`. The word counts up to
/// 4095 guests, and in either direction as many waits as a loop can have with the kernel.
enum class way : std::uint64_t { guest = 1ULL << 5, in = 1ULL << 17, out = 1ULL << 41 };

/// Where a socket is bound. Throws std::system_error.
[[nodiscard]] endpoint local_of(int fd);

class socket_core {
public:
    /// `known`: the peer's endpoint, or the local one where there is no peer.
    socket_core(int fd, const endpoint& known) : fd_(fd), known_(known) {}
    socket_core(const socket_core&) = delete;
    socket_core& operator=(const socket_core&) = delete;

    [[nodiscard]] int fd() const noexcept { return fd_; }
    [[nodiscard]] const endpoint& known() const noexcept { return known_; }
    /// The descriptor, for the user. Throws socket_closed: after a close, the number may belong to
    /// another file.
    [[nodiscard]] static int open_fd(socket_core* of, const char* what);

    /// Throws socket_closed, and socket_busy if this direction already has a user.
    void enter_alone(way direction, const char* what);
    /// Enters beside any number of other users. Throws socket_closed.
    void enter(way direction, const char* what);
    /// May delete this.
    void leave(way direction) noexcept { go_out(static_cast<std::uint64_t>(direction)); }

    /// Called when the user's object is destroyed.
    void drop() noexcept { begin_to_close(held, nullptr); }
    /// True if `waiter` will be woken when the descriptor is closed; false if it is closed already.
    [[nodiscard]] bool close(suspension* waiter) noexcept { return begin_to_close(0, waiter); }
    [[nodiscard]] bool is_closing() const noexcept {
        return use_.load(std::memory_order_relaxed) & closing;
    }

    // ---- for a write without copying: the kernel uses the bytes until the peer has received them

    /// False if the socket is closing: the closing thread may not have seen the bit.
    [[nodiscard]] bool lend() noexcept;
    void take_back() noexcept;
    /// Ends the connection at once and discards what is queued. Otherwise a peer that reads nothing
    /// would decide how long the write waits.
    void reset() noexcept;

    [[nodiscard]] endpoint local() const { return local_of(fd_); }  ///< throws std::system_error
    /// For texts: the peer, or the local endpoint where the peer has no name. Called by the holder
    /// or by a user.
    [[nodiscard]] virtual std::string name() noexcept;
    /// Throws std::system_error "what name: why", or socket_closed if the socket is closing.
    [[noreturn]] void fail(int error, const char* what, const char* remedy = "");
    [[noreturn]] void fail_closed(const char* what);
    [[noreturn]] void fail_stopped(const token_record& token, const char* what);
    /// For texts: "read from a stream (127.0.0.1:7000)".
    [[nodiscard]] std::string deed(const char* what);
    /// Called when the user's object has no socket.
    [[noreturn]] static void fail_none(const char* what);

    /// Begins a wait: calls suspension::enter, whose token_stopped then names the socket. Throws
    /// socket_closed if `of` is null.
    static core_context& begin(socket_core* of, const char* what);

protected:
    // `armed` is a count of up to 2: between the store of 0 to `home_` and go_out(armed), the
    // source can be armed on another loop.
    static constexpr std::uint64_t closing = 1, held = 2, lent = 4, armed = 8;
    static constexpr std::uint64_t users = ~(closing | held | lent);

    virtual ~socket_core() = default;

    /// May delete this.
    void go_out(std::uint64_t user) noexcept;

    /// A user enters by compare-and-swap (acquire), and leaves or closes by compare-and-swap
    /// (acq_rel): an inward user sees the source as the one before it left it. lend() uses fetch_or
    /// (acq_rel): of a thread that lends and one that closes, the second sees the first.
    std::atomic<std::uint64_t> use_{held};

private:
    /// False, with the word in `seen`, if the socket is closing or more than `others` users have
    /// entered in this direction.
    bool try_enter(way direction, std::uint64_t others, std::uint64_t& seen) noexcept;
    bool begin_to_close(std::uint64_t given_up, suspension* waiter) noexcept;
    [[noreturn]] void refuse(std::uint64_t seen, const char* what);

    const int fd_;
    /// Stored by the thread that set `closing`, while it is a guest; read by the thread that closes
    /// the descriptor.
    suspension* closer_ = nullptr;
    const endpoint known_;
};

/// Throws std::system_error, whose text names a remedy.
unique_fd make_socket(const endpoint& of, int type, const char* what);
/// A remedy to append to an error's text, or an empty text.
const char* remedy_of(int error) noexcept;

/// For await_resume: leaves the socket at the end of the scope.
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

/// A synchronous call on the descriptor, which is not closed meanwhile. The constructor throws
/// socket_closed, also if there is no socket.
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

    // ---- called by the inward user, on its loop -------------------------------------------------

    /// The other loop on which the source is armed, or 0. If it is not 0, the caller must not
    /// access any other member of the source. Throws wrong_runtime.
    [[nodiscard]] std::uint32_t elsewhere(const core_context& here, const char* what);
    [[nodiscard]] bool is_armed() const noexcept {
        return home_.load(std::memory_order_acquire) != 0;
    }
    /// Whenever something arrives, the source calls `take` of the waiter. When that returns true,
    /// the source wakes the waiter.
    void await_here(core_context& here, inward& waiter);
    void forget_waiter() noexcept { waiter_ = nullptr; }
    /// Requests that the other loop detaches the source. `come_back` then brings the waiter back.
    void fetch_from(std::uint32_t elsewhere, const core_context& here, inward& waiter) noexcept;

    // ---- called on the thread of the loop where it is armed -------------------------------------

    void cancel(executor& here) noexcept;

protected:
    ~source_core() = default;

    /// Fills in the request's submission entry. May throw.
    virtual void prepare(executor& here, io_request& request) = 0;
    /// Stores what a completion has brought.
    virtual void keep(executor& here, std::int32_t result, std::uint32_t flags) noexcept = 0;
    /// True if so much is untaken that the source receives no more for now.
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
    /// The loop on which the source is armed (slot of its runtime and position), or 0. That loop
    /// stores it when it arms the source (relaxed: there is no other inward user) and when it
    /// detaches it (release). The inward user loads it (acquire) on its own loop.
    std::atomic<std::uint32_t> home_{0};
    inward* waiter_ = nullptr;         // waits on this loop
    inward* successor_ = nullptr;      // waits on another loop until the source is detached
    source_core* previous_ = nullptr;  // in its executor's list
    source_core* next_ = nullptr;
};

}  // namespace tokengate::detail
