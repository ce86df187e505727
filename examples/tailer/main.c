/* Tailer: follow a log while it is written, stop, and resume where you stopped. */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <virtuallog.h>

static vlog_error error;
static vlog_log log_;

static void check(vlog_status status) {
  if (status == VLOG_OK) return;
  fprintf(stderr, "%s: %s\n", vlog_status_name(status), error.message);
  exit(1);
}

static void *write_lines(void *unused) {
  (void)unused;
  for (int number = 1; number <= 5; number++) {
    char line[32];
    const int len = snprintf(line, sizeof line, "line %d", number);
    if (vlog_append(log_, (const uint8_t *)line, (size_t)len, NULL, NULL, NULL) != VLOG_OK) exit(1);
  }
  return NULL;
}

/* Prints the next entries, waiting until there are that many. */
static void follow(vlog_reader subscription, size_t count) {
  while (count > 0) {
    vlog_batch batch;
    check(vlog_reader_next(subscription, count, NULL, &batch, &error));
    for (size_t i = 0; i < batch.len; i++) {
      printf("%.*s\n", (int)batch.entries[i].len, (const char *)batch.entries[i].data);
    }
    count -= batch.len;
    vlog_free(batch.owner);
  }
}

int main(int argc, char **argv) {
  pthread_t writer; /* just as well another process */
  vlog_reader subscription;
  uint64_t saved; /* what to keep in order to resume */
  check(vlog_open(argc > 1 ? argv[1] : "file:tailer-data/lines", NULL, NULL, &log_, &error));

  check(vlog_subscribe(log_, VLOG_FIRST, NULL, &subscription, &error));
  if (pthread_create(&writer, NULL, write_lines, NULL) != 0) return 1;
  follow(subscription, 3);
  check(vlog_reader_position(subscription, &saved, &error));
  vlog_free(subscription);
  pthread_join(writer, NULL);

  printf("resumed at %" PRIu64 "\n", saved);
  check(vlog_subscribe(log_, saved, NULL, &subscription, &error));
  follow(subscription, 2);
  vlog_free(subscription);
  check(vlog_close(log_, NULL, &error));
  vlog_free(log_);
  return 0;
}
