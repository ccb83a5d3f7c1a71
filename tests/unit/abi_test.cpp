// The field table: what differs is named with both values, what may differ is not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "attnmux/abi_tag.h"

namespace attnmux {
namespace {

using testing::HasSubstr;

TEST(AbiTag, ThisTestMatchesTheCore) {
  constexpr AbiTag mine = make_abi_tag({});
  EXPECT_THAT(compare_abi(host_abi_tag(), mine), testing::IsEmpty());
  EXPECT_EQ(mine.tag_size, sizeof(AbiTag));
  EXPECT_STREQ(mine.torch_version, TORCH_VERSION);
  EXPECT_EQ(std::strlen(mine.interface_hash), 32u);
}

struct Change {
  const char* name;
  void (*apply)(AbiTag& plugin);
  std::vector<std::string> fields;  // that must be reported; none: loads
};

void PrintTo(const Change& change, std::ostream* out) { *out << change.name; }

class AbiChange : public testing::TestWithParam<Change> {};

TEST_P(AbiChange, IsReportedByField) {
  AbiTag plugin = host_abi_tag();
  GetParam().apply(plugin);
  std::vector<std::string> fields;
  for (const AbiMismatch& mismatch : compare_abi(host_abi_tag(), plugin)) {
    fields.push_back(mismatch.field);
    EXPECT_NE(mismatch.host, mismatch.plugin);
    EXPECT_FALSE(mismatch.consequence.empty());
    EXPECT_FALSE(mismatch.remedy.empty());
  }
  EXPECT_EQ(fields, GetParam().fields);
}

INSTANTIATE_TEST_SUITE_P(
    Cases, AbiChange,
    testing::Values(Change{"nothing", [](AbiTag&) {}, {}},
                    Change{"newer_major", [](AbiTag& t) { ++t.abi_major; }, {"abi_major"}},
                    Change{"older_major", [](AbiTag& t) { --t.abi_major; }, {"abi_major"}},
                    Change{"newer_minor", [](AbiTag& t) { ++t.abi_minor; }, {"abi_minor"}},
                    Change{"interface", [](AbiTag& t) { t.interface_hash[31] ^= 1; }, {"interface_hash"}},
                    Change{"torch", [](AbiTag& t) { std::strcpy(t.torch_version, "2.10.0"); }, {"torch_version"}},
                    Change{"cxx11", [](AbiTag& t) { t.cxx11_abi ^= 1; }, {"cxx11_abi"}},
                    Change{"gxx_11", [](AbiTag& t) { t.gxx_abi_version = 1016; }, {"gxx_abi_version"}},
                    Change{"gxx_unknown", [](AbiTag& t) { t.gxx_abi_version = 1099; }, {"gxx_abi_version"}},
                    Change{"debug_stl", [](AbiTag& t) { t.build_flags ^= kBuildDebugStl; }, {"build_flags"}},
                    Change{"asan", [](AbiTag& t) { t.build_flags ^= kBuildAddressSanitizer; }, {"build_flags"}},
                    Change{"cudart_12", [](AbiTag& t) { t.cudart_major = 12; }, {"cudart_major"}},
                    Change{"cudart_unused", [](AbiTag& t) { t.cudart_major = 0; }, {}},
                    Change{"nccl_3", [](AbiTag& t) { t.nccl_major = 3; }, {"nccl_major"}},
                    Change{"nccl_unused", [](AbiTag& t) { t.nccl_major = 0; }, {}},
                    Change{"other_compiler", [](AbiTag& t) { std::strcpy(t.compiler, "g++ 99"); }, {}},
                    Change{"other_sm", [](AbiTag& t) { std::strcpy(t.sm_list, "90a"); }, {}},
                    Change{"several",
                           [](AbiTag& t) {
                             ++t.abi_minor;
                             std::strcpy(t.torch_version, "2.10.0");
                             t.cudart_major = 12;
                           },
                           {"abi_minor", "torch_version", "cudart_major"}}),
    [](const auto& info) { return info.param.name; });

// Whichever of g++ 12 and 13 built this program: the other's plugins load.
TEST(AbiTag, CompilersWithOneLayoutAreOneFamily) {
  AbiTag debian = host_abi_tag();
  AbiTag ubuntu = host_abi_tag();
  debian.gxx_abi_version = 1017;
  ubuntu.gxx_abi_version = 1018;
  EXPECT_THAT(compare_abi(debian, ubuntu), testing::IsEmpty());
  EXPECT_THAT(compare_abi(ubuntu, debian), testing::IsEmpty());
}

TEST(AbiTag, AnOlderMinorLoads) {
  AbiTag host = host_abi_tag();
  host.abi_minor += 1;
  EXPECT_THAT(compare_abi(host, host_abi_tag()), testing::IsEmpty());
}

TEST(AbiTag, OneMessageHoldsAllMismatches) {
  AbiTag plugin = host_abi_tag();
  std::strcpy(plugin.torch_version, "2.10.0");
  plugin.cxx11_abi ^= 1;
  const std::string text = describe("acme.so", compare_abi(host_abi_tag(), plugin));
  EXPECT_THAT(text, testing::StartsWith("acme.so: "));
  EXPECT_THAT(text, HasSubstr("torch_version: this program " TORCH_VERSION ", the plugin 2.10.0"));
  EXPECT_THAT(text, HasSubstr("cxx11_abi: this program 1, the plugin 0"));
  EXPECT_THAT(text, HasSubstr("build the plugin against the LibTorch version of this program"));
}

TEST(AbiTag, EveryFieldIsShown) {
  std::vector<std::string> names;
  for (const AbiFieldText& field : abi_fields(host_abi_tag())) names.push_back(field.field);
  EXPECT_THAT(names, testing::ElementsAre("abi_major", "abi_minor", "interface_hash", "torch_version", "cxx11_abi",
                                          "gxx_abi_version", "build_flags", "cudart_major", "nccl_major", "compiler",
                                          "sm_list"));
}

}  // namespace
}  // namespace attnmux
