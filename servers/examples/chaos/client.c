/*
 * The client in C: appends, looks, follows, and says what it saw, as `CLIENTS.md` has it. Each of these is a
 * thread of its own, whose calls wait; a round of appends is under way in a queue at once.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <virtuallog.h>

#define VALUES_MAX 1000000000ull
#define DIGITS 20
#define COPIES_MAX 25
#define PAYLOAD_MAX (DIGITS * COPIES_MAX)
#define ROUND_MAX 16
#define RESOLVE_MAX_MS 10000
/* Between two tail checks, and after how many of them entries are read. */
#define LOOK_MS 100
#define READ_EVERY 5
#define READ_MAX 64
/* After a failure of a subscription, and how soon it is seen there that all is over. */
#define PAUSE_MS 50
#define TURN_MS 500

static vlog_log shared_log;
static uint64_t number, rounds_per_s, values;
static pthread_mutex_t ending = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ends;
static atomic_bool ended;

/* What has no place in a history: the client ends, and is found by that. */
static void must(vlog_status status, const vlog_error *error) {
  if (status == VLOG_OK) return;
  fprintf(stderr, "%s: %s\n", vlog_status_name(status), error->message ? error->message : "");
  exit(1);
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* Returns sooner when all is over. */
static void pause_until(uint64_t due) {
  const struct timespec at = {.tv_sec = (time_t)(due / 1000000000), .tv_nsec = (long)(due % 1000000000)};
  pthread_mutex_lock(&ending);
  while (!ended && pthread_cond_timedwait(&ends, &ending, &at) == 0) {
  }
  pthread_mutex_unlock(&ending);
}

static size_t payload(uint64_t value, char out[PAYLOAD_MAX + 1]) {
  const size_t copies = 1 + value % COPIES_MAX;
  for (size_t i = 0; i < copies; i++) sprintf(out + i * DIGITS, "%0*" PRIu64, DIGITS, value);
  return copies * DIGITS;
}

static bool value_of(const vlog_entry *entry, uint64_t *value) {
  char digits[DIGITS + 1] = "", wanted[PAYLOAD_MAX + 1];
  if (entry->len < DIGITS) return false;
  memcpy(digits, entry->data, DIGITS);
  *value = strtoull(digits, NULL, 10);
  return payload(*value, wanted) == entry->len && memcmp(wanted, entry->data, entry->len) == 0;
}

/* Lines are said whole: between these two nobody else says anything. */
static void say(const char *op) {
  flockfile(stdout);
  printf("{\"op\":\"%s\"", op);
}

static void said(void) {
  puts("}");
  funlockfile(stdout);
}

static void field(const char *name, uint64_t is) { printf(",\"%s\":%" PRIu64, name, is); }

static void truth(const char *name, bool is) { printf(",\"%s\":%s", name, is ? "true" : "false"); }

static void words(const char *name, const char *are) {
  printf(",\"%s\":\"", name);
  for (const char *at = are ? are : ""; *at; at++) {
    if ((unsigned char)*at < ' ') printf("\\u%04x", (unsigned)*at);
    else if (*at == '"' || *at == '\\') printf("\\%c", *at);
    else putchar(*at);
  }
  putchar('"');
}

static void fails(uint64_t from, const char *call, vlog_error *error) {
  say("error");
  field("from", from), field("to", now());
  words("call", call), words("error", vlog_status_name(error->status)), words("message", error->message);
  said();
  vlog_free(error->owner);
}

/* Looks an append up if it is in doubt, and says what came of it. */
static void settle(uint64_t from, uint64_t value, size_t count, vlog_status status, uint64_t first, vlog_error *error) {
  bool resolved = false, in_doubt = status != VLOG_OK && error->in_doubt, acked = status == VLOG_OK;
  if (in_doubt && error->token != NULL) {
    const vlog_call call = {.timeout_ms = RESOLVE_MAX_MS};
    vlog_resolved found;
    resolved = vlog_resolve(shared_log, error->token, &call, &found, NULL) == VLOG_OK;
    if (resolved) in_doubt = false, acked = found.found, first = found.position;
  }
  const uint64_t to = now();
  for (size_t i = 0; i < count; i++) {
    say("append");
    field("from", from), field("to", to), field("value", value + i);
    if (acked) {
      field("position", first + i);
    } else {
      words("error", vlog_status_name(status)), words("message", error->message), truth("in_doubt", in_doubt);
    }
    if (resolved) truth("resolved", true);
    said();
  }
  if (status != VLOG_OK) vlog_free(error->owner);
}

static void append_many(size_t count) {
  char bytes[ROUND_MAX][PAYLOAD_MAX + 1];
  vlog_slice slices[ROUND_MAX];
  const uint64_t value = values;
  for (size_t i = 0; i < count; i++) slices[i] = (vlog_slice){(uint8_t *)bytes[i], payload(values++, bytes[i])};
  const uint64_t from = now();
  uint64_t first = 0;
  vlog_error error;
  const vlog_status status = vlog_append_many(shared_log, slices, count, NULL, &first, &error);
  settle(from, value, count, status, first, &error);
}

static void append_some(vlog_queue queue, size_t count) {
  const uint64_t value = values;
  uint64_t from[ROUND_MAX];
  vlog_error error;
  size_t under_way = 0;
  for (size_t i = 0; i < count; i++) {
    char bytes[PAYLOAD_MAX + 1];
    const size_t len = payload(values++, bytes);
    const vlog_call call = {.queue = queue, .context = i};
    from[i] = now();
    const vlog_status status = vlog_append(shared_log, (uint8_t *)bytes, len, &call, NULL, &error);
    if (status == VLOG_OK) under_way++;
    else settle(from[i], value + i, 1, status, 0, &error);
  }
  while (under_way > 0) {
    vlog_completion done[ROUND_MAX];
    size_t taken;
    must(vlog_queue_next(queue, done, ROUND_MAX, VLOG_FOREVER, &taken, &error), &error);
    for (size_t i = 0; i < taken; i++) {
      vlog_completion *it = &done[i];
      settle(from[it->context], value + it->context, 1, it->status, it->value, &it->error);
    }
    under_way -= taken;
  }
}

static void *appends(void *queue) {
  unsigned random = (unsigned)number;
  values = number * VALUES_MAX;
  uint64_t due = now();
  while (!ended) {
    if (rand_r(&random) % 100 < 12) append_many(2 + (size_t)rand_r(&random) % 7);
    else append_some(*(vlog_queue *)queue, 1 + (size_t)rand_r(&random) % ROUND_MAX);
    due += 1000000000 / rounds_per_s;
    if (due < now()) due = now();
    pause_until(due);
  }
  return NULL;
}

/* Takes a batch, from where it was to go on. Returns where it goes on now. */
static uint64_t saw(uint64_t from, uint64_t after, const vlog_batch *batch) {
  const uint64_t to = now();
  for (size_t i = 0; i < batch->len; i++) {
    const vlog_entry *entry = &batch->entries[i];
    uint64_t value;
    if (value_of(entry, &value)) {
      say("entry");
      field("from", from), field("to", to), field("position", entry->position), field("value", value);
      field("after", after);
    } else {
      say("alien");
      field("position", entry->position);
    }
    said();
    after = entry->position + 1;
  }
  return after;
}

/* Says why reading went no further than `after`, and gives where it goes on. */
static uint64_t lost(uint64_t from, uint64_t after, const char *call, vlog_error *error) {
  if (error->status != VLOG_TRIMMED || !error->has_position) {
    fails(from, call, error);
    return after;
  }
  const uint64_t kept = error->position;
  say("trimmed");
  field("from", from), field("to", now()), field("position", after), field("kept", kept);
  said();
  vlog_free(error->owner);
  return kept > after ? kept : after;
}

static void read_some(uint64_t start, uint64_t end) {
  const uint64_t from = now();
  uint64_t after = start;
  vlog_reader reader;
  vlog_batch batch;
  vlog_error error;
  if (vlog_read(shared_log, start, end, NULL, &reader, &error) != VLOG_OK) {
    lost(from, after, "read", &error);
    return;
  }
  while (vlog_reader_next(reader, READ_MAX, NULL, &batch, &error) == VLOG_OK) {
    const size_t len = batch.len;
    after = saw(from, after, &batch);
    vlog_free(batch.owner);
    if (len > 0) continue;
    say("end");
    field("from", from), field("to", now()), field("position", end), field("after", after);
    said();
    break;
  }
  if (error.status != VLOG_OK) lost(from, after, "read", &error);
  vlog_free(reader);
}

static void *looks(void *nothing) {
  for (uint64_t count = 0; !ended; count++) {
    const uint64_t from = now();
    vlog_tail tail;
    vlog_error error;
    if (vlog_check_tail(shared_log, NULL, &tail, &error) == VLOG_OK) {
      const uint64_t end = tail.position;
      say("tail");
      field("from", from), field("to", now()), field("position", end), truth("sealed", tail.sealed);
      said();
      if (count % READ_EVERY == 0) read_some(end > READ_MAX ? end - READ_MAX : 0, end);
    } else {
      fails(from, "check_tail", &error);
    }
    pause_until(now() + LOOK_MS * 1000000ull);
  }
  return nothing;
}

static void *follows(void *nothing) {
  uint64_t after = 0;
  while (!ended) {
    uint64_t from = now();
    vlog_reader reader = 0;
    vlog_error error;
    vlog_status status = vlog_subscribe(shared_log, after, NULL, &reader, &error);
    while (status == VLOG_OK && !ended) {
      const vlog_call call = {.timeout_ms = TURN_MS};
      vlog_batch batch;
      status = vlog_reader_next(reader, 1024, &call, &batch, &error);
      if (status == VLOG_OK) {
        after = saw(from, after, &batch);
        vlog_free(batch.owner);
        from = now();
      } else if (status == VLOG_DEADLINE) {
        vlog_free(error.owner);
        status = VLOG_OK;
      }
    }
    if (status != VLOG_OK) after = lost(from, after, "subscription", &error);
    vlog_free(reader);
    pause_until(now() + PAUSE_MS * 1000000ull);
  }
  return nothing;
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  number = strtoull(argv[2], NULL, 10);
  rounds_per_s = strtoull(argv[3], NULL, 10);
  if (rounds_per_s == 0) rounds_per_s = 1;
  pthread_condattr_t monotonic;
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init(&ends, &monotonic);
  vlog_error error;
  /* The cluster may be in trouble already. */
  while (vlog_open(argv[1], NULL, NULL, &shared_log, &error) != VLOG_OK) {
    if (!error.retryable) must(error.status, &error);
    vlog_free(error.owner);
    pause_until(now() + PAUSE_MS * 1000000ull);
  }
  vlog_queue queue;
  must(vlog_queue_new(&queue, &error), &error);
  pthread_t threads[3];
  void *(*const jobs[])(void *) = {appends, looks, follows};
  const size_t count = strcmp(argv[4], "follow") == 0 ? 3 : 2;
  for (size_t i = 0; i < count; i++) {
    if (pthread_create(&threads[i], NULL, jobs[i], i == 0 ? &queue : NULL) != 0) return 1;
  }
  char ignored[256];
  while (read(STDIN_FILENO, ignored, sizeof ignored) > 0) {
  }
  pthread_mutex_lock(&ending);
  ended = true;
  pthread_cond_broadcast(&ends);
  pthread_mutex_unlock(&ending);
  for (size_t i = 0; i < count; i++) pthread_join(threads[i], NULL);
  vlog_free(queue);
  must(vlog_close(shared_log, NULL, &error), &error);
  vlog_free(shared_log);
  return fflush(stdout) == 0 ? 0 : 1;
}
