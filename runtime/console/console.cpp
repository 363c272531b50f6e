// SPDX-License-Identifier: MIT

// The console's server: libmicrohttpd without threads of its own. A service on the control loop
// runs it and waits for its epoll descriptor.
//
// The library's callback answers a control, an invalid request or one for the page at once. It
// suspends a request for a document until the writer's thread has written the document. Requests
// for the same document that are suspended at that time share it. So at most one document is being
// written at any time.
//
// The library must not be stopped while a request is suspended. So the service resumes all
// suspended requests, with an answer or an error, before it waits for anything else and before it
// ends.
//
// The library closes a connection that is idle for the timeout, but every byte restarts that
// timeout. So the service itself finds connections that have sent no whole request for too long. It
// shuts their sockets down, and the library then closes the connections.

#include <tokengate/console.hpp>

#include "base/quoted.hpp"
#include "json.hpp"
#include "lifecycle/runtime_core.hpp"
#include "lifecycle/service.hpp"
#include "token/operations.hpp"
#include "writer.hpp"

#include <tokengate/detail/unique_fd.hpp>
#include <tokengate/endpoint.hpp>
#include <tokengate/error.hpp>
#include <tokengate/readable.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/time.hpp>

#include <microhttpd.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <exception>
#include <iterator>
#include <list>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace tokengate::detail {

extern const std::string_view console_page;

namespace {

constexpr std::size_t largest_body = 4096;
// A body up to this size is received to its end, so that the client reads why it was rejected.
constexpr std::size_t largest_ignored_body = 65536;
// The head of a request takes what it needs from this.
constexpr std::size_t connection_memory = 32768;
constexpr int waiting_to_be_accepted = 1024;
constexpr std::size_t shortest_token = 16;

using response = std::shared_ptr<MHD_Response>;
using token_digest = std::array<unsigned char, 32>;

token_digest digest_of(std::string_view text) {
    token_digest digest;
    if (EVP_Digest(text.data(), text.size(), digest.data(), nullptr, EVP_sha256(), nullptr) != 1)
        throw std::runtime_error("console: libcrypto computes no SHA-256");
    return digest;
}

/// A document that the writer's thread writes on request.
struct document {
    enum class kind : std::uint8_t { metrics, snapshot, tokens, trace };
    kind what = kind::snapshot;
    token_query tokens{};
    friend bool operator==(const document&, const document&) = default;
};

struct request {
    std::string body{};
    std::size_t received = 0;
    MHD_Connection* connection = nullptr;
    document wanted{};
    response answer{};  // set while the request is suspended
    unsigned status = MHD_HTTP_OK;
};

/// A connection, between the library's notifications of its beginning and its end.
struct visitor {
    int socket = -1;
    std::chrono::steady_clock::time_point since{};  // when it was put into the list `in`
    std::list<visitor>* in = nullptr;
    std::list<visitor>::iterator self{};
};

visitor* visitor_of(MHD_Connection* connection) {
    return static_cast<visitor*>(
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context);
}

constexpr const char* json_type = "application/json; charset=utf-8";

void add_header(MHD_Response& to, const char* name, const char* value) {
    if (MHD_add_response_header(&to, name, value) != MHD_YES) throw std::bad_alloc();
}

response make_response(MHD_Response* made, const char* type) {
    if (!made) throw std::bad_alloc();
    response all(made, MHD_destroy_response);
    add_header(*made, "Content-Type", type);
    add_header(*made, "Cache-Control", "no-store");
    add_header(*made, "X-Content-Type-Options", "nosniff");
    add_header(*made, "Referrer-Policy", "no-referrer");
    add_header(*made, "Content-Security-Policy",
               "default-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; "
               "form-action 'none'; "
               "frame-ancestors 'none'");
    return all;
}

/// The response takes ownership of the text.
response text_response(std::string text, const char* type) {
    auto* kept = new std::string(std::move(text));
    MHD_Response* made = MHD_create_response_from_buffer_with_free_callback_cls(
        kept->size(), kept->data(), [](void* of) { delete static_cast<std::string*>(of); }, kept);
    if (!made) delete kept;
    return make_response(made, type);
}

response error_response(std::string_view error) {
    return text_response(error_json(error), json_type);
}

unique_fd listen_at(const endpoint& at) {
    unique_fd made(::socket(at.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const int yes = 1;
    // Without it, a restart would have to wait for old connections.
    ::setsockopt(made.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (made.get() >= 0 && ::bind(made.get(), at.data(), at.size()) == 0 &&
        ::listen(made.get(), waiting_to_be_accepted) == 0)
        return made;
    const int code = errno;
    std::string text = "console: listen at (" + at.text() + ")";
    if (code == EADDRINUSE)
        text += ". Somebody listens there already: choose another port, or 0 for one that is free";
    if (code == EACCES) text += ". Ports below 1024 are for root: choose another";
    if (code == EADDRNOTAVAIL) text += ". This machine does not have that address";
    throw std::system_error(code, std::system_category(), text);
}

endpoint local_endpoint(int socket) {
    sockaddr_storage found{};
    socklen_t size = sizeof found;
    ::getsockname(socket, reinterpret_cast<sockaddr*>(&found), &size);
    return endpoint::from(reinterpret_cast<const sockaddr*>(&found), size);
}

void check(const console_options& options) {
    const auto bad = [](const std::string& text) {
        throw configuration_error("configuration_error: console_options." + text);
    };
    if (options.connections == 0) bad("connections is 0: at least 1");
    const std::chrono::nanoseconds idle = options.idle_timeout;
    if (idle < std::chrono::seconds(1) || idle > std::chrono::hours(24))
        bad("idle_timeout is below 1 s or above 24 h");
    if (!std::all_of(options.token.begin(), options.token.end(),
                     [](char c) { return c > ' ' && c <= '~'; }))
        bad("token has characters that no header carries: visible ASCII only, without a line's end "
            "or spaces");
    if (!options.token.empty() && options.token.size() < shortest_token)
        bad("token has " + std::to_string(options.token.size()) +
            " characters, which can be guessed: at least " + std::to_string(shortest_token));
}

}  // namespace

class console_server {
public:
    console_server(runtime& of, const console_options& options);
    ~console_server();

    console_server(const console_server&) = delete;
    console_server& operator=(const console_server&) = delete;

    task<> serve();
    [[nodiscard]] const endpoint& at() const noexcept { return at_; }

private:
    static MHD_Result heard(void* self, MHD_Connection* connection, const char* url,
                            const char* method, const char*, const char* data, std::size_t* size,
                            void** state) noexcept;
    static void connected(void* self, MHD_Connection* connection, void** context,
                          MHD_ConnectionNotificationCode what) noexcept;
    static void completed(void* self, MHD_Connection* connection, void** state,
                          MHD_RequestTerminationCode) noexcept;

    MHD_Result answer(request& asked, std::string_view url, std::string_view method);
    MHD_Result control(request& asked, std::string_view action);
    MHD_Result later(request& asked, document wanted);
    static MHD_Result reply(request& asked, unsigned status, const response& with);
    MHD_Result refuse_method(request& asked, const char* allowed);
    [[nodiscard]] bool authorized(MHD_Connection* connection) const;
    [[nodiscard]] static std::optional<token_query> tokens_wanted(MHD_Connection* connection,
                                                                  std::string& error);

    static void move(visitor& who, std::list<visitor>& to);
    void dismiss_slow();
    [[nodiscard]] std::optional<std::chrono::milliseconds> until_next_look() const;

    task<> answer_waiting();
    [[nodiscard]] std::string write(const document& wanted) const;

    runtime& of_;
    const std::chrono::steady_clock::time_point made_ = std::chrono::steady_clock::now();
    const bool has_token_;
    const token_digest token_;
    const std::chrono::seconds patience_;
    unique_fd listening_;
    const endpoint at_;
    response page_;
    std::vector<request*> waiting_;  // suspended requests; at most one a connection
    console_writer writer_;
    MHD_Daemon* daemon_ = nullptr;
    int epoll_ = -1;  // the daemon's
    /// Connections whose current request is not complete, those that have waited longest first.
    std::list<visitor> asking_;
    std::list<visitor> others_;   // all other connections
    bool somebody_left_ = false;  // a connection has ended since the daemon was last run
};

console_server::console_server(runtime& of, const console_options& options)
    : of_(of),
      has_token_(!options.token.empty()),
      token_(digest_of(options.token)),
      patience_(std::chrono::duration_cast<std::chrono::seconds>(
          std::chrono::nanoseconds(options.idle_timeout))),
      listening_(listen_at(endpoint(options.address, options.port))),
      at_(local_endpoint(listening_.get())) {
    // The page is part of the program, so the response refers to it without a copy.
    page_ = make_response(MHD_create_response_from_buffer(console_page.size(),
                                                          const_cast<char*>(console_page.data()),
                                                          MHD_RESPMEM_PERSISTENT),
                          "text/html; charset=utf-8");
    errno = 0;
    daemon_ = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, nullptr, nullptr, &heard, this,
        MHD_OPTION_LISTEN_SOCKET, listening_.get(),                               //
        MHD_OPTION_CONNECTION_LIMIT, options.connections,                         //
        MHD_OPTION_CONNECTION_TIMEOUT, static_cast<unsigned>(patience_.count()),  //
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, std::size_t{connection_memory},       //
        MHD_OPTION_STRICT_FOR_CLIENT, 1,                                          //
        MHD_OPTION_NOTIFY_COMPLETED, &completed, static_cast<void*>(this),        //
        MHD_OPTION_NOTIFY_CONNECTION, &connected, static_cast<void*>(this), MHD_OPTION_END);
    if (!daemon_)
        throw std::system_error(errno != 0 ? errno : ENOTSUP, std::system_category(),
                                "console: libmicrohttpd could not be started at (" + at_.text() +
                                    ")");
    static_cast<void>(listening_.release());  // the daemon closes it
    epoll_ = MHD_get_daemon_info(daemon_, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
}

console_server::~console_server() {
    if (daemon_) MHD_stop_daemon(daemon_);
}

// ---- the service --------------------------------------------------------------------------------

task<> console_server::serve() {
    for (;;) {
        somebody_left_ = false;
        if (MHD_run(daemon_) != MHD_YES) throw std::runtime_error("libmicrohttpd failed");
        dismiss_slow();  // after MHD_run, which has read all that has arrived
        if (!waiting_.empty()) {
            co_await answer_waiting();
            continue;
        }
        std::optional<std::chrono::milliseconds> wait = until_next_look();
        MHD_UNSIGNED_LONG_LONG timeout = 0;
        if (MHD_get_timeout(daemon_, &timeout) == MHD_YES) {
            const std::chrono::milliseconds its(timeout);
            wait = std::min(wait.value_or(its), its);
        }
        // If the daemon was at its limit of connections, it can accept again after one has ended.
        // But it polls the listening socket only from its next run on.
        if (somebody_left_) wait = std::chrono::milliseconds::zero();
        if (!wait) {
            co_await readable(epoll_);
        } else if (wait->count() == 0) {
            co_await yield();  // the daemon has more to do, and so have other tokens of this loop
        } else {
            try {
                co_await with_timeout(readable(epoll_), *wait);
            } catch (const token_timeout&) {
                // A connection has been idle, or its request incomplete, for too long.
            }
        }
    }
}

void console_server::dismiss_slow() {
    const auto now = std::chrono::steady_clock::now();
    while (!asking_.empty() && now - asking_.front().since >= patience_) {
        // Fails if the peer has gone. The library detects that, too.
        ::shutdown(asking_.front().socket, SHUT_RDWR);
        move(asking_.front(), others_);
    }
}

std::optional<std::chrono::milliseconds> console_server::until_next_look() const {
    if (asking_.empty()) return {};
    const auto left = asking_.front().since + patience_ - std::chrono::steady_clock::now();
    return std::max(std::chrono::ceil<std::chrono::milliseconds>(left),
                    std::chrono::milliseconds::zero());
}

task<> console_server::answer_waiting() {
    struct resumption {
        std::vector<request*> requests;
        ~resumption() {
            for (request* each : requests) MHD_resume_connection(each->connection);
        }
    } const all{std::exchange(waiting_, {})};
    const std::vector<request*>& now = all.requests;
    for (std::size_t i = 0; i < now.size(); ++i) {
        if (now[i]->answer) continue;  // shares the answer of an equal request
        response made;
        unsigned status = MHD_HTTP_OK;
        std::string excuse;
        try {
            std::function<std::string()> make = [this, wanted = now[i]->wanted] {
                return write(wanted);
            };
            std::string text = co_await writer_.write(std::move(make));
            made = text_response(std::move(text), now[i]->wanted.what == document::kind::metrics
                                                      ? "text/plain; version=0.0.4; charset=utf-8"
                                                      : json_type);
        } catch (const std::exception& failed) {
            excuse = failed.what();
        }
        if (!made) {
            status = MHD_HTTP_INTERNAL_SERVER_ERROR;
            made = error_response(excuse);
        }
        for (std::size_t same = i; same < now.size(); ++same)
            if (now[same]->wanted == now[i]->wanted) {
                now[same]->answer = made;
                now[same]->status = status;
            }
    }
}

std::string console_server::write(const document& wanted) const {
    switch (wanted.what) {
        case document::kind::metrics: return of_.metrics();
        case document::kind::trace: return of_.trace();
        case document::kind::tokens: return tokens_json(of_.tokens(), wanted.tokens);
        case document::kind::snapshot: break;
    }
    using std::chrono::duration_cast;
    using std::chrono::milliseconds;
    const console_facts facts{
        duration_cast<milliseconds>(std::chrono::system_clock::now().time_since_epoch()),
        duration_cast<milliseconds>(std::chrono::steady_clock::now() - made_), has_token_};
    return snapshot_json(of_.snapshot(), of_.tokens(), facts);
}

// ---- requests -----------------------------------------------------------------------------------

MHD_Result console_server::heard(void* self, MHD_Connection* connection, const char* url,
                                 const char* method, const char*, const char* data,
                                 std::size_t* size, void** state) noexcept {
    try {
        visitor* const who = visitor_of(connection);
        if (!who) return MHD_NO;
        auto* asked = static_cast<request*>(*state);
        if (!asked) {
            *state = asked = new request;
            asked->connection = connection;
            return MHD_YES;
        }
        if (*size != 0) {
            // Rejected only when the whole body has arrived: a client that still sends may not read
            // the answer.
            asked->received += std::exchange(*size, 0);
            if (asked->received > largest_ignored_body) return MHD_NO;
            if (asked->received <= largest_body)
                asked->body.append(data, asked->received - asked->body.size());
            return MHD_YES;
        }
        auto& server = *static_cast<console_server*>(self);
        move(*who, server.others_);
        return server.answer(*asked, url, method);
    } catch (...) {
        return MHD_NO;  // no memory: the connection is closed
    }
}

void console_server::connected(void* self, MHD_Connection* connection, void** context,
                               MHD_ConnectionNotificationCode what) noexcept {
    auto& server = *static_cast<console_server*>(self);
    auto* who = static_cast<visitor*>(*context);
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        server.somebody_left_ = true;
        if (who) who->in->erase(who->self);
        return;
    }
    const int socket =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    try {
        who = &server.asking_.emplace_back();
        *who = {socket, std::chrono::steady_clock::now(), &server.asking_,
                std::prev(server.asking_.end())};
        *context = who;
    } catch (const std::bad_alloc&) {
        ::shutdown(socket, SHUT_RDWR);
    }
}

void console_server::completed(void* self, MHD_Connection* connection, void** state,
                               MHD_RequestTerminationCode) noexcept {
    delete static_cast<request*>(std::exchange(*state, nullptr));
    if (visitor* const who = visitor_of(connection))
        move(*who, static_cast<console_server*>(self)->asking_);
}

void console_server::move(visitor& who, std::list<visitor>& to) {
    to.splice(to.end(), *std::exchange(who.in, &to), who.self);
    who.since = std::chrono::steady_clock::now();
}

MHD_Result console_server::reply(request& asked, unsigned status, const response& with) {
    return MHD_queue_response(asked.connection, status, with.get());
}

MHD_Result console_server::refuse_method(request& asked, const char* allowed) {
    const response refused = error_response(std::string("this path takes ") + allowed);
    add_header(*refused, "Allow", allowed);
    return reply(asked, MHD_HTTP_METHOD_NOT_ALLOWED, refused);
}

MHD_Result console_server::later(request& asked, document wanted) {
    asked.wanted = std::move(wanted);
    waiting_.push_back(&asked);
    MHD_suspend_connection(asked.connection);
    return MHD_YES;
}

MHD_Result console_server::answer(request& asked, std::string_view url, std::string_view method) {
    using kind = document::kind;
    if (asked.answer) return reply(asked, asked.status, asked.answer);
    if (asked.received > largest_body)
        return reply(asked, MHD_HTTP_CONTENT_TOO_LARGE,
                     error_response("the body is larger than " + std::to_string(largest_body) +
                                    " bytes"));
    for (const std::string_view action : {"pause", "resume", "drain"})
        if (url.starts_with("/gate/") && url.substr(6) == action)
            return method == MHD_HTTP_METHOD_POST ? control(asked, action)
                                                  : refuse_method(asked, "POST");
    constexpr std::array<std::pair<std::string_view, kind>, 4> documents{
        {{"/metrics", kind::metrics},
         {"/snapshot.json", kind::snapshot},
         {"/tokens.json", kind::tokens},
         {"/trace.json", kind::trace}}};
    const auto found = std::find_if(documents.begin(), documents.end(),
                                    [&](const auto& each) { return each.first == url; });
    if (url != "/" && found == documents.end())
        return reply(asked, MHD_HTTP_NOT_FOUND, error_response("there is nothing here"));
    if (method != MHD_HTTP_METHOD_GET && method != MHD_HTTP_METHOD_HEAD)
        return refuse_method(asked, "GET, HEAD");
    if (url == "/") return reply(asked, MHD_HTTP_OK, page_);
    if (found->second != kind::tokens) return later(asked, {.what = found->second});
    std::string error;
    std::optional<token_query> wanted = tokens_wanted(asked.connection, error);
    if (!wanted) return reply(asked, MHD_HTTP_BAD_REQUEST, error_response(error));
    return later(asked, {.what = kind::tokens, .tokens = std::move(*wanted)});
}

std::optional<token_query> console_server::tokens_wanted(MHD_Connection* connection,
                                                         std::string& error) {
    const auto argument = [&](const char* name) {
        const char* value = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, name);
        return std::string_view(value ? value : "");
    };
    token_query wanted;
    wanted.operation = argument("operation");
    if (const std::string_view limit = argument("limit"); !limit.empty()) {
        const auto [end, code] =
            std::from_chars(limit.data(), limit.data() + limit.size(), wanted.limit);
        if (code != std::errc{} || end != limit.data() + limit.size() || wanted.limit == 0 ||
            wanted.limit > token_query::most) {
            error = "limit is a number from 1 to " + std::to_string(token_query::most);
            return {};
        }
    }
    if (const std::string_view state = argument("state"); !state.empty()) {
        const std::optional<token_state> known = living_state(state);
        if (!known) {
            error = "state is created, waiting, admitted or executing";
            return {};
        }
        wanted.state = *known;
    }
    return wanted;
}

// ---- controls -----------------------------------------------------------------------------------

namespace {

task<> drain(runtime& of, selection what) { co_await of.gate().drain(what); }

}  // namespace

bool console_server::authorized(MHD_Connection* connection) const {
    constexpr std::string_view scheme = "bearer ";
    const char* value = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Authorization");
    std::string_view given(value ? value : "");
    const bool is_bearer =
        given.size() > scheme.size() &&
        std::equal(scheme.begin(), scheme.end(), given.begin(), [](char a, char b) {
            return a == (b >= 'A' && b <= 'Z' ? static_cast<char>(b - 'A' + 'a') : b);
        });
    if (!is_bearer) return false;
    given.remove_prefix(scheme.size());
    // All digests have the same length, and CRYPTO_memcmp takes the same time for all. So the time
    // reveals neither the token's length nor a correct prefix.
    const token_digest digest = digest_of(given);
    return CRYPTO_memcmp(digest.data(), token_.data(), digest.size()) == 0;
}

MHD_Result console_server::control(request& asked, std::string_view action) {
    if (!has_token_)
        return reply(asked, MHD_HTTP_FORBIDDEN,
                     error_response("this console is read-only: it was made without a token"));
    if (!authorized(asked.connection)) {
        const response refused = error_response(
            "the header Authorization: Bearer TOKEN is missing, or its token is wrong");
        add_header(*refused, "WWW-Authenticate", "Bearer realm=\"tokengate\"");
        return reply(asked, MHD_HTTP_UNAUTHORIZED, refused);
    }
    control_body wanted = parse_control(asked.body);
    if (!wanted.error.empty())
        return reply(asked, MHD_HTTP_BAD_REQUEST, error_response(wanted.error));
    // The operation's own name, which lives as long as the process and so outlives the drain.
    const char* const known = operation_name_of(wanted.operation);
    if (!wanted.operation.empty() && !known)
        return reply(asked, MHD_HTTP_NOT_FOUND,
                     error_response("there is no operation named " + quoted(wanted.operation)));
    const selection what = wanted.operation.empty() ? selection() : selection(known);
    const auto done = [&](unsigned status, bool changed) {
        return reply(asked, status,
                     text_response(control_json(action, wanted.operation, changed), json_type));
    };
    try {
        gate_control gate = of_.gate();
        const bool was_paused = gate.paused(what);
        if (action == "resume") return done(MHD_HTTP_OK, gate.resume(what));
        if (action == "pause") {
            gate.pause(what);
            return done(MHD_HTTP_OK, !was_paused);
        }
        run_detached(drain(of_, what), "console drain");
        return done(MHD_HTTP_ACCEPTED, !was_paused);
    } catch (const std::exception& failed) {
        return reply(asked, MHD_HTTP_INTERNAL_SERVER_ERROR, error_response(failed.what()));
    }
}

}  // namespace tokengate::detail

// ---- console ------------------------------------------------------------------------------------

namespace tokengate {

struct console::parts {
    // The service shares ownership until its coroutine has ended.
    std::shared_ptr<detail::console_server> server;
    detail::service service;
};

console::console(runtime& of, const console_options& options) {
    detail::check(options);
    auto server = std::make_shared<detail::console_server>(of, options);
    parts_ = std::unique_ptr<parts>(new parts{
        server,
        {detail::runtime_access::core(of), [server] { return server->serve(); }, "console"}});
}

console::~console() = default;

std::uint16_t console::port() const noexcept { return parts_->server->at().port(); }
std::string console::url() const { return "http://" + parts_->server->at().text() + '/'; }

}  // namespace tokengate
