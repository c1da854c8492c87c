#include "mlsd/threads.hpp"

#include <atomic>
#include <new>
#include <thread>

#include "targets/cpu_quota.hpp"

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(MLSD_HAS_OPENMP)
#include <omp.h>
#endif

namespace mlsd {
namespace {

// Below this a fork-join costs more than it saves (about 1 MiB on the machines measured).
constexpr std::size_t kParallelBytes = std::size_t{1} << 20;

std::atomic<int> requested{0};
std::atomic<bool> forked{false};

void after_fork_in_child() noexcept { forked.store(true, std::memory_order_relaxed); }

int allowed_cores() noexcept {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned found = std::thread::hardware_concurrency();
  return found == 0 ? 1 : static_cast<int>(found);
}

// Allowed cores can change from call to call; quotas are read once, since files take too long.
int count_cores() noexcept {
  static const int quota = []() noexcept {
    try {
      return quota_cores("");
    } catch (const std::bad_alloc &) {
      return 1;  // what is surely granted
    }
  }();
  const int cores = allowed_cores();
  return quota != 0 && quota < cores ? quota : cores;
}

const bool watching_forks = [] {
#if defined(__unix__) || defined(__APPLE__)
  pthread_atfork(nullptr, nullptr, after_fork_in_child);
#endif
  return true;
}();

}  // namespace

int usable_cores() noexcept { return count_cores(); }

int num_threads() noexcept {
  if (!watching_forks || forked.load(std::memory_order_relaxed)) return 1;
  const int cores = count_cores();
  const int wanted = requested.load(std::memory_order_relaxed);
  return wanted == 0 || wanted > cores ? cores : wanted;
}

bool set_num_threads(int count) noexcept {
  if (count < 0) return false;
  requested.store(count, std::memory_order_relaxed);
  return true;
}

void parallel_for(std::size_t count, std::size_t bytes, void (*work)(void *, std::size_t),
                  void *context) noexcept {
#if defined(MLSD_HAS_OPENMP)
  const int threads = bytes < kParallelBytes || count < 2 ? 1 : num_threads();
  if (threads > 1) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (std::size_t i = 0; i < count; ++i) work(context, i);
    return;
  }
#else
  (void)bytes;
#endif
  for (std::size_t i = 0; i < count; ++i) work(context, i);
}

}  // namespace mlsd
