// SPDX-License-Identifier: MIT
#include <tokengate/listener.hpp>

#include "executor/executor.hpp"
#include "net/socket_core.hpp"

#include <tokengate/detail/unique_fd.hpp>
#include <tokengate/error.hpp>
#include <tokengate/tcp.hpp>
#include <tokengate/time.hpp>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <new>
#include <string>
#include <system_error>
#include <vector>

namespace tokengate {

namespace detail {

/// The connections that the kernel has accepted and no token has taken. socket_core.hpp says which
/// thread may access it when.
class listener_core final : public source_core {
public:
    listener_core(int fd, const endpoint& at, std::size_t ahead)
        : source_core(fd, at), ahead_(ahead) {
        untaken_.reserve(ahead);
    }

    static constexpr int nothing = -0x10000;
    /// The descriptor of the connection that has waited longest. Else a negative value: an errno,
    /// which is returned once, or `nothing`.
    int take() noexcept {
        if (next_ < untaken_.size()) {
            const int oldest = untaken_[next_++];
            if (next_ == untaken_.size()) {
                untaken_.clear();
                next_ = 0;
            }
            return oldest;
        }
        return std::exchange(error_, nothing);
    }

private:
    ~listener_core() override {
        for (; next_ < untaken_.size(); ++next_) ::close(untaken_[next_]);
    }

    void prepare(executor&, io_request& request) override {
        if (ahead_ == 0)
            io_uring_prep_accept(request.sqe(), fd(), nullptr, nullptr, SOCK_CLOEXEC);
        else
            io_uring_prep_multishot_accept(request.sqe(), fd(), nullptr, nullptr, SOCK_CLOEXEC);
    }

    void keep(executor&, std::int32_t result, std::uint32_t) noexcept override {
        if (result >= 0) {
            unique_fd accepted(result);
            try {
                untaken_.push_back(result);
                static_cast<void>(accepted.release());
            } catch (const std::bad_alloc&) {
                error_ = -ENOMEM;
            }
        } else if (result != -ECANCELED && result != -EINTR) {
            error_ = result;
        }
    }

    [[nodiscard]] bool is_full() const noexcept override {
        return untaken_.size() - next_ >= ahead_;
    }

    const std::size_t ahead_;
    std::vector<int> untaken_;  // descriptors; those before `next_` are taken
    std::size_t next_ = 0;
    int error_ = nothing;
};

// ---- accept -------------------------------------------------------------------------------------

accepting::accepting(listener_core* source) noexcept : inward("accept a connection", source) {}

accepting::~accepting() {
    if (taken_ >= 0) ::close(taken_);
}

listener_core& accepting::from() const noexcept { return static_cast<listener_core&>(*source_); }

bool accepting::take() noexcept {
    taken_ = from().take();
    return taken_ != listener_core::nothing;
}

stream accepting::await_resume() {
    const leaving at_end(*source_, way::in);
    check();
    if (taken_ < 0) from().fail(-taken_, what_, remedy_of(-taken_));
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    // ENOTCONN: the peer has already gone. The stream gets an unspecified endpoint, and its reader
    // learns how it ended.
    if (::getpeername(taken_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
        const endpoint& here = from().known();
        const endpoint nobody = here.is_local() ? endpoint::from(here.data(), sizeof(sa_family_t))
                                : here.family() == AF_INET ? endpoint::any_v4(0)
                                                           : endpoint::any_v6(0);
        stream made = stream::from_descriptor(taken_, nobody);
        taken_ = -1;
        return made;
    }
    stream made =
        stream::from_descriptor(taken_,
                                endpoint::from(reinterpret_cast<sockaddr*>(&address), size));
    taken_ = -1;
    return made;
}

// ---- connect ------------------------------------------------------------------------------------

connecting::connecting(const endpoint& to, std::chrono::nanoseconds limit) noexcept
    : io_wait("connect"), to_(to), limit_(limit) {
    completed = [](event_loop& loop, io_request& request, std::int32_t result, std::uint32_t,
                   bool) noexcept {
        auto& self = static_cast<connecting&>(request);
        loop.withdraw(self.timer_);
        self.result_ = result;
        self.wake();
    };
}

connecting::~connecting() {
    if (fd_ >= 0) ::close(fd_);
}

namespace {

void set(int fd, int level, int name, int value, const char* call, const endpoint& of) {
    if (::setsockopt(fd, level, name, &value, sizeof value) != 0)
        throw std::system_error(errno, std::system_category(),
                                std::string(call) + " (" + of.text() + ")");
}

}  // namespace

bool connecting::await_suspend(std::coroutine_handle<> awaiting) {
    core_context& core = enter(what_);
    fd_ = make_socket(to_, SOCK_STREAM, "connect to").release();
    if (!to_.is_local()) set(fd_, IPPROTO_TCP, TCP_NODELAY, 1, "setsockopt(TCP_NODELAY)", to_);
    io_uring_prep_connect(sqe(), fd_, to_.data(), to_.size());
    io_wait::await_suspend(awaiting);
    timer_.deadline_ns = deadline_after(limit_);
    timer_.of = this;
    timer_.run = [](hook* due) noexcept {
        connecting& self = *static_cast<alarm*>(due)->of;
        self.over_ = true;
        self.home->loop.cancel(self);
    };
    if (timer_.deadline_ns == 0)
        timer_.run(&timer_);
    else if (limit_ != std::chrono::nanoseconds::max())
        core.host->loop.arm(timer_);
    return true;
}

stream connecting::await_resume() {
    const bool given_up = (result_ == -ECANCELED || result_ == -EINTR) && cancel_wanted;
    if (given_up && token && (token->stop_pending() || !over_))
        throw_stopped(*token, ("connect to (" + to_.text() + ")").c_str());
    if (result_ < 0) {
        const int error = given_up && over_ ? ETIMEDOUT : -result_;
        throw std::system_error(error, std::system_category(),
                                "connect to (" + to_.text() + ")" +
                                    (over_ && given_up ? " in time" : ""));
    }
    stream made = stream::from_descriptor(fd_, to_);
    fd_ = -1;
    return made;
}

const endpoint& check_internet(const endpoint& address) {
    if (address.is_local())
        throw configuration_error(
            "configuration_error: " + address.text() +
            " is no address of TCP or UDP: give an IPv4 or IPv6 one, or use tokengate::local");
    return address;
}

}  // namespace detail

// ---- listener -----------------------------------------------------------------------------------

listener::~listener() {
    if (core_) core_->drop();
}

listener listener::open(const endpoint& at, const listen_options& options) {
    const auto fail = [&at](const char* remedy) {
        const int error = errno;
        throw std::system_error(error, std::system_category(),
                                "listen at (" + at.text() + ")" + remedy);
    };
    detail::unique_fd fd = detail::make_socket(at, SOCK_STREAM, "listen at");
    if (!at.is_local()) {
        // Accepted sockets inherit these options from the listening one.
        detail::set(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1, "setsockopt(SO_REUSEADDR)", at);
        if (options.reuse_port)
            detail::set(fd.get(), SOL_SOCKET, SO_REUSEPORT, 1, "setsockopt(SO_REUSEPORT)", at);
        if (options.no_delay)
            detail::set(fd.get(), IPPROTO_TCP, TCP_NODELAY, 1, "setsockopt(TCP_NODELAY)", at);
        if (options.keep_alive)
            detail::set(fd.get(), SOL_SOCKET, SO_KEEPALIVE, 1, "setsockopt(SO_KEEPALIVE)", at);
    }
    if (at.family() == AF_INET6)
        detail::set(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, options.v6_only, "setsockopt(IPV6_V6ONLY)",
                    at);
    if (::bind(fd.get(), at.data(), at.size()) != 0) {
        const bool file_there = errno == EADDRINUSE && at.is_local();
        fail(file_there ? ". The file is there already: remove it if no other server listens at it"
                        : "");
    }
    if (::listen(fd.get(), options.backlog) != 0) fail("");
    listener made(new detail::listener_core(fd.get(), detail::local_of(fd.get()),
                                            options.accept_ahead));
    static_cast<void>(fd.release());
    return made;
}

detail::closing_socket listener::close() noexcept { return detail::closing_socket(core_); }

endpoint listener::local_endpoint() const {
    const detail::visit here(core_, "look at a listener");
    return core_->local();
}

bool listener::is_open() const noexcept { return core_ && !core_->is_closing(); }

int listener::descriptor() const {
    return detail::socket_core::open_fd(core_, "look at a listener");
}

}  // namespace tokengate
