// SPDX-License-Identifier: MIT
#include <tokengate/stream.hpp>

#include "executor/executor.hpp"
#include "net/provided_buffers.hpp"
#include "net/stream_core.hpp"

#include <tokengate/error.hpp>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

namespace tokengate {

namespace detail {

namespace {

unsigned length_of(std::size_t bytes) noexcept {
    return static_cast<unsigned>(std::min(bytes, most_at_once));
}

/// Whether the kernel refuses to send from user memory: this socket does not support it, or too
/// little memory may be locked (RLIMIT_MEMLOCK, net.core.optmem_max). If such a code has another
/// cause, the ordinary write that follows returns it as well.
bool cannot_lend(std::int32_t result) noexcept {
    return result == -EOPNOTSUPP || result == -EINVAL || result == -ENOMEM || result == -ENOBUFS;
}

}  // namespace

// ---- what the source brings ---------------------------------------------------------------------

stream_core::~stream_core() {
    while (piece* left = take_piece()) give_back(left);
}

piece* stream_core::take_piece() noexcept {
    piece* const oldest = first_;
    if (oldest) {
        first_ = oldest->next;
        --waiting_;
    }
    return oldest;
}

void stream_core::prepare(executor& here, io_request& request) {
    provided_buffers& pool = here.buffers();
    if (std::exchange(ran_dry_, false) && !pool.any_left()) {
        // Other streams and users hold all buffers. This waiter must not wait for them, so the
        // source receives once into a piece that owns its memory.
        own_ = make_piece();
        io_uring_prep_recv(request.sqe(), fd(), own_->bytes, provided_buffers::bytes_each, 0);
        return;
    }
    io_uring_prep_recv_multishot(request.sqe(), fd(), nullptr, 0, 0);
    request.sqe()->flags |= IOSQE_BUFFER_SELECT;
    request.sqe()->buf_group = provided_buffers::group_id;
}

void stream_core::keep(executor& here, std::int32_t result, std::uint32_t flags) noexcept {
    piece* came = std::exchange(own_, nullptr);
    if (came && result > 0) came->size = static_cast<std::uint32_t>(result);
    if (flags & IORING_CQE_F_BUFFER) came = here.buffers().take(flags, result);
    if (came && result > 0) {
        (first_ ? last_->next : first_) = came;
        last_ = came;
        ++waiting_;
        return;
    }
    if (came) give_back(came);
    seems_empty = false;
    if (result == -ENOBUFS)
        ran_dry_ = true;
    else if (result != -ECANCELED && result != -EINTR)
        end_ = result;
}

// ---- reading ------------------------------------------------------------------------------------

reading::reading(const char* what, stream_core* source, std::span<std::byte> into,
                 bool all) noexcept
    : inward(what, source), into_(into), all_(all) {
    completed = &came;
}

stream_core& reading::from() const noexcept { return static_cast<stream_core&>(*source_); }

bool reading::take() noexcept {
    stream_core& source = from();
    while (piece* const oldest = source.first()) {
        if (done_ == into_.size()) return true;
        const std::size_t part = std::min<std::size_t>(into_.size() - done_, oldest->size);
        std::memcpy(into_.data() + done_, oldest->bytes, part);
        done_ += part;
        oldest->bytes += part;
        oldest->size -= static_cast<std::uint32_t>(part);
        if (oldest->size == 0) give_back(source.take_piece());
    }
    if (done_ == into_.size() || (done_ != 0 && !all_)) return true;
    result_ = source.take_end();
    return result_ != stream_core::goes_on;
}

void reading::ask(core_context& core) {
    if (from().is_armed()) {
        inward::ask(core);
        return;
    }
    prepare();
    core.host->loop.start(*this);
}

void reading::prepare() noexcept {
    const std::span<std::byte> rest = into_.subspan(done_);
    io_uring_prep_recv(sqe(), from().fd(), rest.data(), length_of(rest.size()),
                       all_ ? MSG_WAITALL : 0);
    if (from().seems_empty) sqe()->ioprio = IORING_RECVSEND_POLL_FIRST;
}

void reading::came(event_loop& loop, io_request& request, std::int32_t result, std::uint32_t flags,
                   bool) noexcept {
    auto& self = static_cast<reading&>(request);
    self.result_ = result;
    if (result > 0) {
        // A short read has emptied the socket. For TCP, the completion's flag says whether anything
        // is left.
        stream_core& source = self.from();
        self.done_ += static_cast<std::size_t>(result);
        source.seems_empty = (source.is_tcp || self.done_ < self.into_.size()) &&
                             !(flags & IORING_CQE_F_SOCK_NONEMPTY);
        if (self.all_ && self.done_ < self.into_.size() && !self.cancel_wanted) {
            self.prepare();
            loop.start(self);  // reuses the ticket just given back, so it allocates nothing
            return;
        }
    }
    self.wake();
}

std::size_t reading::await_resume() {
    const leaving at_end(*source_, way::in);
    check();
    if (done_ == into_.size() || (done_ != 0 && !all_)) [[likely]]
        return done_;
    if (result_ == stream_core::goes_on || result_ > 0)
        from().fail_stopped(*token, what_);  // a stop ended read_all in the middle
    const std::int32_t result = finished();
    if (result < 0) from().fail(-result, what_);
    if (from().is_closing()) from().fail_closed(what_);
    if (all_)
        throw unexpected_end("unexpected_end: " + from().name() + " ended the stream after " +
                                 std::to_string(done_) + " of " + std::to_string(into_.size()) +
                                 " bytes",
                             done_);
    return 0;
}

receiving::receiving(stream_core* source) noexcept : inward("receive from a stream", source) {}

receiving::~receiving() {
    if (taken_) give_back(taken_);
}

stream_core& receiving::from() const noexcept { return static_cast<stream_core&>(*source_); }

bool receiving::take() noexcept {
    taken_ = from().take_piece();
    if (taken_) return true;
    result_ = from().take_end();
    return result_ != stream_core::goes_on;
}

chunk receiving::await_resume() {
    const leaving at_end(*source_, way::in);
    check();
    if (taken_) return chunk(std::exchange(taken_, nullptr));
    if (result_ < 0) from().fail(-result_, what_);
    if (from().is_closing()) from().fail_closed(what_);
    return {};
}

// ---- writing ------------------------------------------------------------------------------------

writing::writing(const char* what, stream_core* to, std::span<const std::byte> bytes,
                 how much) noexcept
    : at_socket(what, to), bytes_(bytes), how_(much) {
    completed = &went;
}

bool writing::await_suspend(std::coroutine_handle<> awaiting) {
    core_context& core = socket_core::begin(socket_, what_);
    socket_->enter_alone(way::out, what_);
    if (bytes_.empty()) return false;
    prepare();
    return start(core, awaiting, way::out, how_ == how::all_without_copy ? &stop_lending : &stop);
}

void writing::prepare() noexcept {
    const std::span<const std::byte> rest = bytes_.subspan(done_);
    // With MSG_WAITALL the kernel itself continues a partial send where it can.
    const int flags = MSG_NOSIGNAL | (how_ == how::some ? 0 : MSG_WAITALL);
    if (how_ == how::all_without_copy)
        io_uring_prep_send_zc(sqe(), socket_->fd(), rest.data(), length_of(rest.size()), flags, 0);
    else
        io_uring_prep_send(sqe(), socket_->fd(), rest.data(), length_of(rest.size()), flags);
}

void writing::went(event_loop& loop, io_request& request, std::int32_t result, std::uint32_t flags,
                   bool last) noexcept {
    auto& self = static_cast<writing&>(request);
    if (!(flags & IORING_CQE_F_NOTIF)) {
        self.result_ = result;
        if (result > 0) self.done_ += static_cast<std::size_t>(result);
    }
    if (!last) {  // the kernel still reads from the buffer
        self.lent_ = true;
        if (!self.socket_->lend() || self.cancel_wanted) self.give_up();
        return;
    }
    if (std::exchange(self.lent_, false)) self.socket_->take_back();
    const bool must_copy = self.how_ == how::all_without_copy && cannot_lend(self.result_);
    if (must_copy) self.how_ = how::all;
    if (((self.result_ > 0 && self.how_ != how::some && self.done_ < self.bytes_.size()) ||
         must_copy) &&
        !self.cancel_wanted && !self.given_up_) {
        self.prepare();
        loop.start(self);
        return;
    }
    self.wake();
}

/// Once the kernel has queued the bytes, a cancellation has no effect, so the stop resets the
/// connection.
void writing::stop_lending(core_context& core, wait_point& point) noexcept {
    stop(core, point);
    auto& self = static_cast<writing&>(static_cast<suspension&>(point));
    if (self.lent_) self.give_up();
}

void writing::give_up() noexcept {
    given_up_ = true;
    socket_->reset();
}

std::size_t writing::await_resume() {
    const leaving at_end(*socket_, way::out);
    if (how_ == how::all_without_copy) [[unlikely]] {
        if (socket_->is_closing()) socket_->fail_closed(what_);
        if (given_up_) socket_->fail_stopped(*token, what_);
    }
    if (done_ == bytes_.size() || (how_ == how::some && result_ >= 0)) [[likely]]
        return done_;
    const std::int32_t result = finished();
    if (result < 0) socket_->fail(-result, what_);
    socket_->fail_stopped(*token, what_);  // a stop ended the write in the middle
}

gathering::gathering(stream_core* to, std::span<const std::span<const std::byte>> parts) noexcept
    : at_socket("write all to a stream", to), parts_(parts) {
    completed = &went;
}

bool gathering::await_suspend(std::coroutine_handle<> awaiting) {
    core_context& core = socket_core::begin(socket_, what_);
    socket_->enter_alone(way::out, what_);
    return prepare() && start(core, awaiting, way::out);
}

bool gathering::prepare() noexcept {
    std::size_t skip = into_first_;
    std::size_t room = most_at_once;
    message_.msg_iov = window_;
    message_.msg_iovlen = 0;
    for (const std::span<const std::byte>& part : parts_) {
        if (message_.msg_iovlen == std::size(window_) || room == 0) break;
        const std::size_t length = std::min(part.size() - skip, room);
        if (length != 0)
            window_[message_.msg_iovlen++] = {const_cast<std::byte*>(part.data()) + skip, length};
        room -= length;
        skip = 0;
    }
    io_uring_prep_sendmsg(sqe(), socket_->fd(), &message_, MSG_NOSIGNAL | MSG_WAITALL);
    return message_.msg_iovlen != 0;
}

void gathering::went(event_loop& loop, io_request& request, std::int32_t result, std::uint32_t,
                     bool) noexcept {
    auto& self = static_cast<gathering&>(request);
    self.result_ = result;
    for (std::size_t done = result > 0 ? static_cast<std::size_t>(result) : 0; done != 0;) {
        const std::size_t step = std::min(done, self.parts_.front().size() - self.into_first_);
        done -= step;
        self.into_first_ += step;
        if (self.into_first_ == self.parts_.front().size()) {
            self.parts_ = self.parts_.subspan(1);
            self.into_first_ = 0;
        }
    }
    if (result > 0 && self.prepare() && !self.cancel_wanted) {
        loop.start(self);
        return;
    }
    self.wake();
}

void gathering::await_resume() {
    const leaving at_end(*socket_, way::out);
    const std::int32_t result = finished();
    if (result < 0) socket_->fail(-result, what_);
    if (prepare()) socket_->fail_stopped(*token, what_);
}

}  // namespace detail

// ---- stream -------------------------------------------------------------------------------------

stream::~stream() {
    if (core_) core_->drop();
}

stream stream::from_descriptor(int fd, const endpoint& remote) {
    return stream(new detail::stream_core(fd, remote));
}

detail::closing_socket stream::close() noexcept { return detail::closing_socket(core_); }

void stream::shutdown() {
    constexpr const char* what = "shut down a stream";
    const detail::visit here(core_, what);
    if (::shutdown(core_->fd(), SHUT_WR) != 0) core_->fail(errno, what);
}

endpoint stream::local_endpoint() const {
    const detail::visit here(core_, "look at a stream");
    return core_->local();
}

endpoint stream::remote_endpoint() const {
    if (!core_) detail::socket_core::fail_none("look at a stream");
    return core_->known();
}

bool stream::is_open() const noexcept { return core_ && !core_->is_closing(); }

int stream::descriptor() const { return detail::socket_core::open_fd(core_, "look at a stream"); }

void stream::set_option(const char* what, int level, int name, int value) {
    const detail::visit here(core_, what);
    if (::setsockopt(core_->fd(), level, name, &value, sizeof value) != 0) core_->fail(errno, what);
}

void stream::no_delay(bool on) {
    set_option("set no_delay of a stream", IPPROTO_TCP, TCP_NODELAY, on);
}
void stream::keep_alive(bool on) {
    set_option("set keep_alive of a stream", SOL_SOCKET, SO_KEEPALIVE, on);
}

}  // namespace tokengate
