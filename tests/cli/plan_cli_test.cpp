// `attnmux plan` over a group of ranks: the keys of its JSON are a contract, its pictures open offline.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>

#include "answer.h"
#include "run_program.h"

namespace attnmux {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using testing::answer;
using testing::Finished;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::run_program;

TEST(PlanGroup, PublishedCasesThroughTheProgram) {
  const json cases = json::parse(std::ifstream(ATTNMUX_SOURCE_DIR "/tests/golden/published_cases.json"))["dispatch"];
  ASSERT_EQ(cases.size(), 3u);
  for (const json& expected : cases) {
    const TempDir folder;
    testing::write(
        folder.file("mask.json"),
        json{{"total_q", expected["total"]}, {"total_k", expected["total"]}, {"slices", expected["slices"]}}.dump());
    const json plan = answer({"plan", "--mask", folder.file("mask.json"), "--cp", expected["cp"].dump(), "--chunk-size",
                              expected["chunk"].dump(), "--json"});
    EXPECT_EQ(plan["cp"], expected["cp"]);
    EXPECT_EQ(plan["chunk_size"], expected["chunk"]);
    EXPECT_EQ(plan["pad"], 0);
    EXPECT_EQ(plan["solver"], "min-heap");
    EXPECT_EQ(plan["chunk_areas"], expected.value("chunk_area", plan["chunk_areas"]));
    EXPECT_EQ(plan["redundant_tokens"], 0);
    int64_t moved = 0;
    for (size_t rank = 0; rank < expected["ranks"].size(); ++rank) {
      const json& found = plan["ranks"][rank];
      EXPECT_EQ(found["rank"], rank);
      EXPECT_EQ(found["chunks"], expected["ranks"][rank]) << expected["name"];
      EXPECT_EQ(found["remote_k"], expected["remote_k"][rank]) << expected["name"];
      moved += found["tokens_received"].get<int64_t>();
      if (!expected.contains("group_cast")) continue;
      for (const char* key : {"input_splits", "dst", "output_splits", "src"}) {
        EXPECT_EQ(found["group_cast"][key], expected["group_cast"][key][rank]) << key << " of rank " << rank;
      }
    }
    EXPECT_EQ(plan["tokens_moved"], moved);
  }
}

TEST(PlanGroup, AreasOfStagesAddUpToTheMask) {
  const json plan = answer({"plan", "--mask", "varlen:300,100,250", "--cp", "3", "--chunk-size", "32", "--stages", "2",
                            "--solver", "io-aware", "--json"});
  int64_t area = 0, tokens = 0;
  for (const json& rank : plan["ranks"]) {
    int64_t of_rank = rank["host_area"], received = 0;
    EXPECT_EQ(rank["stages"].size(), 2u);
    for (const json& stage : rank["stages"]) {
      of_rank += stage["area"].get<int64_t>();
      received += stage["tokens"].get<int64_t>();
    }
    EXPECT_EQ(rank["area"], of_rank);
    EXPECT_EQ(rank["tokens_received"], received);
    area += of_rank;
    tokens += rank["tokens"].get<int64_t>();
  }
  EXPECT_EQ(plan["mask"]["area"], area);
  EXPECT_EQ(tokens, 650);
  EXPECT_GE(plan["balance"].get<double>(), 1);
  EXPECT_GT(plan["predicted"]["speedup"].get<double>(), 0);
  EXPECT_LE(plan["predicted"]["efficiency"].get<double>(), 1);
  EXPECT_EQ(plan["predicted"]["cost"]["source"], "assumed");
  EXPECT_GT(plan["plan_ms"].get<double>(), 0);
}

TEST(PlanGroup, PaddingIsCounted) {
  const json plan = answer({"plan", "--mask", "causal:1789", "--cp", "2", "--chunk-size", "900", "--pad", "--json"});
  EXPECT_EQ(plan["pad"], 11);
  EXPECT_EQ(plan["ranks"][0]["tokens"], 900);
  EXPECT_EQ(plan["ranks"][1]["tokens"], 900);
}

TEST(PlanGroup, OneRankOwnsEverything) {
  const json plan = answer({"plan", "--mask", "causal:100", "--json"});
  EXPECT_EQ(plan["ranks"].size(), 1u);
  EXPECT_EQ(plan["ranks"][0]["tokens"], 100);
  EXPECT_EQ(plan["balance"], 1);
  EXPECT_EQ(plan["tokens_moved"], 0);
}

TEST(PlanGroup, OneRankOfManyIsListed) {
  const std::vector<std::string> command{"plan", "--mask", "causal:4096", "--cp", "16", "--chunk-size", "64", "--json"};
  std::vector<std::string> one = command;
  one.insert(one.end(), {"--rank", "5"});
  json all = answer(command), listed = answer(one);
  ASSERT_EQ(listed["ranks"].size(), 1u);
  EXPECT_EQ(listed["ranks"][0], all["ranks"][5]);
  for (json* plan : {&all, &listed}) {
    for (const char* key : {"ranks", "plan_ms", "tile_plan"}) plan->erase(key);  // two of them with times
  }
  EXPECT_EQ(listed, all);
  one.back() = "16";
  const Finished refused = run_program(one);
  EXPECT_EQ(refused.status, 2);
  EXPECT_THAT(refused.err, HasSubstr("0 to 15"));
}

TEST(PlanGroup, AShortMaskIsSharedEvenlyByDefault) {
  EXPECT_EQ(answer({"plan", "--mask", "causal:65", "--cp", "4", "--json"})["chunk_size"], 17);
  EXPECT_EQ(answer({"plan", "--mask", "causal:512", "--cp", "4", "--json"})["chunk_size"], 512);
  EXPECT_EQ(answer({"plan", "--mask", "causal:2", "--cp", "4", "--json"})["chunk_size"], 1);
}

TEST(PlanGroup, StagesFollowTheLink) {
  const std::vector<std::string> plan{"plan",         "--mask", "causal:16384", "--cp",     "8",
                                      "--chunk-size", "128",    "--json",       "--stages", "auto",
                                      "--tflops",     "100",    "--latency-us", "1",        "--link-gbps"};
  std::vector<std::string> fast = plan, slow = plan;
  fast.push_back("100000");
  slow.push_back("100");
  EXPECT_EQ(answer(fast)["stages"], 1);
  const json slower = answer(slow);
  EXPECT_GT(slower["stages"].get<int64_t>(), 1);
  EXPECT_GT(slower["backward_stages"].get<int64_t>(), 1);
  slow.insert(slow.end(), {"--backward-stages", "3"});
  const json given = answer(slow);
  EXPECT_EQ(given["stages"], slower["stages"]);
  EXPECT_EQ(given["backward_stages"], 3);
  EXPECT_EQ(given["keep_remote_keys"], false);
  EXPECT_EQ(given["ranks"][7]["backward_stages"].size(), 3u);
  slow.resize(slow.size() - 2);
  slow.emplace_back("--keep-remote-keys");
  const json kept = answer(slow);
  EXPECT_EQ(kept["keep_remote_keys"], true);
  EXPECT_LT(kept["predicted"]["step_ms"].get<double>(), slower["predicted"]["step_ms"].get<double>());
  EXPECT_EQ(slower["predicted"]["cost"]["source"], "flags");
  EXPECT_EQ(slower["predicted"]["cost"]["link_gbps"], 100);
}

TEST(PlanGroup, CalibrationIsRead) {
  const TempDir folder;
  testing::write(folder.file("c.json"),
                 R"({"flops_per_s": 2e12, "bytes_per_s": 1e9, "latency_s": 1e-4, "source": "two threads"})");
  const json cost = answer({"plan", "--mask", "causal:64", "--calibration", folder.file("c.json"), "--heads", "4:2",
                            "--head-dim", "32", "--dtype", "fp32", "--json"})["predicted"]["cost"];
  EXPECT_EQ(cost["source"], "two threads");
  EXPECT_EQ(cost["tflops"], 2);
  EXPECT_EQ(cost["link_gbps"], 8);
  EXPECT_EQ(cost["heads"], json::parse("[4, 2]"));
  EXPECT_EQ(cost["dtype"], "fp32");
  testing::write(folder.file("c.json"), "{");
  const Finished refused = run_program({"plan", "--mask", "causal:64", "--calibration", folder.file("c.json")});
  EXPECT_EQ(refused.status, 2);
  EXPECT_THAT(refused.err, AllOf(HasSubstr("c.json"), HasSubstr("not JSON")));
}

TEST(PlanGroup, WhatBenchCommMeasuresIsACalibration) {
  const TempDir folder;
  const json measured =
      answer({"bench", "comm", "--ranks", "3", "--mask", "causal:192", "--backend", "sdpa", "--heads", "2:1",
              "--head-dim", "16", "--reps", "3", "--suite", "1024", "--output", folder.file("c.json"), "--json"});
  ASSERT_EQ(measured["exchanges"].size(), 4u);
  for (const json& exchange : measured["exchanges"]) EXPECT_GT(exchange["ms"].get<double>(), 0);
  EXPECT_EQ(measured["exchanges"][3]["tokens"], 192);
  EXPECT_EQ(measured["exchanges"][3]["bytes"], 192 * 2 * 16 * 4);
  EXPECT_GT(measured["backward_ms"].get<double>(), 0);
  // Of four masks forward and backward, with 1, 2 and 4 stages or without any.
  ASSERT_GE(measured["predictions"].size(), 2u * (3 + 1 + 3 + 3));
  for (const json& row : measured["predictions"]) {
    EXPECT_EQ(row["cp"], 3);
    EXPECT_GT(row["predicted_ms"].get<double>(), 0) << row;
    EXPECT_GT(row["measured_ms"].get<double>(), 0) << row;
    EXPECT_NEAR(row["ratio"].get<double>() * row["measured_ms"].get<double>(), row["predicted_ms"].get<double>(), 1e-9);
  }
  const json cost =
      answer({"plan", "--mask", "causal:64", "--calibration", folder.file("c.json"), "--json"})["predicted"]["cost"];
  for (const char* key : {"tflops", "link_gbps", "latency_us"}) {
    EXPECT_GT(cost[key].get<double>(), 0);
    EXPECT_NEAR(cost[key].get<double>() / measured[key].get<double>(), 1, 1e-9);
  }
  EXPECT_THAT(cost["source"].get<std::string>(), HasSubstr("3 threads"));
}

TEST(PlanSimulation, RowsCompareThreeSchemes) {
  const json plan = answer({"plan", "--mask", "varlen:5000,100,3000,92", "--simulate", "--simulate-ranks", "8,16",
                            "--link-gbps", "400", "--tflops", "500", "--json"});
  const json& rows = plan["simulation"]["rows"];
  ASSERT_EQ(rows.size(), 6u);
  EXPECT_EQ(rows[0]["scheme"], "attnmux");
  EXPECT_EQ(rows[4]["scheme"], "ring");
  EXPECT_EQ(rows[4]["ranks"], 16);
  EXPECT_EQ(rows[5]["scheme"], "all-gather");
  for (const json& row : rows) {
    EXPECT_GT(row["step_ms"].get<double>(), 0);
    EXPECT_LE(row["efficiency"].get<double>(), 1 + 1e-9);
    EXPECT_NEAR(row["speedup"].get<double>(), row["efficiency"].get<double>() * row["ranks"].get<double>(), 1e-9);
  }
  EXPECT_LT(rows[0]["tokens_received"].get<int64_t>(), rows[1]["tokens_received"].get<int64_t>());
  EXPECT_FALSE(answer({"plan", "--mask", "causal:64", "--json"}).contains("simulation"));
}

// Tags that are opened are closed, in order: what an XML reader would insist on.
std::string first_tag_out_of_order(const std::string& text) {
  static const std::regex tag("<(/?)([a-zA-Z0-9]+)([^>]*)>");
  std::vector<std::string> open;
  for (std::sregex_iterator at(text.begin(), text.end(), tag), end; at != end; ++at) {
    const std::string name = (*at)[2], rest = (*at)[3];
    if (name == "meta" || rest.ends_with("/")) continue;
    if ((*at)[1].length() == 0) {
      open.push_back(name);
    } else if (open.empty() || open.back() != name) {
      return at->str();
    } else {
      open.pop_back();
    }
  }
  return open.empty() ? "" : "<" + open.back() + "> is left open";
}

TEST(PlanGroup, PicturesAreWholeAndNeedNoNetwork) {
  const TempDir folder;
  for (const std::string cp : {"3", "40"}) {
    const Finished finished = run_program({"plan", "--mask", "varlen:900,1200,300", "--cp", cp, "--chunk-size", "16",
                                           "--stages", "2", "--simulate", "--simulate-ranks", "2,4,8", "--svg",
                                           folder.file("p.svg"), "--html", folder.file("p.html")});
    ASSERT_EQ(finished.status, 0) << finished.err;
    EXPECT_THAT(finished.out, HasSubstr("balance"));
    EXPECT_THAT(finished.out, HasSubstr("all-gather"));
    const std::string svg = testing::contents(folder.file("p.svg"));
    for (const char* part : {"Attended pairs of each rank", "Predicted step", "rank 0", "mean"}) {
      EXPECT_THAT(svg, HasSubstr(part));
    }
    EXPECT_EQ(first_tag_out_of_order(svg), "");
    std::string html = testing::contents(folder.file("p.html"));
    EXPECT_EQ(first_tag_out_of_order(html.substr(html.find("<html"))), "");
    for (const char* part : {"<h2>Dispatch</h2>", "<h2>Ranks</h2>", "<h2>Simulation</h2>", "<h2>Slices</h2>"}) {
      EXPECT_THAT(html, HasSubstr(part));
    }
    html = std::regex_replace(html, std::regex("http://www.w3.org/2000/svg"), "");
    EXPECT_THAT(html, Not(HasSubstr("http")));
    EXPECT_THAT(html, Not(HasSubstr("src=")));
  }
}

TEST(PlanGroup, SuiteOfBenchmarkMasks) {
  const json rows = answer({"bench", "plan", "--suite", "8192", "--cp", "4", "--reps", "2", "--json"});
  ASSERT_EQ(rows.size(), 4u);
  for (const json& row : rows) {
    EXPECT_EQ(row["chunks"], 16);
    EXPECT_GT(row["plan_ms"].get<double>(), 0);
    EXPECT_GE(row["balance"].get<double>(), 1);
  }
  EXPECT_EQ(rows[1]["slices"], 23);
  EXPECT_EQ(rows[3]["slices"], 17);
}

}  // namespace
}  // namespace attnmux
