#include "tiny_run.h"

#include <nlohmann/json.hpp>

#include "attnmux/log.h"
#include "tests/common/tiny_model.h"

namespace attnmux::testing {

TinyRun::TinyRun() {
  set_log_level(LogLevel::kError);
  make_tiny_model(dir.file("model"));
  std::string lines;
  for (int i = 0; i < 12; ++i) {
    std::string text = "document " + std::to_string(i) + ":";
    for (int word = 0; word < 3 + 5 * (i % 4); ++word) text += " word" + std::to_string(i * word);
    lines += nlohmann::json{{"text", text}}.dump() + "\n";
  }
  dir.write("train.jsonl", lines);
  dir.write("heldout.jsonl", "{\"text\": \"document 99: word1 word2 word3\"}\n");
  dir.write("f.toml", R"([model]
path = "model"
attn_implementation = "magi"
[data]
kind = "jsonl"
path = ["train.jsonl"]
heldout = ["heldout.jsonl"]
seq_len = 48
[train]
steps = 8
lr = 1e-2
warmup_steps = 2
weight_decay = 0.01
seed = 3
save_every = 2
output = "run"
)");
}

}  // namespace attnmux::testing
