#include "registry/elf.hpp"

#include <attune/error.hpp>
#include <elf.h>
#include <link.h>

#include <bit>
#include <cstring>
#include <vector>

#include "core/files.hpp"

namespace attune::registry {
namespace {

using Header = ElfW(Ehdr);
using Segment = ElfW(Phdr);
using Section = ElfW(Shdr);
using Symbol = ElfW(Sym);
using NoteHeader = ElfW(Nhdr);

constexpr unsigned char native_class = sizeof(void*) == 8 ? ELFCLASS64 : ELFCLASS32;
constexpr unsigned char native_order =
    std::endian::native == std::endian::little ? ELFDATA2LSB : ELFDATA2MSB;
#if defined(__x86_64__)
constexpr auto native_machine = EM_X86_64;
#elif defined(__aarch64__)
constexpr auto native_machine = EM_AARCH64;
#elif defined(__powerpc64__)
constexpr auto native_machine = EM_PPC64;
#elif defined(__riscv)
constexpr auto native_machine = EM_RISCV;
#else
#error "name this machine's ELF number here"
#endif

/// The bytes of a library; every read is checked against their number.
class LibraryFile {
 public:
  explicit LibraryFile(const std::filesystem::path& path) : file_(MappedFile::open(path)) {
    if (file_->size() < sizeof(Header) || std::memcmp(file_->data(), ELFMAG, SELFMAG) != 0)
      fail("{}: is not a shared library (no ELF header); name a .so built with attune_add_plugin",
           path.string());
    header_ = table<Header>(0, 1, "header").front();
    if (header_.e_ident[EI_CLASS] != native_class || header_.e_ident[EI_DATA] != native_order ||
        header_.e_machine != native_machine)
      fail("{}: is a library for a different architecture; build it on this machine",
           path.string());
    if (header_.e_type != ET_DYN)
      fail("{}: is an ELF file but not a shared library; name a .so built with attune_add_plugin",
           path.string());
    if (header_.e_phentsize != sizeof(Segment) || header_.e_shentsize != sizeof(Section))
      refuse("table of sections");
    segments_ = table<Segment>(header_.e_phoff, header_.e_phnum, "table of segments");
    sections_ = table<Section>(header_.e_shoff, header_.e_shnum, "table of sections");
    for (const auto& segment : segments_) check(segment.p_offset, segment.p_filesz, "segment");
    for (const auto& section : sections_)
      if (section.sh_type != SHT_NOBITS && section.sh_type != SHT_NULL)
        check(section.sh_offset, section.sh_size, "section");
  }

  bool exports(std::string_view name) const {
    for (const auto& section : sections_) {
      if (section.sh_type != SHT_DYNSYM) continue;
      if (section.sh_link >= sections_.size()) refuse("table of names");
      const auto& names = sections_[section.sh_link];
      check(names.sh_offset, names.sh_size, "table of names");
      for (const auto& symbol :
           table<Symbol>(section.sh_offset, section.sh_size / sizeof(Symbol), "table of symbols"))
        if (is_exported_function(symbol) && text(names, symbol.st_name) == name) return true;
    }
    return false;
  }

  std::optional<std::string> note(std::string_view owner, std::uint32_t type) const {
    for (const auto& segment : segments_) {
      if (segment.p_type != PT_NOTE) continue;
      if (auto found = note_in(segment, owner, type)) return found;
    }
    return std::nullopt;
  }

 private:
  std::optional<std::string> note_in(const Segment& segment, std::string_view owner,
                                     std::uint32_t type) const {
    const std::uint64_t alignment = segment.p_align == 8 ? 8 : 4;
    const auto padded = [&](std::uint64_t size) {
      return (size + alignment - 1) / alignment * alignment;
    };
    const std::uint64_t end = segment.p_offset + segment.p_filesz;
    for (std::uint64_t at = segment.p_offset; at + sizeof(NoteHeader) <= end;) {
      const auto header = table<NoteHeader>(at, 1, "table of notes").front();
      const auto name = at + sizeof(NoteHeader);
      const auto text = at + padded(sizeof(NoteHeader) + header.n_namesz);
      if (text > end || header.n_descsz > end - text) refuse("table of notes");
      // The owner's name is stored with the zero that ends it.
      const bool is_owners =
          header.n_namesz == owner.size() + 1 && bytes(name, owner.size()) == owner;
      if (is_owners && header.n_type == type) return std::string(bytes(text, header.n_descsz));
      at = text + padded(header.n_descsz);
    }
    return std::nullopt;
  }

  std::string_view bytes(std::uint64_t offset, std::uint64_t size) const {
    check(offset, size, "table of notes");
    return {reinterpret_cast<const char*>(file_->data()) + offset, size};
  }

  static bool is_exported_function(const Symbol& symbol) {
    const auto binding = symbol.st_info >> 4;
    const auto type = symbol.st_info & 15;
    const auto visibility = symbol.st_other & 3;
    return type == STT_FUNC && symbol.st_shndx != SHN_UNDEF && binding != STB_LOCAL &&
           (visibility == STV_DEFAULT || visibility == STV_PROTECTED);
  }

  std::string_view text(const Section& names, std::uint64_t at) const {
    if (at >= names.sh_size) refuse("table of names");
    const auto* begin = reinterpret_cast<const char*>(file_->data()) + names.sh_offset + at;
    return {begin, ::strnlen(begin, names.sh_size - at)};
  }

  template <class T>
  std::vector<T> table(std::uint64_t offset, std::uint64_t count, const char* what) const {
    if (count > file_->size() / sizeof(T)) refuse(what);
    check(offset, count * sizeof(T), what);
    std::vector<T> entries(count);
    if (count) std::memcpy(entries.data(), file_->data() + offset, count * sizeof(T));
    return entries;
  }

  void check(std::uint64_t offset, std::uint64_t size, const char* what) const {
    if (offset > file_->size() || size > file_->size() - offset) refuse(what);
  }

  [[noreturn]] void refuse(const char* what) const {
    fail(
        "{}: is a truncated or damaged library: its {} exceeds the file's {} bytes; build or copy "
        "it again",
        file_->path().string(), what, file_->size());
  }

  std::shared_ptr<MappedFile> file_;
  Header header_{};
  std::vector<Segment> segments_;
  std::vector<Section> sections_;
};

}  // namespace

bool exports_symbol(const std::filesystem::path& library, std::string_view function) {
  return LibraryFile(library).exports(function);
}

std::optional<std::string> read_note(const std::filesystem::path& library, std::string_view owner,
                                     std::uint32_t type) {
  return LibraryFile(library).note(owner, type);
}

}  // namespace attune::registry
