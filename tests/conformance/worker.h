// The other side of WorkerProcess: loads the plugin and runs the cases of one family as GoogleTest tests.
//
// Lines over the descriptor. The job: {"secret", "kind": "describe" or "cases", "plugin", "backend", "device",
// "cases"}. Answers, each with the secret: {"described": {...}} or {"error": code, "text"}; {"begin": i}, {"end": i,
// "record"};
// {"done": n} when the plugin has shut down.
#pragma once

namespace attnmux::conformance {

// The whole main() of a worker; does not return.
[[noreturn]] void run_worker();

}  // namespace attnmux::conformance
