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

std::vector<int64_t> parents_of(size_t num_nodes, const std::vector<std::vector<int64_t>>& sample_paths) {
  std::vector<int64_t> parents(num_nodes, kUnknown);
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
      if (parents[node] == kUnknown) named_by[node] = s;
      parents[node] = parent;
      parent = node;
    }
  }
  for (size_t i = 0; i < num_nodes; ++i) {
    if (parents[i] == kUnknown)
      refuse("node " + std::to_string(i) + " lies on no path; every node belongs to a sample");
  }
  return parents;
}

// The keys of a node's ancestors, sorted, neighbours joined.
std::vector<Range> ancestor_keys(const std::vector<Range>& nodes, const std::vector<int64_t>& parents, int64_t node) {
  std::vector<Range> keys;
  for (int64_t at = parents[node]; at != kRoot; at = parents[at]) {
    if (!nodes[at].empty()) keys.push_back(nodes[at]);
  }
  std::sort(keys.begin(), keys.end(), [](Range a, Range b) { return a.begin < b.begin; });
  std::vector<Range> joined;
  for (const Range range : keys) {
    if (!joined.empty() && joined.back().end == range.begin) {
      joined.back().end = range.end;
    } else {
      joined.push_back(range);
    }
  }
  return joined;
}

}  // namespace

PrefixTree prefix_tree(const std::vector<int64_t>& node_lengths,
                       const std::vector<std::vector<int64_t>>& sample_paths) {
  const std::vector<Range> nodes = pack(node_lengths);
  const std::vector<int64_t> parents = parents_of(nodes.size(), sample_paths);
  std::vector<AttnSlice> slices;
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i].empty()) continue;
    Range own = nodes[i];
    for (const Range keys : ancestor_keys(nodes, parents, static_cast<int64_t>(i))) {
      if (keys.end == nodes[i].begin) {
        own.begin = keys.begin;  // keys right before the node: one causal slice with it
      } else {
        slices.push_back({.q = nodes[i], .k = keys, .type = MaskType::kFull});
      }
    }
    slices.push_back({.q = nodes[i], .k = own, .type = MaskType::kCausal});
    if (slices.size() > kMaxPieces) {
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
