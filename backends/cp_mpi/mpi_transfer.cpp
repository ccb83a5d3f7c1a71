#include "cp_mpi/mpi_transfer.h"

#include <c10/core/ScalarType.h>

#include <algorithm>
#include <cstring>

#include "cp_mpi/mpi_check.h"

namespace attnmux {
namespace {

// MPI counts bytes in an int; longer tensors travel in several messages.
constexpr int64_t kLargestMessage = int64_t{64} << 20;

int64_t bytes_of(const Extent& extent) {
  return extent.elements * static_cast<int64_t>(c10::elementSize(extent.dtype));
}

template <class Function>  // with each part's offset and length in bytes
void for_each_message(const Extent& extent, const Function& function) {
  const int64_t bytes = bytes_of(extent);
  for (int64_t at = 0; at < bytes; at += kLargestMessage) {
    function(at, static_cast<int>(std::min(kLargestMessage, bytes - at)));
  }
}

bool all_done(std::vector<MPI_Request>& requests) {
  int done = 1;
  if (!requests.empty()) {
    check_mpi(MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE),
              "MPI_Testall");
  }
  return done != 0;
}

std::string name(int32_t rank) {
  int size = 0;
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &size), "MPI_Comm_size");
  return "rank " + std::to_string(rank) + " of " + std::to_string(size);
}

std::string my_name() {
  int rank = 0;
  check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &rank), "MPI_Comm_rank");
  return name(rank);
}

}  // namespace

MpiTransfer::MpiTransfer(int tag, const MpiCall& call, const std::vector<MpiPeer>& peers) : tag_(tag), call_(call) {
  for (const MpiPeer& peer : peers) {
    sides_.push_back(std::make_unique<Side>());
    sides_.back()->peer = peer;
    start(*sides_.back());
  }
}

void MpiTransfer::start(Side& side) {
  const MpiPeer& peer = side.peer;
  check_mpi(MPI_Irecv(&side.theirs, sizeof side.theirs, MPI_BYTE, peer.rank, tag_, MPI_COMM_WORLD, &side.header),
            "MPI_Irecv");
  for_each_message(peer.receives, [&](int64_t at, int count) {
    side.bytes_received.push_back(MPI_REQUEST_NULL);
    check_mpi(MPI_Irecv(static_cast<char*>(peer.receive) + at, count, MPI_BYTE, peer.rank, tag_ + 1, MPI_COMM_WORLD,
                        &side.bytes_received.back()),
              "MPI_Irecv");
  });
  std::memset(&side.mine, 0, sizeof side.mine);  // padding bytes, too
  std::strncpy(side.mine.call, call_.name.c_str(), sizeof side.mine.call - 1);
  side.mine.number = call_.number;
  side.mine.sends = peer.sends.elements;
  side.mine.receives = peer.receives.elements;
  side.mine.send_dtype = static_cast<int32_t>(peer.sends.dtype);
  side.mine.receive_dtype = static_cast<int32_t>(peer.receives.dtype);
  side.sent.push_back(MPI_REQUEST_NULL);
  check_mpi(MPI_Isend(&side.mine, sizeof side.mine, MPI_BYTE, peer.rank, tag_, MPI_COMM_WORLD, &side.sent.back()),
            "MPI_Isend");
  for_each_message(peer.sends, [&](int64_t at, int count) {
    side.sent.push_back(MPI_REQUEST_NULL);
    check_mpi(MPI_Isend(static_cast<const char*>(peer.send) + at, count, MPI_BYTE, peer.rank, tag_ + 1, MPI_COMM_WORLD,
                        &side.sent.back()),
              "MPI_Isend");
  });
}

bool MpiTransfer::advance() {
  bool done = true;
  for (const std::unique_ptr<Side>& side : sides_) done = (side->done || advance(*side)) && done;
  return done;
}

// Bytes are looked at after the header: MPI's complaint of a message that is too long says nothing of calls.
bool MpiTransfer::advance(Side& side) {
  if (!side.met) {
    int arrived = 0;
    check_mpi(MPI_Test(&side.header, &arrived, MPI_STATUS_IGNORE), "MPI_Test");
    if (!arrived) return false;
    check_header(side);
    side.met = true;
  }
  side.done = all_done(side.bytes_received) && all_done(side.sent);
  return side.done;
}

void MpiTransfer::check_header(const Side& side) const {
  const auto fail = [](const std::string& text) { throw Error(ErrorCode::kCommError, text); };
  const std::string label = call_.label();
  const std::string them = name(side.peer.rank);
  if (std::strncmp(side.theirs.call, side.mine.call, sizeof side.mine.call) != 0 ||
      side.theirs.number != call_.number) {
    fail(my_name() + " called " + label + " and " + them + " called " +
         MpiCall{side.theirs.call, side.theirs.number, call_.of_whom}.label());
  }
  const auto check = [&](const std::string& sender, const Extent& sent, const std::string& receiver,
                         const Extent& expected) {
    if (sent.agrees_with(expected)) return;
    fail("in " + label + " " + sender + " sends " + to_string(sent) + " to " + receiver + ", which expects " +
         to_string(expected));
  };
  check(them, {side.theirs.sends, static_cast<at::ScalarType>(side.theirs.send_dtype)}, my_name(), side.peer.receives);
  check(my_name(), side.peer.sends, them,
        {side.theirs.receives, static_cast<at::ScalarType>(side.theirs.receive_dtype)});
}

int32_t MpiTransfer::missing_rank() const {
  for (const std::unique_ptr<Side>& side : sides_) {
    if (!side->done) return side->peer.rank;
  }
  return -1;
}

bool MpiTransfer::header_is_missing(int32_t rank) const {
  return std::any_of(sides_.begin(), sides_.end(),
                     [&](const std::unique_ptr<Side>& side) { return side->peer.rank == rank && !side->met; });
}

bool MpiTransfer::bytes_are_moving() const {
  return std::any_of(sides_.begin(), sides_.end(),
                     [](const std::unique_ptr<Side>& side) { return side->met && !side->done; });
}

void MpiTransfer::cancel() {
  for (const std::unique_ptr<Side>& side : sides_) {
    side->bytes_received.push_back(side->header);
    for (MPI_Request& request : side->bytes_received) {
      if (request != MPI_REQUEST_NULL) MPI_Cancel(&request);  // best effort: the failure is known already
    }
  }
}

}  // namespace attnmux
