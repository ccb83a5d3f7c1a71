// Calls from several threads at once, each with tensors of its own: as right as alone.
#include <atomic>
#include <thread>

#include "conformance/families.h"

namespace attnmux::conformance {

void run_concurrency(const Subject& subject, const Case& c, CaseResult& result) {
  if (!takes(subject, Setup(c), result)) return;
  constexpr int kThreads = 8, kRounds = 3;
  std::vector<Setup> setups;
  for (int i = 0; i < kThreads; ++i) {
    Case own = c;
    own.seed = c.seed + static_cast<uint64_t>(i);
    setups.emplace_back(own);
  }
  std::vector<CaseResult> results(kThreads);
  std::atomic<int> waiting{kThreads};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      const Inputs in = on_device(setups[i].in, subject.device);
      for (int round = 0; round < kRounds; ++round) {
        // All of them start together.
        --waiting;
        while (waiting > -kThreads * round) std::this_thread::yield();
        const auto out = forward(subject, setups[i].c, setups[i].mask.spec, in, Refusal::kForbidden, results[i]);
        if (!out) continue;
        Results got{.out = out->out, .lse = out->lse};
        if (is_training(c)) {
          const auto grads =
              backward(subject, setups[i].c, setups[i].mask.spec, in, *out, Refusal::kForbidden, results[i]);
          if (grads) got.dq = grads->dq, got.dk = grads->dk, got.dv = grads->dv;
        }
        compare_results(setups[i], got, results[i]);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < kThreads; ++i) {
    for (const Failure& failure : results[i].failures) {
      result.fail(Check::kConcurrency, "thread " + std::to_string(i) + " of " + std::to_string(kThreads) + ": " +
                                           failure.check + ": " + failure.text);
    }
  }
}

}  // namespace attnmux::conformance
