// SPDX-License-Identifier: MIT
#include <tokengate/udp.hpp>

#include "executor/executor.hpp"
#include "net/socket_core.hpp"

#include <tokengate/detail/unique_fd.hpp>
#include <tokengate/error.hpp>
#include <tokengate/tcp.hpp>

#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>

namespace tokengate::udp {

namespace detail {

exchange::exchange(const char* what, socket_core* at, void* bytes, std::size_t size) noexcept
    : at_socket(what, at), part_{bytes, size} {
    message_.msg_iov = &part_;
    message_.msg_iovlen = 1;
}

bool exchange::await_suspend(std::coroutine_handle<> awaiting) {
    core_context& core = socket_core::begin(socket_, what_);
    const way direction = outward_ ? way::out : way::in;
    socket_->enter(direction, what_);
    if (outward_)
        io_uring_prep_sendmsg(sqe(), socket_->fd(), &message_, MSG_NOSIGNAL);
    else
        io_uring_prep_recvmsg(sqe(), socket_->fd(), &message_, 0);
    return start(core, awaiting, direction);
}

std::size_t exchange::result() {
    const leaving at_end(*socket_, outward_ ? way::out : way::in);
    const std::int32_t size = finished();
    if (size >= 0 && (outward_ || message_.msg_namelen != 0)) [[likely]]
        return static_cast<std::size_t>(size);
    // A datagram without a sender's address: the socket was shut down.
    if (size >= 0 || socket_->is_closing()) socket_->fail_closed(what_);
    std::string text(what_);
    if (outward_ && message_.msg_name) {
        text += ' ';
        text +=
            endpoint::from(static_cast<sockaddr*>(message_.msg_name), message_.msg_namelen).text();
    }
    throw std::system_error(-size, std::system_category(), text + " (" + socket_->name() + ")");
}

sending::sending(socket_core* at, std::span<const std::byte> bytes, const endpoint* to) noexcept
    : exchange("send a datagram", at, const_cast<std::byte*>(bytes.data()), bytes.size()) {
    outward_ = true;
    if (!to) return;
    std::memcpy(&address_, to->data(), to->size());
    message_.msg_name = &address_;
    message_.msg_namelen = to->size();
}

receiving::receiving(socket_core* at, std::span<std::byte> into) noexcept
    : exchange("receive a datagram", at, into.data(), into.size()) {
    message_.msg_name = &address_;
    message_.msg_namelen = sizeof address_;
}

received receiving::await_resume() {
    const std::size_t size = result();
    return {size, endpoint::from(reinterpret_cast<sockaddr*>(&address_), message_.msg_namelen),
            (message_.msg_flags & MSG_TRUNC) != 0};
}

}  // namespace detail

namespace {

using tokengate::detail::socket_core;
using tokengate::detail::visit;

[[noreturn]] void fail_at(const char* what, const endpoint& with) {
    throw std::system_error(errno, std::system_category(),
                            std::string(what) + " (" + with.text() + ")");
}

/// A UDP socket's peer can change. Errors name the peer at the time of the error.
class udp_core final : public socket_core {
public:
    using socket_core::socket_core;

    void set_peer(const endpoint& to) {
        const std::scoped_lock lock(mutex_);
        if (::connect(fd(), to.data(), to.size()) != 0) fail_at("connect to", to);
        peer_ = to;
    }

    [[nodiscard]] std::string name() noexcept override {
        try {
            const std::scoped_lock lock(mutex_);
            return peer_ ? peer_->text() : known().text();
        } catch (...) {
            return {};
        }
    }

private:
    std::mutex mutex_;  // guards peer_ and the kernel's connect(), so that both agree
    std::optional<endpoint> peer_;
};

tokengate::detail::unique_fd make_socket(const endpoint& with) {
    return tokengate::detail::make_socket(tokengate::detail::check_internet(with), SOCK_DGRAM,
                                          "make a socket for");
}

}  // namespace

socket::~socket() {
    if (core_) core_->drop();
}

socket socket::bind(const endpoint& at, bool reuse_port) {
    tokengate::detail::unique_fd fd = make_socket(at);
    const int on = 1;
    if (reuse_port && ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0)
        fail_at("setsockopt(SO_REUSEPORT)", at);
    if (::bind(fd.get(), at.data(), at.size()) != 0) fail_at("bind to", at);
    socket made(new udp_core(fd.get(), tokengate::detail::local_of(fd.get())));
    static_cast<void>(fd.release());
    return made;
}

socket socket::connect(const endpoint& to) {
    tokengate::detail::unique_fd fd = make_socket(to);
    if (::connect(fd.get(), to.data(), to.size()) != 0) fail_at("connect to", to);
    socket made(new udp_core(fd.get(), to));
    static_cast<void>(fd.release());
    return made;
}

void socket::set_peer(const endpoint& to) {
    const visit here(core_, "connect a socket");
    static_cast<udp_core&>(*core_).set_peer(to);
}

tokengate::detail::closing_socket socket::close() noexcept {
    return tokengate::detail::closing_socket(core_);
}

endpoint socket::local_endpoint() const {
    const visit here(core_, "look at a socket");
    return core_->local();
}

bool socket::is_open() const noexcept { return core_ && !core_->is_closing(); }

int socket::descriptor() const { return socket_core::open_fd(core_, "look at a socket"); }

}  // namespace tokengate::udp
