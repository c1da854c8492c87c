#include "targets/cpu_quota.hpp"

#include <fstream>
#include <sstream>
#include <vector>

namespace mlsd {
namespace {

bool has_word(const std::string &list, const std::string &word) {
  std::istringstream words(list);
  for (std::string each; std::getline(words, each, ',');)
    if (each == word) return true;
  return false;
}

// A place where groups are mounted: `/point` shows the group `/shown` of the hierarchy.
struct Mount {
  std::string shown, point;
  bool unified;  // version 2
};

// /proc/self/mountinfo: id, parent, device, root, mount point, options, optional fields, "-", type,
// source, options of the file system (proc(5)).
std::vector<Mount> mounts_of(const std::string &root) {
  std::vector<Mount> found;
  std::ifstream file(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::string skipped, type, source, options;
    Mount mount;
    std::istringstream head(line), tail(line.substr(dash + 3));
    head >> skipped >> skipped >> skipped >> mount.shown >> mount.point;
    tail >> type >> source >> options;
    mount.unified = type == "cgroup2";
    if (mount.unified || (type == "cgroup" && has_word(options, "cpu"))) found.push_back(mount);
  }
  return found;
}

// This process's group in version 2, or in version 1's hierarchy of the CPU controller.
std::string group_of(const std::string &root, bool unified) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (unified ? controllers.empty() : has_word(controllers, "cpu"))
      return line.substr(second + 1);
  }
  return "";
}

// Cores of one group; 0 where it sets no limit.
double limit_of(const std::string &directory, bool unified) {
  double quota = 0, period = 0;
  if (unified) {
    std::ifstream(directory + "/cpu.max") >> quota >> period;  // "max" reads as no number
  } else {
    std::ifstream(directory + "/cpu.cfs_quota_us") >> quota;  // -1 for none
    std::ifstream(directory + "/cpu.cfs_period_us") >> period;
  }
  return quota > 0 && period > 0 ? quota / period : 0;
}

}  // namespace

int quota_cores(const std::string &root) {
  double least = 0;
  for (const Mount &mount : mounts_of(root)) {
    std::string group = group_of(root, mount.unified);
    // The path within the mount. A container may see its own group mounted as "/" while the path
    // is the host's: then the mount itself is all that can be asked.
    if (mount.shown != "/") {
      const bool inside = group.compare(0, mount.shown.size(), mount.shown) == 0;
      group = inside ? group.substr(mount.shown.size()) : "";
    }
    while (!group.empty() && group.back() == '/') group.pop_back();
    for (;;) {
      const double limit = limit_of(root + mount.point + group, mount.unified);
      if (limit > 0 && (least == 0 || limit < least)) least = limit;
      if (group.empty()) break;
      group.erase(group.rfind('/') == std::string::npos ? 0 : group.rfind('/'));
    }
  }
  if (least == 0) return 0;
  return least < 1 ? 1 : least > 1e6 ? 1000000 : static_cast<int>(least);
}

}  // namespace mlsd
