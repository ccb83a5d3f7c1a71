// Marks what the core library exports; everything else is hidden.
#pragma once

#define ATTNMUX_API __attribute__((visibility("default")))
