// Writes the template of a plugin: the files of plugins/examples/minimal, with another name.
#pragma once

#include <string>
#include <vector>

namespace attnmux::conformance {

// Makes folder/CMakeLists.txt and folder/<name>.cpp; returns their paths. Throws Error(kUsage) for a name that is no
// backend id or a file that is there already: nothing is overwritten, nothing half-written. Error(kIo) names what could
// not be written.
std::vector<std::string> write_new_plugin(const std::string& folder, const std::string& name);

}  // namespace attnmux::conformance
