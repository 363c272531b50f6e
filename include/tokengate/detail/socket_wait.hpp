// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/io_wait.hpp>
#include <tokengate/detail/suspension.hpp>

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>

/// How a body waits at a socket. What it waits in lies in its frame; what the socket keeps between the waits, in a
/// socket_core (runtime/net/socket_core.hpp), which lives as long as anybody is at it, whatever becomes of the object that
/// the user holds.
///
/// Inward (read, receive, accept) there is either a plain operation of the kernel's, made in the frame, or a *source*: a
/// multishot request, which stays armed on one loop and brings what it brings, awaited or not. A wait takes what the source
/// has brought before; else it waits for more; and where the source is armed on another loop, has it detached there first.
///
/// Errors: socket_closed, socket_busy (one wait a direction), wrong_runtime, and those of io_wait.

namespace tokengate::detail {

class provided_buffers;
class socket_core;
class source_core;
enum class way : std::uint64_t;

/// A received piece of a stream.
struct piece {
    piece* next;
    std::byte* bytes;      ///< what is not read yet
    provided_buffers* of;  ///< null: it owns its memory
    std::uint32_t size;
    std::uint16_t id;
};

/// Any thread.
void give_back(piece* used) noexcept;

class inward : public io_wait {
public:
    bool await_suspend(std::coroutine_handle<> awaiting);

    /// On the loop of the source: takes what it has brought; true if that ends the wait.
    virtual bool take() noexcept = 0;
    /// The source could not go on.
    void fail(std::exception_ptr failure) noexcept { failure_ = std::move(failure); }

protected:
    inward(const char* what, source_core* from) noexcept : io_wait(what), source_(from) {}
    ~inward() = default;

    /// Nothing is there: asks for it.
    virtual void ask(core_context& core);
    /// Throws what ended the wait, if it was no result. (await_resume leaves the socket, after it has looked at
    /// everything.)
    void check() const;
    /// io_wait's; a token_stopped that names the socket.
    std::int32_t finished();

    source_core* source_;

private:
    static void come_to_former(hook* item) noexcept;
    static void come_back(hook* item) noexcept;
    static void stop(core_context& core, wait_point& point) noexcept;
    friend class source_core;

    std::exception_ptr failure_;
    bool travelling_ = false;  // to the loop where the source was armed, and back
    bool stopped_ = false;
};

/// An operation in the other direction, or at a socket without a source.
class at_socket : public io_wait {
protected:
    at_socket(const char* what, socket_core* of) noexcept : io_wait(what), socket_(of) {}
    ~at_socket() = default;

    /// The socket has been entered that way, and is left again if this throws.
    bool start(core_context& core, std::coroutine_handle<> awaiting, way direction,
               void (*stops)(core_context&, wait_point&) noexcept = &stop);
    static void stop(core_context& core, wait_point& point) noexcept;
    /// io_wait's; a token_stopped that names the socket.
    std::int32_t finished();

    socket_core* socket_;
};

/// Closes a socket, and waits until what was pending at it has ended: not for long, so that a stop neither keeps it from
/// closing nor ends the wait.
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
