/* Live swap: replace the engine under a log that is in use, and lose nothing. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include <virtuallog.h>

#define NUMBERS 1000

static vlog_error error;

static void check(vlog_status status) {
  if (status == VLOG_OK) return;
  fprintf(stderr, "%s: %s\n", vlog_status_name(status), error.message);
  exit(1);
}

/* Submits the numbers; their positions come when the queue is asked. */
static void submit(vlog_log log, vlog_queue queue, int from, int to, uint64_t *positions) {
  for (int number = from; number < to; number++) {
    char text[16];
    const int len = snprintf(text, sizeof text, "%d", number);
    const vlog_call call = {.queue = queue};
    check(vlog_append(log, (const uint8_t *)text, (size_t)len, &call, &positions[number], &error));
  }
}

static const char *word(bool holds) { return holds ? "yes" : "no"; }

int main(int argc, char **argv) {
  static uint64_t positions[NUMBERS];
  vlog_log log;
  vlog_queue queue;
  vlog_chain chain;
  check(vlog_open(argc > 1 ? argv[1] : "file:live-swap-data/numbers", NULL, NULL, &log, &error));
  check(vlog_queue_new(&queue, &error));

  submit(log, queue, 0, NUMBERS / 2, positions);
  check(vlog_reconfig_extend(log, "local", VLOG_LAST_SEEN, NULL, NULL, &error)); /* while they are under way */
  submit(log, queue, NUMBERS / 2, NUMBERS, positions);
  check(vlog_reconfig_extend(log, "local", VLOG_LAST_SEEN, NULL, &chain, &error));
  size_t appended = 0;
  while (appended < NUMBERS) {
    vlog_completion done[64];
    size_t count;
    check(vlog_queue_next(queue, done, 64, VLOG_FOREVER, &count, &error));
    for (size_t i = 0; i < count; i++) check(done[i].status);
    appended += count;
  }
  vlog_free(queue);

  bool in_order = true;
  for (int number = 1; number < NUMBERS; number++) in_order &= positions[number - 1] < positions[number];
  printf("%zu segments\n", chain.segments_len);
  printf("%zu appended, in order: %s\n", appended, word(in_order));
  vlog_free(chain.owner);

  vlog_reader reader;
  vlog_batch batch;
  int read = 0;
  in_order = true;
  check(vlog_read(log, 0, VLOG_TAIL, NULL, &reader, &error));
  do {
    check(vlog_reader_next(reader, 100, NULL, &batch, &error));
    for (size_t i = 0; i < batch.len; i++) {
      char text[16];
      snprintf(text, sizeof text, "%.*s", (int)batch.entries[i].len, (const char *)batch.entries[i].data);
      in_order &= atoi(text) == read++;
    }
    vlog_free(batch.owner);
  } while (batch.len > 0);
  printf("%d read, in order: %s\n", read, word(in_order));
  vlog_free(reader);
  check(vlog_close(log, NULL, &error));
  vlog_free(log);
  return 0;
}
