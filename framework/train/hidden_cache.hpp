// What the frozen lower part of the model makes of the training samples, computed once and kept on
// disk (train.prefix_cache): later passes over them start above it.
#pragma once
#include <attune/weights.hpp>

#include <memory>
#include <string>
#include <vector>

#include "data/hidden.hpp"
#include "train/interruption.hpp"
#include "train/session.hpp"

namespace attune::train {

/// How many parts of the model come before everything in `trained`, whether or not it trains now;
/// 0: not even the first block does.
std::int64_t frozen_parts(const Session& session, const std::vector<NamedTensor>& trained);

/// "the first 3 of 6 blocks", "all blocks"
std::string describe_parts(std::int64_t parts, const Model& model);

/// Whether the run sees some sample more than once.
bool sees_again(const Session& session);

/// Finds the parts below everything in `trained`, computes their output for every training sample
/// unless a run of the same has left it in train.prefix_folder, which the run's batches then bring.
/// The same file on any number of ranks. Null when the option is off, when no sample is seen twice,
/// or when the interruption came first. Collective. Errors: nothing is frozen below what is
/// trained; the output differs from pass to pass (dropout, augmentation); no room for the file.
std::shared_ptr<const HiddenStates> keep_hidden_states(Session& session,
                                                       const std::vector<NamedTensor>& trained,
                                                       Interruption& interruption);

}  // namespace attune::train
