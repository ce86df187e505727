// Quickstart: write to a durable log, swap its engine, read everything back.
#include <iostream>

#include <virtuallog.hpp>

int main(int argc, char **argv) try {
  virtuallog::log log = virtuallog::open(argc > 1 ? argv[1] : "file:quickstart-data/fruit");

  log.append("apples");
  log.append_many({"pears", "plums"});  // one batch: all or nothing
  log.reconfig_extend("local");         // another engine, while the log is in use
  log.append("quinces");

  for (const virtuallog::entry &entry : log.read(0)) std::cout << entry.text() << '\n';
  std::cout << "tail " << log.check_tail().position << '\n';
} catch (const virtuallog::error &error) {
  std::cerr << error.what() << '\n';
  return 1;
}
