/*
 * Runs the scenarios of bindings/conformance by C or by C++, whichever it is linked with.
 *
 *     conformance [--processes] SCENARIOS FOLDER [NAME...]
 *
 * SCENARIOS is the folder of the .toml files, FOLDER an empty one for stores and servers. Runs all scenarios,
 * or those named, over every kind of store that they are for, and ends with `N passed, N failed`. The nodes of
 * clusters are servers of this process; with `--processes` they are processes of their own, which a tool that
 * makes this process slow leaves alone.
 */
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <set>
#include <sstream>
#include <thread>

#include "api.h"
#include "toml.hpp"
#include "virtuallog.hpp"

namespace fs = std::filesystem;

/** What a step came to. */
struct outcome {
  bool has_number = false;
  std::uint64_t number = 0;
  bool has_list = false;
  std::vector<std::uint64_t> positions;
  std::vector<std::string> list;
  std::map<std::string, std::string> fields;
  std::string code, message, token;
  bool retryable = false, in_doubt = false, has_token = false;
  std::string position;
};

void outcome_number(outcome *o, std::uint64_t number) {
  o->has_number = true;
  o->number = number;
}
void outcome_list(outcome *o) { o->has_list = true; }
void outcome_entry(outcome *o, std::uint64_t position, const void *data, std::size_t len) {
  o->positions.push_back(position);
  o->list.emplace_back(static_cast<const char *>(data), len);
}
void outcome_name(outcome *o, const char *name) { o->list.emplace_back(name); }
void outcome_field(outcome *o, const char *name, std::uint64_t number) { o->fields[name] = std::to_string(number); }
void outcome_word(outcome *o, const char *name, const char *word) { o->fields[name] = word; }
void outcome_failed(outcome *o, const char *code, const char *message, bool retryable, bool in_doubt,
                    const std::uint64_t *position, const char *token) {
  o->code = code;
  o->message = message;
  o->retryable = retryable;
  o->in_doubt = in_doubt;
  o->position = position ? std::to_string(*position) : "";
  o->has_token = token != nullptr;
  o->token = token ? token : "";
}

namespace {

struct failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

void check(bool holds, const std::string &what) {
  if (!holds) throw failure(what);
}

/** Nodes on loopback that can be stopped and started. */
class nodes {
 public:
  virtual ~nodes() = default;
  virtual std::string url() const = 0;
  virtual void stop(const std::vector<std::uint32_t> &numbers) = 0;
  virtual void start(const std::vector<std::uint32_t> &numbers) = 0;
};

/** Those that are servers of this process. */
class nodes_here : public nodes {
 public:
  nodes_here(fs::path folder, std::size_t count) : folder_(std::move(folder)) {
    fs::create_directories(folder_);
    for (std::size_t node = 1; node <= count; node++) {
      servers_.push_back(serve(node, "127.0.0.1:0"));
      addresses_.push_back(servers_.back()->address());
    }
    virtuallog::init(addresses_);
    for (auto &server : servers_) server->ready();
  }
  ~nodes_here() override {
    for (auto &server : servers_) {
      if (server) server->close();
    }
  }

  std::string url() const override {
    std::string all;
    for (const std::string &address : addresses_) all += (all.empty() ? "virtuallog://" : ",") + address;
    return all + "/";
  }
  void stop(const std::vector<std::uint32_t> &numbers) override {
    for (const auto node : numbers) {
      servers_.at(node - 1)->close();
      servers_.at(node - 1).reset();
    }
  }
  void start(const std::vector<std::uint32_t> &numbers) override {
    for (const auto node : numbers) servers_.at(node - 1) = serve(node, addresses_.at(node - 1));
    for (const auto node : numbers) servers_.at(node - 1)->ready(std::chrono::seconds(60));
  }

 private:
  std::unique_ptr<virtuallog::server> serve(std::size_t node, const std::string &listen) {
    virtuallog::server_config config;
    config.data = (folder_ / ("node-" + std::to_string(node))).string();
    config.listen = listen;
    return std::make_unique<virtuallog::server>(config);
  }

  fs::path folder_;
  std::vector<std::unique_ptr<virtuallog::server>> servers_;
  std::vector<std::string> addresses_;
};

/** Those that are processes of their own. */
class nodes_apart : public nodes {
 public:
  nodes_apart(const fs::path &folder, std::size_t count) : cluster_(static_cast<std::uint32_t>(count), folder.string()) {}

  std::string url() const override { return cluster_.url(); }
  void stop(const std::vector<std::uint32_t> &numbers) override {
    for (const auto node : numbers) cluster_.stop(node);
  }
  void start(const std::vector<std::uint32_t> &numbers) override {
    for (const auto node : numbers) cluster_.restart(node);
  }

 private:
  virtuallog::local_cluster cluster_;
};

/** Listens on loopback until its end, and answers whatever connects with these bytes alone. */
class impostor {
 public:
  explicit impostor(std::string answer) : listener_(socket(AF_INET, SOCK_STREAM, 0)) {
    at_.sin_family = AF_INET;
    at_.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at_;
    auto *address = reinterpret_cast<sockaddr *>(&at_);
    check(bind(listener_, address, size) == 0 && listen(listener_, 8) == 0, "a free port");
    check(getsockname(listener_, address, &size) == 0, "it has an address");
    thread_ = std::thread([this, answer = std::move(answer)] { serve(answer); });
  }
  ~impostor() {
    ending_ = true;
    // So that it looks.
    const int last = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(last, reinterpret_cast<sockaddr *>(&at_), sizeof at_) == 0) close(last);
    thread_.join();
    close(listener_);
  }

  std::string address() const { return "127.0.0.1:" + std::to_string(ntohs(at_.sin_port)); }

 private:
  void serve(const std::string &answer) const {
    while (!ending_) {
      const int stream = accept(listener_, nullptr, nullptr);
      // Until the other side has gone: what came and nobody has read would take the answer away.
      char gone[4096];
      if (!ending_ && send(stream, answer.data(), answer.size(), 0) > 0) {
        while (recv(stream, gone, sizeof gone, 0) > 0) continue;
      }
      close(stream);
    }
  }

  int listener_;
  sockaddr_in at_{};
  std::atomic<bool> ending_{false};
  std::thread thread_;
};

std::string payload(const value &given) {
  if (given.kind == value::kind::text) return given.text;
  std::string bytes;
  if (given.has("hex")) {
    const std::string &hex = given.at("hex").text;
    for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
      bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    }
    return bytes;
  }
  for (double i = 0; i < given.at("count").number; i++) bytes += given.at("repeat").text;
  return bytes;
}

std::vector<std::string> payloads(const value &given) {
  std::vector<std::string> all;
  if (given.kind == value::kind::table) {
    for (int i = 0; i < given.at("numbered").number; i++) all.push_back(std::to_string(i));
  } else {
    for (const value &one : given.list) all.push_back(payload(one));
  }
  return all;
}

/** One scenario over one store. */
class runner {
 public:
  runner(std::string kind, std::string store, fs::path folder, nodes *cluster)
      : kind_(std::move(kind)), store_(std::move(store)), folder_(std::move(folder)), cluster_(cluster) {
    static int runs = 0;
    suffix_ = "-c" + std::to_string(runs++);
    fs::create_directories(folder_);
  }

  void run(const value &scenario) {
    step open{};
    const std::string url = fill("{main}");
    open.what = "open";
    open.as = "main";
    open.url = url.c_str();
    outcome opened;
    api_do(&open, &opened);
    check(opened.code.empty(), opened.message);
    int number = 0;
    for (const value &one : scenario.at("step").list) {
      number++;
      try {
        run_step(one);
      } catch (const std::exception &error) {
        throw failure("step " + std::to_string(number) + ", " + one.at("do").text + ": " + error.what());
      }
    }
  }

 private:
  void run_step(const value &given) {
    static const std::set<std::string> known = {
        "do", "log", "as", "begin", "of", "timeout", "save", "expect", "error", "error_position", "in_doubt",
        "retryable", "save_token", "url", "to", "loglet", "create", "mode", "entry_bytes_max", "reader",
        "in_flight_bytes_max", "leave_sealed", "payload", "payloads", "start", "end", "take", "keep_from",
        "if_version", "segment", "token", "node", "addresses", "data", "listen", "join", "server", "file", "at"};
    for (const auto &pair : given.table) check(known.count(pair.first) != 0, "`" + pair.first + "` is not known");
    outcome came;
    if (!meddle(given)) do_step(given, came);
    if (given.has("error")) {
      check(!came.code.empty(), "no error");
      fails(given, came);
      return;
    }
    check(came.code.empty(), came.message);
    if (given.has("save")) {
      auto version = came.fields.find("version");
      check(came.has_number || version != came.fields.end(), "nothing to save");
      saved_[given.at("save").text] = came.has_number ? std::to_string(came.number) : version->second;
    }
    if (given.has("expect")) compare(came, given.at("expect"));
  }

  void fails(const value &given, const outcome &came) {
    check(came.code == given.at("error").text, came.message);
    const bool in_doubt = given.has("in_doubt") && given.at("in_doubt").flag;
    check(came.in_doubt == in_doubt && came.has_token == in_doubt, "in doubt, or not: " + came.message);
    check(!came.message.empty(), "no message");
    if (given.has("retryable")) check(came.retryable == given.at("retryable").flag, "retryable, or not: " + came.message);
    if (given.has("error_position")) {
      check(came.position == std::to_string(number(given.at("error_position"))), "the position is " + came.position);
    }
    if (given.has("save_token")) saved_[given.at("save_token").text] = came.token;
  }

  void do_step(const value &given, outcome &came) {
    std::vector<std::string> texts;
    texts.reserve(16);
    const auto text = [&](const char *key) -> const char * {
      if (!given.has(key)) return nullptr;
      texts.push_back(fill(given.at(key).text));
      return texts.back().c_str();
    };
    step s{};
    s.what = text("do");
    s.handle = given.has("reader") ? text("reader") : given.has("server") ? text("server") : text("log");
    if (!s.handle) s.handle = "main";
    s.as = text("as");
    if (!s.as && given.at("do").text == "open") s.as = s.handle;
    s.begin = text("begin");
    s.of = text("of");
    s.url = text("url");
    s.to = text("to");
    s.loglet = text("loglet");
    s.listen = text("listen");
    if (given.has("data")) {
      texts.push_back((folder_ / given.at("data").text).string());
      s.data = texts.back().c_str();
    }
    if (given.has("token")) {
      const std::string &token = given.at("token").text;
      texts.push_back(token[0] == '$' ? saved_.at(token.substr(1)) : token);
      s.token = texts.back().c_str();
    }
    std::vector<std::string> addresses;
    for (const char *key : {"addresses", "join"}) {
      if (!given.has(key)) continue;
      for (const value &one : given.at(key).list) addresses.push_back(fill(one.text));
    }
    std::vector<const char *> pointers;
    for (const std::string &address : addresses) pointers.push_back(address.c_str());
    s.addresses = pointers.data();
    s.addresses_len = pointers.size();
    // 0 is C's word for the default: a millisecond is as good as no time.
    if (given.has("timeout")) s.timeout_ms = std::max<std::int64_t>(1, std::llround(given.at("timeout").number * 1000));
    numbers(given, s);
    std::vector<std::string> bytes;
    if (given.has("payload")) bytes.push_back(payload(given.at("payload")));
    if (given.has("payloads")) bytes = payloads(given.at("payloads"));
    std::vector<vlog_slice> slices;
    for (const std::string &one : bytes) slices.push_back({reinterpret_cast<const std::uint8_t *>(one.data()), one.size()});
    s.payloads = slices.data();
    s.payloads_len = slices.size();
    api_do(&s, &came);
    // What was begun goes on using the bytes.
    if (s.begin) kept_.push_back(std::make_unique<std::vector<std::string>>(std::move(bytes)));
    if (std::string(s.what) == "logs") own_names(came);
  }

  void numbers(const value &given, step &s) {
    const auto get = [&](const char *key, std::uint64_t otherwise) {
      return given.has(key) ? number(given.at(key)) : otherwise;
    };
    const bool word = given.has("start") && given.at("start").kind == value::kind::text && given.at("start").text[0] != '$';
    s.start = word ? (given.at("start").text == "first" ? VLOG_FIRST : VLOG_TAIL) : get("start", 0);
    s.end = get("end", VLOG_TAIL);
    s.keep_from = get("keep_from", 0);
    s.if_version = get("if_version", VLOG_LAST_SEEN);
    s.segment = static_cast<std::uint32_t>(get("segment", 0));
    if (given.has("node")) s.node = node(given.at("node"));
    s.no_create = given.has("create") && !given.at("create").flag;
    s.read_only = given.has("mode") && given.at("mode").text == "read";
    s.leave_sealed = given.has("leave_sealed") && given.at("leave_sealed").flag;
    s.take = static_cast<std::size_t>(get("take", SIZE_MAX));
    s.entry_bytes_max = static_cast<std::size_t>(get("entry_bytes_max", 0));
    s.in_flight_bytes_max = static_cast<std::size_t>(get("in_flight_bytes_max", 0));
  }

  /** What only the runner can do: to the nodes, to the files of a store, and beside them. */
  bool meddle(const value &given) {
    const std::string &what = given.at("do").text;
    if (what == "impostor") {
      impostors_[given.at("as").text] = std::make_unique<impostor>(payload(given.at("payload")));
      return true;
    }
    if (what == "stop" || what == "start") {
      check(cluster_ != nullptr, "the scenario has no nodes of its own");
      std::vector<std::uint32_t> numbers;
      const value &wanted = given.at("node");
      if (wanted.kind != value::kind::list) numbers.push_back(node(wanted));
      for (const value &one : wanted.list) numbers.push_back(node(one));
      what == "stop" ? cluster_->stop(numbers) : cluster_->start(numbers);
      return true;
    }
    const fs::path store = store_.substr(store_.find(':') + 1);
    if (what == "rename") {
      fs::rename(store / given.at("file").text, store / given.at("to").text);
      return true;
    }
    if (what != "overwrite") return false;
    std::fstream file(store / given.at("file").text, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(given.at("at").number));
    const std::string bytes = payload(given.at("payload"));
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    check(file.good(), "the file cannot be written");
    return true;
  }

  /** A node's number, by it or by what the node is to the log `main`. */
  std::uint32_t node(const value &given) {
    if (given.kind == value::kind::number) return static_cast<std::uint32_t>(given.number);
    if (named_.empty()) {
      int followers = 0;
      for (const virtuallog::node &one : virtuallog::nodes(store_).nodes) {
        named_[one.sequences ? "sequencer" : "follower-" + std::to_string(++followers)] = one.number;
      }
    }
    return named_.at(given.text);
  }

  /** The names with this scenario's suffix, without it; all where there is no suffix on any. */
  void own_names(outcome &came) {
    std::vector<std::string> own;
    for (const std::string &name : came.list) {
      const std::size_t at = name.size() - std::min(name.size(), suffix_.size());
      if (name.substr(at) == suffix_) own.push_back(name.substr(0, at));
    }
    if (!own.empty()) came.list = own;
  }

  std::string fill(const std::string &text) {
    std::string filled;
    for (std::size_t at = 0; at < text.size(); at++) {
      const std::size_t end = text[at] == '{' ? text.find('}', at) : std::string::npos;
      if (end == std::string::npos) {
        filled += text[at];
        continue;
      }
      filled += replacement(text.substr(at + 1, end - at - 1));
      at = end;
    }
    return filled;
  }

  std::string replacement(const std::string &name) {
    if (name == "store") return store_;
    if (name == "loglet") return kind_ == "memory" ? "memory" : kind_ == "file" ? "local" : "native";
    if (name == "away") return "file:" + (folder_ / "away").string() + "/";
    const std::size_t colon = name.find(':');
    const auto impostor = colon == std::string::npos ? impostors_.end() : impostors_.find(name.substr(colon + 1));
    if (impostor != impostors_.end()) return impostor->second->address();
    if (colon != std::string::npos) return api_server(name.substr(colon + 1).c_str(), name.substr(0, colon) == "url");
    return (kind_ == "memory" ? "memory:" : store_) + name + suffix_;
  }

  std::uint64_t number(const value &given) {
    if (given.kind == value::kind::number) return static_cast<std::uint64_t>(given.number);
    check(given.kind == value::kind::text && given.text.size() > 1 && given.text[0] == '$', "a number expected");
    const std::size_t sign = given.text.find_first_of("+-");
    const std::uint64_t saved = std::stoull(saved_.at(given.text.substr(1, sign - 1)));
    if (sign == std::string::npos) return saved;
    const std::uint64_t amount = std::stoull(given.text.substr(sign + 1));
    return given.text[sign] == '+' ? saved + amount : saved - amount;
  }

  void compare(const outcome &came, const value &wanted) {
    if (wanted.kind == value::kind::text && wanted.text == "none") {
      check(!came.has_number && !came.has_list && came.fields.empty(), "something came out");
    } else if (wanted.kind == value::kind::list || wanted.has("numbered")) {
      check(came.has_list, "no list came out");
      const bool rising = std::is_sorted(came.positions.begin(), came.positions.end(), std::less_equal<std::uint64_t>());
      check(rising, "positions do not rise");
      const std::vector<std::string> all = payloads(wanted);
      check(came.list == all, std::to_string(came.list.size()) + " came out, or others");
    } else if (wanted.kind == value::kind::table) {
      for (const auto &[name, given] : wanted.table) {
        const std::string found = name == "payload" ? came.list.at(0) : came.fields.at(name);
        const bool word = given.kind == value::kind::text && (given.text.empty() || given.text[0] != '$');
        const std::string should = given.kind == value::kind::flag ? (given.flag ? "true" : "false")
                                   : word                          ? given.text
                                                                   : std::to_string(number(given));
        check(found == should, "`" + name + "` is " + found + " and not " + should);
      }
    } else {
      check(came.has_number && came.number == number(wanted), "it is " + std::to_string(came.number));
    }
  }

  std::string kind_, store_, suffix_;
  fs::path folder_;
  nodes *cluster_;
  std::map<std::string, std::string> saved_;
  std::map<std::string, std::uint32_t> named_;
  std::map<std::string, std::unique_ptr<impostor>> impostors_;
  std::vector<std::unique_ptr<std::vector<std::string>>> kept_;
};

bool wanted(const value &scenario, const std::string &kind) {
  if (!scenario.has("over")) return true;
  const auto &kinds = scenario.at("over").list;
  return std::any_of(kinds.begin(), kinds.end(), [&](const value &one) { return one.text == kind; });
}

}  // namespace

/** Fewer are not all of them. */
constexpr std::size_t scenarios_min = 80;

int main(int argc, char **argv) {
  const bool apart = argc > 1 && std::string(argv[1]) == "--processes";
  if (apart) argc--, argv++;
  if (argc < 3) {
    std::cerr << "usage: conformance [--processes] SCENARIOS FOLDER [NAME...]\n";
    return 2;
  }
  const fs::path folder = argv[2];
  const std::set<std::string> names(argv + 3, argv + argc);
  const auto make = [&](const fs::path &of, std::size_t count) -> std::unique_ptr<nodes> {
    if (apart) return std::make_unique<nodes_apart>(of, count);
    return std::make_unique<nodes_here>(of, count);
  };
  std::map<std::string, value> scenarios;
  for (const auto &file : fs::directory_iterator(argv[1])) {
    const std::string name = file.path().stem().string();
    if (file.path().extension() != ".toml" || (!names.empty() && names.count(name) == 0)) continue;
    std::ostringstream text;
    text << std::ifstream(file.path()).rdbuf();
    scenarios.emplace(name, toml(text.str()).read());
  }
  int passed = 0, failed = 0;
  std::set<std::string> ran;
  const auto run = [&](const std::string &name, const std::string &kind, const std::string &store, nodes *cluster) {
    try {
      runner(kind, store, folder / (name + "-" + kind + "-own"), cluster).run(scenarios.at(name));
      passed++;
      ran.insert(name);
    } catch (const std::exception &error) {
      failed++;
      std::cout << name << " over " << kind << ": " << error.what() << std::endl;
    }
    api_end();
  };
  const auto shared = make(folder / "cluster", 3);
  for (const auto &[name, scenario] : scenarios) {
    if (scenario.has("needs") && !api_cancels) continue;
    if (scenario.has("nodes")) {
      const auto own = make(folder / ("nodes-" + name), static_cast<std::size_t>(scenario.at("nodes").number));
      run(name, "cluster", own->url(), own.get());
      continue;
    }
    if (wanted(scenario, "memory")) run(name, "memory", "memory:/", nullptr);
    if (wanted(scenario, "file")) run(name, "file", "file:" + (folder / name).string() + "/", nullptr);
    if (wanted(scenario, "cluster")) run(name, "cluster", shared->url(), nullptr);
  }
  std::cout << api_name << " conformance: " << passed << " passed, " << failed << " failed" << std::endl;
  const std::size_t least = names.empty() ? scenarios_min : names.size();
  if (failed == 0 && ran.size() < least) {
    std::cout << "only " << ran.size() << " scenarios were there to run: " << least << " are wanted" << std::endl;
  }
  return failed == 0 && ran.size() >= least ? 0 : 1;
}
