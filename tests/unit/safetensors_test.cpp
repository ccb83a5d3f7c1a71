#include "models/io/safetensors.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>

#include "attnmux/error.h"
#include "models/io/atomic_file.h"
#include "models/io/safetensors_header.h"
#include "tests/unit/expect_error.h"
#include "tests/common/temp_dir.h"

namespace attnmux {
namespace {

using ::testing::ElementsAre;

std::string little_endian(uint64_t value) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(value >> (8 * i));
  return bytes;
}

// A safetensors file of this header text with `data_size` bytes of data.
std::string file_bytes(const std::string& header, size_t data_size) {
  return little_endian(header.size()) + header + std::string(data_size, '\1');
}

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape, int begin, int end) {
  return "\"" + name + R"(":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":[)" +
         std::to_string(begin) + "," + std::to_string(end) + "]}";
}

// By append: g++ 12 warns falsely about `"{" + text`.
std::string braced(const std::string& entries) { return std::string(1, '{').append(entries).append(1, '}'); }

TEST(Safetensors, RoundTripOfEveryDType) {
  const TempDir dir;
  std::vector<NamedTensor> tensors;
  const at::ScalarType types[] = {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong,
                                  at::kInt,    at::kShort, at::kChar, at::kByte,     at::kBool};
  for (const at::ScalarType type : types) {
    tensors.push_back({std::string("t.") + at::toString(type), at::arange(6).remainder(2).reshape({2, 3}).to(type)});
  }
  tensors.push_back({"scalar", at::full({}, 2.5, at::kFloat)});
  tensors.push_back({"empty", at::empty({0, 4}, at::kFloat)});
  const at::Tensor base = at::arange(12, at::kFloat).reshape({3, 4});
  tensors.push_back({"transposed", base.t()});
  tensors.push_back({"sliced", base.slice(1, 1, 3)});
  write_safetensors(dir.file("a.safetensors"), tensors, {{"format", "pt"}, {"note", "caf\u00e9"}});

  const SafetensorsFile file = SafetensorsFile::open(dir.file("a.safetensors"));
  EXPECT_EQ(file.names().size(), tensors.size());
  EXPECT_EQ(file.metadata().at("note"), "caf\u00e9");
  for (const NamedTensor& named : tensors) {
    const at::Tensor read = file.tensor(named.name);
    EXPECT_EQ(read.scalar_type(), named.tensor.scalar_type()) << named.name;
    EXPECT_EQ(file.info(named.name).dtype, named.tensor.scalar_type()) << named.name;
    EXPECT_EQ(file.info(named.name).shape, named.tensor.sizes().vec()) << named.name;
    ASSERT_EQ(read.sizes(), named.tensor.sizes()) << named.name;
    EXPECT_TRUE(at::equal(read, named.tensor)) << named.name;
    EXPECT_TRUE(read.is_contiguous());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(read.const_data_ptr()) % read.element_size(), 0u) << named.name;
  }
}

TEST(Safetensors, ViewsKeepTheMappingAliveAndNeverChangeTheFile) {
  const TempDir dir;
  const std::string path = dir.file("a.safetensors");
  write_safetensors(path, {{"w", at::ones({1000}, at::kFloat)}}, {});
  const std::string before = read_whole_file(path);
  at::Tensor view = SafetensorsFile::open(path).tensor("w");
  std::filesystem::remove(path);
  EXPECT_EQ(view.sum().item<float>(), 1000.0f);
  write_safetensors(path, {{"w", at::ones({1000}, at::kFloat)}}, {});
  view = SafetensorsFile::open(path).tensor("w");
  view.mul_(3);
  EXPECT_EQ(view.sum().item<float>(), 3000.0f);
  EXPECT_EQ(read_whole_file(path), before);
}

TEST(Safetensors, MisalignedDataIsCopied) {
  const TempDir dir;
  const std::string header = braced(entry("w", "F32", "[1]", 0, 4));
  ASSERT_NE((8 + header.size()) % 4, 0u);
  const float value = 1.5f;
  const std::string bytes(reinterpret_cast<const char*>(&value), sizeof value);
  const std::string path = dir.write("a.safetensors", little_endian(header.size()) + header + bytes);
  const at::Tensor tensor = SafetensorsFile::open(path).tensor("w");
  EXPECT_EQ(tensor.item<float>(), 1.5f);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 4, 0u);
}

TEST(Safetensors, BytesDependOnContentsAlone) {
  const TempDir dir;
  const NamedTensor a{"a", at::ones({3}, at::kBFloat16)}, b{"b", at::zeros({2}, at::kFloat)};
  write_safetensors(dir.file("1"), {a, b}, {{"x", "1"}, {"y", "2"}});
  write_safetensors(dir.file("2"), {b, a}, {{"y", "2"}, {"x", "1"}});
  EXPECT_EQ(read_whole_file(dir.file("1")), read_whole_file(dir.file("2")));
}

TEST(Safetensors, WriterRefusesWhatTheFormatCannotHold) {
  const TempDir dir;
  const at::Tensor one = at::ones({1});
  const std::string path = dir.file("a");
  expect_error(ErrorCode::kInvalidArgument, {"\"w\"", "twice"}, [&] {
    write_safetensors(path, {{"w", one}, {"w", one}}, {});
  });
  expect_error(ErrorCode::kInvalidArgument, {"\"c\"", "Complex"}, [&] {
    write_safetensors(path, {{"c", one.to(at::kComplexFloat)}}, {});
  });
  expect_error(ErrorCode::kInvalidArgument, {"UTF-8"}, [&] { write_safetensors(path, {{"\xff", one}}, {}); });
  expect_error(ErrorCode::kInvalidArgument, {"reserved"}, [&] {
    write_safetensors(path, {{"__metadata__", one}}, {});
  });
  EXPECT_EQ(dir.num_files(), 0u);
}

// A limit on file size makes write() fail half-way, as a full disk does.
TEST(Safetensors, FullDiskLeavesTheOldFileAndNothingElse) {
  const TempDir dir;
  const std::string path = dir.file("model.safetensors");
  write_safetensors(path, {{"w", at::ones({16}, at::kFloat)}}, {});
  const std::string before = read_whole_file(path);

  rlimit old_limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{100'000, old_limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  expect_error(ErrorCode::kIo, {path, "File too large"}, [&] {
    write_safetensors(path, {{"w", at::zeros({1'000'000}, at::kFloat)}}, {});
  });
  ::setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);

  EXPECT_EQ(read_whole_file(path), before);
  EXPECT_EQ(dir.num_files(), 1u);
}

TEST(Safetensors, MissingFolderIsAnIoError) {
  expect_error(ErrorCode::kIo, {"/nonexistent/a.safetensors", "No such file"}, [] {
    write_safetensors("/nonexistent/a.safetensors", {{"w", at::ones({1})}}, {});
  });
}

struct BadFile {
  std::string name;
  std::string bytes;
  std::vector<std::string> message;
};

void PrintTo(const BadFile& file, std::ostream* stream) { *stream << file.name; }

std::vector<BadFile> bad_files() {
  const std::string good = braced(entry("w", "F32", "[2,2]", 0, 16));
  const auto two = [](int begin, int end) {
    return braced(entry("a", "F32", "[4]", 0, 16) + "," + entry("b", "U8", "[4]", begin, end));
  };
  const auto member = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"({"w":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
  };
  return {
      {"Empty", "", {"0 bytes"}},
      {"ShorterThanTheLength", "\x10\0\0", {"8 bytes of header length"}},
      {"HeaderLongerThanFile", little_endian(1000) + "{}", {"1000 bytes", "only 2", "fetch or write it again"}},
      {"HeaderOverTheCap", little_endian(100'000'001) + "{}", {"100000001", "at most 100000000"}},
      {"HeaderLengthOverflow", little_endian(~uint64_t{0}) + "{}", {"18446744073709551615"}},
      {"DataTruncated", file_bytes(good, 15), {"\"w\"", "byte 16", "only 15", "truncated: fetch or write it again"}},
      {"SurplusData", file_bytes(good, 17), {"byte 16", "17", "surplus", "damaged: fetch or write it again"}},
      {"HeaderNotJson",
       file_bytes("{\"w\":", 0),
       {"bad.safetensors: is not JSON: parse error at column 6", "fetch the file again"}},
      {"HeaderNotUtf8", file_bytes("{\"\xff\":1}", 0), {"not JSON"}},
      {"HeaderAnArray", file_bytes("[1]", 0), {"array", "object is expected"}},
      {"NameTwice",
       file_bytes(braced(entry("w", "U8", "[1]", 0, 1) + "," + entry("w", "U8", "[1]", 1, 2)), 2),
       {"\"w\" twice"}},
      {"Overlap",
       file_bytes(two(12, 16), 16),
       {"\"b\"", "byte 12", "\"a\"", "ends at 16", "overlap", "fetch or write it again"}},
      {"Gap", file_bytes(two(17, 21), 21), {"\"b\"", "byte 17", "ends at 16", "gap", "fetch or write it again"}},
      {"StartsLate", file_bytes(braced(entry("w", "U8", "[1]", 1, 2)), 2), {"\"w\"", "byte 1", "gap"}},
      {"OffsetsNotTheShape",
       file_bytes(braced(entry("w", "F32", "[2,2]", 0, 12)), 12),
       {"w.data_offsets", "F32", "[2, 2]", "need 16", "spans 12", "fetch or write it again"}},
      {"OffsetsInverted",
       file_bytes(braced(entry("w", "F32", "[0]", 4, 0)), 4),
       {"w.data_offsets", "[4, 0]", "inverted", "fetch or write it again"}},
      {"SizeOverflow",
       file_bytes(braced(entry("w", "F32", "[4294967296,4294967296]", 0, 0)), 0),
       {"w.shape", "[4294967296, 4294967296]", "overflows"}},
      {"UnknownDType",
       file_bytes(braced(entry("w", "F8_E4M3", "[1]", 0, 1)), 1),
       {"w.dtype", "F8_E4M3", "F64, F32, F16, BF16, I64, I32, I16, I8, U8, BOOL"}},
      {"DTypeANumber", file_bytes(member("3", "[1]", "[0,1]"), 1), {"w.dtype is 3", "text"}},
      {"ShapeAText", file_bytes(member("\"U8\"", "\"1\"", "[0,1]"), 1), {"w.shape is \"1\"", "array"}},
      {"NegativeExtent", file_bytes(member("\"U8\"", "[-1]", "[0,1]"), 1), {"w.shape[0] is -1"}},
      {"FractionalExtent", file_bytes(member("\"U8\"", "[1.5]", "[0,1]"), 1), {"w.shape[0] is 1.5", "integer"}},
      {"HugeOffset",
       file_bytes(member("\"U8\"", "[1]", "[0,9223372036854775808]"), 1),
       {"w.data_offsets[1] is 9223372036854775808"}},
      {"ThreeOffsets", file_bytes(member("\"U8\"", "[1]", "[0,1,1]"), 1), {"w.data_offsets", "two"}},
      {"NoShape", file_bytes(R"({"w":{"dtype":"U8","data_offsets":[0,1]}})", 1), {"w.shape is missing"}},
      {"UnknownKey",
       file_bytes(R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"strides":[1]}})", 1),
       {"w.strides"}},
      {"EntryANumber", file_bytes(R"({"w":7})", 0), {"w is 7", "object"}},
      {"MetadataANumber", file_bytes(R"({"__metadata__":{"a":1}})", 0), {"__metadata__.a is 1", "text"}},
      {"MetadataAnArray", file_bytes(R"({"__metadata__":[]})", 0), {"__metadata__ is an array"}},
  };
}

class SafetensorsBadFile : public ::testing::TestWithParam<BadFile> {};

TEST_P(SafetensorsBadFile, IsRefusedByName) {
  const TempDir dir;
  const std::string path = dir.write("bad.safetensors", GetParam().bytes);
  std::vector<std::string> message = GetParam().message;
  message.push_back(path);
  expect_error(ErrorCode::kBadFile, message, [&] { SafetensorsFile::open(path); });
}

INSTANTIATE_TEST_SUITE_P(All, SafetensorsBadFile, ::testing::ValuesIn(bad_files()),
                         [](const auto& info) { return info.param.name; });

TEST(Safetensors, MissingFileFolderAndTensorAreNamed) {
  const TempDir dir;
  expect_error(ErrorCode::kBadFile, {dir.file("no"), "No such file"}, [&] { SafetensorsFile::open(dir.file("no")); });
  expect_error(ErrorCode::kBadFile, {dir.path(), "regular file", "name a *.safetensors file"},
               [&] { SafetensorsFile::open(dir.path()); });
  write_safetensors(dir.file("a"), {{"w", at::ones({1})}}, {});
  expect_error(ErrorCode::kBadFile, {dir.file("a"), "\"x\""},
               [&] { SafetensorsFile::open(dir.file("a")).tensor("x"); });
  expect_error(ErrorCode::kBadFile, {dir.path(), "model.safetensors"}, [&] { SafetensorsFolder::open(dir.path()); });
}

class ShardedFolder : public ::testing::Test {
 protected:
  ShardedFolder() {
    write_safetensors(dir_.file("1.safetensors"), {{"a", at::ones({2})}}, {});
    write_safetensors(dir_.file("2.safetensors"), {{"b", at::zeros({3})}}, {});
  }
  void index(const std::string& weight_map) {
    dir_.write("model.safetensors.index.json", R"({"metadata": {"total_size": 20}, "weight_map": )" + weight_map + "}");
  }
  const TempDir dir_;
};

TEST_F(ShardedFolder, IsRead) {
  index(R"({"a": "1.safetensors", "b": "2.safetensors"})");
  const SafetensorsFolder folder = SafetensorsFolder::open(dir_.path());
  EXPECT_THAT(folder.names(), ElementsAre("a", "b"));
  EXPECT_EQ(folder.tensor("a").sum().item<float>(), 2.0f);
  EXPECT_EQ(folder.info("b").shape, std::vector<int64_t>{3});
  EXPECT_EQ(folder.file_of("b"), dir_.file("2.safetensors"));
  expect_error(ErrorCode::kBadFile, {dir_.path(), "\"c\""}, [&] { folder.tensor("c"); });
}

TEST_F(ShardedFolder, ASingleFileWinsOverAnIndex) {
  index(R"({"a": "1.safetensors", "b": "2.safetensors"})");
  write_safetensors(dir_.file("model.safetensors"), {{"c", at::ones({2})}}, {});
  EXPECT_THAT(SafetensorsFolder::open(dir_.path()).names(), ElementsAre("c"));
}

TEST_F(ShardedFolder, BadIndexIsRefused) {
  const auto refused = [&](const std::string& weight_map, const std::vector<std::string>& parts) {
    index(weight_map);
    expect_error(ErrorCode::kBadFile, parts, [&] { SafetensorsFolder::open(dir_.path()); });
  };
  refused(R"({"a": "1.safetensors", "b": "3.safetensors"})", {"index.json", "missing", "3.safetensors"});
  refused(R"({"a": "2.safetensors", "b": "2.safetensors"})", {"index.json", "a (2.safetensors)"});
  refused(R"({"a": "1.safetensors", "b": "../2.safetensors"})", {"weight_map.b", "../2.safetensors", "file"});
  refused(R"({"a": 1})", {"weight_map.a is 1"});
  refused("{}", {"weight_map", "names no tensor"});
  refused("[]", {"weight_map is an array"});
  refused("{", {"index.json: is not JSON: parse error at column"});
  write_safetensors(dir_.file("2.safetensors"), {{"b", at::ones({1})}, {"surplus", at::ones({1})}}, {});
  refused(R"({"a": "1.safetensors", "b": "2.safetensors"})", {"2.safetensors", "\"surplus\""});
}

}  // namespace
}  // namespace attnmux
