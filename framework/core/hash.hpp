// SHA-256, in hexadecimal.
#pragma once
#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace attune {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& add(const void* bytes, std::size_t count);
  Sha256& add(std::string_view text) { return add(text.data(), text.size()); }
  /// 64 hexadecimal digits. Finishes the hash.
  std::string hex();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

std::string sha256(std::string_view text);
std::string sha256_of_file(const std::filesystem::path& path);

}  // namespace attune
