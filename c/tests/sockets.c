/*
 * A peer that went is an error and no signal: no socket is written to in the way that ends a program with SIGPIPE.
 *
 *     sockets FOLDER
 *
 * The functions of the system that write so are replaced here, and told apart by what they write to. What is
 * written meanwhile is that of a server and of a client of its, in this process, and of a completion queue. Ends
 * with `N written, N to sockets`.
 */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "virtuallog.h"

static atomic_ulong written, to_sockets;

static void note(int fd) {
  struct stat what;
  atomic_fetch_add(&written, 1);
  if (fstat(fd, &what) == 0 && S_ISSOCK(what.st_mode)) atomic_fetch_add(&to_sockets, 1);
}

ssize_t write(int fd, const void *bytes, size_t len) {
  note(fd);
  return syscall(SYS_write, fd, bytes, len);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  note(fd);
  return syscall(SYS_writev, fd, parts, count);
}

static int failed(const char *what, const vlog_error *error) {
  fprintf(stderr, "sockets: %s: %s\n", what, error->message);
  return 1;
}

int main(int argc, char **argv) {
  char data[512], url[512];
  vlog_error error;
  vlog_server server;
  vlog_server_config config = {0};
  vlog_queue queue;
  vlog_log log;
  vlog_completion told;
  size_t count;
  if (argc != 2) return 2;
  snprintf(data, sizeof data, "%s/server", argv[1]);
  config.data = data;
  if (vlog_server_start(&config, NULL, &server, &error) != VLOG_OK) return failed("a server", &error);
  const char *address = vlog_server_address(server);
  if (vlog_init(&address, 1, NULL, NULL, &error) != VLOG_OK) return failed("a cluster", &error);
  if (vlog_server_ready(server, NULL, &error) != VLOG_OK) return failed("ready", &error);
  snprintf(url, sizeof url, "%slog", vlog_server_url(server));
  if (vlog_open(url, NULL, NULL, &log, &error) != VLOG_OK) return failed("a log", &error);
  if (vlog_queue_new(&queue, &error) != VLOG_OK) return failed("a queue", &error);
  const vlog_call call = {0, queue, 0, NULL};
  for (int i = 0; i < 100; i++) {
    if (vlog_append(log, (const uint8_t *)"x", 1, &call, NULL, &error) != VLOG_OK) return failed("an append", &error);
    if (vlog_queue_next(queue, &told, 1, VLOG_FOREVER, &count, &error) != VLOG_OK) return failed("an answer", &error);
    if (told.status != VLOG_OK) return failed("its outcome", &told.error);
  }
  if (vlog_close(log, NULL, &error) != VLOG_OK) return failed("a close", &error);
  if (vlog_server_close(server, NULL, &error) != VLOG_OK) return failed("the end", &error);
  /* That this sees what the library does: a store's files are written by now. */
  int ends[2];
  const struct iovec byte = {"x", 1};
  if (pipe(ends) != 0 || writev(ends[1], &byte, 1) != 1 || write(ends[1], "y", 1) != 1) return 2;
  printf("%lu written, %lu to sockets\n", atomic_load(&written), atomic_load(&to_sockets));
  return atomic_load(&to_sockets) == 0 && atomic_load(&written) >= 2 ? 0 : 1;
}
