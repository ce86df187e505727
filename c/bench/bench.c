/*
 * Measures the C library, in turns with Rust: `main.rs` compares.
 *
 *     bench URL
 *     bench URL growth OPERATIONS
 *
 * The first takes a line `NAME SECONDS` from standard input, measures that figure for so long, answers with the
 * figure on a line, and waits for the next. Rates are entries of 100 bytes a second; `one` is a median in
 * microseconds. The growth is that of the process over so many appends and as many entries read, after a tenth of it
 * before, in bytes.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "virtuallog.h"

enum { PAYLOAD = 100, BATCH = 1000, IN_FLIGHT = 1024, TIMES_MAX = 1 << 20 };

static const uint8_t payload[PAYLOAD];
static vlog_error error;

static void check(vlog_status status) {
  if (status == VLOG_OK) return;
  fprintf(stderr, "bench: %s: %s\n", vlog_status_name(status), error.message ? error.message : "");
  exit(1);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int rising(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double one(vlog_log log, double seconds) {
  static double times[TIMES_MAX];
  size_t count = 0;
  for (double start = now(), before = start; before - start < seconds && count < TIMES_MAX;) {
    check(vlog_append(log, payload, PAYLOAD, NULL, NULL, &error));
    const double after = now();
    times[count++] = (after - before) * 1e6;
    before = after;
  }
  qsort(times, count, sizeof *times, rising);
  return times[count / 2];
}

static double pipelined(vlog_log log, double seconds) {
  vlog_queue queue;
  vlog_completion told[256];
  check(vlog_queue_new(&queue, &error));
  const vlog_call call = {0, queue, 0, NULL};
  size_t under_way = 0, count = 0, taken = 0;
  const double start = now();
  for (int over = 0; !over || under_way > 0;) {
    for (over = now() - start >= seconds; !over && under_way < IN_FLIGHT; under_way++) {
      check(vlog_append(log, payload, PAYLOAD, &call, NULL, &error));
    }
    check(vlog_queue_next(queue, told, 256, VLOG_FOREVER, &taken, &error));
    for (size_t i = 0; i < taken; i++) check(told[i].status);
    under_way -= taken;
    count += taken;
  }
  const double rate = (double)count / (now() - start);
  vlog_free(queue);
  return rate;
}

static double pushed(vlog_log log, double seconds) {
  vlog_pipeline pipeline;
  vlog_appended appended;
  check(vlog_pipeline_new(log, 0, &pipeline, &error));
  const double start = now();
  while (now() - start < seconds) {
    for (int i = 0; i < 64; i++) check(vlog_pipeline_push(pipeline, payload, PAYLOAD, &error));
  }
  check(vlog_pipeline_finish(pipeline, NULL, &appended, &error));
  const double rate = (double)appended.count / (now() - start);
  vlog_free(pipeline);
  return rate;
}

static double many(vlog_log log, double seconds) {
  vlog_slice batch[BATCH];
  size_t count = 0;
  for (size_t i = 0; i < BATCH; i++) batch[i] = (vlog_slice){payload, PAYLOAD};
  const double start = now();
  for (; now() - start < seconds; count += BATCH) {
    check(vlog_append_many(log, batch, BATCH, NULL, NULL, &error));
  }
  return (double)count / (now() - start);
}

/* Follows the log from its first entry, again and again. */
static double subscribed(vlog_log log, double seconds) {
  vlog_tail tail;
  size_t count = 0;
  check(vlog_check_tail(log, NULL, &tail, &error));
  const double start = now();
  while (now() - start < seconds) {
    vlog_reader reader;
    check(vlog_subscribe(log, VLOG_FIRST, NULL, &reader, &error));
    for (uint64_t next = 0; next < tail.position && now() - start < seconds;) {
      vlog_batch batch;
      check(vlog_reader_next(reader, 1024, NULL, &batch, &error));
      for (size_t i = 0; i < batch.len; i++) count += batch.entries[i].len == PAYLOAD;
      next = batch.entries[batch.len - 1].position + 1;
      vlog_free(batch.owner);
    }
    vlog_free(reader);
  }
  return (double)count / (now() - start);
}

/* The most that the process ever held, in bytes. */
static double held_most(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return (double)usage.ru_maxrss * 1024;
}

/* Appends so many entries, pipelined, reads each and trims it. */
static void work(vlog_log log, size_t operations) {
  vlog_queue queue;
  vlog_completion told[IN_FLIGHT];
  check(vlog_queue_new(&queue, &error));
  const vlog_call call = {0, queue, 0, NULL};
  for (size_t done = 0; done < operations; done += IN_FLIGHT) {
    uint64_t last = 0;
    for (size_t i = 0; i < IN_FLIGHT; i++) check(vlog_append(log, payload, PAYLOAD, &call, NULL, &error));
    for (size_t under_way = IN_FLIGHT, taken; under_way > 0; under_way -= taken) {
      check(vlog_queue_next(queue, told, IN_FLIGHT, VLOG_FOREVER, &taken, &error));
      for (size_t i = 0; i < taken; i++) {
        check(told[i].status);
        if (told[i].value > last) last = told[i].value;
      }
    }
    vlog_reader reader;
    vlog_batch batch;
    vlog_trimmed trimmed;
    size_t seen = 0;
    check(vlog_read(log, last + 1 - IN_FLIGHT, VLOG_TAIL, NULL, &reader, &error));
    do {
      check(vlog_reader_next(reader, 100, NULL, &batch, &error));
      seen += batch.len;
      vlog_free(batch.owner);
    } while (batch.len > 0);
    vlog_free(reader);
    if (seen != IN_FLIGHT) exit(1);
    check(vlog_prefix_trim(log, last + 1, NULL, &trimmed, &error));
  }
  vlog_free(queue);
}

static const struct {
  const char *name;
  double (*measure)(vlog_log log, double seconds);
} figures[] = {
    {"one", one}, {"pipelined", pipelined}, {"pushed", pushed}, {"many", many}, {"subscribed", subscribed},
};

/* Gives the figure of that name. */
static double measured(const char *name, vlog_log log, double seconds) {
  for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
    if (strcmp(figures[i].name, name) == 0) return figures[i].measure(log, seconds);
  }
  fprintf(stderr, "bench: there is no figure `%s`\n", name);
  exit(2);
}

int main(int argc, char **argv) {
  vlog_log log;
  if (argc < 2) return 2;
  check(vlog_open(argv[1], NULL, NULL, &log, &error));
  if (argc == 4 && strcmp(argv[2], "growth") == 0) {
    const size_t operations = strtoull(argv[3], NULL, 10);
    work(log, operations / 10);
    const double before = held_most();
    work(log, operations);
    printf("%f\n", held_most() - before);
  } else {
    char name[16];
    double seconds;
    while (scanf("%15s %lf", name, &seconds) == 2) {
      printf("%f\n", measured(name, log, seconds));
      fflush(stdout);
    }
  }
  check(vlog_close(log, NULL, &error));
  vlog_free(log);
  return 0;
}
