#include "reference/reference_backend.h"

#include <ATen/ATen.h>

#include <limits>
#include <string_view>
#include <vector>

#include "common/dense_mask.h"
#include "common/gates.h"
#include "common/prepared_as.h"

namespace attnmux {
namespace {

constexpr std::string_view kId = "reference";
constexpr double kInfinity = std::numeric_limits<double>::infinity();

constexpr Gate kGates[] = {
    dtype_among<DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64>,
    valid_heads,
    valid_head_dims,
    at_most_tokens<kMaxDenseTokens>,
    no_softcap,
    no_attention_sink,
    no_dropout,
};

struct ReferencePrepared final : Prepared {
  at::Tensor attended;  // [tokens_q, tokens_k] bool, on the device of the calls
};

at::ScalarType compute_dtype(const at::Tensor& q) { return q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

// One head's softmax_scale * q k^T, -inf where not attended. [tokens_q, tokens_k]
at::Tensor scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& attended, double softmax_scale) {
  return (at::matmul(q, k.t()) * softmax_scale).masked_fill(attended.logical_not(), -kInfinity);
}

// exp(scores - lse); 0 in rows without keys, where lse is -inf and the difference would be NaN.
at::Tensor probabilities(const at::Tensor& scores, const at::Tensor& lse) {
  return at::exp(scores - lse.masked_fill(lse == -kInfinity, 0).unsqueeze(1));
}

class ReferenceBackend final : public AttentionBackend {
 public:
  BackendInfo info() const override {
    return {.id = std::string(kId),
            .version = ATTNMUX_VERSION,
            .description = "plain attention over a dense mask, any dtype; slow, for comparison"};
  }

  Support query(const AttentionRequest& request) const noexcept override { return run_gates(kGates, request); }

  std::shared_ptr<const Prepared> prepare(const AttnMaskSpec& mask, const AttentionShape& shape) const override {
    auto prepared = std::make_shared<ReferencePrepared>();
    prepared->attended = dense_mask(mask, kId).to(device_of(shape));
    return prepared;
  }

  ForwardResult forward(const Prepared& prepared, const ForwardArgs& args) const override {
    const at::Tensor attended = prepared_as<ReferencePrepared>(prepared, kId).attended;
    const at::ScalarType compute = compute_dtype(args.q);
    const int64_t heads_q = args.q.size(1);
    const auto options = args.q.options();
    const at::Tensor no_keys = attended.any(1, /*keepdim=*/true).logical_not();  // softmax gives NaN there
    at::Tensor out = at::empty({args.q.size(0), heads_q, args.v.size(2)}, options);
    at::Tensor lse = at::empty({args.q.size(0), heads_q}, options.dtype(compute));
    for (int64_t h = 0; h < heads_q; ++h) {
      const int64_t h_kv = h / (heads_q / args.k.size(1));
      const at::Tensor q = args.q.select(1, h).to(compute);
      const at::Tensor k = args.k.select(1, h_kv).to(compute);
      const at::Tensor v = args.v.select(1, h_kv).to(compute);
      const at::Tensor s = scores(q, k, attended, args.softmax_scale);
      lse.select(1, h).copy_(at::logsumexp(s, 1));
      // Not exp(s - lse): a large lse is rounded by more than the softmax has to lose.
      out.select(1, h).copy_(at::matmul(at::softmax(s, 1).masked_fill(no_keys, 0), v));
    }
    return {.out = out, .lse = lse};
  }

  // With P = exp(S - lse), dP = dout v^T and delta = rowsum(dout * out): dS = P * (dP - delta), and from it dq, dk.
  // (Dao et al., FlashAttention, appendix B.4.)
  BackwardResult backward(const Prepared& prepared, const BackwardArgs& args) const override {
    const at::Tensor attended = prepared_as<ReferencePrepared>(prepared, kId).attended;
    const at::ScalarType compute = compute_dtype(args.q);
    const int64_t heads_q = args.q.size(1);
    at::Tensor dq = at::empty(args.q.sizes(), args.q.options());
    at::Tensor dk = at::zeros(args.k.sizes(), args.k.options().dtype(compute));
    at::Tensor dv = at::zeros(args.v.sizes(), args.v.options().dtype(compute));
    for (int64_t h = 0; h < heads_q; ++h) {
      const int64_t h_kv = h / (heads_q / args.k.size(1));
      const at::Tensor q = args.q.select(1, h).to(compute);
      const at::Tensor k = args.k.select(1, h_kv).to(compute);
      const at::Tensor v = args.v.select(1, h_kv).to(compute);
      const at::Tensor out = args.out.select(1, h).to(compute);
      const at::Tensor dout = args.dout.select(1, h).to(compute);
      const at::Tensor p = probabilities(scores(q, k, attended, args.softmax_scale), args.lse.select(1, h).to(compute));
      const at::Tensor dp = at::matmul(dout, v.t());
      const at::Tensor delta = (dout * out).sum(1, /*keepdim=*/true);
      const at::Tensor ds = p * (dp - delta) * args.softmax_scale;
      dq.select(1, h).copy_(at::matmul(ds, k));
      dk.select(1, h_kv).add_(at::matmul(ds.t(), q));
      dv.select(1, h_kv).add_(at::matmul(p.t(), dout));
    }
    return {.dq = dq, .dk = dk.to(args.k.scalar_type()), .dv = dv.to(args.v.scalar_type())};
  }
};

}  // namespace

std::shared_ptr<const AttentionBackend> make_reference_backend() { return std::make_shared<ReferenceBackend>(); }

}  // namespace attnmux
