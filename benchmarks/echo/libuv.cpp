// SPDX-License-Identifier: MIT

/// libuv: callbacks on one loop, a buffer a connection; a connection that cannot write at once does not read
/// meanwhile.

#include "../support/tcp.hpp"
#include "problem.hpp"

#include <fcntl.h>
#include <uv.h>

#include <array>
#include <cstdint>
#include <memory>
#include <stdexcept>

namespace {

void check(int result) {
    if (result < 0) throw std::runtime_error(uv_strerror(result));
}

class uv_echo {
public:
    struct counts {
        std::uint64_t connections = 0;
    };

    explicit uv_echo(int listener) {
        check(uv_loop_init(&loop_));
        check(uv_async_init(&loop_, &stop_,
                            [](uv_async_t* asked) { uv_walk(asked->loop, close_each, nullptr); }));
        check(uv_tcp_init(&loop_, &listening_));
        check(uv_tcp_open(&listening_, fcntl(listener, F_DUPFD_CLOEXEC, 0)));
        listening_.data = this;
        check(uv_listen(reinterpret_cast<uv_stream_t*>(&listening_), 4096, came));
    }
    uv_echo(const uv_echo&) = delete;
    uv_echo& operator=(const uv_echo&) = delete;
    ~uv_echo() { uv_loop_close(&loop_); }

    void run() { uv_run(&loop_, UV_RUN_DEFAULT); }
    void stop() { uv_async_send(&stop_); }
    [[nodiscard]] const counts& figures() const noexcept { return counts_; }

private:
    struct connection {
        uv_tcp_t socket{};  // first: a handle's address is its connection's
        uv_write_t write{};
        std::array<char, 4096> buffer;
    };

    /// Connections are the TCP handles that know no owner.
    static void close_each(uv_handle_t* handle, void*) {
        if (uv_is_closing(handle)) return;
        uv_close(handle, handle->type == UV_TCP && !handle->data ? destroy : nullptr);
    }
    static void destroy(uv_handle_t* handle) { delete reinterpret_cast<connection*>(handle); }

    static void came(uv_stream_t* listening, int status) {
        check(status);
        auto made = std::make_unique<connection>();
        check(uv_tcp_init(listening->loop, &made->socket));
        auto* const stream = reinterpret_cast<uv_stream_t*>(&made.release()->socket);
        check(uv_accept(listening, stream));
        ++static_cast<uv_echo*>(listening->data)->counts_.connections;
        check(uv_read_start(stream, room, received));
    }
    static void room(uv_handle_t* of, std::size_t, uv_buf_t* into) {
        auto& buffer = reinterpret_cast<connection*>(of)->buffer;
        *into = uv_buf_init(buffer.data(), static_cast<unsigned>(buffer.size()));
    }
    static void received(uv_stream_t* stream, ssize_t length, const uv_buf_t* from) {
        if (length == 0) return;
        if (length < 0) return uv_close(reinterpret_cast<uv_handle_t*>(stream), destroy);
        const uv_buf_t reply = uv_buf_init(from->base, static_cast<unsigned>(length));
        check(uv_write(&reinterpret_cast<connection*>(stream)->write, stream, &reply, 1, sent));
        if (uv_stream_get_write_queue_size(stream) != 0) uv_read_stop(stream);
    }
    static void sent(uv_write_t* write, int status) {
        const auto* const handle = reinterpret_cast<uv_handle_t*>(write->handle);
        if (status == 0 && !uv_is_closing(handle) && !uv_is_active(handle))
            check(uv_read_start(write->handle, room, received));
    }

    uv_loop_t loop_{};
    uv_async_t stop_{};
    uv_tcp_t listening_{};
    counts counts_;
};

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    return contest::answer(asked, {{"callbacks", [&] { return echo::serve<uv_echo>(asked); }}});
}
