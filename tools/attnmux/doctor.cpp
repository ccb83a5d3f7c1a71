#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "attnmux/plugin_loader.h"
#include "attnmux/system_report.h"
#include "tools/attnmux/command.h"

namespace attnmux::tool {

using nlohmann::ordered_json;

namespace {

// What a GPU is asked for: the most common call of a training step.
AttentionRequest training_on(const Gpu& gpu) {
  return {.masks = {MaskFamily::kVarlenCausal},
          .dtype = DType::kBFloat16,
          .heads_q = 32,
          .heads_kv = 8,
          .head_dim = 128,
          .max_tokens = 8192,
          .device = DeviceKind::kCuda,
          .device_arch = gpu.arch,
          .training = true};
}

// {plugin id: architectures of its kernels}, of plugins that hold kernels for a GPU.
std::vector<std::pair<std::string, std::string>> gpu_kernels(const PluginScan& scan) {
  std::vector<std::pair<std::string, std::string>> kernels;
  for (const PluginFile& file : scan.files) {
    if (file.verdict == PluginVerdict::kLoaded && file.abi && file.abi->sm_list[0] != '\0') {
      kernels.emplace_back(file.id, file.abi->sm_list);
    }
  }
  return kernels;
}

std::string in_words(const Support& support) {
  std::string text;
  for (const Reason& reason : support.reasons) text += (text.empty() ? "refuses: " : " | ") + reason.to_string();
  return text.empty() ? "runs" : text;
}

void print_gpus(const PluginRegistry& registry, const PluginScan& scan) {
  const auto kernels = gpu_kernels(scan);
  std::cout << "\nKernels of this build for GPUs:";
  for (const auto& [id, sm_list] : kernels) std::cout << " " << id << " (sm_" << sm_list << ")";
  std::cout << (kernels.empty() ? " none; build with -DATTNMUX_CUDA=ON and nvcc 13.0 for the Hopper kernels (sm_90a)\n"
                                : "\n");
  const std::vector<Gpu> gpus = visible_gpus();
  for (size_t index = 0; index < gpus.size(); ++index) {
    std::cout << "cuda:" << index << ", " << gpus[index].name << ", sm_" << gpus[index].arch
              << ": training in bf16, causal documents, 32:8 heads of 128\n";
    for (const std::string& id : registry.backend_ids()) {
      std::cout << "           " << id << ": " << in_words(registry.at(id)->query(training_on(gpus[index]))) << "\n";
    }
  }
}

ordered_json gpus_to_json(const PluginRegistry& registry) {
  ordered_json document = ordered_json::array();
  for (const Gpu& gpu : visible_gpus()) {
    ordered_json backends = ordered_json::object();
    for (const std::string& id : registry.backend_ids()) {
      ordered_json refused = ordered_json::array();
      for (const Reason& reason : registry.at(id)->query(training_on(gpu)).reasons) {
        refused.push_back(reason.to_string());
      }
      backends[id] = {{"refused", refused}};
    }
    document.push_back({{"name", gpu.name}, {"arch", gpu.arch}, {"backends", backends}});
  }
  return document;
}

}  // namespace

int run_doctor(const Arguments& arguments) {
  bool json = false;
  Flags flags({.name = "doctor",
               .usage = "[--json]",
               .about =
                   "Looks for LibTorch, CUDA, NCCL and MPI on this machine and says what each is needed for and what "
                   "to do\nwhere it is missing, which GPU kernels this build has, and what each backend answers on "
                   "each GPU.\nEnds with 0 also where something is missing: the CPU part is "
                   "complete by itself.",
               .examples = {"attnmux doctor"}});
  flags.add("json", json, "answer as one JSON document");
  if (!flags.parse(arguments)) return 0;

  const std::vector<Finding> findings = examine_system();
  PluginRegistry registry;
  const PluginScan scan = scan_plugins({}, registry);
  if (json) {
    ordered_json document{{"findings", ordered_json::array()}, {"backends", registry.backend_ids()}};
    for (const Finding& finding : findings) {
      document["findings"].push_back({{"name", finding.name},
                                      {"found", finding.found},
                                      {"version", finding.version},
                                      {"where", finding.where},
                                      {"purpose", finding.purpose},
                                      {"remedy", finding.found ? "" : finding.remedy}});
    }
    document["kernels"] = ordered_json::object();
    for (const auto& [id, sm_list] : gpu_kernels(scan)) document["kernels"][id] = sm_list;
    document["gpus"] = gpus_to_json(registry);
    print_json(document);
    return 0;
  }
  for (const Finding& finding : findings) {
    std::cout << (finding.found ? "found    " : "missing  ") << finding.name;
    if (finding.found) std::cout << ": " << finding.version;
    std::cout << "\n           needed for " << finding.purpose << "\n";
    if (!finding.where.empty()) std::cout << "           " << finding.where << "\n";
    if (!finding.found) std::cout << "           to do: " << finding.remedy << "\n";
  }
  std::cout << "\nAttention backends:";
  for (const std::string& id : registry.backend_ids()) std::cout << " " << id;
  std::cout << (registry.backend_ids().empty() ? " none; see `attnmux plugins`\n" : "\n");
  for (const PluginFile& file : scan.files) {
    if (file.verdict == PluginVerdict::kRefused)
      std::cout << "refused plugin: " << file.file << ": " << file.text << "\n";
  }
  print_gpus(registry, scan);
  return 0;
}

}  // namespace attnmux::tool
