#include <atomic>
#include <cstdlib>
#include <cstring>

#include "mlsd/arrays.hpp"
#include "mlsd/distributions.hpp"
#include "mlsd/folds.hpp"
#include "mlsd/targets.hpp"

namespace mlsd {

#define MLSD_DECLARE_TARGET(ns)                          \
  namespace ns {                                         \
  extern const ArrayKernels array_kernels;               \
  extern const FoldKernels fold_kernels;                 \
  extern const DistributionKernels distribution_kernels; \
  }
MLSD_DECLARE_TARGET(baseline)
#if defined(__x86_64__)
MLSD_DECLARE_TARGET(v3)
MLSD_DECLARE_TARGET(v4)
MLSD_DECLARE_TARGET(v4_vbmi)
MLSD_DECLARE_TARGET(zen4)
#endif
#undef MLSD_DECLARE_TARGET

namespace {

bool always() noexcept { return true; }

#if defined(__x86_64__)
// __builtin_cpu_supports asks CPUID and, through XGETBV, whether the operating system saves the
// wide registers.
bool has_v3() noexcept {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
         __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("f16c");
}

bool has_v4() noexcept {
  return has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512cd");
}

bool has_v4_vbmi() noexcept {
  return has_v4() && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("vpclmulqdq") &&
         __builtin_cpu_supports("avx512vpopcntdq");
}

// By the maker, too: others have the instructions, but take as long for them as for what they
// replace.
bool has_zen4() noexcept {
  return has_v4_vbmi() && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_is("amd");
}
#endif

struct Entry {
  Target target;
  bool (*supported)() noexcept;
};

const Entry entries[] = {
    {{"baseline", &baseline::array_kernels, &baseline::fold_kernels,
      &baseline::distribution_kernels},
     always},
#if defined(__x86_64__)
    {{"v3", &v3::array_kernels, &v3::fold_kernels, &v3::distribution_kernels}, has_v3},
    {{"v4", &v4::array_kernels, &v4::fold_kernels, &v4::distribution_kernels}, has_v4},
    {{"v4_vbmi", &v4_vbmi::array_kernels, &v4_vbmi::fold_kernels, &v4_vbmi::distribution_kernels},
     has_v4_vbmi},
    {{"zen4", &zen4::array_kernels, &zen4::fold_kernels, &zen4::distribution_kernels}, has_zen4},
#endif
};
constexpr std::size_t kCount = sizeof entries / sizeof entries[0];

const char *refused = nullptr;

std::size_t widest() noexcept {
  std::size_t best = 0;
  for (std::size_t i = 0; i < kCount; ++i)
    if (entries[i].supported()) best = i;
  return best;
}

std::size_t find(const char *name) noexcept {
  for (std::size_t i = 0; i < kCount; ++i)
    if (std::strcmp(entries[i].target.name, name) == 0 && entries[i].supported()) return i;
  return kCount;
}

std::size_t initial() noexcept {
  const char *forced = std::getenv("MLSD_TARGET");
  if (forced == nullptr || *forced == '\0') return widest();
  const std::size_t found = find(forced);
  if (found != kCount) return found;
  refused = forced;
  return widest();
}

std::atomic<const Target *> &active() noexcept {
  static std::atomic<const Target *> target{&entries[initial()].target};
  return target;
}

}  // namespace

std::size_t target_count() noexcept { return kCount; }
const Target &target_at(std::size_t index) noexcept { return entries[index].target; }
bool target_supported(std::size_t index) noexcept { return entries[index].supported(); }
const Target &active_target() noexcept { return *active().load(std::memory_order_relaxed); }
const char *refused_target() noexcept {
  active();
  return refused;
}

bool force_target(const char *name) noexcept {
  const std::size_t found = find(name);
  if (found == kCount) return false;
  active().store(&entries[found].target, std::memory_order_relaxed);
  return true;
}

}  // namespace mlsd
