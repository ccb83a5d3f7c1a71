// Compiled once for each plugin with -DDEFECT=kDropsMask or the like: the rest is compiled once for all of them.
#include "defects.h"

namespace attnmux::negative {

const Defect kDefect = Defect::DEFECT;

}  // namespace attnmux::negative
