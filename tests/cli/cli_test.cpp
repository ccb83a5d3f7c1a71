// The program as a process: exit status, the one JSON document on stdout, error texts, nothing written on failure.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "answer.h"
#include "models/io/safetensors.h"
#include "run_program.h"
#include "tests/common/tiny_model.h"

namespace attnmux {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using testing::answer;
using ::testing::Contains;
using ::testing::ElementsAre;
using testing::Finished;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::run_program;
using ::testing::StartsWith;

struct Refused {
  const char* name;
  std::vector<std::string> arguments;
  int status;
  std::vector<std::string> expected;  // parts of the error text
};

class RefusedTest : public ::testing::TestWithParam<Refused> {};

TEST_P(RefusedTest, SaysWhatAndWritesNothing) {
  const TempDir folder;
  const Finished finished = run_program(GetParam().arguments, {.folder = folder.path()});
  EXPECT_EQ(finished.status, GetParam().status) << finished.err;
  EXPECT_EQ(finished.out, "");
  EXPECT_THAT(finished.err, StartsWith("error: "));
  for (const std::string& part : GetParam().expected) EXPECT_THAT(finished.err, HasSubstr(part));
  EXPECT_THAT(folder.names(), IsEmpty());
}

std::vector<std::string> plan_of(const std::string& mask) { return {"plan", "--mask", mask, "--svg", "s.svg"}; }

const Refused kRefused[] = {
    {"unknown_command", {"paln"}, 2, {"unknown command \"paln\"", "did you mean \"plan\"?", "attnmux --help"}},
    {"unknown_flag", {"plan", "--maks", "causal:4"}, 2, {"\"--maks\"", "did you mean \"--mask\"?", "plan --help"}},
    {"half_a_flag", {"plan", "--mas", "causal:4"}, 2, {"\"--mas\"", "did you mean \"--mask\"?"}},
    {"flag_twice", {"plan", "--mask", "causal:4", "--mask", "causal:5"}, 2, {"--mask", "more than once"}},
    {"required_flag_missing", {"plan", "--json"}, 2, {"--mask is missing and required"}},
    {"all_missing_flags_at_once",
     {"attend", "--mask", "causal:4"},
     2,
     {"--input, --backend, --output are missing and required"}},
    {"required_flag_empty", {"score", "--model", "", "--text", "a.txt"}, 2, {"--model is empty", "score --help"}},
    {"value_missing", {"plan", "--mask"}, 2, {"--mask", "missing"}},
    {"not_a_number", {"plan", "--mask", "causal:4", "--tile", "x"}, 2, {"--tile", "\"x\"", "whole number"}},
    {"stray_word",
     {"plan", "--tile", "64", "causal:4", "--json"},
     2,
     {"plan: \"causal:4\" belongs to no flag", "flags only"}},
    {"stray_words", {"explain", "a.toml", "b", "c"}, 2, {"explain: \"b\", \"c\" belong to no flag", "one F.toml"}},
    {"tile_no_power_of_two", {"plan", "--mask", "causal:4", "--tile", "100"}, 2, {"--tile 100", "power of two"}},
    {"plan_no_ranks", {"plan", "--mask", "causal:64", "--cp", "0"}, 2, {"--cp 0", "at least 1"}},
    {"plan_chunk_of_nothing",
     {"plan", "--mask", "causal:64", "--cp", "2", "--chunk-size", "0"},
     2,
     {"--chunk-size 0", "from 1 to the sequence's 64 queries"}},
    {"plan_chunk_too_long",
     {"plan", "--mask", "causal:64", "--cp", "4", "--chunk-size", "65"},
     2,
     {"--chunk-size 65", "64 queries", "at most 16"}},
    {"plan_chunk_too_long_for_one_rank",
     {"plan", "--mask", "causal:64", "--chunk-size", "65"},
     2,
     {"--chunk-size 65", "64 queries"}},
    {"plan_solver",
     {"plan", "--mask", "causal:64", "--solver", "minheap", "--html", "x.html"},
     2,
     {"\"minheap\"", "did you mean \"min-heap\"?"}},
    {"plan_exact_with_many_chunks",
     {"plan", "--mask", "causal:64", "--cp", "2", "--chunk-size", "1", "--solver", "exact"},
     2,
     {"64", "at most 16 chunks", "min-heap"}},
    {"plan_padding_cross_lengths",
     {"plan", "--mask", "causal:64x80", "--cp", "2", "--chunk-size", "8", "--pad"},
     2,
     {"64 and 80"}},
    {"plan_stages", {"plan", "--mask", "causal:64", "--stages", "atuo"}, 2, {"--stages \"atuo\"", "\"auto\""}},
    {"plan_no_stages",
     {"plan", "--mask", "causal:64", "--cp", "2", "--chunk-size", "8", "--stages", "0"},
     2,
     {"--stages 0", "at least 1"}},
    {"plan_too_many_stages",
     {"plan", "--mask", "causal:64", "--cp", "2", "--stages", "5000"},
     2,
     {"--stages 5000", "at most 1024"}},
    {"plan_too_many_ranks", {"plan", "--mask", "causal:64", "--cp", "65537"}, 2, {"--cp 65537", "at most 65536"}},
    {"plan_endless_rate", {"plan", "--mask", "causal:64", "--tflops", "inf"}, 2, {"--tflops", "at most 1e9"}},
    {"plan_svg_nowhere",
     {"plan", "--mask", "causal:64", "--svg", "/nowhere/at/all.svg"},
     2,
     {"/nowhere/at/all.svg", "/nowhere/at is no folder"}},
    {"plan_html_is_a_folder", {"plan", "--mask", "causal:64", "--html", "/tmp"}, 2, {"/tmp", "is a folder"}},
    {"plan_simulation_of_nothing",
     {"plan", "--mask", "full:0x8", "--simulate"},
     2,
     {"--simulate", "full:0x8", "no queries"}},
    {"plan_kept_keys_with_stages",
     {"plan", "--mask", "causal:64", "--cp", "2", "--chunk-size", "8", "--backward-stages", "2", "--keep-remote-keys"},
     2,
     {"--backward-stages", "--keep-remote-keys", "leave out one"}},
    {"plan_link", {"plan", "--mask", "causal:64", "--link-gbps", "0"}, 2, {"--link-gbps", "above 0"}},
    {"plan_heads", {"plan", "--mask", "causal:64", "--heads", "9:2"}, 2, {"--heads 9:2", "multiple"}},
    {"plan_calibration", {"plan", "--mask", "causal:64", "--calibration", "nowhere.json"}, 2, {"nowhere.json"}},
    {"plan_ranks_without_simulation",
     {"plan", "--mask", "causal:64", "--simulate-ranks", "8"},
     2,
     {"--simulate-ranks", "--simulate"}},
    {"plan_ranks_beyond_queries",
     {"plan", "--mask", "causal:64", "--simulate", "--simulate-ranks", "8,128"},
     2,
     {"128", "64 queries"}},
    {"plan_ranks_out_of_order",
     {"plan", "--mask", "causal:64", "--simulate", "--simulate-ranks", "8,4"},
     2,
     {"8,4", "ascending"}},
    {"bench_plan_mask_or_suite", {"bench", "plan", "--reps", "1"}, 2, {"--mask", "--suite"}},
    {"mask_name", plan_of("windw:8,left=1,right=0"), 2, {"windw", "window"}},
    {"mask_without_numbers", plan_of("causal:"), 2, {"causal"}},
    {"mask_negative", plan_of("causal:-4"), 2, {"-4"}},
    {"mask_file_missing", plan_of("nowhere.json"), 2, {"nowhere.json", "a form such as causal:4096"}},
    {"mask_tree_of_no_file", plan_of("tree:"), 2, {"\"tree:\"", "no file is named", "tree:FILE.json"}},
    {"window_key", plan_of("window:8,lefd=1,right=0"), 2, {"lefd", "left"}},
    {"bench_what", {"bench", "paln", "--mask", "causal:8"}, 2, {"\"paln\"", "did you mean \"plan\"?"}},
    {"bench_comm_alone", {"bench", "comm", "--ranks", "1"}, 2, {"--ranks 1", "at least 2"}},
    {"bench_comm_backend", {"bench", "comm", "--backend", "spda", "--output", "c.json"}, 2, {"spda", "\"sdpa\""}},
    {"bench_plan_reps", {"bench", "plan", "--mask", "causal:8", "--reps", "0"}, 2, {"--reps 0"}},
    {"bench_dtype", {"bench", "--mask", "causal:8", "--backends", "sdpa", "--dtype", "bf61"}, 2, {"bf61", "\"bf16\""}},
    {"bench_heads", {"bench", "--mask", "causal:8", "--backends", "sdpa", "--heads", "9:2"}, 2, {"9:2", "multiple"}},
    {"bench_device",
     {"bench", "--mask", "causal:8", "--backends", "sdpa", "--device", "cdua"},
     2,
     {"cdua", "\"cuda\""}},
    {"bench_backend", {"bench", "--mask", "causal:8", "--backends", "spda"}, 2, {"spda", "\"sdpa\""}},
    {"bench_empty_entry", {"bench", "--mask", "causal:8", "--backends", "sdpa,,flash"}, 2, {"empty entry"}},
    {"explain_file_missing", {"explain", "nowhere.toml"}, 2, {"nowhere.toml"}},
    {"explain_without_file", {"explain"}, 2, {"F.toml is missing"}},
};
INSTANTIATE_TEST_SUITE_P(Cases, RefusedTest, ::testing::ValuesIn(kRefused),
                         [](const auto& info) { return info.param.name; });

TEST(Help, IsPrintedOnStdoutForTheProgramAndEachCommand) {
  const Finished all = run_program({"--help"});
  EXPECT_EQ(all.status, 0);
  EXPECT_EQ(all.err, "");
  for (const char* command : {"plan", "attend", "bench", "plugins", "explain", "doctor"}) {
    EXPECT_THAT(all.out, HasSubstr(std::string("  ") + command));
    const Finished one = run_program({command, "--help"});
    EXPECT_EQ(one.status, 0) << command;
    EXPECT_THAT(one.out, AllOf(StartsWith(std::string("attnmux ") + command), HasSubstr("Example"),
                               HasSubstr(std::string("  attnmux ") + command)));
    EXPECT_EQ(one.err, "") << command;
  }
}

TEST(Help, WithoutACommandTheProgramSaysWhatThereIsAndFails) {
  const Finished finished = run_program({});
  EXPECT_EQ(finished.status, 2);
  EXPECT_EQ(finished.out, "");
  EXPECT_THAT(finished.err, HasSubstr("plan"));
}

TEST(Help, VersionIsOneLine) { EXPECT_EQ(run_program({"--version"}).out, "attnmux 0.1.0\n"); }

struct MaskArea {
  const char* mask;
  int64_t total_q, total_k, area;
};
class PlanTest : public ::testing::TestWithParam<MaskArea> {};

TEST_P(PlanTest, JsonTellsTotalsAndExactArea) {
  const json plan = answer({"plan", "--mask", GetParam().mask, "--json"});
  ASSERT_TRUE(plan.is_object());
  EXPECT_EQ(plan["mask"]["total_q"], GetParam().total_q);
  EXPECT_EQ(plan["mask"]["total_k"], GetParam().total_k);
  EXPECT_EQ(plan["mask"]["area"], GetParam().area);
  EXPECT_EQ(plan["cp"], 1);
  EXPECT_TRUE(plan["plan_ms"].is_number());
  const json& tiles = plan["tile_plan"];
  EXPECT_EQ(tiles["unmasked"].get<int64_t>() + tiles["partial"].get<int64_t>() + tiles["empty"].get<int64_t>(),
            tiles["tiles"][0].get<int64_t>() * tiles["tiles"][1].get<int64_t>());
}

INSTANTIATE_TEST_SUITE_P(
    Masks, PlanTest,
    ::testing::Values(MaskArea{"full:300", 300, 300, 90000}, MaskArea{"full:3x5", 3, 5, 15},
                      MaskArea{"causal:1000", 1000, 1000, 500500}, MaskArea{"causal:3x5", 3, 5, 12},
                      MaskArea{"varlen:2,3", 5, 5, 9}, MaskArea{"varlen-full:2,3", 5, 5, 13},
                      MaskArea{"window:4,left=1,right=0", 4, 4, 7}, MaskArea{"prefix-lm:2+1,1+1", 5, 5, 10},
                      MaskArea{"block-causal:2,2", 4, 4, 12}, MaskArea{"chunked:5,chunk=2", 5, 5, 7},
                      MaskArea{"bidirectional-spans:4,1-3", 4, 4, 11}));

TEST(Plan, ItsSlicesAreAMaskFileAgain) {
  const TempDir folder;
  const json first = answer({"plan", "--mask", "prefix-lm:100+300,50+20", "--json"});
  json mask;
  for (const char* key : {"total_q", "total_k", "slices"}) mask[key] = first["mask"][key];
  testing::write(folder.file("mask.json"), mask.dump());
  const json second = answer({"plan", "--mask", folder.file("mask.json"), "--json"});
  EXPECT_EQ(first["mask"]["hash"], second["mask"]["hash"]);
}

TEST(Plan, WritesPicturesThatNeedNoNetwork) {
  const TempDir folder;
  const Finished finished =
      run_program({"plan", "--mask", "varlen:100,50", "--svg", folder.file("m.svg"), "--html", folder.file("m.html")});
  EXPECT_EQ(finished.status, 0) << finished.err;
  EXPECT_THAT(testing::contents(folder.file("m.svg")), HasSubstr("<svg"));
  const std::string html = testing::contents(folder.file("m.html"));
  EXPECT_THAT(html, AllOf(HasSubstr("<svg"), HasSubstr("varlen:100,50"), HasSubstr("</html>")));
  for (const char* remote : {"<script", "<link", "src=", "@import", "href=\"http"}) {
    EXPECT_EQ(html.find(remote), std::string::npos) << remote;
  }
  EXPECT_EQ(folder.names().size(), 2u);
}

TEST(Plan, BadMaskFilesAreNamedWithTheirKey) {
  const TempDir folder;
  const std::string file = folder.file("mask.json");
  for (const auto& [text, expected] :
       {std::pair{"{\"total_q\": 4", "JSON"}, std::pair{"{\"total_q\": 4, \"total_k\": 4}", "slices"},
        std::pair{R"({"total_q": 4, "total_k": 4, "slices": [{"q": [0, 9], "k": [0, 4], "type": "full"}]})", "slice"},
        std::pair{R"({"total_q": 4, "total_k": 4, "slices": [{"q": [3, 1], "k": [0, 4], "type": "full"}]})", "slice"},
        std::pair{R"({"total_q": 4, "total_k": 4, "slices": [{"q": [0, 4], "k": [0, 4], "type": "causl"}]})", "causal"},
        std::pair{R"({"total_q": 4, "total_k": 4, "slice": []})", "slices"}}) {
    testing::write(file, text);
    const Finished finished = run_program({"plan", "--mask", file, "--json"});
    EXPECT_EQ(finished.status, 2) << text;
    EXPECT_EQ(finished.out, "") << text;
    EXPECT_THAT(finished.err, AllOf(HasSubstr(expected), HasSubstr("mask.json"))) << text;
  }
}

TEST(Bench, PlanMeasuresEachMaskAndTile) {
  const json rows =
      answer({"bench", "plan", "--mask", "causal:1000;full:64", "--tile", "64,128", "--reps", "2", "--json"});
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows[1]["mask"], "causal:1000");
  EXPECT_EQ(rows[1]["tile"], 128);
  EXPECT_EQ(rows[1]["area"], 500500);
  EXPECT_GE(rows[1]["plan_ms"].get<double>(), 0);
}

TEST(Output, AFullStdoutIsAFailure) {
  const Finished finished = run_program({"plan", "--mask", "causal:8", "--json"}, {.stdout_file = "/dev/full"});
  EXPECT_EQ(finished.status, 1);
  EXPECT_THAT(finished.err, HasSubstr("stdout"));
}

TEST(Output, AFolderThatIsNotThereIsNamed) {
  const TempDir folder;
  const Finished finished = run_program({"plan", "--mask", "causal:8", "--svg", folder.file("no/such/m.svg")});
  EXPECT_EQ(finished.status, 2);
  EXPECT_EQ(finished.out, "");
  EXPECT_THAT(finished.err, AllOf(HasSubstr("no/such/m.svg"), HasSubstr("is no folder")));
}

TEST(Output, ADeviceIsWrittenToAndStaysADevice) {
  const Finished finished = run_program({"plan", "--mask", "causal:8", "--svg", "/dev/full"});
  EXPECT_EQ(finished.status, 1);
  EXPECT_THAT(finished.err, AllOf(HasSubstr("/dev/full"), HasSubstr("No space left on device")));
  struct stat status {};
  ASSERT_EQ(::stat("/dev/full", &status), 0);
  EXPECT_TRUE(S_ISCHR(status.st_mode));
}

TEST(Output, AFullDiskLeavesTheOldFile) {
  const TempDir folder;
  testing::write(folder.file("m.html"), "old");
  const Finished finished =
      run_program({"plan", "--mask", "varlen:100,50", "--html", folder.file("m.html")}, {.largest_file = 1024});
  EXPECT_EQ(finished.status, 1);
  EXPECT_THAT(finished.err, HasSubstr("m.html"));
  EXPECT_EQ(testing::contents(folder.file("m.html")), "old");
  EXPECT_THAT(folder.names(), ElementsAre("m.html"));
}

TEST(Plugins, JsonListsFoldersFilesAndBackends) {
  const json document = answer({"plugins", "--json"});
  EXPECT_FALSE(document["folders"].empty());
  bool found = false;
  for (const json& file : document["files"]) {
    if (!file["file"].get<std::string>().ends_with("/sdpa.so")) continue;
    found = true;
    EXPECT_EQ(file["verdict"], "loaded");
    EXPECT_EQ(file["backends"][0]["id"], "sdpa");
  }
  EXPECT_TRUE(found);
  EXPECT_THAT(document["backends"].get<std::vector<std::string>>(), Contains("reference"));
  EXPECT_TRUE(document["cp_groups"].is_array());
  for (const json& file : document["files"]) EXPECT_TRUE(file["cp_groups"].is_array()) << file;
}

TEST(Plugins, ANamedFileThatIsNoPluginIsStatusFour) {
  const TempDir folder;
  testing::write(folder.file("bad.so"), "not a library");
  const Finished finished =
      run_program({"plugins", "--json"}, {.environment = {{"ATTNMUX_PLUGIN_FILES", folder.file("bad.so")}}});
  EXPECT_EQ(finished.status, 4);
  const json document = json::parse(finished.out, nullptr, /*allow_exceptions=*/false);
  EXPECT_EQ(document["files"][0]["verdict"], "refused");
  EXPECT_EQ(document["files"][0]["error"], "NotElf");
  // A command that needs backends stops there, too.
  const Finished bench = run_program({"bench", "--mask", "causal:8", "--backends", "sdpa"},
                                     {.environment = {{"ATTNMUX_PLUGIN_FILES", folder.file("bad.so")}}});
  EXPECT_EQ(bench.status, 4);
  EXPECT_EQ(bench.out, "");
}

TEST(Score, AnswersOnOneLineAndFailsOnWeightsThatAreNoNumbers) {
  const TempDir folder;
  const std::string weights = folder.file("model/model.safetensors");
  testing::make_tiny_model(folder.file("model"));
  testing::write(folder.file("a.txt"), "hello");
  const std::vector<std::string> arguments{"score",
                                           "--model",
                                           folder.file("model"),
                                           "--text",
                                           folder.file("a.txt"),
                                           "--logits",
                                           folder.file("logits.safetensors"),
                                           "--json"};
  const Finished whole = run_program(arguments);
  EXPECT_EQ(whole.status, 0) << whole.err;
  EXPECT_EQ(std::count(whole.out.begin(), whole.out.end(), '\n'), 1) << whole.out;
  std::filesystem::remove(folder.file("logits.safetensors"));

  std::vector<NamedTensor> tensors;
  const SafetensorsFile file = SafetensorsFile::open(weights);
  for (const std::string& name : file.names()) tensors.push_back({name, file.tensor(name).clone()});
  for (const NamedTensor& named : tensors) {
    if (named.name == "model.norm.weight") named.tensor.fill_(std::nan(""));
  }
  write_safetensors(weights, tensors, {});
  const Finished broken = run_program(arguments);
  EXPECT_EQ(broken.status, 1);
  EXPECT_EQ(broken.out, "");
  EXPECT_THAT(broken.err, AllOf(HasSubstr("a.txt"), HasSubstr("its parameter model.norm.weight is not finite")));
  EXPECT_FALSE(std::filesystem::exists(folder.file("logits.safetensors")));
}

TEST(Doctor, NeverFailsForWhatIsMissing) {
  const json document = answer({"doctor", "--json"}, {.environment = {{"CUDA_VISIBLE_DEVICES", ""}}});
  bool found = false;
  for (const json& finding : document["findings"]) {
    if (finding["name"] == "LibTorch") found = finding["found"].get<bool>() && finding["version"] == "2.11.0";
    EXPECT_EQ(finding["remedy"].get<std::string>().empty(), finding["found"].get<bool>()) << finding["name"];
  }
  EXPECT_TRUE(found);
  EXPECT_EQ(document["gpus"], json::array());  // hidden
  EXPECT_EQ(run_program({"doctor"}).status, 0);
}

TEST(Doctor, SaysWhatTheKernelsOfThisBuildAndEachGpuRun) {
  const json document = answer({"doctor", "--json"});
  EXPECT_EQ(document["backends"], json({"flash", "magi", "reference", "sdpa"}));
  const json plugins = answer({"plugins", "--json"});
  json kernels = json::object();
  for (const json& file : plugins["files"]) {
    const std::string architectures = file["abi"]["sm_list"];
    if (!architectures.empty()) kernels[file["id"].get<std::string>()] = architectures;
  }
  EXPECT_EQ(document["kernels"], kernels);
  for (const json& gpu : document["gpus"]) {
    EXPECT_FALSE(gpu["name"].get<std::string>().empty());
    EXPECT_EQ(gpu["backends"]["reference"]["refused"], json::array());
    const bool hopper = gpu["arch"] == 90 && kernels.contains("magi");
    EXPECT_EQ(gpu["backends"]["magi"]["refused"].empty(), hopper);
  }
}

}  // namespace
}  // namespace attnmux
