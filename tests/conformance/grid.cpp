#include "conformance/grid.h"

#include <utility>

#include "conformance/case_mask.h"
#include "conformance/random.h"

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
  }
  return b.cases;
}

}  // namespace attnmux::conformance
