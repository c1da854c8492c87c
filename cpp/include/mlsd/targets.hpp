// Which compiled variant of the kernels runs. Chosen once, from what processor AND operating system
// allow; MLSD_TARGET in the environment forces one.
#pragma once

#include <cstddef>

namespace mlsd {

struct ArrayKernels;
struct FoldKernels;
struct DistributionKernels;

struct Target {
  const char *name;
  const ArrayKernels *arrays;
  const FoldKernels *folds;
  const DistributionKernels *distributions;
};

// All compiled targets, narrowest first.
std::size_t target_count() noexcept;
const Target &target_at(std::size_t index) noexcept;
// Whether this machine can run it.
bool target_supported(std::size_t index) noexcept;
// The one in use.
const Target &active_target() noexcept;
// Uses `name` from now on; false, and no change, where it is unknown or not supported. Not meant to
// be called while kernels run.
bool force_target(const char *name) noexcept;
// What MLSD_TARGET asked for and could not have, or nullptr.
const char *refused_target() noexcept;

}  // namespace mlsd
