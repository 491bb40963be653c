// What libattune.so exports beside the public headers: the program.
#pragma once
#include <attune/api.hpp>

namespace attune::program {

/// main of the program: runs a subcommand and returns the exit code.
ATTUNE_API int run(int argc, char** argv);

}  // namespace attune::program
