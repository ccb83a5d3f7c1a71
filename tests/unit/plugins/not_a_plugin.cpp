// A shared library like any other: no tag, no entry.
extern "C" __attribute__((visibility("default"))) int forty_two() { return 42; }
