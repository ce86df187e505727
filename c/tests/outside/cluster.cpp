// A cluster from the programs that were installed with the library: a node is killed and started again.
#include <iostream>

#include <virtuallog.hpp>

int main() try {
  virtuallog::local_cluster cluster(3);
  virtuallog::log log = virtuallog::open(cluster.url() + "outside");
  const virtuallog::timeout patient = std::chrono::seconds(120);
  log.append("one", patient);
  cluster.stop(3);
  for (const virtuallog::local_node &node : cluster.nodes()) {
    std::cout << node.node << (node.pid ? " runs\n" : " is stopped\n");
    if (node.address.empty() || node.dir.empty()) return 2;
  }
  log.append("two", patient);
  cluster.restart(3);
  cluster.stop(1);
  log.append("three", patient);
  for (const virtuallog::entry &entry : log.read(0, {}, patient)) std::cout << entry.text() << '\n';
  try {
    cluster.stop(1);
  } catch (const virtuallog::error &error) {
    std::cout << error.name() << '\n';
  }
  cluster.close();
  cluster.close();
  try {
    cluster.nodes();
  } catch (const virtuallog::error &error) {
    std::cout << error.name() << '\n';
  }
} catch (const virtuallog::error &error) {
  std::cerr << error.what() << '\n';
  return 1;
}
