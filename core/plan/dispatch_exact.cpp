// Branch and bound over chunks, largest first. Ranks are alike: of ranks with the same load and the same number of
// chunks one is tried, and a set of loads that was reached before is not reached again.
#include <algorithm>
#include <numeric>
#include <set>
#include <utility>

#include "dispatch_solvers.h"

namespace attnmux {
namespace {

class ExactSearch {
 public:
  ExactSearch(const std::vector<int64_t>& areas, int64_t ranks, int64_t room)
      : areas_(areas), order_(largest_first(areas)), room_(room), loads_(ranks), rest_(areas.size() + 1) {
    for (size_t i = areas.size(); i-- > 0;) rest_[i] = rest_[i + 1] + areas[order_[i]];
    best_ = solve_min_heap(areas, ranks, room);
    std::vector<int64_t> area_of_rank(ranks, 0);
    for (size_t chunk = 0; chunk < areas.size(); ++chunk) area_of_rank[best_[chunk]] += areas[chunk];
    best_max_ = *std::max_element(area_of_rank.begin(), area_of_rank.end());
    least_max_ = (rest_[0] + ranks - 1) / ranks;
    current_ = best_;
  }

  std::vector<int32_t> solve() {
    if (!areas_.empty()) {
      least_max_ = std::max(least_max_, areas_[order_[0]]);
      place(0, 0);
    }
    return best_;
  }

 private:
  using Load = std::pair<int64_t, int64_t>;  // area, chunks

  void place(size_t next, int64_t largest) {
    if (best_max_ == least_max_) return;
    if (next == order_.size()) {
      best_ = current_;
      best_max_ = largest;
      return;
    }
    if (!may_improve(next)) return;
    std::vector<Load> key = loads_;
    std::sort(key.begin(), key.end());
    if (!seen_.insert(std::move(key)).second) return;

    const int32_t chunk = order_[next];
    for (size_t rank = 0; rank < loads_.size(); ++rank) {
      const Load before = loads_[rank];
      const Load after{before.first + areas_[chunk], before.second + 1};
      if (before.second == room_ || after.first >= best_max_) continue;
      if (std::find(loads_.begin(), loads_.begin() + rank, before) != loads_.begin() + rank) continue;
      loads_[rank] = after;
      current_[chunk] = static_cast<int32_t>(rank);
      place(next + 1, std::max(largest, after.first));
      loads_[rank] = before;
    }
  }

  // Could the chunks from `next` on still fit below the best solution?
  bool may_improve(size_t next) const {
    int64_t fits = 0;
    for (const Load& load : loads_) {
      if (load.second < room_) fits += std::max<int64_t>(0, best_max_ - 1 - load.first);
    }
    return fits >= rest_[next];
  }

  const std::vector<int64_t>& areas_;
  const std::vector<int32_t> order_;
  const int64_t room_;
  std::vector<Load> loads_;
  std::vector<int64_t> rest_;  // area of order_[i] and of all behind it
  std::vector<int32_t> current_, best_;
  int64_t best_max_ = 0, least_max_ = 0;
  std::set<std::vector<Load>> seen_;  // the counts tell how many chunks are placed
};

}  // namespace

std::vector<int32_t> solve_exact(const std::vector<int64_t>& areas, int64_t ranks, int64_t room) {
  return ExactSearch(areas, ranks, room).solve();
}

}  // namespace attnmux
