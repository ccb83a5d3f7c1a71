#include "conformance/grid.h"

#include <utility>

#include "conformance/case_mask.h"
#include "conformance/random.h"
#include "conformance/rank_cases.h"

namespace attnmux::conformance {
namespace {

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64};

class Builder {
 public:
  Builder(Family family, const GridOptions& options) : options_(options) {
    base.family = family;
    base.dt = options.dt;
    base.d = options.d;
    base.seed = options.seed;
    if (is_of_groups(family)) base = Case{.family = family, .seed = options.seed};
  }

  void add(Case c) { cases.push_back(std::move(c)); }
  void check(const std::string& name) {
    Case c = base;
    c.check = name;
    add(c);
  }
  // A mask with sizes of its own, or with those that it lists.
  Case with(const std::string& mask, int64_t sq = 0, int64_t sk = -1) const {
    Case c = base;
    c.mask = mask;
    const auto [listed_q, listed_k] = listed_tokens(mask);
    c.sq = listed_q.value_or(sq);
    c.sk = listed_k.value_or(sk < 0 ? sq : sk);
    return c;
  }
  void mask(const std::string& mask, int64_t sq = 0, int64_t sk = -1, const std::string& values = "randn") {
    Case c = with(mask, sq, sk);
    c.values = values;
    add(c);
  }
  // As it is, and its backward where that is wanted.
  void both(Case c, const std::string& check = "") {
    c.check = check;
    add(c);
    if (!options_.gradients) return;
    c.check = check.empty() ? "grad" : "grad-" + check;
    add(c);
  }

  Case base;
  std::vector<Case> cases;

 private:
  const GridOptions& options_;
};

// Every kind of mask, with lengths around the edges of tiles of 64 and 128, documents of length 1 and empty ones.
void masks(Builder& b) {
  for (const auto& [sq, sk] : {std::pair{1, 1}, {1, 129}, {64, 64}, {63, 65}, {129, 129}, {127, 257}, {577, 577}}) {
    b.mask("full", sq, sk);
  }
  for (const auto& [sq, sk] : {std::pair{1, 1}, {1, 65}, {64, 64}, {65, 65}, {127, 127}, {257, 257}, {64, 193}}) {
    b.mask("causal", sq, sk);
  }
  b.mask("causal", 193, 64);  // the first 129 queries attend nothing
  b.mask("causal", 65, 1);
  b.mask("inv-causal", 65, 65);
  b.mask("inv-causal", 64, 129);
  b.mask("inv-causal", 129, 64);
  b.mask("bi-causal", 64, 129);
  b.mask("bi-causal", 65, 257);
  for (const char* window :
       {"window:16:0", "window:0:0", "window:63:0", "window:31:32", "window:-1:5", "window:7:-1"}) {
    b.mask(window, 129);
  }
  b.mask("window:16:0:3", 129);  // with an attention sink of 3 tokens
  b.mask("varlen-window:16:0:65+1+63");
  b.mask("varlen:64+64");
  b.mask("varlen:1+63+65+1+128");
  b.mask("varlen:10+0+55+1+0");
  b.mask("varlen-full:64+65");
  b.mask("varlen-full:1+0+70+1");
  b.mask("varlen-cross:16x64+65x33+0x7+9x0+1x1");
  b.mask("varlen-cross:16x64+33x65+1x1");
  b.mask("prefix-lm:40-25+0-30+33-0");
  b.mask("block-causal:32+1+64+32");
  b.mask("chunked:48", 129);
  b.mask("spans", 130);
  b.mask("nothing", 9, 11);
  Case c = b.base;
  for (const uint64_t more : {0, 1, 2}) {
    b.base.seed = c.seed + more;
    b.mask("tree", 130);
    b.mask("union", 129, 200);
    b.mask("holes", 70, 90);
  }
  b.base.seed = c.seed;
}

void patterns(Builder& b) {
  for (const char* values : {"onehot", "const", "large"}) {
    b.mask("full", 129, 129, values);
    b.mask("causal", 129, 129, values);
    b.mask("union", 129, 200, values);
  }
  b.mask("causal", 129, 129, "bait");
  b.mask("causal", 64, 193, "bait");
  b.mask("window:16:0", 129, 129, "bait");
  b.mask("varlen:63+65+1", 0, 0, "bait");
  b.mask("varlen-full:64+65", 0, 0, "bait");
  b.mask("union", 129, 200, "bait");
  b.mask("tree", 130, 130, "bait");
}

void dtypes(Builder& b) {
  for (const DType dt : kDTypes) {
    b.base.dt = dt;
    for (const int64_t d : {16, 32, 64, 80, 96, 128, 256, 1024}) {
      Case c = b.with("causal", d == 1024 ? 17 : 70);
      c.d = d;
      b.both(c);
    }
    Case c = b.with("full", 33, 65);
    c.d = 64, c.dv = 32;
    b.both(c);
    b.both(b.with("full", 129));
    b.both(b.with("union", 129, 200));
    b.both(b.with("varlen:63+65+1"));
    c = b.with("full", 129);
    c.values = "large";
    b.both(c);
  }
}

// Random requests, most of which some backend declines.
void honesty(Builder& b, uint64_t seed) {
  constexpr int kCount = 24;
  const char* kinds[] = {"full",       "causal", "inv-causal", "bi-causal", "window:9:0", "window:5:5",
                         "chunked:13", "spans",  "tree",       "union",     "holes"};
  Random random(seed + 59);
  for (int i = 0; i < kCount; ++i) {
    const int64_t sq = 1 + random.below(150), sk = 1 + random.below(150);
    const int64_t kind = random.below(11);
    Case c = b.with(kinds[kind], sq, kind < 4 || kind > 8 ? sk : sq);
    c.hk = 1 + random.below(2);
    c.hq = c.hk * (1 + random.below(2));
    c.d = 32 << random.below(3);
    // Half of them in the dtype that the backend is known to take.
    if (random.below(2) == 0) c.dt = kDTypes[random.below(4)];
    c.seed = seed + static_cast<uint64_t>(i);
    b.both(c);
  }
}

// Distributed attention: every mask has parts of every shape once it is cut up. Chunks of 16 tokens on 8 ranks leave
// ranks with one chunk beside ranks with two, chunks of which the last is short, and ranks without any.
void distributed(Builder& b) {
  b.base.hq = 4, b.base.hk = 2;
  const auto add = [&](Case c, int64_t cp, int64_t stages, int64_t chunk = 16) {
    c.cp = cp, c.stages = stages, c.chunk = chunk;
    b.add(c);
  };
  for (const int64_t cp : {1, 2, 4, 8}) {
    add(b.with("causal", 129), cp, 2);
    add(b.with("union", 129, 200), cp, 2);
  }
  add(b.with("full", 129), 4, 1);
  add(b.with("full", 70, 40), 4, 3);
  add(b.with("causal", 193, 64), 4, 2);  // the first 129 queries attend nothing
  add(b.with("varlen:63+65+1"), 4, 1);
  add(b.with("varlen-cross:16x64+33x65+0x7+9x0+1x1"), 3, 2);
  add(b.with("window:16:0", 129), 8, 3);
  add(b.with("tree", 130), 4, 2);
  add(b.with("holes", 70, 90), 2, 3);
  add(b.with("nothing", 9, 11), 4, 1, 2);
  add(b.with("causal", 40), 8, 2, 8);   // three ranks have no chunk
  add(b.with("causal", 20), 8, 1, 16);  // six have none, two share 16 and 4 tokens
  for (const char* values : {"large", "bait"}) {
    Case c = b.with("causal", 129);
    c.values = values;
    add(c, 4, 2);
  }
  for (const char* check : {"determinism", "failure"}) {
    Case c = b.with("union", 129, 129);
    c.check = check;
    add(c, 4, 2);
  }
  for (const DType dt : kDTypes) {
    b.base.dt = dt;
    add(b.with("causal", 70), 4, 2);
  }
}

// Calls of a group with so many ranks, and a rank in the middle that fails.
void groups(Builder& b, const std::vector<std::string>& checks, std::vector<int64_t> sizes) {
  for (const int64_t cp : sizes) {
    for (const std::string& check : checks) {
      Case c = b.base;
      c.check = check, c.cp = cp;
      b.add(c);
    }
  }
}

}  // namespace

std::vector<Case> grid(Family family, const GridOptions& options) {
  Builder b(family, options);
  switch (family) {
    case Family::kMeta:  // init-twice is last: it invalidates what was registered before
      for (const char* check : {"exports", "needed", "info", "side-by-side", "init-twice"}) b.check(check);
      break;
    case Family::kQuery:
      for (const char* check : {"pure", "threads", "reasons", "all-gates", "carried"}) b.check(check);
      break;
    case Family::kForward:
      masks(b);
      patterns(b);
      break;
    case Family::kBackward:
      masks(b);
      patterns(b);
      for (const char* check : {"some-grads", "strided-dout", "merged"}) {
        for (const char* mask : {"causal", "union"}) {
          Case c = b.with(mask, 65, mask == std::string("union") ? 129 : 65);
          c.check = check;
          b.add(c);
        }
      }
      break;
    case Family::kLse:
      for (const auto& [sq, sk] : {std::pair{1, 1}, {129, 129}, {64, 193}, {193, 64}}) {
        b.mask("full", sq, sk);
        b.mask("causal", sq, sk);
      }
      b.mask("varlen:63+0+65+1");
      b.mask("union", 129, 200);
      for (const char* values : {"large", "bait"}) {
        b.mask("causal", 129, 129, values);
        b.mask("union", 129, 200, values);
      }
      for (const DType dt : kDTypes) {
        b.base.dt = dt;
        for (const char* mask : {"full", "union"}) {
          Case c = b.with(mask, 129, 200);
          c.check = "merge", c.values = "merge";
          b.add(c);
        }
      }
      break;
    case Family::kEmptyRows:
      b.both(b.with("causal", 129, 64));
      b.both(b.with("causal", 65, 1));
      b.both(b.with("varlen-cross:5x0+65x33+7x7"));
      b.both(b.with("holes", 70, 90));
      b.both(b.with("nothing", 9, 11));
      break;
    case Family::kGqa:
      for (const auto& [hq, hk] : {std::pair{2, 2}, {4, 2}, {16, 2}, {8, 1}, {6, 2}}) {
        Case c = b.with("causal", 65);
        c.hq = hq, c.hk = hk;
        b.both(c);
        c = b.with("union", 65, 90);
        c.hq = hq, c.hk = hk;
        b.both(c);
      }
      break;
    case Family::kStrides:
      for (const char* shape : {"transposed", "sliced", "misaligned", "strided-dim", "broadcast"}) {
        b.both(b.with("causal", 65), shape);
        b.both(b.with("full", 33, 70), shape);
      }
      break;
    case Family::kDtype: dtypes(b); break;
    case Family::kHonesty: honesty(b, options.seed); break;
    case Family::kDeterminism:
      b.both(b.with("causal", 257));
      b.both(b.with("union", 129, 200));
      break;
    case Family::kStreams:
      if (options.on_gpu) b.mask("causal", 257, 257);
      break;
    case Family::kConcurrency:
      b.both(b.with("causal", 65));
      b.both(b.with("union", 65, 90));
      break;
    case Family::kMemory: {
      Case c = b.with("causal", 512);
      c.hq = c.hk = 1;
      b.both(c, "growth");
    }
      b.both(b.with("causal", 129), "leak");
      break;
    case Family::kErrors:
      b.both(b.with("full", 0, 16), "empty");
      b.both(b.with("full", 16, 0), "empty");
      b.both(b.with("full", 0, 0), "empty");
      for (const char* values : {"scale-zero", "scale-negative"}) {
        Case c = b.with("causal", 65);
        c.values = values;
        b.both(c, "scale");
      }
      b.add([&] {
        Case c = b.with("causal", 65);
        c.check = "recovers";
        return c;
      }());
      break;
    case Family::kCp:
      if (!options.on_gpu) distributed(b);
      break;
    case Family::kGroup: groups(b, group_checks(), {1, 2, 3, 4}); break;
    case Family::kFaults: groups(b, fault_checks(), {3}); break;
  }
  return b.cases;
}

}  // namespace attnmux::conformance
