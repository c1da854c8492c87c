// CPU time that control groups grant to this process: what a container's --cpus or a Kubernetes
// limit becomes. The set of allowed cores says nothing about it.
#pragma once

#include <string>

namespace mlsd {

// Whole cores' worth of CPU time, at least 1; 0 where there is no limit, or none can be read. The
// tightest of the process's group and all groups above it, of version 1 (cpu.cfs_quota_us) and
// version 2 (cpu.max). Rounded down: with 1.5 cores two threads are stopped for a quarter of the
// time. `root` stands before /proc and the mount points; it is empty but for tests.
int quota_cores(const std::string &root);

}  // namespace mlsd
