/*
 * Measures the C library: one round of each figure, a line each, `NAME VALUE`, for `main.rs` to compare.
 *
 *     bench URL SECONDS
 *
 * Each figure takes SECONDS. Rates are entries of 100 bytes a second; `one` is the median in microseconds.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
  double *times = malloc(TIMES_MAX * sizeof *times);
  size_t count = 0;
  for (double start = now(), before = start; before - start < seconds && count < TIMES_MAX;) {
    check(vlog_append(log, payload, PAYLOAD, NULL, NULL, &error));
    const double after = now();
    times[count++] = (after - before) * 1e6;
    before = after;
  }
  qsort(times, count, sizeof *times, rising);
  const double median = times[count / 2];
  free(times);
  return median;
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

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  const double seconds = atof(argv[2]);
  vlog_log log;
  check(vlog_open(argv[1], NULL, NULL, &log, &error));
  printf("one %f\n", one(log, seconds));
  printf("pipelined %f\n", pipelined(log, seconds));
  printf("pushed %f\n", pushed(log, seconds));
  printf("many %f\n", many(log, seconds));
  printf("subscribed %f\n", subscribed(log, seconds));
  check(vlog_close(log, NULL, &error));
  vlog_free(log);
  return 0;
}
