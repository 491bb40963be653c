"""What a plugin library was built for is compared before it is opened, and libattune.so exports the public headers alone.

    abi_test.py BUILD_FOLDER CXX_COMPILER INCLUDE_FOLDER...

The include folders are those of LibTorch. Works in BUILD_FOLDER/tests/abi, which it makes anew.
"""
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from tiny import Workplace, check

source = Path(__file__).resolve().parents[2]
build, compiler, torch_folders = Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3:]
work = Workplace(build / "tests" / "abi")
program = Path(shutil.copy2(build / "attune", work / "attune"))  # where there are no plugins but those of this test
opened = work / "opened"
run = work.run

# Makes a file when it is opened, and then turns out to describe nothing.
PLUGIN = """
#include <attune/built_for.hpp>
#include <cstdio>
#ifndef WITHOUT_NOTE
ATTUNE_NOTE(ATTUNE_BUILT_FOR("\\\\n"))
#endif
[[gnu::constructor]] static void is_opened() { std::fclose(std::fopen(OPENED, "w")); }
extern "C" __attribute__((visibility("default"))) const void* attune_plugin() { return nullptr; }
"""


def note_of(library):
    """The facts in a library's note. Attune's own plugins are built as Attune is."""
    text = re.search(rb"attune=[^\0]*\n", library.read_bytes())
    check(text, f"{library} has a note")
    return dict(line.split("=", 1) for line in text[0].decode().splitlines())


here = note_of(build / "plugins" / "lora.so")


def copy_of_headers(name):
    shutil.copytree(source / "framework" / "include" / "attune", work / name / "attune")
    return work / name


def hash_headers(folder):
    """What the build does; returns the hash."""
    to = folder / "attune" / "api_hash.hpp"
    run("cmake", "-D", f"FOLDER={folder}", "-D", f"RELEASE={here['attune']}", "-D", f"TO={to}", "-P", source / "framework/cmake/AttuneApiHash.cmake")
    return re.search(r'ATTUNE_API_HASH "([0-9a-f]{16})"', to.read_text())[1]


def compiled(name, *flags, headers=None, cxx=compiler, standard="c++20"):
    (work / "plugin.cpp").write_text(PLUGIN)
    own = [headers] if headers else [source / "framework" / "include", build / "include"]
    folders = [option for folder in own for option in ("-I", folder)] + [option for folder in torch_folders for option in ("-isystem", folder)]
    library = work / f"{name}.so"
    run(cxx, f"-std={standard}", "-shared", "-fPIC", f'-DOPENED="{opened}"', *folders, *flags, work / "plugin.cpp", "-o", library)
    return library


def listed(library):
    """What `attune list` says of this one plugin, which is refused in any case, and whether it was opened."""
    opened.unlink(missing_ok=True)
    said = run("env", f"ATTUNE_PLUGINS={library}", program, "list", expect=2)
    check(said.startswith(f"attune: {library}: ") and said.count("\n") == 1, f"one sentence names the file: {said}")
    return said.strip(), opened.exists()


def check_opened(library, why):
    said, is_opened = listed(library)
    check(is_opened and "returned nothing" in said, f"{why}: {said}")


def check_refused(library, *facts):
    said, is_opened = listed(library)
    check(not is_opened, f"none of its code has run: {said}")
    for fact in facts:
        check(fact in said, f"the message has '{fact}': {said}")
    return said


def differs(what, theirs, key):
    return f"{what} {theirs}, here {here[key]}"


def refuses_other_builds():
    cure = "; rebuild it against this Attune's headers, with this Attune's compiler settings"
    said = check_refused(compiled("containers", "-D_GLIBCXX_DEBUG"), differs("its containers are", "debug (_GLIBCXX_DEBUG)", "containers"))
    check(said.endswith(cure) and said.count(", here ") == 1, f"nothing else differs: {said}")
    check_refused(compiled("address", "-fsanitize=address"), differs("its sanitizer is", "address", "sanitizer"))
    check_refused(compiled("thread", "-fsanitize=thread"), differs("its sanitizer is", "thread", "sanitizer"))
    check_refused(compiled("standard", standard="c++23"), "its C++ standard is 202", differs("", "", "standard").strip(" "))
    check_refused(compiled("old_strings", "-D_GLIBCXX_USE_CXX11_ABI=0"), "cxx11 ABI 0, here libstdc++")
    clang = next((found for name in ("clang++", "clang++-16") if (found := shutil.which(name))), None)
    if clang and here["compiler"].startswith("g++"):
        check_refused(compiled("clang", cxx=clang), "its compiler is clang++ ", f", here {here['compiler']}")
    return clang


def accepts_what_changes_no_layout():
    check_opened(compiled("fits"), "one that fits is opened")
    check_opened(compiled("optimised", "-O3", "-march=native", "-DNDEBUG", "-g"), "another optimisation is the same ABI")
    check_opened(compiled("undefined", "-fsanitize=undefined"), "what checks undefined behaviour can be loaded at any time")
    collected = compiled("collected", "-O2", "-flto", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections")
    run("strip", collected)
    check_opened(collected, "the note survives link-time optimisation, the removal of unused sections, and strip")


def refuses_what_is_no_plugin():
    fits = compiled("fits").read_bytes()
    without = check_refused(compiled("without_note", "-DWITHOUT_NOTE"), "does not declare which Attune it was built for", "rebuild it against this Attune's headers")
    check("older versions" in without, without)
    strange = {"empty": b"", "script": b"#!/bin/sh\ntouch opened\n" * 9, "half": fits[: len(fits) // 2], "machine": fits[:18] + b"\x16\0" + fits[20:],
               "program": fits[:16] + b"\2\0" + fits[18:]}
    for name, content in strange.items():
        (work / f"{name}.so").write_bytes(content)
        check_refused(work / f"{name}.so", ": is ", "; ")


def headers_have_one_hash():
    untouched = hash_headers(copy_of_headers("untouched"))
    check(untouched == here["headers"], f"the build has the hash of its headers: {untouched}, {here}")
    header = "attune/batch.hpp"
    text = (work / "untouched" / header).read_text()
    code = "struct Batch {"
    check(code in text and "#pragma once\n" in text, f"{header} is as this test takes it to be")

    same = {"comment": text.replace(code, code + "  // 'another\" comment"), "block_comment": text.replace(code, f"/* two\n lines // */{code}"),
            "blanks": text.replace(code, "struct  Batch\n{"), "returns": text.replace("\n", "\r\n"),
            "comment_in_literal_kept": text.replace(code, f"// \"\n{code}")}
    other = {"field": text.replace(code, code + " int more = 0;"), "order": text.replace(code, "struct Other;\n" + code),
             "literal": text.replace(code, 'inline const char* a = "//b"; ' + code), "digits": text.replace(code, "inline int a = 1'000;// 'b'\n" + code),
             "directive": text.replace("#pragma once\n", "#pragma once\n#define A\n")}
    for name, changed in (same | other).items():
        check(changed != text, name)
        folder = copy_of_headers(name)
        (folder / header).write_text(changed, newline="")
        found = hash_headers(folder)
        check((found == untouched) == (name in same), f"'{name}' {'keeps' if name in same else 'changes'} the hash")

    in_literal = {"one": '"//b"', "two": '"//c"', "three": "'\"' //b"}
    hashes = set()
    for name, literal in in_literal.items():
        folder = copy_of_headers(name)
        (folder / header).write_text(text.replace(code, f"inline auto a = {literal}\n; {code}"))
        hashes.add(hash_headers(folder))
    check(len(hashes) == 3, "what looks like a comment in a literal is code")

    check_refused(compiled("headers", headers=work / "field"), "its Attune headers are ", f", here {untouched} (Attune {here['attune']})")
    check_opened(compiled("commented", headers=work / "comment"), "a comment makes no other headers")

    written = work / "untouched" / "attune" / "api_hash.hpp"
    before = written.stat().st_mtime_ns
    hash_headers(work / "untouched")
    check(written.stat().st_mtime_ns == before, "a hash that is the same is not written again")
    (work / "field" / header).write_text(text.replace(code, 'inline const char* a = R"(//b)"; ' + code))
    said = run("cmake", "-D", f"FOLDER={work / 'field'}", "-D", "RELEASE=1", "-D", f"TO={work / 'raw.hpp'}", "-P",
               source / "framework/cmake/AttuneApiHash.cmake", expect=1)
    check("holds a raw string" in " ".join(said.split()), f"a raw string is refused, not misread: {said}")  # CMake wraps its messages


def symbols(library, which):
    """Demangled, without versions."""
    lines = run("nm", "-DC", which, library).splitlines()
    return [line.lstrip("0123456789abcdef ")[2:] for line in lines if line.strip()]


# Exported beside what the public headers declare: the program (docs/design/0024-plugin-abi.md).
PROGRAM = "attune::program::run(int, char**)"
NAMESPACES = {"attune", "nn", "metrics", "text", "detail", "testing"}


def without_comments(text):
    return re.sub(r"//[^\n]*", " ", text)


def exports_the_public_headers_alone():
    words = set()
    for header in (source / "framework" / "include" / "attune").glob("*.hpp"):
        words |= set(re.findall(r"\w+", without_comments(header.read_text())))
    exported = symbols(build / "libattune.so", "--defined-only")
    check(PROGRAM in exported, f"{PROGRAM} is exported")
    for symbol in set(exported) - {PROGRAM}:
        name = re.search(r"\battune::[\w:~]+", re.sub(r"^(typeinfo|typeinfo name|vtable) for ", "", symbol).split("(")[0])
        check(name, f"libattune.so exports nothing of others: {symbol}")
        for part in name[0].split("::"):
            check(part in NAMESPACES or part.removeprefix("~") in words, f"'{part}' of {symbol} is declared in a public header, or not exported")
    for needed in ("attune::Registry::add(", "typeinfo for attune::Error", "vtable for attune::Strategy", "bool attune::nn::config_value<bool>("):
        check(any(symbol.startswith(needed) for symbol in exported), f"{needed} is exported")

    plugins = sorted((build / "plugins").glob("*.so"))
    check(len(plugins) > 40, f"all plugins are built: {len(plugins)}")
    for plugin in plugins:
        lacking = [symbol for symbol in symbols(plugin, "--undefined-only") if "attune::" in symbol and symbol not in exported]
        check(not lacking, f"{plugin.name} needs what libattune.so does not export: {lacking}")
    return len(exported)


def links_plugins_with_all_they_need():
    (work / "lacking.cpp").write_text("namespace attune { void of_another_day(); }\nvoid use() { attune::of_another_day(); }\n")
    (work / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.25)\nproject(lacking LANGUAGES CXX)\nadd_library(attune SHARED nothing.cpp)\n"
                                         "add_library(Attune::attune ALIAS attune)\n"
                                         f"include({source}/framework/cmake/AttunePlugin.cmake)\nattune_add_plugin(lacking lacking.cpp)\n")
    (work / "nothing.cpp").write_text("")
    run("cmake", "-S", work.folder, "-B", work / "lacking", f"-DCMAKE_CXX_COMPILER={compiler}")
    process = subprocess.run(["cmake", "--build", work / "lacking"], capture_output=True, text=True)
    said = process.stdout + process.stderr
    check(process.returncode != 0 and "undefined reference to `attune::of_another_day()'" in said, f"a plugin that lacks a symbol is not linked: {said}")


accepts_what_changes_no_layout()
clang = refuses_other_builds()
refuses_what_is_no_plugin()
headers_have_one_hash()
links_plugins_with_all_they_need()
exported = exports_the_public_headers_alone()
print(f"compared before opening ({'with' if clang else 'without'} clang++); libattune.so exports {exported} symbols")
