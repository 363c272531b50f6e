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

/// A thread that writes the console's answers: to look at a million tokens takes long, and the control loop has other
/// things to do. Not the runtime's pool for blocking calls: if the program has filled that with calls that hang, the console is the
/// place to see it.
///
///     std::string text = co_await writer.write(make);      // on a loop; the result of make, or its exception
///
/// One answer at a time, by one coroutine. A stop does not cut it short: `make` may refer to the awaiting frame.

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

    std::mutex mutex_;  // guards the two that follow
    job* next_ = nullptr;
    bool ending_ = false;
    std::condition_variable changed_;
    std::thread thread_;
};

}  // namespace tokengate::detail
