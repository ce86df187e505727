/*
 * virtuallog: a durable, totally ordered log whose ordering engine can be swapped while it runs.
 *
 * Handles. Everything that is opened is a number of 64 bits, 0 for none, that vlog_free gives back. A handle
 * that was freed, that is of another kind or that never was one is answered with VLOG_CLOSED or
 * VLOG_INVALID; freeing it again does nothing. A handle may be used by any thread, and freed while others
 * use it.
 *
 * Ownership. What you give (text, bytes, structs) is copied or looked at during the call and stays yours.
 * What you get lives in your variables; where it points into memory, the struct has a field `owner`, and
 * all its pointers hold until you vlog_free(x.owner). Text ends with a zero byte. The pointer to a result
 * may be NULL where you do not want it.
 *
 * Errors. Each call gives a vlog_status. Where `error` is not NULL, it is filled on failure, and its owner
 * is to be freed; on success it is set to zero.
 *
 * Waiting. `call` says how long a call may take, and whether it waits: NULL waits, for the handle's own
 * deadline. With a queue in it the call returns at once, VLOG_OK says that a completion will come, and
 * vlog_queue_next tells it. Until then the memory that the result goes to, and nothing else, has to stay.
 *
 * Positions strictly increase and may skip; a tail is the first unwritten position; ranges are half open;
 * a trim names the first position that is kept.
 *
 * Fork. In a child of fork the parent's handles are VLOG_CLOSED; the child opens its own.
 *
 * This file is made from the library's source: do not edit it.
 */


#ifndef VIRTUALLOG_H
#define VIRTUALLOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** The version that this file belongs to: `vlog_version` is the library's. */
#define VLOG_VERSION "0.1.0"

/**
 * For `timeout_ms`: no deadline.
 */
#define VLOG_FOREVER -1

/**
 * For `vlog_subscribe`: from the first position that was not trimmed.
 */
#define VLOG_FIRST 18446744073709551615ull

/**
 * For `vlog_subscribe`: entries to come. As the end of a read: up to the tail as checked at the call.
 */
#define VLOG_TAIL 18446744073709551614ull

/**
 * For `if_version`: the chain as this handle saw it last.
 */
#define VLOG_LAST_SEEN 18446744073709551615ull

/**
 * What a call came to. The numbers are stable.
 */
typedef enum {
  /**
   * It was done; or, with a queue, a completion will tell.
   */
  VLOG_OK = 0,
  /**
   * The call itself is wrong: an argument, a URL, a name. Mend the call.
   */
  VLOG_INVALID = 1,
  /**
   * No such log, store or directory. Create it, or correct the name.
   */
  VLOG_NOT_FOUND = 2,
  /**
   * Another process owns the store. The message names its pid and the ways out.
   */
  VLOG_LOCKED = 3,
  /**
   * An entry or a batch is over its limit. Split it, or raise the limit where that is possible.
   */
  VLOG_TOO_LARGE = 4,
  /**
   * The position was trimmed away; `position` is the first that is kept.
   */
  VLOG_TRIMMED = 5,
  /**
   * The log was ended for good by `vlog_seal`. Read it; append to another.
   */
  VLOG_SEALED = 6,
  /**
   * Somebody else changed the chain first. Read it, decide again.
   */
  VLOG_CONFLICT = 7,
  /**
   * The window of entries in flight is full. Wait for some of them.
   */
  VLOG_BUSY = 8,
  /**
   * The part that would answer is not to be reached or was stopped.
   */
  VLOG_UNAVAILABLE = 9,
  /**
   * The call's time ran out. For an append see `in_doubt`.
   */
  VLOG_DEADLINE = 10,
  /**
   * Stored bytes fail their checks. Nothing was served in their place, nothing was cut away.
   */
  VLOG_CORRUPT = 11,
  /**
   * The disk is full. Trim, or make room; nothing was lost.
   */
  VLOG_DISK_FULL = 12,
  /**
   * Written by a version, or of a kind, that this build does not know.
   */
  VLOG_INCOMPATIBLE = 13,
  /**
   * Something acknowledged is not there any more. Restore it before going on.
   */
  VLOG_DATA_LOSS = 14,
  /**
   * The handle was closed or freed, or made before a fork. Open another.
   */
  VLOG_CLOSED = 15,
  /**
   * A bug of this library. Please report it.
   */
  VLOG_INTERNAL = 16,
} vlog_status;

/**
 * Why a trim kept another position than it was asked to.
 */
typedef enum {
  /**
   * It did not.
   */
  VLOG_TRIM_LIMIT_NONE = 0,
  /**
   * Nothing beyond the tail can be trimmed.
   */
  VLOG_TRIM_LIMIT_TAIL = 1,
  /**
   * More than was asked had been trimmed before.
   */
  VLOG_TRIM_LIMIT_ALREADY_TRIMMED = 2,
} vlog_trim_limit;

/**
 * Whether a log can go on.
 */
typedef enum {
  /**
   * It can.
   */
  VLOG_LIFE_OPEN = 0,
  /**
   * It was sealed.
   */
  VLOG_LIFE_ENDED = 1,
  /**
   * It lives in another store now.
   */
  VLOG_LIFE_MOVED = 2,
} vlog_life;

/**
 * What a move is at.
 */
typedef enum {
  /**
   * The log goes over to an engine of the destination.
   */
  VLOG_MOVE_ENGINE = 0,
  /**
   * Its chain goes there.
   */
  VLOG_MOVE_CHAIN = 1,
  /**
   * It lives there already, and what was left behind is copied.
   */
  VLOG_MOVE_COPY = 2,
  /**
   * It has arrived: `chain` is its chain there.
   */
  VLOG_MOVE_DONE = 3,
  /**
   * Something that this build has no name for.
   */
  VLOG_MOVE_OTHER = 4,
} vlog_move_phase;

/**
 * How severe a report is.
 */
typedef enum {
  /**
   * Something is lost or stays broken unless somebody acts.
   */
  VLOG_LEVEL_ERROR = 1,
  /**
   * Something went wrong and is being mended.
   */
  VLOG_LEVEL_WARN = 2,
  /**
   * What an operator wants to have read afterwards.
   */
  VLOG_LEVEL_INFO = 3,
  /**
   * What the library does.
   */
  VLOG_LEVEL_DEBUG = 4,
  /**
   * And how.
   */
  VLOG_LEVEL_TRACE = 5,
} vlog_level;

/**
 * Where operations that do not wait tell their outcome.
 */
typedef uint64_t vlog_queue;

/**
 * How a call is made. NULL, or all zero: the call waits, as long as the handle's own deadline says.
 */
typedef struct {
  /**
   * Milliseconds that it may take. 0: the handle's own deadline, 10 s unless `vlog_open` or the URL
   * said otherwise. `VLOG_FOREVER`: none.
   */
  int64_t timeout_ms;
  /**
   * 0: the call waits. A queue: it returns at once, and that queue tells the outcome. What the call
   * is given to write its result to is written by `vlog_queue_next` and has to live until then.
   */
  vlog_queue queue;
  /**
   * Comes back in the completion: a number or a pointer of yours.
   */
  uint64_t context;
  /**
   * Where not NULL, gets the operation's number in its queue, for `vlog_queue_cancel`.
   */
  uint64_t *id;
} vlog_call;

/**
 * What went wrong. Filled where a call is given one and does not return `VLOG_OK`; set to zero where
 * it does.
 */
typedef struct {
  /**
   * What `message`, `token` and `causes` belong to: `vlog_free` it.
   */
  uint64_t owner;
  /**
   * What to branch on.
   */
  vlog_status status;
  /**
   * Whether the same call may succeed later. Never true for an outcome in doubt.
   */
  bool retryable;
  /**
   * True when an append may or may not be in the log: `vlog_resolve` its token.
   */
  bool in_doubt;
  /**
   * Whether `position` says something.
   */
  bool has_position;
  /**
   * The position that the error speaks of: for `VLOG_TRIMMED` the first one kept.
   */
  uint64_t position;
  /**
   * A sentence that says what to do.
   */
  const char *message;
  /**
   * Names the append in doubt. NULL: none.
   */
  const char *token;
  /**
   * The causes, outermost first, a line each. NULL: none.
   */
  const char *causes;
} vlog_error;

/**
 * Names, sorted.
 */
typedef struct {
  /**
   * `vlog_free` it.
   */
  uint64_t owner;
  /**
   * So many of them as `len` says.
   */
  const char *const *names;
  /**
   * How many.
   */
  size_t len;
} vlog_names;

/**
 * How to open a log. NULL, or all zero: by default, as the URL says.
 */
typedef struct {
  /**
   * Fail with `VLOG_NOT_FOUND` rather than create a log.
   */
  bool no_create;
  /**
   * Open a `file:` log beside its owner in another process, without lock and without any write.
   */
  bool read_only;
  /**
   * What the first segment of a log that is created is kept in. NULL: the store's default.
   */
  const char *loglet;
  /**
   * The default deadline of each call, in milliseconds, and that of opening. 0: 10 s.
   * `VLOG_FOREVER`: none.
   */
  int64_t timeout_ms;
  /**
   * The limit on one entry, in bytes. 0: 1 MiB; at most 16 MiB.
   */
  size_t entry_bytes_max;
  /**
   * The limit on what is submitted and not answered, in bytes. 0: 32 MiB.
   */
  size_t in_flight_bytes_max;
} vlog_options;

/**
 * An open log.
 */
typedef uint64_t vlog_log;

/**
 * Where a log ends.
 */
typedef struct {
  /**
   * The first unwritten position.
   */
  uint64_t position;
  /**
   * True when nothing can be appended any more.
   */
  bool sealed;
} vlog_tail;

/**
 * What a trim did.
 */
typedef struct {
  /**
   * The first position to keep, as asked.
   */
  uint64_t requested;
  /**
   * The first position that is kept.
   */
  uint64_t effective;
  /**
   * Why `effective` is not `requested`.
   */
  vlog_trim_limit limited_by;
} vlog_trimmed;

/**
 * A range of the log's positions, and the loglet that holds it.
 */
typedef struct {
  /**
   * The segment's identity, never used again.
   */
  uint32_t index;
  /**
   * Whether `stop` says something: nothing can be appended to it any more.
   */
  bool sealed;
  /**
   * The first position.
   */
  uint64_t start;
  /**
   * The position after the last.
   */
  uint64_t stop;
  /**
   * What holds it, as users write it, for example `local`.
   */
  const char *loglet;
} vlog_segment;

/**
 * Which loglet holds which positions of a log, at one version.
 */
typedef struct {
  /**
   * `vlog_free` it.
   */
  uint64_t owner;
  /**
   * The log's identity: 32 hexadecimal digits, drawn when it was created.
   */
  const char *log;
  /**
   * What to pass as `if_version`.
   */
  uint64_t version;
  /**
   * In order, contiguous, never empty; the last one is the active one.
   */
  const vlog_segment *segments;
  /**
   * How many.
   */
  size_t segments_len;
  /**
   * The loglet of a reconfiguration that was begun and not completed; `end` for a seal. NULL: none.
   */
  const char *next;
  /**
   * Whether the log can go on.
   */
  vlog_life life;
  /**
   * Where a moved log lives now. NULL: here.
   */
  const char *moved_to;
} vlog_chain;

/**
 * The nodes of a cluster that a loglet is on. It goes on as long as a majority of them does.
 */
typedef struct {
  /**
   * Numbers of the nodes that hold it. NULL: it is on no nodes.
   */
  const uint32_t *members;
  /**
   * How many.
   */
  size_t members_len;
  /**
   * Number of the one that gives its positions.
   */
  uint32_t sequencer;
} vlog_placement;

/**
 * What a `vlog_reconfig_extend` would do.
 */
typedef struct {
  /**
   * `vlog_free` it.
   */
  uint64_t owner;
  /**
   * The chain version that it speaks of: pass it as `if_version` to do exactly this.
   */
  uint64_t version;
  /**
   * The active loglet.
   */
  const char *from_loglet;
  /**
   * The loglet to come, with all that was left to defaults written out.
   */
  const char *to_loglet;
  /**
   * Index of the segment that would be sealed.
   */
  uint32_t seals_segment;
  /**
   * The tail at the time of planning: the boundary will be here or later.
   */
  uint64_t tail;
  /**
   * None have to be moved for an extend.
   */
  uint64_t bytes_to_move;
  /**
   * What stands against it, in sentences. None: it can be done.
   */
  const char *const *objections;
  /**
   * How many.
   */
  size_t objections_len;
  /**
   * Where the active loglet is.
   */
  vlog_placement before;
  /**
   * Where the loglet to come would be, as things are now.
   */
  vlog_placement after;
} vlog_plan;

/**
 * What became of an append in doubt.
 */
typedef struct {
  /**
   * False: it is surely not in the log and never will be.
   */
  bool found;
  /**
   * Where it is.
   */
  uint64_t position;
} vlog_resolved;

/**
 * What a verification found.
 */
typedef struct {
  /**
   * `vlog_free` it.
   */
  uint64_t owner;
  /**
   * Segments looked at.
   */
  uint64_t segments;
  /**
   * Entries read, each with a right checksum.
   */
  uint64_t entries;
  /**
   * Bytes of payload.
   */
  uint64_t bytes;
  /**
   * What is wrong, in sentences that name segment and position. None: all is well.
   */
  const char *const *problems;
  /**
   * How many.
   */
  size_t problems_len;
} vlog_report;

/**
 * Bytes to append. Copied during the call.
 */
typedef struct {
  /**
   * May be NULL where `len` is 0.
   */
  const uint8_t *data;
  /**
   * How many.
   */
  size_t len;
} vlog_slice;

/**
 * Many appends one after the other, with back-pressure.
 */
typedef uint64_t vlog_pipeline;

/**
 * What a pipeline put into the log. Other writers' entries may lie in between.
 */
typedef struct {
  /**
   * Position of the first entry. Says nothing where `count` is 0.
   */
  uint64_t first;
  /**
   * Position of the last entry.
   */
  uint64_t last;
  /**
   * How many entries.
   */
  uint64_t count;
} vlog_appended;

/**
 * A range of a log that is read, or a log that is followed.
 */
typedef uint64_t vlog_reader;

/**
 * An entry of a batch.
 */
typedef struct {
  /**
   * Positions strictly increase from entry to entry and may skip.
   */
  uint64_t position;
  /**
   * The payload, where it was read to: nothing was copied. Never NULL.
   */
  const uint8_t *data;
  /**
   * Its length in bytes.
   */
  size_t len;
  /**
   * The writer's clock in microseconds since 1970 (UTC). Information only.
   */
  int64_t written_at_micros;
} vlog_entry;

/**
 * Entries that follow each other in the log.
 */
typedef struct {
  /**
   * `vlog_free` it, from any thread, when the entries are not needed any more.
   */
  uint64_t owner;
  /**
   * So many of them as `len` says.
   */
  const vlog_entry *entries;
  /**
   * 0: the end of what is read; for `vlog_read_next`: there is none.
   */
  size_t len;
} vlog_batch;

/**
 * The outcome of an operation that did not wait.
 */
typedef struct {
  /**
   * The operation's `vlog_call.context`.
   */
  uint64_t context;
  /**
   * Where the result is one number: the position, or the handle. Else 0.
   */
  uint64_t value;
  /**
   * What it came to.
   */
  vlog_status status;
  /**
   * Where that is not `VLOG_OK`: `vlog_free` its owner.
   */
  vlog_error error;
} vlog_completion;

/**
 * How to run a server. All zero but `data`: by default.
 */
typedef struct {
  /**
   * Its directory, made if its parent is there. Belongs to one server at a time (`VLOG_LOCKED`), and
   * to its node of its cluster for good.
   */
  const char *data;
  /**
   * `HOST:PORT`; port 0 is a free one. NULL: `127.0.0.1:0`.
   */
  const char *listen;
  /**
   * `HOST:PORT` by which others reach it. NULL: the one that it listens on.
   */
  const char *advertise;
  /**
   * Where it stands; replicas are spread over zones. NULL: nowhere in particular.
   */
  const char *zone;
  /**
   * What it does: some of `log,sequencer,metastore`. NULL: all.
   */
  const char *roles;
  /**
   * Addresses of a cluster to join while its directory belongs to none.
   */
  const char *const *join;
  /**
   * How many.
   */
  size_t join_len;
  /**
   * Allows an address that other machines reach: connections are not encrypted.
   */
  bool insecure;
} vlog_server_config;

/**
 * A server of a cluster, in this process.
 */
typedef uint64_t vlog_server;

/**
 * A node of a cluster.
 */
typedef struct {
  /**
   * Its number, never given again.
   */
  uint32_t node;
  /**
   * Whether it holds logs.
   */
  bool role_log;
  /**
   * Whether it gives positions.
   */
  bool role_sequencer;
  /**
   * Whether it may hold the chains.
   */
  bool role_metastore;
  /**
   * Whether it is one of those that hold the chains now.
   */
  bool metastore;
  /**
   * Whether it answers.
   */
  bool alive;
  /**
   * Whether nothing new is placed on it.
   */
  bool draining;
  /**
   * How many loglets it gives positions for; 0 when it does not answer.
   */
  uint32_t sequences;
  /**
   * Where it is reached, `HOST:PORT`.
   */
  const char *address;
  /**
   * Where it stands. May be empty.
   */
  const char *zone;
  /**
   * The identity of its disk: 32 hexadecimal digits.
   */
  const char *storage;
} vlog_node;

/**
 * A cluster, as one of its nodes sees it.
 */
typedef struct {
  /**
   * `vlog_free` it.
   */
  uint64_t owner;
  /**
   * Its identity: 32 hexadecimal digits.
   */
  const char *id;
  /**
   * Its store, by the addresses of all its nodes: add a log's name to open one.
   */
  const char *url;
  /**
   * Its nodes, by number.
   */
  const vlog_node *nodes;
  /**
   * How many.
   */
  size_t nodes_len;
} vlog_cluster;

/**
 * A log on its way to another store.
 */
typedef uint64_t vlog_move;

/**
 * How far a log has come on its way to another store.
 */
typedef struct {
  /**
   * What it is at.
   */
  vlog_move_phase phase;
  /**
   * Sealed segments that were copied.
   */
  size_t segments_done;
  /**
   * Sealed segments that are to be copied, those included.
   */
  size_t segments_total;
  /**
   * Bytes that were copied, with what frames them.
   */
  uint64_t bytes_done;
  /**
   * Once it has arrived; all zero before. `vlog_free` its owner.
   */
  vlog_chain chain;
} vlog_move_step;

/**
 * A cluster of processes on this machine, for tests.
 */
typedef uint64_t vlog_local_cluster;

/**
 * A node of a `vlog_local_cluster`.
 */
typedef struct {
  /**
   * Its number, from 1 on: what `vlog_local_cluster_stop` and `vlog_local_cluster_restart` take.
   */
  uint32_t node;
  /**
   * The number of its process; 0 while it is stopped.
   */
  uint32_t pid;
  /**
   * `HOST:PORT`, the same whenever it runs.
   */
  const char *address;
  /**
   * Its directory.
   */
  const char *dir;
} vlog_local_node;

/**
 * The nodes of a `vlog_local_cluster`, by number, those that were stopped too.
 */
typedef struct {
  /**
   * `vlog_free` it.
   */
  uint64_t owner;
  /**
   * So many of them as `len` says.
   */
  const vlog_local_node *nodes;
  /**
   * How many.
   */
  size_t len;
} vlog_local_nodes;

/**
 * What the library reports, on its way to the program's own logging.
 */
typedef uint64_t vlog_diagnostics;

/**
 * One report.
 */
typedef struct {
  /**
   * How severe it is.
   */
  vlog_level level;
  /**
   * The part that speaks, such as "virtuallog::server::heal".
   */
  const char *target;
  /**
   * What it says.
   */
  const char *message;
} vlog_diagnostic;

/**
 * Reports, in the order in which they were made.
 */
typedef struct {
  /**
   * `vlog_free` it.
   */
  uint64_t owner;
  /**
   * So many of them as `len` says.
   */
  const vlog_diagnostic *records;
  /**
   * 0: the time ran out first.
   */
  size_t len;
  /**
   * How many more there were since the last batch, for which there was no room.
   */
  uint64_t dropped;
} vlog_diagnostic_batch;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The name of a status as all languages write it, such as `NOT_FOUND`; `OK` for `VLOG_OK`, and NULL for
 * a number that is none. Lives as long as the program.
 */
const char *vlog_status_name(int32_t status);

/**
 * The library's version, such as `0.1.0`: that of the header is `VLOG_VERSION`.
 */
const char *vlog_version(void);

/**
 * Frees a handle, or what a result points to, by its `owner`. 0, and what was freed before, is let be.
 *
 * A log that is freed and not closed goes on with what was submitted, and nobody hears of failures.
 */
void vlog_free(uint64_t handle);

/**
 * Creates the log that `url` names; `VLOG_CONFLICT` if there is one. `loglet`: what its first segment is
 * kept in; NULL for the store's default.
 */
vlog_status vlog_create(const char *url,
                        const char *loglet,
                        const vlog_call *call,
                        vlog_error *error);

/**
 * Deletes a log and all its entries; `VLOG_NOT_FOUND` if there is none.
 */
vlog_status vlog_delete(const char *url, const vlog_call *call, vlog_error *error);

/**
 * The names of the logs in a store: a URL that ends in `/`.
 */
vlog_status vlog_logs(const char *url, const vlog_call *call, vlog_names *names, vlog_error *error);

/**
 * Opens the log that `url` names, and creates it if it is missing. `vlog_close` it, then `vlog_free` it.
 *
 * `memory:NAME` is in this process and gone with it, `file:DIR/NAME` on this disk,
 * `virtuallog://HOST:PORT,HOST:PORT/NAME` on the cluster that any of these nodes belongs to. What is not
 * given in `options` is taken from the URL's parameters. The deadline is that of `options`: the one of
 * `call` is not looked at.
 */
vlog_status vlog_open(const char *url,
                      const vlog_options *options,
                      const vlog_call *call,
                      vlog_log *log,
                      vlog_error *error);

/**
 * Flushes and gives the log's resources back; later calls say `VLOG_CLOSED`. Fails with the first failure
 * of an append that nobody saw. Again: nothing happens. When time runs out, closing goes on.
 */
vlog_status vlog_close(vlog_log log,
                       const vlog_call *call,
                       vlog_error *error);

/**
 * The log's name: the last part of its URL. Lives as long as the handle; NULL for a dead one.
 */
const char *vlog_log_name(vlog_log log);

/**
 * The deadline of calls that name none, in milliseconds; `VLOG_FOREVER`: none; 0 for a dead handle.
 */
int64_t vlog_log_timeout_ms(vlog_log log);

/**
 * Waits for all that was submitted so far; fails with the first failure that nobody saw.
 */
vlog_status vlog_flush(vlog_log log, const vlog_call *call, vlog_error *error);

/**
 * Where the log ends. Linearizable for the owner of the log's store.
 */
vlog_status vlog_check_tail(vlog_log log,
                            const vlog_call *call,
                            vlog_tail *tail,
                            vlog_error *error);

/**
 * The first position that was not trimmed.
 */
vlog_status vlog_first(vlog_log log, const vlog_call *call, uint64_t *position, vlog_error *error);

/**
 * Gives up every entry below `keep_from`: reading there is `VLOG_TRIMMED` from then on.
 */
vlog_status vlog_prefix_trim(vlog_log log,
                             uint64_t keep_from,
                             const vlog_call *call,
                             vlog_trimmed *trimmed,
                             vlog_error *error);

/**
 * Ends the log for good and gives the final tail: later appends are `VLOG_SEALED`.
 */
vlog_status vlog_seal(vlog_log log, const vlog_call *call, vlog_tail *tail, vlog_error *error);

/**
 * The newest chain.
 */
vlog_status vlog_get_chain(vlog_log log,
                           const vlog_call *call,
                           vlog_chain *chain,
                           vlog_error *error);

/**
 * Seals the active loglet and goes on in a new one, for example `local`. Appends under way are carried
 * over, none twice.
 *
 * `VLOG_CONFLICT` where the chain is at another version than `if_version`. When time runs out the
 * reconfiguration may still complete: look at the chain.
 */
vlog_status vlog_reconfig_extend(vlog_log log,
                                 const char *loglet,
                                 uint64_t if_version,
                                 const vlog_call *call,
                                 vlog_chain *chain,
                                 vlog_error *error);

/**
 * Drops the leading segments that were trimmed whole from the chain; gives it as it is when there are none.
 * `VLOG_CONFLICT` where the chain is at another version than `if_version`.
 */
vlog_status vlog_reconfig_truncate(vlog_log log,
                                   uint64_t if_version,
                                   const vlog_call *call,
                                   vlog_chain *chain,
                                   vlog_error *error);

/**
 * Moves the sealed segment of this index into another loglet, by copying it. Has no deadline unless `call`
 * gives one; when that passes the move may still complete: look at the chain.
 *
 * `VLOG_INVALID` when no sealed segment has the index, or for a loglet that this store cannot have;
 * `VLOG_CONFLICT` as `vlog_reconfig_extend`.
 */
vlog_status vlog_reconfig_modify(vlog_log log,
                                 uint32_t segment,
                                 const char *loglet,
                                 uint64_t if_version,
                                 const vlog_call *call,
                                 vlog_chain *chain,
                                 vlog_error *error);

/**
 * What `vlog_reconfig_extend` to `loglet` would do; does nothing.
 */
vlog_status vlog_get_plan(vlog_log log,
                          const char *loglet,
                          const vlog_call *call,
                          vlog_plan *plan,
                          vlog_error *error);

/**
 * What became of an append in doubt, by its error's `token`.
 */
vlog_status vlog_resolve(vlog_log log,
                         const char *token,
                         const vlog_call *call,
                         vlog_resolved *resolved,
                         vlog_error *error);

/**
 * Reads the whole log and checks every checksum. Has no deadline unless `call` gives one.
 */
vlog_status vlog_verify(vlog_log log,
                        const vlog_call *call,
                        vlog_report *report,
                        vlog_error *error);

/**
 * Appends one entry. `*position`, which may be NULL, gets its position once it is durable.
 *
 * Waits its turn when the window of entries in flight is full. Where an error is `in_doubt`, the entry
 * may be in the log: `vlog_resolve` its token before appending it again. Any other error: it is surely
 * not in the log. With a queue it is submitted now, in call order.
 */
vlog_status vlog_append(vlog_log log,
                        const uint8_t *data,
                        size_t len,
                        const vlog_call *call,
                        uint64_t *position,
                        vlog_error *error);

/**
 * Appends one batch, atomically and contiguously. `*first` gets the position of its first entry.
 *
 * At most 1,024 entries and 4 MiB (or one entry up to the entry limit): more is `VLOG_TOO_LARGE`, none at
 * all `VLOG_INVALID`. For any number, see `vlog_pipeline_new`.
 */
vlog_status vlog_append_many(vlog_log log,
                             const vlog_slice *slices,
                             size_t slices_len,
                             const vlog_call *call,
                             uint64_t *first,
                             vlog_error *error);

/**
 * As `vlog_append`, but `VLOG_BUSY` at once when the window of entries in flight is full.
 */
vlog_status vlog_append_nowait(vlog_log log,
                               const uint8_t *data,
                               size_t len,
                               const vlog_call *call,
                               uint64_t *position,
                               vlog_error *error);

/**
 * Begins to append many entries one after the other, with back-pressure. `timeout_ms`, as in
 * `vlog_call`, bounds each wait for answers. `vlog_free` it.
 *
 * Each entry stands for itself: an error leaves those before it in the log. For one thread at a time.
 */
vlog_status vlog_pipeline_new(vlog_log log,
                              int64_t timeout_ms,
                              vlog_pipeline *pipeline,
                              vlog_error *error);

/**
 * Submits an entry. Waits for room when thousands are under way, and fails then with the first failed
 * append's error. What becomes of this entry, a later call tells.
 */
vlog_status vlog_pipeline_push(vlog_pipeline pipeline,
                               const uint8_t *data,
                               size_t len,
                               vlog_error *error);

/**
 * Waits until all that was pushed is durable. Fails with the first failed append's error. More may be
 * pushed afterwards.
 */
vlog_status vlog_pipeline_finish(vlog_pipeline pipeline,
                                 const vlog_call *call,
                                 vlog_appended *appended,
                                 vlog_error *error);

/**
 * Reads the entries from `start` up to, not including, `end`; `VLOG_TAIL`: up to the tail as checked now.
 * `vlog_free` the reader. The deadline bounds this call and then, unless that has its own, each
 * `vlog_reader_next`. A trimmed start is `VLOG_TRIMMED`, here or at the first batch.
 */
vlog_status vlog_read(vlog_log log,
                      uint64_t start,
                      uint64_t end,
                      const vlog_call *call,
                      vlog_reader *reader,
                      vlog_error *error);

/**
 * The first entry at or after `start` and below `end` (`VLOG_TAIL`: the tail as checked now), as a batch
 * of one entry, or of none.
 */
vlog_status vlog_read_next(vlog_log log,
                           uint64_t start,
                           uint64_t end,
                           const vlog_call *call,
                           vlog_batch *entry,
                           vlog_error *error);

/**
 * Follows the log from `start`: a position, `VLOG_FIRST` or `VLOG_TAIL`. `vlog_free` the reader. The
 * deadline bounds this call alone: a `vlog_reader_next` without one of its own waits for as long as it
 * takes.
 */
vlog_status vlog_subscribe(vlog_log log,
                           uint64_t start,
                           const vlog_call *call,
                           vlog_reader *reader,
                           vlog_error *error);

/**
 * The next entries: at least one, at most `entries_max`, waiting for the first. An empty batch is the end:
 * that of the range, or that of a log that was ended for good.
 *
 * Nothing is copied: the entries lie where they were read to, until the batch is freed. One call at a time;
 * a second one beside it is `VLOG_INVALID`. `VLOG_DEADLINE` loses nothing: go on.
 */
vlog_status vlog_reader_next(vlog_reader reader,
                             size_t entries_max,
                             const vlog_call *call,
                             vlog_batch *batch,
                             vlog_error *error);

/**
 * The next position to deliver: what to save in order to resume.
 */
vlog_status vlog_reader_position(vlog_reader reader, uint64_t *position, vlog_error *error);

/**
 * Ends it: a call that waits says `VLOG_CLOSED`, and so do later ones. Again: nothing happens.
 */
void vlog_reader_close(vlog_reader reader);

/**
 * Makes a queue. `vlog_free` it, which also closes it.
 */
vlog_status vlog_queue_new(vlog_queue *queue, vlog_error *error);

/**
 * The descriptor that can be read while there may be something to take, for `poll`, `epoll` and event
 * loops; -1 for a dead handle. Only to be watched, and taken out of the loop before the queue is freed.
 */
int32_t vlog_queue_fd(vlog_queue queue);

/**
 * Takes what was answered: at most `max` completions, into `completions`; `*count` says how many. Writes
 * the results of those operations to where their calls said.
 *
 * Waits `timeout_ms` for the first one: 0 does not wait, `VLOG_FOREVER` has no deadline. That time ran
 * out is `VLOG_OK` with a count of 0. In an event loop: with 0, whenever the descriptor can be read.
 */
vlog_status vlog_queue_next(vlog_queue queue,
                            vlog_completion *completions,
                            size_t max,
                            int64_t timeout_ms,
                            size_t *count,
                            vlog_error *error);

/**
 * Lets go of an operation, by the number that `vlog_call.id` got. True: nothing is told of it and
 * nothing written; an append stays submitted. False: it was told, or is being told by another thread.
 */
bool vlog_queue_cancel(vlog_queue queue,
                       uint64_t id);

/**
 * Drops what was not told (an append stays submitted), so that nothing is written any more, and ends a
 * `vlog_queue_next` in another thread with `VLOG_CLOSED`. Again: nothing happens.
 */
void vlog_queue_close(vlog_queue queue);

/**
 * How many operations were not told yet; 0 for a dead handle.
 */
size_t vlog_queue_len(vlog_queue queue);

/**
 * Starts a server of a cluster in this process, on threads of its own. `vlog_server_close` it, then
 * `vlog_free` it.
 *
 * A server whose directory belongs to no cluster waits until `vlog_init` makes one, or joins the one of
 * `config->join`. `VLOG_UNAVAILABLE` when its port is taken.
 */
vlog_status vlog_server_start(const vlog_server_config *config,
                              const vlog_call *call,
                              vlog_server *server,
                              vlog_error *error);

/**
 * `HOST:PORT` by which others reach it. Lives as long as the handle; NULL for a dead one.
 */
const char *vlog_server_address(vlog_server server);

/**
 * The store of its cluster, by its address: add a log's name to open one. Lives as long as the handle; NULL
 * for a dead one.
 */
const char *vlog_server_url(vlog_server server);

/**
 * Its number in its cluster; 0 until it is part of one. `VLOG_CLOSED` once it was closed.
 */
vlog_status vlog_server_node(vlog_server server, uint32_t *node, vlog_error *error);

/**
 * The identity of its cluster: 32 hexadecimal digits and a zero byte, into `id`, which has room for these
 * 33; empty until it is part of one. `VLOG_CLOSED` once it was closed.
 */
vlog_status vlog_server_cluster(vlog_server server,
                                char *id,
                                vlog_error *error);

/**
 * Waits until it is part of a cluster and can be used. `VLOG_DATA_LOSS` when the others say that its disk
 * has forgotten something.
 */
vlog_status vlog_server_ready(vlog_server server,
                              const vlog_call *call,
                              vlog_error *error);

/**
 * Hands the logs that it gives positions for to other nodes, and gets no new ones, until its directory is
 * started again. Before `vlog_server_close`, so that nobody notices that.
 */
vlog_status vlog_server_drain(vlog_server server,
                              const vlog_call *call,
                              vlog_error *error);

/**
 * Stops it and gives its directory and port back. Again: nothing happens. When time runs out it goes on.
 */
vlog_status vlog_server_close(vlog_server server,
                              const vlog_call *call,
                              vlog_error *error);

/**
 * Makes a cluster of the servers at these addresses, which belong to none yet. Again after an
 * interruption: completes it.
 */
vlog_status vlog_init(const char *const *addresses,
                      size_t addresses_len,
                      const vlog_call *call,
                      vlog_cluster *cluster,
                      vlog_error *error);

/**
 * The nodes of the cluster that `url`, a store or a log of it, names.
 */
vlog_status vlog_nodes(const char *url,
                       const vlog_call *call,
                       vlog_cluster *cluster,
                       vlog_error *error);

/**
 * Hands what a node gives positions for to others, and places nothing new on it until it is started again.
 */
vlog_status vlog_drain(const char *url,
                       uint32_t node,
                       const vlog_call *call,
                       vlog_error *error);

/**
 * Takes a node out of its cluster for good: drains it and copies what it holds to others first. As long as
 * that takes, unless `call` gives a deadline; when that passes, do it again.
 */
vlog_status vlog_remove(const char *url,
                        uint32_t node,
                        const vlog_call *call,
                        vlog_error *error);

/**
 * Begins to move the log `src` to `dst`, a name in another store, while it is used. No entry and no position
 * changes, and open handles follow. With `leave_sealed` what is sealed stays where it is.
 *
 * Ask for its steps with `vlog_move_next`, and `vlog_free` it. Freed early, it stops where it is: the log
 * is in one of both stores, whole and in use, and the same call completes it.
 */
vlog_status vlog_move_start(const char *src,
                            const char *dst,
                            bool leave_sealed,
                            vlog_move *moving,
                            vlog_error *error);

/**
 * Waits for the next step, for as long as it takes. After `VLOG_MOVE_DONE`, or a failure, `VLOG_CLOSED`.
 */
vlog_status vlog_move_next(vlog_move moving,
                           const vlog_call *call,
                           vlog_move_step *step,
                           vlog_error *error);

/**
 * Starts a cluster of so many `virtuallogd` processes (1 to 64) on loopback, for tests. They are those that
 * were installed with this library, and of its version; the variable `VIRTUALLOG_BIN_DIR` names another
 * folder. Up when it answers, in about a second; by default it may take a minute.
 *
 * `dir`: where their directories are made, and stay; NULL: in a temporary one that is removed. `vlog_free`
 * it, which ends them; they end also when this process does.
 */
vlog_status vlog_local_cluster_start(uint32_t nodes,
                                     const char *dir,
                                     const vlog_call *call,
                                     vlog_local_cluster *cluster,
                                     vlog_error *error);

/**
 * The store, by the addresses of all nodes: add a log's name to open one. Lives as long as the handle; NULL
 * for a dead one.
 */
const char *vlog_local_cluster_url(vlog_local_cluster cluster);

/**
 * All nodes as they are now, those that were stopped too. `vlog_free` the result's owner. `VLOG_CLOSED` for a
 * cluster that was freed.
 */
vlog_status vlog_local_cluster_nodes(vlog_local_cluster cluster,
                                     vlog_local_nodes *nodes,
                                     vlog_error *error);

/**
 * Kills a node as it stands; they are numbered from 1. `VLOG_INVALID` when it does not run.
 */
vlog_status vlog_local_cluster_stop(vlog_local_cluster cluster,
                                    uint32_t node,
                                    const vlog_call *call,
                                    vlog_error *error);

/**
 * Starts a node that was stopped, on its directory and address, and waits until it is ready.
 */
vlog_status vlog_local_cluster_restart(vlog_local_cluster cluster,
                                       uint32_t node,
                                       const vlog_call *call,
                                       vlog_error *error);

/**
 * Has the library report what it does, from `level` ("error", "warn", "info", "debug", "trace" or "off") on;
 * NULL: from the one that the variable `VIRTUALLOG_LOG` names, "off" where it is not set. It reports nothing
 * unless this is called. `vlog_free` it, which turns the reports off.
 *
 * Again: the level takes the place of the one before, and so does the handle, which is `VLOG_CLOSED` then.
 */
vlog_status vlog_diagnostics_start(const char *level,
                                   vlog_diagnostics *diagnostics,
                                   vlog_error *error);

/**
 * The descriptor that can be read while there may be reports to take; -1 for a dead handle. Only to be
 * watched, and taken out of the loop before the handle is freed.
 */
int32_t vlog_diagnostics_fd(vlog_diagnostics diagnostics);

/**
 * Takes the reports that wait, into `batch`, and waits `timeout_ms` for the first one: 0 does not wait,
 * `VLOG_FOREVER` has no deadline. That time ran out is `VLOG_OK` with a `len` of 0.
 */
vlog_status vlog_diagnostics_next(vlog_diagnostics diagnostics,
                                  int64_t timeout_ms,
                                  vlog_diagnostic_batch *batch,
                                  vlog_error *error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* VIRTUALLOG_H */
