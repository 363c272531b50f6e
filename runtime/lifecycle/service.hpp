// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/token_record.hpp>
#include <tokengate/task.hpp>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

/// A background coroutine of a runtime, on its control loop, that does not keep the runtime alive.
///
///     service console(core, [this] { return serve(); }, "console");
///
/// While `run` or `start` hosts the control loop, one instance runs there; each hosting starts a
/// new one. The instance is a token, which `tokens()` lists by the service's name. A stop of the
/// whole runtime does not apply to it. When all other tokens have ended, the control loop requests
/// its stop, and returns only when the instance has ended. So an instance must end soon after the
/// request. A service may be added and removed at any time. If an instance throws, it ends with a
/// warning, and the next hosting starts it again.
///
/// A service should await single waits and tasks only: a token that it makes is an ordinary one,
/// and keeps the runtime alive.
///
/// Thread safety: made and destroyed on any thread. The destructor stops the instance and waits
/// until it has ended. On a thread of the runtime, which must not wait, it only requests the stop.
/// So what `make` holds must outlive the service (a shared_ptr). The control loop calls `make`
/// under a lock: `make` creates the coroutine and does no more. The name must be a literal. A
/// service must not outlive the runtime.

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

    struct node : waiter {  // notified when the instance has ended
        runtime_core* of = nullptr;
        std::function<task<>()> make;
        const operation_record* operation = nullptr;
        // Guarded by the desk's mutex.
        token_record* token = nullptr;  // of the instance, from its start to its end
        bool asked = false;             // the instance's stop has been requested
        bool removed = false;
        bool done = false;  // an instance was started under this hosting
    };

    std::shared_ptr<node>
        node_;  // the desk shares it until it is removed and its instance has ended
};

/// The services of a runtime. life_cycle.cpp says when they start and end.
class service_desk {
public:
    explicit service_desk(runtime_core& of) noexcept;

    /// Called on the control loop's thread when the loop begins to serve.
    void open();
    /// Called on the control loop's thread when all other tokens have ended. Requests the
    /// instances' stop; true if there are none.
    [[nodiscard]] bool close() noexcept;

    // Called on any thread.
    void add(std::shared_ptr<service::node> made);
    void remove(service::node& leaving) noexcept;

private:
    struct update_hook : hook {
        service_desk* of;
        bool under_way = false;  // guarded by the mutex
    };

    void request_update() noexcept;  // called under the mutex
    void update() noexcept;
    void start(service::node& chosen);
    void ended(token_record& token, service::node& of) noexcept;
    /// Called under the mutex.
    std::shared_ptr<service::node> forget(const service::node& gone) noexcept;

    runtime_core& of_;
    /// Guards the members below and the nodes. No thread takes it while it holds another mutex.
    std::mutex mutex_;
    std::condition_variable left_;  // notified when an instance has ended
    std::vector<std::shared_ptr<service::node>> all_;
    bool open_ = false;  // the control loop serves and does not wait for its end
    update_hook update_;
};

/// The operation of a service's tokens. It is never destroyed.
const operation_record& service_operation(const char* name);

[[nodiscard]] inline bool is_service(const operation_record& operation) noexcept {
    return (operation.flags & exempt) != 0;  // no operation of a user has this flag
}

/// Called on the control loop: runs `work` there as a token that no token awaits and to which no
/// selection of a gate control applies.
void run_detached(task<> work, const char* name);

/// Access to a runtime's core, for components of the library that use services.
struct runtime_access {
    static runtime_core& core(runtime& of) noexcept;
};

}  // namespace tokengate::detail
