#include "property/attention_case.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <ostream>

#include "attnmux/mask_builders.h"
#include "oracle/cpu_backends.h"
#include "property/random_mask.h"

namespace attnmux::testing {
namespace {

using rc::gen::element;
using rc::gen::inRange;

// Lengths below and about the sizes at which kernels cut: 16 to 128.
int64_t draw_length() {
  return *rc::gen::weightedOneOf<int64_t>({{6, inRange<int64_t>(1, 20)},
                                           {4, inRange<int64_t>(20, 80)},
                                           {2, element<int64_t>(15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65)},
                                           {1, element<int64_t>(127, 128, 129, 160)}});
}

std::vector<int64_t> draw_lengths(int64_t shortest = 0) {
  std::vector<int64_t> lengths(*inRange<size_t>(1, 5));
  for (int64_t& length : lengths) length = *inRange<int64_t>(shortest, 30);
  if (std::accumulate(lengths.begin(), lengths.end(), int64_t{0}) == 0) lengths[0] = 1;
  return lengths;
}

MaskType draw_full_or_causal() { return *element(MaskType::kFull, MaskType::kCausal); }

// Documents whose queries and keys have lengths of their own, as with keys kept from an earlier call.
AttnMaskSpec cross_documents(MaskType type) {
  std::vector<AttnSlice> slices;
  int64_t q = 0, k = 0;
  for (int64_t documents = *inRange<int64_t>(1, 5); documents > 0; --documents) {
    const int64_t queries = *inRange<int64_t>(0, 20), keys = *inRange<int64_t>(0, 30);
    slices.push_back({.q = {q, q + queries}, .k = {k, k + keys}, .type = type});
    q += queries;
    k += keys;
  }
  return AttnMaskSpec(slices, std::max<int64_t>(q, 1), std::max<int64_t>(k, 1));
}

// A root with one to three branches, each perhaps with two leaves.
AttnMaskSpec draw_tree() {
  std::vector<int64_t> lengths = {*inRange<int64_t>(0, 30)};
  std::vector<std::vector<int64_t>> paths;
  for (int64_t branches = *inRange<int64_t>(1, 4); branches > 0; --branches) {
    const int64_t branch = static_cast<int64_t>(lengths.size());
    lengths.push_back(*inRange<int64_t>(1, 20));
    if (*rc::gen::arbitrary<bool>()) {
      for (int leaf = 0; leaf < 2; ++leaf) {
        paths.push_back({0, branch, static_cast<int64_t>(lengths.size())});
        lengths.push_back(*inRange<int64_t>(0, 20));
      }
    } else {
      paths.push_back({0, branch});
    }
  }
  return prefix_tree(lengths, paths).mask;
}

AttnMaskSpec draw_dense() {
  const int64_t total_q = *inRange<int64_t>(1, 24), total_k = *inRange<int64_t>(1, 24);
  const double density = *element(0.05, 0.5, 0.95);
  std::vector<uint8_t> pairs(total_q * total_k);
  for (uint8_t& pair : pairs) pair = *inRange(0, 1000) < 1000 * density;
  return mask_from_dense(pairs, total_q, total_k);
}

AttnMaskSpec draw_window() {
  const SlidingWindow window = {.left = *inRange<int64_t>(-1, 20),
                                .right = *element<int64_t>(0, 0, 1, 5, -1),
                                .sink_tokens = *element<int64_t>(0, 0, 1, 4)};
  return sliding_window_mask(draw_lengths(), window);
}

AttnMaskSpec draw_prefix_lm() {
  std::vector<PrefixDocument> documents;
  for (int64_t length : draw_lengths(/*shortest=*/1))
    documents.push_back({.prefix = *inRange<int64_t>(0, length + 1), .rest = *inRange<int64_t>(1, 20)});
  return prefix_lm_mask(documents);
}

AttnMaskSpec draw_spans() {
  const int64_t total = draw_length();
  std::vector<Range> spans;
  for (int64_t begin = *inRange<int64_t>(0, 10); begin < total; begin += 1 + *inRange<int64_t>(0, 20)) {
    const int64_t end = std::min(total, begin + *inRange<int64_t>(1, 20));
    spans.push_back({begin, end});
    begin = end;
  }
  return bidirectional_spans_mask(total, spans);
}

AttnMaskSpec draw_mask(const std::string& kind) {
  if (kind == "union") {
    const RandomMask mask = *random_mask(/*longest=*/130, /*most_slices=*/7);
    return mask.spec();
  }
  if (kind == "full") return full_mask(draw_length(), draw_length());
  if (kind == "causal") {
    const int64_t length = draw_length();
    return causal_mask(length, length);
  }
  if (kind == "causal cross") return causal_mask(draw_length(), draw_length());
  if (kind == "varlen") return varlen_mask(draw_lengths(), draw_full_or_causal());
  if (kind == "varlen cross") return cross_documents(draw_full_or_causal());
  if (kind == "window") return draw_window();
  if (kind == "prefix lm") return draw_prefix_lm();
  if (kind == "tree") return draw_tree();
  if (kind == "block causal") return block_causal_mask(draw_lengths());
  if (kind == "chunked") return chunked_local_mask(draw_length(), *inRange<int64_t>(1, 40));
  if (kind == "spans") return draw_spans();
  return draw_dense();
}

rc::Gen<Strides> any_strides() {
  return rc::gen::weightedElement<Strides>({{8, Strides::kContiguous},
                                            {3, Strides::kHeadsFirst},
                                            {3, Strides::kPacked},
                                            {2, Strides::kDimStrided},
                                            {1, Strides::kDimFirst},
                                            {2, Strides::kShiftedOne},
                                            {1, Strides::kOneHead},
                                            {1, Strides::kOneToken}});
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const AttentionCase& c) {
  static constexpr std::array<const char*, 8> kNames = {"contiguous", "heads first", "packed",   "dim strided",
                                                        "dim first",  "shifted one", "one head", "one token"};
  const auto name = [](Strides strides) { return kNames[static_cast<size_t>(strides)]; };
  out << c.mask_kind << " mask of " << c.mask.total_q() << " x " << c.mask.total_k() << ":";
  for (const AttnSlice& slice : c.mask.slices()) out << "\n  " << slice;
  return out << "\nheads_kv " << c.heads_kv << ", group " << c.group << ", head_dim " << c.head_dim << ", head_dim_v "
             << c.head_dim_v << ", scale " << c.softmax_scale << ", seed " << c.seed << ", q " << name(c.q) << ", k "
             << name(c.k) << ", v " << name(c.v) << ", dout " << name(c.dout);
}

rc::Gen<AttentionCase> random_attention_case() {
  return rc::gen::exec([] {
    const std::string kind = *rc::gen::weightedElement<std::string>({{8, "union"},
                                                                     {1, "full"},
                                                                     {2, "causal"},
                                                                     {1, "causal cross"},
                                                                     {3, "varlen"},
                                                                     {2, "varlen cross"},
                                                                     {3, "window"},
                                                                     {1, "prefix lm"},
                                                                     {2, "tree"},
                                                                     {1, "block causal"},
                                                                     {1, "chunked"},
                                                                     {1, "spans"},
                                                                     {1, "dense"}});
    AttentionCase c = {.mask_kind = kind, .mask = draw_mask(kind)};
    c.heads_kv = *element<int64_t>(1, 1, 2, 3);
    c.group = *element<int64_t>(1, 1, 2, 8);
    c.head_dim = *element<int64_t>(1, 2, 3, 7, 8, 15, 16, 17, 32, 33, 64);
    c.head_dim_v = c.head_dim;
    // Large head dims on small masks only, and rarely: the oracle is slow.
    if (c.mask.total_q() * c.mask.total_k() < 1000 && *inRange(0, 8) == 0)
      c.head_dim = c.head_dim_v = *element<int64_t>(72, 80, 96, 128, 129, 256);
    if (*inRange(0, 5) == 0) c.head_dim_v = *element<int64_t>(1, 4, 16, 31, 40, 64);
    c.q = *any_strides();
    c.k = *any_strides();
    c.v = *any_strides();
    c.dout = *any_strides();
    const double relative_scale = *element(1.0, 1.0, 1.0, 0.1, 0.5, 1.4, -0.7, 0.0);
    c.softmax_scale = relative_scale / std::sqrt(static_cast<double>(c.head_dim));
    c.seed = *inRange<uint64_t>(0, 1u << 20);
    return c;
  });
}

at::Tensor random_tensor(int64_t tokens, int64_t heads, int64_t dim, DType dtype, Strides strides, uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const auto normal = [&](std::vector<int64_t> sizes) {
    return at::randn(sizes, generator, at::TensorOptions().dtype(at::kDouble)).to(scalar_type_of(dtype));
  };
  switch (strides) {
    case Strides::kContiguous: return normal({tokens, heads, dim});
    case Strides::kHeadsFirst: return normal({heads, tokens, dim}).transpose(0, 1);
    case Strides::kPacked: return normal({tokens, 3 * heads, dim}).slice(1, heads, 2 * heads);
    case Strides::kDimStrided: return normal({tokens, heads, dim, 2}).select(3, 1);
    case Strides::kDimFirst: return normal({dim, tokens, heads}).permute({1, 2, 0});
    case Strides::kShiftedOne: return normal({tokens * heads * dim + 1}).slice(0, 1).view({tokens, heads, dim});
    case Strides::kOneHead: return normal({tokens, 1, dim}).expand({tokens, heads, dim});
    case Strides::kOneToken: return normal({1, heads, dim}).expand({tokens, heads, dim});
  }
  return {};
}

OracleInputs make_tensors(const AttentionCase& c, DType dtype) {
  const int64_t heads_q = c.heads_kv * c.group;
  return {.q = random_tensor(c.mask.total_q(), heads_q, c.head_dim, dtype, c.q, 4 * c.seed),
          .k = random_tensor(c.mask.total_k(), c.heads_kv, c.head_dim, dtype, c.k, 4 * c.seed + 1),
          .v = random_tensor(c.mask.total_k(), c.heads_kv, c.head_dim_v, dtype, c.v, 4 * c.seed + 2),
          .dout = random_tensor(c.mask.total_q(), heads_q, c.head_dim_v, dtype, c.dout, 4 * c.seed + 3),
          .softmax_scale = c.softmax_scale};
}

}  // namespace attnmux::testing
