#include "text/word_cache.hpp"

#include <atomic>
#include <functional>

namespace attune::text {

WordCache& WordCache::of_this_thread() {
  thread_local WordCache cache;
  return cache;
}

WordCache::Entry& WordCache::entry(std::uint64_t owner, std::string_view word) {
  return entries_[(std::hash<std::string_view>()(word) + owner) % entries];
}

std::uint64_t new_cache_owner() {
  static std::atomic<std::uint64_t> last = 0;
  return ++last;
}

}  // namespace attune::text
