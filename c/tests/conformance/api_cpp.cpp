/* The scenarios' operations by virtuallog.hpp. */
#include "api.h"

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <future>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "virtuallog.hpp"

namespace vl = virtuallog;

extern const char *const api_name;
extern const bool api_cancels;
const char *const api_name = "C++";
const bool api_cancels = false;

namespace {

/** Objects by their names; a second one of a name takes the first one's place, which stays open. */
template <class T>
class named {
 public:
  void keep(const char *name, T object) { all_[name].push_back(std::make_unique<T>(std::move(object))); }
  T &find(const char *name) {
    auto found = all_.find(name);
    if (found == all_.end()) {
      std::cerr << "conformance: no `" << name << "`\n";
      std::exit(2);
    }
    return *found->second.back();
  }
  void clear() { all_.clear(); }

 private:
  std::map<std::string, std::vector<std::unique_ptr<T>>> all_;
};

using begun = std::variant<std::future<std::uint64_t>, std::future<vl::batch>, std::future<std::optional<vl::appended>>>;

named<vl::log> logs;
named<vl::reader> readers;
named<vl::server> servers;
std::map<std::string, begun> under_way;
std::string text_of_server;

vl::timeout time(const step *s) {
  if (s->timeout_ms == 0) return {};
  return s->timeout_ms == VLOG_FOREVER ? vl::timeout::forever() : std::chrono::milliseconds(s->timeout_ms);
}

vl::bytes one(const step *s) { return {s->payloads->data, s->payloads->len}; }

std::vector<vl::bytes> all(const step *s) {
  std::vector<vl::bytes> payloads;
  for (std::size_t i = 0; i < s->payloads_len; i++) payloads.emplace_back(s->payloads[i].data, s->payloads[i].len);
  return payloads;
}

std::vector<std::string> addresses(const step *s) { return {s->addresses, s->addresses + s->addresses_len}; }

std::optional<std::uint64_t> version(const step *s) {
  return s->if_version == VLOG_LAST_SEEN ? std::nullopt : std::optional<std::uint64_t>(s->if_version);
}

void tell(outcome *o, const vl::chain &chain) {
  static const char *const lives[] = {"open", "ended", "moved"};
  outcome_field(o, "version", chain.version);
  outcome_field(o, "segments", chain.segments.size());
  outcome_word(o, "life", lives[chain.life]);
}

void tell(outcome *o, const vl::cluster &cluster) {
  std::uint64_t alive = 0, draining = 0;
  for (const vl::node &node : cluster.nodes) {
    alive += node.alive;
    draining += node.draining;
  }
  outcome_field(o, "nodes", cluster.nodes.size());
  outcome_field(o, "alive", alive);
  outcome_field(o, "draining", draining);
}

void tell(outcome *o, const vl::tail &tail) {
  outcome_field(o, "position", tail.position);
  outcome_word(o, "sealed", tail.sealed ? "true" : "false");
}

void tell(outcome *o, const std::optional<vl::appended> &appended) {
  if (!appended) return;
  outcome_field(o, "first", appended->first);
  outcome_field(o, "last", appended->last);
  outcome_field(o, "count", appended->count);
}

void tell(outcome *o, const vl::batch &batch) {
  outcome_list(o);
  for (const vl::entry &entry : batch) {
    outcome_entry(o, entry.position(), entry.payload().data(), entry.payload().size());
  }
}

void tell(outcome *o, std::uint64_t position) { outcome_number(o, position); }

/** At most so many entries, by the range that a reader is. */
void take(vl::reader &reader, std::size_t count, outcome *o) {
  outcome_list(o);
  if (count == 0) return;
  for (const vl::entry &entry : reader) {
    outcome_entry(o, entry.position(), entry.payload().data(), entry.payload().size());
    if (--count == 0) return;
  }
}

void begin(const step *s) {
  const std::string what = s->what;
  if (what == "append") {
    under_way.emplace(s->begin, logs.find(s->handle).append_async(one(s), time(s)));
  } else if (what == "next") {
    vl::reader *reader = &readers.find(s->handle);
    under_way.emplace(s->begin, std::async(std::launch::async, [=] { return reader->next_batch(1, time(s)); }));
  } else {
    vl::log *log = &logs.find(s->handle);
    under_way.emplace(s->begin, std::async(std::launch::async, [log, payloads = all(s), time = time(s)] {
                        return log->append_all(payloads, time);
                      }));
  }
}

bool of_store(const step *s, outcome *o) {
  const std::string what = s->what;
  if (what == "open") {
    vl::options options;
    options.create = !s->no_create;
    options.read_only = s->read_only;
    options.loglet = s->loglet ? s->loglet : "";
    options.timeout = time(s);
    options.entry_bytes_max = s->entry_bytes_max;
    options.in_flight_bytes_max = s->in_flight_bytes_max;
    logs.keep(s->as, vl::open(s->url, options));
  } else if (what == "create") {
    vl::create(s->url, s->loglet ? s->loglet : "", time(s));
  } else if (what == "delete") {
    vl::remove_log(s->url, time(s));
  } else if (what == "logs") {
    outcome_list(o);
    for (const std::string &name : vl::logs(s->url, time(s))) outcome_name(o, name.c_str());
  } else if (what == "move") {
    tell(o, vl::move(s->url, s->to, s->leave_sealed));
  } else if (what == "nodes") {
    tell(o, vl::nodes(s->url, time(s)));
  } else if (what == "drain") {
    vl::drain(s->url, s->node, time(s));
  } else if (what == "remove") {
    vl::remove(s->url, s->node, time(s));
  } else {
    return false;
  }
  return true;
}

bool of_server(const step *s, outcome *o) {
  const std::string what = s->what;
  if (what == "init") {
    tell(o, vl::init(addresses(s), time(s)));
  } else if (what == "serve") {
    vl::server_config config;
    config.data = s->data;
    if (s->listen) config.listen = s->listen;
    config.join = addresses(s);
    servers.keep(s->as, vl::server(config, time(s)));
  } else if (what == "ready") {
    servers.find(s->handle).ready(time(s));
  } else if (what == "drain_server") {
    servers.find(s->handle).drain(time(s));
  } else if (what == "close_server") {
    servers.find(s->handle).close(time(s));
  } else if (what == "server") {
    const std::uint32_t node = servers.find(s->handle).node();
    node == 0 ? outcome_word(o, "node", "none") : outcome_field(o, "node", node);
  } else {
    return false;
  }
  return true;
}

bool of_reader(const step *s, outcome *o) {
  const std::string what = s->what;
  if (what == "next") {
    std::size_t left = s->take == SIZE_MAX ? 1 : s->take;
    outcome_list(o);
    while (left > 0) {
      const vl::batch batch = readers.find(s->handle).next_batch(std::min<std::size_t>(left, 64), time(s));
      if (batch.empty()) return true;
      tell(o, batch);
      left -= batch.size();
    }
  } else if (what == "position") {
    tell(o, readers.find(s->handle).position());
  } else if (what == "close_reader") {
    readers.find(s->handle).close();
  } else if (what == "read" || what == "subscribe") {
    vl::log &log = logs.find(s->handle);
    const auto end = s->end == VLOG_TAIL ? std::nullopt : std::optional<std::uint64_t>(s->end);
    vl::reader reader = what == "read" ? log.read(s->start, end, time(s)) : log.subscribe(s->start, time(s));
    if (s->as) {
      readers.keep(s->as, std::move(reader));
    } else {
      take(reader, s->take, o);
    }
  } else {
    return false;
  }
  return true;
}

void of_log(const step *s, outcome *o) {
  static const char *const limits[] = {"none", "tail", "already_trimmed"};
  const std::string what = s->what;
  vl::log &log = logs.find(s->handle);
  if (what == "append") {
    tell(o, log.append(one(s), time(s)));
  } else if (what == "append_nowait") {
    tell(o, log.append_nowait(one(s), time(s)));
  } else if (what == "append_many") {
    tell(o, log.append_many(all(s), time(s)));
  } else if (what == "append_all") {
    tell(o, log.append_all(all(s), time(s)));
  } else if (what == "flush") {
    log.flush(time(s));
  } else if (what == "close") {
    log.close(time(s));
  } else if (what == "check_tail") {
    tell(o, log.check_tail(time(s)));
  } else if (what == "seal") {
    tell(o, log.seal(time(s)));
  } else if (what == "first") {
    tell(o, log.first(time(s)));
  } else if (what == "read_next") {
    const auto end = s->end == VLOG_TAIL ? std::nullopt : std::optional<std::uint64_t>(s->end);
    const vl::batch batch = log.read_next(s->start, end, time(s));
    if (batch.empty()) return;
    outcome_field(o, "position", batch[0].position());
    outcome_entry(o, batch[0].position(), batch[0].payload().data(), batch[0].payload().size());
  } else if (what == "prefix_trim") {
    const vl::trimmed trimmed = log.prefix_trim(s->keep_from, time(s));
    outcome_field(o, "requested", trimmed.requested);
    outcome_field(o, "effective", trimmed.effective);
    outcome_word(o, "limited_by", limits[trimmed.limited_by]);
  } else if (what == "chain") {
    tell(o, log.chain(time(s)));
  } else if (what == "reconfig_extend") {
    tell(o, log.reconfig_extend(s->loglet, version(s), time(s)));
  } else if (what == "reconfig_truncate") {
    tell(o, log.reconfig_truncate(version(s), time(s)));
  } else if (what == "reconfig_modify") {
    tell(o, log.reconfig_modify(s->segment, s->loglet, version(s), time(s)));
  } else if (what == "plan") {
    const vl::plan plan = log.plan(s->loglet, time(s));
    outcome_field(o, "version", plan.version);
    outcome_field(o, "seals_segment", plan.seals_segment);
    outcome_field(o, "tail", plan.tail);
    outcome_field(o, "objections", plan.objections.size());
  } else if (what == "resolve") {
    if (const auto position = log.resolve(s->token, time(s))) tell(o, *position);
  } else if (what == "verify") {
    const vl::report report = log.verify(time(s));
    outcome_field(o, "entries", report.entries);
    outcome_field(o, "problems", report.problems.size());
  } else {
    std::cerr << "conformance: there is no operation `" << what << "`\n";
    std::exit(2);
  }
}

}  // namespace

void api_do(const step *s, outcome *o) {
  const std::string what = s->what;
  try {
    if (s->begin) {
      begin(s);
    } else if (what == "await") {
      begun was = std::move(under_way.extract(s->of).mapped());
      std::visit([&](auto &future) { tell(o, future.get()); }, was);
    } else if (what == "cancel") {
      under_way.erase(s->of);
    } else if (!of_store(s, o) && !of_server(s, o) && !of_reader(s, o)) {
      of_log(s, o);
    }
  } catch (const vl::error &error) {
    const auto position = error.position();
    outcome_failed(o, error.name(), error.what(), error.retryable(), error.in_doubt(),
                   position ? &*position : nullptr, error.token() ? error.token()->c_str() : nullptr);
  }
}

const char *api_server(const char *name, bool url) {
  const vl::server &server = servers.find(name);
  text_of_server = url ? server.url() : server.address();
  return text_of_server.c_str();
}

void api_end() {
  under_way.clear();
  readers.clear();
  logs.clear();
  servers.clear();
}
