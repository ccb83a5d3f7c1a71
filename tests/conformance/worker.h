// The other side of WorkerProcess: loads the plugin and runs the cases of one family as GoogleTest tests.
//
// Lines over the descriptor. The job: {"secret", "kind": "describe", "cases" or "threads", "backend" or "group",
// "device", "cases"}. Answers, each with the secret: {"described": {...}} or {"error": code, "text"}; {"begin": i},
// {"end": i, "record"}, {"also": record} of something that no case asked for; {"done": true} when the plugin has shut
// down.
#pragma once

namespace attnmux::conformance {

// The whole main() of a worker; does not return.
[[noreturn]] void run_worker();

}  // namespace attnmux::conformance
