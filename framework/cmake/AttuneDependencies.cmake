# What Attune is built on. LibTorch: the wheel in ATTUNE_VENV when it is there, any other through CMAKE_PREFIX_PATH.
set(ATTUNE_VENV .venv CACHE STRING "The virtual environment, below the checkout, whose wheels bring LibTorch and Arrow")
set(attune_wheels ${PROJECT_SOURCE_DIR}/${ATTUNE_VENV}/lib/python3*/site-packages)
file(GLOB attune_venv_torch ${attune_wheels}/torch)
if(attune_venv_torch)
  list(APPEND CMAKE_PREFIX_PATH ${attune_venv_torch})
endif()
include(${CMAKE_CURRENT_LIST_DIR}/AttuneImports.cmake)
# CMake leaves libraries inside the checkout, as the wheel's are, out of installed rpaths unless they are named.
list(APPEND CMAKE_INSTALL_RPATH ${TORCH_INSTALL_PREFIX}/lib)

find_package(MPI REQUIRED COMPONENTS C)
target_compile_definitions(MPI::MPI_C INTERFACE OMPI_SKIP_MPICXX=1)  # MPI's old C++ bindings would need one more library

find_package(Boost REQUIRED COMPONENTS filesystem program_options)
find_package(tomlplusplus REQUIRED)
find_package(OpenSSL REQUIRED COMPONENTS Crypto)
find_package(ZLIB REQUIRED)
find_package(PNG REQUIRED)
find_package(JPEG REQUIRED)

find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(HWLOC REQUIRED IMPORTED_TARGET hwloc)
pkg_check_modules(HWY REQUIRED IMPORTED_TARGET libhwy)
pkg_check_modules(ICU REQUIRED IMPORTED_TARGET icu-uc icu-i18n)
# Debian's Open MPI flavour of parallel HDF5; other systems call theirs plain hdf5.
pkg_check_modules(HDF5 IMPORTED_TARGET hdf5-openmpi)
if(NOT HDF5_FOUND)
  pkg_check_modules(HDF5 REQUIRED IMPORTED_TARGET hdf5)
endif()

# jemalloc is optional: launchers/attune/memory.cpp says what it is for. Sanitizers bring an allocator of their own.
# Looked for anew each time: the cache would keep one that has gone, and the link would fail.
unset(JEMALLOC_FOUND CACHE)
unset(pkgcfg_lib_JEMALLOC_jemalloc CACHE)
if(NOT ATTUNE_SANITIZE)
  pkg_check_modules(JEMALLOC IMPORTED_TARGET jemalloc)
endif()

# Arrow is optional: the pyarrow wheel in ATTUNE_VENV, or an Arrow that CMake finds. Without it Parquet files cannot be read.
# CONFIGURE_DEPENDS: a wheel that comes or goes after configuring is seen by the next build.
set(ATTUNE_ARROW OFF)
set(attune_arrow_from "")
file(GLOB attune_arrow_libraries CONFIGURE_DEPENDS
     ${attune_wheels}/pyarrow/libarrow.so.*
     ${attune_wheels}/pyarrow/libparquet.so.*)
if(attune_arrow_libraries)
  list(GET attune_arrow_libraries 0 attune_arrow_from)
  get_filename_component(attune_arrow_from ${attune_arrow_from} DIRECTORY)
  add_library(attune_arrow INTERFACE)
  target_include_directories(attune_arrow SYSTEM INTERFACE ${attune_arrow_from}/include)
  target_link_libraries(attune_arrow INTERFACE ${attune_arrow_libraries})
  list(APPEND CMAKE_INSTALL_RPATH ${attune_arrow_from})
  set(ATTUNE_ARROW ON)
else()
  find_package(Arrow QUIET)
  find_package(Parquet QUIET)
  if(Arrow_FOUND AND Parquet_FOUND)
    add_library(attune_arrow INTERFACE)
    target_link_libraries(attune_arrow INTERFACE Parquet::parquet_shared Arrow::arrow_shared)
    set(attune_arrow_from "Arrow ${Arrow_VERSION}")
    set(ATTUNE_ARROW ON)
  endif()
endif()

# What may be absent, in one place; launchers/setup configures again on every call, so that these lines are true.
foreach(optional "Parquet files: ATTUNE_ARROW" "jemalloc: JEMALLOC_FOUND" "ccache: CCACHE")
  string(REGEX MATCH "^(.*): (.*)$" matched ${optional})
  if(${CMAKE_MATCH_2})
    message(STATUS "Optional: ${CMAKE_MATCH_1}, yes")
  else()
    message(STATUS "Optional: ${CMAKE_MATCH_1}, no")
  endif()
endforeach()
