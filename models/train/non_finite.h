// Why is the loss not a number? Finds the place and stops the run.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "models/data/packing.h"
#include "models/train/adamw.h"
#include "models/train/run_context.h"

namespace attnmux {

// Looks at the outputs of modules for the first that is not finite.
//
//   NonFiniteWatch watch;
//   model.forward(input, step, {.observe = watch.observer()});
//   if (watch.first()) throw ... watch.module(*watch.first()) ...
//
// One thread.
class NonFiniteWatch {
 public:
  ModuleObserver observer();  // the watch must outlive its calls
  // Number of the first output that is not finite, over all passes watched; nothing where all are.
  std::optional<int64_t> first() const { return first_; }
  const std::string& module(int64_t output) const { return modules_[output]; }

 private:
  std::vector<std::string> modules_;  // that made each output
  std::optional<int64_t> first_;
};

inline constexpr char kOutputModule[] = "lm_head";  // at fault where every module's output is finite

// "the first module whose output is not finite is MODULE", with `where` behind it, and a parameter of the module that
// is the cause, if there is one.
std::string first_non_finite_text(const ParameterStore& parameters, const std::string& module,
                                  const std::string& where);

// Runs this replica's sequences forward once more and looks at every module's output. Collective over all ranks of the
// run, whichever of them has the value. Throws the same Error(kNonFinite) on every rank, naming the step, the first
// module with a value that is not finite, the rank where there are several, and a parameter of the module that is the
// cause, if there is one.
[[noreturn]] void throw_non_finite_loss(const RunContext& run, std::span<const PackedBatch> sequences,
                                        int64_t step_number, double loss);

// Throws Error(kNonFinite) naming the step and the first parameter whose gradient is not finite.
[[noreturn]] void throw_non_finite_gradient(const AdamW& optimizer, int64_t step_number, double norm);

}  // namespace attnmux
