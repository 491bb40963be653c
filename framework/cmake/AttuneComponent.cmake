# attune_add_component(NAME [TORCH] [LINK targets...]): the folder's *.cpp as the static library attune_NAME.
# TORCH: its files include torch/torch.h, and get it precompiled. What it links to is what it may include.
# Where ATen's headers outweigh our own code a component is compiled as one file, in a third of the time; text needs none of them, and kernels includes itself
# once for each instruction set.
function(attune_add_component name)
  cmake_parse_arguments(arg "TORCH" "" "LINK" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cpp)
  add_library(attune_${name} STATIC ${sources})
  attune_include_root(attune_${name} ${name})
  target_link_libraries(attune_${name} PUBLIC attune_public_headers attune_torch fmt::fmt-header-only ${arg_LINK})
  if(arg_TORCH)
    attune_precompiled_torch(attune_${name})
  endif()
  if(NOT name MATCHES "^(text|kernels)$")
    set_target_properties(attune_${name} PROPERTIES UNITY_BUILD ${ATTUNE_UNITY} UNITY_BUILD_BATCH_SIZE 0)
  endif()
  set_property(GLOBAL APPEND PROPERTY ATTUNE_COMPONENTS attune_${name})
  list(FILTER arg_LINK EXCLUDE REGEX "^attune_")
  set_property(GLOBAL APPEND PROPERTY ATTUNE_EXTERNALS ${arg_LINK})
endfunction()

# An include root that holds this folder alone: "train/step.hpp" is found by those who link to attune_train, and by no others.
function(attune_include_root target name)
  set(root ${CMAKE_BINARY_DIR}/roots/${name})
  file(MAKE_DIRECTORY ${root})
  file(CREATE_LINK ${CMAKE_CURRENT_SOURCE_DIR}/${name} ${root}/${name} SYMBOLIC)
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${root}>)
endfunction()

# One precompiled torch/torch.h, made once, used by every target that asks.
function(attune_precompiled_torch target)
  if(NOT TARGET attune_pch)
    file(WRITE ${CMAKE_BINARY_DIR}/pch/pch.cpp.in "")
    configure_file(${CMAKE_BINARY_DIR}/pch/pch.cpp.in ${CMAKE_BINARY_DIR}/pch/pch.cpp COPYONLY)
    add_library(attune_pch STATIC ${CMAKE_BINARY_DIR}/pch/pch.cpp)
    target_link_libraries(attune_pch PUBLIC attune_torch fmt::fmt-header-only)
    target_precompile_headers(attune_pch PUBLIC <torch/torch.h> <fmt/core.h>)
  endif()
  target_precompile_headers(${target} REUSE_FROM attune_pch)
endfunction()
