/*
 * Random calls, as no careful program makes them: null pointers, handles of another kind, freed and made up
 * ones, results freed twice, from several threads at once. Nothing may crash, and every answer is a status.
 *
 *     calls FOLDER SEED CALLS
 *
 * What each thread calls is drawn from the seed alone; ends with `N calls, N failed`.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif

#include "virtuallog.h"

#define THREADS 4
#define HANDLES 64

static char folder[512];
static atomic_ulong failed, succeeded;
/* Handles of all kinds, shared by the threads, also after they were freed. */
static _Atomic uint64_t handles[HANDLES];

static uint64_t draw(uint64_t *state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static void fail(const char *what, int status) {
  atomic_fetch_add(&failed, 1);
  fprintf(stderr, "calls: %s: status %d\n", what, status);
}

/* Mostly a handle that is or was one; now and then one that never was. */
static uint64_t handle(uint64_t *state) {
  switch (draw(state) % 16) {
    case 0: return 0;
    case 1: return draw(state);
    case 2: return handles[draw(state) % HANDLES] ^ (uint64_t)1 << draw(state) % 64;
    default: return handles[draw(state) % HANDLES];
  }
}

static void put(uint64_t *state, uint64_t made) {
  /* What it takes the place of is freed: it may be in use by another thread. */
  vlog_free(atomic_exchange(&handles[draw(state) % HANDLES], made));
}

static void check(const char *what, vlog_status status, vlog_error *error, uint64_t *state) {
  if (vlog_status_name(status) == NULL || status == VLOG_INTERNAL) fail(what, status);
  atomic_fetch_add(&succeeded, status == VLOG_OK);
  if (error == NULL) return;
  if (status == VLOG_OK) {
    if (error->owner != 0 || error->status != VLOG_OK) fail("an error where there is none", error->status);
    return;
  }
  if (error->status != status || error->message == NULL || error->message[0] == 0) fail("no message", status);
  vlog_free(error->owner);
  if (draw(state) % 4 == 0) vlog_free(error->owner);
}

static void url(uint64_t *state, char *text, size_t size, bool store) {
  const unsigned name = (unsigned)(draw(state) % 3);
  switch (draw(state) % 6) {
    case 0: snprintf(text, size, store ? "file:%s/store/" : "file:%s/store/log-%u", folder, name); break;
    case 1: snprintf(text, size, "%s", store ? "memory:/" : ""); break;
    case 2: snprintf(text, size, "no-scheme:%u", name); break;
    default: snprintf(text, size, store ? "memory:/" : "memory:calls-%u", name); break;
  }
}

/* How a call is made: waiting, or by some queue. `where` are results that live as long as the program. */
static const vlog_call *how(uint64_t *state, vlog_call *call) {
  memset(call, 0, sizeof *call);
  switch (draw(state) % 8) {
    case 0: return NULL;
    case 1: call->queue = handle(state); break;
    case 2: call->timeout_ms = -(int64_t)(draw(state) % 4); break;
    default: break;
  }
  if (call->timeout_ms == 0) call->timeout_ms = 1 + (int64_t)(draw(state) % 50);
  call->context = draw(state);
  return call;
}

/* Where results go that a queue may write later, by whichever thread takes them: it lives as long as the
 * program, and nobody looks at it. */
static struct {
  uint64_t number;
  vlog_tail tail;
  vlog_trimmed trimmed;
  vlog_appended appended;
} later;

/* Where those go that are waited for. */
static _Thread_local union {
  vlog_resolved resolved;
  vlog_names names;
  vlog_chain chain;
  vlog_plan plan;
  vlog_report report;
} result;

/* One that owns something is asked for by waiting alone, and freed, now and then twice. */
static void owned(uint64_t owner, vlog_status status, uint64_t *state) {
  if (status != VLOG_OK) return;
  vlog_free(owner);
  if (draw(state) % 4 == 0) vlog_free(owner);
}

static void of_stores(uint64_t *state, vlog_error *e) {
  char text[600];
  const char *given = draw(state) % 16 == 0 ? NULL : text;
  uint64_t made = 0;
  vlog_call call;
  vlog_status status;
  url(state, text, sizeof text, false);
  switch (draw(state) % 8) {
    case 0:
      status = vlog_create(given, draw(state) % 2 ? NULL : "no-such-kind", how(state, &call), e);
      break;
    case 1: status = vlog_delete(given, how(state, &call), e); break;
    case 2:
      url(state, text, sizeof text, true);
      status = vlog_logs(given, NULL, &result.names, e);
      owned(result.names.owner, status, state);
      break;
    case 3:
      status = vlog_queue_new(draw(state) % 8 ? &made : NULL, e);
      if (status == VLOG_OK) put(state, made);
      break;
    default: {
      vlog_options options = {draw(state) % 4 == 0, draw(state) % 8 == 0, NULL, (int64_t)(draw(state) % 1000),
                              draw(state) % 3 ? 0 : 1 + (size_t)(draw(state) % 5000), 0};
      status = vlog_open(given, draw(state) % 2 ? &options : NULL, NULL, draw(state) % 8 ? &made : NULL, e);
      if (status == VLOG_OK && made != 0) put(state, made);
    }
  }
  check("of a store", status, e, state);
}

static void of_appends(uint64_t *state, vlog_error *e) {
  static const uint8_t bytes[4096];
  vlog_slice slices[40];
  vlog_call call;
  vlog_status status;
  uint64_t made;
  const uint8_t *data = draw(state) % 16 == 0 ? NULL : bytes;
  const size_t len = draw(state) % sizeof bytes;
  switch (draw(state) % 6) {
    case 0:
      for (size_t i = 0; i < 40; i++) slices[i] = (vlog_slice){draw(state) % 64 ? bytes : NULL, draw(state) % 99};
      status = vlog_append_many(handle(state), draw(state) % 8 ? slices : NULL, draw(state) % 41, how(state, &call),
                                draw(state) % 2 ? &later.number : NULL, e);
      break;
    case 1: status = vlog_append_nowait(handle(state), data, len, how(state, &call), &later.number, e); break;
    case 2:
      status = vlog_pipeline_new(handle(state), 100, draw(state) % 8 ? &made : NULL, e);
      if (status == VLOG_OK) put(state, made);
      break;
    case 3: status = vlog_pipeline_push(handle(state), data, len, e); break;
    case 4: status = vlog_pipeline_finish(handle(state), how(state, &call), &later.appended, e); break;
    default: status = vlog_append(handle(state), data, len, how(state, &call), draw(state) % 2 ? &later.number : NULL, e);
  }
  check("of appends", status, e, state);
}

static void of_readers(uint64_t *state, vlog_error *e) {
  static const uint64_t starts[] = {0, 1, 7, 100, VLOG_FIRST, VLOG_TAIL, 1ull << 63};
  const uint64_t start = starts[draw(state) % 7], end = starts[draw(state) % 7];
  const vlog_call brief = {1, 0, 0, NULL};
  uint64_t made = 0;
  vlog_call call;
  vlog_batch batch;
  vlog_status status;
  switch (draw(state) % 6) {
    case 0: status = vlog_read(handle(state), start, end, NULL, draw(state) % 8 ? &made : NULL, e); break;
    case 1: status = vlog_subscribe(handle(state), start, NULL, &made, e); break;
    case 2:
      status = vlog_read_next(handle(state), start, end, NULL, &batch, e);
      owned(batch.owner, status, state);
      break;
    case 3: status = vlog_reader_position(handle(state), draw(state) % 8 ? &later.number : NULL, e); break;
    case 4:
      vlog_reader_close(handle(state));
      status = vlog_flush(handle(state), how(state, &call), e);
      break;
    default:
      status = vlog_reader_next(handle(state), draw(state) % 50, &brief, &batch, e);
      if (status == VLOG_OK && batch.len > 0 && batch.entries[batch.len - 1].len > 4096) fail("a long entry", 0);
      owned(batch.owner, status, state);
      made = 0;
  }
  if (status == VLOG_OK && made != 0) put(state, made);
  check("of readers", status, e, state);
}

static void of_shape(uint64_t *state, vlog_error *e) {
  const vlog_log log = handle(state);
  const char *loglet = draw(state) % 4 == 0 ? "no-such-kind" : draw(state) % 8 == 0 ? NULL : "memory";
  const uint64_t version = draw(state) % 2 ? VLOG_LAST_SEEN : draw(state) % 9;
  vlog_call call;
  vlog_status status;
  switch (draw(state) % 12) {
    case 0: status = vlog_check_tail(log, how(state, &call), &later.tail, e); break;
    case 1: status = vlog_first(log, how(state, &call), &later.number, e); break;
    case 2: status = vlog_prefix_trim(log, draw(state) % 200, how(state, &call), &later.trimmed, e); break;
    case 3: status = draw(state) % 16 ? VLOG_OK : vlog_seal(log, NULL, &later.tail, NULL), e = NULL; break;
    case 4: status = vlog_resolve(log, draw(state) % 2 ? "1.2.3" : "ab.0.0.0", NULL, &result.resolved, e); break;
    case 5: status = vlog_close(log, how(state, &call), e); break;
    case 6:
      status = vlog_get_plan(log, loglet, NULL, &result.plan, e);
      owned(result.plan.owner, status, state);
      break;
    case 7:
      status = vlog_verify(log, NULL, &result.report, e);
      owned(result.report.owner, status, state);
      break;
    case 8:
      status = vlog_reconfig_modify(log, draw(state) % 3, loglet, version, NULL, &result.chain, e);
      owned(result.chain.owner, status, state);
      break;
    case 9:
      status = vlog_reconfig_truncate(log, version, NULL, &result.chain, e);
      owned(result.chain.owner, status, state);
      break;
    case 10:
      status = vlog_reconfig_extend(log, loglet, version, NULL, &result.chain, e);
      owned(result.chain.owner, status, state);
      break;
    default:
      status = vlog_get_chain(log, NULL, &result.chain, e);
      owned(result.chain.owner, status, state);
  }
  check("of the shape", status, e, state);
}

static void of_handles(uint64_t *state, vlog_error *e) {
  vlog_completion completions[8];
  size_t count = 0;
  vlog_status status = VLOG_OK;
  switch (draw(state) % 8) {
    case 0: vlog_free(handle(state)); break;
    case 1: vlog_log_timeout_ms(handle(state)); break;
    case 2:
      if (vlog_server_url(handle(state)) != NULL) fail("a server where there is none", 0);
      break;
    case 3: vlog_queue_cancel(handle(state), draw(state) % 100); break;
    case 4: draw(state) % 8 ? (void)vlog_queue_fd(handle(state)) : vlog_queue_close(handle(state)); break;
    default:
      status = vlog_queue_next(handle(state), draw(state) % 8 ? completions : NULL, draw(state) % 9,
                               (int64_t)(draw(state) % 3), &count, e);
      for (size_t i = 0; i < count; i++) check("a completion", completions[i].status, &completions[i].error, state);
      check("of a queue", status, e, state);
      return;
  }
}

/* Of a server and a cluster there are none: what is asked of them is asked of other handles. */
static void of_clusters(uint64_t *state, vlog_error *e) {
  static const char *const levels[] = {NULL, "debug", "warn", "loud"};
  const char *const addresses[] = {draw(state) % 2 ? "127.0.0.1:99999" : NULL, "127.0.0.1:1"};
  const vlog_call brief = {5, 0, 0, NULL};
  char from[600], to[600], id[33];
  uint64_t made = 0;
  uint32_t number;
  vlog_diagnostic_batch told = {0, NULL, 0, 0};
  vlog_cluster cluster;
  vlog_local_nodes local;
  vlog_move_step step;
  vlog_call call;
  vlog_status status;
  url(state, from, sizeof from, false);
  url(state, to, sizeof to, draw(state) % 4 == 0);
  switch (draw(state) % 14) {
    case 0: status = vlog_server_node(handle(state), draw(state) % 8 ? &number : NULL, e); break;
    case 1: status = vlog_server_cluster(handle(state), draw(state) % 8 ? id : NULL, e); break;
    case 2: status = vlog_server_ready(handle(state), how(state, &call), e); break;
    case 3: status = vlog_server_close(handle(state), how(state, &call), e); break;
    case 4:
      status = vlog_init(draw(state) % 4 ? addresses : NULL, draw(state) % 3, &brief, &cluster, e);
      owned(cluster.owner, status, state);
      break;
    case 5:
      status = vlog_nodes(from, &brief, &cluster, e);
      owned(cluster.owner, status, state);
      break;
    case 6: status = vlog_drain(draw(state) % 4 ? from : NULL, (uint32_t)draw(state), &brief, e); break;
    case 7:
      status = vlog_move_start(draw(state) % 8 ? from : NULL, to, draw(state) % 2, draw(state) % 8 ? &made : NULL, e);
      break;
    case 8:
      step.phase = VLOG_MOVE_OTHER;
      status = vlog_move_next(handle(state), &brief, &step, e);
      if (status == VLOG_OK && step.phase == VLOG_MOVE_DONE) owned(step.chain.owner, status, state);
      break;
    case 9: status = vlog_local_cluster_start(0, NULL, how(state, &call), &later.number, e); break;
    case 10: status = vlog_local_cluster_stop(handle(state), 1, how(state, &call), e); break;
    case 11: status = vlog_diagnostics_start(levels[draw(state) % 4], draw(state) % 8 ? &made : NULL, e); break;
    case 12:
      if (vlog_local_cluster_url(handle(state)) != NULL) fail("a cluster where there is none", 0);
      if (vlog_local_cluster_nodes(handle(state), draw(state) % 2 ? &local : NULL, NULL) == VLOG_OK) {
        fail("nodes of a cluster where there is none", 0);
      }
      status = vlog_local_cluster_restart(handle(state), 2, how(state, &call), e);
      break;
    default:
      vlog_diagnostics_fd(handle(state));
      status = vlog_diagnostics_next(handle(state), (int64_t)(draw(state) % 4) - 2, &told, e);
      owned(told.owner, status, state);
  }
  if (status == VLOG_OK && made != 0) put(state, made);
  check("of clusters", status, e, state);
}

static void *calls(void *argument) {
  uint64_t *plan = argument;
  uint64_t state = plan[0];
  for (uint64_t i = 0; i < plan[1]; i++) {
    vlog_error error, *e = draw(&state) % 4 ? &error : NULL;
    switch (draw(&state) % 13) {
      case 12: of_clusters(&state, e); break;
      case 0: of_stores(&state, e); break;
      case 1: case 2: of_shape(&state, e); break;
      case 3: case 4: of_readers(&state, e); break;
      case 5: case 6: of_handles(&state, e); break;
      default: of_appends(&state, e);
    }
  }
  return NULL;
}

/* In a child every handle of the parent is dead, and new ones are not. */
static int in_child(void) {
  uint64_t log = 0;
  for (size_t i = 0; i < HANDLES; i++) {
    vlog_tail tail;
    if (handles[i] != 0 && vlog_check_tail(handles[i], NULL, &tail, NULL) != VLOG_CLOSED) return 1;
    vlog_free(handles[i]);
  }
  if (vlog_open("memory:in-the-child", NULL, NULL, &log, NULL) != VLOG_OK) return 2;
  if (vlog_append(log, (const uint8_t *)"x", 1, NULL, NULL, NULL) != VLOG_OK) return 3;
  return vlog_close(log, NULL, NULL) == VLOG_OK ? 0 : 4;
}

/*
 * Ends a child. Under valgrind by way of another program: what the threads of the parent held is lost in it, as
 * nobody else's fault, and valgrind would call that leaks; its other findings count.
 */
static void end_child(int status) {
#ifdef RUNNING_ON_VALGRIND
  if (RUNNING_ON_VALGRIND) {
    if (status == 0 && VALGRIND_COUNT_ERRORS > 0) status = 9;
    execl("/bin/sh", "sh", "-c", status == 0 ? "exit 0" : status == 9 ? "exit 9" : "exit 1", (char *)NULL);
  }
#endif
  _exit(status);
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  snprintf(folder, sizeof folder, "%s", argv[1]);
  const uint64_t seed = strtoull(argv[2], NULL, 10), total = strtoull(argv[3], NULL, 10);
  pthread_t threads[THREADS];
  uint64_t plans[THREADS][2];
  for (uint64_t i = 0; i < THREADS; i++) {
    plans[i][0] = seed * 1000 + i;
    plans[i][1] = total / THREADS;
    if (pthread_create(&threads[i], NULL, calls, plans[i]) != 0) return 2;
  }
  for (size_t i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  const pid_t child = fork();
  if (child == 0) end_child(in_child());
  int status;
  if (waitpid(child, &status, 0) != child || status != 0) fail("in a child", status);
  for (size_t i = 0; i < HANDLES; i++) vlog_free(handles[i]);
  fprintf(stderr, "calls: %lu succeeded\n", atomic_load(&succeeded));
  if (atomic_load(&succeeded) < total / 10) fail("hardly any call succeeded, so little was tried", 0);
  printf("%llu calls, %lu failed\n", (unsigned long long)(total / THREADS * THREADS), atomic_load(&failed));
  return atomic_load(&failed) == 0 ? 0 : 1;
}
