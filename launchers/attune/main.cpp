// attune: the program. All of it is in libattune.so.
#include "program.hpp"

int main(int argc, char** argv) { return attune::program::run(argc, argv); }
