// A dataset plugin is one kind of sample: how a record becomes columns, and how samples become a
// batch. Reading sources, cleaning, splitting, HDF5, sampling and prefetching are the framework's,
// the same for every kind.
#pragma once
#include <attune/api.hpp>
#include <attune/batch.hpp>
#include <attune/metric.hpp>
#include <attune/rejected.hpp>
#include <attune/tokenizer.hpp>

#include <map>
#include <string>
#include <vector>

ATTUNE_API_BEGIN
namespace attune {

/// One record of a source after field mapping.
struct Record {
  // "prompt", "response", "text", "label", "chosen", ...
  std::map<std::string, std::string> fields;
  std::vector<Message> messages;  // for conversations
  // JSON list of the functions that the conversation may call; "": none
  std::string tools;
  // uint8 [height, width, channels]; undefined for records that are no picture
  at::Tensor image;
  std::string source;    // file
  std::int64_t row = 0;  // in it, from 1
  // "chosen" and "rejected", where one of them is more than a text
  std::map<std::string, std::vector<Message>> answers = {};

  /// Error naming file, row and the fields there are, when it is absent.
  const std::string& field(const std::string& name) const;
};

/// Columns of one sample. 0-D: a scalar; 1-D: ragged (its length differs from sample to sample);
/// n-D: the same shape in every sample. dtype uint8, int32 (token ids alone), int64 or float32.
/// Every sample of a kind has the same columns.
using Sample = std::map<std::string, at::Tensor>;

/// Thrown by labels and encode: a row that is wrong. It ends the work, or is dropped and counted
/// under `reason` where the recipe skips bad rows. The text is a whole Error, with file and row.
class BadRow : public Error {
 public:
  BadRow(std::string reason, const std::string& text) : Error(text), reason_(std::move(reason)) {}
  const std::string& reason() const { return reason_; }

 private:
  std::string reason_;
};

/// Whether a message holds no text, no tool call and no reasoning.
bool says_nothing(const Message& message);

struct EncodeContext {
  // knows no token when the recipe names none, which reads_text() allows
  const Tokenizer& tokenizer;
  const ChatTemplate* chat = nullptr;  // null when neither model nor recipe names one
  // all that Dataset::labels named, sorted (as numbers when all are)
  std::vector<std::string> labels;
};

/// A plugin needs `encode` and `collate`; the rest has defaults that suit a kind with one sample a
/// record.
class Dataset {
 public:
  virtual ~Dataset() = default;
  /// Throws Rejected for a record that gives no sample.
  virtual Sample encode(const Record& record, const EncodeContext& context) const = 0;
  virtual Batch collate(const std::vector<Sample>& samples) const = 0;

  /// What prepare calls: a record may become several samples (windows of a document), all of them
  /// in its split. Default: encode's one.
  virtual std::vector<Sample> encode_all(const Record& record, const EncodeContext& context) const;
  /// Names of the model's outputs that this record asks for. Default: its field "label", none where
  /// it has none.
  virtual std::vector<std::string> labels(const Record& record) const;
  /// Whether encode uses the tokenizer; when not, a recipe need not name one.
  virtual bool reads_text() const { return true; }
  /// What a training step sees of a sample; evaluation sees it as it is. `seed` is a function of
  /// (seed of the run, step, row): the same random choices on any number of ranks and after a
  /// resume. May be called from several threads. Default: unchanged.
  virtual Sample augment(Sample sample, std::uint64_t seed) const;
  /// What an evaluation of a run on this data measures, unless a strategy defines another loss
  /// (Strategy::metrics). Names differ, and "loss" is among them. Default: those of Attune that fit
  /// the targets (metrics::of_targets).
  virtual std::vector<Metric> metrics(const MetricContext& context) const;
};

}  // namespace attune
ATTUNE_API_END
