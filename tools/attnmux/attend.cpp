#include "attnmux/attend.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "attnmux/device.h"
#include "attnmux/error.h"
#include "attnmux/log.h"
#include "attnmux/mask_io.h"
#include "attnmux/plugin_loader.h"
#include "attnmux/spelling.h"
#include "models/io/safetensors.h"
#include "tools/attnmux/command.h"

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
  std::string input, mask_text, backend_id, device_name = "cpu", output;
  double softmax_scale = 0;
  int64_t cp = 1;
  bool backward = false;
  Flags flags(
      {.name = "attend",
       .usage = "--input F --mask M --backend ID --output F [flags]",
       .about = "Runs one attention call on tensors of a safetensors file: q [tokens_q, heads_q, head_dim], k and v\n"
                "[tokens_k, heads_kv, head_dim] and, with --backward, dout [tokens_q, heads_q, head_dim].\n"
                "Writes out, lse [tokens_q, heads_q] (natural logarithm) and, with --backward, dq, dk, dv.",
       .examples = {
           "attnmux attend --input in.safetensors --mask varlen:100,200,300 --backend magi --output out.safetensors",
           "attnmux attend --input in.safetensors --mask tree:tree.json --backend magi --backward --output "
           "grads.safetensors"}});
  flags.add("input", input, Need::kRequired, "FILE", "safetensors with q, k, v [and dout]");
  flags.add("mask", mask_text, Need::kRequired, "M", "the mask, as in `attnmux plan --help`");
  flags.add("backend", backend_id, Need::kRequired, "ID", "an id of `attnmux plugins`");
  flags.add("output", output, Need::kRequired, "FILE", "safetensors to write; replaced when complete");
  flags.add("device", device_name, Need::kOptional, "DEV", "cpu, cuda or cuda:N");
  flags.add("softmax-scale", softmax_scale, "S", "default: 1 / sqrt(head_dim)");
  flags.add("backward", backward, "also the gradients, from dout");
  flags.add("cp", cp, "N", "ranks; this version runs on one");
  if (!flags.parse(arguments)) return 0;
  if (cp != 1) {
    throw Error(ErrorCode::kUsage, "attnmux attend --cp " + std::to_string(cp) +
                                       ": this version runs on one rank; sharding over a context-parallel group is not "
                                       "built yet. Leave --cp out");
  }
  const AttnMaskSpec mask = parse_mask(mask_text);
  const at::Device device = open_device(device_name);
  PluginRegistry registry;
  load_plugins({}, registry);
  const auto backend = registry.at(backend_id);

  const SafetensorsFile file = SafetensorsFile::open(input);
  at::Tensor q = read(file, "q", device), k = read(file, "k", device), v = read(file, "v", device);
  at::Tensor dout = backward ? read(file, "dout", device) : at::Tensor();
  AttendOptions options;
  if (flags.given("softmax-scale")) options.softmax_scale = softmax_scale;
  for (at::Tensor* tensor : {&q, &k, &v}) {
    if (backward && tensor->is_floating_point()) tensor->requires_grad_();
  }
  const c10::AutoGradMode grad_mode(backward);
  PreparedCache cache;
  const AttendResult result = attend(backend, mask, q, k, v, options, cache);
  std::vector<NamedTensor> tensors{{"out", result.out.detach()}, {"lse", result.lse}};
  if (backward) {
    if (dout.sizes() != result.out.sizes() || dout.scalar_type() != result.out.scalar_type()) {
      throw Error(ErrorCode::kBadFile, input + ": dout has shape " + c10::str(dout.sizes()) + " and dtype " +
                                           c10::toString(dout.scalar_type()) + ", out has " +
                                           c10::str(result.out.sizes()) + " and " +
                                           c10::toString(result.out.scalar_type()) + "; they must agree");
    }
    result.out.backward(dout);
    for (const auto& [name, tensor] : {std::pair{"dq", q}, std::pair{"dk", k}, std::pair{"dv", v}}) {
      tensors.push_back({name, tensor.grad()});
    }
  }
  write_safetensors(output, tensors, {{"mask", mask_text}, {"backend", backend_id}});
  log_info("wrote " + output);
  return 0;
}

}  // namespace attnmux::tool
