#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <optional>

#include "attnmux/error.h"
#include "attnmux/mask_builders.h"
#include "attnmux/mask_io.h"
#include "attnmux/spelling.h"

namespace attnmux {
namespace {

[[noreturn]] void refuse(const std::string& text) { throw Error(ErrorCode::kUsage, text); }

std::string in_quotes(std::string_view text) {
  constexpr size_t kMostShown = 100;
  std::string quoted = "\"";
  quoted += text.substr(0, kMostShown);
  quoted += text.size() > kMostShown ? "...\"" : "\"";
  return quoted;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

int64_t integer(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::result_out_of_range) refuse(in_quotes(text) + " does not fit into 64 bits");
  if (error != std::errc() || end != text.data() + text.size()) refuse(in_quotes(text) + " is not an integer");
  return value;
}

std::vector<int64_t> integers(std::string_view text) {
  std::vector<int64_t> values;
  for (const std::string_view part : split(text, ',')) values.push_back(integer(part));
  return values;
}

// "A+B" with any separator.
std::pair<int64_t, int64_t> two_integers(std::string_view text, char separator) {
  const std::vector<std::string_view> parts = split(text, separator);
  if (parts.size() != 2) {
    refuse(in_quotes(text) + " is not two integers with " + in_quotes(std::string_view(&separator, 1)) +
           " between them");
  }
  return {integer(parts[0]), integer(parts[1])};
}

// "N" or "QxK".
std::pair<int64_t, int64_t> totals(std::string_view text) {
  if (text.find('x') != std::string_view::npos) return two_integers(text, 'x');
  const int64_t total = integer(text);
  return {total, total};
}

// "N,key=value,..." in any order of keys.
class Options {
 public:
  Options(std::string_view text, const std::vector<std::string>& keys) : values_(keys.size()), keys_(keys) {
    const std::vector<std::string_view> parts = split(text, ',');
    total_ = integer(parts[0]);
    for (size_t i = 1; i < parts.size(); ++i) {
      const size_t equals = parts[i].find('=');
      if (equals == std::string_view::npos) refuse(in_quotes(parts[i]) + " is not key=integer");
      const std::string_view key = parts[i].substr(0, equals);
      const size_t index = std::find(keys.begin(), keys.end(), key) - keys.begin();
      if (index == keys.size()) refuse(unknown_word("key", key, keys));
      if (values_[index]) refuse("key " + in_quotes(key) + " appears twice");
      values_[index] = integer(parts[i].substr(equals + 1));
    }
  }

  int64_t total() const { return total_; }
  int64_t at(size_t index) const {
    if (!values_[index]) refuse("key " + in_quotes(keys_[index]) + " is missing");
    return *values_[index];
  }
  int64_t at_or(size_t index, int64_t otherwise) const { return values_[index].value_or(otherwise); }

 private:
  int64_t total_ = 0;
  std::vector<std::optional<int64_t>> values_;
  const std::vector<std::string>& keys_;
};

std::string read_file(const std::string& path) {
  constexpr char kRemedy[] = "; a mask is a form such as causal:4096, or the path of a FILE.json";
  std::error_code ignored;  // a folder is told from other failures only to say so
  if (std::filesystem::is_directory(path, ignored)) {
    throw Error(ErrorCode::kBadFile, "mask file " + path + " is a folder, not a file" + kRemedy);
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw Error(ErrorCode::kBadFile, "cannot open the mask file " + path + ": " + std::strerror(errno) + kRemedy);
  }
  std::string content{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (file.bad()) throw Error(ErrorCode::kBadFile, "cannot read " + path + ": " + std::strerror(errno));
  return content;
}

// The mask of a JSON file; errors name the file.
template <class FromJson>
AttnMaskSpec from_file(const std::string& path, FromJson from_json) {
  const std::string text = read_file(path);
  try {
    return from_json(text);
  } catch (const Error& error) {
    throw Error(ErrorCode::kConfig, path + ": " + error.what());
  }
}

AttnMaskSpec window(std::string_view text) {
  static const std::vector<std::string> keys = {"left", "right", "sink"};
  const Options options(text, keys);
  return sliding_window_mask({options.total()},
                             {.left = options.at(0), .right = options.at(1), .sink_tokens = options.at_or(2, 0)});
}

AttnMaskSpec prefix_lm(std::string_view text) {
  std::vector<PrefixDocument> documents;
  for (const std::string_view part : split(text, ',')) {
    const auto [prefix, rest] = two_integers(part, '+');
    documents.push_back({.prefix = prefix, .rest = rest});
  }
  return prefix_lm_mask(documents);
}

AttnMaskSpec chunked(std::string_view text) {
  static const std::vector<std::string> keys = {"chunk"};
  const Options options(text, keys);
  return chunked_local_mask(options.total(), options.at(0));
}

AttnMaskSpec bidirectional_spans(std::string_view text) {
  const std::vector<std::string_view> parts = split(text, ',');
  std::vector<Range> spans;
  for (size_t i = 1; i < parts.size(); ++i) {
    const auto [begin, end] = two_integers(parts[i], '-');
    spans.push_back({begin, end});
  }
  return bidirectional_spans_mask(integer(parts[0]), spans);
}

struct Form {
  std::string name;
  std::string usage;
  std::function<AttnMaskSpec(std::string_view)> parse;
};

const std::vector<Form>& forms() {
  static const std::vector<Form> forms = {
      {"full", "full:N or full:QxK",
       [](std::string_view text) {
         const auto [total_q, total_k] = totals(text);
         return full_mask(total_q, total_k);
       }},
      {"causal", "causal:N or causal:QxK",
       [](std::string_view text) {
         const auto [total_q, total_k] = totals(text);
         return causal_mask(total_q, total_k);
       }},
      {"varlen", "varlen:100,200,300",
       [](std::string_view text) { return varlen_mask(integers(text), MaskType::kCausal); }},
      {"varlen-full", "varlen-full:100,200,300",
       [](std::string_view text) { return varlen_mask(integers(text), MaskType::kFull); }},
      {"window", "window:N,left=L,right=R[,sink=S] (-1: unbounded)", window},
      {"prefix-lm", "prefix-lm:100+300,50+20", prefix_lm},
      {"block-causal", "block-causal:100,200,300",
       [](std::string_view text) { return block_causal_mask(integers(text)); }},
      {"chunked", "chunked:N,chunk=C", chunked},
      {"tree", "tree:FILE.json",
       [](std::string_view path) {
         if (path.empty()) refuse("no file is named");
         return from_file(std::string(path), [](std::string_view json) { return prefix_tree_from_json(json).mask; });
       }},
      {"bidirectional-spans", "bidirectional-spans:N,A-B,C-D", bidirectional_spans},
  };
  return forms;
}

const Form* find_form(std::string_view name) {
  for (const Form& form : forms()) {
    if (form.name == name) return &form;
  }
  return nullptr;
}

}  // namespace

AttnMaskSpec parse_mask(std::string_view text) {
  const size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  const Form* form = find_form(name);
  if (form == nullptr || colon == std::string_view::npos) {
    if (text.ends_with(".json")) return from_file(std::string(text), mask_from_json);
    if (form != nullptr) refuse("mask " + in_quotes(text) + " has no size; write " + form->usage);
    std::vector<std::string> names;
    for (const Form& known : forms()) names.push_back(known.name);
    refuse(unknown_word("mask", name, names) + ", or a path that ends in .json");
  }
  try {
    return form->parse(text.substr(colon + 1));
  } catch (const Error& error) {
    // Files speak for themselves; what a builder refuses was typed here.
    if (error.code() != ErrorCode::kUsage && error.code() != ErrorCode::kInvalidArgument) throw;
    refuse("mask " + in_quotes(text) + ": " + error.what() + "; write " + form->usage);
  }
}

}  // namespace attnmux
