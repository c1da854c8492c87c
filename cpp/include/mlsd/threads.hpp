// How many threads a kernel may use, and the one way to split work over them.
#pragma once

#include <cstddef>

namespace mlsd {

// Never more than the cores that the process may use, by its affinity and by the CPU quotas of its
// control groups (read at the first call); 1 in a forked child, since an OpenMP region
// there hangs whenever the parent has run one.
int num_threads() noexcept;
// 0 restores the default. Returns false for a negative count.
bool set_num_threads(int count) noexcept;
int usable_cores() noexcept;

// Runs work(context, i) for i in [0, count), on several threads when `bytes` is worth it. The body
// must not throw.
void parallel_for(std::size_t count, std::size_t bytes, void (*work)(void *, std::size_t),
                  void *context) noexcept;

template <typename F>
void parallel_for(std::size_t count, std::size_t bytes, F &body) noexcept {
  parallel_for(
      count, bytes, [](void *context, std::size_t i) { (*static_cast<F *>(context))(i); }, &body);
}

}  // namespace mlsd
