# cmake -D FOLDER=framework/include -D RELEASE=0.1.0 -D TO=api_hash.hpp -P AttuneApiHash.cmake
# Writes the hash of the public headers below FOLDER/attune: of their code, without comments and without blanks that mean nothing. A
# plugin built for other headers has another hash (attune/built_for.hpp). TO is left as it is when it says so already.
cmake_minimum_required(VERSION 3.25)
get_filename_component(FOLDER ${FOLDER} ABSOLUTE)

# The text without its comments; what looks like one in a literal stays.
function(attune_without_comments text result)
  set(literal "\"([^\"\\\n]|\\\\.)*\"|'([^'\\\n]|\\\\.)*'")
  set(comment "//[^\n]*|/[*]([^*]|[*]+[^*/])*[*]+/")
  set(code "")
  # The first alternative is the ' between digits.
  while(text MATCHES "[0-9a-fA-F]'[0-9a-fA-F]|${literal}|${comment}")
    set(token "${CMAKE_MATCH_0}")
    string(FIND "${text}" "${token}" begin)
    string(LENGTH "${token}" length)
    string(SUBSTRING "${text}" 0 ${begin} before)
    math(EXPR end "${begin} + ${length}")
    string(SUBSTRING "${text}" ${end} -1 text)
    if(token MATCHES "^/")
      set(token " ")
    endif()
    string(APPEND code "${before}${token}")
  endwhile()
  set(${result} "${code}${text}" PARENT_SCOPE)
endfunction()

# The code of a header on one line. Blanks in literals are treated like others: no layout depends on them.
function(attune_code_of header result)
  file(READ ${header} text)
  if(text MATCHES "R\"[^\"(]*[(]")
    message(FATAL_ERROR "${header}: holds a raw string, which AttuneApiHash.cmake cannot tell from comments; write a plain one")
  endif()
  string(REPLACE "\r" "" text "${text}")
  string(REPLACE "\\\n" " " text "${text}")  # a line that goes on
  attune_without_comments("${text}" text)
  string(REGEX REPLACE "(^|\n)[ \t]*(#[^\n]*)" "\n<\\2>" text "${text}")  # a directive ends with its line
  string(REGEX REPLACE "[ \t\n]+" " " text "${text}")
  string(REGEX REPLACE " ?([][(){},:<>]|;) ?" "\\1" text "${text}")
  string(STRIP "${text}" text)
  set(${result} "${text}" PARENT_SCOPE)
endfunction()

file(GLOB_RECURSE headers RELATIVE ${FOLDER} ${FOLDER}/attune/*.hpp)
list(REMOVE_ITEM headers attune/api_hash.hpp)  # among installed headers
list(SORT headers)
if(NOT headers)
  message(FATAL_ERROR "${FOLDER}/attune: has no headers; name the folder that holds attune/plugin.hpp")
endif()
set(all "")
foreach(header IN LISTS headers)
  attune_code_of(${FOLDER}/${header} code)
  string(APPEND all "${header}\n${code}\n")
endforeach()
string(SHA256 hash "${all}")
string(SUBSTRING ${hash} 0 16 hash)

set(content "// Made from the public headers by AttuneApiHash.cmake.
#pragma once
#define ATTUNE_RELEASE \"${RELEASE}\"
#define ATTUNE_API_HASH \"${hash}\"
")
set(there "")
if(EXISTS ${TO})
  file(READ ${TO} there)
endif()
if(NOT there STREQUAL content)
  file(WRITE ${TO} "${content}")
endif()
