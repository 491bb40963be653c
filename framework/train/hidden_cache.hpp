// Cache on disk for the outputs of the model's frozen lower part on the training samples
// (train.prefix_cache). Later passes over these samples start above it.
#pragma once
#include <attune/weights.hpp>

#include <memory>
#include <string>
#include <vector>

#include "data/hidden.hpp"
#include "train/interruption.hpp"
#include "train/session.hpp"

namespace attune::train {

/// Number of model parts below every parameter in `trained`, including parameters that are frozen
/// at the moment; 0 if not even the first block qualifies.
std::int64_t frozen_parts(const Session& session, const std::vector<NamedTensor>& trained);

/// Text for messages: "the first 3 of 6 blocks", "all blocks".
std::string describe_parts(std::int64_t parts, const Model& model);

/// Whether the run uses any sample more than once.
bool sees_again(const Session& session);

/// Computes the output of the frozen parts for every training sample, or reuses the file of an
/// equivalent run in train.prefix_folder. The run's batches then carry these states. The file is
/// the same for any number of ranks. Null if the option is off, no sample is used twice, or the run
/// was interrupted. Errors: no frozen parts below the trained ones; outputs that vary between
/// passes (dropout, augmentation); insufficient disk space. Collective.
std::shared_ptr<const HiddenStates> keep_hidden_states(Session& session,
                                                       const std::vector<NamedTensor>& trained,
                                                       Interruption& interruption);

}  // namespace attune::train
