#include <future>
#include <list>
#include <mutex>
#include <unordered_map>

#include "attnmux/attend.h"
#include "attnmux/error.h"

namespace attnmux {
namespace {

struct Key {
  std::shared_ptr<const AttentionBackend> backend;  // kept alive: an address must not be reused while it is a key
  Hash128 mask;
  AttentionShape shape;
  friend bool operator==(const Key&, const Key&) = default;
};

struct KeyHash {
  size_t operator()(const Key& key) const {
    Hasher hasher;
    hasher.add(reinterpret_cast<uintptr_t>(key.backend.get()));
    hasher.add(key.mask.hi);
    hasher.add(key.mask.lo);
    for (int64_t value : {key.shape.heads_q, key.shape.heads_kv, key.shape.head_dim, key.shape.head_dim_v}) {
      hasher.add(value);
    }
    hasher.add(key.shape.dtype);
    hasher.add(key.shape.device);
    hasher.add(key.shape.device_index);
    return hasher.finish().lo;
  }
};

using Future = std::shared_future<std::shared_ptr<const Prepared>>;

struct Entry {
  Key key;
  Future prepared;
};

}  // namespace

struct PreparedCache::State {
  size_t capacity;
  std::mutex mutex;
  std::list<Entry> entries;  // most recently used first
  std::unordered_map<Key, std::list<Entry>::iterator, KeyHash> index;
};

PreparedCache::PreparedCache(size_t capacity) : state_(std::make_unique<State>()) {
  if (capacity == 0) throw Error(ErrorCode::kInvalidArgument, "PreparedCache: capacity must be at least 1, got 0");
  state_->capacity = capacity;
}

PreparedCache::~PreparedCache() = default;

std::shared_ptr<const Prepared> PreparedCache::get(const std::shared_ptr<const AttentionBackend>& backend,
                                                   const AttnMaskSpec& mask, const AttentionShape& shape) {
  const Key key{backend, mask.hash(), shape};
  std::promise<std::shared_ptr<const Prepared>> promise;
  {
    std::unique_lock lock(state_->mutex);
    if (const auto found = state_->index.find(key); found != state_->index.end()) {
      state_->entries.splice(state_->entries.begin(), state_->entries, found->second);
      const Future prepared = found->second->prepared;
      lock.unlock();
      return prepared.get();  // waits where another thread is preparing it
    }
    state_->entries.push_front({key, promise.get_future().share()});
    state_->index.emplace(key, state_->entries.begin());
    if (state_->entries.size() > state_->capacity) {
      state_->index.erase(state_->entries.back().key);
      state_->entries.pop_back();
    }
  }
  // Outside the lock: other masks are prepared at the same time, and waiters of this one block on the future alone.
  try {
    std::shared_ptr<const Prepared> prepared = backend->prepare(mask, shape);
    if (!prepared) {
      throw Error(ErrorCode::kContractBroken, "backend \"" + backend->info().id + "\": prepare() returned nothing");
    }
    promise.set_value(prepared);
    return prepared;
  } catch (...) {
    promise.set_exception(std::current_exception());
    std::lock_guard lock(state_->mutex);
    if (const auto found = state_->index.find(key); found != state_->index.end()) {
      state_->entries.erase(found->second);
      state_->index.erase(found);
    }
    throw;
  }
}

}  // namespace attnmux
