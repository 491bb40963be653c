// Values computed in advance by a background thread.
#pragma once
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

namespace attune {

/// The values of an endless series, in order. `make` is called by one thread at a time. next()
/// rethrows an exception of `make` after all earlier values, and again at every later call.
template <class T>
class Prefetch {
 public:
  /// Keeps up to `ahead` values ready. 0: no thread; next() computes each value itself.
  Prefetch(std::function<T()> make, std::size_t ahead) : make_(std::move(make)), ahead_(ahead) {
    if (ahead_ > 0) thread_ = std::thread([this] { work(); });
  }

  /// Waits for the value that is being computed.
  ~Prefetch() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  Prefetch(const Prefetch&) = delete;
  Prefetch& operator=(const Prefetch&) = delete;

  T next() {
    if (ahead_ == 0) return make_();
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !ready_.empty() || failure_; });
    if (ready_.empty()) std::rethrow_exception(failure_);
    T value = std::move(ready_.front());
    ready_.pop_front();
    lock.unlock();
    changed_.notify_all();
    return value;
  }

 private:
  void work() {
    try {
      while (wait_for_room()) add(make_());
    } catch (...) {
      const std::lock_guard lock(mutex_);
      failure_ = std::current_exception();
    }
    changed_.notify_all();
  }

  /// False if the thread must stop.
  bool wait_for_room() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stopping_ || ready_.size() < ahead_; });
    return !stopping_;
  }

  void add(T value) {
    {
      const std::lock_guard lock(mutex_);
      ready_.push_back(std::move(value));
    }
    changed_.notify_all();
  }

  const std::function<T()> make_;
  const std::size_t ahead_;
  std::mutex mutex_;
  std::condition_variable changed_;  // notified when ready_, stopping_ or failure_ changes
  std::deque<T> ready_;
  std::exception_ptr failure_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace attune
