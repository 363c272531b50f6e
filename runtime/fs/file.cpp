// SPDX-License-Identifier: MIT
#include <tokengate/file.hpp>

#include "await/stopped_text.hpp"
#include "executor/executor.hpp"
#include "fs/support.hpp"

#include <tokengate/blocking.hpp>
#include <tokengate/error.hpp>

#include <fcntl.h>
#include <liburing.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <limits>
#include <new>
#include <utility>

namespace tokengate {

namespace detail {

namespace {

// IORING_OP_FTRUNCATE, of Linux 6.9. The oldest supported liburing does not define it.
constexpr unsigned op_ftruncate = 55;
constexpr std::size_t most_pieces = 1024;          // IOV_MAX
constexpr std::size_t piece_of_all = 1024 * 1024;  // bytes; copying them takes about 100 µs
constexpr std::size_t first_guess = 64 * 1024;     // bytes, for a file that reports no size

/// The name of the file in an error's text.
std::string name_of(const file::handle& of) {
    return of.path().empty() ? "a file that is not open" : of.path();
}

std::string deed_of(const char* what, const std::string& path) { return what + (' ' + path); }

/// The close that the destructor starts. No token waits for it.
struct detached_close : io_request {
    static bool start(int descriptor) noexcept {
        core_context* core = this_core;
        if (!core || !core->host) return false;
        try {
            void* memory = core->pool->allocate(sizeof(detached_close), slab_kind::object);
            auto* self = new (memory) detached_close;
            self->completed = [](event_loop&, io_request& done, std::int32_t, std::uint32_t,
                                 bool) noexcept {
                context().pool->deallocate(&static_cast<detached_close&>(done),
                                           sizeof(detached_close), slab_kind::object);
            };
            io_uring_prep_close(self->sqe(), descriptor);
            try {
                core->host->loop.start(*self);
            } catch (...) {
                core->pool->deallocate(memory, sizeof(detached_close), slab_kind::object);
                throw;
            }
            return true;
        } catch (const std::bad_alloc&) {
            return false;
        }
    }
};

}  // namespace

// ---- open and close -----------------------------------------------------------------------------

opening::opening(std::string path, file::flags how, mode_t mode)
    : io_wait("open the file"), path_(std::move(path)) {
    using namespace file;
    const auto refuse_if = [this](bool wrong, const char* why) {
        if (wrong)
            throw configuration_error("configuration_error: open of " + path_ + " names " + why);
    };
    refuse_if(!(how & file::read) && !(how & file::write),
              "neither file::read nor file::write nor file::append");
    refuse_if(how & file::truncate && !(how & file::write), "file::truncate without file::write");
    refuse_if(how & exclusive && !(how & create), "file::exclusive without file::create");
    refuse_nul(path_, "open of");
    int native = O_CLOEXEC | (!(how & file::write) ? O_RDONLY
                              : how & file::read   ? O_RDWR
                                                   : O_WRONLY);
    constexpr std::pair<file::flags, int> others[] = {
        {append, O_APPEND},        {create, O_CREAT},  {exclusive, O_EXCL},
        {file::truncate, O_TRUNC}, {direct, O_DIRECT}, {file::sync, O_SYNC}};
    for (const auto& [flag, bit] : others)
        if (how & flag) native |= bit;
    io_uring_prep_openat(sqe(), AT_FDCWD, path_.c_str(), native, mode);
}

bool opening::await_suspend(std::coroutine_handle<> awaiting) {
    return naming([this] { return deed_of(what_, path_); },
                  [&] { return io_wait::await_suspend(awaiting); });
}

file::handle opening::await_resume() {
    const int result =
        naming([this] { return deed_of(what_, path_); }, [this] { return finished(); });
    if (result < 0) throw_failed(-result, "open of " + path_);
    return {result, std::move(path_)};
}

closing::closing(file::handle& of) noexcept : io_wait("close the file"), of_(of) {}

bool closing::await_suspend(std::coroutine_handle<> awaiting) {
    core_context& core = on_a_loop(what_);  // not `enter`: allowed after a stop, too
    std::uint32_t uses = 0;
    if (!of_.uses_.compare_exchange_strong(uses, file::handle::closed, std::memory_order_acquire,
                                           std::memory_order_relaxed))
        throw_failed(uses & file::handle::closed ? EBADF : EBUSY, "close of " + name_of(of_));
    io_uring_prep_close(sqe(), of_.descriptor_);
    try {
        core.host->loop.start(*this);
    } catch (...) {
        of_.uses_.store(0, std::memory_order_release);  // pairs with the acquire of the next close
        throw;
    }
    // A stop does not end this wait: it would leave undecided whether the descriptor is open.
    suspend(core, awaiting, nullptr);
    return true;
}

void closing::await_resume() {
    of_.descriptor_ = -1;  // Linux frees the number even if close fails
    if (result_ < 0) throw_failed(-result_, "close of " + of_.path());
}

// ---- operations on an open file -----------------------------------------------------------------

bool file_wait::await_suspend(std::coroutine_handle<> awaiting) {
    sqe()->fd = of_.begin_use(verb_);
    try {
        return naming([this] { return deed_of(what_, of_.path()); },
                      [&] { return io_wait::await_suspend(awaiting); });
    } catch (...) {
        of_.end_use();
        throw;
    }
}

std::int32_t file_wait::ended() {
    of_.end_use();
    const std::int32_t result =
        naming([this] { return deed_of(what_, of_.path()); }, [this] { return finished(); });
    if (result < 0) fail(-result);
    return result;
}

void file_wait::go_on(event_loop& loop, file_wait& self) noexcept {
    if (self.cancel_wanted)
        complete(loop, self, -ECANCELED, 0, true);
    else
        loop.start(self);  // reuses the ticket that has just become free
}

void file_wait::fail(int code) const { throw_failed(code, verb_ + (' ' + name_of(of_))); }

file_call::file_call(const file::handle& of, kind what, std::uint64_t offset,
                     std::uint64_t length) noexcept
    : file_wait(of,
                what == kind::allocate   ? "allocate room in the file"
                : what == kind::truncate ? "truncate the file"
                                         : "sync the file",
                what == kind::allocate   ? "allocation in"
                : what == kind::truncate ? "truncation of"
                                         : "sync of") {
    switch (what) {
        case kind::sync: io_uring_prep_fsync(sqe(), -1, 0); break;
        case kind::sync_data: io_uring_prep_fsync(sqe(), -1, IORING_FSYNC_DATASYNC); break;
        case kind::allocate:
            io_uring_prep_fallocate(sqe(), -1, 0, static_cast<off_t>(offset),
                                    static_cast<off_t>(length));
            break;
        case kind::truncate: io_uring_prep_rw(op_ftruncate, sqe(), -1, nullptr, 0, length); break;
    }
}

file_stat::file_stat(const file::handle& of) noexcept
    : file_wait(of, "look at the file", "stat of") {
    io_uring_prep_statx(sqe(), -1, "", AT_EMPTY_PATH, status_mask, &found_);
}

fs::status file_stat::await_resume() {
    static_cast<void>(ended());
    return status_from(found_);
}

// ---- reads and writes ---------------------------------------------------------------------------

transfer::transfer(const file::handle& of, direction to, extent much, std::uint64_t offset) noexcept
    : file_wait(of, to == direction::read ? "read from the file" : "write to the file",
                to == direction::read ? "read from" : "write to"),
      offset_(offset),
      direction_(to),
      extent_(much) {
    completed = &went_on;
}

transfer::transfer(const file::handle& of, direction to, extent much, const void* base,
                   std::size_t length, std::uint64_t offset, int registered) noexcept
    : transfer(of, to, much, offset) {
    registered_ = registered;
    one_ = {const_cast<void*>(base), length};
    count_ = 1;
    advance(0);
    ask();
}

transfer::transfer(const file::handle& of, direction to, extent much,
                   std::unique_ptr<iovec[]> pieces, std::size_t count,
                   std::uint64_t offset) noexcept
    : transfer(of, to, much, offset) {
    many_ = std::move(pieces);
    if (count != 0) rest_ = many_.get();
    count_ = count;
    advance(0);
    ask();
}

void transfer::ask() noexcept {
    const bool reads = direction_ == direction::read;
    const int descriptor = sqe()->fd;
    const std::size_t most = extent_ == extent::all ? piece_of_all : most_at_once;
    std::size_t pieces = 0;  // how many fit into one request
    for (std::size_t room = most;
         pieces < std::min(count_, most_pieces) && rest_[pieces].iov_len <= room; ++pieces)
        room -= rest_[pieces].iov_len;
    if (pieces > 1) {
        io_uring_prep_rw(reads ? IORING_OP_READV : IORING_OP_WRITEV, sqe(), descriptor, rest_,
                         static_cast<unsigned>(pieces), offset_);
    } else {
        const std::size_t length = count_ == 0 ? 0 : rest_->iov_len;
        io_uring_prep_rw(reads ? IORING_OP_READ : IORING_OP_WRITE, sqe(), descriptor,
                         rest_->iov_base, static_cast<unsigned>(std::min(length, most)), offset_);
    }
    if (registered_ >= 0) {
        sqe()->opcode = reads ? IORING_OP_READ_FIXED : IORING_OP_WRITE_FIXED;
        sqe()->buf_index = static_cast<std::uint16_t>(registered_);
    }
}

void transfer::advance(std::size_t moved) noexcept {
    moved_ += moved;
    if (offset_ != at_position) offset_ += moved;
    while (count_ != 0 && moved >= rest_->iov_len) {
        moved -= rest_->iov_len;
        if (--count_ != 0) ++rest_;
    }
    if (moved != 0)
        *rest_ = {static_cast<std::byte*>(rest_->iov_base) + moved, rest_->iov_len - moved};
}

void transfer::went_on(event_loop& loop, io_request& request, std::int32_t result,
                       std::uint32_t flags, bool last) noexcept {
    auto& self = static_cast<transfer&>(of(request));
    if (result > 0) self.advance(static_cast<std::size_t>(result));
    // EFAULT: the slot does not hold this buffer any more. See registered_buffer.cpp.
    const bool refused = result == -EFAULT && std::exchange(self.registered_, -1) >= 0;
    const bool unfinished = refused || result == -EINTR ||
                            (result > 0 && self.extent_ == extent::all && self.count_ != 0);
    if (!unfinished) {
        complete(loop, request, result, flags, last);
        return;
    }
    self.ask();
    go_on(loop, self);
}

std::size_t transfer::await_resume() {
    const std::int32_t result = ended();
    if (result == 0 && count_ != 0 && direction_ == direction::write)
        fail(EIO);  // the kernel wrote nothing and reported no error
    return moved_;
}

reading_whole::reading_whole(const file::handle& of) noexcept
    : file_wait(of, "read from the file", "read from") {
    completed = &went_on;
    io_uring_prep_statx(sqe(), -1, "", AT_EMPTY_PATH, STATX_SIZE, &status_);
}

bool reading_whole::ask() noexcept {
    try {
        if (came_ != 0 && came_ == bytes_.capacity()) bytes_.reserve(2 * came_);
        // One byte more than the expected size: the read that finds the end needs room, too.
        if (bytes_.capacity() == 0)
            bytes_.reserve(status_.stx_size != 0 ? status_.stx_size + 1 : first_guess);
        // Grows in steps: resize touches memory, and the kernel maps it only then.
        bytes_.resize(std::min(came_ + piece_of_all, bytes_.capacity()));
    } catch (const std::exception&) {  // bad_alloc, length_error
        out_of_memory_ = true;
        return false;
    }
    io_uring_prep_rw(IORING_OP_READ, sqe(), sqe()->fd, bytes_.data() + came_,
                     static_cast<unsigned>(bytes_.size() - came_), transfer::at_position);
    return true;
}

void reading_whole::went_on(event_loop& loop, io_request& request, std::int32_t result,
                            std::uint32_t flags, bool last) noexcept {
    auto& self = static_cast<reading_whole&>(of(request));
    if (result > 0) self.came_ += static_cast<std::size_t>(result);
    const bool unfinished = result > 0 || result == -EINTR || (result == 0 && !self.knows_size_);
    if (result == 0) self.knows_size_ = true;
    if (unfinished && self.ask())
        go_on(loop, self);
    else
        complete(loop, request, result, flags, last);
}

std::vector<std::byte> reading_whole::await_resume() {
    static_cast<void>(ended());
    if (out_of_memory_) throw std::bad_alloc();
    bytes_.resize(came_);
    return std::move(bytes_);
}

}  // namespace detail

// ---- handle -------------------------------------------------------------------------------------

namespace file {

using detail::transfer;
using direction = transfer::direction;
using extent = transfer::extent;

namespace {

/// For the kernel, an offset with all bits set means the file's position. This function replaces it
/// by the offset before, which the kernel rejects like every negative offset.
std::uint64_t real(std::uint64_t offset) noexcept {
    return std::min(offset, transfer::at_position - 1);
}

template <class Byte>
std::unique_ptr<iovec[]> copied(std::span<const std::span<Byte>> pieces) {
    auto copies = std::make_unique<iovec[]>(pieces.size());
    for (std::size_t i = 0; i < pieces.size(); ++i)
        copies[i] = {const_cast<std::byte*>(pieces[i].data()), pieces[i].size()};
    return copies;
}

transfer one(const handle& of, direction to, extent much, std::span<const std::byte> bytes,
             std::uint64_t offset) {
    return {of, to, much, bytes.data(), bytes.size(), offset};
}

template <class Byte>
transfer many(const handle& of, direction to, extent much, std::span<const std::span<Byte>> pieces,
              std::uint64_t offset) {
    return {of, to, much, copied(pieces), pieces.size(), offset};
}

}  // namespace

detail::opening open(std::string path, flags how, mode_t mode) {
    return {std::move(path), how, mode};
}

handle::handle(int descriptor, std::string path) noexcept
    : path_(std::move(path)), descriptor_(descriptor), uses_(descriptor < 0 ? closed : 0) {}

handle::handle(handle&& other) noexcept { take(other); }

handle& handle::operator=(handle&& other) noexcept {
    if (this == &other) return *this;
    check_unused("replaced");
    let_go();
    take(other);
    return *this;
}

handle::~handle() {
    check_unused("destroyed");
    let_go();
}

void handle::take(handle& other) noexcept {
    other.check_unused("moved");
    path_ = std::move(other.path_);
    other.path_.clear();
    descriptor_ = std::exchange(other.descriptor_, -1);
    uses_.store(other.uses_.exchange(closed, std::memory_order_relaxed), std::memory_order_relaxed);
}

void handle::let_go() noexcept {
    const int descriptor = std::exchange(descriptor_, -1);
    if (descriptor >= 0 && !detail::detached_close::start(descriptor)) ::close(descriptor);
}

void handle::check_unused(const char* deed) const noexcept {
    const std::uint32_t uses = uses_.load(std::memory_order_acquire);  // pairs with end_use
    if (uses == 0 || (uses == closed && descriptor_ < 0)) return;
    std::fprintf(stderr,
                 "tokengate: the handle of %s was %s while operations on it were in flight: let "
                 "the token that "
                 "owns it await them all first\n",
                 path_.c_str(), deed);
    std::terminate();
}

int handle::begin_use(const char* verb) const {
    if (uses_.fetch_add(1, std::memory_order_acquire) & closed) {
        uses_.fetch_sub(1, std::memory_order_relaxed);
        detail::throw_failed(EBADF, verb + (' ' + detail::name_of(*this)));
    }
    return descriptor_;
}

void handle::end_use() const noexcept {
    uses_.fetch_sub(1, std::memory_order_release);  // pairs with check_unused and closing
}

std::uint64_t handle::seek_in(std::int64_t offset, int whence) const {
    const off_t now = ::lseek(begin_use("seek in"), offset, whence);
    const int error = errno;
    end_use();
    if (now < 0) detail::throw_failed(error, "seek in " + detail::name_of(*this));
    return static_cast<std::uint64_t>(now);
}

std::uint64_t handle::seek(std::uint64_t position) {
    return seek_in(static_cast<std::int64_t>(position), SEEK_SET);
}
std::uint64_t handle::position() const { return seek_in(0, SEEK_CUR); }

transfer handle::read(std::span<std::byte> into) {
    return one(*this, direction::read, extent::some, into, transfer::at_position);
}
transfer handle::read(read_pieces into) {
    return many(*this, direction::read, extent::some, into, transfer::at_position);
}
transfer handle::read_at(std::span<std::byte> into, std::uint64_t offset) const {
    return one(*this, direction::read, extent::some, into, real(offset));
}
transfer handle::read_at(read_pieces into, std::uint64_t offset) const {
    return many(*this, direction::read, extent::some, into, real(offset));
}
transfer handle::write(std::span<const std::byte> from) {
    return one(*this, direction::write, extent::some, from, transfer::at_position);
}
transfer handle::write(write_pieces from) {
    return many(*this, direction::write, extent::some, from, transfer::at_position);
}
transfer handle::write_at(std::span<const std::byte> from, std::uint64_t offset) {
    return one(*this, direction::write, extent::some, from, real(offset));
}
transfer handle::write_at(write_pieces from, std::uint64_t offset) {
    return many(*this, direction::write, extent::some, from, real(offset));
}

transfer handle::read_at(const registered_buffer& into, std::uint64_t offset,
                         std::size_t length) const {
    return {*this,
            direction::read,
            extent::some,
            into.bytes().data(),
            std::min(length, into.bytes().size()),
            real(offset),
            into.slot_here()};
}
transfer handle::write_at(const registered_buffer& from, std::uint64_t offset, std::size_t length) {
    return {*this,
            direction::write,
            extent::some,
            from.bytes().data(),
            std::min(length, from.bytes().size()),
            real(offset),
            from.slot_here()};
}

transfer handle::read_all(std::span<std::byte> into) {
    return one(*this, direction::read, extent::all, into, transfer::at_position);
}
transfer handle::read_all(read_pieces into) {
    return many(*this, direction::read, extent::all, into, transfer::at_position);
}
transfer handle::read_all_at(std::span<std::byte> into, std::uint64_t offset) const {
    return one(*this, direction::read, extent::all, into, real(offset));
}
transfer handle::read_all_at(read_pieces into, std::uint64_t offset) const {
    return many(*this, direction::read, extent::all, into, real(offset));
}
transfer handle::write_all(std::span<const std::byte> from) {
    return one(*this, direction::write, extent::all, from, transfer::at_position);
}
transfer handle::write_all(write_pieces from) {
    return many(*this, direction::write, extent::all, from, transfer::at_position);
}
transfer handle::write_all_at(std::span<const std::byte> from, std::uint64_t offset) {
    return one(*this, direction::write, extent::all, from, real(offset));
}
transfer handle::write_all_at(write_pieces from, std::uint64_t offset) {
    return many(*this, direction::write, extent::all, from, real(offset));
}

detail::reading_whole handle::read_all() { return detail::reading_whole(*this); }

using call = detail::file_call;

call handle::sync() { return {*this, call::kind::sync, 0, 0}; }
call handle::sync_data() { return {*this, call::kind::sync_data, 0, 0}; }
call handle::allocate(std::uint64_t offset, std::uint64_t length) {
    return {*this, call::kind::allocate, offset, length};
}
task<> handle::truncate(std::uint64_t size) {
    try {
        co_await call(*this, call::kind::truncate, 0, size);
        co_return;
    } catch (const std::system_error& refused) {
        // EINVAL may mean that the kernel is older than 6.9.
        if (refused.code().value() != EINVAL) throw;
    }
    struct use {
        const handle& of;
        const int descriptor = of.begin_use("truncation of");
        ~use() { of.end_use(); }
    } const here{*this};
    const auto cut = [descriptor = here.descriptor, size] {
        return ::ftruncate(descriptor, static_cast<off_t>(size)) == 0 ? 0 : errno;
    };
    const int error = co_await blocking(cut);
    if (error != 0) detail::throw_failed(error, "truncation of " + path_);
}
detail::file_stat handle::stat() const { return detail::file_stat(*this); }
detail::closing handle::close() { return detail::closing(*this); }

}  // namespace file

}  // namespace tokengate
