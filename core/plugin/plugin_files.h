// Which folders and files a search looks at, in order: names only, nothing is opened.
#pragma once

#include <string>
#include <vector>

#include "attnmux/plugin_loader.h"

namespace attnmux {

struct PluginCandidates {
  std::vector<PluginFolder> folders;
  std::vector<PluginFile> files;  // file, source and required are set
};

PluginCandidates find_plugin_files(const PluginSearch& search);

}  // namespace attnmux
