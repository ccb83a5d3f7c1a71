// A complete plugin in one file: fp32 attention on the CPU over a dense mask, forward and backward. Slow and correct.
// Copy it, rename "minimal", and replace forward() and backward() by your kernel; query() must refuse what it cannot
// do.

#include <ATen/ATen.h>

#include <limits>
#include <string>
#include <utility>

#include "attnmux/error.h"
#include "attnmux/plugin.h"

namespace {

using namespace attnmux;  // NOLINT: one file, nothing else in it

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int64_t kMaxTokens = 8192;  // the dense mask grows with tokens squared

// What prepare() derives from a mask and every call with it uses.
struct DenseMask final : Prepared {
  at::Tensor blocked;  // [tokens_q, tokens_k] bool: true where a query must not attend
};

// [tokens, heads_kv, dim] -> [heads_q, tokens, dim]: query head h reads key/value head h / (heads_q / heads_kv).
at::Tensor by_query_head(const at::Tensor& x, int64_t heads_q) {
  return x.repeat_interleave(heads_q / x.size(1), 1).transpose(0, 1);
}

// The gradient of by_query_head: sums the query heads that share a key/value head.
at::Tensor by_kv_head(const at::Tensor& x, int64_t heads_kv) {
  return x.unflatten(0, {heads_kv, x.size(0) / heads_kv}).sum(1).transpose(0, 1).contiguous();
}

// softmax_scale * q k^T, -inf where the mask blocks. [heads_q, tokens_q, tokens_k]
at::Tensor scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& blocked, double softmax_scale) {
  const at::Tensor products = at::matmul(q.transpose(0, 1), by_query_head(k, q.size(1)).transpose(1, 2));
  return (products * softmax_scale).masked_fill(blocked, -kInfinity);
}

// exp(scores - lse), and 0 in rows without keys, where lse is -inf. lse: [heads_q, tokens_q]
at::Tensor probabilities(const at::Tensor& scores, const at::Tensor& lse) {
  return at::exp(scores - lse.masked_fill(lse == -kInfinity, 0).unsqueeze(2));
}

class MinimalBackend final : public AttentionBackend {
 public:
  BackendInfo info() const override { return {"minimal", "1.0.0", "the example plugin: fp32, CPU, a dense mask"}; }

  // Every gate is asked, so that the user reads all reasons at once.
  Support query(const AttentionRequest& request) const noexcept override {
    Support support;
    const auto need = [&](bool met, ReasonCode code, std::string got, std::string want) {
      if (!met) support.reasons.push_back({code, std::move(got), std::move(want), "choose another backend"});
    };
    need(request.dtype == DType::kFloat32, ReasonCode::kDType, std::string(to_string(request.dtype)), "fp32");
    need(request.device == DeviceKind::kCpu, ReasonCode::kDevice, std::string(to_string(request.device)), "cpu");
    need(request.max_tokens <= kMaxTokens, ReasonCode::kLength, std::to_string(request.max_tokens),
         "at most " + std::to_string(kMaxTokens) + " tokens");
    need(request.softcap == 0, ReasonCode::kSoftcap, std::to_string(request.softcap), "0");
    need(!request.attention_sink, ReasonCode::kSink, "an attention sink", "none");
    need(request.dropout == 0, ReasonCode::kDropout, std::to_string(request.dropout), "0");
    return support;
  }

  std::shared_ptr<const Prepared> prepare(const AttnMaskSpec& mask, const AttentionShape&) const override {
    if (mask.total_q() > kMaxTokens || mask.total_k() > kMaxTokens) {
      throw Error(ErrorCode::kUnsupported, "minimal: a mask of " + std::to_string(mask.total_q()) + " x " +
                                               std::to_string(mask.total_k()) + " tokens; the limit is " +
                                               std::to_string(kMaxTokens) + ". Choose another backend.");
    }
    auto prepared = std::make_shared<DenseMask>();
    prepared->blocked = at::ones({mask.total_q(), mask.total_k()}, at::kBool);
    for (int64_t row = 0; row < mask.total_q(); ++row) {
      for (const Range& keys : mask.keys_of_row(row)) {
        prepared->blocked.select(0, row).slice(0, keys.begin, keys.end).fill_(false);
      }
    }
    return prepared;
  }

  ForwardResult forward(const Prepared& prepared, const ForwardArgs& args) const override {
    const at::Tensor& blocked = dynamic_cast<const DenseMask&>(prepared).blocked;
    const at::Tensor s = scores(args.q, args.k, blocked, args.softmax_scale);
    const at::Tensor lse = at::logsumexp(s, 2);
    const at::Tensor out = at::matmul(probabilities(s, lse), by_query_head(args.v, args.q.size(1)));
    return {out.transpose(0, 1).contiguous(), lse.transpose(0, 1).contiguous()};
  }

  // P = exp(S - lse), dP = dout v^T, dS = P * (dP - rowsum(dout * out)). (Dao et al., FlashAttention, appendix B.4.)
  BackwardResult backward(const Prepared& prepared, const BackwardArgs& args) const override {
    const at::Tensor& blocked = dynamic_cast<const DenseMask&>(prepared).blocked;
    const int64_t heads_q = args.q.size(1);
    const int64_t heads_kv = args.k.size(1);
    const at::Tensor s = scores(args.q, args.k, blocked, args.softmax_scale);
    const at::Tensor p = probabilities(s, args.lse.transpose(0, 1));
    const at::Tensor dout = args.dout.transpose(0, 1);
    const at::Tensor dp = at::matmul(dout, by_query_head(args.v, heads_q).transpose(1, 2));
    const at::Tensor delta = (args.dout * args.out).sum(2).transpose(0, 1).unsqueeze(2);
    const at::Tensor ds = p * (dp - delta) * args.softmax_scale;
    return {at::matmul(ds, by_query_head(args.k, heads_q)).transpose(0, 1).contiguous(),
            by_kv_head(at::matmul(ds.transpose(1, 2), args.q.transpose(0, 1)), heads_kv),
            by_kv_head(at::matmul(p.transpose(1, 2), dout), heads_kv)};
  }
};

void register_minimal(const HostApi&, Registrar& registrar) {
  registrar.add_backend(std::make_shared<MinimalBackend>());
}

}  // namespace

ATTNMUX_PLUGIN("minimal", "1.0.0", "attnmux", register_minimal)
