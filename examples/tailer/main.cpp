// Tailer: follow a log while it is written, stop, and resume where you stopped.
#include <iostream>
#include <thread>

#include <virtuallog.hpp>

// Prints the next entries, waiting until there are that many; gives where to resume.
std::uint64_t follow(virtuallog::reader subscription, int count) {
  for (const virtuallog::entry &entry : subscription) {
    std::cout << entry.text() << '\n';
    if (--count == 0) break;
  }
  return subscription.position();
}

int main(int argc, char **argv) try {
  virtuallog::log log = virtuallog::open(argc > 1 ? argv[1] : "file:tailer-data/lines");

  virtuallog::reader subscription = log.subscribe(virtuallog::first);
  std::thread writer([&log] {  // just as well another process
    for (int number = 1; number <= 5; number++) log.append("line " + std::to_string(number));
  });
  const std::uint64_t saved = follow(std::move(subscription), 3);  // what to keep in order to resume
  writer.join();

  std::cout << "resumed at " << saved << '\n';
  follow(log.subscribe(saved), 2);
} catch (const virtuallog::error &error) {
  std::cerr << error.what() << '\n';
  return 1;
}
