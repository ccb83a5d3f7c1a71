// Text files that are built into the program, so that it needs none beside it. Made by the build, see CMakeLists.txt.
#pragma once

#include <vector>

namespace attnmux::conformance {

struct EmbeddedFile {
  const char* name;
  const char* text;
};

const std::vector<EmbeddedFile>& embedded_profiles();  // "core", "train"
const std::vector<EmbeddedFile>& embedded_template();  // the files of plugins/examples/minimal

}  // namespace attnmux::conformance
