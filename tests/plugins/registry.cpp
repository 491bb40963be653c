// The loader against libraries built to be refused (tests/plugins/fixtures), with the whole message
// each time.
#include <attune/error.hpp>
#include <attune/plugin.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <link.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "core/files.hpp"
#include "errors.hpp"
#include "registry/built_for.hpp"
#include "registry/elf.hpp"
#include "registry/loader.hpp"

namespace attune {
namespace {
namespace fs = std::filesystem;

const fs::path fixtures = fs::path(ATTUNE_BINARY_DIR) / "tests" / "fixtures";

const std::string headers_differ = "its Attune headers are 0123456789abcdef (Attune " ATTUNE_RELEASE
                                   "), here " ATTUNE_API_HASH " (Attune " ATTUNE_RELEASE ")";

fs::path fixture(const std::string& name) { return fs::canonical(fixtures / (name + ".so")); }

/// The text of the Error that refuses these places; the registry must be as it was.
std::string refusal(const std::vector<fs::path>& places) {
  Registry registry;
  registry.add({Kind::callback, "kept", "", "built in", "", {}, nullptr, nullptr});
  std::string text = "accepted";
  try {
    load_plugins(registry, places);
  } catch (const Error& error) {
    text = error.what();
  }
  EXPECT_EQ(registry.names(Kind::callback), std::vector<std::string>{"kept"});
  EXPECT_EQ(registry.entries().size(), 1);
  return text;
}

std::string refusal_of_fixture(const std::string& name) { return refusal({fixture(name)}); }

/// Whether this process has a library of that file name open.
bool is_open(std::string_view name) {
  std::pair<std::string_view, bool> found{name, false};
  ::dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* data) {
        auto& [wanted, open] = *static_cast<std::pair<std::string_view, bool>*>(data);
        open = open || std::string_view(info->dlpi_name).ends_with(std::string("/").append(wanted));
        return 0;
      },
      &found);
  return found.second;
}

class RegistryFiles : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "attune-registry-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = fs::canonical(pattern);
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path write(const std::string& name, const std::string& content) {
    std::ofstream(folder_ / name, std::ios::binary) << content;
    return folder_ / name;
  }

  fs::path folder_;
};

TEST(Loader, AcceptsALibraryBuiltForThisAttune) {
  Registry registry;
  const auto loaded = load_plugins(registry, {fixture("empty")});
  ASSERT_EQ(loaded.size(), 1);
  EXPECT_EQ(loaded[0].name, "forged");
  EXPECT_EQ(loaded[0].version, "1.0.0");
  EXPECT_EQ(loaded[0].file, fixture("empty"));
}

TEST(Loader, RefusesOtherHeaders) {
  EXPECT_EQ(refusal_of_fixture("other_headers"),
            fixture("other_headers").string() +
                ": was built for a different Attune: " + headers_differ +
                "; rebuild it against this Attune's headers, with this Attune's compiler settings");
}

TEST(Loader, ReportsEveryMismatchInOneMessage) {
  EXPECT_EQ(refusal_of_fixture("other_everything"), fixture("other_everything").string() + ": was built for a different Attune: " + headers_differ +
            "; its LibTorch is 2.12.0, here " TORCH_VERSION "; its compiler is clang++ 19, here " ATTUNE_COMPILER
            "; its C++ standard is 201703L, here " ATTUNE_STRINGIFY(__cplusplus) "; rebuild it against this Attune's headers, with this Attune's compiler settings");
}

TEST(Loader, RefusesAPluginWithoutANote) {
  EXPECT_EQ(refusal_of_fixture("without_note"),
            fixture("without_note").string() +
                ": does not declare which Attune it was built for, like plugins of older versions; "
                "rebuild it against this Attune's headers");
}

TEST(Loader, OpensNoneOfThem) {
  for (const char* name : {"other_headers", "other_everything", "without_note"}) {
    refusal_of_fixture(name);
    EXPECT_EQ(::dlopen(fixture(name).c_str(), RTLD_NOW | RTLD_NOLOAD), nullptr) << name;
  }
  EXPECT_NE(refusal_of_fixture("throws"), "accepted");
  EXPECT_NE(::dlopen(fixture("throws").c_str(), RTLD_NOW | RTLD_NOLOAD), nullptr)
      << "which fits, and is opened";
}

const std::string note_here = ATTUNE_BUILT_FOR("\n");

TEST(BuiltFor, ANoteOfThisAttuneFits) {
  EXPECT_EQ(registry::read_note(fixture("empty"), ATTUNE_NOTE_OWNER, ATTUNE_NOTE_TYPE), note_here);
  EXPECT_THAT(registry::mismatches(note_here), testing::IsEmpty());
  EXPECT_THAT(registry::mismatches(note_here + "later=fact\n"), testing::IsEmpty());
}

TEST(BuiltFor, EveryFactButTheReleaseIsCompared) {
  std::istringstream lines(note_here);
  for (std::string line; std::getline(lines, line);) {
    const auto key = line.substr(0, line.find('='));
    const auto value = line.substr(line.find('=') + 1);
    auto other = note_here;
    const auto found =
        registry::mismatches(other.replace(note_here.find(line), line.size(), key + "=other"));
    if (key == "attune") {
      EXPECT_THAT(found, testing::IsEmpty());
      continue;
    }
    ASSERT_THAT(found, testing::SizeIs(1)) << line;
    EXPECT_THAT(found[0], testing::MatchesRegex("its .+ (is|are) other.*, here .+"));
    EXPECT_THAT(found[0], testing::HasSubstr(", here " + value));
    auto without = note_here;
    EXPECT_THAT(registry::mismatches(without.erase(note_here.find(line), line.size() + 1)),
                testing::ElementsAre(testing::HasSubstr(" unknown, here ")))
        << line;
  }
}

TEST(BuiltFor, BytesThatAreNoTextAreNotRepeated) {
  EXPECT_THAT(registry::mismatches(""), testing::SizeIs(8));
  EXPECT_EQ(registry::mismatches("headers=\x1b[31m\nattune=" + std::string(1000, 'x'))[0],
            "its Attune headers are unreadable (Attune unreadable), here " +
                std::string(ATTUNE_API_HASH " (Attune " ATTUNE_RELEASE ")"));
}

TEST(Loader, RefusesAStructThatIsShorterThanOurs) {
  EXPECT_EQ(refusal_of_fixture("older_struct"),
            fixture("older_struct").string() +
                ": its description has 24 bytes, but this Attune reads " +
                std::to_string(sizeof(AttunePluginInfo)) +
                ": it was built with an older Attune; rebuild it with this one");
}

TEST(Loader, RefusesAnIncompleteDescription) {
  EXPECT_EQ(refusal_of_fixture("nameless"),
            fixture("nameless").string() +
                ": its description is incomplete; add ATTUNE_PLUGIN(\"name\", \"version\", "
                "registry) at the end of its source");
}

TEST(Loader, NamesTheFileAndTheTextWhenAddThrows) {
  EXPECT_EQ(refusal_of_fixture("throws"),
            fixture("throws").string() +
                ": plugin 'forged' failed during registration: the table of kernels is empty");
}

TEST(Loader, RefusesALibraryWithoutTheEntryPointBeforeOpeningIt) {
  EXPECT_EQ(refusal_of_fixture("not_a_plugin"),
            fixture("not_a_plugin").string() +
                ": is a shared library but not an Attune plugin (it does not export "
                "'attune_plugin'); add ATTUNE_PLUGIN(...) at the end of its source");
  EXPECT_EQ(::dlopen(fixture("not_a_plugin").c_str(), RTLD_NOW | RTLD_NOLOAD), nullptr);
}

TEST(Loader, SaysWhyALibraryCannotBeOpenedAndTheCure) {
  const auto text = refusal_of_fixture("needs_missing_symbol");
  EXPECT_TRUE(text.starts_with(fixture("needs_missing_symbol").string() + ": cannot be opened ("))
      << text;
  EXPECT_NE(text.find("undefined symbol: attune_of_another_day"), std::string::npos) << text;
  EXPECT_TRUE(text.ends_with(
      "; it was built against a different Attune or LibTorch: rebuild it against this one"))
      << text;
}

TEST(Loader, RefusesAPlaceThatDoesNotExist) {
  EXPECT_EQ(refusal({"/nowhere/plugins"}),
            "/nowhere/plugins: there is no such plugin file or folder; correct `plugins` in the "
            "run file, or ATTUNE_PLUGINS");
}

TEST(Loader, TakesNothingOverWhenOneOfSeveralIsRefused) {
  EXPECT_NE(refusal({fixture("empty"), fixture("throws")}), "accepted");
}

TEST_F(RegistryFiles, TextNamedLikeALibraryIsRefused) {
  const auto file = write("text.so",
                          "#!/bin/sh\necho this is no library, though its name ends in .so and it "
                          "is longer than a header\n");
  EXPECT_EQ(
      refusal({file}),
      file.string() +
          ": is not a shared library (no ELF header); name a .so built with attune_add_plugin");
  EXPECT_EQ(
      refusal({write("empty.so", "")}),
      (folder_ / "empty.so").string() +
          ": is not a shared library (no ELF header); name a .so built with attune_add_plugin");
}

TEST_F(RegistryFiles, AProgramIsNotAPlugin) {
  auto program = read_text(fixture("empty"));
  program[16] = ET_EXEC;
  EXPECT_EQ(
      refusal({write("program.so", program)}),
      (folder_ / "program.so").string() +
          ": is an ELF file but not a shared library; name a .so built with attune_add_plugin");
}

TEST_F(RegistryFiles, ALibraryForAnotherMachineIsRefused) {
  auto other = read_text(fixture("empty"));
  other[18] = static_cast<char>(EM_S390);
  EXPECT_EQ(refusal({write("other.so", other)}),
            (folder_ / "other.so").string() +
                ": is a library for a different architecture; build it on this machine");
}

TEST_F(RegistryFiles, EveryTruncationIsRefused) {
  const auto whole = read_text(fixture("empty"));
  for (std::size_t size = 0; size < whole.size();
       size += size < 128 || size + 128 > whole.size() ? 1 : 97) {
    const auto text = refusal({write("short.so", whole.substr(0, size))});
    EXPECT_TRUE(text.starts_with((folder_ / "short.so").string() + ": is "))
        << size << ": " << text;
  }
  EXPECT_EQ(refusal({write("short.so", whole.substr(0, whole.size() - 1))}),
            fmt::format("{}: is a truncated or damaged library: its table of sections exceeds the "
                        "file's {} bytes; build or copy it again",
                        (folder_ / "short.so").string(), whole.size() - 1));
}

// Only reading is tried here: a library with a whole outline and a forged inside may be opened, and
// then runs.
TEST_F(RegistryFiles, ForgedTablesAreReadWithoutLeavingTheFile) {
  const auto whole = read_text(fixture("empty"));
  const auto file = write("forged.so", whole);
  std::fstream bytes(file, std::ios::binary | std::ios::in | std::ios::out);
  const auto put = [&](std::size_t at, char value) {
    bytes.seekp(static_cast<std::streamoff>(at)).put(value).flush();
  };
  const auto read = [&] {
    registry::exports_symbol(file, "attune_plugin");
    if (const auto note = registry::read_note(file, ATTUNE_NOTE_OWNER, ATTUNE_NOTE_TYPE))
      registry::mismatches(*note);
  };
  const auto forge = [&](std::size_t begin, std::size_t end) {
    for (std::size_t at = begin; at < end; ++at) {
      for (const char value : {'\0', '\x7f', '\xff'}) {
        put(at, value);
        try {
          read();
        } catch (const Error& error) {
          EXPECT_TRUE(std::string(error.what()).starts_with(file.string() + ": is ")) << at;
        }
      }
      put(at, whole[at]);
    }
  };
  ElfW(Ehdr) header;
  std::memcpy(&header, whole.data(), sizeof header);
  forge(0, sizeof header);
  forge(header.e_phoff, header.e_phoff + header.e_phnum * sizeof(ElfW(Phdr)));
  forge(header.e_shoff, header.e_shoff + header.e_shnum * sizeof(ElfW(Shdr)));
  // the owner's name fills 8 bytes
  const auto note = whole.find(note_here) - sizeof(ElfW(Nhdr)) - 8;
  forge(note, note + sizeof(ElfW(Nhdr)) + 8);
  EXPECT_TRUE(registry::exports_symbol(file, "attune_plugin"));
  EXPECT_EQ(registry::read_note(file, ATTUNE_NOTE_OWNER, ATTUNE_NOTE_TYPE), note_here);
}

TEST_F(RegistryFiles, ANoteOfAnotherOwnerOrTypeIsNone) {
  const auto whole = read_text(fixture("empty"));
  const auto owner = whole.find(note_here) - 8;
  const auto type = owner - sizeof(ElfW(Word));
  for (const auto at : {owner, type}) {
    auto other = whole;
    ++other[at];
    EXPECT_EQ(registry::read_note(write("other.so", other), ATTUNE_NOTE_OWNER, ATTUNE_NOTE_TYPE),
              std::nullopt);
  }
}

TEST_F(RegistryFiles, ANoteLongerThanItsSegmentIsRefused) {
  auto longer = read_text(fixture("empty"));
  const auto length = longer.find(note_here) - 8 - 2 * sizeof(ElfW(Word));
  longer[length + 3] = 0x7f;
  EXPECT_EQ(refusal({write("longer.so", longer)}),
            fmt::format("{}: is a truncated or damaged library: its table of notes exceeds the "
                        "file's {} bytes; build or copy it again",
                        (folder_ / "longer.so").string(), longer.size()));
}

TEST_F(RegistryFiles, AFolderGivesItsLibrariesOnceAndIgnoresTheRest) {
  fs::copy_file(fixture("empty"), folder_ / "b.so");
  fs::copy_file(fixture("empty"), folder_ / "a.so");
  fs::create_symlink(folder_ / "a.so", folder_ / "link.so");
  write("README.md", "not a library");
  Registry registry;
  const auto loaded = load_plugins(registry, {folder_, folder_ / "b.so"});
  ASSERT_EQ(loaded.size(), 2);
  EXPECT_EQ(loaded[0].file, folder_ / "a.so");
  EXPECT_EQ(loaded[1].file, folder_ / "b.so");
}

TEST_F(RegistryFiles, ALinkToNothingIsRefused) {
  fs::create_symlink(folder_ / "gone.so", folder_ / "dangling.so");
  EXPECT_EQ(
      refusal({folder_}),
      (folder_ / "dangling.so").string() +
          ": is a dangling link (No such file or directory); remove it or rebuild the plugin");
}

TEST_F(RegistryFiles, AStrippedLibraryIsStillAPlugin) {
  const auto stripped = folder_ / "stripped.so";
  ASSERT_EQ(
      std::system(
          fmt::format("strip -o {} {}", stripped.string(), fixture("empty").string()).c_str()),
      0);
  Registry registry;
  EXPECT_EQ(load_plugins(registry, {stripped}).size(), 1);
}

TEST(PluginPlaces, FollowTheEnvironment) {
  ::setenv("ATTUNE_PLUGINS", "/first::/second", 1);
  const auto places = default_plugin_places();
  ::unsetenv("ATTUNE_PLUGINS");
  ASSERT_GE(places.size(), 2);
  EXPECT_EQ(places[places.size() - 2], "/first");
  EXPECT_EQ(places.back(), "/second");
}

TEST(NamedPlugins, OnlyTheyAreOpenedUntilAnotherIsLookedFor) {
  const auto folder = fs::canonical(ATTUNE_BINARY_DIR "/plugins");
  Registry registry;
  load_named_plugins(registry, {folder}, {"lora", "llama"});
  EXPECT_EQ(registry.find(Kind::strategy, "lora").file, (folder / "lora.so").string());
  EXPECT_FALSE(is_open("bert.so"));
  EXPECT_TRUE(registry.has(Kind::model, "mistral"));  // in llama.so
  EXPECT_FALSE(is_open("bert.so"));
  const auto& lora = registry.find(Kind::strategy, "lora");
  EXPECT_EQ(registry.find(Kind::model, "bert").name, "bert");
  EXPECT_TRUE(is_open("bert.so"));
  EXPECT_EQ(&lora, &registry.find(Kind::strategy, "lora")) << "entries stay where they are";
  EXPECT_THAT(error_of([&] { registry.find(Kind::strategy, "lroa"); }),
              testing::HasSubstr("did you mean 'lora'? (there are: lora, adapter, bitfit"));
}

class Names : public testing::Test {
 protected:
  void add(Kind kind, const std::string& name, const std::string& plugin, const std::string& file) {
    registry_.add({kind, name, "", plugin, file, {}, nullptr, nullptr});
  }
  Registry registry_;
};

TEST_F(Names, TakenTwiceNamesBothFiles) {
  add(Kind::strategy, "lora", "lora 1.0.0", "/a/lora.so");
  add(Kind::callback, "lora", "lora 1.0.0", "/a/lora.so");  // another kind: another name
  EXPECT_EQ(error_of([&] { add(Kind::strategy, "lora", "mine 0.1.0", "/b/mine.so"); }),
            "the strategy 'lora' is registered twice, by /a/lora.so (lora 1.0.0) and by /b/mine.so "
            "(mine 0.1.0); rename one of them, or remove one library from the plugin folders");
  EXPECT_EQ(registry_.entries().size(), 2);
}

TEST_F(Names, UnknownOneListsTheKindNearestFirst) {
  for (const char* name : {"full", "lora", "freeze"}) add(Kind::strategy, name, "p 1", "/p.so");
  add(Kind::model, "llama", "p 1", "/p.so");
  EXPECT_EQ(error_of([&] { registry_.find(Kind::strategy, "lroa"); }),
            "there is no strategy 'lroa'; did you mean 'lora'? (there are: lora, freeze, full)");
  EXPECT_EQ(error_of([&] { registry_.find(Kind::strategy, "llama"); }),
            "there is no strategy 'llama' (there are: freeze, full, lora)");
  EXPECT_EQ(error_of([&] { registry_.find(Kind::callback, "progress"); }),
            "there is no callback 'progress': no plugin with a callback is loaded; add its folder "
            "to `plugins` or ATTUNE_PLUGINS");
  EXPECT_EQ(registry_.find(Kind::model, "llama").name, "llama");
}

}  // namespace
}  // namespace attune
