// Who keeps everybody from writing. Internal.
#pragma once

#include <string>

namespace spilo::sqlite {

// "process 1234 (spilod)", or "another process" when the kernel does not tell. It may be over by
// now: for error texts only.
std::string lock_holder(const std::string& file);

}  // namespace spilo::sqlite
