#include "conformance/worker.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

#include "attnmux/device.h"
#include "attnmux/error.h"
#include "attnmux/log.h"
#include "attnmux/plugin_loader.h"
#include "conformance/case.h"
#include "conformance/case_result.h"
#include "conformance/families.h"
#include "conformance/group_run.h"
#include "conformance/line_channel.h"
#include "conformance/memory_watch.h"
#include "conformance/subject.h"
#include "conformance/worker_process.h"

namespace attnmux::conformance {
namespace {

using nlohmann::json;

// The first pair of dtype and head_dim that a backend takes: what most cases use.
json usual_shape(const AttentionBackend& backend, const at::Device& device) {
  for (const int64_t d : {64, 128, 32, 96, 80, 256}) {
    for (const DType dt : {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64}) {
      const Setup setup(Case{.family = Family::kForward, .d = d, .dt = dt});
      if (backend.query(request_of(setup, device)).ok()) return {{"d", d}, {"dt", std::string(to_string(dt))}};
    }
  }
  return nullptr;
}

void describe(const LineChannel& channel, const PluginFile& file, const PluginRegistry& registry,
              const at::Device& device) {
  json backends = json::array();
  for (const BackendInfo& info : file.backends) {
    backends.push_back({{"id", info.id},
                        {"version", info.version},
                        {"description", info.description},
                        {"usual", usual_shape(*registry.at(info.id), device)}});
  }
  json groups = json::array();
  for (const CpGroupInfo& info : file.cp_groups) {
    groups.push_back({{"id", info.id}, {"version", file.version}, {"description", info.description}});
  }
  json abi = json::object();
  if (file.abi) {
    for (const AbiFieldText& field : abi_fields(*file.abi)) abi[field.field] = field.value;
  }
  channel.send({{"described",
                 {{"id", file.id},
                  {"version", file.version},
                  {"vendor", file.vendor},
                  {"abi", abi},
                  {"backends", backends},
                  {"groups", groups}}}});
}

class ConformanceTest : public ::testing::Test {
 public:
  ConformanceTest(const Subject& subject, const LineChannel& channel, size_t index, Case c)
      : subject_(subject), channel_(channel), index_(index), case_(std::move(c)) {}

  void TestBody() override {
    channel_.send({{"begin", index_}});
    CaseResult result;
    result.name = to_string(case_);
    const auto begin = std::chrono::steady_clock::now();
    try {
      run_case(subject_, case_, result);
    } catch (const std::exception& error) {  // a plugin's are caught where it is called
      result.suite_error(error.what());
    }
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    channel_.send({{"end", index_}, {"record", to_record(result)}});
    for (const Failure& failure : result.failures) ADD_FAILURE() << failure.check << ": " << failure.text;
    if (result.status == Status::kDeclined) GTEST_SKIP() << "declined";
  }

 private:
  const Subject& subject_;
  const LineChannel& channel_;
  size_t index_;
  Case case_;
};

void run_cases(const Subject& subject, const LineChannel& channel, const json& job) {
  int count = 1;
  char name[] = "attnmux-check";
  char* arguments[] = {name, nullptr};
  ::testing::InitGoogleTest(&count, arguments);
  size_t index = 0;
  for (const json& text : job.at("cases")) {
    const Case c = parse_case(text.get<std::string>());
    const std::string family(to_string(c.family)), test = to_string(c).substr(family.size() + 1);
    ::testing::RegisterTest(family.c_str(), test.c_str(), nullptr, nullptr, __FILE__, __LINE__,
                            [&subject, &channel, index, c]() -> ::testing::Test* {
                              return new ConformanceTest(subject, channel, index, c);
                            });
    ++index;
  }
  [[maybe_unused]] const int status = RUN_ALL_TESTS();  // records say more
}

// Cases of the group of ranks that is built in.
void run_on_threads(const LineChannel& channel, const json& job) {
  size_t index = 0;
  for (const json& text : job.at("cases")) {
    const CaseResult result = run_group_on_threads(parse_case(text.get<std::string>()));
    channel.send({{"end", index++}, {"record", to_record(result)}});
  }
}

}  // namespace

void run_worker() {
  const json job = json::parse(read_line(kWorkerDescriptor));
  const LineChannel channel(kWorkerDescriptor, job.at("secret"));
  set_log_level(LogLevel::kWarning);
  watch_memory();
  try {
    if (job.at("kind") == "threads") {
      run_on_threads(channel, job);
      channel.send({{"done", true}});
      ::_exit(0);
    }
    Subject subject;
    subject.device = open_device(job.at("device"));
    PluginRegistry registry;
    const PluginScan scan = scan_plugins({}, registry);
    const PluginFile& file = scan.files.at(0);
    if (file.error) throw Error(*file.error, file.text);
    if (job.at("kind") == "describe") {
      describe(channel, file, registry, subject.device);
    } else {
      subject.file = file.file;
      if (job.contains("group")) {
        subject.id = job.at("group");
        subject.group = registry.cp_group(subject.id);
      } else {
        subject.id = job.at("backend");
        subject.backend = registry.at(subject.id);
      }
      run_cases(subject, channel, job);
      subject.backend.reset();
      subject.group.reset();
    }
    registry = PluginRegistry();
    shutdown_plugins();
    channel.send({{"done", true}});
  } catch (const Error& error) {
    channel.send(
        {{"error", std::string(to_string(error.code()))}, {"exit", exit_status(error.code())}, {"text", error.what()}});
  } catch (const std::exception& error) {
    channel.send({{"error", "Internal"}, {"exit", 1}, {"text", error.what()}});
  }
  ::_exit(0);  // static objects of the plugin are nobody's concern any more
}

}  // namespace attnmux::conformance
