// What the suite asks, one name for each comparison: reported with every failure, and switched off one by one by the
// mutation test, which shows that each is needed.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace attnmux::conformance {

enum class Check : uint8_t {
  // The file and the entry.
  kExports,     // exports nothing but its entry
  kNeeded,      // needs no library of Python
  kInfo,        // info() agrees with what was registered
  kInitTwice,   // init, shutdown, init
  kSideBySide,  // loads and runs beside another plugin
  // query().
  kQueryPure,      // the same answer to the same request
  kQueryThreads,   // from any thread
  kQueryReasons,   // every refusal says what was asked and what is taken
  kQueryAllGates,  // every gate is asked
  kQueryCarried,   // refuses what a call has no argument for: softcap, sink, dropout
  // A call.
  kRefusedAfterYes,  // query() took the request, the call threw
  kErrorType,        // what is thrown is an attnmux::Error
  kShape,            // shape, dtype and device of the results
  kFinite,           // no NaN, no infinity
  kBoundMax,         // largest error of a head and tile, against a plain implementation's
  kBoundFrobenius,   // root of the summed squares of a head and tile, likewise
  kCap,              // no error beyond an absolute limit, however bad the plain implementation is
  kEmptyOut,         // a query without keys: out is 0
  kEmptyLse,         // its lse is -inf
  kEmptyGrad,        // its dq is 0
  kLseMerge,         // halves of the keys, merged by lse, give the whole
  kInputsUnchanged,  // not a bit of the inputs is written
  kGuard,            // no byte in front of or behind a buffer is written
  kDeterminism,      // the same bits again
  kConcurrency,      // the same results beside other calls
  kMemoryGrowth,     // not quadratic for lengths that are claimed
  kMemoryLeak,       // calls leave nothing behind
  // A group of ranks.
  kGroupCall,       // a call that every rank makes alike works
  kGroupIdentity,   // rank, size and kind, of subgroups too
  kGroupBytes,      // what arrives is what was sent, once wait() has returned
  kGroupInputs,     // what is sent is not written
  kGroupSum,        // reduced in the order of ranks: the same bits on each
  kGroupCount,      // elements_sent() counts what was really sent to others
  kGroupArguments,  // what cannot be sent is refused before anything is sent
  kFaultSurfaces,   // a rank fails: every other one's call throws Error(kCommError)
  kFaultNames,      // that names the rank, and its reason
  kFaultStays,      // and so does every later call
};

std::string_view to_string(Check check);  // "bound.max"
const std::vector<Check>& all_checks();

// True in the program that is shipped. The mutation test links another definition.
bool is_enabled(Check check);

}  // namespace attnmux::conformance
