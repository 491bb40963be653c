#include "placement/waiting.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>
#include <vector>

#include "core/host.hpp"

namespace attune::placement {
namespace {

namespace fs = std::filesystem;

/// As libgomp counted them: both are loaded before anything is bound.
const int processors_at_start = static_cast<int>(allowed_processors().size());

constexpr auto between_looks = std::chrono::milliseconds(500);
constexpr double crowded_share = 0.15;
constexpr double calm_share = 0.05;
constexpr int looks_until_patient = 2;
constexpr int looks_until_calm = 20;

/// libgomp ends the process where it cannot start a thread.
void try_threads(int count) {
  std::vector<std::thread> threads;
  try {
    for (int i = 0; i < count; ++i) threads.emplace_back([] {});
  } catch (const std::system_error&) {
    for (auto& thread : threads) thread.join();
    throw;
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace

double Contention::share() {
  double ran = 0;
  double waited = 0;
  std::map<int, Times> now;
  std::error_code gone;
  for (const auto& task : fs::directory_iterator("/proc/self/task", gone)) {
    Times times;
    if (!(std::ifstream(task.path() / "schedstat") >> times.first >> times.second)) continue;
    const int id = std::stoi(task.path().filename());
    const auto before = threads_.contains(id) ? threads_.at(id) : Times{};
    ran += times.first - before.first;
    waited += times.second - before.second;
    now[id] = times;
  }
  threads_ = std::move(now);
  return ran + waited > 0 ? waited / (ran + waited) : 0;
}

SleepingTeam::SleepingTeam(int threads) {
  try_threads(threads);
  thread_ = std::thread([this, threads] {
    std::atomic<int> members = 0;
#pragma omp parallel num_threads(threads)
    ++members;
    std::unique_lock lock(mutex_);
    is_up_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return is_over_; });
  });  // with the thread that began it the team ends
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return is_up_; });
}

SleepingTeam::~SleepingTeam() {
  {
    const std::lock_guard lock(mutex_);
    is_over_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

bool Patience::after(double share) {
  crowded_ = share > crowded_share ? crowded_ + 1 : 0;
  calm_ = share < calm_share ? calm_ + 1 : 0;
  if (crowded_ >= looks_until_patient) is_patient_ = true;
  if (calm_ >= looks_until_calm) is_patient_ = false;
  return is_patient_;
}

Waiting::Waiting(int threads, std::function<void(double)> tell)
    : threads_(threads), tell_(std::move(tell)) {
  const bool is_chosen = !environment_variable("OMP_WAIT_POLICY").empty() ||
                         !environment_variable("GOMP_SPINCOUNT").empty();
  if (threads > 1 && !is_chosen) thread_ = std::thread([this] { watch(); });
}

Waiting::~Waiting() {
  {
    const std::lock_guard lock(mutex_);
    is_over_ = true;
  }
  over_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Waiting::watch() {
  Contention contention;
  Patience patience;
  std::unique_lock lock(mutex_);
  while (!over_.wait_for(lock, between_looks, [this] { return is_over_; })) {
    const double share = contention.share();
    const bool is_patient = patience.after(share);
    if (is_patient && !team_) be_patient(share);
    if (!is_patient) team_.reset();
  }
  team_.reset();
}

void Waiting::be_patient(double share) {
  try {
    // One manager of its own that libgomp does not count, and one thread more than fit beside those
    // that compute.
    team_ = std::make_unique<SleepingTeam>(std::max(2, processors_at_start - threads_ + 2));
  } catch (const std::system_error&) {
    return;  // the threads go on as they are
  }
  if (tell_) std::exchange(tell_, {})(share);
}

}  // namespace attune::placement
