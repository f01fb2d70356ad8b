# -DSPILO_SANITIZE=address,undefined or thread. Applied to every target of a top-level build, so that no library is left out.
add_library(spilo_sanitizers INTERFACE)
if(SPILO_SANITIZE)
  set(flags -fsanitize=${SPILO_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    # clang 14 can't assemble coroutines with the function check ("Cannot represent a difference across sections").
    list(APPEND flags -fno-sanitize=function)
  endif()
  target_compile_options(spilo_sanitizers INTERFACE ${flags})
  target_link_options(spilo_sanitizers INTERFACE ${flags})
endif()
