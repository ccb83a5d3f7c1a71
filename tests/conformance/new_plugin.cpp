#include "conformance/new_plugin.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>

#include "attnmux/error.h"
#include "conformance/embedded.h"

namespace attnmux::conformance {
namespace {

namespace fs = std::filesystem;

constexpr char kTemplateName[] = "minimal";

std::string with_capital(std::string text) {
  text.front() = static_cast<char>(std::toupper(static_cast<unsigned char>(text.front())));
  return text;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
  return text;
}

std::string named(const std::string& text, const std::string& name) {
  return replaced(replaced(text, with_capital(kTemplateName), with_capital(name)), kTemplateName, name);
}

// A file name, a CMake target, a C++ identifier and a backend id.
void require_name(const std::string& name) {
  const auto allowed = [](unsigned char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; };
  if (name.empty() || !(name.front() >= 'a' && name.front() <= 'z') ||
      !std::all_of(name.begin(), name.end(), allowed)) {
    throw Error(ErrorCode::kUsage, "--new-plugin: the name \"" + name +
                                       "\" must begin with a lower-case letter and be made of lower-case letters, "
                                       "digits and '_'");
  }
}

}  // namespace

std::vector<std::string> write_new_plugin(const std::string& folder, const std::string& name) {
  require_name(name);
  std::vector<std::pair<std::string, std::string>> files;
  for (const EmbeddedFile& file : embedded_template()) {
    const fs::path path = fs::path(folder) / named(file.name, name);
    if (fs::exists(path)) {
      throw Error(ErrorCode::kUsage, path.string() + " is there already; name another folder");
    }
    files.emplace_back(path.string(), named(file.text, name));
  }
  std::error_code error;
  fs::create_directories(folder, error);
  std::vector<std::string> written;
  for (const auto& [path, text] : files) {
    std::ofstream stream(path, std::ios::binary);
    stream << text << std::flush;
    written.push_back(path);
    if (stream) continue;
    for (const std::string& half : written) fs::remove(half, error);
    throw Error(ErrorCode::kIo, path + " cannot be written; name a folder that can");
  }
  return written;
}

}  // namespace attnmux::conformance
