// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/token_record.hpp>
#include <tokengate/task.hpp>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

/// Background coroutines of a runtime, on its control loop, that do not keep it alive.
///
///     service console(core, [this] { return serve(); }, "console");
///
/// While the control loop is hosted (`run` or `start`, each time anew) one instance runs there, as a token that `tokens()`
/// lists by the service's name. It hears of no stop of the whole runtime; when everything else has ended it is asked to
/// stop, and the loop leaves when it has ended, so it must end soon once asked. It may be added and removed at any time.
/// One that throws ends, with a warning, and comes back with the next hosting only.
///
/// What a service awaits are single waits and tasks: a token that it makes is one like others, and keeps the runtime alive.
///
/// Thread safety: made and destroyed on any thread. The destructor stops the instance and waits until it has ended; on a
/// thread of the runtime's own, which must not wait, it only asks, so that what `make` holds must outlive the service
/// (a shared_ptr). `make` is called on the control loop, under a lock: it makes the coroutine and does no more. The name
/// must be a literal.
/// Must not outlive the runtime.

namespace tokengate {
class runtime;
}

namespace tokengate::detail {

class executor;
struct runtime_core;

class service {
public:
    service(runtime_core& of, std::function<task<>()> make, const char* name);
    ~service();
    service(const service&) = delete;
    service& operator=(const service&) = delete;

private:
    friend class service_desk;

    struct node : waiter {  // hears of the instance's end
        runtime_core* of = nullptr;
        std::function<task<>()> make;
        const operation_record* operation = nullptr;
        // Under the desk's mutex.
        token_record* token = nullptr;  // of the instance, from its start to its end
        bool asked = false;             // the instance, to stop
        bool removed = false;
        bool done = false;  // it ran under this hosting
    };

    std::shared_ptr<node> node_;  // shared with the desk, until it is removed and has ended
};

/// The services of a runtime. life_cycle.cpp says how they fit in.
class service_desk {
public:
    explicit service_desk(runtime_core& of) noexcept;

    /// The control loop's thread: the loop has been lent a thread, and is to serve.
    void open();
    /// The control loop's thread: all else has ended. Asks the instances to stop, and says whether there are none.
    [[nodiscard]] bool close() noexcept;

    /// Any thread.
    void add(std::shared_ptr<service::node> made);
    void remove(service::node& leaving) noexcept;

private:
    struct update_hook : hook {
        service_desk* of;
        bool under_way = false;  // under the mutex
    };

    void request_update() noexcept;  // under the mutex
    void update() noexcept;
    void start(service::node& chosen);
    void ended(token_record& token, service::node& of) noexcept;
    std::shared_ptr<service::node> forget(const service::node& gone) noexcept;  // under the mutex

    runtime_core& of_;
    std::mutex mutex_;  // guards all that follows, and the nodes; taken by nobody who holds another
    std::condition_variable left_;  // notified when an instance has ended
    std::vector<std::shared_ptr<service::node>> all_;
    bool open_ = false;  // the loop serves, and is not about to leave
    update_hook update_;
};

/// What a service's tokens belong to; lives for ever.
const operation_record& service_operation(const char* name);

[[nodiscard]] inline bool is_service(const operation_record& operation) noexcept {
    return (operation.flags & exempt) != 0;  // which no operation of a user's starts with
}

/// On the control loop: runs a task there that nobody waits for, as a token that a selection of the gate's does not mean.
void run_detached(task<> work, const char* name);

/// For components of the library that are made of services.
struct runtime_access {
    static runtime_core& core(runtime& of) noexcept;
};

}  // namespace tokengate::detail
