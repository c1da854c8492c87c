// The little that the C++ tests need: a check that says where and what, and an exit code.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace check {

inline int failures = 0;
inline int checks = 0;

inline void that(bool good, const char *what, const char *file, int line) {
  ++checks;
  if (good) return;
  ++failures;
  std::fprintf(stderr, "%s:%d: %s\n", file, line, what);
}

inline bool close(double a, double b, double relative) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return a == b || std::fabs(a - b) <= relative * std::fmax(std::fabs(a), std::fabs(b));
}

inline int done() {
  std::printf("%d checks, %d failures\n", checks, failures);
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace check

#define CHECK(condition) check::that((condition), #condition, __FILE__, __LINE__)
