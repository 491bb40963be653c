// Named factories. A plugin's `add` registers entries; the framework builds objects by name from
// typed options.
#pragma once
#include <attune/api.hpp>
#include <attune/schema.hpp>

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

ATTUNE_API_BEGIN
namespace attune {

class Model;
class Dataset;
class GradientHook;
class Strategy;
class Callback;
class Optimizer;
class Schedule;
struct ModelContext;
/// Freezes all parameters. Called on each newly constructed model.
void freeze(Model& model);

enum class Kind { model, dataset, strategy, callback, optimizer, schedule };
const char* name(Kind kind);

class Registry {
 public:
  /// A registered plugin class, with its options and factory.
  struct Entry {
    Kind kind;
    std::string name;
    std::string doc;     // one-line description
    std::string plugin;  // name and version of the library
    std::string file;    // path of the library
    OptionSet schema;
    // creates Options with default values
    std::function<std::shared_ptr<void>()> defaults;
    std::function<std::shared_ptr<void>(const void* options, void* context)> build;
  };

  /// Registers a strategy. T is constructed from its Options. The same holds for the kinds below.
  template <class T>
  void strategy(std::string name, std::string doc = "") {
    if constexpr (requires { &T::on_gradients; })
      static_assert(std::is_base_of_v<GradientHook, T>,
                    "a strategy with on_gradients derives from attune::GradientHook as well");
    add_plain<Strategy, T>(Kind::strategy, name, doc);
  }
  template <class T>
  void callback(std::string name, std::string doc = "") {
    add_plain<Callback, T>(Kind::callback, name, doc);
  }
  template <class T>
  void dataset(std::string name, std::string doc = "") {
    add_plain<Dataset, T>(Kind::dataset, name, doc);
  }
  template <class T>
  void optimizer(std::string name, std::string doc = "") {
    add_plain<Optimizer, T>(Kind::optimizer, name, doc);
  }
  template <class T>
  void schedule(std::string name, std::string doc = "") {
    add_plain<Schedule, T>(Kind::schedule, name, doc);
  }
  /// Registers a model. T is constructed from (Options, ModelContext&), then frozen.
  template <class T>
  void model(std::string name, std::string doc = "") {
    add_entry<T>(
        Kind::model, name, doc, [](const void* options, void* context) -> std::shared_ptr<void> {
          const auto model = std::make_shared<T>(*static_cast<const typename T::Options*>(options),
                                                 *static_cast<ModelContext*>(context));
          freeze(*model);
          return std::static_pointer_cast<Model>(model);
        });
  }

  /// Error if the name is taken; it names both files.
  void add(Entry entry);
  /// Error if the name is unknown; it lists the names of that kind, nearest first.
  const Entry& find(Kind kind, const std::string& name) const;
  /// Whether the name is registered or available from the reserve.
  bool has(Kind kind, const std::string& name) const;
  /// All names of that kind, sorted.
  std::vector<std::string> names(Kind kind) const;
  const std::deque<Entry>& entries() const;
  /// Sets a source of further entries. It is called at most once, when a name is not found or when
  /// all names are requested.
  void set_reserve(std::function<std::deque<Entry>()> reserve) { reserve_ = std::move(reserve); }
  /// Sets the library whose `add` runs next. It is recorded in every new entry.
  void set_origin(std::string plugin, std::string file) {
    plugin_ = std::move(plugin);
    file_ = std::move(file);
  }

 private:
  template <class T>
  void add_entry(Kind kind, std::string name, std::string doc,
                 std::function<std::shared_ptr<void>(const void*, void*)> build) {
    using Options = typename T::Options;
    add({kind, std::move(name), std::move(doc), plugin_, file_, describe<Options>(),
         [] { return std::make_shared<Options>(); }, std::move(build)});
  }
  template <class Interface, class T>
  void add_plain(Kind kind, std::string name, std::string doc) {
    add_entry<T>(kind, std::move(name), std::move(doc),
                 [](const void* options, void*) -> std::shared_ptr<void> {
                   return std::static_pointer_cast<Interface>(
                       std::make_shared<T>(*static_cast<const typename T::Options*>(options)));
                 });
  }

  void draw_on_reserve() const;

  mutable std::deque<Entry> entries_;  // deque: entries keep their addresses
  mutable std::function<std::deque<Entry>()> reserve_;
  std::string plugin_ = "built in";
  std::string file_;
};

}  // namespace attune
ATTUNE_API_END
