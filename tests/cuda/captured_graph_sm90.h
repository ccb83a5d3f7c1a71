// Work captured once in a CUDA graph and replayed.
//
//   const CapturedGraph graph(stream, [&] { result = call.forward(); });
//   graph.launch();   // on the stream it was captured from
#pragma once

#include <c10/core/Stream.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

namespace attnmux::testing {

class CapturedGraph {
 public:
  // `work` enqueues on `stream`, and must not synchronise: capture would fail.
  template <class Work>
  CapturedGraph(const c10::Stream& stream, const Work& work)
      : stream_(static_cast<cudaStream_t>(stream.native_handle())) {
    EXPECT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed), cudaSuccess);
    work();
    EXPECT_EQ(cudaStreamEndCapture(stream_, &graph_), cudaSuccess);
    EXPECT_EQ(cudaGraphInstantiate(&executable_, graph_, 0), cudaSuccess);
  }
  ~CapturedGraph() {
    EXPECT_EQ(cudaGraphExecDestroy(executable_), cudaSuccess);
    EXPECT_EQ(cudaGraphDestroy(graph_), cudaSuccess);
  }
  CapturedGraph(const CapturedGraph&) = delete;
  CapturedGraph& operator=(const CapturedGraph&) = delete;

  void launch() const { EXPECT_EQ(cudaGraphLaunch(executable_, stream_), cudaSuccess); }

 private:
  cudaStream_t stream_;
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace attnmux::testing
