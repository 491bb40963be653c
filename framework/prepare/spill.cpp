#include "prepare/spill.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "core/hash.hpp"

namespace attune {
namespace fs = std::filesystem;
namespace {

// --- A record as bytes: its parts in order, texts with their length before them.

class Packer {
 public:
  explicit Packer(std::string& to) : to_(to) {}
  void number(std::int64_t value) {
    to_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void text(std::string_view value) {
    number(std::ssize(value));
    to_.append(value);
  }

 private:
  std::string& to_;
};

class Unpacker {
 public:
  explicit Unpacker(std::string_view from) : from_(from) {}
  std::int64_t number() {
    std::int64_t value = 0;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string_view text() { return take(static_cast<std::size_t>(number())); }
  std::string_view take(std::size_t count) {
    ATTUNE_ASSERT(count <= from_.size(), "{} of {}", count, from_.size());
    const auto part = from_.substr(0, count);
    from_.remove_prefix(count);
    return part;
  }

 private:
  std::string_view from_;
};

std::string_view bytes_of(const at::Tensor& image) {
  return {static_cast<const char*>(image.data_ptr()), image.nbytes()};
}

void pack_messages(const std::vector<Message>& messages, Packer& packer) {
  packer.number(std::ssize(messages));
  for (const auto& message : messages) {
    packer.text(message.role);
    packer.text(message.content);
    packer.text(message.extra);
    packer.number(message.train);
  }
}

std::vector<Message> unpack_messages(Unpacker& unpacker) {
  std::vector<Message> messages;
  for (auto left = unpacker.number(); left > 0; --left) {
    Message message;
    message.role = unpacker.text();
    message.content = unpacker.text();
    message.extra = unpacker.text();
    message.train = unpacker.number() != 0;
    messages.push_back(std::move(message));
  }
  return messages;
}

void pack_record(const Record& record, std::string& to) {
  Packer packer(to);
  packer.text(record.source);
  packer.number(record.row);
  packer.number(std::ssize(record.fields));
  for (const auto& [name, value] : record.fields) {
    packer.text(name);
    packer.text(value);
  }
  packer.number(std::ssize(record.lists));
  for (const auto& [name, list] : record.lists) {
    packer.text(name);
    packer.number(std::ssize(list));
    for (const auto& element : list) packer.text(element);
  }
  pack_messages(record.messages, packer);
  packer.text(record.tools);
  packer.number(std::ssize(record.answers));
  for (const auto& [name, messages] : record.answers) {
    packer.text(name);
    pack_messages(messages, packer);
  }
  packer.number(record.image.defined());
  if (!record.image.defined()) return;
  for (int i = 0; i < 3; ++i) packer.number(record.image.size(i));
  packer.text(bytes_of(record.image));
}

Record unpack_record(std::string_view from) {
  Unpacker unpacker(from);
  Record record;
  record.source = unpacker.text();
  record.row = unpacker.number();
  for (auto left = unpacker.number(); left > 0; --left) {
    const auto name = unpacker.text();
    record.fields.emplace(name, unpacker.text());
  }
  for (auto left = unpacker.number(); left > 0; --left) {
    auto& list = record.lists[std::string(unpacker.text())];
    for (auto elements = unpacker.number(); elements > 0; --elements)
      list.emplace_back(unpacker.text());
  }
  record.messages = unpack_messages(unpacker);
  record.tools = unpacker.text();
  for (auto left = unpacker.number(); left > 0; --left) {
    const std::string name(unpacker.text());
    record.answers[name] = unpack_messages(unpacker);
  }
  if (unpacker.number() == 0) return record;
  const auto height = unpacker.number();
  const auto width = unpacker.number();
  const auto channels = unpacker.number();
  record.image = at::empty({height, width, channels}, at::kByte);
  std::memcpy(record.image.data_ptr(), unpacker.text().data(), record.image.nbytes());
  return record;
}

fs::path records_file(const fs::path& folder, int rank) {
  return folder / fmt::format("records-{}", rank);
}
fs::path entries_file(const fs::path& folder, int rank) {
  return folder / fmt::format("entries-{}", rank);
}

}  // namespace

// --- Files

OutFile::OutFile(fs::path path) : path_(std::move(path)), file_(path_, std::ios::binary) {
  check();
}

void OutFile::write(const void* bytes, std::size_t count) {
  file_.write(static_cast<const char*>(bytes), static_cast<std::streamsize>(count));
  size_ += count;
  check();
}

void OutFile::close() {
  file_.close();
  check();
}

void OutFile::check() const {
  if (!file_)
    fail("{}: cannot be written ({}); free space there, or set output to another disk",
         path_.string(), std::strerror(errno));
}

// --- Records

Fingerprint fingerprint_of(const Record& record) {
  Sha256 sum;
  const auto add = [&sum](std::string_view text) {
    sum.add(std::to_string(text.size())).add(":").add(text);
  };
  for (const auto& [name, value] : record.fields) {
    add(name);
    add(value);
  }
  for (const auto& [name, list] : record.lists) {
    add("list");
    add(name);
    add(std::to_string(list.size()));
    for (const auto& element : list) add(element);
  }
  const auto add_messages = [&](const std::vector<Message>& messages) {
    for (const auto& message : messages) {
      add(message.role);
      add(message.content);
      add(message.extra);
      add(message.train ? "" : "context");
    }
  };
  add_messages(record.messages);
  add(record.tools);
  for (const auto& [name, messages] : record.answers) {
    add(name);
    add_messages(messages);
  }
  if (record.image.defined()) {
    for (const auto size : record.image.sizes()) add(std::to_string(size));
    add(bytes_of(record.image));
  }
  const auto hex = sum.hex();
  Fingerprint fingerprint{};
  for (std::size_t i = 0; i < 2; ++i)
    std::from_chars(hex.data() + 16 * i, hex.data() + 16 * (i + 1), fingerprint[i], 16);
  return fingerprint;
}

RecordWriter::RecordWriter(const fs::path& folder, int rank)
    : records_(records_file(folder, rank)), entries_(entries_file(folder, rank)) {}

void RecordWriter::add(const Record& record, std::uint32_t source, std::uint32_t stratum) {
  buffer_.clear();
  pack_record(record, buffer_);
  if (buffer_.size() > UINT32_MAX)
    fail("{}, row {}: is larger than 4 GiB", record.source, record.row);
  entries_.write(RecordEntry{fingerprint_of(record), records_.size(),
                             static_cast<std::uint32_t>(buffer_.size()), source, stratum});
  records_.write(buffer_);
  ++count_;
}

void RecordWriter::close() {
  records_.close();
  entries_.close();
}

Records::Records(fs::path folder, std::vector<std::int64_t> counts)
    : folder_(std::move(folder)), files_(counts.size()) {
  for (const auto count : counts)
    firsts_.push_back(firsts_.back() + static_cast<std::uint64_t>(count));
}

void Records::for_each(
    const std::function<void(std::uint64_t, const RecordEntry&, int)>& use) const {
  constexpr std::uint64_t at_once = 1 << 14;
  for (std::size_t rank = 0; rank + 1 < firsts_.size(); ++rank)
    for (auto number = firsts_[rank]; number < firsts_[rank + 1];) {
      const auto count = std::min(at_once, firsts_[rank + 1] - number);
      for (const auto& entry : read_elements<RecordEntry>(
               entries_file(folder_, static_cast<int>(rank)), number - firsts_[rank], count))
        use(number++, entry, static_cast<int>(rank));
    }
}

Record Records::read(std::uint64_t number) const {
  const auto rank =
      static_cast<std::size_t>(std::upper_bound(firsts_.begin(), firsts_.end(), number) -
                               firsts_.begin()) -
      1;
  const auto entry = read_elements<RecordEntry>(entries_file(folder_, static_cast<int>(rank)),
                                                number - firsts_[rank], 1)
                         .front();
  return read(static_cast<int>(rank), entry.offset, entry.bytes);
}

Record Records::read(int rank, std::uint64_t offset, std::uint32_t bytes) const {
  auto& [file, position] = files_.at(static_cast<std::size_t>(rank));
  if (!file.is_open()) file.open(records_file(folder_, rank), std::ios::binary);
  std::string packed(bytes, '\0');
  // Mostly they are read in order; seeking would throw away what the stream has read ahead.
  if (position != offset) file.seekg(static_cast<std::streamoff>(offset));
  position = offset + bytes;
  if (!file.read(packed.data(), bytes))
    throw Fault(fmt::format("{}: ends before byte {}", records_file(folder_, rank).string(),
                            offset + bytes));
  return unpack_record(packed);
}

}  // namespace attune
