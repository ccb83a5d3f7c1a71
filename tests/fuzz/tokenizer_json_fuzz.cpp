// tokenizer.json: any bytes give an Error or a tokenizer whose ids it can decode.
#include <cstdlib>

#include "attnmux/error.h"
#include "models/io/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr char kText[] = "Hello  w\u00f6rld 123\r\n<s>  it's \xff\xe4\xbd a\u0301 \u4f60 --- ";
  try {
    const auto tokenizer = attnmux::Tokenizer::from_json({reinterpret_cast<const char*>(data), size}, "tokenizer.json");
    const auto ids = tokenizer.encode(kText, {.add_special_tokens = true});
    for (const int64_t id : ids) {
      if (id < 0 || id >= tokenizer.vocab_size()) std::abort();
    }
    tokenizer.decode(ids);
  } catch (const attnmux::Error&) {
  }
  return 0;
}
