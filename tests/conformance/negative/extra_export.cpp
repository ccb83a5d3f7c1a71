// A symbol that no plugin should offer to the process.
extern "C" __attribute__((visibility("default"))) int forty_two() { return 42; }
