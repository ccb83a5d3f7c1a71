// What a GroupCast does, token by token and without a transport: pieces queue up from sender to receiver.
#pragma once

#include <deque>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "attnmux/group_cast.h"

namespace attnmux {

// args, sent: per rank. Returns what each rank receives. Throws where the ranks disagree: a piece that nobody sent, or
// of another length, or that nobody took.
template <class Token>
std::vector<std::vector<Token>> deliver(const std::vector<GroupCastArgs>& args,
                                        const std::vector<std::vector<Token>>& sent) {
  const auto fail = [](size_t rank, const std::string& what) {
    throw std::runtime_error("rank " + std::to_string(rank) + ": " + what);
  };
  std::map<std::pair<int32_t, int32_t>, std::deque<std::vector<Token>>> pieces;  // by (sender, receiver)
  for (size_t rank = 0; rank < args.size(); ++rank) {
    if (args[rank].dst.size() != args[rank].input_splits.size()) fail(rank, "dst and input_splits differ in length");
    auto begin = sent[rank].begin();
    for (size_t i = 0; i < args[rank].input_splits.size(); ++i) {
      if (args[rank].input_splits[i] > sent[rank].end() - begin) fail(rank, "more is sent than there is");
      const std::vector<Token> piece(begin, begin + args[rank].input_splits[i]);
      for (const int32_t receiver : args[rank].dst[i]) pieces[{static_cast<int32_t>(rank), receiver}].push_back(piece);
      begin += args[rank].input_splits[i];
    }
    if (begin != sent[rank].end()) fail(rank, "input_splits leave tokens out");
  }
  std::vector<std::vector<Token>> received(args.size());
  for (size_t rank = 0; rank < args.size(); ++rank) {
    if (args[rank].src.size() != args[rank].output_splits.size()) fail(rank, "src and output_splits differ in length");
    for (size_t i = 0; i < args[rank].output_splits.size(); ++i) {
      auto& queue = pieces[{args[rank].src[i], static_cast<int32_t>(rank)}];
      if (queue.empty()) fail(rank, "nothing comes from rank " + std::to_string(args[rank].src[i]));
      if (std::ssize(queue.front()) != args[rank].output_splits[i]) fail(rank, "a piece has another length");
      received[rank].insert(received[rank].end(), queue.front().begin(), queue.front().end());
      queue.pop_front();
    }
  }
  for (const auto& [ranks, queue] : pieces) {
    if (!queue.empty()) fail(ranks.second, "a piece from rank " + std::to_string(ranks.first) + " is not taken");
  }
  return received;
}

}  // namespace attnmux
