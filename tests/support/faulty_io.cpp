// For LD_PRELOAD: file-system calls that fail when they are told to. Disks fill up, and network
// file systems have bad days.
//
//   FAULTY_IO="CALL:N:ERRNO:TEXT"    the Nth CALL (write, pwrite, fsync, rename, mkdir, open) from
//                                    now on whose path holds TEXT, and every one after it, fails
//                                    with ERRNO; ERRNO 0: writes half of what it is given, once
//
// A program that links nothing of this may set it again through faulty_io_arm, and ask
// faulty_io_struck how often it failed.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>

namespace {

struct Plan {
  std::string call;
  std::string text;
  int at = 0;
  int error = 0;
};

std::mutex mutex;
Plan plan;
int seen = 0;
int struck = 0;

void arm(const char* text) {
  const std::lock_guard lock(mutex);
  plan = {};
  seen = struck = 0;
  if (!text || !*text) return;
  const std::string all(text);
  const auto a = all.find(':');
  const auto b = all.find(':', a + 1);
  const auto c = all.find(':', b + 1);
  plan = {all.substr(0, a), all.substr(c + 1), std::atoi(all.c_str() + a + 1),
          std::atoi(all.c_str() + b + 1)};
}

struct FromEnvironment {
  FromEnvironment() { arm(std::getenv("FAULTY_IO")); }
} from_environment;

/// 0: go on; >0: fail with this; -1: write half.
int verdict(const char* call, const char* path) {
  const std::lock_guard lock(mutex);
  if (plan.call != call || !path || !std::strstr(path, plan.text.c_str())) return 0;
  if (++seen < plan.at) return 0;
  if (plan.error == 0 && seen > plan.at) return 0;
  ++struck;
  return plan.error ? plan.error : -1;
}

std::string path_of(int fd) {
  char link[64];
  char path[4096];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const auto length = ::readlink(link, path, sizeof path - 1);
  return length > 0 ? std::string(path, static_cast<std::size_t>(length)) : "";
}

template <class Function>
Function real(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

template <class Do>
ssize_t writing(const char* call, int fd, std::size_t count, Do doing) {
  const int what = verdict(call, path_of(fd).c_str());
  if (what > 0) {
    errno = what;
    return -1;
  }
  return doing(what < 0 ? (count + 1) / 2 : count);
}

}  // namespace

extern "C" {

void faulty_io_arm(const char* text) { arm(text); }
int faulty_io_struck() { return struck; }

ssize_t write(int fd, const void* data, size_t count) {
  static const auto next = real<ssize_t (*)(int, const void*, size_t)>("write");
  return writing("write", fd, count, [&](std::size_t n) { return next(fd, data, n); });
}

ssize_t pwrite(int fd, const void* data, size_t count, off_t at) {
  static const auto next = real<ssize_t (*)(int, const void*, size_t, off_t)>("pwrite");
  return writing("pwrite", fd, count, [&](std::size_t n) { return next(fd, data, n, at); });
}

ssize_t pwrite64(int fd, const void* data, size_t count, off_t at) {
  return pwrite(fd, data, count, at);
}

int fsync(int fd) {
  static const auto next = real<int (*)(int)>("fsync");
  const int what = verdict("fsync", path_of(fd).c_str());
  return what > 0 ? (errno = what, -1) : next(fd);
}

int rename(const char* from, const char* to) {
  static const auto next = real<int (*)(const char*, const char*)>("rename");
  const int what = verdict("rename", to);
  return what > 0 ? (errno = what, -1) : next(from, to);
}

int mkdir(const char* path, mode_t mode) {
  static const auto next = real<int (*)(const char*, mode_t)>("mkdir");
  const int what = verdict("mkdir", path);
  return what > 0 ? (errno = what, -1) : next(path, mode);
}

int open(const char* path, int flags, ...) {
  static const auto next = real<int (*)(const char*, int, ...)>("open");
  va_list rest;
  va_start(rest, flags);
  const auto mode = va_arg(rest, mode_t);
  va_end(rest);
  const int what = verdict("open", path);
  return what > 0 ? (errno = what, -1) : next(path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const auto mode = va_arg(rest, mode_t);
  va_end(rest);
  return open(path, flags | O_LARGEFILE, mode);
}
}
