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

/// Operations on the names, directories and status of files. No operation blocks the loop. The
/// kernel does it through the ring; if the kernel has no such operation (list_directory), a thread
/// of the blocking pool does it. Paths are copied. Relative paths start at the working directory.
///
///     co_await tg::fs::make_directory("/data/new");
///     co_await tg::fs::rename("/data/new", "/data/current");
///     const tg::fs::status found = co_await tg::fs::stat("/data/current/index");
///     for (const tg::fs::entry& each : co_await tg::fs::list_directory("/data/current"))
///         use(each.name);
///
/// Thread safety: They may be awaited on any loop.
///
/// Errors: std::system_error; code() is the errno in std::system_category, and what() names the
/// operation and the path. token_stopped if the token is asked to stop; wrong_thread where no event
/// loop runs. list_directory also throws what tg::blocking throws.
///
/// Stop: A stop ends the wait with token_stopped. If the kernel has made a change by then, the
/// change stays made, and the operation succeeds. list_directory follows the rules of tg::blocking.

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
    std::uint64_t allocated = 0;  ///< bytes on the device; less than `size` if there are holes
    std::uint64_t links = 0;
    std::uint64_t inode = 0;
    dev_t device = 0;
    fs::time accessed{}, modified{}, changed{};
    fs::time created{};  ///< the epoch, if the file system does not store it
};

struct entry {
    std::string name;
    /// unknown, if the file system does not report it; the type of a link is symlink.
    fs::type type = fs::type::unknown;
};

}  // namespace tokengate::fs

namespace tokengate::detail {

/// An operation that changes a name.
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

/// Removes a name that is not a directory's. The file stays while a descriptor has it open.
[[nodiscard]] detail::path_change remove(std::string path);
/// Removes an empty directory.
[[nodiscard]] detail::path_change remove_directory(std::string path);
/// Renames a file or a directory. If the new name exists, its file is replaced atomically.
[[nodiscard]] detail::path_change rename(std::string from, std::string to);
[[nodiscard]] detail::path_change make_directory(std::string path, mode_t mode = 0777);
/// Makes a further name for an existing file.
[[nodiscard]] detail::path_change link(std::string existing, std::string name);
/// Makes a symbolic link; `target` is stored unchanged.
[[nodiscard]] detail::path_change symlink(std::string target, std::string name);

[[nodiscard]] detail::path_stat stat(std::string path);       ///< follows a symbolic link
[[nodiscard]] detail::path_stat stat_link(std::string path);  ///< of the link itself

/// Lists a directory, in no particular order, without "." and "..".
[[nodiscard]] task<std::vector<entry>> list_directory(std::string path);

}  // namespace tokengate::fs
