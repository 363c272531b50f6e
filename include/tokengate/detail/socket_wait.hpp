// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/io_wait.hpp>
#include <tokengate/detail/suspension.hpp>

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>

/// How a body waits at a socket. The objects of one wait lie in the body's frame. The state that a
/// socket keeps between waits lies in a socket_core (runtime/net/socket_core.hpp). The core lives
/// as long as any wait uses it, even if the object that the user holds is destroyed.
///
/// An inward wait (read, receive, accept) uses either a plain kernel operation, made in the frame,
/// or a *source*. A source is a multishot request: it stays armed on one loop and delivers data
/// whether or not a body awaits it. A wait takes data that the source has already delivered. If
/// there is none, it waits for more. If the source is armed on another loop, the wait first has it
/// detached there.
///
/// Errors: socket_closed, socket_busy (at most one wait in a direction), wrong_runtime, and those
/// of io_wait.

namespace tokengate::detail {

class provided_buffers;
class socket_core;
class source_core;
enum class way : std::uint64_t;

/// A received piece of a stream.
struct piece {
    piece* next;
    std::byte* bytes;      ///< not yet read
    provided_buffers* of;  ///< null: the piece owns its memory
    std::uint32_t size;
    std::uint16_t id;
};

/// Any thread.
void give_back(piece* used) noexcept;

class inward : public io_wait {
public:
    bool await_suspend(std::coroutine_handle<> awaiting);

    /// On the loop of the source: takes what it has delivered. True if that ends the wait.
    virtual bool take() noexcept = 0;
    /// Called if the source could not continue.
    void fail(std::exception_ptr failure) noexcept { failure_ = std::move(failure); }

protected:
    inward(const char* what, source_core* from) noexcept : io_wait(what), source_(from) {}
    ~inward() = default;

    /// Called if nothing has been delivered: requests data.
    virtual void ask(core_context& core);
    /// Throws the error that ended the wait, if there was no result. (await_resume leaves the
    /// socket after it has checked everything.)
    void check() const;
    /// As in io_wait, but its token_stopped names the socket.
    std::int32_t finished();

    source_core* source_;

private:
    static void come_to_former(hook* item) noexcept;
    static void come_back(hook* item) noexcept;
    static void stop(core_context& core, wait_point& point) noexcept;
    friend class source_core;

    std::exception_ptr failure_;
    bool travelling_ = false;  // on the way to the loop where the source was armed, or back
    bool stopped_ = false;
};

/// An operation in the outward direction, or at a socket without a source.
class at_socket : public io_wait {
protected:
    at_socket(const char* what, socket_core* of) noexcept : io_wait(what), socket_(of) {}
    ~at_socket() = default;

    /// The caller has entered the socket in `direction`. If this throws, it has left the socket
    /// again.
    bool start(core_context& core, std::coroutine_handle<> awaiting, way direction,
               void (*stops)(core_context&, wait_point&) noexcept = &stop);
    static void stop(core_context& core, wait_point& point) noexcept;
    /// As in io_wait, but its token_stopped names the socket.
    std::int32_t finished();

    socket_core* socket_;
};

/// Closes a socket, and waits until its pending operations have ended. That is a short wait, so a
/// stop neither prevents the close nor ends the wait.
class closing_socket : public suspension {
public:
    explicit closing_socket(socket_core* of) noexcept : socket_(of) {}
    closing_socket(const closing_socket&) = delete;
    closing_socket& operator=(const closing_socket&) = delete;

    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> awaiting);
    void await_resume() const noexcept {}

private:
    socket_core* socket_;
};

}  // namespace tokengate::detail
