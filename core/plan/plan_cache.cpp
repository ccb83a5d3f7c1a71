#include "attnmux/plan_cache.h"

#include <algorithm>
#include <list>
#include <mutex>
#include <utility>

namespace attnmux {
namespace {

struct Key {
  Hash128 mask;
  DispatchOptions dispatch;
  OverlapOptions overlap;
  AttentionSize shape;
  friend bool operator==(const Key&, const Key&) = default;
};

}  // namespace

struct PlanCache::State {
  CostModel model;
  size_t capacity = 0;
  std::mutex mutex;
  std::list<std::pair<Key, std::shared_ptr<const DistAttnPlan>>> plans;  // used last in front
  int64_t hits = 0, misses = 0;
};

PlanCache::PlanCache(CostModel model, size_t capacity) : state_(std::make_unique<State>()) {
  state_->model = std::move(model);
  state_->capacity = std::max<size_t>(capacity, 1);
}
PlanCache::~PlanCache() = default;

std::shared_ptr<const DistAttnPlan> PlanCache::plan(const AttnMaskSpec& mask, const DispatchOptions& dispatch,
                                                    const OverlapOptions& overlap, const AttentionSize& shape) {
  const Key key{.mask = mask.hash(), .dispatch = dispatch, .overlap = overlap, .shape = shape};
  const std::lock_guard lock(state_->mutex);  // held while planning: two threads want the same plan more often than not
  auto& plans = state_->plans;
  const auto found = std::find_if(plans.begin(), plans.end(), [&](const auto& entry) { return entry.first == key; });
  if (found != plans.end()) {
    ++state_->hits;
    plans.splice(plans.begin(), plans, found);
    return found->second;
  }
  ++state_->misses;
  const OverlapOptions chosen = choose_overlap(mask, dispatch, overlap, state_->model, shape);
  plans.emplace_front(key, std::make_shared<const DistAttnPlan>(mask, dispatch, chosen));
  if (plans.size() > state_->capacity) plans.pop_back();
  return plans.front().second;
}

int64_t PlanCache::hits() const {
  const std::lock_guard lock(state_->mutex);
  return state_->hits;
}

int64_t PlanCache::misses() const {
  const std::lock_guard lock(state_->mutex);
  return state_->misses;
}

}  // namespace attnmux
