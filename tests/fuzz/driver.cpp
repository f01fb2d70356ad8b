// libFuzzer's entry for the target that SPILO_FUZZ_TARGET names.
#include "fuzz/targets.hpp"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  spilo::fuzz::SPILO_FUZZ_TARGET({reinterpret_cast<const char*>(data), size});
  return 0;
}
