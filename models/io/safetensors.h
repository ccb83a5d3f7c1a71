// Reading and writing safetensors: one file, or a Hugging Face folder of shards.
//
//   SafetensorsFolder folder = SafetensorsFolder::open("models/smollm2");
//   at::Tensor weight = folder.tensor("model.norm.weight");                  // a view of the mapped file
//   write_safetensors("out/model.safetensors", {{"model.norm.weight", weight}}, {{"format", "pt"}});
//
// Files are mapped, not read: tensors are views that keep their mapping alive, also after the file object is gone. The
// mapping is private: writing into a view changes memory of this process, never the file. A file must not be
// truncated while it is mapped; write_safetensors replaces files by rename, which is safe. Any thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace attnmux {

struct SafetensorsInfo {
  at::ScalarType dtype;
  std::string_view dtype_name;  // as files spell it: "F32"
  std::vector<int64_t> shape;
};

class SafetensorsFile {
 public:
  // Throws Error(kBadFile) for a file that is missing, truncated or malformed: see safetensors_header.h.
  static SafetensorsFile open(const std::string& path);

  const std::string& path() const;
  std::vector<std::string> names() const;  // sorted
  bool contains(const std::string& name) const;
  SafetensorsInfo info(const std::string& name) const;
  // On the CPU, contiguous. Throws Error(kBadFile) naming the file when there is no such tensor.
  at::Tensor tensor(const std::string& name) const;
  const std::map<std::string, std::string>& metadata() const;

 private:
  struct State;
  explicit SafetensorsFile(std::shared_ptr<const State> state);
  std::shared_ptr<const State> state_;
};

class SafetensorsFolder {
 public:
  // `dir` holds model.safetensors, or else model.safetensors.index.json with its shards. Throws Error(kBadFile) naming
  // the folder, the missing shard, or each tensor that the index places in a shard which does not hold it.
  static SafetensorsFolder open(const std::string& dir);

  const std::string& path() const { return dir_; }
  std::vector<std::string> names() const;  // sorted
  bool contains(const std::string& name) const;
  SafetensorsInfo info(const std::string& name) const;
  at::Tensor tensor(const std::string& name) const;
  const std::string& file_of(const std::string& name) const;  // for messages

 private:
  std::string dir_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, size_t> file_index_;
  const SafetensorsFile& file_at(const std::string& name) const;
};

struct NamedTensor {
  std::string name;
  at::Tensor tensor;  // any device, any strides
};

// Writes a temporary file in the same folder, syncs it and renames it over `path`: either the old file or the complete
// new one is there, also after a crash. The bytes depend on names, tensors and metadata alone. Throws Error(kIo) when
// the disk is full or refuses (nothing is left behind), Error(kInvalidArgument) for a repeated name or a dtype that the
// format lacks.
void write_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata);

}  // namespace attnmux
