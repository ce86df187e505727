/* Quickstart: write to a durable log, swap its engine, read everything back. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <virtuallog.h>

static vlog_error error;

static void check(vlog_status status) {
  if (status == VLOG_OK) return;
  fprintf(stderr, "%s: %s\n", vlog_status_name(status), error.message);
  exit(1);
}

int main(int argc, char **argv) {
  vlog_log log;
  check(vlog_open(argc > 1 ? argv[1] : "file:quickstart-data/fruit", NULL, NULL, &log, &error));

  check(vlog_append(log, (const uint8_t *)"apples", 6, NULL, NULL, &error));
  const vlog_slice batch[] = {{(const uint8_t *)"pears", 5}, {(const uint8_t *)"plums", 5}};
  check(vlog_append_many(log, batch, 2, NULL, NULL, &error)); /* one batch: all or nothing */
  check(vlog_reconfig_extend(log, "local", VLOG_LAST_SEEN, NULL, NULL, &error)); /* another engine, while in use */
  check(vlog_append(log, (const uint8_t *)"quinces", 7, NULL, NULL, &error));

  vlog_reader reader;
  check(vlog_read(log, 0, VLOG_TAIL, NULL, &reader, &error));
  vlog_batch entries;
  do {
    check(vlog_reader_next(reader, 100, NULL, &entries, &error));
    for (size_t i = 0; i < entries.len; i++) {
      printf("%.*s\n", (int)entries.entries[i].len, (const char *)entries.entries[i].data);
    }
    vlog_free(entries.owner);
  } while (entries.len > 0);
  vlog_free(reader);

  vlog_tail tail;
  check(vlog_check_tail(log, NULL, &tail, &error));
  printf("tail %" PRIu64 "\n", tail.position);
  check(vlog_close(log, NULL, &error));
  vlog_free(log);
  return 0;
}
