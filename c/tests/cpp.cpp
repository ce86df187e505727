// What only C++ has: exceptions, futures, a queue with callbacks, moves, ranges of any container.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <future>
#include <iostream>
#include <iterator>
#include <list>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "virtuallog.hpp"

namespace {

int passed = 0, failed = 0;

void check(bool holds, const char *what) {
  (holds ? passed : failed)++;
  if (!holds) std::cerr << "not so: " << what << '\n';
}

template <class Call>
virtuallog::errc code(Call &&call) {
  try {
    call();
  } catch (const virtuallog::error &error) {
    return error.code();
  }
  return static_cast<virtuallog::errc>(0);
}

/** Text that a range makes as it goes, too long to lie within the string; throws where it would make the third. */
struct texts {
  struct iterator {
    int at;
    std::string operator*() const { return at < 2 ? std::string(40, static_cast<char>('a' + at)) : throw at; }
    iterator &operator++() { return at++, *this; }
    bool operator!=(const iterator &other) const { return at != other.at; }
  };
  int count;
  iterator begin() const { return {0}; }
  iterator end() const { return {count}; }
};

void values() {
  virtuallog::log log = virtuallog::open("memory:");
  const std::array<std::byte, 2> bytes{std::byte{1}, std::byte{0}};
  const std::vector<std::uint8_t> vector{1, 2, 3};
  const std::list<std::string> list{"a", "b"};
  check(log.timeout() == std::chrono::seconds(10), "the deadline by default");
  virtuallog::options patient;
  patient.timeout = virtuallog::timeout::forever();
  check(!virtuallog::open("memory:", patient).timeout(), "no deadline");
  check(std::string(virtuallog::version()) == VLOG_VERSION, "the version");
  check(log.append(bytes) == 0 && log.append(vector) == 1 && log.append(std::string_view("c")) == 2, "any bytes");
  check(log.append_many(list) == 3, "any range");
  check(log.append_all(list)->count == 2, "any range, pipelined");
  check(!log.append_all(std::vector<std::string>()), "no entries");
  check(log.append_many(texts{2}) == 7 && log.append_many_async(texts{2}).get() == 9, "a range that makes them");
  check(log.append_all(texts{2})->first == 11, "a range that makes them, pipelined");
  std::istringstream words("some words");
  const std::istream_iterator<std::string> word(words), none;
  struct read_words {
    std::istream_iterator<std::string> from, to;
    auto begin() const { return from; }
    auto end() const { return to; }
  };
  check(log.append_many(read_words{word, none}) == 13, "a range that is read once");
  virtuallog::reader reader = log.read(0);
  std::size_t count = 0;
  for (const virtuallog::entry &entry : reader) {
    check(entry.position() == count, "positions");
    if (entry.position() == 1) check(entry.payload().size() == 3 && reader.position() == 2, "the place in a loop");
    if (entry.position() >= 7 && entry.position() < 13) {
      check(entry.text() == std::string(40, entry.position() % 2 ? 'a' : 'b'), "what the range made");
    }
    if (entry.position() >= 13) check(entry.text() == (entry.position() == 13 ? "some" : "words"), "what was read");
    count++;
  }
  check(count == 15, "all entries");
}

void errors() {
  virtuallog::log log = virtuallog::open("memory:");
  try {
    log.append(std::string(2 << 20, 'x'));
    check(false, "too large");
  } catch (const virtuallog::error &error) {
    check(error.code() == virtuallog::errc::too_large && std::string(error.name()) == "TOO_LARGE", "a code");
    check(!error.retryable() && !error.in_doubt() && !error.token(), "what it says of itself");
    check(std::string(error.what()).find("TOO_LARGE: ") == 0, "a message");
  }
  log.append_many({"a", "b"});
  log.prefix_trim(1);
  try {
    for (const virtuallog::entry &entry : log.read(0)) check(entry.position() > 0, "trimmed");
    check(false, "a trimmed start");
  } catch (const virtuallog::error &error) {
    check(error.code() == virtuallog::errc::trimmed && error.position() == 1, "the first position kept");
  }
  check(code([&] { log.read_next(0, {}, virtuallog::timeout::forever()); }) == virtuallog::errc::trimmed, "read_next");
  virtuallog::log moved = std::move(log);
  check(code([&] { log.append("x"); }) == virtuallog::errc::invalid, "a log that was moved from");
  moved.close();
  check(code([&] { moved.append("x"); }) == virtuallog::errc::closed, "a log that was closed");
}

void futures() {
  virtuallog::log log = virtuallog::open("memory:");
  std::vector<std::future<std::uint64_t>> appends;
  for (int i = 0; i < 1000; i++) appends.push_back(log.append_async(std::to_string(i)));
  for (std::size_t i = 0; i < appends.size(); i++) check(appends[i].get() == i, "in call order");
  auto refused = log.append_async(std::string(2 << 20, 'x'));
  check(code([&] { refused.get(); }) == virtuallog::errc::too_large, "a future's error");
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; i++) {
    threads.emplace_back([&] {
      for (int n = 0; n < 100; n++) log.append_async("from a thread").get();
    });
  }
  for (std::thread &thread : threads) thread.join();
  check(log.check_tail().position == 1400, "threads share a log");
}

void callbacks() {
  virtuallog::log log = virtuallog::open("memory:");
  virtuallog::queue queue;
  std::uint64_t sum = 0;
  int refused = 0;
  for (int i = 0; i < 100; i++) {
    log.append(queue, "x", [&](virtuallog::outcome<std::uint64_t> outcome) { sum += outcome.get(); });
  }
  log.append(queue, std::string(2 << 20, 'x'), [&](virtuallog::outcome<std::uint64_t> outcome) {
    refused += !outcome.ok() && outcome.failure().code() == virtuallog::errc::too_large;
  });
  while (queue.size() > 0) {
    pollfd readable{queue.fd(), POLLIN, 0};
    check(poll(&readable, 1, 10000) == 1, "the descriptor tells");
    queue.run();
  }
  check(sum == 99 * 100 / 2 && refused == 1, "every callback ran once");
  check(queue.run() == 0, "nothing is left");
  queue.submit<vlog_tail>(
      [&](const vlog_call *call, vlog_tail *tail, vlog_error *error) {
        return vlog_check_tail(log.get(), call, tail, error);
      },
      [&](virtuallog::outcome<vlog_tail> outcome) { sum = outcome.get().position; });
  queue.run_forever();
  check(sum == 100, "any operation");
  queue.close();
  check(code([&] { queue.run(); }) == virtuallog::errc::closed, "a queue that was closed");
  check(code([&] { log.append(queue, "x", [](virtuallog::outcome<std::uint64_t>) {}); }) == virtuallog::errc::closed,
        "a queue that takes nothing");
}

/** What a callback throws comes out of run(), once the others have run. */
void throwing(const std::string &folder) {
  virtuallog::log log = virtuallog::open("memory:");
  virtuallog::queue queue;
  int told = 0, thrown = 0;
  for (int i = 0; i < 200; i++) {
    log.append(queue, "x", [&told, i](virtuallog::outcome<std::uint64_t>) {
      told++;
      if (i % 2 == 0) throw i;
    });
  }
  while (queue.size() > 0) {
    try {
      queue.run_forever();
    } catch (int) {
      thrown++;
    }
  }
  check(told == 200 && thrown > 0, "all callbacks ran, and what one threw was thrown on");
  int mine = 0;
  try {
    log.append_many(texts{3});
  } catch (int at) {
    mine += at;
  }
  log.flush();
  check(mine == 2 && log.check_tail().position == 200, "nothing of a batch whose range throws");
  try {
    log.append_all(texts{3});
  } catch (int at) {
    mine += at;
  }
  log.flush();
  check(mine == 4 && log.check_tail().position == 202, "what came before it, pipelined");
  const std::string home = "file:" + folder + "/home/moves", there = "file:" + folder + "/there/moves";
  virtuallog::log moving = virtuallog::open(home);
  moving.append("kept");
  try {
    virtuallog::move(home, there, false, [](const virtuallog::move_progress &) { throw 7; });
  } catch (int seven) {
    check(seven == 7, "what progress throws");
  }
  // The same call completes it, unless it is complete.
  const auto again = code([&] { virtuallog::move(home, there); });
  check(again == static_cast<virtuallog::errc>(0) || again == virtuallog::errc::not_found, "again");
  std::string all;
  moving.append("more");
  for (const virtuallog::entry &entry : moving.read(0)) all += entry.text();
  check(all == "keptmore", "it goes on, wherever it is");
}

void times() {
  virtuallog::log log = virtuallog::open("memory:");
  check(virtuallog::timeout(std::chrono::hours::max()).milliseconds() > 1'000'000'000'000, "a long time");
  check(virtuallog::timeout(std::chrono::hours::min()).milliseconds() == 1, "none left");
  const std::chrono::duration<double> none(std::nan(""));
  check(virtuallog::timeout(none).milliseconds() == 1, "no number");
  check(virtuallog::timeout(std::chrono::microseconds(1001)).milliseconds() == 2, "rounded up");
  check(log.append("x", std::chrono::hours::max()) == 0, "to wait for long");
  check(code([&] { log.subscribe(0).next_batch(0); }) == virtuallog::errc::invalid, "a batch of nothing");
}

/** In a child every object of the parent is closed, and its end is no wait for threads that are not there. */
int in_child(virtuallog::log log, virtuallog::reader reader, virtuallog::diagnostics *told, virtuallog::queue *queue) {
  const auto closed = virtuallog::errc::closed;
  if (code([&] { log.append("x"); }) != closed || code([&] { log.append_async("x"); }) != closed) return 1;
  if (code([&] { log.append_many({"x"}); }) != closed || code([&] { log.append_all(std::vector<std::string>()); }) != closed) return 2;
  if (code([&] { reader.next_batch(); }) != closed || code([&] { log.close(); }) != closed) return 3;
  if (code([&] { log.append(*queue, "x", [](auto) {}); }) != closed || code([&] { queue->run(); }) != closed) return 4;
  if (!log.name().empty() || queue->fd() != -1 || queue->size() != 0) return 5;
  // Its threads may lie where those of the parent did, which must not be taken for them.
  static std::vector<virtuallog::log> own;
  for (int i = 0; i < 8; i++) {
    own.push_back(virtuallog::open("memory:"));
    if (own.back().append_async("x").get() != 0) return 6;
  }
  delete told;
  delete queue;
  return 0;
}

void forks() {
  virtuallog::log log = virtuallog::open("memory:");
  auto *told = new virtuallog::diagnostics([](const auto &) {}, "error");
  auto *queue = new virtuallog::queue;
  virtuallog::reader reader = log.read(log.append_async("before").get());
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    _exit(in_child(std::move(log), std::move(reader), told, queue));
  }
  int status = -1;
  check(waitpid(child, &status, 0) == child && status == 0, "in a child");
  check(log.append("after") == 1 && reader.next_batch().size() == 1, "in the parent");
  delete told;
  delete queue;
}

void subscriptions() {
  virtuallog::log log = virtuallog::open("memory:");
  virtuallog::reader subscription = log.subscribe(virtuallog::first);
  std::thread writer([&] {
    for (int i = 0; i < 50; i++) log.append(std::to_string(i));
    log.seal();
  });
  int count = 0;
  for (const virtuallog::entry &entry : subscription) check(entry.text() == std::to_string(count++), "in order");
  writer.join();
  check(count == 50, "up to the end of a log that was ended");
  check(code([&] { log.append("x"); }) == virtuallog::errc::sealed, "ended");
}

/** A connection that ends before it said anything is reported, as debugging. */
void reports(const std::string &folder) {
  virtuallog::server_config config;
  config.data = folder + "/server";
  virtuallog::server server(config);
  const std::string address = server.address();
  std::promise<std::string> first;
  bool told = false;
  {
    const virtuallog::diagnostics diagnostics(
        [&](const virtuallog::diagnostic &one) {
          if (!told) first.set_value(std::string(one.target) + ": " + std::string(one.message));
          told = true;
          throw one.level;
        },
        "debug");
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<std::uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int connection = socket(AF_INET, SOCK_STREAM, 0);
    check(connect(connection, reinterpret_cast<const sockaddr *>(&to), sizeof to) == 0, "a connection");
    close(connection);
    const std::string said = first.get_future().get();
    check(said.find("virtuallog") == 0 && said.find(": ") + 2 < said.size(), "what is reported, and by whom");
  }
  check(code([] { virtuallog::diagnostics loud([](const auto &) {}, "loud"); }) == virtuallog::errc::invalid, "no level");
  vlog_diagnostics one, another;
  vlog_diagnostic_batch batch;
  check(vlog_diagnostics_start("error", &one, nullptr) == VLOG_OK, "a first one");
  check(vlog_diagnostics_start("off", &another, nullptr) == VLOG_OK, "another one");
  check(vlog_diagnostics_next(one, VLOG_FOREVER, &batch, nullptr) == VLOG_CLOSED, "which took the place of the first");
  check(vlog_diagnostics_next(another, 0, &batch, nullptr) == VLOG_OK && batch.len == 0, "nothing to report");
  check(vlog_diagnostics_fd(another) >= 0, "a descriptor");
  vlog_free(one);
  std::thread waiting([&] {
    check(vlog_diagnostics_next(another, VLOG_FOREVER, &batch, nullptr) == VLOG_CLOSED, "freed while it is waited on");
  });
  vlog_free(another);
  waiting.join();
  check(vlog_diagnostics_fd(another) == -1, "a dead handle");
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  values();
  errors();
  futures();
  callbacks();
  throwing(argv[1]);
  times();
  forks();
  subscriptions();
  reports(argv[1]);
  const std::string store = std::string("file:") + argv[1] + "/store/";
  virtuallog::create(store + "one");
  check(virtuallog::logs(store) == std::vector<std::string>{"one"}, "the logs of a store");
  virtuallog::remove_log(store + "one");
  check(code([&] { virtuallog::remove_log(store + "one"); }) == virtuallog::errc::not_found, "gone");
  std::cout << passed << " passed, " << failed << " failed\n";
  return failed == 0 ? 0 : 1;
}
