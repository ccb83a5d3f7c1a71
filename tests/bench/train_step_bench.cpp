// Training steps on demand, for tests/bench/train_step.py: train_step_bench MODEL_DIR SEQ_LEN BACKEND [DOCUMENTS].
//
// Each line on stdin runs one step; its seconds, loss and the step's FLOPs come back as one line.
#include <iostream>
#include <string>

#include "attnmux/error.h"
#include "models/train/train_bench.h"
#include "tests/common/cpu_backends.h"

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "usage: train_step_bench MODEL_DIR SEQ_LEN BACKEND [DOCUMENTS]\n";
    return 2;
  }
  try {
    attnmux::TrainBench bench(argv[1], attnmux::testing::all_on(argv[3]), attnmux::testing::cpu_backends(),
                              {.seq_len = std::stoll(argv[2]), .documents = argc > 4 ? std::stoll(argv[4]) : 1});
    std::cout << "ready" << std::endl;
    for (std::string line; std::getline(std::cin, line);) {
      const double seconds = bench.step();
      std::cout << seconds << " " << bench.last().loss << " " << bench.flops() << std::endl;
    }
  } catch (const attnmux::Error& error) {
    std::cerr << error.what() << "\n";
    return attnmux::exit_status(error.code());
  }
  return 0;
}
