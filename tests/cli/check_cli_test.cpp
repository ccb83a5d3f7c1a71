// `attnmux check` as a process: exit statuses, reports, one case alone, the template.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "run_program.h"

namespace attnmux {
namespace {

using nlohmann::json;
using testing::Finished;
using ::testing::HasSubstr;
using testing::run_program;

const std::string kReference = ATTNMUX_BUILD_DIR "/lib/attnmux/plugins/reference.so";
const std::string kFlash = ATTNMUX_BUILD_DIR "/lib/attnmux/plugins/flash.so";
constexpr char kCase[] = "fwd/mask=causal,sq=65,sk=65,hq=2,hk=2,d=64,dt=fp32,seed=7";

struct Refused {
  const char* name;
  std::vector<std::string> arguments;
  int status;
  const char* expected;
};
void PrintTo(const Refused& refused, std::ostream* out) { *out << refused.name; }
class CheckRefused : public ::testing::TestWithParam<Refused> {};

TEST_P(CheckRefused, SaysWhatAndWritesNothing) {
  const TempDir folder;
  testing::write(folder.file("text.so"), "not a plugin");
  std::vector<std::string> arguments = {"check"};
  arguments.insert(arguments.end(), GetParam().arguments.begin(), GetParam().arguments.end());
  const Finished finished = run_program(arguments, {.folder = folder.path()});
  EXPECT_EQ(finished.status, GetParam().status) << finished.out << finished.err;
  EXPECT_THAT(finished.err, HasSubstr(GetParam().expected));
  EXPECT_EQ(folder.names().size(), 1u);
}

const Refused kRefused[] = {
    {"no_plugin", {}, 2, "--plugin"},
    {"unknown_flag", {"--plugin", kReference, "--sed", "3"}, 2, "--seed"},
    {"unknown_profile", {"--plugin", kReference, "--profile", "trian"}, 2, "did you mean \"train\"?"},
    {"unknown_case", {"--plugin", kReference, "--case", "fwd/mask=cuasal"}, 2, "did you mean \"causal\"?"},
    {"unknown_family", {"--plugin", kReference, "--family", "fdw"}, 2, "family \"fdw\""},
    {"family_of_another_profile", {"--plugin", kReference, "--family", "bwd"}, 2, "not part of profile core"},
    {"unknown_backend",
     {"--plugin", kReference, "--backend", "refrence", "--json", "card.json"},
     2,
     "did you mean \"reference\"?"},
    {"unknown_group", {"--group", "thread", "--profile", "cp"}, 2, "did you mean \"threads\"?"},
    {"group_for_core", {"--group", "threads"}, 2, "pass --profile cp"},
    {"group_of_a_backend", {"--plugin", kReference, "--group", "reference"}, 2, "what it has is --backend reference"},
    {"family_of_groups",
     {"--plugin", kReference, "--profile", "cp", "--family", "group"},
     2,
     "family group asks nothing of backend reference"},
    {"case_of_groups", {"--plugin", kReference, "--case", "group/check=casts"}, 2, "asks nothing of backend reference"},
    {"case_of_backends",
     {"--group", "threads", "--profile", "cp", "--case", kCase},
     2,
     "asks nothing of group threads: it is for backends"},
    {"unknown_device", {"--plugin", kReference, "--device", "tpu"}, 2, "tpu"},
    {"negative_seed", {"--plugin", kReference, "--seed", "-1"}, 2, "--seed -1"},
    {"no_time", {"--plugin", kReference, "--timeout", "0"}, 2, "--timeout"},
    {"report_nowhere", {"--plugin", kReference, "--json", "nowhere/card.json"}, 2, "nowhere/card.json"},
    {"report_is_a_folder", {"--plugin", kReference, "--json", "."}, 2, "--json .: cannot be written"},
    {"xml_nowhere", {"--plugin", kReference, "--junit", "nowhere/card.xml"}, 2, "nowhere/card.xml"},
    {"missing_file", {"--plugin", "nowhere.so"}, 4, "nowhere.so"},
    {"no_library", {"--plugin", "text.so"}, 4, "text.so"},
    {"core_is_no_plugin", {"--plugin", ATTNMUX_BUILD_DIR "/lib/libattnmux_core.so"}, 4, "is not an attnmux plugin"},
    {"new_plugin_without_a_name", {"--new-plugin", "acme"}, 2, "--new-plugin DIR NAME"},
    {"new_plugin_with_a_bad_name", {"--new-plugin", "acme", "Acme Corp"}, 2, "lower-case"},
};
INSTANTIATE_TEST_SUITE_P(Cases, CheckRefused, ::testing::ValuesIn(kRefused),
                         [](const auto& info) { return info.param.name; });

TEST(Check, OneCaseAloneIsMarkedPartialInEveryReport) {
  const TempDir folder;
  const Finished finished = run_program({"check", "--plugin", kReference, "--case", kCase, "--json",
                                         folder.file("card.json"), "--junit", folder.file("card.xml")});
  ASSERT_EQ(finished.status, 0) << finished.err;
  EXPECT_THAT(finished.out, HasSubstr("partial: passed (1 cases"));
  const json card = json::parse(testing::contents(folder.file("card.json")));
  EXPECT_EQ(card["partial"], true);
  EXPECT_EQ(card["certified"], false);
  EXPECT_EQ(card["plugin"]["sha256"].get<std::string>().size(), 64u);
  EXPECT_EQ(card["backend"]["id"], "reference");
  ASSERT_EQ(card["cases"].size(), 1u);
  EXPECT_EQ(card["cases"][0]["case"], kCase);
  EXPECT_EQ(card["cases"][0]["status"], "PASS");
  EXPECT_THAT(testing::contents(folder.file("card.xml")),
              HasSubstr("<testsuite name=\"fwd\" tests=\"1\" failures=\"0\""));
}

TEST(Check, AGroupThatIsBuiltInNeedsNoPlugin) {
  const TempDir folder;
  const Finished finished =
      run_program({"check", "--group", "threads", "--profile", "cp", "--case", "group/check=casts,cp=2", "--case",
                   "faults/check=abort,cp=3", "--json", folder.file("card.json")});
  ASSERT_EQ(finished.status, 0) << finished.out << finished.err;
  EXPECT_THAT(finished.out, HasSubstr("group threads"));
  const json card = json::parse(testing::contents(folder.file("card.json")));
  EXPECT_EQ(card["group"]["id"], "threads");
  EXPECT_FALSE(card.contains("backend"));
  EXPECT_THAT(card["plugin"]["file"].get<std::string>(), HasSubstr("libattnmux_core.so"));
  EXPECT_EQ(card["cases"].size(), 2u);
}

// A case of distributed attention, again alone.
TEST(Check, ABackendOverRanks) {
  const Finished finished = run_program(
      {"check", "--plugin", kReference, "--case", "cp/mask=holes,sq=40,sk=30,hq=4,hk=2,d=16,cp=4,chunk=8,stages=2"});
  EXPECT_EQ(finished.status, 0) << finished.out << finished.err;
  EXPECT_THAT(finished.out, HasSubstr("partial: passed (1 cases"));
}

TEST(Check, AReportThatCannotBeWrittenToItsEndIsAFailure) {
  const Finished finished = run_program({"check", "--plugin", kReference, "--case", kCase, "--json", "/dev/full"});
  EXPECT_EQ(finished.status, 1) << finished.out;
  EXPECT_THAT(finished.err, HasSubstr("/dev/full: could not be written"));
}

TEST(Check, ADeclinedCaseIsNoPass) {
  const Finished finished = run_program({"check", "--plugin", kFlash, "--case", "fwd/mask=window:4:0,sq=16,sk=16"});
  EXPECT_EQ(finished.status, 3) << finished.out;
  EXPECT_THAT(finished.out, HasSubstr("mask.type x1"));
}

TEST(Check, AFullDiskIsAFailure) {
  const Finished finished =
      run_program({"check", "--plugin", kReference, "--case", kCase}, {.stdout_file = "/dev/full"});
  EXPECT_EQ(finished.status, 1);
  EXPECT_THAT(finished.err, HasSubstr("stdout"));
}

TEST(Check, TheTemplateIsWrittenUnderItsNameAndNeverOverwritten) {
  const TempDir folder;
  const std::vector<std::string> arguments = {"check", "--new-plugin", folder.file("acme"), "acme"};
  ASSERT_EQ(run_program(arguments).status, 0);
  const std::string source = testing::contents(folder.file("acme/acme.cpp"));
  EXPECT_THAT(source, HasSubstr("ATTNMUX_PLUGIN(\"acme\", \"1.0.0\""));
  EXPECT_THAT(source, HasSubstr("class AcmeBackend final"));
  EXPECT_EQ(source.find("inimal"), std::string::npos);
  EXPECT_THAT(testing::contents(folder.file("acme/CMakeLists.txt")), HasSubstr("attnmux_add_plugin(acme acme.cpp)"));
  testing::write(folder.file("acme/acme.cpp"), "mine");
  const Finished again = run_program(arguments);
  EXPECT_EQ(again.status, 2);
  EXPECT_EQ(testing::contents(folder.file("acme/acme.cpp")), "mine");
}

}  // namespace
}  // namespace attnmux
