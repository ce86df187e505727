/* Replicated counter: replicas that play the same log are in the same state. */
#include <stdio.h>
#include <stdlib.h>

#include <virtuallog.h>

static vlog_error error;

static void check(vlog_status status) {
  if (status == VLOG_OK) return;
  fprintf(stderr, "%s: %s\n", vlog_status_name(status), error.message);
  exit(1);
}

/* A replica. What changes it goes through the log, and so does what reads it. */
struct counter {
  vlog_log log;
  vlog_reader played;
  long total;
};

static struct counter replica(vlog_log log) {
  struct counter counter = {log, 0, 0};
  check(vlog_subscribe(log, VLOG_FIRST, NULL, &counter.played, &error));
  return counter;
}

static void add(struct counter *counter, long amount) {
  char text[32];
  const int len = snprintf(text, sizeof text, "%ld", amount);
  check(vlog_append(counter->log, (const uint8_t *)text, (size_t)len, NULL, NULL, &error));
}

static long value(struct counter *counter) {
  vlog_tail tail; /* all that was added before this call */
  uint64_t position;
  check(vlog_check_tail(counter->log, NULL, &tail, &error));
  check(vlog_reader_position(counter->played, &position, &error));
  while (position < tail.position) {
    vlog_batch batch;
    check(vlog_reader_next(counter->played, 100, NULL, &batch, &error));
    for (size_t i = 0; i < batch.len; i++) {
      char text[32];
      snprintf(text, sizeof text, "%.*s", (int)batch.entries[i].len, (const char *)batch.entries[i].data);
      counter->total += atol(text);
    }
    vlog_free(batch.owner);
    check(vlog_reader_position(counter->played, &position, &error));
  }
  return counter->total;
}

int main(int argc, char **argv) {
  const char *url = argc > 1 ? argv[1] : "file:replicated-counter-data/counter";
  vlog_log first, second;
  check(vlog_open(url, NULL, NULL, &first, &error));
  check(vlog_open(url, NULL, NULL, &second, &error));

  /* Two in one process here; each on a machine of its own where the log is on a cluster. */
  struct counter one = replica(first), two = replica(second);
  add(&one, 5);
  add(&two, 10);
  printf("one: %ld\n", value(&one));
  printf("two: %ld\n", value(&two));
  add(&one, -3);
  printf("two: %ld\n", value(&two));
  struct counter late = replica(second);
  printf("one that starts later: %ld\n", value(&late));

  const uint64_t handles[] = {one.played, two.played, late.played, first, second};
  check(vlog_close(first, NULL, &error));
  check(vlog_close(second, NULL, &error));
  for (size_t i = 0; i < sizeof handles / sizeof *handles; i++) vlog_free(handles[i]);
  return 0;
}
