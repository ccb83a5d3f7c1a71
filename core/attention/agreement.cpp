#include "attnmux/agreement.h"

#include <ATen/ATen.h>

#include <map>

#include "attnmux/error.h"

namespace attnmux {

void expect_agreement(CpGroup& group, const Hash128& mine, const std::string& what, const std::string& remedy) {
  if (group.size() == 1) return;
  const at::Tensor own = at::tensor({static_cast<int64_t>(mine.hi), static_cast<int64_t>(mine.lo)}, at::kLong);
  const at::Tensor all = at::empty({group.size(), 2}, at::kLong);
  group.all_gather(own, all)->wait();

  std::map<Hash128, std::string> ranks_by_hash;
  const int64_t* hashes = all.const_data_ptr<int64_t>();
  for (int64_t rank = 0; rank < group.size(); ++rank) {
    const Hash128 hash{static_cast<uint64_t>(hashes[2 * rank]), static_cast<uint64_t>(hashes[2 * rank + 1])};
    std::string& ranks = ranks_by_hash[hash];
    ranks += (ranks.empty() ? "" : ", ") + std::to_string(rank);
  }
  if (ranks_by_hash.size() == 1) return;
  std::string text = "the ranks do not agree on " + what + ": ";
  const char* separator = "";
  for (const auto& [hash, ranks] : ranks_by_hash) {
    text += separator + to_string(hash) + " on rank " + ranks;
    separator = "; ";
  }
  // The first rank to throw fails the group; it waits until all have the hashes, so that each can say what is wrong.
  try {
    group.barrier();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kCommError) throw;
  }
  throw Error(ErrorCode::kRankDisagreement, text + ". " + remedy);
}

}  // namespace attnmux
