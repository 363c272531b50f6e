// SPDX-License-Identifier: MIT
#include "net/socket_core.hpp"

#include "await/stopped_text.hpp"
#include "executor/executor.hpp"
#include "executor/shared.hpp"
#include "net/provided_buffers.hpp"

#include <tokengate/error.hpp>

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace tokengate::detail {

// ---- the count of users -------------------------------------------------------------------------

namespace {

/// All bits of a direction's count.
constexpr std::uint64_t count_of(way direction) noexcept {
    switch (direction) {
        case way::guest:
            return static_cast<std::uint64_t>(way::in) - static_cast<std::uint64_t>(way::guest);
        case way::in:
            return static_cast<std::uint64_t>(way::out) - static_cast<std::uint64_t>(way::in);
        case way::out: break;
    }
    return ~(static_cast<std::uint64_t>(way::out) - 1);
}

}  // namespace

bool socket_core::try_enter(way direction, std::uint64_t others, std::uint64_t& seen) noexcept {
    const std::uint64_t counted = count_of(direction);
    seen = use_.load(std::memory_order_relaxed);
    do {
        if ((seen & closing) || (seen & counted) > others) [[unlikely]]
            return false;
    } while (!use_.compare_exchange_weak(seen, seen + static_cast<std::uint64_t>(direction),
                                         std::memory_order_acquire, std::memory_order_relaxed));
    return true;
}

void socket_core::enter_alone(way direction, const char* what) {
    std::uint64_t seen;
    if (!try_enter(direction, 0, seen)) [[unlikely]]
        refuse(seen, what);
}

void socket_core::enter(way direction, const char* what) {
    std::uint64_t seen;
    // If all bits of the count are set, one more user would carry into the next direction's count.
    if (!try_enter(direction, count_of(direction) - static_cast<std::uint64_t>(direction), seen))
        [[unlikely]]
        refuse(seen, what);
}

void socket_core::refuse(std::uint64_t seen, const char* what) {
    if (seen & closing) fail_closed(what);
    throw socket_busy(
        std::string("socket_busy: it was to ") + what + " (" + name() +
        "), but another token is at that: let one token read, and one write, at a time");
}

int socket_core::open_fd(socket_core* of, const char* what) {
    if (!of) fail_none(what);
    if (of->is_closing()) of->fail_closed(what);
    return of->fd_;
}

void socket_core::go_out(std::uint64_t user) noexcept {
    std::uint64_t seen = use_.load(std::memory_order_acquire);
    do {
        if ((seen & closing) && (seen & users) == user) [[unlikely]] {
            // This user is the last, and no other can enter. It stays counted while it closes the
            // descriptor: the holder may drop the socket at any moment, and frees this object if it
            // finds no user.
            ::close(fd_);
            suspension* const closer = closer_;
            if (!(use_.fetch_sub(user, std::memory_order_acq_rel) & held)) delete this;
            if (closer) closer->wake_from_anywhere();
            return;
        }
    } while (!use_.compare_exchange_weak(seen, seen - user, std::memory_order_acq_rel,
                                         std::memory_order_acquire));
}

bool socket_core::begin_to_close(std::uint64_t given_up, suspension* waiter) noexcept {
    std::uint64_t seen = use_.load(std::memory_order_relaxed);
    std::uint64_t wanted;
    do {
        if ((seen & closing) && given_up == 0) return false;
        wanted = (seen | closing) & ~given_up;
        if (!(seen & closing)) wanted += static_cast<std::uint64_t>(way::guest);
    } while (!use_.compare_exchange_weak(seen, wanted, std::memory_order_acq_rel,
                                         std::memory_order_relaxed));
    if (seen & closing) {
        // Without users the descriptor has been closed. Else the last user deletes this.
        if (!(wanted & users)) delete this;
        return false;
    }
    const bool others = seen & users;
    if (others) {
        closer_ = waiter;
        seen& lent ? reset() : static_cast<void>(::shutdown(fd_, SHUT_RDWR));
    }
    leave(way::guest);
    return others;
}

bool socket_core::lend() noexcept {
    return !(use_.fetch_or(lent, std::memory_order_acq_rel) & closing);
}

void socket_core::take_back() noexcept { use_.fetch_and(~lent, std::memory_order_relaxed); }

void socket_core::reset() noexcept {
    // Discards what is queued as well. After a shutdown, the peer would decide when the queue is
    // empty.
    sockaddr nobody{};
    nobody.sa_family = AF_UNSPEC;
    ::connect(fd_, &nobody, sizeof nobody);
}

bool closing_socket::await_suspend(std::coroutine_handle<> awaiting) {
    core_context& core = on_a_loop("close a socket");  // not `enter`: allowed after a stop, too
    if (!socket_) return false;
    suspend(core, awaiting, nullptr);  // before close(): another thread may close and wake this
    if (socket_->close(this)) return true;
    wait_is_over();
    return false;
}

// ---- texts --------------------------------------------------------------------------------------

endpoint local_of(int fd) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0)
        throw std::system_error(errno, std::system_category(), "getsockname");
    return endpoint::from(reinterpret_cast<sockaddr*>(&address), size);
}

std::string socket_core::name() noexcept {
    try {
        if (!known_.is_local() || !known_.address().empty()) return known_.text();
        std::uint64_t seen;
        if (!try_enter(way::guest, 0, seen)) return "an unnamed peer";
        const leaving at_end(*this, way::guest);
        return "a peer of " + local().text();
    } catch (...) {
        return {};
    }
}

void socket_core::fail(int error, const char* what, const char* remedy) {
    if (is_closing()) fail_closed(what);
    throw std::system_error(error, std::system_category(), deed(what) + remedy);
}

void socket_core::fail_closed(const char* what) {
    throw socket_closed("socket_closed: it did not " + deed(what) + ": the socket has been closed");
}

void socket_core::fail_none(const char* what) {
    throw socket_closed(std::string("socket_closed: it did not ") + what +
                        ": there is no socket, it was never opened or has been moved away");
}

std::string socket_core::deed(const char* what) { return std::string(what) + " (" + name() + ")"; }

void socket_core::fail_stopped(const token_record& token, const char* what) {
    throw_stopped(token, deed(what).c_str());
}

core_context& socket_core::begin(socket_core* of, const char* what) {
    core_context& core = naming([&] { return of ? of->deed(what) : what; },
                                [what]() -> core_context& { return suspension::enter(what); });
    if (!of) fail_none(what);
    return core;
}

const char* remedy_of(int error) noexcept {
    switch (error) {
        case EMFILE:
            return ". No descriptor is left to this process: raise `ulimit -n` (systemd: "
                   "LimitNOFILE=)";
        case ENFILE: return ". No descriptor is left on this machine: raise the sysctl fs.file-max";
        case ENOBUFS:
        case ENOMEM:
            return ". The kernel has no memory for it (net.ipv4.tcp_mem, the cgroup's limit)";
        case ECONNABORTED: return ". The client gave up before: accept the next one";
        default: return "";
    }
}

unique_fd make_socket(const endpoint& of, int type, const char* what) {
    unique_fd made(::socket(of.family(), type | SOCK_CLOEXEC, 0));
    if (!made) {
        const int error = errno;
        throw std::system_error(error, std::system_category(),
                                std::string(what) + " (" + of.text() + ")" + remedy_of(error));
    }
    return made;
}

// ---- waiting outward, or without a source -------------------------------------------------------

bool at_socket::start(core_context& core, std::coroutine_handle<> awaiting, way direction,
                      void (*stops)(core_context&, wait_point&) noexcept) {
    try {
        core.host->loop.start(*this);
    } catch (...) {
        socket_->leave(direction);
        throw;
    }
    suspend(core, awaiting, stops);
    return true;
}

void at_socket::stop(core_context& core, wait_point& point) noexcept {
    core.host->loop.cancel(static_cast<at_socket&>(static_cast<suspension&>(point)));
}

std::int32_t at_socket::finished() {
    return naming([this] { return socket_->deed(what_); }, [this] { return io_wait::finished(); });
}

// ---- waiting inward -----------------------------------------------------------------------------

bool inward::await_suspend(std::coroutine_handle<> awaiting) {
    core_context& core = socket_core::begin(source_, what_);
    source_->enter_alone(way::in, what_);
    try {
        if (const std::uint32_t elsewhere = source_->elsewhere(core, what_)) [[unlikely]] {
            suspend(core, awaiting, &stop);
            source_->fetch_from(elsewhere, core, *this);
            return true;
        }
        if (take()) return false;
        ask(core);
    } catch (...) {
        source_->leave(way::in);
        throw;
    }
    suspend(core, awaiting, &stop);
    return true;
}

void inward::ask(core_context& core) { source_->await_here(core, *this); }

void inward::check() const {
    if (failure_) [[unlikely]]
        std::rethrow_exception(failure_);
    if (stopped_) [[unlikely]]
        source_->fail_stopped(*token, what_);
}

std::int32_t inward::finished() {
    return naming([this] { return source_->deed(what_); }, [this] { return io_wait::finished(); });
}

void inward::stop(core_context& core, wait_point& point) noexcept {
    auto& self = static_cast<inward&>(static_cast<suspension&>(point));
    if (self.pending()) {
        core.host->loop.cancel(self);
        return;
    }
    self.stopped_ = true;
    if (self.travelling_) return;  // come_back wakes it
    self.source_->forget_waiter();
    // A full source is armed for this waiter only.
    if (self.source_->is_full()) self.source_->cancel(*core.host);
    self.wake();
}

void inward::come_to_former(hook* item) noexcept {
    auto& self = static_cast<inward&>(*static_cast<suspension*>(item));
    source_core& source = *self.source_;
    const core_context& here = *this_core;
    // Relaxed: only this loop stores to `home_` while the source is armed here. 0: the source has
    // ended by itself meanwhile.
    if (source.home_.load(std::memory_order_relaxed) == 0) {
        item->run = &come_back;
        send_home(*self.home, item);
        return;
    }
    source.successor_ = &self;
    source.cancel(*here.host);
}

void inward::come_back(hook* item) noexcept {
    auto& self = static_cast<inward&>(*static_cast<suspension*>(item));
    item->run = &resume_suspended;
    self.travelling_ = false;
    if (self.stopped_ || self.take()) {
        self.wake();
        return;
    }
    try {
        self.ask(*this_core);
    } catch (...) {
        self.failure_ = std::current_exception();
        self.wake();
    }
}

// ---- the source ---------------------------------------------------------------------------------

namespace {

/// The number of this loop. Never 0, since the runtimes' slots are numbered from 1.
std::uint32_t number_of(const core_context& here) noexcept {
    return std::uint32_t{here.runtime_slot} << 16 | here.position;
}

}  // namespace

std::uint32_t source_core::elsewhere(const core_context& here, const char* what) {
    const std::uint32_t at = home_.load(std::memory_order_acquire);
    if (at == 0 || at == number_of(here)) [[likely]]
        return 0;
    if (at >> 16 != here.runtime_slot)
        throw wrong_runtime(
            std::string("wrong_runtime: it was to ") + what + " (" + name() +
            ") while it still receives in another runtime: use a socket in one runtime");
    return at;
}

void source_core::await_here(core_context& here, inward& waiter) {
    if (!is_armed()) arm(here);
    waiter_ = &waiter;
}

void source_core::arm(core_context& here) {
    request_.of = this;
    request_.completed = &came;
    prepare(*here.host, request_);
    here.host->loop.start(request_);
    // Relaxed: the inward user is counted, so the socket is not closed meanwhile.
    use_.fetch_add(armed, std::memory_order_relaxed);
    home_.store(number_of(here), std::memory_order_relaxed);
    here.host->enlist(*this);
}

void source_core::fetch_from(std::uint32_t elsewhere, const core_context& here,
                             inward& waiter) noexcept {
    // The source may have ended there since. come_to_former, which runs there, checks that.
    executor& former = *here.runtime->executors[elsewhere & 0xffff];
    waiter.travelling_ = true;
    hook* item = static_cast<suspension*>(&waiter);
    item->run = &inward::come_to_former;
    send_home(former, item);
}

void source_core::cancel(executor& here) noexcept { here.loop.cancel(request_); }

void source_core::came(event_loop&, io_request& request, std::int32_t result, std::uint32_t flags,
                       bool last) noexcept {
    source_core& self = *static_cast<multishot&>(request).of;
    executor& here = *this_core->host;
    self.keep(here, result, flags);
    if (self.waiter_ && self.waiter_->take()) std::exchange(self.waiter_, nullptr)->wake();
    if (!last) {
        if (!self.waiter_ && self.is_full()) self.cancel(here);
        return;
    }
    // The request ended by itself, or it was cancelled when there was no waiter.
    if (self.waiter_) {
        try {
            self.prepare(here, request);
            here.loop.start(request);
            return;
        } catch (...) {
            inward& waiter = *std::exchange(self.waiter_, nullptr);
            waiter.fail(std::current_exception());
            waiter.wake();
        }
    }
    self.detach(here);
}

void source_core::detach(executor& here) noexcept {
    here.strike_off(*this);
    inward* const heir = std::exchange(successor_, nullptr);
    home_.store(0, std::memory_order_release);
    if (heir) {
        hook* item = static_cast<suspension*>(heir);
        item->run = &inward::come_back;
        send_home(*heir->home, item);
    }
    go_out(armed);
}

// ---- at its executor ----------------------------------------------------------------------------

void executor::enlist(source_core& armed) noexcept {
    armed.previous_ = nullptr;
    armed.next_ = armed_;
    if (armed_) armed_->previous_ = &armed;
    armed_ = &armed;
}

void executor::strike_off(source_core& armed) noexcept {
    (armed.previous_ ? armed.previous_->next_ : armed_) = armed.next_;
    if (armed.next_) armed.next_->previous_ = armed.previous_;
}

void executor::quit_when_settled() noexcept {
    // No token is left that could await these sources. Their holders may use the sockets on another
    // loop, with the data that has arrived here.
    for (source_core* each = armed_; each; each = each->next_) each->cancel(*this);
    loop.quit_when_settled();
}

provided_buffers& executor::make_buffers() {
    buffers_ = new provided_buffers(loop.own_ring().raw());
    return *buffers_;
}

void executor::retire_buffers() noexcept {
    if (buffers_) std::exchange(buffers_, nullptr)->retire();
}

executor::~executor() { retire_buffers(); }

}  // namespace tokengate::detail
