// A folder that lives as long as a test and is removed with what it holds.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace attnmux {

class TempDir {
 public:
  TempDir() : path_((std::filesystem::temp_directory_path() / "attnmux-test-XXXXXX").string()) {
    if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("cannot make " + path_);
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

  // Writes bytes to a file of this folder and returns its path.
  std::string write(const std::string& name, const std::string& bytes) const {
    std::ofstream stream(file(name), std::ios::binary);
    stream << bytes;
    return file(name);
  }

  // Of the files and folders in it.
  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) result.push_back(entry.path().filename());
    return result;
  }
  size_t num_files() const { return names().size(); }

 private:
  std::string path_;
};

}  // namespace attnmux
