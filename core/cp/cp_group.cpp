#include "attnmux/cp_group.h"

namespace attnmux {

Work::~Work() = default;
CpGroup::~CpGroup() = default;
CpGroupFactory::~CpGroupFactory() = default;

}  // namespace attnmux
