/*
 * A client of the demo in C: appends numbered entries until it is told to end.
 *
 *     writer URL NAME
 *
 * `writer.py` says what a writer in any language does. This one has an event loop of its own: it waits for its
 * queue and for its standard input at once.
 */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <virtuallog.h>

#define IN_FLIGHT 256

static vlog_error error;

static void check(vlog_status status, const char *message) {
  if (status == VLOG_OK) return;
  fprintf(stderr, "%s: %s\n", vlog_status_name(status), message ? message : "");
  exit(1);
}

/* The positions, by the number of the entry. */
static uint64_t *positions;
static size_t submitted, answered, room;

static void submit(vlog_log log, vlog_queue queue, const char *name) {
  char entry[256];
  if (submitted == room) {
    room = room ? room * 2 : 1024;
    positions = realloc(positions, room * sizeof *positions);
    if (positions == NULL) abort();
  }
  const int len = snprintf(entry + 1, sizeof entry - 1, "%s %zu", name, submitted);
  entry[0] = 0;
  /* The array moves as it grows: the position is taken from the completion. */
  const vlog_call call = {.queue = queue, .context = submitted++};
  check(vlog_append(log, (const uint8_t *)entry, (size_t)len + 1, &call, NULL, &error), error.message);
}

static void take(vlog_queue queue) {
  vlog_completion done[64];
  size_t count;
  check(vlog_queue_next(queue, done, 64, 0, &count, &error), error.message);
  for (size_t i = 0; i < count; i++) {
    check(done[i].status, done[i].error.message);
    positions[done[i].context] = done[i].value;
  }
  if (answered == 0 && count > 0) {
    puts("writing");
    fflush(stdout);
  }
  answered += count;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  vlog_log log;
  vlog_queue queue;
  check(vlog_open(argv[1], NULL, NULL, &log, &error), error.message);
  check(vlog_queue_new(&queue, &error), error.message);
  for (int over = 0; !over || answered < submitted;) {
    while (!over && submitted - answered < IN_FLIGHT) submit(log, queue, argv[2]);
    /* A descriptor of -1 is not looked at. */
    struct pollfd readable[] = {{vlog_queue_fd(queue), POLLIN, 0}, {over ? -1 : STDIN_FILENO, POLLIN, 0}};
    if (poll(readable, 2, -1) < 0) return 1;
    char ignored[256];
    if (readable[1].revents != 0 && read(STDIN_FILENO, ignored, sizeof ignored) <= 0) over = 1;
    if (readable[0].revents != 0) take(queue);
  }
  putchar('[');
  for (size_t i = 0; i < submitted; i++) printf("%s%" PRIu64, i ? ", " : "", positions[i]);
  puts("]");
  vlog_free(queue);
  check(vlog_close(log, NULL, &error), error.message);
  vlog_free(log);
  free(positions);
  return 0;
}
