// Times of several things that every rank of a group does, taken in turns.
#pragma once

#include <ATen/ATen.h>

#include <chrono>
#include <functional>
#include <vector>

#include "attnmux/cp_group.h"

namespace attnmux {

class RankClock {
 public:
  explicit RankClock(CpGroup& group) : group_(group) {}

  // Collective: each thing once without being timed, then `repetitions` rounds of all of them, so that what else the
  // machine does meets all alike. Ranks begin each together.
  void run(const std::vector<std::function<void()>>& things, int64_t repetitions) {
    seconds_ = at::zeros({std::ssize(things), repetitions}, at::kDouble);
    for (int64_t round = -1; round < repetitions; ++round) {
      for (int64_t i = 0; i < std::ssize(things); ++i) {
        group_.barrier();
        const auto start = std::chrono::steady_clock::now();
        things[i]();
        const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
        if (round >= 0) seconds_[i][round] = time.count();
      }
    }
  }

  // Collective. Of the slowest rank, the least of all rounds: [things].
  at::Tensor slowest() {
    group_.all_reduce(seconds_, ReduceOp::kMax)->wait();
    return seconds_.amin(/*dim=*/1);
  }

 private:
  CpGroup& group_;
  at::Tensor seconds_;  // [things, rounds]
};

}  // namespace attnmux
