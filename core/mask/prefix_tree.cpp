#include <algorithm>
#include <limits>
#include <string>

#include "attnmux/error.h"
#include "attnmux/mask_builders.h"
#include "disjoint.h"

namespace attnmux {
namespace {

constexpr int64_t kUnknown = -2;
constexpr int64_t kRoot = -1;

[[noreturn]] void refuse(const std::string& text) { throw Error(ErrorCode::kInvalidArgument, text); }

std::vector<Range> pack(const std::vector<int64_t>& node_lengths) {
  std::vector<Range> nodes;
  int64_t total = 0;
  for (size_t i = 0; i < node_lengths.size(); ++i) {
    const std::string name = "node_lengths[" + std::to_string(i) + "] = " + std::to_string(node_lengths[i]);
    if (node_lengths[i] < 0) refuse(name + " is negative");
    if (node_lengths[i] > std::numeric_limits<int32_t>::max() - total) {
      refuse("the lengths up to " + name + " add up to more than 2147483647 tokens, the most a mask can have");
    }
    nodes.push_back({total, total + node_lengths[i]});
    total += node_lengths[i];
  }
  return nodes;
}

std::string describe_parent(int64_t parent) {
  return parent == kRoot ? "is a root" : "follows node " + std::to_string(parent);
}

struct Forest {
  std::vector<int64_t> parents;
  std::vector<int64_t> order;  // every node behind its parent
};

Forest read_paths(size_t num_nodes, const std::vector<std::vector<int64_t>>& sample_paths) {
  Forest forest;
  std::vector<int64_t>& parents = forest.parents;
  parents.assign(num_nodes, kUnknown);
  std::vector<size_t> named_by(num_nodes, 0);
  for (size_t s = 0; s < sample_paths.size(); ++s) {
    const std::string path = "sample_paths[" + std::to_string(s) + "]";
    if (sample_paths[s].empty()) refuse(path + " is empty; a path names at least its root");
    int64_t parent = kRoot;
    for (const int64_t node : sample_paths[s]) {
      if (node < 0 || node >= static_cast<int64_t>(num_nodes)) {
        refuse(path + " names node " + std::to_string(node) + "; there are nodes 0 to " +
               std::to_string(static_cast<int64_t>(num_nodes) - 1));
      }
      if (parents[node] != kUnknown && parents[node] != parent) {
        refuse("node " + std::to_string(node) + " " + describe_parent(parents[node]) + " in sample_paths[" +
               std::to_string(named_by[node]) + "], but " + describe_parent(parent) + " in " + path +
               "; a node has one parent");
      }
      if (parents[node] == kUnknown) {
        parents[node] = parent;
        named_by[node] = s;
        forest.order.push_back(node);
      }
      parent = node;
    }
  }
  for (size_t i = 0; i < num_nodes; ++i) {
    if (parents[i] != kUnknown) continue;
    refuse("node " + std::to_string(i) + " lies on no path; every node belongs to a sample");
  }
  return forest;
}

// Adds a range to sorted, disjoint ranges, of which no two touch afterwards.
void insert(Range range, std::vector<Range>* ranges) {
  if (range.empty()) return;
  auto at = std::lower_bound(ranges->begin(), ranges->end(), range,
                             [](const Range& a, const Range& b) { return a.begin < b.begin; });
  if (at != ranges->begin() && std::prev(at)->end == range.begin) {
    --at;
    at->end = range.end;
  } else {
    at = ranges->insert(at, range);
  }
  const auto next = std::next(at);
  if (next == ranges->end() || at->end != next->begin) return;
  at->end = next->end;
  ranges->erase(next);
}

// FULL to the ranges of the ancestors, CAUSAL to the node itself and to keys right before it.
void append_node(Range node, const std::vector<Range>& ancestors, std::vector<AttnSlice>* slices) {
  if (node.empty()) return;
  Range own = node;
  for (const Range keys : ancestors) {
    if (keys.end == node.begin) {
      own.begin = keys.begin;
    } else {
      slices->push_back({.q = node, .k = keys, .type = MaskType::kFull});
    }
  }
  slices->push_back({.q = node, .k = own, .type = MaskType::kCausal});
}

}  // namespace

PrefixTree prefix_tree(const std::vector<int64_t>& node_lengths,
                       const std::vector<std::vector<int64_t>>& sample_paths) {
  const std::vector<Range> nodes = pack(node_lengths);
  const Forest forest = read_paths(nodes.size(), sample_paths);
  std::vector<AttnSlice> slices;
  std::vector<std::vector<Range>> lineages(nodes.size());  // a node's keys and its ancestors'
  size_t num_ranges = 0;
  for (const int64_t node : forest.order) {
    const int64_t parent = forest.parents[node];
    if (parent != kRoot) lineages[node] = lineages[parent];
    append_node(nodes[node], lineages[node], &slices);
    insert(nodes[node], &lineages[node]);
    num_ranges += lineages[node].size();
    if (num_ranges > kMaxPieces) {
      refuse("the tree's nodes have more than " + std::to_string(kMaxPieces) +
             " separate ancestor ranges in all; pack the nodes of a path one behind another");
    }
  }
  const int64_t total = nodes.empty() ? 0 : nodes.back().end;
  PrefixTree tree{.mask = AttnMaskSpec(std::move(slices), total, total), .sample_ranges = {}};
  for (const std::vector<int64_t>& path : sample_paths) {
    std::vector<Range>& ranges = tree.sample_ranges.emplace_back();
    for (const int64_t node : path) ranges.push_back(nodes[node]);
  }
  return tree;
}

}  // namespace attnmux
