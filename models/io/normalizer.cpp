#include "models/io/normalizer.h"

#include "models/io/nfc.h"

namespace attnmux {

std::string replace_all(std::string_view text, const std::string& pattern, const std::string& content) {
  std::string replaced;
  size_t done = 0;
  for (size_t at; (at = text.find(pattern, done)) != std::string_view::npos; done = at + pattern.size()) {
    replaced.append(text.substr(done, at - done)).append(content);
  }
  return replaced.append(text.substr(done));
}

Normalizer Normalizer::from_json(const JsonNode& node) {
  Normalizer normalizer;
  normalizer.add(node);
  return normalizer;
}

void Normalizer::add(const JsonNode& node) {
  const JsonNode type = node.at("type");
  if (type.text() == "Sequence") {
    for (const JsonNode& member : node.at("normalizers").elements()) add(member);
  } else if (type.text() == "NFC") {
    steps_.push_back({Kind::kNfc, "", ""});
  } else if (type.text() == "Prepend") {
    steps_.push_back({Kind::kPrepend, "", node.at("prepend").text()});
  } else if (type.text() == "Replace") {
    const JsonNode pattern = node.at("pattern").at("String");
    if (pattern.text().empty()) pattern.fail("a text that is not empty is expected");
    steps_.push_back({Kind::kReplace, pattern.text(), node.at("content").text()});
  } else {
    type.fail("built are NFC, Prepend, Replace, a Sequence of them, and null");
  }
}

std::string Normalizer::apply(std::string_view text, bool starts) const {
  std::string normal(text);
  for (const Step& step : steps_) {
    switch (step.kind) {
      case Kind::kNfc: normal = to_nfc(normal); break;
      case Kind::kPrepend:
        if (starts && !normal.empty()) normal.insert(0, step.content);
        break;
      case Kind::kReplace: normal = replace_all(normal, step.pattern, step.content); break;
    }
  }
  return normal;
}

}  // namespace attnmux
