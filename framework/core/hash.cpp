#include "core/hash.hpp"

#include <attune/error.hpp>
#include <openssl/evp.h>

#include <array>

#include "core/files.hpp"

namespace attune {

struct Sha256::Context {
  EVP_MD_CTX* handle = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(handle); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  EVP_DigestInit_ex(context_->handle, EVP_sha256(), nullptr);
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;

Sha256& Sha256::add(const void* bytes, std::size_t count) {
  EVP_DigestUpdate(context_->handle, bytes, count);
  return *this;
}

std::string Sha256::hex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int length = 0;
  EVP_DigestFinal_ex(context_->handle, digest.data(), &length);
  std::string text;
  for (unsigned int i = 0; i < length; ++i) text += fmt::format("{:02x}", digest[i]);
  return text;
}

std::string sha256(std::string_view text) { return Sha256().add(text).hex(); }

std::string sha256_of_file(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  return Sha256().add(file->data(), file->size()).hex();
}

}  // namespace attune
