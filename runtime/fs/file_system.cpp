// SPDX-License-Identifier: MIT
#include <tokengate/file_system.hpp>

#include "fs/support.hpp"

#include <tokengate/blocking.hpp>

#include <dirent.h>
#include <fcntl.h>
#include <liburing.h>
#include <sys/sysmacros.h>

#include <array>
#include <cerrno>
#include <memory>
#include <string_view>
#include <utility>

namespace tokengate {

namespace detail {

namespace {

fs::type type_of(mode_t mode) noexcept {
    switch (mode & S_IFMT) {
        case S_IFREG: return fs::type::regular;
        case S_IFDIR: return fs::type::directory;
        case S_IFLNK: return fs::type::symlink;
        case S_IFBLK: return fs::type::block;
        case S_IFCHR: return fs::type::character;
        case S_IFIFO: return fs::type::fifo;
        case S_IFSOCK: return fs::type::socket;
        default: return fs::type::unknown;
    }
}

fs::type type_of(const dirent& found) noexcept {
    return type_of(static_cast<mode_t>(DTTOIF(found.d_type)));
}

/// The entries of a directory. Blocks its thread.
std::vector<fs::entry> entries_of(const std::string& path) {
    const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(path.c_str()), &::closedir);
    if (!directory) throw_failed(errno, "listing of directory " + path);
    std::vector<fs::entry> all;
    for (errno = 0; const dirent* found = ::readdir(directory.get()); errno = 0) {
        const std::string_view name = found->d_name;
        if (name != "." && name != "..") all.push_back({std::string(name), type_of(*found)});
    }
    if (errno != 0) throw_failed(errno, "listing of directory " + path);
    return all;
}

fs::time time_from(const statx_timestamp& stamp) noexcept {
    return fs::time(std::chrono::seconds(stamp.tv_sec) + std::chrono::nanoseconds(stamp.tv_nsec));
}

struct change_text {
    const char* what;  // completes "it did not"
    const char* verb;  // completes "… /the/path failed"
};

const change_text& text_of(path_change::kind kind) noexcept {
    static constexpr std::array<change_text, 6> texts{
        {{"remove a file", "removal of"},
         {"remove a directory", "removal of directory"},
         {"rename a file", "rename of"},
         {"make a directory", "making of directory"},
         {"link a file", "link of"},
         {"make a symbolic link", "symbolic link to"}}};
    return texts[static_cast<std::size_t>(kind)];
}

}  // namespace

fs::status status_from(const struct statx& found) noexcept {
    return {.type = type_of(found.stx_mode),
            .permissions = found.stx_mode & 07777U,
            .owner = found.stx_uid,
            .group = found.stx_gid,
            .size = found.stx_size,
            .allocated = found.stx_blocks * 512,
            .links = found.stx_nlink,
            .inode = found.stx_ino,
            .device = makedev(found.stx_dev_major, found.stx_dev_minor),
            .accessed = time_from(found.stx_atime),
            .modified = time_from(found.stx_mtime),
            .changed = time_from(found.stx_ctime),
            .created = found.stx_mask & STATX_BTIME ? time_from(found.stx_btime) : fs::time{}};
}

path_change::path_change(kind what, std::string path, std::string to, mode_t mode)
    : io_wait(text_of(what).what), path_(std::move(path)), to_(std::move(to)), kind_(what) {
    refuse_nul(path_, text_of(what).verb);
    refuse_nul(to_, text_of(what).verb);
    const char* from = path_.c_str();
    switch (what) {
        case kind::remove: io_uring_prep_unlinkat(sqe(), AT_FDCWD, from, 0); break;
        case kind::remove_directory:
            io_uring_prep_unlinkat(sqe(), AT_FDCWD, from, AT_REMOVEDIR);
            break;
        case kind::rename:
            io_uring_prep_renameat(sqe(), AT_FDCWD, from, AT_FDCWD, to_.c_str(), 0);
            break;
        case kind::make_directory: io_uring_prep_mkdirat(sqe(), AT_FDCWD, from, mode); break;
        case kind::link:
            io_uring_prep_linkat(sqe(), AT_FDCWD, from, AT_FDCWD, to_.c_str(), 0);
            break;
        case kind::symlink: io_uring_prep_symlinkat(sqe(), from, AT_FDCWD, to_.c_str()); break;
    }
}

void path_change::await_resume() {
    if (const int result = finished(); result < 0) {
        std::string deed = text_of(kind_).verb + (' ' + path_);
        if (!to_.empty()) deed += (kind_ == kind::rename ? " to " : " as ") + to_;
        throw_failed(-result, deed);
    }
}

path_stat::path_stat(std::string path, bool of_link)
    : io_wait("look at a file"), path_(std::move(path)) {
    refuse_nul(path_, "stat of");
    io_uring_prep_statx(sqe(), AT_FDCWD, path_.c_str(), of_link ? AT_SYMLINK_NOFOLLOW : 0,
                        status_mask, &found_);
}

fs::status path_stat::await_resume() {
    if (const int result = finished(); result < 0) throw_failed(-result, "stat of " + path_);
    return status_from(found_);
}

}  // namespace detail

namespace fs {

using detail::path_change;
using kind = path_change::kind;

path_change remove(std::string path) { return {kind::remove, std::move(path), {}, 0}; }
path_change remove_directory(std::string path) {
    return {kind::remove_directory, std::move(path), {}, 0};
}
path_change rename(std::string from, std::string to) {
    return {kind::rename, std::move(from), std::move(to), 0};
}
path_change make_directory(std::string path, mode_t mode) {
    return {kind::make_directory, std::move(path), {}, mode};
}
path_change link(std::string existing, std::string name) {
    return {kind::link, std::move(existing), std::move(name), 0};
}
path_change symlink(std::string target, std::string name) {
    return {kind::symlink, std::move(target), std::move(name), 0};
}

detail::path_stat stat(std::string path) { return {std::move(path), false}; }
detail::path_stat stat_link(std::string path) { return {std::move(path), true}; }

task<std::vector<entry>> list_directory(std::string path) {
    detail::refuse_nul(path, "listing of directory");
    const auto list = [&path] { return detail::entries_of(path); };
    co_return co_await blocking(list);
}

}  // namespace fs

}  // namespace tokengate
