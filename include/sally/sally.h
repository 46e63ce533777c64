/* SPDX-License-Identifier: Apache-2.0
 *
 * Sallyport SDK, C interface.
 *
 * A context is one identity on one network. It has a thread of its own, keeps a connection to a
 * router of the network and comes back by itself. Through it a program dials services and hosts
 * them without a listening socket; every stream is mutual TLS 1.3 end to end, with the devices' own
 * certificates.
 *
 *   sally_context* ctx;
 *   sally_options opt = SALLY_OPTIONS_INIT;
 *   opt.identity_path = "device.json";
 *   if (sally_open(&opt, &ctx) != SALLY_OK) { puts(sally_last_error()); return 1; }
 *   sally_stream* s;
 *   if (sally_dial(ctx, "plant-mqtt", NULL, &s) == SALLY_OK) { sally_write(s, "hello", 5); ...
 * sally_stream_close(s); } sally_close(ctx);
 *
 * Threads: every function may be called from any thread, except that callbacks run on the context's
 * thread and must not block: functions marked "blocks" return SALLY_E_WOULD_DEADLOCK there. A
 * program with an event loop of its own has no second thread: see SALLY_CALLER_LOOP. Errors:
 * a negative code; sally_last_error() of the same thread says more. Nothing throws or aborts on
 * what a peer sent. Compatibility: structs start with their size and only grow; codes keep their
 * numbers. Memory: a call that finds none before its work has begun gives SALLY_E_MEMORY. Where
 * there is nobody to tell - in the middle of that work, on the context's thread, in functions
 * without a result - the process ends by abort(), as C++ does it; nothing goes on half done.
 */
#ifndef SALLY_H
#define SALLY_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define SALLY_API __attribute__((visibility("default")))
#else
#define SALLY_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sally_context sally_context;
typedef struct sally_stream sally_stream;
typedef struct sally_listener sally_listener;
typedef struct sally_request sally_request;

enum {
  SALLY_OK = 0,
  SALLY_E_ARGUMENT = -1,    /* a null pointer, an unknown struct size, an empty name */
  SALLY_E_IDENTITY = -2,    /* the identity file is missing, unreadable or damaged */
  SALLY_E_NO_SERVICE = -3,  /* unknown or not granted: nobody can tell which */
  SALLY_E_NO_HOST = -4,     /* nobody hosts the service now */
  SALLY_E_UNREACHABLE = -5, /* no router can be reached; try again */
  SALLY_E_TIMEOUT = -6,
  SALLY_E_REFUSED = -7, /* the host's target refused */
  SALLY_E_BUSY = -8,    /* a limit was reached */
  SALLY_E_VERIFY = -9,  /* the other end did not prove that it may host this service */
  SALLY_E_RESET = -10,  /* the stream was cut; not an orderly end */
  SALLY_E_CLOSED = -11, /* the object is closed */
  SALLY_E_DENIED = -12, /* the network refuses this identity: revoked, suspended, removed */
  SALLY_E_WOULD_DEADLOCK = -13,
  SALLY_E_INTERNAL = -14,
  SALLY_E_WOULD_BLOCK = -15, /* not an error: try again when sally_stream_watch says so */
  SALLY_E_MEMORY = -16       /* no memory: nothing was done, nothing was taken */
};

/* The stable text of a code: "sally.no_service". Static. */
SALLY_API const char* sally_error_name(int code);
/* What the last failing call of this thread met, for people. Never null; valid until the next call
 * of this thread. */
SALLY_API const char* sally_last_error(void);
SALLY_API const char* sally_version(void);

/* ---- context
 * --------------------------------------------------------------------------------------------------------------
 */

typedef enum {
  SALLY_EVENT_ONLINE = 1,   /* a router has accepted us; `text` names it */
  SALLY_EVENT_OFFLINE = 2,  /* the connection is lost; it is being made again */
  SALLY_EVENT_SERVICES = 3, /* the list of services changed */
  SALLY_EVENT_DENIED = 4    /* the network refuses this identity */
} sally_event;

typedef struct sally_options {
  size_t size;
  const char* identity_path; /* the file that enrolment wrote */
  void (*on_event)(void* user, sally_event event, const char* text);
  void* user;
  int flags; /* SALLY_CALLER_LOOP, SALLY_SESSION_KEY_* */
} sally_options;
#define SALLY_OPTIONS_INIT {sizeof(sally_options), NULL, NULL, NULL, 0}

/* The context has no thread: everything of it happens in sally_loop_run, on the thread that opened
 * it, which is the context's thread. Only that thread may call sally_loop_run and sally_close, and
 * not from a callback; every other function may be called from any thread and waits for the next
 * run. */
#define SALLY_CALLER_LOOP 1
/* A key in memory, with a certificate of hours that the device's own key has asked for, signs in
 * its place: always, or never. Without either: where a signature of the device's key is slow. */
#define SALLY_SESSION_KEY_ALWAYS 2
#define SALLY_SESSION_KEY_NEVER 4

/* Reads the identity and starts to connect; returns before it is connected. */
SALLY_API int sally_open(const sally_options* options, sally_context** out);
/* Blocks until a router has accepted the identity. SALLY_E_UNREACHABLE when none did in time,
 * SALLY_E_DENIED. */
SALLY_API int sally_wait_online(sally_context* ctx, int timeout_ms);
/* Ends everything of the context: what closed streams had written is delivered first (3 s at most),
 * open ones read SALLY_E_CLOSED from then on. Blocks. */
SALLY_API void sally_close(sally_context* ctx);

/* With SALLY_CALLER_LOOP. The descriptor that becomes readable when sally_loop_run has work: for
 * poll, epoll, GLib, asyncio. Negative on error. */
SALLY_API int sally_loop_fd(sally_context* ctx);
/* Milliseconds after which sally_loop_run has work although the descriptor stays quiet: 0 = now,
 * -1 = never. Ask again after each run and after each call of another function. */
SALLY_API int sally_loop_timeout(sally_context* ctx);
/* Does what there is to do and returns; callbacks are called from here. Never sleeps. */
SALLY_API int sally_loop_run(sally_context* ctx);

typedef struct sally_status {
  size_t size;
  int online;
  int64_t round_trip_us;  /* to the router, smoothed; 0 = not known yet */
  int64_t since_ms;       /* unix time of the last change of `online` */
  int64_t leaf_not_after; /* unix seconds: end of our certificate */
  uint64_t streams;       /* open now */
  char network[256];
  char id[129];
  char name[257];
  char router[129];     /* the router we are on, empty when offline */
  char last_error[512]; /* why the last connection failed or ended */
  int refused;          /* the last router reached did not want this identity */
  uint64_t connects;    /* times it came on line, since sally_open */
  uint64_t bytes_in;    /* from routers inside TLS, since then */
  uint64_t bytes_out;
} sally_status;
SALLY_API int sally_get_status(sally_context* ctx, sally_status* status);

typedef struct sally_service {
  size_t size;
  const char* id;
  const char* name;
  int dial;                     /* we may dial it */
  int bind;                     /* we may host it */
  const char* host_config;      /* host.v1 JSON, or "" */
  const char* intercept_config; /* intercept.v1 JSON, or "" */
} sally_service;
/* Calls `each` for everything this identity may dial or host, as last heard. Pointers live during
 * the call. */
SALLY_API int sally_services(sally_context* ctx, void (*each)(void* user, const sally_service*),
                             void* user);

/* ---- streams
 * --------------------------------------------------------------------------------------------------------------
 */

/* Who is at the other end, as proven by its certificate in this stream's own handshake. Lives as
 * long as the stream. */
typedef struct sally_peer {
  size_t size;
  const char* network;
  const char* id;
  const char* name;
  const char* serial; /* of its certificate, lower-case hex */
} sally_peer;

typedef struct sally_dial_options {
  size_t size;
  int timeout_ms; /* default 10,000 */
  const void* app_data;
  size_t app_data_len; /* at most 1,024 bytes; reserved: carried, not yet shown to the host */
} sally_dial_options;
#define SALLY_DIAL_OPTIONS_INIT {sizeof(sally_dial_options), 10000, NULL, 0}

/* Opens a stream to a service by name or id. Blocks. */
SALLY_API int sally_dial(sally_context* ctx, const char* service, const sally_dial_options* options,
                         sally_stream** out);
/* The same; `done` is called once, with a stream or an error code and text. */
SALLY_API int sally_dial_async(
    sally_context* ctx, const char* service, const sally_dial_options* options,
    void (*done)(void* user, int code, const char* text, sally_stream* stream), void* user);

/* Up to `len` bytes; 0 = the peer has ended its direction in order. SALLY_E_RESET, SALLY_E_CLOSED.
 * Blocks. */
SALLY_API int64_t sally_read(sally_stream* stream, void* buffer, size_t len);
/* All of it, or an error. Blocks while the peer does not read. */
SALLY_API int64_t sally_write(sally_stream* stream, const void* data, size_t len);
/* The same without waiting, from callbacks too: what there is, or SALLY_E_WOULD_BLOCK. A write may
 * take less than `len`. */
SALLY_API int64_t sally_try_read(sally_stream* stream, void* buffer, size_t len);
SALLY_API int64_t sally_try_write(sally_stream* stream, const void* data, size_t len);
/* `ready` is called on the context's thread each time that a sally_try_read or sally_try_write
 * which gave SALLY_E_WOULD_BLOCK (or took less) can go on, and at the end of the stream. Null ends
 * it; so does the end of the handle. From another thread than the context's one late call may come.
 */
SALLY_API int sally_stream_watch(sally_stream* stream,
                                 void (*ready)(void* user, sally_stream* stream), void* user);
/* What our direction of the stream says of its bytes, from now on. Where several streams share a
 * connection an interactive one has twice the share of a normal one, bulk half of it; whoever sends
 * little goes first anyhow. Default: normal. */
enum { SALLY_CLASS_INTERACTIVE = 1, SALLY_CLASS_NORMAL = 2, SALLY_CLASS_BULK = 3 };
SALLY_API int sally_stream_set_class(sally_stream* stream, int traffic_class);
/* Ends our direction in order; the peer reads 0 after the last byte. Half of the stream goes on. */
SALLY_API int sally_shutdown_write(sally_stream* stream);
/* Ends what is open and frees the handle. Bytes written before are delivered. */
SALLY_API void sally_stream_close(sally_stream* stream);
/* Cuts the stream at once and frees the handle; the peer reads SALLY_E_RESET. */
SALLY_API void sally_stream_reset(sally_stream* stream);
SALLY_API const sally_peer* sally_stream_peer(const sally_stream* stream);

/* Pumps between the stream and the application's own socket until both directions are over: EOF
 * becomes half close, a reset becomes a reset. Takes `fd` and `stream`; `done` (may be null) is
 * called once with SALLY_OK or SALLY_E_RESET. */
SALLY_API int sally_stream_attach(sally_stream* stream, int fd, void (*done)(void* user, int code),
                                  void* user);
/* A plain descriptor for a stream (one end of a socket pair); takes `stream`. Negative on error.
 * The application closes it. */
SALLY_API int sally_stream_fd(sally_stream* stream);

/* ---- hosting
 * --------------------------------------------------------------------------------------------------------------
 */

typedef struct sally_bind_options {
  size_t size;
  /* Null: every caller with a grant is accepted and waits for sally_accept. Otherwise called for
   * each caller, who has proven its identity; answer now or later with sally_request_accept or
   * sally_request_refuse. */
  void (*on_request)(void* user, sally_request* request);
  /* Null: streams wait for sally_accept. Otherwise called with each accepted stream once its
   * handshake is done. `token` is what sally_request_accept was given; `stream` null: the caller
   * went away, `token` may be freed. */
  void (*on_stream)(void* user, sally_stream* stream, void* token);
  void* user;
  uint32_t cost;
} sally_bind_options;
#define SALLY_BIND_OPTIONS_INIT {sizeof(sally_bind_options), NULL, NULL, NULL, 0}

/* Hosts a service by name or id, now and after every reconnect, as long as the grant lasts. Does
 * not wait for the network. */
SALLY_API int sally_bind(sally_context* ctx, const char* service, const sally_bind_options* options,
                         sally_listener** out);
/* Blocks until a caller is there; timeout_ms < 0 waits for ever. SALLY_E_TIMEOUT, SALLY_E_CLOSED.
 */
SALLY_API int sally_accept(sally_listener* listener, int timeout_ms, sally_stream** out);
/* SALLY_OK when a router has accepted the binding, else why not (SALLY_E_NO_SERVICE,
 * SALLY_E_UNREACHABLE). */
SALLY_API int sally_listener_status(sally_listener* listener);
SALLY_API void sally_listener_close(sally_listener* listener);

SALLY_API const sally_peer* sally_request_peer(const sally_request* request);
/* Lets the caller in; frees the request. */
SALLY_API void sally_request_accept(sally_request* request, void* token);
/* Turns the caller away with SALLY_E_REFUSED or SALLY_E_BUSY; frees the request. */
SALLY_API void sally_request_refuse(sally_request* request, int code, const char* text);

#ifdef __cplusplus
}
#endif
#endif
