#include "models/io/safetensors.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "attnmux/error.h"
#include "models/io/atomic_file.h"
#include "models/io/safetensors_header.h"

namespace attnmux {
namespace {

[[noreturn]] void fail(const std::string& path, const std::string& what) {
  throw Error(ErrorCode::kBadFile, path + ": " + what);
}

// A whole file in memory, private: pages that are written to are copied, the file is never changed.
class Mapping {
 public:
  explicit Mapping(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) fail(path, std::string("cannot open it for reading: ") + std::strerror(errno));
    struct stat status {};
    if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
      ::close(fd);
      fail(path, "is not a regular file; name a *.safetensors file");
    }
    size_ = static_cast<size_t>(status.st_size);
    if (size_ > 0) data_ = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    const int error = errno;
    ::close(fd);
    if (data_ == MAP_FAILED) {
      throw Error(ErrorCode::kIo, path + ": cannot map " + std::to_string(size_) + " bytes: " + std::strerror(error));
    }
  }
  ~Mapping() {
    if (data_ != nullptr) ::munmap(data_, size_);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  char* data() const { return static_cast<char*>(data_); }
  size_t size() const { return size_; }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

constexpr std::array<std::pair<SafetensorsDType, at::ScalarType>, 10> kScalarTypes = {
    {{SafetensorsDType::kF64, at::kDouble},
     {SafetensorsDType::kF32, at::kFloat},
     {SafetensorsDType::kF16, at::kHalf},
     {SafetensorsDType::kBF16, at::kBFloat16},
     {SafetensorsDType::kI64, at::kLong},
     {SafetensorsDType::kI32, at::kInt},
     {SafetensorsDType::kI16, at::kShort},
     {SafetensorsDType::kI8, at::kChar},
     {SafetensorsDType::kU8, at::kByte},
     {SafetensorsDType::kBool, at::kBool}}};

at::ScalarType scalar_type(SafetensorsDType dtype) { return kScalarTypes[static_cast<size_t>(dtype)].second; }

SafetensorsDType dtype_of(const NamedTensor& named) {
  for (const auto& [dtype, scalar] : kScalarTypes) {
    if (scalar == named.tensor.scalar_type()) return dtype;
  }
  throw Error(ErrorCode::kInvalidArgument, "tensor \"" + named.name + "\" has dtype " +
                                               at::toString(named.tensor.scalar_type()) +
                                               ", which safetensors files cannot hold");
}

}  // namespace

struct SafetensorsFile::State {
  State(std::string file, std::shared_ptr<const Mapping> bytes) : path(std::move(file)), mapping(std::move(bytes)) {
    header = parse_safetensors_header({mapping->data(), mapping->size()}, mapping->size(), path);
    for (const SafetensorsEntry& entry : header.entries) by_name[entry.name] = &entry;
  }

  const SafetensorsEntry& at(const std::string& name) const {
    const auto found = by_name.find(name);
    if (found == by_name.end()) fail(path, "holds no tensor \"" + name + "\"");
    return *found->second;
  }

  std::string path;
  std::shared_ptr<const Mapping> mapping;
  SafetensorsHeader header;
  std::map<std::string, const SafetensorsEntry*> by_name;
};

SafetensorsFile::SafetensorsFile(std::shared_ptr<const State> state) : state_(std::move(state)) {}

SafetensorsFile SafetensorsFile::open(const std::string& path) {
  return SafetensorsFile(std::make_shared<const State>(path, std::make_shared<const Mapping>(path)));
}

const std::string& SafetensorsFile::path() const { return state_->path; }

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : state_->by_name) names.push_back(name);
  return names;
}

bool SafetensorsFile::contains(const std::string& name) const { return state_->by_name.count(name) != 0; }

SafetensorsInfo SafetensorsFile::info(const std::string& name) const {
  const SafetensorsEntry& entry = state_->at(name);
  return {scalar_type(entry.dtype), to_string(entry.dtype), entry.shape};
}

at::Tensor SafetensorsFile::tensor(const std::string& name) const {
  const SafetensorsEntry& entry = state_->at(name);
  const at::TensorOptions options = at::TensorOptions().dtype(scalar_type(entry.dtype));
  if (entry.begin == entry.end) return at::empty(entry.shape, options);
  char* data = state_->mapping->data() + state_->header.data_begin + entry.begin;
  if (reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(size_in_bytes(entry.dtype)) != 0) {
    // A header that is not padded to the element size: legal, but kernels want aligned elements.
    at::Tensor copy = at::empty(entry.shape, options);
    std::memcpy(copy.data_ptr(), data, entry.end - entry.begin);
    return copy;
  }
  return at::from_blob(
      data, entry.shape, [keep = state_->mapping](void*) {}, options);
}

const std::map<std::string, std::string>& SafetensorsFile::metadata() const { return state_->header.metadata; }

void write_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<const NamedTensor*> order;
  for (const NamedTensor& named : tensors) order.push_back(&named);
  // Largest elements first keeps every tensor aligned; names decide the rest, as in the reference implementation.
  std::sort(order.begin(), order.end(), [](const NamedTensor* a, const NamedTensor* b) {
    const auto size_a = a->tensor.element_size(), size_b = b->tensor.element_size();
    return size_a != size_b ? size_a > size_b : a->name < b->name;
  });
  std::vector<SafetensorsEntry> entries;
  for (const NamedTensor* named : order) {
    entries.push_back({.name = named->name, .dtype = dtype_of(*named), .shape = named->tensor.sizes().vec()});
  }
  AtomicFile file(path);
  file.write(format_safetensors_header(entries, metadata));
  for (const NamedTensor* named : order) {
    const at::Tensor data = named->tensor.detach().to(at::kCPU).contiguous();
    file.write(data.const_data_ptr(), data.nbytes());
  }
  file.commit();
}

}  // namespace attnmux
