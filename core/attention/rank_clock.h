// Times of several things that every rank of a group of threads does, taken in turns.
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
    const auto zeros = [&] { return at::zeros({std::ssize(things), repetitions}, at::kDouble); };
    begins_ = zeros();
    ends_ = zeros();
    for (int64_t round = -1; round < repetitions; ++round) {
      for (int64_t i = 0; i < std::ssize(things); ++i) {
        group_.barrier();
        const double begin = now();
        things[i]();
        const double end = now();
        if (round < 0) continue;
        begins_[i][round] = -begin;
        ends_[i][round] = end;
      }
    }
  }

  // Collective. From the first rank's begin to the last one's end, the median over the rounds: [things]. (A rank's
  // own time alone would be short where a machine with too few cores lets ranks run one after another. The least of the
  // rounds would compare one thing's luckiest moment with another's, where a machine's speed comes and goes.)
  at::Tensor seconds() {
    group_.all_reduce(begins_, ReduceOp::kMax)->wait();
    group_.all_reduce(ends_, ReduceOp::kMax)->wait();
    return std::get<0>((ends_ + begins_).median(/*dim=*/1));
  }

 private:
  // Of the clock that all threads of the process share.
  static double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }

  CpGroup& group_;
  at::Tensor begins_, ends_;  // [things, rounds]; begins negative
};

}  // namespace attnmux
