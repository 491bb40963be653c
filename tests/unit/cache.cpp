// What is kept for later runs, and when it is not believed.
#include "core/cache.hpp"

#include <gmock/gmock.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <thread>

#include "core/hash.hpp"

namespace {

using namespace attune;
namespace fs = std::filesystem;
using namespace std::chrono_literals;

class cache : public testing::Test {
 protected:
  void SetUp() override {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    ::setenv("XDG_CACHE_HOME", (folder_ / "cache").c_str(), 1);
  }
  void TearDown() override { fs::remove_all(folder_); }

  /// A file as it was left so long ago.
  fs::path file(const std::string& text, std::chrono::seconds ago) const {
    const auto path = folder_ / "file";
    std::ofstream(path) << text;
    fs::last_write_time(path, fs::file_time_type::clock::now() - ago);
    return path;
  }
  std::ptrdiff_t remembered() const {
    const auto hashes = folder_ / "cache/attune/sha256";
    return fs::exists(hashes)
               ? std::distance(fs::directory_iterator(hashes), fs::directory_iterator())
               : 0;
  }

  void keep_in_place_of_hash(const std::string& text) const {
    for (const auto& entry : fs::directory_iterator(folder_ / "cache/attune/sha256"))
      std::ofstream(entry.path()) << text;
  }

  const fs::path folder_ =
      fs::temp_directory_path() / ("attune-cache-" + std::to_string(::getpid()));
};

TEST_F(cache, gives_back_what_was_kept) {
  EXPECT_EQ(read_cached("some/name"), std::nullopt);
  keep_cached("some/name", "text");
  EXPECT_EQ(read_cached("some/name"), "text");
}

TEST_F(cache, that_cannot_be_written_is_none) {
  ::setenv("XDG_CACHE_HOME", "/dev/null", 1);
  keep_cached("some/name", "text");
  EXPECT_EQ(read_cached("some/name"), std::nullopt);
  EXPECT_EQ(cached_sha256_of_file(file("a", 1h)), sha256("a"));
}

TEST_F(cache, remembers_the_hash_of_a_file_until_it_changes) {
  const auto path = file("before", 1h);
  std::this_thread::sleep_for(3s);
  EXPECT_EQ(cached_sha256_of_file(path), sha256("before"));
  EXPECT_EQ(remembered(), 1);
  keep_in_place_of_hash(sha256("something else"));
  EXPECT_EQ(cached_sha256_of_file(path), sha256("something else"));
  keep_in_place_of_hash(std::string(64, 'Z'));
  EXPECT_EQ(cached_sha256_of_file(path), sha256("before"));
}

TEST_F(cache, reads_a_file_again_whose_time_of_writing_was_set_back) {
  const auto path = folder_ / "file";
  const auto then = fs::file_time_type::clock::now() - 1h;
  for (const char last : {'a', 'b'}) {
    // as long as before, and the same in its first MiB
    const auto text = std::string(2 << 20, 'a') + last;
    std::ofstream(path) << text;
    fs::last_write_time(path, then);
    std::this_thread::sleep_for(3s);
    EXPECT_EQ(cached_sha256_of_file(path), sha256(text));
  }
  EXPECT_EQ(remembered(), 2);
}

TEST_F(cache, does_not_remember_what_may_still_be_written) {
  EXPECT_EQ(cached_sha256_of_file(file("new", 0s)), sha256("new"));
  EXPECT_EQ(remembered(), 0);
}

TEST_F(cache, lock_is_one_process_s_at_a_time) {
  auto first = CacheLock::try_take("some/work");
  ASSERT_TRUE(first);
  EXPECT_FALSE(CacheLock::try_take("some/work"));
  EXPECT_TRUE(CacheLock::try_take("other/work"));
  first.reset();
  EXPECT_TRUE(CacheLock::try_take("some/work"));
}

}  // namespace
