/*
 * Between the runner and the language that it runs: a step with everything filled in, and what came of it.
 * `api_c.c` does it by virtuallog.h, `api_cpp.cpp` by virtuallog.hpp.
 */
#ifndef CONFORMANCE_API_H
#define CONFORMANCE_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "virtuallog.h"

#ifdef __cplusplus
extern "C" {
#endif

/** What is absent is NULL, or 0, unless told otherwise. */
struct step {
  const char *what;
  /** The name of the log, reader or server that it works on. */
  const char *handle;
  const char *as;
  const char *begin;
  const char *of;
  const char *url;
  const char *to;
  const char *loglet;
  const char *data;
  const char *listen;
  const char *token;
  /** Of `init`, or those of `join`. */
  const char *const *addresses;
  size_t addresses_len;
  int64_t timeout_ms;
  uint64_t start;
  uint64_t end;
  uint64_t keep_from;
  uint64_t if_version;
  uint32_t segment;
  uint32_t node;
  bool no_create;
  bool read_only;
  bool leave_sealed;
  /** SIZE_MAX: all. */
  size_t take;
  size_t entry_bytes_max;
  size_t in_flight_bytes_max;
  const vlog_slice *payloads;
  size_t payloads_len;
};

struct outcome;
void outcome_number(struct outcome *outcome, uint64_t number);
void outcome_entry(struct outcome *outcome, uint64_t position, const void *data, size_t len);
/** Entries were asked for, or names, also where there are none. */
void outcome_list(struct outcome *outcome);
void outcome_name(struct outcome *outcome, const char *name);
void outcome_field(struct outcome *outcome, const char *name, uint64_t number);
void outcome_word(struct outcome *outcome, const char *name, const char *word);
void outcome_failed(struct outcome *outcome, const char *code, const char *message, bool retryable,
                    bool in_doubt, const uint64_t *position, const char *token);

extern const char *const api_name;
/** Whether an operation other than an append can be cancelled while it waits. */
extern const bool api_cancels;
void api_do(const struct step *step, struct outcome *outcome);
/** An address or URL of a server that was kept under this name. */
const char *api_server(const char *name, bool url);
/** Closes and frees everything. */
void api_end(void);

#ifdef __cplusplus
}
#endif
#endif
