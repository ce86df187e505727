// Live swap: replace the engine under a log that is in use, and lose nothing.
#include <algorithm>
#include <iostream>
#include <vector>

#include <virtuallog.hpp>

static const char *word(bool holds) { return holds ? "yes" : "no"; }

int main(int argc, char **argv) try {
  virtuallog::log log = virtuallog::open(argc > 1 ? argv[1] : "file:live-swap-data/numbers");

  std::vector<std::future<std::uint64_t>> appends;
  for (int number = 0; number < 500; number++) appends.push_back(log.append_async(std::to_string(number)));
  log.reconfig_extend("local");  // while they are under way
  for (int number = 500; number < 1000; number++) appends.push_back(log.append_async(std::to_string(number)));
  const virtuallog::chain chain = log.reconfig_extend("local");
  std::vector<std::uint64_t> positions;
  for (std::future<std::uint64_t> &append : appends) positions.push_back(append.get());

  std::cout << chain.segments.size() << " segments\n";
  const bool in_order = std::is_sorted(positions.begin(), positions.end());
  std::cout << positions.size() << " appended, in order: " << word(in_order) << '\n';
  int read = 0;
  bool as_written = true;
  for (const virtuallog::entry &entry : log.read(0)) as_written &= entry.text() == std::to_string(read++);
  std::cout << read << " read, in order: " << word(as_written) << '\n';
} catch (const virtuallog::error &error) {
  std::cerr << error.what() << '\n';
  return 1;
}
