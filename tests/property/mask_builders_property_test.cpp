// Every builder against the sentence that defines it, pair by pair.
#include <functional>
#include <numeric>

#include "attnmux/mask_builders.h"
#include "attnmux/mask_io.h"
#include "check.h"
#include "random_mask.h"

namespace attnmux {
namespace {

AttnMaskSpec defined_by(int64_t total_q, int64_t total_k, const std::function<bool(int64_t, int64_t)>& attends) {
  std::vector<uint8_t> pairs(total_q * total_k);
  for (int64_t q = 0; q < total_q; ++q) {
    for (int64_t k = 0; k < total_k; ++k) pairs[q * total_k + k] = attends(q, k);
  }
  return mask_from_dense(pairs, total_q, total_k);
}

std::vector<int64_t> random_lengths(int64_t longest) {
  return *rc::gen::container<std::vector<int64_t>>(rc::gen::inRange<int64_t>(0, longest + 1));
}

int64_t sum(const std::vector<int64_t>& lengths) { return std::accumulate(lengths.begin(), lengths.end(), int64_t{0}); }

// Which of the packed parts a token lies in.
std::vector<int64_t> part_of_token(const std::vector<int64_t>& lengths) {
  std::vector<int64_t> part;
  for (size_t i = 0; i < lengths.size(); ++i) part.insert(part.end(), lengths[i], static_cast<int64_t>(i));
  return part;
}

TEST(MaskBuilders, FullAndCausal) {
  check_property(500, [] {
    const int64_t total_q = *rc::gen::inRange<int64_t>(0, 40);
    const int64_t total_k = *rc::gen::inRange<int64_t>(0, 40);
    RC_ASSERT(full_mask(total_q, total_k) == defined_by(total_q, total_k, [](int64_t, int64_t) { return true; }));
    RC_ASSERT(causal_mask(total_q, total_k) ==
              defined_by(total_q, total_k, [&](int64_t q, int64_t k) { return k <= q + (total_k - total_q); }));
  });
}

TEST(MaskBuilders, Varlen) {
  check_property(1000, [] {
    const std::vector<int64_t> lengths = random_lengths(12);
    const std::vector<int64_t> part = part_of_token(lengths);
    const int64_t total = sum(lengths);
    RC_ASSERT(varlen_mask(lengths, MaskType::kFull) ==
              defined_by(total, total, [&](int64_t q, int64_t k) { return part[q] == part[k]; }));
    RC_ASSERT(varlen_mask(lengths, MaskType::kCausal) ==
              defined_by(total, total, [&](int64_t q, int64_t k) { return part[q] == part[k] && k <= q; }));
  });
}

TEST(MaskBuilders, PrefixLm) {
  check_property(1000, [] {
    const auto documents = *rc::gen::container<std::vector<PrefixDocument>>(
        rc::gen::build<PrefixDocument>(rc::gen::set(&PrefixDocument::prefix, rc::gen::inRange<int64_t>(0, 12)),
                                       rc::gen::set(&PrefixDocument::rest, rc::gen::inRange<int64_t>(0, 12))));
    std::vector<int64_t> lengths;
    std::vector<uint8_t> in_prefix;
    for (const PrefixDocument& document : documents) {
      lengths.push_back(document.prefix + document.rest);
      in_prefix.insert(in_prefix.end(), document.prefix, 1);
      in_prefix.insert(in_prefix.end(), document.rest, 0);
    }
    const std::vector<int64_t> part = part_of_token(lengths);
    RC_ASSERT(prefix_lm_mask(documents) == defined_by(sum(lengths), sum(lengths), [&](int64_t q, int64_t k) {
                return part[q] == part[k] && (in_prefix[k] || k <= q);
              }));
  });
}

TEST(MaskBuilders, BlockCausal) {
  check_property(1000, [] {
    const std::vector<int64_t> lengths = random_lengths(12);
    const std::vector<int64_t> part = part_of_token(lengths);
    RC_ASSERT(block_causal_mask(lengths) ==
              defined_by(sum(lengths), sum(lengths), [&](int64_t q, int64_t k) { return part[k] <= part[q]; }));
  });
}

TEST(MaskBuilders, ChunkedLocal) {
  check_property(1000, [] {
    const int64_t total = *rc::gen::inRange<int64_t>(0, 90);
    const int64_t chunk = *rc::gen::oneOf(rc::gen::inRange<int64_t>(1, 100), rc::gen::just<int64_t>(INT64_MAX));
    RC_ASSERT(chunked_local_mask(total, chunk) ==
              defined_by(total, total, [&](int64_t q, int64_t k) { return k <= q && q / chunk == k / chunk; }));
  });
}

TEST(MaskBuilders, BidirectionalSpans) {
  check_property(1000, [] {
    const int64_t total = *rc::gen::inRange<int64_t>(0, 90);
    auto bounds = *rc::gen::container<std::vector<int64_t>>(rc::gen::inRange<int64_t>(0, total + 1));
    if (bounds.size() % 2 == 1) bounds.pop_back();
    std::sort(bounds.begin(), bounds.end());
    std::vector<Range> spans;
    for (size_t i = 0; i < bounds.size(); i += 2) spans.push_back({bounds[i], bounds[i + 1]});
    RC_ASSERT(bidirectional_spans_mask(total, spans) == defined_by(total, total, [&](int64_t q, int64_t k) {
                return k <= q || std::any_of(spans.begin(), spans.end(), [&](Range span) {
                         return q >= span.begin && q < span.end && k >= span.begin && k < span.end;
                       });
              }));
  });
}

// A random forest; every leaf's path is a sample.
TEST(MaskBuilders, PrefixTree) {
  check_property(1500, [] {
    const std::vector<int64_t> lengths = random_lengths(9);
    const auto num_nodes = static_cast<int64_t>(lengths.size());
    std::vector<int64_t> parents;
    std::vector<bool> is_leaf(num_nodes, true);
    for (int64_t i = 0; i < num_nodes; ++i) {
      parents.push_back(*rc::gen::inRange<int64_t>(-1, i));
      if (parents[i] >= 0) is_leaf[parents[i]] = false;
    }
    // Node numbers, and with them the order in memory, at random: an ancestor may come behind its descendants.
    std::vector<int64_t> number(num_nodes);
    std::iota(number.begin(), number.end(), 0);
    for (size_t i = number.size(); i > 1; --i) std::swap(number[i - 1], number[*rc::gen::inRange<size_t>(0, i)]);
    std::vector<int64_t> packed_lengths(num_nodes);
    std::vector<int64_t> packed_parents(num_nodes);
    for (int64_t i = 0; i < num_nodes; ++i) {
      packed_lengths[number[i]] = lengths[i];
      packed_parents[number[i]] = parents[i] < 0 ? -1 : number[parents[i]];
    }
    std::vector<std::vector<int64_t>> paths;
    for (int64_t i = 0; i < num_nodes; ++i) {
      if (!is_leaf[i]) continue;
      std::vector<int64_t> path;
      for (int64_t at = number[i]; at >= 0; at = packed_parents[at]) path.insert(path.begin(), at);
      paths.push_back(path);
    }
    const PrefixTree tree = prefix_tree(packed_lengths, paths);
    const std::vector<int64_t> node = part_of_token(packed_lengths);
    const auto is_ancestor = [&](int64_t ancestor, int64_t of) {
      for (int64_t at = packed_parents[of]; at >= 0; at = packed_parents[at]) {
        if (at == ancestor) return true;
      }
      return false;
    };
    RC_ASSERT(tree.mask == defined_by(sum(lengths), sum(lengths), [&](int64_t q, int64_t k) {
                return node[q] == node[k] ? k <= q : is_ancestor(node[k], node[q]);
              }));
    RC_ASSERT(tree.mask.overlaps().empty());
    RC_ASSERT(tree.sample_ranges.size() == paths.size());
    for (size_t s = 0; s < paths.size(); ++s) {
      for (size_t i = 0; i < paths[s].size(); ++i) {
        const int64_t begin = sum({packed_lengths.begin(), packed_lengths.begin() + paths[s][i]});
        RC_ASSERT((tree.sample_ranges[s][i] == Range{begin, begin + packed_lengths[paths[s][i]]}));
      }
    }
  });
}

TEST(MaskBuilders, JsonRoundTrip) {
  check_property(1500, [] {
    const AttnMaskSpec mask = (*random_mask()).spec();
    const AttnMaskSpec back = mask_from_json(mask_to_json(mask));
    RC_ASSERT(back.slices() == mask.slices());
    RC_ASSERT(back == mask);
    const AttnMaskSpec canonical(mask.disjoint_slices(), mask.total_q(), mask.total_k());
    RC_ASSERT(mask_from_json(mask_to_json(canonical)) == mask);
  });
}

}  // namespace
}  // namespace attnmux
