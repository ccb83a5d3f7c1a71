// `attnmux attend` and `attnmux bench`: tensors in, tensors out, refusals.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "models/io/safetensors.h"
#include "run_program.h"

namespace attnmux {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::Finished;
using ::testing::HasSubstr;
using testing::run_program;
using ::testing::UnorderedElementsAre;

class AttendCli : public ::testing::Test {
 protected:
  void SetUp() override {
    at::manual_seed(3);
    q = at::randn({8, 4, 8});
    k = at::randn({8, 2, 8});
    v = at::randn({8, 2, 8});
    dout = at::randn({8, 4, 8});
    save();
  }

  void save() { write_safetensors(input, {{"q", q}, {"k", k}, {"v", v}, {"dout", dout}}, {}); }

  Finished attend(const std::string& mask, const std::string& backend, const std::vector<std::string>& more = {},
                  const testing::RunOptions& options = {}) {
    std::vector<std::string> arguments{"attend",    "--input", input,      "--mask", mask,
                                       "--backend", backend,   "--output", output};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_program(arguments, options);
  }

  // The command failed with `status`, said all of `parts`, and left only the input behind.
  void expect_refused(const Finished& finished, int status, const std::vector<std::string>& parts) {
    EXPECT_EQ(finished.status, status) << finished.err;
    EXPECT_EQ(finished.out, "");
    for (const std::string& part : parts) EXPECT_THAT(finished.err, HasSubstr(part));
    EXPECT_THAT(folder.names(), ElementsAre("in.safetensors"));
  }

  TempDir folder;
  std::string input = folder.file("in.safetensors"), output = folder.file("out.safetensors");
  at::Tensor q, k, v, dout;
};

TEST_F(AttendCli, ForwardAndBackwardEqualDenseAttention) {
  const Finished finished = attend("varlen:3,5", "sdpa", {"--backward", "--softmax-scale", "0.25"});
  ASSERT_EQ(finished.status, 0) << finished.err;
  EXPECT_EQ(finished.out, "");

  const at::Tensor row = at::arange(8), document = row.ge(3);
  const at::Tensor allowed = document.unsqueeze(1).eq(document.unsqueeze(0)).logical_and(row.unsqueeze(1).ge(row));
  const auto heads_first = [](const at::Tensor& x) {
    return x.to(at::kDouble).transpose(0, 1).repeat_interleave(4 / x.size(1), 0);
  };
  for (at::Tensor* x : {&q, &k, &v}) x->requires_grad_();
  const at::Tensor logits = (at::matmul(heads_first(q), heads_first(k).transpose(1, 2)) * 0.25)
                                .masked_fill(allowed.logical_not(), -std::numeric_limits<double>::infinity());
  const at::Tensor out = at::matmul(logits.softmax(-1), heads_first(v)).transpose(0, 1);
  out.backward(dout.to(at::kDouble));

  const SafetensorsFile file = SafetensorsFile::open(output);
  EXPECT_THAT(file.names(), UnorderedElementsAre("out", "lse", "dq", "dk", "dv"));
  const auto expect_close = [&](const char* name, const at::Tensor& want) {
    const at::Tensor got = file.tensor(name);
    ASSERT_EQ(got.sizes(), want.sizes()) << name;
    EXPECT_EQ(got.scalar_type(), at::kFloat) << name;
    EXPECT_LE((got.to(at::kDouble) - want.detach()).abs().max().item<double>(), 1e-5) << name;
  };
  expect_close("out", out);
  expect_close("lse", logits.logsumexp(-1).transpose(0, 1));
  expect_close("dq", q.grad());
  expect_close("dk", k.grad());
  expect_close("dv", v.grad());
}

TEST_F(AttendCli, WithoutBackwardThereAreNoGradients) {
  ASSERT_EQ(attend("causal:8", "reference").status, 0);
  EXPECT_THAT(SafetensorsFile::open(output).names(), ElementsAre("lse", "out"));
}

TEST_F(AttendCli, ManyRanksGiveTheTensorsOfOne) {
  k = at::randn({11, 2, 8});
  v = at::randn({11, 2, 8});
  save();
  const auto results = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments{"--backward"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Finished finished = attend("causal:8x11", "reference", arguments);
    EXPECT_EQ(finished.status, 0) << finished.err;
    std::vector<at::Tensor> tensors;
    for (const char* name : {"out", "lse", "dq", "dk", "dv"}) {
      tensors.push_back(SafetensorsFile::open(output).tensor(name).clone());
    }
    return tensors;
  };
  const std::vector<at::Tensor> one = results({});
  const std::vector<at::Tensor> three = results({"--cp", "3", "--chunk-size", "2", "--stages", "2"});
  for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::allclose(three[i], one[i], 1e-5, 1e-5)) << i;
  for (const std::vector<std::string>& more :
       {std::vector<std::string>{"--backward-stages", "3"}, {"--keep-remote-keys"}, {"--stages", "auto"}}) {
    std::vector<std::string> flags{"--cp", "3", "--chunk-size", "2"};
    flags.insert(flags.end(), more.begin(), more.end());
    const std::vector<at::Tensor> got = results(flags);
    for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::allclose(got[i], one[i], 1e-5, 1e-5)) << more[0] << i;
  }
  EXPECT_EQ(results({"--cp", "9", "--chunk-size", "8"}).size(), 5u);  // eight ranks without work take part
}

TEST_F(AttendCli, RanksThatCannotBeAreRefused) {
  expect_refused(attend("causal:8", "sdpa", {"--cp", "0"}), 2, {"--cp 0", "at least 1"});
  expect_refused(attend("causal:8", "sdpa", {"--cp", "300"}), 2, {"300 ranks", "at most 256"});
  expect_refused(attend("causal:8", "sdpa", {"--cp", "2", "--chunk-size", "0"}), 2, {"--chunk-size 0"});
  expect_refused(attend("causal:8", "sdpa", {"--cp", "2", "--chunk-size", "9"}), 2, {"--chunk-size 9", "8 queries"});
  expect_refused(attend("causal:8", "flash", {"--cp", "2", "--chunk-size", "2"}), 2, {"flash", "cp_size", "mask.type"});
}

TEST_F(AttendCli, RefusalsNameEveryReason) {
  expect_refused(attend("window:8,left=2,right=0", "flash"), 2, {"flash", "mask.type"});
}

TEST_F(AttendCli, AnUnknownBackendListsTheKnown) {
  expect_refused(attend("causal:8", "spda"), 2, {"\"spda\"", "\"sdpa\"", "reference"});
}

TEST_F(AttendCli, LengthsThatDoNotFitTheMaskAreNamed) {
  expect_refused(attend("causal:9", "sdpa"), 2, {"in.safetensors", "--mask causal:9", "q tokens = 8, expected 9"});
  expect_refused(attend("full:8x9", "sdpa"), 2, {"--mask full:8x9", "k tokens = 8, expected 9"});
}

TEST_F(AttendCli, NanInputIsNamedWithItsIndex) {
  k.flatten()[17] = std::nan("");
  save();
  expect_refused(attend("causal:8", "sdpa"), 2, {"in.safetensors", "\"k\"", "1 value", "flat index 17"});
}

TEST_F(AttendCli, BadFiles) {
  expect_refused(run_program({"attend", "--input", folder.file("none"), "--mask", "causal:8", "--backend", "sdpa",
                              "--output", output}),
                 2, {"none", "No such file"});
  write_safetensors(input, {{"q", q}, {"keys", k}, {"v", v}}, {});
  expect_refused(attend("causal:8", "sdpa"), 2, {"in.safetensors", "\"k\"", "keys"});
  write_safetensors(input, {{"q", q}, {"k", k}, {"v", v}}, {});
  expect_refused(attend("causal:8", "sdpa", {"--backward"}), 2, {"\"dout\"", "missing"});
  write_safetensors(input, {{"q", q}, {"k", k}, {"v", v}, {"dout", dout.slice(0, 0, 4)}}, {});
  expect_refused(attend("causal:8", "sdpa", {"--backward"}), 2, {"dout", "[4, 4, 8]", "[8, 4, 8]"});
  const std::string bytes = testing::contents(input);
  testing::write(input, bytes.substr(0, bytes.size() / 2));
  expect_refused(attend("causal:8", "sdpa"), 2, {"in.safetensors"});
}

TEST_F(AttendCli, WrongDtypeAndShape) {
  q = q.to(at::kLong);
  save();
  expect_refused(attend("causal:8", "sdpa"), 2, {"q has dtype Long"});
  q = at::randn({8, 3, 8});
  save();
  expect_refused(attend("causal:8", "sdpa"), 2, {"q has 3 heads", "multiple"});
}

TEST_F(AttendCli, AnOutputThatCannotBeIsFoundBeforeTheWork) {
  const Finished folder_named = run_program({"attend", "--input", folder.file("none"), "--mask", "causal:8",
                                             "--backend", "sdpa", "--output", folder.file("")});
  EXPECT_EQ(folder_named.status, 2);
  EXPECT_THAT(folder_named.err, ::testing::HasSubstr("is a folder"));
}

TEST_F(AttendCli, AFullDiskLeavesNothing) {
  expect_refused(attend("causal:8", "sdpa", {}, {.largest_file = 256}), 1, {"out.safetensors"});
}

TEST_F(AttendCli, AScaleThatIsNoNumberIsRefused) {
  expect_refused(attend("causal:8", "sdpa", {"--softmax-scale", "nan"}), 2, {"softmax_scale"});
}

TEST(BenchCli, RowsCarryTheContractsKeysAndRefusalsAreRows) {
  const Finished finished =
      run_program({"bench", "--mask", "causal:64;window:64,left=3,right=0", "--backends", "sdpa,flash", "--heads",
                   "4:2", "--head-dim", "16", "--dtype", "fp32", "--backward", "--reps", "2", "--json"});
  ASSERT_EQ(finished.status, 0) << finished.err;
  const json rows = json::parse(finished.out, nullptr, /*allow_exceptions=*/false);
  ASSERT_EQ(rows.size(), 8u);  // two masks, two backends, two passes
  for (const json& row : rows) {
    for (const char* key : {"mask", "area", "backend", "pass"}) EXPECT_TRUE(row.contains(key)) << row;
    if (row["backend"] == "flash" && row["mask"] != "causal:64") {
      EXPECT_EQ(row["refused"][0]["code"], "mask.type") << row;
      EXPECT_FALSE(row.contains("ms")) << row;
      continue;
    }
    EXPECT_GT(row["ms"].get<double>(), 0) << row;
    EXPECT_GT(row["tflops"].get<double>(), 0) << row;
    if (row["backend"] == "sdpa") {
      EXPECT_EQ(row["ratio_to_first"], 1.0) << row;
    }
  }
  EXPECT_EQ(rows[0]["area"], 64 * 65 / 2);
}

TEST(BenchCli, NothingExecutedIsStatusThree) {
  const Finished finished = run_program(
      {"bench", "--mask", "window:64,left=3,right=0", "--backends", "flash", "--dtype", "fp32", "--reps", "1"});
  EXPECT_EQ(finished.status, 3) << finished.err;
  EXPECT_THAT(finished.out, AllOf(HasSubstr("refused"), HasSubstr("mask.type")));
}

}  // namespace
}  // namespace attnmux
