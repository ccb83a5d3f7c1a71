// One exchange with some ranks: a header each way, then the bytes. Made, advanced and destroyed by the thread that
// makes the MPI calls; it never blocks.
#pragma once

#include <mpi.h>

#include <memory>
#include <string>
#include <vector>

#include "attnmux/cp_transport.h"

namespace attnmux {

// What one rank exchanges with another. Tensors live until the transfer is done.
struct MpiPeer {
  int32_t rank = 0;  // in MPI_COMM_WORLD
  const void* send = nullptr;
  void* receive = nullptr;
  Extent sends, receives;
};

// A call of one rank, numbered within its group.
struct MpiCall {
  std::string name;  // what both must agree on: "all_reduce(sum, 24 Float)"
  int64_t number = 0;
  std::string of_whom;  // " of ranks 0, 2" for a subgroup
  std::string label() const { return name + " (call " + std::to_string(number) + of_whom + ")"; }
};

// What both sides of a pair tell each other first.
struct MpiHeader {
  char call[112];  // MpiCall::name, cut to this length
  int64_t number;
  int64_t sends, receives;  // elements
  int32_t send_dtype, receive_dtype;
};

class MpiTransfer {
 public:
  // `tag` and `tag + 1` are the group's own.
  MpiTransfer(int tag, const MpiCall& call, const std::vector<MpiPeer>& peers);

  // True when everything was sent and has arrived. Throws Error(kCommError) that names both sides, where their calls
  // differ or MPI fails.
  bool advance();

  // A rank whose part is missing, -1: none.
  int32_t missing_rank() const;
  bool header_is_missing(int32_t rank) const;
  bool bytes_are_moving() const;  // some rank has come, and not all of its bytes have

  // After a failure: nothing more is received, as far as MPI can still stop it. What is being sent goes on reading.
  void cancel();

 private:
  struct Side {
    MpiPeer peer;
    MpiHeader mine, theirs;
    MPI_Request header = MPI_REQUEST_NULL;    // of `theirs`
    std::vector<MPI_Request> bytes_received;  // a message at most kLargestMessage long each
    std::vector<MPI_Request> sent;            // header and bytes
    bool met = false;
    bool done = false;
  };

  void start(Side& side);
  bool advance(Side& side);
  void check_header(const Side& side) const;

  int tag_;
  MpiCall call_;
  std::vector<std::unique_ptr<Side>> sides_;  // MPI holds pointers into them
};

}  // namespace attnmux
