#include <ATen/ATen.h>

#include <limits>

#include "attnmux/attend.h"
#include "attnmux/error.h"
#include "attnmux/mask_builders.h"
#include "conformance/compare.h"
#include "conformance/families.h"
#include "conformance/truth.h"
#include "oracle/plain_attention.h"

namespace attnmux::conformance {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The mask of keys [begin, end) alone.
AttnMaskSpec of_keys(const at::Tensor& allowed, int64_t begin, int64_t end) {
  const at::Tensor part = allowed.slice(1, begin, end).to(at::kByte).contiguous();
  const uint8_t* data = part.const_data_ptr<uint8_t>();
  return mask_from_dense({data, data + part.numel()}, part.size(0), part.size(1));
}

Inputs keys_of(const Inputs& in, int64_t begin, int64_t end) {
  Inputs part = in;
  part.k = in.k.slice(0, begin, end).contiguous();
  part.v = in.v.slice(0, begin, end).contiguous();
  return part;
}

Case with_keys(const Case& c, int64_t keys) {
  Case part = c;
  part.sk = keys;
  return part;
}

// Keys cut in half, each half attended alone, merged by lse: the whole again. What context parallelism does.
void merge_halves(const Subject& subject, const Setup& setup, CaseResult& result) {
  const Case& c = setup.c;
  const int64_t half = c.sk / 2;
  const Inputs in = on_device(setup.in, subject.device);
  const auto whole = forward(subject, c, setup.mask.spec, in, Refusal::kForbidden, result);
  std::optional<ForwardResult> parts[2];
  for (const int i : {0, 1}) {
    const int64_t begin = i * half, end = i == 0 ? half : c.sk;
    parts[i] = forward(subject, with_keys(c, end - begin), of_keys(setup.allowed, begin, end), keys_of(in, begin, end),
                       Refusal::kForbidden, result);
  }
  if (!whole || !parts[0] || !parts[1]) return;
  const auto number = [](const at::Tensor& tensor) { return tensor.cpu().to(at::kDouble); };
  const at::Tensor first = number(parts[0]->lse), second = number(parts[1]->lse);
  const at::Tensor lse = at::logaddexp(first, second);
  const at::Tensor out = number(parts[0]->out) * at::exp(first - lse).unsqueeze(2) +
                         number(parts[1]->out) * at::exp(second - lse).unsqueeze(2);
  const at::Tensor rows = setup.allowed.any(1);  // the others are nobody's
  if (!rows.any().item<bool>()) return;
  const double worst = (out - number(whole->out)).index({rows}).abs().max().item<double>();
  const double largest_lse = number(whole->lse).index({rows}).abs().max().item<double>();
  // An error of lse is a relative error of the weights: eight roundings of out, eight of an lse kept in fp32.
  const double allowed = 8 * unit_roundoff(c.dt) + 8 * unit_roundoff(DType::kFloat32) * (1 + largest_lse);
  if (!(worst <= allowed)) {
    result.fail(Check::kLseMerge, "halves of the keys, merged by their lse, differ from the whole by " +
                                      std::to_string(worst) + ", allowed " + std::to_string(allowed));
  }
}

// Backward of each half of the keys from the out and lse of the whole: gradients add up to the whole's.
void merged_backward(const Subject& subject, const Setup& setup, CaseResult& result) {
  const Case& c = setup.c;
  const int64_t half = c.sk / 2;
  const Truth truth = truth_of(setup.allowed, setup.in, Gradients::kNo);
  const at::ScalarType lse_dtype = c.dt == DType::kFloat64 ? at::kDouble : at::kFloat;
  const ForwardResult whole{truth.out.value.to(scalar_type(c.dt)).to(subject.device),
                            truth.lse.value.to(lse_dtype).to(subject.device)};
  const Inputs in = on_device(setup.in, subject.device);
  std::optional<BackwardResult> parts[2];
  for (const int i : {0, 1}) {
    const int64_t begin = i * half, end = i == 0 ? half : c.sk;
    parts[i] = backward(subject, with_keys(c, end - begin), of_keys(setup.allowed, begin, end), keys_of(in, begin, end),
                        whole, Refusal::kForbidden, result);
  }
  if (!parts[0] || !parts[1]) return;
  const auto number = [](const at::Tensor& tensor) { return tensor.cpu().to(at::kDouble); };
  Results got;
  got.dq = number(parts[0]->dq) + number(parts[1]->dq);
  got.dk = at::cat({number(parts[0]->dk), number(parts[1]->dk)});
  got.dv = at::cat({number(parts[0]->dv), number(parts[1]->dv)});
  compare_results(setup, got, result);
}

// Gradients through autograd, wanted of some inputs only: the others get none, those that are wanted are right.
void some_gradients(const Subject& subject, const Setup& setup, CaseResult& result) {
  for (const int wanted : {0, 1, 2}) {
    const Inputs in = on_device(setup.in, subject.device);
    at::Tensor tensors[3] = {in.q.clone(), in.k.clone(), in.v.clone()};
    tensors[wanted].requires_grad_(true);
    Results got;
    try {
      PreparedCache cache;
      const AttendResult attended = attend(subject.backend, setup.mask.spec, tensors[0], tensors[1], tensors[2],
                                           {.softmax_scale = in.softmax_scale}, cache);
      attended.out.backward(in.dout);
    } catch (const std::exception& error) {
      result.fail(Check::kRefusedAfterYes, std::string("query() took the request, the call threw: ") + error.what());
      return;
    }
    (wanted == 0 ? got.dq : wanted == 1 ? got.dk : got.dv) = tensors[wanted].grad();
    compare_results(setup, got, result);
  }
}

// A request that was declined: the same refusal through the way that models take.
void refuses(const Subject& subject, const Setup& setup, CaseResult& result) {
  const Inputs in = on_device(setup.in, subject.device);
  at::Tensor q = in.q.clone();
  if (is_training(setup.c)) q.requires_grad_(true);
  try {
    PreparedCache cache;
    attend(subject.backend, setup.mask.spec, q, in.k, in.v, {.softmax_scale = in.softmax_scale}, cache);
  } catch (const Error& error) {
    const std::string text = error.what();
    for (const std::string& code : result.reasons) {
      if (text.find(code) == std::string::npos) {
        result.fail(Check::kQueryPure, "query() refused with " + code + ", then without it: " + text);
      }
    }
    return;
  }
  result.fail(Check::kQueryPure, "query() refused the request, then took it");
}

unsigned main_question(const Case& c) {
  switch (c.family) {
    case Family::kForward: return kOut;
    case Family::kLse: return kLseTensor;
    case Family::kBackward: return kGrads;
    default: return is_training(c) ? unsigned{kGrads} : unsigned{kOut | kLseTensor};
  }
}

}  // namespace

void compare_results(const Setup& setup, const Results& got, CaseResult& result) {
  const bool grads = got.dq.defined() || got.dk.defined() || got.dv.defined();
  const Truth want = truth_of(setup.allowed, setup.in, grads ? Gradients::kYes : Gradients::kNo);
  const testing::PlainResult low = testing::plain_attention(setup.mask.spec, setup.in);
  const DType dtype = setup.c.dt;
  const auto one = [&](const char* name, const at::Tensor& tensor, const TruthTensor& truth, const at::Tensor& plain,
                       std::optional<Check> empty, double value) {
    if (!tensor.defined()) return;
    const bool is_lse = empty == Check::kEmptyLse;
    compare({.name = name,
             .got = tensor,
             .want = truth,
             .low = plain,
             // lse is kept in fp32 whatever the inputs are.
             .dtype = is_lse && dtype != DType::kFloat64 ? DType::kFloat32 : dtype,
             .cap = is_lse ? lse_cap_of(dtype) : cap_of(dtype),
             .empty_rows = empty ? want.empty_rows : at::Tensor(),
             .empty_check = empty.value_or(Check::kEmptyOut),
             .empty_value = value},
            result);
  };
  one("out", got.out, want.out, low.out, Check::kEmptyOut, 0);
  one("lse", got.lse, want.lse, low.lse, Check::kEmptyLse, -kInfinity);
  one("dq", got.dq, want.dq, low.dq, Check::kEmptyGrad, 0);
  one("dk", got.dk, want.dk, low.dk, std::nullopt, 0);
  one("dv", got.dv, want.dv, low.dv, std::nullopt, 0);
}

void run_and_compare(const Subject& subject, const Setup& setup, const Inputs& in, unsigned which, Refusal refusal,
                     CaseResult& result) {
  const auto out = forward(subject, setup.c, setup.mask.spec, in, refusal, result);
  if (!out) return;
  Results got;
  if (which & kOut) got.out = out->out;
  if (which & kLseTensor) got.lse = out->lse;
  if (which & kGrads) {
    const auto grads = backward(subject, setup.c, setup.mask.spec, in, *out, refusal, result);
    if (!grads) return;
    got.dq = grads->dq, got.dk = grads->dk, got.dv = grads->dv;
  }
  compare_results(setup, got, result);
}

void run_and_compare(const Subject& subject, const Setup& setup, unsigned which, Refusal refusal, CaseResult& result) {
  run_and_compare(subject, setup, on_device(setup.in, subject.device), which, refusal, result);
}

void run_numbers(const Subject& subject, const Case& c, CaseResult& result) {
  const Setup setup(c);
  if (!takes(subject, setup, result)) {
    if (c.family == Family::kHonesty || c.family == Family::kDtype) refuses(subject, setup, result);
    return;
  }
  if (c.check.empty() || c.check == "grad") {
    run_and_compare(subject, setup, main_question(c), Refusal::kForbidden, result);
  } else if (c.family == Family::kLse && c.check == "merge") {
    merge_halves(subject, setup, result);
  } else if (c.family == Family::kBackward && c.check == "merged") {
    merged_backward(subject, setup, result);
  } else if (c.family == Family::kBackward && c.check == "some-grads") {
    some_gradients(subject, setup, result);
  } else {  // strided-dout
    Inputs in = on_device(setup.in, subject.device);
    in.dout = in.dout.permute({2, 1, 0}).contiguous().permute({2, 1, 0});
    run_and_compare(subject, setup, in, kGrads, Refusal::kForbidden, result);
  }
}

}  // namespace attnmux::conformance
