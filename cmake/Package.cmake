# Install and export: `find_package(spilo)` gives spilo::core, spilo::runtime, spilo::sqlite, …; `pkg-config spilo` gives all of them.
include(CMakePackageConfigHelpers)

get_property(components GLOBAL PROPERTY SPILO_COMPONENTS)
install(TARGETS ${components} EXPORT spilo-targets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY libspilo/include/spilo DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
file(GLOB backend_headers ${CMAKE_CURRENT_SOURCE_DIR}/backends/*/include/spilo)
install(DIRECTORY ${backend_headers} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
set(spilo_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/spilo)
install(EXPORT spilo-targets NAMESPACE spilo:: DESTINATION ${spilo_cmake_dir})
configure_package_config_file(cmake/spilo-config.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/spilo-config.cmake
                              INSTALL_DESTINATION ${spilo_cmake_dir})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/spilo-config-version.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/spilo-config.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/spilo-config-version.cmake
        DESTINATION ${spilo_cmake_dir})

# Static libraries are linked dependants first: the order in which they were declared, reversed.
set(spilo_pc_libs "")
foreach(component IN LISTS components)
  string(PREPEND spilo_pc_libs "-l${component} ")
endforeach()
cmake_path(APPEND spilo_pc_libdir "\${prefix}" "${CMAKE_INSTALL_LIBDIR}")
cmake_path(APPEND spilo_pc_includedir "\${prefix}" "${CMAKE_INSTALL_INCLUDEDIR}")
configure_file(cmake/spilo.pc.in ${CMAKE_CURRENT_BINARY_DIR}/spilo.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/spilo.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

foreach(program IN ITEMS spiloctl spilod)
  if(TARGET ${program})
    install(TARGETS ${program} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  endif()
endforeach()
