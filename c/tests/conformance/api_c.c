/* The scenarios' operations by virtuallog.h. */
#include "api.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const api_name = "C";
const bool api_cancels = true;

/* Handles by their names. */
#define NAMED_MAX 64
static struct named {
  char name[64];
  char kind; /* 'l'og, 'r'eader, 's'erver */
  uint64_t key;
} named[NAMED_MAX];
static size_t named_len;

/* What was begun and not awaited. */
static struct begun {
  char name[64];
  char kind; /* 'a'ppend, 'n'ext, 'c'heck_tail, a whole append_all on a 't'hread; 0: free */
  uint64_t id;
  bool done;
  vlog_completion completion;
  vlog_batch batch;
  vlog_tail tail;
  pthread_t thread;
  vlog_log log;
  vlog_slice *slices;
  size_t slices_len;
  int64_t timeout_ms;
  vlog_appended appended;
  vlog_status status;
  vlog_error error;
} begun[16];
static vlog_queue queue;

static void die(const char *what) {
  fprintf(stderr, "conformance: %s\n", what);
  exit(2);
}

static void keep(const char *name, char kind, uint64_t key) {
  if (named_len == NAMED_MAX || name == NULL) die("too many handles, or one without a name");
  struct named *one = &named[named_len++];
  snprintf(one->name, sizeof one->name, "%s", name);
  one->kind = kind;
  one->key = key;
}

/* The last one of that name. */
static uint64_t find(const char *name, char kind) {
  for (size_t i = named_len; i-- > 0;) {
    if (named[i].kind == kind && strcmp(named[i].name, name) == 0) return named[i].key;
  }
  fprintf(stderr, "conformance: no `%s`\n", name);
  exit(2);
}

static struct begun *find_begun(const char *name) {
  for (size_t i = 0; i < sizeof begun / sizeof *begun; i++) {
    if (begun[i].kind != 0 && strcmp(begun[i].name, name) == 0) return &begun[i];
  }
  die("nothing was begun under that name");
  return NULL;
}

static void failed(struct outcome *outcome, vlog_error *error) {
  outcome_failed(outcome, vlog_status_name(error->status), error->message, error->retryable, error->in_doubt,
                 error->has_position ? &error->position : NULL, error->token);
  vlog_free(error->owner);
}

static void chain(struct outcome *outcome, vlog_chain *chain) {
  static const char *const lives[] = {"open", "ended", "moved"};
  outcome_field(outcome, "version", chain->version);
  outcome_field(outcome, "segments", chain->segments_len);
  outcome_word(outcome, "life", lives[chain->life]);
  vlog_free(chain->owner);
}

static void cluster(struct outcome *outcome, vlog_cluster *cluster) {
  uint64_t alive = 0, draining = 0;
  for (size_t i = 0; i < cluster->nodes_len; i++) {
    alive += cluster->nodes[i].alive;
    draining += cluster->nodes[i].draining;
  }
  outcome_field(outcome, "nodes", cluster->nodes_len);
  outcome_field(outcome, "alive", alive);
  outcome_field(outcome, "draining", draining);
  vlog_free(cluster->owner);
}

static size_t entries(struct outcome *outcome, vlog_batch *batch) {
  for (size_t i = 0; i < batch->len; i++) {
    outcome_entry(outcome, batch->entries[i].position, batch->entries[i].data, batch->entries[i].len);
  }
  vlog_free(batch->owner);
  return batch->len;
}

static vlog_status append_all(vlog_log log, const vlog_slice *slices, size_t len, int64_t timeout_ms,
                              vlog_appended *appended, vlog_error *error) {
  vlog_pipeline pipeline;
  vlog_status status = vlog_pipeline_new(log, timeout_ms, &pipeline, error);
  for (size_t i = 0; status == VLOG_OK && i < len; i++) {
    status = vlog_pipeline_push(pipeline, slices[i].data, slices[i].len, error);
  }
  if (status == VLOG_OK) status = vlog_pipeline_finish(pipeline, NULL, appended, error);
  vlog_free(pipeline);
  return status;
}

static void appended(struct outcome *outcome, const vlog_appended *appended) {
  if (appended->count == 0) return;
  outcome_field(outcome, "first", appended->first);
  outcome_field(outcome, "last", appended->last);
  outcome_field(outcome, "count", appended->count);
}

static void tail_told(struct outcome *outcome, const vlog_tail *tail) {
  outcome_field(outcome, "position", tail->position);
  outcome_word(outcome, "sealed", tail->sealed ? "true" : "false");
}

static void *append_all_thread(void *argument) {
  struct begun *b = argument;
  b->status = append_all(b->log, b->slices, b->slices_len, b->timeout_ms, &b->appended, &b->error);
  return NULL;
}

static void begin(const struct step *s) {
  vlog_error error;
  size_t at = 0;
  while (at < sizeof begun / sizeof *begun && begun[at].kind != 0) at++;
  if (at == sizeof begun / sizeof *begun) die("too much was begun");
  struct begun *b = &begun[at];
  memset(b, 0, sizeof *b);
  snprintf(b->name, sizeof b->name, "%s", s->begin);
  if (queue == 0 && vlog_queue_new(&queue, NULL) != VLOG_OK) die("no queue");
  const vlog_call call = {s->timeout_ms, queue, (uint64_t)at, &b->id};
  vlog_status status = VLOG_OK;
  if (strcmp(s->what, "append") == 0) {
    b->kind = 'a';
    status = vlog_append(find(s->handle, 'l'), s->payloads->data, s->payloads->len, &call, NULL, &error);
  } else if (strcmp(s->what, "next") == 0) {
    b->kind = 'n';
    status = vlog_reader_next(find(s->handle, 'r'), 1, &call, &b->batch, &error);
  } else if (strcmp(s->what, "check_tail") == 0) {
    b->kind = 'c';
    status = vlog_check_tail(find(s->handle, 'l'), &call, &b->tail, &error);
  } else if (strcmp(s->what, "append_all") == 0) {
    b->kind = 't';
    b->log = find(s->handle, 'l');
    b->timeout_ms = s->timeout_ms;
    /* What the slices point to lives until the scenario ends. */
    b->slices = calloc(s->payloads_len, sizeof *b->slices);
    if (b->slices == NULL) die("no memory");
    memcpy(b->slices, s->payloads, s->payloads_len * sizeof *b->slices);
    b->slices_len = s->payloads_len;
    if (pthread_create(&b->thread, NULL, append_all_thread, b) != 0) die("no thread");
  } else {
    die("only append, append_all, check_tail and next may be begun");
  }
  if (status != VLOG_OK) die(error.message);
}

static void await(const struct step *s, struct outcome *outcome) {
  struct begun *b = find_begun(s->of);
  if (b->kind == 't') {
    pthread_join(b->thread, NULL);
    free(b->slices);
    b->kind = 0;
    if (b->status != VLOG_OK) {
      failed(outcome, &b->error);
    } else {
      appended(outcome, &b->appended);
    }
    return;
  }
  while (!b->done) {
    vlog_completion completions[4];
    size_t count;
    if (vlog_queue_next(queue, completions, 4, 120000, &count, NULL) != VLOG_OK || count == 0) {
      die("nothing is answered");
    }
    for (size_t i = 0; i < count; i++) {
      struct begun *answered = &begun[completions[i].context];
      answered->done = true;
      answered->completion = completions[i];
    }
  }
  const char kind = b->kind;
  b->kind = 0;
  if (b->completion.status != VLOG_OK) {
    failed(outcome, &b->completion.error);
  } else if (kind == 'a') {
    outcome_number(outcome, b->completion.value);
  } else if (kind == 'c') {
    tail_told(outcome, &b->tail);
  } else {
    outcome_list(outcome);
    entries(outcome, &b->batch);
  }
}

static void of_store(const struct step *s, const vlog_call *call, struct outcome *outcome) {
  vlog_error error;
  vlog_status status = VLOG_OK;
  if (strcmp(s->what, "open") == 0) {
    const vlog_options options = {s->no_create, s->read_only, s->loglet, s->timeout_ms, s->entry_bytes_max,
                                  s->in_flight_bytes_max};
    vlog_log log;
    status = vlog_open(s->url, &options, NULL, &log, &error);
    if (status == VLOG_OK) keep(s->as, 'l', log);
  } else if (strcmp(s->what, "create") == 0) {
    status = vlog_create(s->url, s->loglet, call, &error);
  } else if (strcmp(s->what, "delete") == 0) {
    status = vlog_delete(s->url, call, &error);
  } else if (strcmp(s->what, "logs") == 0) {
    vlog_names names;
    status = vlog_logs(s->url, call, &names, &error);
    outcome_list(outcome);
    for (size_t i = 0; status == VLOG_OK && i < names.len; i++) outcome_name(outcome, names.names[i]);
    if (status == VLOG_OK) vlog_free(names.owner);
  } else if (strcmp(s->what, "move") == 0) {
    vlog_move moving;
    vlog_move_step step;
    memset(&step, 0, sizeof step);
    status = vlog_move_start(s->url, s->to, s->leave_sealed, &moving, &error);
    while (status == VLOG_OK && step.phase != VLOG_MOVE_DONE) status = vlog_move_next(moving, NULL, &step, &error);
    vlog_free(moving);
    if (status == VLOG_OK) chain(outcome, &step.chain);
  } else if (strcmp(s->what, "nodes") == 0) {
    vlog_cluster nodes;
    status = vlog_nodes(s->url, call, &nodes, &error);
    if (status == VLOG_OK) cluster(outcome, &nodes);
  } else if (strcmp(s->what, "drain") == 0) {
    status = vlog_drain(s->url, s->node, call, &error);
  } else {
    status = vlog_remove(s->url, s->node, call, &error);
  }
  if (status != VLOG_OK) failed(outcome, &error);
}

static void of_server(const struct step *s, const vlog_call *call, struct outcome *outcome) {
  vlog_error error;
  vlog_status status = VLOG_OK;
  if (strcmp(s->what, "init") == 0) {
    vlog_cluster made;
    status = vlog_init(s->addresses, s->addresses_len, call, &made, &error);
    if (status == VLOG_OK) cluster(outcome, &made);
  } else if (strcmp(s->what, "serve") == 0) {
    vlog_server_config config;
    memset(&config, 0, sizeof config);
    config.data = s->data;
    config.listen = s->listen;
    config.join = s->addresses;
    config.join_len = s->addresses_len;
    vlog_server server;
    status = vlog_server_start(&config, call, &server, &error);
    if (status == VLOG_OK) keep(s->as, 's', server);
  } else if (strcmp(s->what, "ready") == 0) {
    status = vlog_server_ready(find(s->handle, 's'), call, &error);
  } else if (strcmp(s->what, "drain_server") == 0) {
    status = vlog_server_drain(find(s->handle, 's'), call, &error);
  } else if (strcmp(s->what, "close_server") == 0) {
    status = vlog_server_close(find(s->handle, 's'), call, &error);
  } else {
    uint32_t node;
    status = vlog_server_node(find(s->handle, 's'), &node, &error);
    if (status == VLOG_OK && node == 0) {
      outcome_word(outcome, "node", "none");
    } else if (status == VLOG_OK) {
      outcome_field(outcome, "node", node);
    }
  }
  if (status != VLOG_OK) failed(outcome, &error);
}

/* Reads at most so many entries. */
static void take(vlog_reader reader, size_t count, const vlog_call *call, struct outcome *outcome) {
  outcome_list(outcome);
  while (count > 0) {
    vlog_error error;
    vlog_batch batch;
    if (vlog_reader_next(reader, count < 64 ? count : 64, call, &batch, &error) != VLOG_OK) {
      failed(outcome, &error);
      return;
    }
    const size_t len = entries(outcome, &batch);
    if (len == 0) return;
    count -= len;
  }
}

static void of_reader(const struct step *s, const vlog_call *call, struct outcome *outcome) {
  vlog_error error;
  const vlog_reader reader = find(s->handle, 'r');
  if (strcmp(s->what, "next") == 0) {
    take(reader, s->take == SIZE_MAX ? 1 : s->take, call, outcome);
  } else if (strcmp(s->what, "position") == 0) {
    uint64_t position;
    if (vlog_reader_position(reader, &position, &error) == VLOG_OK) {
      outcome_number(outcome, position);
    } else {
      failed(outcome, &error);
    }
  } else {
    vlog_reader_close(reader);
  }
}

/* What gives one position. */
static bool of_append(const struct step *s, vlog_log log, const vlog_call *call, struct outcome *outcome) {
  vlog_error error;
  vlog_status status;
  uint64_t position;
  const vlog_slice *one = s->payloads;
  if (strcmp(s->what, "append") == 0) {
    status = vlog_append(log, one->data, one->len, call, &position, &error);
  } else if (strcmp(s->what, "append_nowait") == 0) {
    status = vlog_append_nowait(log, one->data, one->len, call, &position, &error);
  } else if (strcmp(s->what, "append_many") == 0) {
    status = vlog_append_many(log, s->payloads, s->payloads_len, call, &position, &error);
  } else if (strcmp(s->what, "first") == 0) {
    status = vlog_first(log, call, &position, &error);
  } else {
    return false;
  }
  if (status == VLOG_OK) {
    outcome_number(outcome, position);
  } else {
    failed(outcome, &error);
  }
  return true;
}

/* What gives the chain, or something of a reading. */
static bool of_shape(const struct step *s, vlog_log log, const vlog_call *call, struct outcome *outcome,
                     vlog_status *status, vlog_error *error) {
  vlog_chain newest;
  vlog_reader reader;
  const bool reads = strcmp(s->what, "read") == 0, subscribes = strcmp(s->what, "subscribe") == 0;
  if (reads || subscribes) {
    *status = reads ? vlog_read(log, s->start, s->end, call, &reader, error)
                    : vlog_subscribe(log, s->start, call, &reader, error);
    if (*status == VLOG_OK && s->as != NULL) {
      keep(s->as, 'r', reader);
    } else if (*status == VLOG_OK) {
      take(reader, s->take, NULL, outcome);
      vlog_free(reader);
    }
    return true;
  } else if (strcmp(s->what, "chain") == 0) {
    *status = vlog_get_chain(log, call, &newest, error);
  } else if (strcmp(s->what, "reconfig_extend") == 0) {
    *status = vlog_reconfig_extend(log, s->loglet, s->if_version, call, &newest, error);
  } else if (strcmp(s->what, "reconfig_truncate") == 0) {
    *status = vlog_reconfig_truncate(log, s->if_version, call, &newest, error);
  } else if (strcmp(s->what, "reconfig_modify") == 0) {
    *status = vlog_reconfig_modify(log, s->segment, s->loglet, s->if_version, call, &newest, error);
  } else {
    return false;
  }
  if (*status == VLOG_OK) chain(outcome, &newest);
  return true;
}

static void of_log(const struct step *s, const vlog_call *call, struct outcome *outcome) {
  static const char *const limits[] = {"none", "tail", "already_trimmed"};
  const vlog_log log = find(s->handle, 'l');
  vlog_error error;
  vlog_status status = VLOG_OK;
  if (of_append(s, log, call, outcome)) return;
  if (of_shape(s, log, call, outcome, &status, &error)) {
    /* Done. */
  } else if (strcmp(s->what, "append_all") == 0) {
    vlog_appended all;
    status = append_all(log, s->payloads, s->payloads_len, s->timeout_ms, &all, &error);
    if (status == VLOG_OK) appended(outcome, &all);
  } else if (strcmp(s->what, "flush") == 0) {
    status = vlog_flush(log, call, &error);
  } else if (strcmp(s->what, "close") == 0) {
    status = vlog_close(log, call, &error);
  } else if (strcmp(s->what, "check_tail") == 0 || strcmp(s->what, "seal") == 0) {
    vlog_tail tail;
    status = s->what[0] == 's' ? vlog_seal(log, call, &tail, &error) : vlog_check_tail(log, call, &tail, &error);
    if (status == VLOG_OK) tail_told(outcome, &tail);
  } else if (strcmp(s->what, "read_next") == 0) {
    vlog_batch batch;
    status = vlog_read_next(log, s->start, s->end, call, &batch, &error);
    if (status == VLOG_OK && batch.len == 1) {
      outcome_field(outcome, "position", batch.entries[0].position);
      outcome_entry(outcome, batch.entries[0].position, batch.entries[0].data, batch.entries[0].len);
      vlog_free(batch.owner);
    }
  } else if (strcmp(s->what, "prefix_trim") == 0) {
    vlog_trimmed trimmed;
    status = vlog_prefix_trim(log, s->keep_from, call, &trimmed, &error);
    if (status == VLOG_OK) {
      outcome_field(outcome, "requested", trimmed.requested);
      outcome_field(outcome, "effective", trimmed.effective);
      outcome_word(outcome, "limited_by", limits[trimmed.limited_by]);
    }
  } else if (strcmp(s->what, "plan") == 0) {
    vlog_plan plan;
    status = vlog_get_plan(log, s->loglet, call, &plan, &error);
    if (status == VLOG_OK) {
      outcome_field(outcome, "version", plan.version);
      outcome_field(outcome, "seals_segment", plan.seals_segment);
      outcome_field(outcome, "tail", plan.tail);
      outcome_field(outcome, "objections", plan.objections_len);
      vlog_free(plan.owner);
    }
  } else if (strcmp(s->what, "resolve") == 0) {
    vlog_resolved resolved;
    status = vlog_resolve(log, s->token, call, &resolved, &error);
    if (status == VLOG_OK && resolved.found) outcome_number(outcome, resolved.position);
  } else if (strcmp(s->what, "verify") == 0) {
    vlog_report report;
    status = vlog_verify(log, call, &report, &error);
    if (status == VLOG_OK) {
      outcome_field(outcome, "entries", report.entries);
      outcome_field(outcome, "problems", report.problems_len);
      vlog_free(report.owner);
    }
  } else {
    fprintf(stderr, "conformance: there is no operation `%s`\n", s->what);
    exit(2);
  }
  if (status != VLOG_OK) failed(outcome, &error);
}

static bool one_of(const char *what, const char *const *words) {
  for (; *words != NULL; words++) {
    if (strcmp(what, *words) == 0) return true;
  }
  return false;
}

void api_do(const struct step *s, struct outcome *outcome) {
  static const char *const stores[] = {"open", "create", "delete", "logs", "move", "nodes", "drain", "remove", NULL};
  static const char *const servers[] = {"init", "serve", "ready", "drain_server", "close_server", "server", NULL};
  static const char *const readers[] = {"next", "position", "close_reader", NULL};
  const vlog_call call = {s->timeout_ms, 0, 0, NULL};
  if (s->begin != NULL) {
    begin(s);
  } else if (strcmp(s->what, "await") == 0) {
    await(s, outcome);
  } else if (strcmp(s->what, "cancel") == 0) {
    struct begun *b = find_begun(s->of);
    if (!vlog_queue_cancel(queue, b->id)) {
      /* It was told already. */
      vlog_free(b->completion.error.owner);
      vlog_free(b->batch.owner);
    }
    b->kind = 0;
  } else if (one_of(s->what, stores)) {
    of_store(s, &call, outcome);
  } else if (one_of(s->what, servers)) {
    of_server(s, &call, outcome);
  } else if (one_of(s->what, readers)) {
    of_reader(s, &call, outcome);
  } else {
    of_log(s, &call, outcome);
  }
}

const char *api_server(const char *name, bool url) {
  const vlog_server server = find(name, 's');
  return url ? vlog_server_url(server) : vlog_server_address(server);
}

void api_end(void) {
  vlog_free(queue);
  queue = 0;
  /* What is read or served goes last: logs are closed while their servers are there. */
  for (const char *kind = "rls"; *kind != 0; kind++) {
    for (size_t i = 0; i < named_len; i++) {
      if (named[i].kind != *kind) continue;
      if (*kind == 'l') vlog_close(named[i].key, NULL, NULL);
      if (*kind == 's') vlog_server_close(named[i].key, NULL, NULL);
      vlog_free(named[i].key);
    }
  }
  named_len = 0;
  memset(begun, 0, sizeof begun);
}
