#include <ATen/ATen.h>

#include "attnmux/cost_model.h"
#include "attnmux/device.h"
#include "attnmux/distributed_attend.h"
#include "attnmux/error.h"
#include "attnmux/log.h"
#include "attnmux/mask_io.h"
#include "attnmux/plugin_loader.h"
#include "attnmux/spelling.h"
#include "models/io/atomic_file.h"
#include "models/io/safetensors.h"
#include "tools/attnmux/command.h"
#include "tools/attnmux/dispatch_flags.h"
#include "tools/attnmux/overlap_flags.h"

namespace attnmux::tool {
namespace {

at::Tensor read(const SafetensorsFile& file, const std::string& name, const at::Device& device) {
  if (!file.contains(name)) {
    throw Error(ErrorCode::kBadFile, file.path() + ": the tensor \"" + name + "\" is missing; " +
                                         unknown_word("tensor", name, file.names()));
  }
  at::Tensor tensor = file.tensor(name).to(device);
  const at::Tensor bad = tensor.is_floating_point() ? at::isfinite(tensor).logical_not() : at::Tensor();
  if (bad.defined() && bad.any().item<bool>()) {
    const int64_t first = bad.flatten().nonzero()[0].item<int64_t>();
    throw Error(ErrorCode::kBadFile, file.path() + ": tensor \"" + name + "\" holds " +
                                         std::to_string(bad.sum().item<int64_t>()) +
                                         " values that are NaN or infinite, the first at flat index " +
                                         std::to_string(first) + "; attention of such values means nothing");
  }
  return tensor;
}

}  // namespace

int run_attend(const Arguments& arguments) {
  std::string input, mask_text, backend_id, device_name = "cpu", output, calibration;
  double softmax_scale = 0;
  DispatchFlags dispatch_flags;
  OverlapFlags overlap;
  bool backward = false;
  Flags flags(
      {.name = "attend",
       .usage = "--input F --mask M --backend ID --output F [flags]",
       .about = "Runs one attention call on tensors of a safetensors file: q [tokens_q, heads_q, head_dim], k and v\n"
                "[tokens_k, heads_kv, head_dim] and, with --backward, dout [tokens_q, heads_q, head_dim].\n"
                "Writes out, lse [tokens_q, heads_q] (natural logarithm; fp32, fp64 for fp64 tensors) and, with\n"
                "--backward, dq, dk, dv. With --cp N ranks of this process share the sequence, and tensors come back\n"
                "in global order.",
       .examples = {
           "attnmux attend --input in.safetensors --mask varlen:100,200,300 --backend magi --output out.safetensors",
           "attnmux attend --input in.safetensors --mask tree:tree.json --backend magi --backward --output "
           "grads.safetensors",
           "attnmux attend --input in.safetensors --mask causal:4096 --backend magi --cp 4 --chunk-size 128 --output "
           "out.safetensors"}});
  flags.add("input", input, Need::kRequired, "FILE", "safetensors with q, k, v [and dout]");
  flags.add("mask", mask_text, Need::kRequired, "M", "the mask, as in `attnmux plan --help`");
  flags.add("backend", backend_id, Need::kRequired, "ID", "an id of `attnmux plugins`");
  flags.add("output", output, Need::kRequired, "FILE", "safetensors to write; replaced when complete");
  flags.add("device", device_name, Need::kOptional, "DEV", "cpu, cuda or cuda:N");
  flags.add("softmax-scale", softmax_scale, "S", "default: 1 / sqrt(head_dim)");
  flags.add("backward", backward, "also the gradients, from dout");
  dispatch_flags.add_to(flags);
  overlap.add_to(flags);
  flags.add("calibration", calibration, Need::kOptional, "FILE", "costs that \"auto\" stages are chosen by");
  if (!flags.parse(arguments)) return 0;
  const AttnMaskSpec mask = parse_mask(mask_text);
  const DispatchOptions dispatch = dispatch_flags.options(flags, mask.total_q());
  check_output_path(output);
  const at::Device device = open_device(device_name);
  PluginRegistry registry;
  load_plugins({}, registry);
  const auto backend = registry.at(backend_id);

  const SafetensorsFile file = SafetensorsFile::open(input);
  const RanksInput tensors{.q = read(file, "q", device),
                           .k = read(file, "k", device),
                           .v = read(file, "v", device),
                           .dout = backward ? read(file, "dout", device) : at::Tensor()};
  AttendOptions options;
  if (flags.given("softmax-scale")) options.softmax_scale = softmax_scale;
  const AttentionSize size{.heads_q = tensors.q.dim() > 1 ? tensors.q.size(1) : 1,
                           .heads_kv = tensors.k.dim() > 1 ? tensors.k.size(1) : 1,
                           .head_dim = tensors.q.size(-1)};
  const CostModel model =
      calibration.empty() ? CostModel() : cost_model_from_json(read_whole_file(calibration), calibration);
  const DistAttnPlan plan(mask, dispatch, choose_overlap(mask, dispatch, overlap.options(flags), model, size));
  RanksResult result;
  try {
    result = attend_on_ranks(backend, plan, tensors, options, {});
  } catch (const Error& error) {
    throw Error(error.code(), input + " with --mask " + mask_text + ": " + error.what());
  }
  std::vector<NamedTensor> answer{{"out", result.out}, {"lse", result.lse}};
  if (backward) answer.insert(answer.end(), {{"dq", result.dq}, {"dk", result.dk}, {"dv", result.dv}});
  write_safetensors(output, answer, {{"mask", mask_text}, {"backend", backend_id}});
  log_info("wrote " + output);
  return 0;
}

}  // namespace attnmux::tool
