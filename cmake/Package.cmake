# Install and export: `find_package(spilo)` gives spilo::core, spilo::runtime, spilo::sqlite, …; with COMPONENTS only what those are
# built on has to be there. `pkg-config spilo` gives all of them.
include(CMakePackageConfigHelpers)

get_property(components GLOBAL PROPERTY SPILO_COMPONENTS)

# What a component is built on: `externals` (Boost::json, SQLite::SQLite3, …) of it and of all that it links, and itself behind all of
# these in `order`.
function(spilo_collect target)
  get_property(done GLOBAL PROPERTY SPILO_EXTERNALS_${target} SET)
  if(done)
    return()
  endif()
  set(externals "")
  get_target_property(links ${target} LINK_LIBRARIES)
  foreach(link IN LISTS links)
    if(link IN_LIST components)
      spilo_collect(${link})
      get_property(theirs GLOBAL PROPERTY SPILO_EXTERNALS_${link})
      list(APPEND externals ${theirs})
    elseif(NOT link MATCHES "^(\\$<|::@|-)" AND TARGET ${link})  # a bare name is a library of the system (resolv)
      list(APPEND externals ${link})
    endif()
  endforeach()
  list(REMOVE_DUPLICATES externals)
  set_property(GLOBAL PROPERTY SPILO_EXTERNALS_${target} "${externals}")
  set_property(GLOBAL APPEND PROPERTY SPILO_LINK_ORDER ${target})
endfunction()

set(spilo_component_table "")
set(spilo_component_names "")
foreach(component IN LISTS components)
  spilo_collect(${component})
  get_property(externals GLOBAL PROPERTY SPILO_EXTERNALS_${component})
  string(REGEX REPLACE "^spilo_" "" name ${component})
  string(APPEND spilo_component_table "set(_spilo_needs_${name} ${externals})\n")
  list(APPEND spilo_component_names ${name})
endforeach()

# Shared libraries and programs find the libraries beside them, wherever the whole is installed.
file(RELATIVE_PATH spilo_lib_from_bin ${CMAKE_INSTALL_FULL_BINDIR} ${CMAKE_INSTALL_FULL_LIBDIR})
set_target_properties(${components} PROPERTIES INSTALL_RPATH "$ORIGIN")
foreach(program IN ITEMS spiloctl spilod)
  if(TARGET ${program})
    set_target_properties(${program} PROPERTIES INSTALL_RPATH "$ORIGIN/${spilo_lib_from_bin}")
    install(TARGETS ${program} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  endif()
endforeach()

install(TARGETS ${components} EXPORT spilo-targets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY libspilo/include/spilo DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
file(GLOB backend_headers ${CMAKE_CURRENT_SOURCE_DIR}/backends/*/include/spilo)
install(DIRECTORY ${backend_headers} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
set(spilo_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/spilo)
install(EXPORT spilo-targets NAMESPACE spilo:: DESTINATION ${spilo_cmake_dir})
set(spilo_guard_program ${CMAKE_INSTALL_LIBEXECDIR}/spilo/spilo-guard)
configure_package_config_file(cmake/spilo-config.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/spilo-config.cmake
                              INSTALL_DESTINATION ${spilo_cmake_dir} PATH_VARS spilo_guard_program)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/spilo-config-version.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/spilo-config.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/spilo-config-version.cmake
              ${CMAKE_CURRENT_SOURCE_DIR}/cmake/FindZooKeeper.cmake
        DESTINATION ${spilo_cmake_dir})

# Static libraries are linked dependants first.
get_property(spilo_link_order GLOBAL PROPERTY SPILO_LINK_ORDER)
set(spilo_pc_libs "")
foreach(component IN LISTS spilo_link_order)
  string(PREPEND spilo_pc_libs "-l${component} ")
endforeach()
# The file says where it lies, so the tree may be moved.
set(spilo_pc_dir ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH spilo_pc_prefix ${spilo_pc_dir} ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" spilo_pc_prefix "${spilo_pc_prefix}")
foreach(kind IN ITEMS LIBDIR INCLUDEDIR LIBEXECDIR)
  string(TOLOWER ${kind} name)
  set(spilo_pc_${name} "\${prefix}")
  cmake_path(APPEND spilo_pc_${name} "${CMAKE_INSTALL_${kind}}")
endforeach()
configure_file(cmake/spilo.pc.in ${CMAKE_CURRENT_BINARY_DIR}/spilo.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/spilo.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
