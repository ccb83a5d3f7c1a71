#include "models/io/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "attnmux/error.h"

namespace attnmux {
namespace {

std::string message_of(int code) {
  PCRE2_UCHAR8 buffer[256] = {};
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

struct FreeMatchData {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};

}  // namespace

struct Regex::Code {
  std::string pattern;
  pcre2_code* compiled = nullptr;
  ~Code() { pcre2_code_free(compiled); }
};

Regex::Regex(const std::string& pattern, Kind kind) {
  auto code = std::make_shared<Code>();
  code->pattern = pattern;
  const uint32_t options = kind == Kind::kLiteral ? PCRE2_LITERAL | PCRE2_UTF : PCRE2_UTF | PCRE2_UCP;
  int error = 0;
  PCRE2_SIZE offset = 0;
  code->compiled = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options, &error, &offset,
                                 /*context=*/nullptr);
  if (code->compiled == nullptr) {
    throw Error(ErrorCode::kInvalidArgument,
                "pattern \"" + pattern + "\", at byte " + std::to_string(offset) + ": " + message_of(error));
  }
  // Without machine code (a hardened kernel, another architecture) the interpreter finds the same matches, slower.
  pcre2_jit_compile(code->compiled, PCRE2_JIT_COMPLETE);
  code_ = std::move(code);
}

std::optional<Regex::Match> Regex::find(std::string_view text, size_t from) const {
  // One block per thread: allocating it costs more than a match. It holds one pair of offsets and refers to no pattern.
  thread_local const std::unique_ptr<pcre2_match_data, FreeMatchData> data(pcre2_match_data_create(1, nullptr));
  const int status = pcre2_match(code_->compiled, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                                 PCRE2_NO_UTF_CHECK, data.get(), /*context=*/nullptr);
  if (status == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (status < 0) {
    throw Error(ErrorCode::kInvalidArgument, "pattern \"" + code_->pattern + "\" on a text of " +
                                                 std::to_string(text.size()) + " bytes, at byte " +
                                                 std::to_string(from) + ": " + message_of(status));
  }
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(data.get());
  return Match{offsets[0], offsets[1]};
}

bool Regex::matches_empty() const {
  uint32_t empty = 0;
  pcre2_pattern_info(code_->compiled, PCRE2_INFO_MATCHEMPTY, &empty);
  return empty != 0;
}

}  // namespace attnmux
