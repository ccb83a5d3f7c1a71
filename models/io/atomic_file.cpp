#include "models/io/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <utility>

#include "attnmux/error.h"

namespace attnmux {
namespace {

[[noreturn]] void fail(const std::string& path, const std::string& what, int error) {
  throw Error(ErrorCode::kIo, path + ": " + what + ": " + std::strerror(error) +
                                  "; the file was left as it was. Check free space and permissions of its folder");
}

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// Exists and is neither a regular file nor a folder: a device, a pipe, a socket.
bool is_special(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode);
}

bool is_folder(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

}  // namespace

void check_output_path(const std::string& path) {
  if (path.empty() || is_special(path)) return;
  if (is_folder(path)) throw Error(ErrorCode::kUsage, path + ": is a folder; name a file in it to be written");
  const std::string folder = folder_of(path);
  if (!is_folder(folder)) {
    throw Error(ErrorCode::kUsage, path + ": cannot be written, " + folder + " is no folder; make it or name another");
  }
  if (::access(folder.c_str(), W_OK | X_OK) != 0) {
    throw Error(ErrorCode::kUsage,
                path + ": cannot be written to " + folder + ": " + std::strerror(errno) + "; name another folder");
  }
}

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  if (is_special(path_)) {
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd_ < 0) fail(path_, "cannot open it for writing", errno);
    return;
  }
  temporary_ = path_ + ".tmp-XXXXXX";
  fd_ = ::mkostemp(temporary_.data(), O_CLOEXEC);
  if (fd_ < 0) fail(path_, "cannot create a temporary file beside it", errno);
  // mkostemp makes the file private; what it replaces would have had the usual permissions.
  const mode_t mask = ::umask(0);
  ::umask(mask);
  ::fchmod(fd_, 0666 & ~mask);
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t size) {
  const char* bytes = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(fd_, bytes, size);
    if (written < 0) {
      if (errno == EINTR) continue;
      fail(path_, "cannot write " + std::to_string(size) + " more bytes", errno);
    }
    bytes += written;
    size -= static_cast<size_t>(written);
  }
}

void AtomicFile::commit() {
  if (temporary_.empty()) {
    if (::close(std::exchange(fd_, -1)) != 0) fail(path_, "cannot finish writing it", errno);
    return;
  }
  if (::fsync(fd_) != 0) fail(path_, "cannot sync", errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail(path_, "cannot rename the finished file to it", errno);
  ::close(fd_);
  fd_ = -1;
  // The rename itself is durable only once the folder is.
  const int folder = ::open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) fail(path_, "cannot open its folder to sync it", errno);
  const int status = ::fsync(folder);
  const int error = errno;
  ::close(folder);
  if (status != 0) fail(path_, "cannot sync its folder", error);
}

void write_file_atomically(const std::string& path, std::string_view contents) {
  AtomicFile file(path);
  file.write(contents);
  file.commit();
}

std::string read_whole_file(const std::string& path) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (is_folder(path)) throw Error(ErrorCode::kBadFile, path + ": is a folder; a file is expected");
  if (!file) {
    throw Error(ErrorCode::kBadFile, path + ": cannot open it for reading: " + std::strerror(errno));
  }
  std::string contents((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (file.bad()) throw Error(ErrorCode::kBadFile, path + ": cannot read it: " + std::strerror(errno));
  return contents;
}

}  // namespace attnmux
