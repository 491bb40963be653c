// How jemalloc, where the program is linked to it, keeps memory. A training step asks for the same
// large tensors as the step before: what was freed stays ours, so that the kernel does not clear
// the same pages for every step, and lies in huge pages. Small tensors may be cut from a large
// stretch of it: with jemalloc's limit of 64 times their size they get new memory instead, more and
// more of it. docs/performance.md has what that is worth.
extern "C" {
// jemalloc looks for it among what the program exports.
extern __attribute__((visibility("default"))) const char* malloc_conf;
const char* malloc_conf =
    "thp:always,dirty_decay_ms:-1,muzzy_decay_ms:-1,oversize_threshold:0,lg_extent_max_active_fit:"
    "24";
}
