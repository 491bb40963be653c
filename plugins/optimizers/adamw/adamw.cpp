// AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2). The update itself is the
// framework's: others leave parameters to it.
#include <attune/adamw.hpp>
#include <attune/plugin.hpp>

ATTUNE_PLUGIN("adamw", "1.0.0", registry) {
  registry.optimizer<attune::AdamW>("adamw", "AdamW: Adam with decoupled weight decay");
}
