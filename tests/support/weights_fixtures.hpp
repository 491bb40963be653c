// Bytes of model files, true ones and forged ones.
#pragma once
#include <attune/error.hpp>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

namespace fixtures {

/// A folder of this test's own, removed with it.
class TemporaryFolder {
 public:
  TemporaryFolder()
      : path_(std::filesystem::temp_directory_path() /
              ("attune-" + std::to_string(::getpid()) + "-" + std::to_string(count_++))) {
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  static inline int count_ = 0;
  std::filesystem::path path_;
};

inline void write_bytes(const std::filesystem::path& path, const std::string& bytes) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << bytes;
}

/// The text of the attune::Error that work throws; "" when it throws none.
inline std::string error_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const attune::Error& error) {
    return error.what();
  }
  return "";
}

template <class T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

inline std::string safetensors(const std::string& header, const std::string& data) {
  return raw<std::uint64_t>(header.size()) + header + data;
}

// GGUF, written piece by piece. Value types: 4 uint32, 6 float32, 8 string, 9 array.
inline std::string gguf_text(const std::string& text) {
  return raw<std::uint64_t>(text.size()) + text;
}
inline std::string gguf_pair(const std::string& key, std::uint32_t type, const std::string& value) {
  return gguf_text(key) + raw(type) + value;
}
inline std::string gguf_pair(const std::string& key, const std::string& value) {
  return gguf_pair(key, 8, gguf_text(value));
}
inline std::string gguf_pair(const std::string& key, std::uint32_t value) {
  return gguf_pair(key, 4, raw(value));
}
inline std::string gguf_pair(const std::string& key, float value) {
  return gguf_pair(key, 6, raw(value));
}

struct GgufTensor {
  std::string name;
  std::vector<std::uint64_t> sizes;  // fastest first, as in the file
  std::uint32_t type;
  std::string bytes;
};

/// A whole file, tensors aligned to 32 bytes.
inline std::string gguf(const std::vector<std::string>& pairs,
                        const std::vector<GgufTensor>& tensors) {
  const auto pad = [](std::string bytes) {
    bytes.resize((bytes.size() + 31) / 32 * 32, '\0');
    return bytes;
  };
  std::string head = "GGUF" + raw<std::uint32_t>(3) + raw<std::uint64_t>(tensors.size()) +
                     raw<std::uint64_t>(pairs.size());
  std::string data;
  for (const auto& pair : pairs) head += pair;
  for (const auto& tensor : tensors) {
    head += gguf_text(tensor.name) + raw<std::uint32_t>(tensor.sizes.size());
    for (const auto size : tensor.sizes) head += raw(size);
    head += raw(tensor.type) + raw<std::uint64_t>(data.size());
    data += pad(tensor.bytes);
  }
  return pad(head) + data;
}

inline std::string floats(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

}  // namespace fixtures
