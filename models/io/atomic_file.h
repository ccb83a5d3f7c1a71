// Files that are either complete or not there.
//
//   AtomicFile file("run/config.toml");
//   file.write(text);
//   file.commit();          // fsync, rename, fsync of the folder
//
// Data goes to a temporary file in the same folder; without commit() the destructor removes it and the old file stays.
// A path that is a device or a pipe (/dev/stdout) is written directly: replacing it by a file would be a disaster.
// One thread at a time. Every failure of the system is an Error(kIo) that names the file and the system's reason.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace attnmux {

class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t size);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();

 private:
  std::string path_;
  std::string temporary_;  // empty: path_ is written directly
  int fd_ = -1;
};

// AtomicFile in one call.
void write_file_atomically(const std::string& path, std::string_view contents);

// Whether a file can be written there, before the work whose result it shall hold. Nothing for an empty path. Throws
// Error(kUsage) for a folder, a file in a folder that does not exist or may not be written to, naming both.
void check_output_path(const std::string& path);

// The whole file as bytes. Throws Error(kBadFile) naming the file and the system's reason.
std::string read_whole_file(const std::string& path);

}  // namespace attnmux
