/*
 * virtuallog for C++17: values, exceptions, ranges and futures over virtuallog.h.
 *
 *     virtuallog::log log = virtuallog::open("file:data/orders");
 *     std::uint64_t position = log.append("hello");
 *     for (const virtuallog::entry &entry : log.read(position)) std::cout << entry.text();
 *
 * What is opened belongs to an object that cannot be copied and closes it. A failure is a virtuallog::error.
 * An entry's bytes are not copied: they hold as long as the batch that they came in, in a loop over a reader
 * until the next step. A log may be shared by threads; a reader belongs to one at a time.
 */
#ifndef VIRTUALLOG_HPP
#define VIRTUALLOG_HPP

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <future>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "virtuallog.h"

namespace virtuallog {

/** What a failure is, to branch on. The same numbers as VLOG_... */
enum class errc {
  invalid = VLOG_INVALID,
  not_found = VLOG_NOT_FOUND,
  locked = VLOG_LOCKED,
  too_large = VLOG_TOO_LARGE,
  trimmed = VLOG_TRIMMED,
  sealed = VLOG_SEALED,
  conflict = VLOG_CONFLICT,
  busy = VLOG_BUSY,
  unavailable = VLOG_UNAVAILABLE,
  deadline = VLOG_DEADLINE,
  corrupt = VLOG_CORRUPT,
  disk_full = VLOG_DISK_FULL,
  incompatible = VLOG_INCOMPATIBLE,
  data_loss = VLOG_DATA_LOSS,
  closed = VLOG_CLOSED,
  internal = VLOG_INTERNAL,
};

/** The library's version. The header's is VLOG_VERSION. */
inline const char *version() { return vlog_version(); }

namespace detail {

inline std::string text(const char *text) { return text ? text : ""; }

inline std::optional<std::string> maybe(const char *text) {
  return text ? std::optional<std::string>(text) : std::nullopt;
}

/** A handle, or a result's owner, that is freed. */
class handle {
 public:
  handle() = default;
  explicit handle(std::uint64_t key) : key_(key) {}
  handle(handle &&other) noexcept : key_(std::exchange(other.key_, 0)) {}
  handle &operator=(handle &&other) noexcept {
    std::swap(key_, other.key_);
    return *this;
  }
  ~handle() { vlog_free(key_); }
  std::uint64_t get() const { return key_; }

 private:
  std::uint64_t key_ = 0;
};

}  // namespace detail

/** A failure. */
class error : public std::runtime_error {
 public:
  /** Takes over what C told, and frees it. */
  explicit error(const vlog_error &told)
      : std::runtime_error(detail::text(vlog_status_name(told.status)) + ": " + detail::text(told.message)),
        code_(static_cast<errc>(told.status)),
        retryable_(told.retryable),
        in_doubt_(told.in_doubt),
        token_(detail::maybe(told.token)),
        causes_(detail::text(told.causes)) {
    if (told.has_position) position_ = told.position;
    vlog_free(told.owner);
  }

  /** What happened: what to branch on. */
  errc code() const { return code_; }
  /** Its name in every language, such as "TRIMMED". */
  const char *name() const { return vlog_status_name(static_cast<int>(code_)); }
  /** Whether the same call may succeed later. */
  bool retryable() const { return retryable_; }
  /** True when an append may or may not be in the log: log::resolve its token. */
  bool in_doubt() const { return in_doubt_; }
  /** The position that it speaks of: for errc::trimmed the first one kept. */
  std::optional<std::uint64_t> position() const { return position_; }
  /** Names the append in doubt. */
  const std::optional<std::string> &token() const { return token_; }
  /** The causes, outermost first, a line each. */
  const std::string &causes() const { return causes_; }

 private:
  errc code_;
  bool retryable_;
  bool in_doubt_;
  std::optional<std::uint64_t> position_;
  std::optional<std::string> token_;
  std::string causes_;
};

/** How long a call may take: a duration from 1 ms to 100 years, `timeout::forever()`, or the log's own. */
class timeout {
 public:
  timeout() = default;
  /** A shorter one is 1 ms, a longer one 100 years. */
  template <class Rep, class Period>
  timeout(std::chrono::duration<Rep, Period> time) {
    // As floating point, which any duration fits, and which tells what is no number.
    const std::chrono::duration<double, std::milli> ms = time;
    ms_ = ms.count() >= 1 ? static_cast<std::int64_t>(std::min(std::ceil(ms.count()), 100 * 365.25 * 86'400'000)) : 1;
  }
  /** As long as it takes. */
  static timeout forever() {
    timeout none;
    none.ms_ = VLOG_FOREVER;
    return none;
  }
  /** As `timeout_ms` in C has it: 0 for the log's own, VLOG_FOREVER for none. */
  std::int64_t milliseconds() const { return ms_; }

 private:
  std::int64_t ms_ = 0;
};

/** Bytes of somebody else's: text, or anything contiguous of elements of one byte. */
class bytes {
 public:
  bytes() = default;
  bytes(const void *data, std::size_t size) : data_(static_cast<const std::uint8_t *>(data)), size_(size) {}
  bytes(const char *text) : bytes(text, text ? std::strlen(text) : 0) {}
  template <class Container, class Element = std::remove_pointer_t<decltype(std::declval<const Container &>().data())>,
            class = std::enable_if_t<sizeof(Element) == 1 && std::is_trivially_copyable_v<Element>>>
  bytes(const Container &container) : bytes(container.data(), container.size()) {}

  /** Where they are; may be null where there are none. */
  const std::uint8_t *data() const { return data_; }
  /** How many. */
  std::size_t size() const { return size_; }
  /** The same bytes as text, whatever they are. */
  std::string_view text() const { return {reinterpret_cast<const char *>(data_), size_}; }

 private:
  const std::uint8_t *data_ = nullptr;
  std::size_t size_ = 0;
};

namespace detail {

inline vlog_call call(timeout time) {
  vlog_call call{};
  call.timeout_ms = time.milliseconds();
  return call;
}

/** Makes a call of C, and throws what it tells. */
template <class Call>
void checked(Call &&call) {
  vlog_error failure{};
  if (call(&failure) != VLOG_OK) throw error(failure);
}

template <class Result, class Call>
Result result(Call &&call) {
  Result result{};
  checked([&](vlog_error *failure) { return call(&result, failure); });
  return result;
}

/** Whether what an iterator gives lives in the range, and not in the iterator or in nothing at all. */
template <class Iterator, class = void>
struct lasting : std::false_type {};
template <class Iterator>
struct lasting<Iterator, std::void_t<typename std::iterator_traits<Iterator>::iterator_category>>
    : std::bool_constant<std::is_base_of_v<std::forward_iterator_tag, typename std::iterator_traits<Iterator>::iterator_category> &&
                         std::is_lvalue_reference_v<decltype(*std::declval<Iterator &>())>> {};

/** Calls `use` with where the payloads are; those that the range makes as it goes are kept until it is back. */
template <class Range, class Use>
auto with_slices(const Range &payloads, Use &&use) {
  using iterator = std::decay_t<decltype(std::begin(payloads))>;
  if constexpr (lasting<iterator>::value) {
    std::vector<vlog_slice> slices;
    for (const bytes payload : payloads) slices.push_back({payload.data(), payload.size()});
    return use(slices);
  } else {
    std::vector<std::decay_t<decltype(*std::begin(payloads))>> made;
    for (auto &&payload : payloads) made.push_back(std::forward<decltype(payload)>(payload));
    return with_slices(made, std::forward<Use>(use));
  }
}

inline std::vector<std::string> strings(const char *const *texts, std::size_t count) {
  return std::vector<std::string>(texts, texts + count);
}

}  // namespace detail

/** Where a log ends. */
struct tail {
  std::uint64_t position;
  bool sealed;
};

/** What a trim did; `limited_by` says why `effective` is not `requested`. */
struct trimmed {
  std::uint64_t requested;
  std::uint64_t effective;
  vlog_trim_limit limited_by;
};

/** What log::append_all put into the log. */
struct appended {
  std::uint64_t first;
  std::uint64_t last;
  std::uint64_t count;
};

/** A range of positions, and the loglet that holds it. */
struct segment {
  std::uint32_t index;
  std::uint64_t start;
  std::optional<std::uint64_t> stop;
  std::string loglet;
};

/** Which loglet holds which positions of a log, at one version. */
struct chain {
  std::string log;
  std::uint64_t version;
  std::vector<segment> segments;
  std::optional<std::string> next;
  vlog_life life;
  std::optional<std::string> moved_to;

  /** Takes over what C told, and frees it. */
  static chain of(const vlog_chain &told) {
    detail::handle owner(told.owner);
    chain chain{detail::text(told.log), told.version, {}, detail::maybe(told.next), told.life,
                detail::maybe(told.moved_to)};
    for (std::size_t i = 0; i < told.segments_len; i++) {
      const vlog_segment &one = told.segments[i];
      auto stop = one.sealed ? std::optional<std::uint64_t>(one.stop) : std::nullopt;
      chain.segments.push_back({one.index, one.start, stop, detail::text(one.loglet)});
    }
    return chain;
  }
};

/** The nodes that a loglet is on. */
struct placement {
  std::vector<std::uint32_t> members;
  std::uint32_t sequencer;
};

/** What a log::reconfig_extend would do. */
struct plan {
  std::uint64_t version;
  std::string from_loglet;
  std::string to_loglet;
  std::uint32_t seals_segment;
  std::uint64_t tail;
  std::uint64_t bytes_to_move;
  std::vector<std::string> objections;
  std::optional<placement> before;
  std::optional<placement> after;
};

/** What a verification found. */
struct report {
  std::uint64_t segments;
  std::uint64_t entries;
  std::uint64_t bytes;
  std::vector<std::string> problems;
};

/** A node of a cluster. */
struct node {
  std::uint32_t number;
  std::string address;
  std::string zone;
  std::vector<std::string> roles;
  bool metastore;
  bool alive;
  bool draining;
  std::uint32_t sequences;
  std::string storage;
};

/** A cluster, as one of its nodes sees it. */
struct cluster {
  std::string id;
  std::string url;
  std::vector<node> nodes;

  /** Takes over what C told, and frees it. */
  static cluster of(const vlog_cluster &told) {
    detail::handle owner(told.owner);
    cluster cluster{detail::text(told.id), detail::text(told.url), {}};
    for (std::size_t i = 0; i < told.nodes_len; i++) {
      const vlog_node &one = told.nodes[i];
      node node{one.node,  detail::text(one.address), detail::text(one.zone), {}, one.metastore, one.alive,
                one.draining, one.sequences, detail::text(one.storage)};
      if (one.role_log) node.roles.push_back("log");
      if (one.role_sequencer) node.roles.push_back("sequencer");
      if (one.role_metastore) node.roles.push_back("metastore");
      cluster.nodes.push_back(std::move(node));
    }
    return cluster;
  }
};

/** An entry. Its bytes belong to the batch that it came in. */
class entry {
 public:
  explicit entry(const vlog_entry &told) : told_(told) {}
  /** Where it is in the log. */
  std::uint64_t position() const { return told_.position; }
  /** What was appended. Holds as long as the batch. */
  bytes payload() const { return {told_.data, told_.len}; }
  /** The payload as text, whatever it is. Holds as long as the batch. */
  std::string_view text() const { return payload().text(); }
  /** The writer's clock in microseconds since 1970 (UTC). Information only. */
  std::int64_t written_at_micros() const { return told_.written_at_micros; }
  /** The writer's clock. */
  std::chrono::system_clock::time_point written_at() const {
    return std::chrono::system_clock::time_point(std::chrono::microseconds(written_at_micros()));
  }

 private:
  vlog_entry told_;
};

/** Entries that follow each other in the log. */
class batch {
 public:
  batch() = default;
  explicit batch(const vlog_batch &told) : owner_(told.owner), entries_(told.entries), size_(told.len) {}
  batch(batch &&other) noexcept { *this = std::move(other); }
  batch &operator=(batch &&other) noexcept {
    owner_ = std::move(other.owner_);
    entries_ = std::exchange(other.entries_, nullptr);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }

  class iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = entry;
    using difference_type = std::ptrdiff_t;
    using pointer = void;
    using reference = entry;
    explicit iterator(const vlog_entry *at) : at_(at) {}
    entry operator*() const { return entry(*at_); }
    iterator &operator++() {
      ++at_;
      return *this;
    }
    bool operator==(const iterator &other) const { return at_ == other.at_; }
    bool operator!=(const iterator &other) const { return at_ != other.at_; }

   private:
    const vlog_entry *at_;
  };

  /** Whether it is of no entry: the end of what is read. */
  bool empty() const { return size_ == 0; }
  /** How many entries. */
  std::size_t size() const { return size_; }
  entry operator[](std::size_t index) const { return entry(entries_[index]); }
  /** The first entry. */
  iterator begin() const { return iterator(entries_); }
  /** Behind the last entry. */
  iterator end() const { return iterator(entries_ + size_); }

 private:
  detail::handle owner_;
  const vlog_entry *entries_ = nullptr;
  std::size_t size_ = 0;
};

/**
 * Reads a range of a log, or follows the log. In a range-for it gives entry by entry; a subscription waits
 * for the next one for as long as it takes.
 */
class reader {
 public:
  static constexpr std::size_t batch_entries = 1024;

  explicit reader(vlog_reader key) : key_(key) {}

  /** The next entries, at most so many; none at the end. errc::deadline loses nothing. */
  batch next_batch(std::size_t entries_max = batch_entries, timeout time = {}) {
    const vlog_call call = detail::call(time);
    return batch(detail::result<vlog_batch>(
        [&](auto *out, auto *e) { return vlog_reader_next(key_.get(), entries_max, &call, out, e); }));
  }

  /** The next position to deliver: what to save in order to resume. */
  std::uint64_t position() const {
    if (at_ < current_.size()) return current_[at_].position();
    return detail::result<std::uint64_t>(
        [&](auto *out, auto *e) { return vlog_reader_position(key_.get(), out, e); });
  }

  /** Ends it: a thread that waits gets errc::closed. */
  void close() { vlog_reader_close(key_.get()); }

  class iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = entry;
    using difference_type = std::ptrdiff_t;
    using pointer = void;
    using reference = entry;
    explicit iterator(reader *of) : of_(of) {}
    entry operator*() const { return of_->current_[of_->at_ - 1]; }
    iterator &operator++() {
      if (!of_->step()) of_ = nullptr;
      return *this;
    }
    bool operator==(const iterator &other) const { return of_ == other.of_; }
    bool operator!=(const iterator &other) const { return of_ != other.of_; }

   private:
    reader *of_;
  };

  /** The next entry, and from there on: reads it, and waits for it. Goes on where an earlier loop ended. */
  iterator begin() { return iterator(step() ? this : nullptr); }
  /** Behind the last entry. */
  iterator end() { return iterator(nullptr); }

 private:
  /** Goes on to the next entry, which is the one before `at_` then. */
  bool step() {
    if (at_ == current_.size()) {
      current_ = batch();
      at_ = 0;
      current_ = next_batch();
    }
    if (current_.empty()) return false;
    at_++;
    return true;
  }

  detail::handle key_;
  batch current_;
  std::size_t at_ = 0;
};

/** The outcome of an operation that did not wait: get() gives the result or throws. */
template <class Result>
class outcome {
 public:
  explicit outcome(Result result) : result_(std::move(result)) {}
  explicit outcome(error failure) : failure_(std::make_shared<error>(std::move(failure))) {}
  /** Whether there is a result. */
  bool ok() const { return !failure_; }
  /** Only where it is not ok(). */
  const error &failure() const { return *failure_; }
  /** The result; throws the failure. */
  Result &get() {
    if (failure_) throw *failure_;
    return *result_;
  }

 private:
  std::optional<Result> result_;
  std::shared_ptr<error> failure_;
};

/**
 * Operations that do not wait, for a program with an event loop: watch fd(), and call run() when it can be
 * read. The callbacks run there, and nowhere else. Dropping it drops what was not told; an append stays
 * submitted.
 */
class queue {
 public:
  queue()
      : key_(detail::result<vlog_queue>([](auto *out, auto *e) { return vlog_queue_new(out, e); })) {}
  queue(const queue &) = delete;

  /** Can be read once something was answered; belongs to the queue. -1 in a child of fork. */
  int fd() const { return vlog_queue_fd(key_.get()); }

  /** How many operations were not told yet. */
  std::size_t size() const { return vlog_queue_len(key_.get()); }

  /**
   * Runs the callbacks of what was answered, and gives how many; waits for the first one, if asked to. Where a
   * callback throws, the others run all the same, and then the first exception is thrown on.
   */
  std::size_t run(std::chrono::milliseconds wait = std::chrono::milliseconds(0)) { return run_ms(wait.count()); }

  /** As run(), waiting for as long as it takes. */
  std::size_t run_forever() { return run_ms(VLOG_FOREVER); }

  /**
   * Submits any operation: `start(call, out, error)` makes the call of C, `done(outcome)` gets what it
   * wrote to `out`. Throws what the call itself refuses.
   */
  template <class Result, class Start, class Done>
  void submit(Start start, Done done, timeout time = {}) {
    // The handle is dead in a child of fork, where the lock may be held for ever: this throws.
    if (fd() < 0) run();
    auto made = std::make_unique<waiting_for<Result, Done>>(std::move(done));
    auto *waiting = made.get();
    vlog_call call = detail::call(time);
    call.queue = key_.get();
    call.context = reinterpret_cast<std::uintptr_t>(static_cast<waiting_base *>(waiting));
    keep(std::move(made));
    try {
      detail::checked([&](vlog_error *failure) { return start(&call, &waiting->result, failure); });
    } catch (...) {
      take(call.context);
      throw;
    }
  }

  /** Drops what was not told, and ends a run() in another thread with errc::closed. */
  void close() { vlog_queue_close(key_.get()); }

 private:
  struct waiting_base {
    virtual ~waiting_base() = default;
    virtual void told(const vlog_completion &completion) = 0;
  };

  template <class Result, class Done>
  struct waiting_for : waiting_base {
    explicit waiting_for(Done given) : done(std::move(given)) {}
    void told(const vlog_completion &completion) override {
      if (completion.status == VLOG_OK) {
        done(outcome<Result>(result));
      } else {
        done(outcome<Result>(error(completion.error)));
      }
    }
    Done done;
    Result result{};
  };

  /** All that was taken out of the queue is told, also when a callback throws. */
  std::size_t run_ms(std::int64_t wait_ms) {
    vlog_completion completions[64];
    std::size_t count = 0;
    detail::checked([&](vlog_error *failure) {
      return vlog_queue_next(key_.get(), completions, std::size(completions), wait_ms, &count, failure);
    });
    std::exception_ptr thrown;
    for (std::size_t i = 0; i < count; i++) {
      try {
        if (auto waiting = take(completions[i].context)) waiting->told(completions[i]);
      } catch (...) {
        if (!thrown) thrown = std::current_exception();
      }
    }
    if (thrown) std::rethrow_exception(thrown);
    return count;
  }

  void keep(std::unique_ptr<waiting_base> waiting) {
    const auto context = reinterpret_cast<std::uintptr_t>(waiting.get());
    std::lock_guard<std::mutex> lock(mutex_);
    waiting_.emplace(context, std::move(waiting));
  }

  std::unique_ptr<waiting_base> take(std::uint64_t context) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = waiting_.extract(static_cast<std::uintptr_t>(context));
    return found ? std::move(found.mapped()) : nullptr;
  }

  std::mutex mutex_;
  /** Declared before the handle, which goes first: until then results may be written. */
  std::unordered_map<std::uintptr_t, std::unique_ptr<waiting_base>> waiting_;
  detail::handle key_;
};

namespace detail {

/** A queue with a thread of its own that settles futures. */
class background {
 public:
  background() : thread_([this] { run(); }) {}
  ~background() {
    // The thread is the parent's, in a child of fork.
    const bool ours = queue_.fd() >= 0;
    queue_.close();
    ours ? thread_.join() : thread_.detach();
  }

  template <class Result, class Start>
  std::future<Result> submit(Start start, timeout time) {
    auto promise = std::make_shared<std::promise<Result>>();
    std::future<Result> future = promise->get_future();
    auto settle = [promise](outcome<Result> outcome) {
      if (outcome.ok()) {
        promise->set_value(outcome.get());
      } else {
        promise->set_exception(std::make_exception_ptr(outcome.failure()));
      }
    };
    queue_.submit<Result>(std::move(start), std::move(settle), time);
    return future;
  }

 private:
  void run() {
    try {
      for (;;) queue_.run_forever();
    } catch (const error &) {
      // The queue was closed.
    }
  }

  queue queue_;
  std::thread thread_;
};

}  // namespace detail

/** How to open a log. */
struct options {
  /** Whether a missing log is created; otherwise that is errc::not_found. */
  bool create = true;
  /** Beside the owner of a `file:` log in another process, without lock and without any write. */
  bool read_only = false;
  /** What the first segment of a log that is created is kept in; empty: the store's default. */
  std::string loglet;
  /** The default deadline of each call; left out: the URL's, or 10 s. */
  virtuallog::timeout timeout;
  /** The limit on one entry, in bytes, at most 16 MiB; 0: the URL's, or 1 MiB. */
  std::size_t entry_bytes_max = 0;
  /** The limit on what is submitted and not answered, in bytes; 0: the URL's, or 32 MiB. */
  std::size_t in_flight_bytes_max = 0;
};

/** Where a subscription starts, if not at a position: at the first entry that was not trimmed. */
inline constexpr std::uint64_t first = VLOG_FIRST;
/** As `first`: only what is appended from now on. */
inline constexpr std::uint64_t at_tail = VLOG_TAIL;

/** An open log. Its end closes it, in silence: close() tells failures that nobody saw. */
class log {
 public:
  log(const std::string &url, const options &options) {
    vlog_options given{};
    given.no_create = !options.create;
    given.read_only = options.read_only;
    given.loglet = options.loglet.empty() ? nullptr : options.loglet.c_str();
    given.timeout_ms = options.timeout.milliseconds();
    given.entry_bytes_max = options.entry_bytes_max;
    given.in_flight_bytes_max = options.in_flight_bytes_max;
    key_ = detail::handle(detail::result<vlog_log>(
        [&](auto *out, auto *e) { return vlog_open(url.c_str(), &given, nullptr, out, e); }));
  }
  log(log &&) = default;
  log &operator=(log &&other) noexcept {
    std::swap(key_, other.key_);
    std::swap(lazy_, other.lazy_);
    return *this;
  }
  ~log() {
    if (key_.get() != 0) vlog_close(key_.get(), nullptr, nullptr);
  }

  /** The log's name: the last part of its URL. */
  std::string name() const { return detail::text(vlog_log_name(key_.get())); }
  /** The deadline of calls that name none; nothing: they have none. */
  std::optional<std::chrono::milliseconds> timeout() const {
    const std::int64_t ms = vlog_log_timeout_ms(key_.get());
    return ms == VLOG_FOREVER ? std::nullopt : std::optional(std::chrono::milliseconds(ms));
  }
  /** The handle, for what virtuallog.h has beyond this file. */
  vlog_log get() const { return key_.get(); }

  /**
   * Appends one entry and gives its position, once it is durable. Waits its turn when the window of entries in flight
   * is full. errc::too_large over the entry limit (1 MiB by default), errc::sealed on an ended log, errc::deadline
   * when time runs out; where that, or any error, is in_doubt(), the entry may be in the log: resolve() its token
   * before appending it again. Nothing is ever appended twice by itself.
   */
  std::uint64_t append(bytes payload, virtuallog::timeout time = {}) {
    return result<std::uint64_t>(time, [&](auto *call, auto *out, auto *e) {
      return vlog_append(key_.get(), payload.data(), payload.size(), call, out, e);
    });
  }

  /**
   * Appends one batch, atomically and contiguously; gives its first position. At most 1,024 entries and 4 MiB (or one
   * entry up to the entry limit): more is errc::too_large, none at all errc::invalid. For any number, see append_all.
   * An error that is in_doubt() is one for the whole batch.
   */
  template <class Range>
  std::uint64_t append_many(const Range &payloads, virtuallog::timeout time = {}) {
    return detail::with_slices(payloads, [&](const std::vector<vlog_slice> &slices) {
      return result<std::uint64_t>(time, [&](auto *call, auto *out, auto *e) {
        return vlog_append_many(key_.get(), slices.data(), slices.size(), call, out, e);
      });
    });
  }
  /** As append_many() of a range. */
  std::uint64_t append_many(std::initializer_list<bytes> payloads, virtuallog::timeout time = {}) {
    return append_many<std::initializer_list<bytes>>(payloads, time);
  }

  /** As append(), but errc::busy at once when the window of entries in flight is full. */
  std::uint64_t append_nowait(bytes payload, virtuallog::timeout time = {}) {
    return result<std::uint64_t>(time, [&](auto *call, auto *out, auto *e) {
      return vlog_append_nowait(key_.get(), payload.data(), payload.size(), call, out, e);
    });
  }

  /**
   * Appends any number of entries one after the other, pipelined, with back-pressure; nothing for an empty range. Each
   * entry stands for itself: an error leaves those before it in the log. `time` bounds each wait for answers.
   */
  template <class Range>
  std::optional<appended> append_all(const Range &payloads, virtuallog::timeout time = {}) {
    const detail::handle pipeline(detail::result<vlog_pipeline>([&](auto *out, auto *e) {
      return vlog_pipeline_new(key_.get(), time.milliseconds(), out, e);
    }));
    for (auto &&one : payloads) {
      const bytes payload(one);
      detail::checked([&](vlog_error *e) {
        return vlog_pipeline_push(pipeline.get(), payload.data(), payload.size(), e);
      });
    }
    const auto told = detail::result<vlog_appended>(
        [&](auto *out, auto *e) { return vlog_pipeline_finish(pipeline.get(), nullptr, out, e); });
    if (told.count == 0) return std::nullopt;
    return appended{told.first, told.last, told.count};
  }

  /**
   * Submits an append now, in call order. A thread of this object settles the futures, and stays in the parent
   * when it forks: in the child they are never settled.
   */
  std::future<std::uint64_t> append_async(bytes payload, virtuallog::timeout time = {}) {
    return background().submit<std::uint64_t>(
        [&](const vlog_call *call, std::uint64_t *out, vlog_error *e) {
          return vlog_append(key_.get(), payload.data(), payload.size(), call, out, e);
        },
        time);
  }

  /** Submits a batch now, in call order. */
  template <class Range>
  std::future<std::uint64_t> append_many_async(const Range &payloads, virtuallog::timeout time = {}) {
    return detail::with_slices(payloads, [&](const std::vector<vlog_slice> &slices) {
      return background().submit<std::uint64_t>(
          [&](const vlog_call *call, std::uint64_t *out, vlog_error *e) {
            return vlog_append_many(key_.get(), slices.data(), slices.size(), call, out, e);
          },
          time);
    });
  }

  /** Submits an append to a queue of the program's own; `done` gets an outcome<std::uint64_t>. */
  template <class Done>
  void append(queue &queue, bytes payload, Done done, virtuallog::timeout time = {}) {
    queue.submit<std::uint64_t>(
        [&](const vlog_call *call, std::uint64_t *out, vlog_error *e) {
          return vlog_append(key_.get(), payload.data(), payload.size(), call, out, e);
        },
        std::move(done), time);
  }

  /** Waits for all that was submitted so far; throws the first failure that nobody saw. */
  void flush(virtuallog::timeout time = {}) {
    done(time, [&](auto *call, auto *e) { return vlog_flush(key_.get(), call, e); });
  }

  /** Where the log ends: the first unwritten position, and whether the log was ended. */
  virtuallog::tail check_tail(virtuallog::timeout time = {}) {
    return ended(time, [&](auto *call, auto *out, auto *e) { return vlog_check_tail(key_.get(), call, out, e); });
  }

  /** The first position that was not trimmed. */
  std::uint64_t first(virtuallog::timeout time = {}) {
    return result<std::uint64_t>(
        time, [&](auto *call, auto *out, auto *e) { return vlog_first(key_.get(), call, out, e); });
  }

  /** Reads from `start` up to, not including, `end`, or to today's tail. */
  reader read(std::uint64_t start, std::optional<std::uint64_t> end = {}, virtuallog::timeout time = {}) {
    return reader(result<vlog_reader>(time, [&](auto *call, auto *out, auto *e) {
      return vlog_read(key_.get(), start, end.value_or(VLOG_TAIL), call, out, e);
    }));
  }

  /** The first entry at or after `start` and below `end` or the tail: a batch of it, or of none. */
  batch read_next(std::uint64_t start, std::optional<std::uint64_t> end = {}, virtuallog::timeout time = {}) {
    return batch(result<vlog_batch>(time, [&](auto *call, auto *out, auto *e) {
      return vlog_read_next(key_.get(), start, end.value_or(VLOG_TAIL), call, out, e);
    }));
  }

  /** Follows the log from a position, or from virtuallog::first or virtuallog::at_tail. */
  reader subscribe(std::uint64_t start, virtuallog::timeout time = {}) {
    return reader(result<vlog_reader>(time, [&](auto *call, auto *out, auto *e) {
      return vlog_subscribe(key_.get(), start, call, out, e);
    }));
  }

  /** Gives up every entry below `keep_from`. */
  trimmed prefix_trim(std::uint64_t keep_from, virtuallog::timeout time = {}) {
    const auto told = result<vlog_trimmed>(time, [&](auto *call, auto *out, auto *e) {
      return vlog_prefix_trim(key_.get(), keep_from, call, out, e);
    });
    return {told.requested, told.effective, told.limited_by};
  }

  /** Ends the log for good and gives the final tail. */
  virtuallog::tail seal(virtuallog::timeout time = {}) {
    return ended(time, [&](auto *call, auto *out, auto *e) { return vlog_seal(key_.get(), call, out, e); });
  }

  /** The newest chain: which loglet holds which positions. */
  virtuallog::chain chain(virtuallog::timeout time = {}) {
    return changed(time, [&](auto *call, auto *out, auto *e) { return vlog_get_chain(key_.get(), call, out, e); });
  }

  /**
   * Seals the active loglet and goes on in a new one, for example "local". Appends under way are carried over, none
   * twice. errc::conflict where the chain is at another version than `if_version`, or, if that is left out, than
   * this log saw last. When time runs out the reconfiguration may still complete: look at the chain.
   */
  virtuallog::chain reconfig_extend(const std::string &loglet, std::optional<std::uint64_t> if_version = {},
                                    virtuallog::timeout time = {}) {
    return changed(time, [&](auto *call, auto *out, auto *e) {
      return vlog_reconfig_extend(key_.get(), loglet.c_str(), if_version.value_or(VLOG_LAST_SEEN), call, out, e);
    });
  }

  /**
   * Drops the leading segments that were trimmed whole; gives the chain as it is when there are none.
   * errc::conflict where the chain is at another version than `if_version`.
   */
  virtuallog::chain reconfig_truncate(std::optional<std::uint64_t> if_version = {}, virtuallog::timeout time = {}) {
    return changed(time, [&](auto *call, auto *out, auto *e) {
      return vlog_reconfig_truncate(key_.get(), if_version.value_or(VLOG_LAST_SEEN), call, out, e);
    });
  }

  /**
   * Moves the sealed segment of this index into another loglet, by copying it. Has no deadline unless one is given;
   * when that passes the move may still complete: look at the chain. errc::invalid when no sealed segment has the
   * index, or for a loglet that this store cannot have; errc::conflict as reconfig_extend.
   */
  virtuallog::chain reconfig_modify(std::uint32_t segment, const std::string &loglet,
                                    std::optional<std::uint64_t> if_version = {}, virtuallog::timeout time = {}) {
    return changed(time, [&](auto *call, auto *out, auto *e) {
      const std::uint64_t version = if_version.value_or(VLOG_LAST_SEEN);
      return vlog_reconfig_modify(key_.get(), segment, loglet.c_str(), version, call, out, e);
    });
  }

  /** What reconfig_extend to `loglet` would do; does nothing. */
  virtuallog::plan plan(const std::string &loglet, virtuallog::timeout time = {}) {
    const auto told = result<vlog_plan>(time, [&](auto *call, auto *out, auto *e) {
      return vlog_get_plan(key_.get(), loglet.c_str(), call, out, e);
    });
    const detail::handle owner(told.owner);
    const auto placed = [](const vlog_placement &place) -> std::optional<placement> {
      if (!place.members) return std::nullopt;
      return placement{{place.members, place.members + place.members_len}, place.sequencer};
    };
    return {told.version,
            detail::text(told.from_loglet),
            detail::text(told.to_loglet),
            told.seals_segment,
            told.tail,
            told.bytes_to_move,
            detail::strings(told.objections, told.objections_len),
            placed(told.before),
            placed(told.after)};
  }

  /** Where an append in doubt ended up; nothing: surely not in the log. */
  std::optional<std::uint64_t> resolve(const std::string &token, virtuallog::timeout time = {}) {
    const auto told = result<vlog_resolved>(time, [&](auto *call, auto *out, auto *e) {
      return vlog_resolve(key_.get(), token.c_str(), call, out, e);
    });
    return told.found ? std::optional<std::uint64_t>(told.position) : std::nullopt;
  }

  /** Reads the whole log and checks every checksum. Has no deadline unless one is given. */
  report verify(virtuallog::timeout time = {}) {
    const auto told = result<vlog_report>(
        time, [&](auto *call, auto *out, auto *e) { return vlog_verify(key_.get(), call, out, e); });
    const detail::handle owner(told.owner);
    return {told.segments, told.entries, told.bytes, detail::strings(told.problems, told.problems_len)};
  }

  /** Flushes and gives the log's resources back; throws the first failure that nobody saw. */
  void close(virtuallog::timeout time = {}) {
    done(time, [&](auto *call, auto *e) { return vlog_close(key_.get(), call, e); });
  }

 private:
  template <class Result, class Call>
  static Result result(virtuallog::timeout time, Call &&make) {
    const vlog_call call = detail::call(time);
    return detail::result<Result>([&](auto *out, auto *e) { return make(&call, out, e); });
  }

  template <class Call>
  static void done(virtuallog::timeout time, Call &&make) {
    const vlog_call call = detail::call(time);
    detail::checked([&](vlog_error *e) { return make(&call, e); });
  }

  template <class Call>
  static virtuallog::tail ended(virtuallog::timeout time, Call &&make) {
    const auto told = result<vlog_tail>(time, std::forward<Call>(make));
    return {told.position, told.sealed};
  }

  template <class Call>
  static virtuallog::chain changed(virtuallog::timeout time, Call &&make) {
    return virtuallog::chain::of(result<vlog_chain>(time, std::forward<Call>(make)));
  }

  /** Threads may be the first to ask at once. */
  struct lazy {
    std::once_flag once;
    std::unique_ptr<detail::background> background;
  };

  detail::background &background() {
    std::call_once(lazy_->once, [this] { lazy_->background = std::make_unique<detail::background>(); });
    return *lazy_->background;
  }

  detail::handle key_;
  std::unique_ptr<lazy> lazy_ = std::make_unique<lazy>();
};

/** Opens the log that `url` names, and creates it if it is missing. */
inline log open(const std::string &url, const options &options = {}) { return log(url, options); }

/** Creates a log; errc::conflict if there is one. */
inline void create(const std::string &url, const std::string &loglet = "", timeout time = {}) {
  const vlog_call call = detail::call(time);
  detail::checked([&](vlog_error *e) {
    return vlog_create(url.c_str(), loglet.empty() ? nullptr : loglet.c_str(), &call, e);
  });
}

/** Deletes a log and all its entries. (`delete` is a word of the language.) */
inline void remove_log(const std::string &url, timeout time = {}) {
  const vlog_call call = detail::call(time);
  detail::checked([&](vlog_error *e) { return vlog_delete(url.c_str(), &call, e); });
}

/** The names of the logs in a store (a URL that ends in `/`), sorted. */
inline std::vector<std::string> logs(const std::string &url, timeout time = {}) {
  const vlog_call call = detail::call(time);
  const auto told = detail::result<vlog_names>(
      [&](auto *out, auto *e) { return vlog_logs(url.c_str(), &call, out, e); });
  const detail::handle owner(told.owner);
  return detail::strings(told.names, told.len);
}

/** How far a move has come. */
struct move_progress {
  vlog_move_phase phase;
  std::size_t segments_done;
  std::size_t segments_total;
  std::uint64_t bytes_done;
};

/**
 * Moves the log `src` to `dst`, a name in another store, while it is used; gives its chain there.
 * `progress` is called on this thread, as it goes on.
 */
inline chain move(const std::string &src, const std::string &dst, bool leave_sealed = false,
                  const std::function<void(const move_progress &)> &progress = {}) {
  const detail::handle moving(detail::result<vlog_move>(
      [&](auto *out, auto *e) { return vlog_move_start(src.c_str(), dst.c_str(), leave_sealed, out, e); }));
  for (;;) {
    const auto step = detail::result<vlog_move_step>(
        [&](auto *out, auto *e) { return vlog_move_next(moving.get(), nullptr, out, e); });
    if (step.phase == VLOG_MOVE_DONE) return chain::of(step.chain);
    if (progress) progress({step.phase, step.segments_done, step.segments_total, step.bytes_done});
  }
}

/** How to run a server. */
struct server_config {
  std::string data;
  std::string listen = "127.0.0.1:0";
  std::string advertise;
  std::string zone;
  /** Some of "log,sequencer,metastore"; empty: all. */
  std::string roles;
  std::vector<std::string> join;
  bool insecure = false;
};

/** A server of a cluster, in this process, until its end, which the others take for a crash unless it was drained. */
class server {
 public:
  explicit server(const server_config &config, timeout time = {}) {
    const auto given = [](const std::string &text) { return text.empty() ? nullptr : text.c_str(); };
    std::vector<const char *> join;
    for (const std::string &address : config.join) join.push_back(address.c_str());
    vlog_server_config told{};
    told.data = config.data.c_str();
    told.listen = config.listen.c_str();
    told.advertise = given(config.advertise);
    told.zone = given(config.zone);
    told.roles = given(config.roles);
    told.join = join.data();
    told.join_len = join.size();
    told.insecure = config.insecure;
    const vlog_call call = detail::call(time);
    key_ = detail::handle(detail::result<vlog_server>(
        [&](auto *out, auto *e) { return vlog_server_start(&told, &call, out, e); }));
  }

  /** The address by which others reach it, HOST:PORT. */
  std::string address() const { return detail::text(vlog_server_address(key_.get())); }
  /** The store of its cluster, by its address: add a log's name to open one. */
  std::string url() const { return detail::text(vlog_server_url(key_.get())); }
  /** 0 until it is part of a cluster. */
  std::uint32_t node() const {
    return detail::result<std::uint32_t>(
        [&](auto *out, auto *e) { return vlog_server_node(key_.get(), out, e); });
  }
  /** Its cluster's identity: 32 hexadecimal digits; empty until it is part of one. */
  std::string cluster() const {
    char id[33] = "";
    detail::checked([&](vlog_error *e) { return vlog_server_cluster(key_.get(), id, e); });
    return id;
  }
  /**
   * Waits until it is part of a cluster and can be used. errc::data_loss when the others say that its disk has
   * forgotten something.
   */
  void ready(timeout time = {}) { done(time, vlog_server_ready); }
  /**
   * Hands the logs that it gives positions for to other nodes, and gets no new ones: before close(), so that nobody
   * notices that.
   */
  void drain(timeout time = {}) { done(time, vlog_server_drain); }
  /** Stops it and gives its directory and port back; when time runs out it goes on. */
  void close(timeout time = {}) { done(time, vlog_server_close); }

 private:
  template <class Call>
  void done(timeout time, Call make) {
    const vlog_call call = detail::call(time);
    detail::checked([&](vlog_error *e) { return make(key_.get(), &call, e); });
  }

  detail::handle key_;
};

/** Makes a cluster of the servers at these addresses, which belong to none yet. */
inline cluster init(const std::vector<std::string> &addresses, timeout time = {}) {
  std::vector<const char *> given;
  for (const std::string &address : addresses) given.push_back(address.c_str());
  const vlog_call call = detail::call(time);
  return cluster::of(detail::result<vlog_cluster>(
      [&](auto *out, auto *e) { return vlog_init(given.data(), given.size(), &call, out, e); }));
}

/** The nodes of the cluster that `url`, a store or a log of it, names. */
inline cluster nodes(const std::string &url, timeout time = {}) {
  const vlog_call call = detail::call(time);
  return cluster::of(detail::result<vlog_cluster>(
      [&](auto *out, auto *e) { return vlog_nodes(url.c_str(), &call, out, e); }));
}

/** Hands what a node gives positions for to others, and places nothing new on it. */
inline void drain(const std::string &url, std::uint32_t node, timeout time = {}) {
  const vlog_call call = detail::call(time);
  detail::checked([&](vlog_error *e) { return vlog_drain(url.c_str(), node, &call, e); });
}

/** Takes a node out of its cluster for good. Has no deadline unless one is given. */
inline void remove(const std::string &url, std::uint32_t node, timeout time = {}) {
  const vlog_call call = detail::call(time);
  detail::checked([&](vlog_error *e) { return vlog_remove(url.c_str(), node, &call, e); });
}

/** A node of a local_cluster. */
struct local_node {
  /** From 1 on: what stop and restart take. */
  std::uint32_t node;
  /** HOST:PORT, the same whenever it runs. */
  std::string address;
  /** Its directory. */
  std::string dir;
  /** The number of its process; nothing while it is stopped. */
  std::optional<std::uint32_t> pid;
};

/** A cluster of processes on this machine, for tests: those installed with the library. Ends with the object. */
class local_cluster {
 public:
  /** `dir`: where their directories are made, and stay; empty: in a temporary one that is removed. */
  explicit local_cluster(std::uint32_t nodes = 3, const std::string &dir = "", timeout time = {}) {
    const vlog_call call = detail::call(time);
    key_ = detail::handle(detail::result<vlog_local_cluster>([&](auto *out, auto *e) {
      return vlog_local_cluster_start(nodes, dir.empty() ? nullptr : dir.c_str(), &call, out, e);
    }));
  }

  /** The store, by the addresses of all nodes: add a log's name to open one. */
  std::string url() const { return detail::text(vlog_local_cluster_url(key_.get())); }
  /** All nodes as they are now, those that were stopped too. */
  std::vector<local_node> nodes() const {
    const auto told = detail::result<vlog_local_nodes>(
        [&](auto *out, auto *e) { return vlog_local_cluster_nodes(key_.get(), out, e); });
    const detail::handle owner(told.owner);
    std::vector<local_node> nodes;
    for (std::size_t i = 0; i < told.len; i++) {
      const vlog_local_node &one = told.nodes[i];
      auto pid = one.pid != 0 ? std::optional<std::uint32_t>(one.pid) : std::nullopt;
      nodes.push_back({one.node, detail::text(one.address), detail::text(one.dir), pid});
    }
    return nodes;
  }
  /** Kills a node as it stands; they are numbered from 1. errc::invalid when it does not run. */
  void stop(std::uint32_t node) {
    detail::checked([&](vlog_error *e) { return vlog_local_cluster_stop(key_.get(), node, nullptr, e); });
  }
  /** Starts a node that was stopped, and waits until it is ready. */
  void restart(std::uint32_t node, timeout time = {}) {
    const vlog_call call = detail::call(time);
    detail::checked([&](vlog_error *e) { return vlog_local_cluster_restart(key_.get(), node, &call, e); });
  }
  /** Kills all nodes and removes what was temporary, as its end does; later calls are errc::closed. */
  void close() { vlog_free(key_.get()); }

 private:
  detail::handle key_;
};

/** One report of the library. Its text holds during the call that it is given to. */
struct diagnostic {
  vlog_level level;
  std::string_view target;
  std::string_view message;
};

/**
 * Hands what the library reports to a function of the program, on a thread of this object, until its end. The last
 * one made gets the reports. What the function throws is dropped.
 */
class diagnostics {
 public:
  /** `level`: from how severe on, such as "warn"; empty: as the variable VIRTUALLOG_LOG says. */
  explicit diagnostics(std::function<void(const diagnostic &)> tell, const std::string &level = "info")
      : key_(detail::result<vlog_diagnostics>([&](auto *out, auto *e) {
          return vlog_diagnostics_start(level.empty() ? nullptr : level.c_str(), out, e);
        })),
        thread_([tell = std::move(tell), key = key_.get()] { hand_over(key, tell); }) {}
  diagnostics(const diagnostics &) = delete;
  diagnostics &operator=(const diagnostics &) = delete;
  ~diagnostics() {
    // The thread is the parent's, in a child of fork.
    const bool ours = vlog_diagnostics_fd(key_.get()) >= 0;
    key_ = detail::handle();
    ours ? thread_.join() : thread_.detach();
  }

 private:
  static void hand_over(vlog_diagnostics key, const std::function<void(const diagnostic &)> &tell) {
    const auto guarded = [&](const diagnostic &one) {
      try {
        tell(one);
      } catch (...) {
        // The program's own failure is not the log's.
      }
    };
    vlog_diagnostic_batch batch{};
    while (vlog_diagnostics_next(key, VLOG_FOREVER, &batch, nullptr) == VLOG_OK) {
      const detail::handle owner(batch.owner);
      for (std::size_t i = 0; i < batch.len; i++) {
        guarded({batch.records[i].level, batch.records[i].target, batch.records[i].message});
      }
      if (batch.dropped > 0) {
        const std::string dropped = std::to_string(batch.dropped) + " reports were dropped: they came too fast";
        guarded({VLOG_LEVEL_WARN, "virtuallog", dropped});
      }
    }
  }

  detail::handle key_;
  std::thread thread_;
};

}  // namespace virtuallog
#endif
