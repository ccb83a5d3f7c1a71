// A program of another project: loads what the environment names and lets the plugin answer.
#include <cstdio>

#include "attnmux/plugin_loader.h"

int main() {
  attnmux::PluginRegistry registry;
  const attnmux::PluginScan scan = attnmux::load_plugins({}, registry);
  for (const attnmux::PluginFile& file : scan.files) std::printf("%s %s\n", file.id.c_str(), file.file.c_str());
  const bool answers = registry.at("acme")->query({}).ok();
  attnmux::shutdown_plugins();
  return answers ? 0 : 1;
}
