// SPDX-License-Identifier: MIT

// The SHA-256 of a file, or of every file under a directory, as `sha256sum` prints them, sorted by
// path:
//
//     checksum /usr/include > sums && sha256sum --check --quiet sums
//
// One token digests each file. The size of a file selects its storage tier: many small files but
// few large ones are open at a time, and never more than there are descriptors. The router spreads
// the tokens over the cores. A token occupies no core while it waits for a read.

#include "support/command_line.hpp"
#include "support/descriptor_limit.hpp"

#include <tokengate/tokengate.hpp>

#include <openssl/evp.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;

namespace {

// ---- one file -----------------------------------------------------------------------------------

class sha256 {
public:
    sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
        if (!context_ || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1)
            throw std::runtime_error("libcrypto has no SHA-256");
    }
    void add(std::span<const std::byte> bytes) {
        EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size());
    }
    std::string hex() {
        std::array<unsigned char, 32> digest{};
        EVP_DigestFinal_ex(context_.get(), digest.data(), nullptr);
        std::string text;
        for (const unsigned char byte : digest) {
            text += "0123456789abcdef"[byte >> 4];
            text += "0123456789abcdef"[byte & 15];
        }
        return text;
    }

private:
    std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context_;
};

std::atomic<std::uint64_t> bytes_read{0};  // relaxed: only the progress bar reads it

tg::task<std::string> digest_of(std::string path) {
    tg::file::handle file = co_await tg::file::open(path, tg::file::read);
    sha256 digest;
    std::vector<std::byte> buffer(256 * 1024);
    for (;;) {
        const std::size_t came = co_await file.read(buffer);
        if (came == 0) break;
        digest.add(std::span(buffer).first(came));
        bytes_read.fetch_add(came, std::memory_order_relaxed);
    }
    co_await file.close();  // closed before the token's permit admits the next file of the tier
    co_return digest.hex();
}

const tg::operation small{
    {.name = "small", .weight = tg::weight::heavy, .storage = tg::storage::insane}, digest_of};
const tg::operation medium{
    {.name = "medium", .weight = tg::weight::heavy, .storage = tg::storage::fast}, digest_of};
const tg::operation large{
    {.name = "large", .weight = tg::weight::heavy, .storage = tg::storage::moderate}, digest_of};
const tg::operation huge{
    {.name = "huge", .weight = tg::weight::heavy, .storage = tg::storage::slow}, digest_of};

struct tier {
    const char* name;
    std::uint64_t below;  // bytes
    tg::token<std::string> (*digest)(std::string path);
    unsigned files = 0;
};

std::array<tier, 4> tiers{{
    {"insane", 64 * 1024, [](std::string path) { return small(std::move(path)); }},
    {"fast", 1024 * 1024, [](std::string path) { return medium(std::move(path)); }},
    {"moderate", 64 * 1024 * 1024, [](std::string path) { return large(std::move(path)); }},
    {"slow", ~std::uint64_t{0}, [](std::string path) { return huge(std::move(path)); }},
}};

// ---- all files ----------------------------------------------------------------------------------

struct found_file {
    std::string path;
    std::uint64_t size;
};

struct line {
    std::string digest;  // empty: failed, and stderr has the reason
    std::string path;
};

struct progress {
    std::uint64_t bytes = 0;
    std::size_t files = 0, done = 0, failed = 0;
};

void complain(progress& of, const std::exception& error) {
    ++of.failed;
    std::fprintf(stderr, "checksum: %s\n", error.what());
}

/// The regular files under `root`, as `find -type f` lists them. It does not follow links.
tg::task<std::vector<found_file>> files_under(std::string root, progress& so_far) {
    std::vector<found_file> files;
    std::vector<std::string> directories;
    const tg::fs::status given = co_await tg::fs::stat(root);
    if (given.type == tg::fs::type::directory)
        directories.push_back(root);
    else
        files.push_back({root, given.size});
    while (!directories.empty()) {
        const std::string directory = std::move(directories.back());
        directories.pop_back();
        std::vector<tg::fs::entry> entries;
        try {
            entries = co_await tg::fs::list_directory(directory);
        } catch (const std::system_error& error) {
            complain(so_far, error);
        }
        for (const tg::fs::entry& entry : entries) {
            std::string path = directory + (directory.ends_with('/') ? "" : "/") + entry.name;
            try {
                const tg::fs::status status = co_await tg::fs::stat_link(path);
                if (status.type == tg::fs::type::directory)
                    directories.push_back(std::move(path));
                else if (status.type == tg::fs::type::regular)
                    files.push_back({std::move(path), status.size});
            } catch (const std::system_error& error) {
                complain(so_far, error);
            }
        }
    }
    std::sort(files.begin(), files.end(),
              [](const auto& a, const auto& b) { return a.path < b.path; });
    co_return files;
}

tg::task<> digest_into(line& result, progress& so_far, tg::token<std::string> digest) {
    try {
        result.digest = co_await digest;
    } catch (const std::system_error& error) {
        complain(so_far, error);
    }
    ++so_far.done;
}

/// Shows progress on stderr, if that is a terminal, until its stop is requested.
tg::task<> show(const progress& so_far) {
    constexpr unsigned width = 40;
    const bool terminal = isatty(STDERR_FILENO) == 1;
    while (terminal && !tg::this_token::stop_requested()) {
        const std::uint64_t read = bytes_read.load(std::memory_order_relaxed);
        const auto filled = static_cast<unsigned>(
            so_far.bytes == 0 ? 0 : width * std::min(read, so_far.bytes) / so_far.bytes);
        std::fprintf(stderr, "\r[%s%s] %zu/%zu files, %llu MiB\033[K",
                     std::string(filled, '#').c_str(), std::string(width - filled, ' ').c_str(),
                     so_far.done, so_far.files, static_cast<unsigned long long>(read >> 20));
        try {
            co_await tg::sleep_for(100ms);
        } catch (const tg::token_stopped&) {
            std::fprintf(stderr, "\r\033[K");
        }
    }
}

/// The output line, as sha256sum writes it: a name with a backslash or a line's end is escaped, and
/// then the line begins with a backslash.
std::string escaped(const line& of) {
    std::string name;
    for (const char c : of.path)
        name += c == '\\' ? "\\\\" : c == '\n' ? "\\n" : c == '\r' ? "\\r" : std::string(1, c);
    return (name.size() != of.path.size() ? "\\" : "") + of.digest + "  " + name + "\n";
}

tg::task<> digest_all(std::vector<found_file>& files, std::vector<line>& lines, progress& so_far) {
    // The scope's limit makes this loop wait. It allows enough tokens to keep every tier busy.
    const auto body = [](tg::scope& running, std::vector<found_file>& todo, std::vector<line>& into,
                         progress& noted) -> tg::task<> {
        for (std::size_t i = 0; i < todo.size(); ++i) {
            tier& of = *std::find_if(tiers.begin(), tiers.end(),
                                     [&](const tier& each) { return todo[i].size < each.below; });
            ++of.files;
            into[i].path = todo[i].path;
            co_await running.spawn(digest_into(into[i], noted, of.digest(std::move(todo[i].path))));
        }
    };
    const auto bound = [&](tg::scope& running) { return body(running, files, lines, so_far); };
    co_await tg::with_scope(tg::scope_options{.limit = 1000}, bound);
}

tg::task<int> checksum(std::string root) {
    progress so_far;
    std::vector<found_file> files = co_await files_under(std::move(root), so_far);
    for (const found_file& each : files) so_far.bytes += each.size;
    so_far.files = files.size();
    std::vector<line> lines(files.size());
    const auto body = [](tg::scope& together, std::vector<found_file>& todo,
                         std::vector<line>& into, progress& noted) -> tg::task<> {
        co_await together.spawn(show(noted));
        co_await digest_all(todo, into, noted);
        together.request_stop();  // ends the progress bar
    };
    const auto bound = [&](tg::scope& together) { return body(together, files, lines, so_far); };
    co_await tg::with_scope(bound);

    for (const line& each : lines)
        if (!each.digest.empty()) std::fputs(escaped(each).c_str(), stdout);
    std::fprintf(stderr, "checksum: %zu files:", files.size());
    for (const tier& each : tiers) std::fprintf(stderr, " %u %s", each.files, each.name);
    std::fprintf(stderr, "\n");
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
        std::fprintf(stderr, "checksum: write error\n");
        co_return 1;
    }
    co_return so_far.failed == 0 ? 0 : 1;
}

/// Divides the files that may be open among the tiers; no tier gets more than its usual limit.
tg::storage_limits tiers_within(unsigned files) {
    constexpr tg::storage_limits usual;
    constexpr int all = usual.slow + usual.moderate + usual.fast + usual.insane;
    const auto share = [files](int limit) {
        return std::clamp(
            static_cast<int>(std::uint64_t{files} * static_cast<unsigned>(limit) / all), 1, limit);
    };
    return {share(usual.slow), share(usual.moderate), share(usual.fast), share(usual.insane)};
}

}  // namespace

int main(int argc, char** argv) {
    support::command_line line(
        argc, argv, "checksum",
        "The SHA-256 of every file under a directory, as sha256sum prints it.");
    const auto cores = line.cores();
    const std::string root = line.operand("PATH", "a file or a directory");
    line.finish();
    try {
        // A third of the descriptors is for files. The runtime needs two for each core.
        tg::runtime runtime{
            {.cores = cores, .storage = tiers_within(support::raise_descriptor_limit() / 3)}};
        return runtime.run(checksum(root));
    } catch (const std::exception& error) {
        std::fprintf(stderr, "checksum: %s\n", error.what());
        return 1;
    }
}
