// Replicated counter: replicas that play the same log are in the same state.
#include <iostream>

#include <virtuallog.hpp>

// A replica. What changes it goes through the log, and so does what reads it.
class counter {
 public:
  explicit counter(virtuallog::log &log) : log_(log), played_(log.subscribe(virtuallog::first)) {}

  void add(int amount) { log_.append(std::to_string(amount)); }

  int value() {
    const std::uint64_t tail = log_.check_tail().position;  // all that was added before this call
    while (played_.position() < tail) {
      for (const virtuallog::entry &entry : played_.next_batch()) total_ += std::stoi(std::string(entry.text()));
    }
    return total_;
  }

 private:
  virtuallog::log &log_;
  virtuallog::reader played_;
  int total_ = 0;
};

int main(int argc, char **argv) try {
  const char *url = argc > 1 ? argv[1] : "file:replicated-counter-data/counter";
  virtuallog::log first = virtuallog::open(url), second = virtuallog::open(url);

  // Two in one process here; each on a machine of its own where the log is on a cluster.
  counter one(first), two(second);
  one.add(5);
  two.add(10);
  std::cout << "one: " << one.value() << '\n';
  std::cout << "two: " << two.value() << '\n';
  one.add(-3);
  std::cout << "two: " << two.value() << '\n';
  std::cout << "one that starts later: " << counter(second).value() << '\n';
} catch (const virtuallog::error &error) {
  std::cerr << error.what() << '\n';
  return 1;
}
