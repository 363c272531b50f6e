// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/event.hpp>
#include <tokengate/task.hpp>

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

/// A thread that writes the console's answers. A scan of a million tokens takes long and would
/// delay the control loop. The runtime's pool for blocking calls does not serve for it: if the
/// program has filled the pool with calls that hang, the console must still answer and show them.
///
///     std::string text = co_await writer.write(make);  // on a loop; make's result or exception
///
/// One coroutine awaits one answer at a time. A stop does not end the wait, because `make` may
/// refer to the awaiting frame.

namespace tokengate::detail {

class console_writer {
public:
    console_writer();
    ~console_writer();
    console_writer(const console_writer&) = delete;
    console_writer& operator=(const console_writer&) = delete;

    task<std::string> write(std::function<std::string()> make);

private:
    struct job {
        std::function<std::string()> make;
        std::string text{};
        std::exception_ptr error{};
        event done{};
    };

    void work() noexcept;

    std::mutex mutex_;  // guards next_ and ending_
    job* next_ = nullptr;
    bool ending_ = false;
    std::condition_variable changed_;
    std::thread thread_;
};

}  // namespace tokengate::detail
