#include "attnmux/step_context.h"

#include <exception>
#include <optional>
#include <set>
#include <utility>

#include "attend_call.h"
#include "attnmux/envelope.h"
#include "attnmux/error.h"
#include "attnmux/log.h"
#include "attnmux/spelling.h"
#include "call_checks.h"
#include "step_check.h"

namespace attnmux {

struct StepContext::State {
  struct Armed {
    AttnMaskSpec mask;
    MaskFacts facts;
    std::optional<AgreedPlan> plan;  // where a group shares the sequence
  };
  std::shared_ptr<const SelectionTable> table;
  std::shared_ptr<PreparedCache> cache;
  StepOptions options;
  std::map<std::string, Armed> armed;
  ExecutionLedger ledger;
  int recomputing = 0;  // depth of Recompute scopes
  bool finished = false;
  int exceptions_at_start = std::uncaught_exceptions();

  std::set<std::string> mask_keys() const {
    std::set<std::string> keys;
    for (const ModuleChoice& choice : table->choices()) keys.insert(choice.module.mask_key);
    return keys;
  }

  const Armed& armed_for(const std::string& key, const std::string& who) const {
    const auto found = armed.find(key);
    if (found != armed.end()) return found->second;
    throw Error(ErrorCode::kMaskNotConsumed, who + "no mask is armed for \"" + key +
                                                 "\" in this step; call step.arm(\"" + key +
                                                 "\", mask) before the forward pass");
  }

  void arm(const std::string& key, Armed entry);

  std::vector<std::string> problems() const {
    std::map<std::string, Hash128> hashes;
    for (const auto& [key, entry] : armed) hashes.emplace(key, entry.mask.hash());
    return step_problems(*table, hashes, ledger.entries(), options);
  }
};

StepContext::StepContext(std::shared_ptr<const SelectionTable> table, std::shared_ptr<PreparedCache> cache,
                         const StepOptions& options)
    : state_(std::make_shared<State>()) {
  if (!table || !cache) throw Error(ErrorCode::kInvalidArgument, "StepContext: a table and a cache are required");
  if (options.forward_passes < 1) {
    throw Error(ErrorCode::kInvalidArgument,
                "StepContext: forward_passes must be at least 1, got " + std::to_string(options.forward_passes));
  }
  state_->table = std::move(table);
  state_->cache = std::move(cache);
  state_->options = options;
}

StepContext::~StepContext() {
  // An exception that ends the step is the error to report, not that the step is unfinished because of it.
  if (state_->finished || std::uncaught_exceptions() > state_->exceptions_at_start) return;
  std::string text = "a step was destroyed without finish(): nobody checked that every module consumed its mask";
  for (const std::string& problem : state_->problems()) text += "\n  " + problem;
  log_error(text);
}

void StepContext::State::arm(const std::string& key, Armed entry) {
  if (finished) throw Error(ErrorCode::kInvalidArgument, "arm(\"" + key + "\"): the step is finished");
  const std::set<std::string> keys = mask_keys();
  if (!keys.contains(key)) {
    std::string text = "arm(\"" + key + "\"): no attention module of this model consumes that mask; known:";
    for (const std::string& known : keys) text += " \"" + known + "\"";
    const std::string close = nearest(key, {keys.begin(), keys.end()});
    if (!close.empty()) text += "; did you mean \"" + close + "\"?";
    throw Error(ErrorCode::kInvalidArgument, text);
  }
  if (!armed.try_emplace(key, std::move(entry)).second) {
    throw Error(ErrorCode::kInvalidArgument,
                "arm(\"" + key + "\"): a mask is armed already; a step has one mask for each key");
  }
}

void StepContext::arm(const std::string& mask_key, const AttnMaskSpec& mask) {
  state_->arm(mask_key, {mask, facts_of(mask), std::nullopt});
}

void StepContext::arm(const std::string& mask_key, const AgreedPlan& plan) {
  state_->arm(mask_key, {plan.plan().mask(), facts_of(plan.plan().mask()), plan});
}

const AttnMaskSpec& StepContext::mask(const std::string& mask_key) const {
  return state_->armed_for(mask_key, "").mask;
}

AttendResult StepContext::attend(const std::string& module_path, const at::Tensor& q, const at::Tensor& k,
                                 const at::Tensor& v, const AttendOptions& options) {
  if (state_->finished) {
    throw Error(ErrorCode::kInvalidArgument, call_prefix(module_path, "") + "the step is finished");
  }
  const ModuleChoice& choice = state_->table->at(module_path);
  const State::Armed& armed = state_->armed_for(choice.module.mask_key, call_prefix(module_path, ""));

  AttentionRequest planned = required_request(choice.module, choice.rule);
  AttendOptions call_options = options;
  call_options.module = module_path;
  call_options.deterministic = options.deterministic || planned.deterministic;
  check_inputs(armed.plan ? tokens_of(*armed.plan) : tokens_of(armed.mask), q, k, v, call_options);
  const AttentionRequest call = armed.plan ? request_for(*armed.plan, armed.facts, q, k, v, call_options)
                                           : request_for(armed.facts, q, k, v, call_options);
  planned.training = planned.training && state_->options.training;
  const std::vector<Reason> outside = outside_of(planned, call);
  if (!outside.empty()) {
    std::string text = call_prefix(module_path, choice.backend_id) +
                       "the call lies outside what was planned for this module, and is not rerouted";
    for (const Reason& reason : outside) text += "\n  " + reason.to_string();
    throw Error(ErrorCode::kOutOfEnvelope, text);
  }

  const Hash128 hash = armed.mask.hash();
  call_options.on_backward = [state = state_, module_path, backend = choice.backend_id, hash,
                              callers = options.on_backward] {
    state->ledger.record_backward(module_path, backend, hash);
    if (callers) callers();
  };
  AttendResult result = armed.plan ? run_distributed(choice.backend, *armed.plan, q, k, v, call_options, *state_->cache,
                                                     {state_->options.trace, state_->options.trace_rank})
                                   : run_attention(choice.backend, armed.mask, q, k, v, call_options, *state_->cache);
  if (state_->recomputing > 0) {
    state_->ledger.record_recompute(module_path, choice.backend_id, hash);
  } else {
    state_->ledger.record_forward(module_path, choice.backend_id, hash);
  }
  return result;
}

StepContext::Recompute::Recompute(StepContext& step) : step_(step) { ++step_.state_->recomputing; }
StepContext::Recompute::~Recompute() { --step_.state_->recomputing; }

void StepContext::finish() {
  if (state_->finished) throw Error(ErrorCode::kInvalidArgument, "finish() was called twice on one step");
  state_->finished = true;
  const std::vector<std::string> problems = state_->problems();
  if (problems.empty()) return;
  std::string text = "what was executed in this step is not what was planned";
  for (const std::string& problem : problems) text += "\n  " + problem;
  throw Error(ErrorCode::kMaskNotConsumed, text);
}

const ExecutionLedger& StepContext::ledger() const { return state_->ledger; }

}  // namespace attnmux
