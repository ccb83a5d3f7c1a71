#include "flash/flash_backend.h"

#include <ATen/ATen.h>

#include <limits>
#include <string_view>
#include <vector>

#include "common/aten_flash.h"
#include "common/gates.h"
#include "common/prepared_as.h"
#include "flash/pieces.h"

namespace attnmux {
namespace {

constexpr std::string_view kId = "flash";
constexpr double kInfinity = std::numeric_limits<double>::infinity();

constexpr Gate kGates[] = {
    masks_within<MaskFamily::kVarlenFull, MaskFamily::kVarlenCausal>,
    dtype_among<DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64>,
    valid_heads,
    valid_head_dims,
    equal_head_dims,
    on_device<DeviceKind::kCpu>,
    single_rank,  // the stages of a context-parallel step bring masks of any family
    no_softcap,
    no_attention_sink,
    no_dropout,
};

struct FlashPrepared final : Prepared {
  std::vector<Piece> pieces;
};

at::Tensor rows(const at::Tensor& tensor, const Range& range) { return tensor.slice(0, range.begin, range.end); }

bool is_whole(const Piece& piece, const at::Tensor& q, const at::Tensor& k) {
  return piece.q.size() == q.size(0) && piece.k.size() == k.size(0);
}

// into: the outputs of `into.lse` keys and of `piece` on the same rows, weighted by their share of the softmax.
void merge(const ForwardResult& into, const ForwardResult& piece) {
  const at::Tensor lse = at::logaddexp(into.lse, piece.lse);
  const at::Tensor out =
      into.out * at::exp(into.lse - lse).unsqueeze(2) + piece.out * at::exp(piece.lse - lse).unsqueeze(2);
  into.out.copy_(out);
  into.lse.copy_(lse);
}

class FlashBackend final : public AttentionBackend {
 public:
  BackendInfo info() const override {
    return {.id = std::string(kId),
            .version = ATTNMUX_VERSION,
            .description = "ATen's fused attention: full, causal, packed documents, on CUDA windows; linear memory"};
  }

  Support query(const AttentionRequest& request) const noexcept override { return run_gates(kGates, request); }

  std::shared_ptr<const Prepared> prepare(const AttnMaskSpec& mask, const AttentionShape&) const override {
    auto prepared = std::make_shared<FlashPrepared>();
    prepared->pieces = pieces_of(mask);
    return prepared;
  }

  ForwardResult forward(const Prepared& prepared, const ForwardArgs& args) const override {
    const std::vector<Piece>& pieces = prepared_as<FlashPrepared>(prepared, kId).pieces;
    if (pieces.size() == 1 && is_whole(pieces[0], args.q, args.k))
      return aten_flash_forward(args, {.is_causal = pieces[0].is_causal});
    const auto lse_dtype = args.q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const ForwardResult all = {
        .out = at::zeros(args.q.sizes(), args.q.options()),
        .lse = at::full({args.q.size(0), args.q.size(1)}, -kInfinity, args.q.options().dtype(lse_dtype))};
    for (const Piece& piece : pieces) {
      const ForwardResult one = aten_flash_forward({.q = rows(args.q, piece.q),
                                                    .k = rows(args.k, piece.k),
                                                    .v = rows(args.v, piece.k),
                                                    .softmax_scale = args.softmax_scale},
                                                   {.is_causal = piece.is_causal});
      const ForwardResult into = {.out = rows(all.out, piece.q), .lse = rows(all.lse, piece.q)};
      if (piece.same_rows) {
        merge(into, one);
      } else {
        into.out.copy_(one.out);
        into.lse.copy_(one.lse);
      }
    }
    return all;
  }

  // Gradients of a piece need the out and lse of the whole row only, so that pieces are independent.
  BackwardResult backward(const Prepared& prepared, const BackwardArgs& args) const override {
    const std::vector<Piece>& pieces = prepared_as<FlashPrepared>(prepared, kId).pieces;
    if (pieces.size() == 1 && is_whole(pieces[0], args.q, args.k))
      return aten_flash_backward(args, {.is_causal = pieces[0].is_causal});
    BackwardResult all = {.dq = at::zeros(args.q.sizes(), args.q.options()),
                          .dk = at::zeros(args.k.sizes(), args.k.options()),
                          .dv = at::zeros(args.v.sizes(), args.v.options())};
    for (const Piece& piece : pieces) {
      const BackwardResult one = aten_flash_backward({.dout = rows(args.dout, piece.q),
                                                      .q = rows(args.q, piece.q),
                                                      .k = rows(args.k, piece.k),
                                                      .v = rows(args.v, piece.k),
                                                      .out = rows(args.out, piece.q),
                                                      .lse = rows(args.lse, piece.q),
                                                      .softmax_scale = args.softmax_scale},
                                                     {.is_causal = piece.is_causal});
      rows(all.dq, piece.q).add_(one.dq);
      rows(all.dk, piece.k).copy_(one.dk);
      rows(all.dv, piece.k).copy_(one.dv);
    }
    return all;
  }
};

}  // namespace

std::shared_ptr<const AttentionBackend> make_flash_backend() { return std::make_shared<FlashBackend>(); }

}  // namespace attnmux
