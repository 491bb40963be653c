// A dataset plugin defines one kind of sample: how a record becomes columns, and how samples become
// a batch. The framework reads sources, cleans, splits, writes HDF5, samples and prefetches in the
// same way for every kind.
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

/// One record of a source, after field mapping.
struct Record {
  // by name: "prompt", "response", "text", "label", "chosen", ...
  std::map<std::string, std::string> fields;
  std::vector<Message> messages;  // set for conversations
  // JSON list of the functions that the model may call; "" if none
  std::string tools;
  // uint8 [height, width, channels]; undefined if the record has no image
  at::Tensor image;
  std::string source;    // file name
  std::int64_t row = 0;  // row number in the file, from 1
  // "chosen" and "rejected", if either has more than plain text
  std::map<std::string, std::vector<Message>> answers = {};
  // fields that are lists of texts, numbers or booleans, by name: "labels", "words", "tags", ...
  std::map<std::string, std::vector<std::string>> lists = {};

  /// Returns a field that is a text. Error if it is absent or a list; it names the file, the row
  /// and the existing fields.
  const std::string& field(const std::string& name) const;
  /// Returns a field that is a list. CSV has no lists: a text is read as a JSON list if it begins
  /// with "[", and else divided at `separator` (" ": at white space); parts are trimmed, and empty
  /// ones left out. Error if the field is absent or not a valid list.
  std::vector<std::string> list(const std::string& name, const std::string& separator = " ") const;
};

/// Columns of one sample. 0-D tensors are scalars, 1-D tensors are ragged (length varies by
/// sample), n-D tensors have the same shape in every sample. dtype: uint8, int32 (token ids only),
/// int64 or float32. All samples of a kind must have the same columns.
using Sample = std::map<std::string, at::Tensor>;

/// Thrown by `labels` and `encode` for an invalid row. It aborts the preparation, or the row is
/// dropped and counted under `reason` if the recipe skips bad rows. The text is a complete message
/// with file and row.
class BadRow : public Error {
 public:
  BadRow(std::string reason, const std::string& text) : Error(text), reason_(std::move(reason)) {}
  const std::string& reason() const { return reason_; }

 private:
  std::string reason_;
};

/// Whether a message has no text, no tool call and no reasoning.
bool says_nothing(const Message& message);

struct EncodeContext {
  // has no tokens if the recipe names no tokenizer, which reads_text() must allow
  const Tokenizer& tokenizer;
  const ChatTemplate* chat = nullptr;  // null if neither model nor recipe names one
  // all values returned by Dataset::labels, sorted (numerically if all are numbers)
  std::vector<std::string> labels;
};

/// Interface of dataset plugins. Only `encode` and `collate` are mandatory; the defaults of the
/// other functions suit kinds with one sample per record.
class Dataset {
 public:
  virtual ~Dataset() = default;
  /// Converts a record into a sample. Throws Rejected if the record yields none.
  virtual Sample encode(const Record& record, const EncodeContext& context) const = 0;
  /// Makes one padding-free batch of the samples, in their order.
  virtual Batch collate(const std::vector<Sample>& samples) const = 0;

  /// Converts a record into any number of samples (e.g. windows of a document), all of the same
  /// split. `attune prepare` calls this function. Default: one sample, from `encode`.
  virtual std::vector<Sample> encode_all(const Record& record, const EncodeContext& context) const;
  /// Names of the model outputs that this record needs. Default: the value of field "label", or
  /// nothing if the record has no such field.
  virtual std::vector<std::string> labels(const Record& record) const;
  /// Whether `encode` uses the tokenizer. If not, the recipe need not name one.
  virtual bool reads_text() const { return true; }
  /// Augments a sample for a training step; evaluation uses the sample unchanged. `seed` is a
  /// function of (seed of the run, step, row), so random choices are the same on any number of
  /// ranks and after a resume. May be called from several threads. Default: returns the sample
  /// unchanged.
  virtual Sample augment(Sample sample, std::uint64_t seed) const;
  /// Metrics of an evaluation on this data, unless a strategy defines its own loss
  /// (Strategy::metrics). Names must be unique and include "loss". Default: the built-in metrics
  /// that fit the targets (metrics::of_targets).
  virtual std::vector<Metric> metrics(const MetricContext& context) const;
};

}  // namespace attune
ATTUNE_API_END
