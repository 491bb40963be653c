// Sources, the order of samples, and packing.
#include <ATen/ops/tensor.h>
#include <attune/batch.hpp>
#include <attune/error.hpp>
#include <gmock/gmock.h>
#include <png.h>
#include <zlib.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include <jpeglib.h>

#include "core/files.hpp"
#include "core/hash.hpp"
#include "data/sampler.hpp"
#include "prepare/formats.hpp"

namespace attune {
namespace {
namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

std::string told(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

class Sources : public testing::Test {
 protected:
  fs::path folder_ = fs::path(testing::TempDir()) / ("attune-source-" + std::to_string(::getpid()));
  Ledger ledger_;  // of the last read
  Sources() { fs::create_directories(folder_); }
  ~Sources() override { fs::remove_all(folder_); }

  /// Every record of a file or folder here, block by block.
  std::vector<Record> read_source(SourceOptions options, const std::string& name) {
    options.path = name;
    ledger_ = Ledger();
    const auto source = scan_source(options, folder_ / name);
    std::vector<Record> records;
    for (const auto& block : source.blocks)
      read_block(source, block, ledger_, [&](Record& record) { records.push_back(record); });
    return records;
  }
  std::vector<Record> read(const std::string& name, const std::string& text,
                           SourceOptions options = {}) {
    write_text(folder_ / name, text);
    return read_source(options, name);
  }
  std::string refusal(const std::string& name, const std::string& text,
                      SourceOptions options = {}) {
    write_text(folder_ / name, text);
    return refusal_of(options, name);
  }
  std::string refusal_of(const SourceOptions& options, const std::string& name) {
    return told([&] { read_source(options, name); });
  }
  static SourceOptions mapped(OptionMap fields) {
    SourceOptions options;
    options.fields = std::move(fields);
    return options;
  }
  static SourceOptions laid_out(std::string layout) {
    SourceOptions options;
    options.layout = std::move(layout);
    return options;
  }
};

TEST_F(Sources, QuotedFieldsMayHoldDelimitersQuotesAndLineBreaks) {
  const auto records = read("a.csv", "text,label\n\"one, \"\"two\"\"\nthree\",x\nplain,y\n");
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].field("text"), "one, \"two\"\nthree");
  EXPECT_EQ(records[0].row, 2);
  EXPECT_EQ(records[1].field("label"), "y");
  EXPECT_EQ(records[1].row, 4) << "rows are lines, so that an editor finds them";
}

TEST_F(Sources, ByteOrderMarkCarriageReturnsEmptyLinesAndAMissingLastLineEndAreAccepted) {
  const auto records = read("a.csv", "\xef\xbb\xbftext,label\r\n\r\na,x\r\n\r\nb,");
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].field("label"), "x");
  EXPECT_EQ(records[1].field("text"), "b");
  EXPECT_EQ(records[1].field("label"), "");
}

TEST_F(Sources, NothingIsQuotedInTsv) {
  const auto records = read("a.tsv", "text\tlabel\n\"Alien\" is, well, good\t1\n");
  EXPECT_EQ(records.at(0).field("text"), "\"Alien\" is, well, good");
}

TEST_F(Sources, ACsvMayHaveAnotherDelimiter) {
  SourceOptions options;
  options.delimiter = ";";
  EXPECT_EQ(read("a.csv", "text;label\n\"a;b\";c\n", options).at(0).field("text"), "a;b");
}

TEST_F(Sources, AMappedFieldOfAnyNameMayBeAList) {
  const auto record =
      read("a.jsonl", R"({"a": ["a", "b"], "b": [1, 0.5, true], "c": [], "d": ["x"]})",
           mapped({{"text", "a"}, {"scores", "b"}, {"none", "c"}}))
          .at(0);
  EXPECT_EQ(record.list("text"), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(record.list("scores"), (std::vector<std::string>{"1", "0.5", "true"}));
  EXPECT_TRUE(record.list("none").empty());
  EXPECT_THAT(told([&] { record.field("text"); }), HasSubstr("row 1: the field 'text' is a list"));
  EXPECT_THAT(told([&] { record.list("deep"); }),
              HasSubstr("there is no field 'deep' (existing fields: none, scores, text)"));
  EXPECT_THAT(refusal("a.jsonl", R"({"a": ["a", null]})", mapped({{"text", "a"}})),
              HasSubstr("one of its elements is not a text"));
}

TEST_F(Sources, WithoutAMappingListsOfOtherNamesAreLeftOut) {
  const auto record =
      read("a.jsonl", R"({"text": "t", "embedding": [0.5, 1], "tags": ["x"]})").at(0);
  EXPECT_TRUE(record.lists.contains("tags"));
  EXPECT_FALSE(record.lists.contains("embedding")) << "it would count as text of the record";
}

TEST_F(Sources, ATextIsReadAsAListWhereAKindWantsOne) {
  const auto record = read("a.csv", "labels,names,tags\n\"[\"\"a b\"\", 2.0]\", x ; y;,[1\n").at(0);
  EXPECT_EQ(record.list("labels"), (std::vector<std::string>{"a b", "2"}));
  EXPECT_EQ(record.list("names", ";"), (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(record.list("names"), (std::vector<std::string>{"x", ";", "y;"}));
  EXPECT_THAT(told([&] { record.list("tags"); }), HasSubstr("begins like a JSON list"));
}

TEST_F(Sources, GzippedFilesReadAsTheyWerePlain) {
  const auto path = folder_ / "a.jsonl.gz";
  const std::string text =
      "{\"text\": \"hello\", \"n\": 3, \"yes\": true}\n\n{\"text\": \"w\\u00f6rld\"}\n";
  gzFile file = gzopen(path.c_str(), "wb");
  gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
  gzclose(file);

  const auto records = read_source({}, "a.jsonl.gz");

  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].field("n"), "3");
  EXPECT_EQ(records[0].field("yes"), "true");
  EXPECT_EQ(records[1].field("text"), "wörld");
  EXPECT_EQ(records[1].row, 3);
  fs::resize_file(path, fs::file_size(path) - 12);
  EXPECT_THAT(([&]() -> std::string {
                try {
                  read_source({}, "a.jsonl.gz");
                } catch (const Error& e) {
                  return e.what();
                }
                return "";
              })(),
              HasSubstr("cannot be decompressed"));
}

/// Bytes that this process has read, files in the page cache included.
std::uint64_t bytes_read() {
  std::ifstream status("/proc/self/io");
  std::string name;
  std::uint64_t bytes = 0;
  status >> name >> bytes;  // rchar comes first
  return bytes;
}

TEST_F(Sources, EachBlockIsReadOnceWhereverItLies) {
  constexpr std::uint64_t line_bytes = 1 << 10;
  const auto path = folder_ / "long.jsonl";
  {
    std::ofstream file(path);
    for (std::uint64_t at = 0; at < 6 * block_bytes; at += line_bytes)
      file << R"({"text": ")" << std::string(line_bytes - 13, 'a') << "\"}\n";
  }
  SourceOptions options;
  options.path = "long.jsonl";
  const auto source = scan_source(options, path);
  ASSERT_GE(source.blocks.size(), 6u);
  const auto before = bytes_read();
  Ledger ledger;
  std::int64_t records = 0;
  for (auto block = source.blocks.rbegin(); block != source.blocks.rend(); ++block)
    read_block(source, *block, ledger, [&](Record&) { ++records; });
  EXPECT_EQ(records, static_cast<std::int64_t>(6 * block_bytes / line_bytes));
  EXPECT_LT(bytes_read() - before, source.bytes() * 3 / 2);
}

TEST_F(Sources, FieldsAreMappedAndOthersLeftOut) {
  const auto record =
      read("a.csv", "id,review,stars\n1,good,5\n", mapped({{"text", "review"}, {"label", "stars"}}))
          .at(0);
  EXPECT_EQ(record.fields, (std::map<std::string, std::string>{{"text", "good"}, {"label", "5"}}));
}

TEST_F(Sources, LayoutsGivePromptAndResponse) {
  const auto pair = read("a.jsonl", R"({"prompt": "p", "completion": "c", "system": "s"})",
                         laid_out("prompt_completion"))
                        .at(0);
  EXPECT_EQ(pair.fields, (std::map<std::string, std::string>{
                             {"prompt", "p"}, {"response", "c"}, {"system", "s"}}));
  const auto alpaca = read(
      "a.json",
      R"([{"instruction": "do", "input": "this", "output": "o"}, {"instruction": "do", "input": "", "output": "o"}])",
      laid_out("alpaca"));
  EXPECT_EQ(alpaca.at(0).field("prompt"), "do\n\nthis");
  EXPECT_EQ(alpaca.at(1).field("prompt"), "do");
  EXPECT_EQ(alpaca.at(1).field("response"), "o");
  const auto chat =
      read(
          "a.jsonl",
          R"({"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]})",
          laid_out("messages"))
          .at(0);
  ASSERT_EQ(chat.messages.size(), 2u);
  EXPECT_EQ(chat.messages[1].role, "assistant");
  EXPECT_EQ(chat.messages[1].content, "a");
}

TEST_F(Sources, BadJsonIsRefusedWithItsRow) {
  EXPECT_THAT(refusal("a.jsonl", "{\"text\": 1}\n{\"text\": \n"),
              HasSubstr("a.jsonl, row 2: is not valid JSON"));
  EXPECT_THAT(refusal("a.jsonl", "[1]\n"), HasSubstr("row 1: is not a JSON object"));
  EXPECT_THAT(refusal("a.jsonl", "{\"text\": 1}\n{\"text\": 1e999}\n"),
              HasSubstr("a.jsonl, row 2: contains a number that is too large"));
  EXPECT_THAT(refusal("a.json", "{\"a\": 1}"), HasSubstr("should be one JSON list"));
}

TEST_F(Sources, RowsThatDoNotFitTheHeaderAreRefused) {
  EXPECT_THAT(refusal("a.csv", "text,label\na,b\nonly\n"),
              HasSubstr("a.csv, row 3: has 1 field, but the header has 2 (text, label)"));
  EXPECT_THAT(refusal("a.csv", "text,label\na,b,c\n"), HasSubstr("row 2: has 3 fields"));
  EXPECT_THAT(refusal("a.csv", "text,text\na,b\n"), HasSubstr("two columns have the same name"));
  EXPECT_THAT(refusal("a.csv", "text,label\n\"open,b\nc,d\n"),
              HasSubstr("a quoted field that begins on line 2 is never closed"));
  EXPECT_THAT(refusal("a.csv", "text,label\n\"a\"b,c\n"),
              HasSubstr("text follows a closing quote"));
  EXPECT_THAT(refusal("a.csv", ""), HasSubstr("is empty"));
}

TEST_F(Sources, AMissingFieldIsRefusedWithThoseThereAndTheNearest) {
  const auto text = refusal("a.csv", "text,category\na,b\n", mapped({{"label", "categroy"}}));
  EXPECT_THAT(text, HasSubstr("a.csv, row 2: there is no field 'categroy' (those there: category, "
                              "text); did you mean 'category'?"));
  EXPECT_THAT(refusal("a.jsonl", "{\"prompt\": \"p\"}", laid_out("prompt_completion")),
              HasSubstr("no field 'completion'"));
  EXPECT_THAT(refusal("a.jsonl", "{\"text\": [[1]]}", mapped({{"text", "text"}})),
              HasSubstr("is a list"));
  EXPECT_THAT(
      refusal("a.jsonl", R"({"messages": [{"role": "bot", "content": ""}]})", laid_out("messages")),
      HasSubstr("the role 'bot'"));
}

TEST_F(Sources, FilesThatCannotBeReadAreRefused) {
  EXPECT_THAT(refusal("a.csv",
                      "\xff\xfe"
                      "t"),
              HasSubstr("is UTF-16"));
  EXPECT_THAT(refusal("a.data", "x"), HasSubstr("set format"));
  EXPECT_THROW(read_source({}, "absent.csv"), Error);
}

TEST_F(Sources, AChecksumThatDiffersIsRefused) {
  SourceOptions options;
  options.sha256 = sha256("text\na\n");
  EXPECT_EQ(read("a.csv", "text\na\n", options).size(), 1u);
  EXPECT_THAT(refusal("a.csv", "text\nb\n", options), HasSubstr("its sha256 is"));
}

// --- Blocks

/// Rows of a few kilobytes, so that a few thousand of them make several blocks; every third with a
/// line break inside.
std::string long_text(int i) {
  return "number " + std::to_string(i) + (i % 3 ? " " : "\n") +
         std::string(3000, static_cast<char>('a' + i % 26));
}

TEST_F(Sources, BlocksTogetherHoldEveryRecordOnceWithItsRow) {
  constexpr int rows = 4000;
  std::string lines;
  std::string list = "[";
  std::string table = "text,label\r\n";
  std::string quoted;
  std::int64_t table_row = 2;
  std::vector<std::int64_t> table_rows;
  for (int i = 0; i < rows; ++i) {
    const auto object =
        nlohmann::json{{"text", long_text(i)}, {"other", "a, \"quoted\" [bracket"}}.dump();
    lines += object + "\n" + (i % 7 ? "" : "\n");
    list += (i ? ",\n" : "") + object;
    table += "\"" + long_text(i) + "\",\"say \"\"x\"\", " + std::to_string(i) + "\"\r\n";
    table_rows.push_back(table_row);
    table_row += i % 3 ? 1 : 2;
  }
  write_text(folder_ / "a.jsonl", lines);
  write_text(folder_ / "a.json", list + "]\n");
  write_text(folder_ / "a.csv", "\xef\xbb\xbf" + table);
  for (const std::string name : {"a.jsonl", "a.json", "a.csv"}) {
    SourceOptions options;
    options.path = name;
    const auto source = scan_source(options, folder_ / name);
    EXPECT_GE(source.blocks.size(), 3u) << name;
    EXPECT_EQ(source.sha256, sha256_of_file(folder_ / name));
    const auto records = read_source({}, name);
    ASSERT_EQ(records.size(), static_cast<std::size_t>(rows)) << name;
    for (int i = 0; i < rows; ++i) {
      ASSERT_EQ(records[static_cast<std::size_t>(i)].field("text"), long_text(i)) << name;
      const auto row = name == "a.jsonl"  ? i + 1 + (i + 6) / 7
                       : name == "a.json" ? i + 1
                                          : table_rows[static_cast<std::size_t>(i)];
      ASSERT_EQ(records[static_cast<std::size_t>(i)].row, row) << name << ", record " << i;
    }
  }
  EXPECT_EQ(read_source({}, "a.csv").back().field("label"), "say \"x\", 3999");
}

TEST_F(Sources, ALineThatNeverEndsIsRefusedBeforeItFillsTheMemory) {
  std::ofstream file(folder_ / "a.csv", std::ios::binary);
  file << "text\n\"open";
  const std::string much(1 << 20, 'x');
  for (int i = 0; i < 258; ++i) file << much;
  file.close();
  EXPECT_THAT(refusal_of({}, "a.csv"), HasSubstr("a quote there is never closed"));
}

// --- Bad rows

SourceOptions skipping() {
  SourceOptions options;
  options.on_error = "skip";
  return options;
}

TEST_F(Sources, BadRowsAreCountedAndListedWhereTheRecipeSaysSo) {
  EXPECT_EQ(read("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \n[1]\n{\"text\": \"b\"}\n", skipping())
                .size(),
            2u);
  EXPECT_EQ(ledger_.dropped().at("not valid JSON").examples.at(0).substr(0, 14), "a.jsonl, row 2");
  EXPECT_EQ(ledger_.dropped().at("not a JSON object").count, 1);

  const auto records =
      read("a.csv", "text,label\na,1\nonly\n\"x\"y,2\nb,3\n\"never closed,4\n", skipping());
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[1].row, 5);
  EXPECT_EQ(ledger_.dropped().at("fields that do not match the header").count, 1);
  EXPECT_EQ(ledger_.dropped().at("text after a closing quote").count, 1);
  EXPECT_EQ(ledger_.dropped().at("a quote that is never closed").count, 1);
}

TEST_F(Sources, AJsonListCutInTheMiddleIsRefusedOrKeptAsFarAsItIsWhole) {
  const std::string cut = "[{\"text\": \"a\"}, {\"text\": \"b\"}, {\"te";
  EXPECT_THAT(refusal("a.json", cut),
              HasSubstr("a.json, row 3: the file ends in the middle of its list"));
  EXPECT_EQ(read("a.json", cut, skipping()).size(), 2u);
  EXPECT_EQ(ledger_.dropped().at("not valid JSON").count, 1);
  EXPECT_THAT(refusal("a.json", "[{\"text\": \"a\"}] {"), HasSubstr("has content after the end"));
  EXPECT_THAT(refusal("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b"),
              HasSubstr("a.jsonl, row 2: is not valid JSON: it ends prematurely"));
}

TEST_F(Sources, AFieldThatIsMissingFarBelowIsNamedWithItsRow) {
  std::string lines;
  for (int i = 1; i <= 7100; ++i) lines += i == 7001 ? "{\"tex\": \"x\"}\n" : "{\"text\": \"x\"}\n";
  EXPECT_THAT(
      refusal("a.jsonl", lines, mapped({{"text", "text"}})),
      HasSubstr(
          "a.jsonl, row 7001: there is no field 'text' (those there: tex); did you mean 'tex'?"));
}

TEST_F(Sources, IllFormedUtf8IsReplacedAndCounted) {
  EXPECT_EQ(read("a.csv", "text\ncaf\xe9\nfine\n").at(0).field("text"), "caf\uFFFD");
  EXPECT_EQ(
      read("a.jsonl", "{\"text\": \"caf\xe9\"}\n{\"text\": \"caf\xc3\xa9\"}\n").at(0).field("text"),
      "caf\uFFFD");
  const auto& tally = ledger_.changed().at("ill-formed UTF-8 replaced by U+FFFD");
  EXPECT_EQ(tally.count, 1);
  EXPECT_EQ(tally.examples, std::vector<std::string>{"a.jsonl, row 1"});
}

// --- Layouts

TEST_F(Sources, ShareGptConversationsAreMessages) {
  const auto chat =
      read(
          "a.json",
          R"([{"conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}], "system": "s"}])",
          laid_out("messages"))
          .at(0);
  ASSERT_EQ(chat.messages.size(), 3u);
  EXPECT_EQ(chat.messages[0].role, "system");
  EXPECT_EQ(chat.messages[1].role, "user");
  EXPECT_EQ(chat.messages[2].content, "a");
}

TEST_F(Sources, PreferencesAreTextsOrConversations) {
  const auto texts =
      read("a.jsonl", R"({"prompt": "p", "chosen": "c", "rejected": "r"})", laid_out("preference"))
          .at(0);
  EXPECT_EQ(texts.fields, (std::map<std::string, std::string>{
                              {"prompt", "p"}, {"chosen", "c"}, {"rejected", "r"}}));
  const auto share_gpt =
      read(
          "a.json",
          R"([{"conversations": [{"from": "human", "value": "u"}], "chosen": {"from": "gpt", "value": "c"}, "rejected": {"from": "gpt", "value": "r"}}])",
          laid_out("preference"))
          .at(0);
  EXPECT_EQ(share_gpt.messages.at(0).content, "u");
  EXPECT_EQ(share_gpt.field("chosen"), "c");
  const auto whole =
      read(
          "a.jsonl",
          R"({"chosen": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "c"}], "rejected": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "r"}]})",
          laid_out("preference"))
          .at(0);
  ASSERT_EQ(whole.messages.size(), 1u);
  EXPECT_EQ(whole.field("chosen"), "c");
  EXPECT_EQ(whole.field("rejected"), "r");
}

TEST_F(Sources, ToolCallsAndAbsentContentAreKeptInTheOrderOfTheirKeys) {
  const std::string call =
      R"({"type":"function","function":{"name":"weather","arguments":{"town":"Ulm","at":1}}})";
  const auto chat =
      read(
          "a.jsonl",
          R"({"messages": [{"role": "user", "content": "Rain?"}, {"role": "assistant", "content": null, "tool_calls": [)" +
              call +
              R"(]}, {"role": "tool", "tool_call_id": "c1", "content": "dry"}, {"role": "assistant", "content": "No."}], "tools": [{"type": "function", "function": {"name": "weather"}}]})",
          laid_out("messages"))
          .at(0);
  ASSERT_EQ(chat.messages.size(), 4u);
  EXPECT_EQ(chat.messages[1].content, "");
  EXPECT_EQ(chat.messages[1].extra, R"({"tool_calls":[)" + call + R"(],"content":null})");
  EXPECT_FALSE(says_nothing(chat.messages[1]));
  EXPECT_EQ(chat.messages[2].extra, R"({"tool_call_id":"c1"})");
  EXPECT_EQ(chat.messages[3].extra, "");
  EXPECT_EQ(chat.tools, R"([{"type":"function","function":{"name":"weather"}}])");
}

TEST_F(Sources, OlderFormsOfToolCallsBecomeOpenAis) {
  const auto extra = [&](const std::string& message) {
    return read("a.jsonl",
                R"({"conversations": [)" + message + "], \"functions\": [{\"name\": \"f\"}]}",
                laid_out("messages"))
        .at(0)
        .messages.at(0)
        .extra;
  };
  const std::string one =
      R"({"type":"function","function":{"name":"f","arguments":{"b":1,"a":2}}})";
  EXPECT_EQ(
      extra(
          R"({"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"b\": 1, \"a\": 2}}"})"),
      R"({"tool_calls":[)" + one + R"(],"content":null})");
  EXPECT_EQ(
      extra(
          R"({"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": {"b": 1, "a": 2}}})"),
      R"({"tool_calls":[)" + one + "]}");
  EXPECT_EQ(extra(R"({"role": "assistant", "content": "", "tool_calls": "[{\"name\": \"f\"}]"})"),
            R"({"tool_calls":[{"name":"f"}]})")
      << "as JSON text";
  const auto arguments = extra(
      R"({"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "{\"b\": 1}"}}]})");
  EXPECT_EQ(arguments, R"({"tool_calls":[{"function":{"name":"f","arguments":"{\"b\": 1}"}}]})")
      << "arguments stay as they are";
  EXPECT_EQ(
      read("a.jsonl",
           R"({"messages": [{"role": "user", "content": "u"}], "functions": [{"name": "f"}]})",
           laid_out("messages"))
          .at(0)
          .tools,
      R"([{"type":"function","function":{"name":"f"}}])");
  EXPECT_THAT(
      refusal(
          "a.jsonl",
          R"({"messages": [{"role": "assistant", "content": "", "tool_calls": [{"function": {}}]}]})",
          laid_out("messages")),
      HasSubstr("a.jsonl, row 1: a message's tool calls should be a list of"));
}

TEST_F(Sources, KeysOfMessagesAreHonouredOrRefusedByName) {
  const auto say = [&](const std::string& more) {
    return R"({"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a", )" +
           more + "}]}";
  };
  EXPECT_FALSE(read("a.jsonl", say("\"weight\": 0"), laid_out("messages")).at(0).messages[1].train);
  EXPECT_TRUE(read("a.jsonl", say("\"weight\": 1"), laid_out("messages")).at(0).messages[1].train);
  EXPECT_THAT(
      refusal("a.jsonl", say("\"wieght\": 0"), laid_out("messages")),
      HasSubstr(
          "a.jsonl, row 1: the key 'wieght' of a message is unknown; did you mean 'weight'?"));
  EXPECT_THAT(refusal("a.jsonl", say("\"mask\": true"), laid_out("messages")),
              HasSubstr("write train = true or false"));
}

TEST_F(Sources, APairOfSeveralTurnsKeepsItsMessages) {
  const auto pair =
      read(
          "a.jsonl",
          R"({"prompt": "u", "chosen": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "v"}, {"role": "assistant", "content": "b"}], "rejected": "r"})",
          laid_out("preference"))
          .at(0);
  ASSERT_EQ(pair.answers.at("chosen").size(), 3u);
  EXPECT_EQ(pair.answers.at("rejected").at(0).content, "r");
  ASSERT_EQ(pair.messages.size(), 1u);
  EXPECT_EQ(pair.messages[0].content, "u");
}

TEST_F(Sources, HalvesOfSurrogatePairsAreReplacedAndCounted) {
  const auto records = read("a.jsonl", R"({"text": "pair \ud83d\ude00"})"
                                       "\n"
                                       R"({"text": "\ud83d half \\ud83d \udcb2\ud83d"})"
                                       "\n");
  EXPECT_EQ(records.at(0).field("text"), "pair \xf0\x9f\x98\x80");
  EXPECT_EQ(records.at(1).field("text"), "\uFFFD half \\ud83d \uFFFD\uFFFD")
      << "an escaped backslash is no escape";
  const auto& tally =
      ledger_.changed().at("unpaired surrogates (\\ud800 to \\udfff) replaced by U+FFFD");
  EXPECT_EQ(tally.count, 3);
  EXPECT_EQ(tally.examples, std::vector<std::string>{"a.jsonl, row 2"});
}

TEST_F(Sources, WhatIsNoNumberInJsonIsRefusedByName) {
  EXPECT_THAT(
      refusal("a.jsonl", "{\"text\": NaN}\n"),
      HasSubstr("a.jsonl, row 1: contains NaN (at byte 10 of it), which is not valid in JSON"));
  EXPECT_THAT(refusal("a.jsonl", "{\"text\": -Infinity}\n"), HasSubstr("contains -Infinity"));
  EXPECT_THAT(refusal("a.jsonl", "{\"text\": null}\n", mapped({{"text", "text"}})),
              HasSubstr("the field 'text' has no value (null) here"));
}

TEST_F(Sources, NumbersThatAreLabelsHaveOneName) {
  const auto record =
      read("a.jsonl", R"({"text": 1.0, "label": 1.0, "labels": [3, 17.0, 0.5], "tags": [2.0]})")
          .at(0);
  EXPECT_EQ(record.fields, (std::map<std::string, std::string>{{"text", "1.0"}, {"label", "1"}}));
  EXPECT_EQ(record.lists, (std::map<std::string, std::vector<std::string>>{
                              {"labels", {"3", "17", "0.5"}}, {"tags", {"2"}}}));
}

TEST_F(Sources, LinesThatEndWithCarriageReturnsAloneAreRefused) {
  EXPECT_THAT(refusal("a.csv", "text,label\ra,1\r"),
              HasSubstr("a.csv: its lines end with carriage returns only"));
}

TEST_F(Sources, AnElementThatIsMissingInAListIsTold) {
  EXPECT_EQ(read("a.json", R"([{"text": "a"}, , {"text": "b"}])", skipping()).size(), 2u);
  EXPECT_EQ(ledger_.dropped().at("not valid JSON").count, 1);
}

// --- Folders and pictures

TEST_F(Sources, AFolderOfTextsIsARecordForEachFileThatMatches) {
  fs::create_directories(folder_ / "tree/b");
  write_text(folder_ / "tree/z.txt", "last");
  write_text(folder_ / "tree/b/a.txt",
             "\xef\xbb\xbf"
             "first");
  write_text(folder_ / "tree/b/a.md", "no");
  SourceOptions options;
  options.format = "text";
  options.files = "*.txt";
  const auto records = read_source(options, "tree");
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].field("text"), "first");
  EXPECT_EQ(records[0].source, "tree/b/a.txt");
  options.path = "tree";
  EXPECT_EQ(scan_source(options, folder_ / "tree").sha256,
            sha256(sha256_of_file(folder_ / "tree/b/a.txt") + "  b/a.txt\n" +
                   sha256_of_file(folder_ / "tree/z.txt") + "  z.txt\n"))
      << "as sha256sum prints it";
  options.files = "*.rst";
  EXPECT_THAT(refusal_of(options, "tree"), HasSubstr("no file in it matches"));
}

TEST_F(Sources, TextsOfAFolderEndTheirLinesWithLineFeeds) {
  fs::create_directories(folder_ / "tree");
  write_text(folder_ / "tree/a.txt", "one\r\ntwo\u2028three\n\r\n");
  SourceOptions options;
  options.format = "text";
  EXPECT_EQ(read_source(options, "tree").at(0).field("text"), "one\ntwo\u2028three\n\n");
}

/// Red on the left, black on the right.
std::vector<std::uint8_t> two_colours(int height, int width) {
  std::vector<std::uint8_t> pixels;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      pixels.insert(pixels.end(), {static_cast<std::uint8_t>(x < width / 2 ? 255 : 0), 0, 0});
  return pixels;
}

void write_png(const fs::path& path, int height, int width) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.height = static_cast<png_uint_32>(height);
  image.width = static_cast<png_uint_32>(width);
  image.format = PNG_FORMAT_RGB;
  png_image_write_to_file(&image, path.c_str(), 0, two_colours(height, width).data(), 0, nullptr);
}

void write_jpeg(const fs::path& path, int height, int width) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  FILE* file = std::fopen(path.c_str(), "wb");
  jpeg_stdio_dest(&info, file);
  info.image_height = static_cast<JDIMENSION>(height);
  info.image_width = static_cast<JDIMENSION>(width);
  info.input_components = 3;
  info.in_color_space = JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_start_compress(&info, TRUE);
  auto pixels = two_colours(height, width);
  for (int y = 0; y < height; ++y) {
    JSAMPROW row = pixels.data() + y * width * 3;
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  std::fclose(file);
}

TEST_F(Sources, PicturesHaveTheirFoldersNameAsLabel) {
  fs::create_directories(folder_ / "pictures/red");
  fs::create_directories(folder_ / "pictures/also");
  write_png(folder_ / "pictures/red/1.png", 16, 32);
  write_jpeg(folder_ / "pictures/also/1.jpg", 16, 32);
  SourceOptions options;
  options.format = "images";
  const auto records = read_source(options, "pictures");
  ASSERT_EQ(records.size(), 2u);
  for (const auto& record : records) {
    EXPECT_EQ(record.image.sizes().vec(), (std::vector<std::int64_t>{16, 32, 3}));
    EXPECT_NEAR(record.image[8][4][0].item<int>(), 255, 3);
    EXPECT_NEAR(record.image[8][28][0].item<int>(), 0, 3);
  }
  EXPECT_EQ(records[0].field("label"), "also");
  EXPECT_EQ(records[1].field("label"), "red");

  for (const auto* file : {"pictures/also/1.jpg", "pictures/red/1.png"}) {
    const auto whole = read_text(folder_ / file);
    write_text(folder_ / file, whole.substr(0, whole.size() / 2));
    EXPECT_THAT(refusal_of(options, "pictures"),
                HasSubstr(std::string(file) + ", row 1: is not a complete"));
    write_text(folder_ / file, whole);
  }
  write_text(folder_ / "pictures/red/README", "text");
  EXPECT_THAT(refusal_of(options, "pictures"), HasSubstr("is neither a PNG nor a JPEG file"));
  options.on_error = "skip";
  EXPECT_EQ(read_source(options, "pictures").size(), 2u);
  EXPECT_EQ(ledger_.dropped().at("not a picture").count, 1);
}

TEST_F(Sources, IdxPicturesComeWithTheirLabels) {
  const std::string pixels(
      "\0\0\x08\x03\0\0\0\x03\0\0\0\x02\0\0\0\x01"
      "abcdef",
      22);
  const std::string labels("\0\0\x08\x01\0\0\0\x03\x07\x00\x09", 11);
  write_text(folder_ / "p-idx3-ubyte", pixels);
  const auto path = folder_ / "l.gz";
  gzFile file = gzopen(path.c_str(), "wb");
  gzwrite(file, labels.data(), static_cast<unsigned>(labels.size()));
  gzclose(file);
  SourceOptions options;
  options.labels = "l.gz";
  const auto records = read_source(options, "p-idx3-ubyte");
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(records[2].field("label"), "9");
  EXPECT_EQ(records[2].row, 3);
  EXPECT_EQ(records[1].image.sizes().vec(), (std::vector<std::int64_t>{2, 1, 1}));
  EXPECT_EQ(records[1].image[1][0][0].item<int>(), 'd');
  write_text(folder_ / "p-idx3-ubyte", pixels.substr(0, 20));
  EXPECT_THAT(refusal_of(options, "p-idx3-ubyte"),
              HasSubstr("has 20 bytes, but its header requires 22"));
  write_text(folder_ / "p-idx3-ubyte", "something else");
  EXPECT_THAT(refusal_of(options, "p-idx3-ubyte"), HasSubstr("is not an IDX file"));
}

TEST(Record, AnAbsentFieldIsRefusedWithThoseThere) {
  Record record{{{"prompt", "p"}}, {}, {}, {}, "a.csv", 7};
  try {
    record.field("text");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(),
                HasSubstr("a.csv, row 7: there is no field 'text' (existing fields: prompt"));
  }
}

TEST(Record, AnAbsentFieldOfAConversationIsToldWithTheLayout) {
  const Record record{{{"id", "1"}}, {}, {}, {}, "a.jsonl", 7};
  const auto missing = [&](const std::string& field) -> std::string {
    try {
      return record.field(field);
    } catch (const Error& error) {
      return error.what();
    }
  };
  EXPECT_THAT(missing("prompt"),
              HasSubstr("layout = \"messages\" (or \"alpaca\", \"prompt_completion\")"));
  EXPECT_THAT(missing("chosen"), HasSubstr("layout = \"preference\""));
  EXPECT_THAT(missing("text"), Not(HasSubstr("layout")));
}

TEST(Sampler, EveryEpochIsAPermutationAndNoTwoAreAlike) {
  constexpr std::int64_t size = 10;
  constexpr std::int64_t batch = 4;
  Sampler sampler(size, batch, 7);
  std::vector<std::int64_t> stream;
  for (std::int64_t step = 0; step < 10; ++step) {
    const auto rows = sampler.step_rows(step);
    ASSERT_EQ(rows.size(), 4u) << "also across an epoch's end";
    stream.insert(stream.end(), rows.begin(), rows.end());
  }
  std::set<std::vector<std::int64_t>> epochs;
  for (std::int64_t epoch = 0; epoch < 4; ++epoch) {
    const std::vector<std::int64_t> order(stream.begin() + epoch * size,
                                          stream.begin() + (epoch + 1) * size);
    EXPECT_EQ(std::set<std::int64_t>(order.begin(), order.end()).size(), 10u);
    epochs.insert(order);
  }
  EXPECT_EQ(epochs.size(), 4u);
  EXPECT_EQ(sampler.epoch_of(2), 0);
  EXPECT_EQ(sampler.epoch_of(3), 1);
}

TEST(Sampler, StepsCanBeAskedForInAnyOrder) {
  Sampler forward(9, 4, 3);
  Sampler resumed(9, 4, 3);
  for (std::int64_t step = 0; step < 5; ++step) forward.step_rows(step);
  EXPECT_EQ(forward.step_rows(5), resumed.step_rows(5));
  EXPECT_EQ(forward.step_rows(1), resumed.step_rows(1));
}

TEST(Sampler, TheOrderIsTheSameOnEveryMachine) {
  EXPECT_THAT(permutation(8, 0, 0), testing::Not(ElementsAre(0, 1, 2, 3, 4, 5, 6, 7)));
  EXPECT_NE(permutation(50, 0, 1), permutation(50, 1, 0));
  EXPECT_EQ(permutation(50, 5, 2), permutation(50, 5, 2));
}

TEST(Sampler, SharesCoverTheStepAndDifferByAtMostOne) {
  for (int ranks = 1; ranks <= 5; ++ranks) {
    std::vector<std::int64_t> rows(13);
    std::vector<std::int64_t> together;
    std::iota(rows.begin(), rows.end(), 100);
    for (int rank = 0; rank < ranks; ++rank) {
      const auto share = Sampler::share(rows, rank, ranks);
      EXPECT_LE(share.size(), 13u / ranks + 1);
      EXPECT_GE(share.size(), 13u / ranks);
      together.insert(together.end(), share.begin(), share.end());
    }
    EXPECT_EQ(together, rows);
  }
}

TEST(Sampler, ABatchThatCannotBeSharedIsRefused) {
  EXPECT_THROW(Sampler(3, 4, 0), Error);
  EXPECT_THROW(Sampler(8, 2, 0, 4), Error);
  EXPECT_NO_THROW(Sampler(4, 4, 0, 4));
}

TEST(Pack, SamplesLieEndToEnd) {
  const Batch batch = pack({at::tensor({5, 6, 7}, at::kInt), at::tensor({8}, at::kLong)});
  EXPECT_EQ(batch.starts, (std::vector<std::int64_t>{0, 3, 4}));
  EXPECT_TRUE(batch.tokens.equal(at::tensor({5, 6, 7, 8}, at::kLong)));
  EXPECT_TRUE(batch.positions.equal(at::tensor({0, 1, 2, 0}, at::kLong)));
  EXPECT_EQ(pack({}).samples(), 0);
}

}  // namespace
}  // namespace attune
