# Warnings for our own code only: nothing of this reaches a consumer.
add_library(spilo_warnings INTERFACE)
target_compile_options(spilo_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wnon-virtual-dtor -Woverloaded-virtual
  # Designated initialisers that leave defaulted members out are how our tables stay readable.
  -Wno-missing-field-initializers)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++ 12 reports false positives inside libstdc++ and Asio coroutine frames at -O2.
  target_compile_options(spilo_warnings INTERFACE
    -Wno-maybe-uninitialized -Wno-restrict -Wno-mismatched-new-delete)
endif()
if(SPILO_WERROR)
  target_compile_options(spilo_warnings INTERFACE -Werror)
endif()
