// Compiled once for each plugin with -DDEFECT=kDropsShard or the like, as defect.cpp.
#include "group_defects.h"

namespace attnmux::negative {

const GroupDefect kGroupDefect = GroupDefect::DEFECT;

}  // namespace attnmux::negative
