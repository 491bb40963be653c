// Measures a machine on the ranks of this program.
#pragma once
#include <attune/mesh.hpp>

#include <filesystem>

#include "plan/machine.hpp"

namespace attune::plan {

/// Takes some seconds. folder: on the disk that runs read. The result is rank 0's. Collective.
Machine measure_machine(const Mesh& mesh, const std::filesystem::path& folder);

}  // namespace attune::plan
