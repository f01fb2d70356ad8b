# -DSPILO_PRECOMPILE=ON, as the sanitizer presets set it: the outside headers that nearly every file includes are parsed once. What users
# run is built without it, so a file that forgets an include doesn't compile there.
option(SPILO_PRECOMPILE "Parse the headers of the standard library, Asio and fmt once for all files" OFF)
if(SPILO_PRECOMPILE)
  set(sources ${CMAKE_CURRENT_BINARY_DIR}/precompiled.cpp)
  file(CONFIGURE OUTPUT ${sources} CONTENT "int main() {}\n")
  # Two of them: a library's code can be at any address, a program's may rely on being the program's.
  add_library(spilo_precompiled_library OBJECT ${sources})
  add_executable(spilo_precompiled_program EXCLUDE_FROM_ALL ${sources})
  foreach(kind IN ITEMS library program)
    target_link_libraries(spilo_precompiled_${kind} PRIVATE Boost::headers fmt::fmt Threads::Threads spilo_warnings spilo_sanitizers)
    target_precompile_headers(spilo_precompiled_${kind} PRIVATE
      <algorithm> <array> <chrono> <cstdint> <deque> <filesystem> <fstream> <functional> <map> <memory> <optional> <random> <set> <span> <sstream>
      <string> <string_view> <utility> <variant> <vector> <fmt/format.h>
      <boost/asio/any_io_executor.hpp> <boost/asio/as_tuple.hpp> <boost/asio/awaitable.hpp> <boost/asio/bind_cancellation_slot.hpp>
      <boost/asio/cancellation_signal.hpp> <boost/asio/co_spawn.hpp> <boost/asio/io_context.hpp> <boost/asio/ip/tcp.hpp>
      <boost/asio/posix/stream_descriptor.hpp> <boost/asio/post.hpp> <boost/asio/steady_timer.hpp> <boost/asio/this_coro.hpp>
      <boost/asio/use_awaitable.hpp> <boost/asio/write.hpp>)
  endforeach()
endif()
function(spilo_precompiled target)
  if(SPILO_PRECOMPILE)
    get_target_property(type ${target} TYPE)
    if(type STREQUAL EXECUTABLE)
      target_precompile_headers(${target} REUSE_FROM spilo_precompiled_program)
    else()
      target_precompile_headers(${target} REUSE_FROM spilo_precompiled_library)
    endif()
  endif()
endfunction()
