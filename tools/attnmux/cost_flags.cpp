#include "tools/attnmux/cost_flags.h"

#include "attnmux/error.h"
#include "models/io/atomic_file.h"
#include "tools/attnmux/values.h"

namespace attnmux::tool {

namespace {

constexpr double kMost = 1e9;
constexpr int64_t kMostHeadDim = 1 << 16;

}  // namespace

void CostFlags::add_to(Flags& flags) {
  flags.add("heads", heads, Need::kOptional, "Q[:KV]", "heads of q, and of k and v, for predicted times");
  flags.add("head-dim", head_dim, "D", "of q, k and v, for predicted times");
  flags.add("dtype", dtype, Need::kOptional, "T", "fp32, bf16, fp16 or fp64, for predicted times");
  flags.add("calibration", calibration, Need::kOptional, "FILE", "measured costs, as `attnmux bench comm` writes them");
  flags.add("link-gbps", link_gbps, "B", "Gbit/s that a rank receives while it sends as many (assumed: 400)");
  flags.add("tflops", tflops, "T", "10^12 operations a second of a rank's attention (assumed: 500)");
  flags.add("latency-us", latency_us, "L", "microseconds that an exchange takes whatever its size (assumed: 20)");
}

AttentionSize CostFlags::shape() const {
  const auto [heads_q, heads_kv] = parse_heads(heads, "heads");
  if (head_dim < 1 || head_dim > kMostHeadDim) {
    throw Error(ErrorCode::kUsage, "--head-dim " + std::to_string(head_dim) + ": from 1 to " +
                                       std::to_string(kMostHeadDim) + " is expected");
  }
  return {.heads_q = heads_q, .heads_kv = heads_kv, .head_dim = head_dim, .dtype = parse_dtype(dtype, "dtype")};
}

CostModel CostFlags::model(const Flags& flags) const {
  CostModel model;
  if (!calibration.empty()) model = cost_model_from_json(read_whole_file(calibration), calibration);
  const auto overrule = [&](const char* flag, double given, double unit, double* value) {
    if (!flags.given(flag)) return;
    if (!(given > 0 && given <= kMost)) {
      throw Error(ErrorCode::kUsage, "--" + std::string(flag) + ": a number above 0 is expected, at most 1e9");
    }
    *value = given * unit;
    model.source = "flags";
  };
  overrule("link-gbps", link_gbps, 1e9 / 8, &model.bytes_per_s);
  overrule("tflops", tflops, 1e12, &model.flops_per_s);
  overrule("tflops", tflops, 1e12, &model.backward_flops_per_s);
  overrule("latency-us", latency_us, 1e-6, &model.latency_s);
  return model;
}

}  // namespace attnmux::tool
