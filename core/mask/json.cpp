#include <locale>
#include <nlohmann/json.hpp>
#include <sstream>

#include "attnmux/error.h"
#include "attnmux/mask_io.h"
#include "attnmux/spelling.h"
#include "json_reader.h"

namespace attnmux {
namespace {

const std::vector<std::string> kTypeNames = {"full", "causal", "inv_causal", "bi_causal"};

Range read_range(const JsonReader& json) {
  if (json.size() != 2) {
    json.refuse("has " + std::to_string(json.size()) + " values; a range is [begin, end), two integers");
  }
  return {json.at(0).integer(), json.at(1).integer()};
}

MaskType read_type(const JsonReader& json) {
  const std::string name = json.string();
  for (size_t i = 0; i < kTypeNames.size(); ++i) {
    if (name == kTypeNames[i]) return static_cast<MaskType>(i);
  }
  json.refuse("is an " + unknown_word("mask type", name, kTypeNames));
}

// What a mask refuses came from the document.
template <class Make>
auto as_config(Make make) {
  try {
    return make();
  } catch (const Error& error) {
    throw Error(ErrorCode::kConfig, error.what());
  }
}

}  // namespace

AttnMaskSpec mask_from_json(std::string_view text) {
  const nlohmann::json document = parse_json(text);
  const JsonReader json(document, "");
  json.check_keys({"total_q", "total_k", "slices"});
  const int64_t total_q = json.at("total_q").integer();
  const int64_t total_k = json.at("total_k").integer();
  const JsonReader list = json.at("slices");
  std::vector<AttnSlice> slices;
  for (size_t i = 0; i < list.size(); ++i) {
    const JsonReader slice = list.at(i);
    slice.check_keys({"q", "k", "type"});
    slices.push_back(
        {.q = read_range(slice.at("q")), .k = read_range(slice.at("k")), .type = read_type(slice.at("type"))});
  }
  return as_config([&] { return AttnMaskSpec(std::move(slices), total_q, total_k); });
}

PrefixTree prefix_tree_from_json(std::string_view text) {
  const nlohmann::json document = parse_json(text);
  const JsonReader json(document, "");
  json.check_keys({"node_lengths", "sample_paths"});
  const std::vector<int64_t> lengths = json.at("node_lengths").integers();
  const JsonReader list = json.at("sample_paths");
  std::vector<std::vector<int64_t>> paths;
  for (size_t i = 0; i < list.size(); ++i) paths.push_back(list.at(i).integers());
  return as_config([&] { return prefix_tree(lengths, paths); });
}

std::string mask_to_json(const AttnMaskSpec& mask) {
  std::ostringstream json;
  json.imbue(std::locale::classic());
  json << "{\"total_q\": " << mask.total_q() << ", \"total_k\": " << mask.total_k() << ", \"slices\": [";
  const char* separator = "\n";
  for (const AttnSlice& slice : mask.slices()) {
    json << separator << "  {\"q\": [" << slice.q.begin << ", " << slice.q.end << "], \"k\": [" << slice.k.begin << ", "
         << slice.k.end << "], \"type\": \"" << kTypeNames[static_cast<size_t>(slice.type)] << "\"}";
    separator = ",\n";
  }
  json << (mask.slices().empty() ? "]}\n" : "\n]}\n");
  return json.str();
}

}  // namespace attnmux
