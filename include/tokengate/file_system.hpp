// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/io_wait.hpp>
#include <tokengate/task.hpp>

#include <sys/stat.h>
#include <sys/types.h>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

/// What there is of files beside their contents: names, directories, status.
///
///     co_await tg::fs::make_directory("/data/new");
///     co_await tg::fs::rename("/data/new", "/data/current");
///     const tg::fs::status found = co_await tg::fs::stat("/data/current/index");
///     for (const tg::fs::entry& each : co_await tg::fs::list_directory("/data/current")) use(each.name);
///
/// Nothing blocks the loop: the kernel is asked through the ring, and by a thread of the blocking pool where it has no such
/// operation (list_directory). Paths are copied, relative ones are looked up in the working directory. Await them anywhere.
/// Errors: std::system_error whose code() is the errno, in std::system_category, and whose what() says which operation on
/// which path; token_stopped (a change that the kernel had made by then is made: then there is no error); wrong_thread.

namespace tokengate::fs {

enum class type : std::uint8_t {
    unknown,
    regular,
    directory,
    symlink,
    block,
    character,
    fifo,
    socket
};

using time = std::chrono::sys_time<std::chrono::nanoseconds>;

struct status {
    fs::type type = fs::type::unknown;
    mode_t permissions = 0;  ///< the lowest twelve bits of the mode
    uid_t owner = 0;
    gid_t group = 0;
    std::uint64_t size = 0;
    std::uint64_t allocated = 0;  ///< bytes on the device; less than `size` where there are holes
    std::uint64_t links = 0;
    std::uint64_t inode = 0;
    dev_t device = 0;
    fs::time accessed{}, modified{}, changed{};
    fs::time created{};  ///< the epoch, where the file system does not keep it
};

struct entry {
    std::string name;
    fs::type type =
        fs::type::unknown;  ///< unknown where the file system does not say; a link is a symlink
};

}  // namespace tokengate::fs

namespace tokengate::detail {

/// A change of a name.
class path_change : public io_wait {
public:
    enum class kind : std::uint8_t {
        remove,
        remove_directory,
        rename,
        make_directory,
        link,
        symlink
    };

    path_change(kind what, std::string path, std::string to, mode_t mode);
    void await_resume();

private:
    std::string path_, to_;  // the kernel reads them until the last completion
    kind kind_;
};

class path_stat : public io_wait {
public:
    path_stat(std::string path, bool of_link);
    fs::status await_resume();

private:
    std::string path_;
    struct statx found_;
};

}  // namespace tokengate::detail

namespace tokengate::fs {

/// A name that is not a directory's. The file lives on while something has it open.
[[nodiscard]] detail::path_change remove(std::string path);
/// An empty one.
[[nodiscard]] detail::path_change remove_directory(std::string path);
/// Replaces what had the new name, atomically.
[[nodiscard]] detail::path_change rename(std::string from, std::string to);
[[nodiscard]] detail::path_change make_directory(std::string path, mode_t mode = 0777);
/// A further name for an existing file.
[[nodiscard]] detail::path_change link(std::string existing, std::string name);
/// `target` is stored as it is.
[[nodiscard]] detail::path_change symlink(std::string target, std::string name);

[[nodiscard]] detail::path_stat stat(std::string path);       ///< of what a symbolic link leads to
[[nodiscard]] detail::path_stat stat_link(std::string path);  ///< of the link itself

/// In no particular order; without "." and "..".
[[nodiscard]] task<std::vector<entry>> list_directory(std::string path);

}  // namespace tokengate::fs
