#include <algorithm>
#include <filesystem>

#include "attnmux/error.h"
#include "models/io/atomic_file.h"
#include "models/io/json_node.h"
#include "models/io/safetensors.h"

namespace attnmux {
namespace {

constexpr char kSingle[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";

// weight_map of an index: tensor name -> shard file name.
std::map<std::string, std::string> read_index(const std::string& path) {
  const JsonNode weight_map = JsonNode::parse(read_whole_file(path), path, ErrorCode::kBadFile).at("weight_map");
  std::map<std::string, std::string> shard_of;
  for (const auto& [name, shard] : weight_map.members()) {
    if (shard.text().empty() || shard.text().find('/') != std::string::npos) {
      shard.fail("the name of a file in the same folder is expected");
    }
    shard_of[name] = shard.text();
  }
  if (shard_of.empty()) weight_map.fail("it names no tensor");
  return shard_of;
}

std::string joined(const std::vector<std::string>& names) {
  constexpr size_t kShown = 8;
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kShown); ++i) text += (i ? ", " : "") + names[i];
  if (names.size() > kShown) text += " and " + std::to_string(names.size() - kShown) + " more";
  return text;
}

}  // namespace

SafetensorsFolder SafetensorsFolder::open(const std::string& dir) {
  namespace fs = std::filesystem;
  SafetensorsFolder folder;
  folder.dir_ = dir;
  // As in transformers, a single file wins over an index that may be left from an earlier save.
  if (fs::exists(dir + "/" + kSingle)) {
    folder.files_.push_back(SafetensorsFile::open(dir + "/" + kSingle));
    for (const std::string& name : folder.files_[0].names()) folder.file_index_[name] = 0;
    return folder;
  }
  const std::string index_path = dir + "/" + kIndex;
  if (!fs::exists(index_path)) {
    throw Error(ErrorCode::kBadFile, dir + ": holds neither " + kSingle + " nor " + kIndex +
                                         "; name a Hugging Face folder with safetensors weights");
  }

  std::map<std::string, size_t> opened;
  std::vector<std::string> absent_shards, absent_tensors;
  for (const auto& [name, shard] : read_index(index_path)) {
    auto found = opened.find(shard);
    if (found == opened.end()) {
      if (!fs::exists(dir + "/" + shard)) {
        if (std::find(absent_shards.begin(), absent_shards.end(), shard) == absent_shards.end()) {
          absent_shards.push_back(shard);
        }
        continue;
      }
      found = opened.emplace(shard, folder.files_.size()).first;
      folder.files_.push_back(SafetensorsFile::open(dir + "/" + shard));
    }
    if (!folder.files_[found->second].contains(name)) absent_tensors.push_back(name + " (" + shard + ")");
    folder.file_index_[name] = found->second;
  }
  if (!absent_shards.empty()) {
    throw Error(ErrorCode::kBadFile, index_path + ": names shards that are missing: " + joined(absent_shards));
  }
  if (!absent_tensors.empty()) {
    throw Error(ErrorCode::kBadFile,
                index_path + ": names tensors that their shards do not hold: " + joined(absent_tensors));
  }
  for (const SafetensorsFile& file : folder.files_) {
    for (const std::string& name : file.names()) {
      const auto found = folder.file_index_.find(name);
      if (found == folder.file_index_.end() || &folder.files_[found->second] != &file) {
        throw Error(ErrorCode::kBadFile,
                    file.path() + ": holds tensor \"" + name + "\", which " + index_path + " does not place there");
      }
    }
  }
  return folder;
}

std::vector<std::string> SafetensorsFolder::names() const {
  std::vector<std::string> names;
  for (const auto& [name, index] : file_index_) names.push_back(name);
  return names;
}

bool SafetensorsFolder::contains(const std::string& name) const { return file_index_.count(name) != 0; }

const SafetensorsFile& SafetensorsFolder::file_at(const std::string& name) const {
  const auto found = file_index_.find(name);
  if (found == file_index_.end()) throw Error(ErrorCode::kBadFile, dir_ + ": holds no tensor \"" + name + "\"");
  return files_[found->second];
}

SafetensorsInfo SafetensorsFolder::info(const std::string& name) const { return file_at(name).info(name); }
at::Tensor SafetensorsFolder::tensor(const std::string& name) const { return file_at(name).tensor(name); }
const std::string& SafetensorsFolder::file_of(const std::string& name) const { return file_at(name).path(); }

}  // namespace attnmux
