// CPU quotas, read from a made-up tree of /proc and control groups.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "check.hpp"
#include "mlsd/threads.hpp"
#include "targets/cpu_quota.hpp"

namespace {

namespace fs = std::filesystem;

class Tree {
 public:
  Tree() {
    std::string name = (fs::temp_directory_path() / "mlsd-quota-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) std::abort();
    root_ = name;
  }
  Tree(const Tree &) = delete;
  Tree &operator=(const Tree &) = delete;
  ~Tree() { fs::remove_all(root_); }
  Tree &put(const std::string &path, const std::string &text) {
    const std::string whole = root_ + path;
    fs::create_directories(fs::path(whole).parent_path());
    std::ofstream(whole) << text;
    return *this;
  }
  int cores() const { return mlsd::quota_cores(root_); }

 private:
  std::string root_;
};

const char *const kTwo =
    "22 1 0:20 / /proc rw - proc proc rw\n"
    "30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

void test_version_two() {
  CHECK(Tree().cores() == 0);
  CHECK(Tree().put("/proc/self/mountinfo", kTwo).put("/proc/self/cgroup", "0::/a/b\n").cores() ==
        0);
  const auto with = [](const char *own, const char *above, const char *top) {
    Tree tree;
    tree.put("/proc/self/mountinfo", kTwo).put("/proc/self/cgroup", "0::/a/b\n");
    if (own != nullptr) tree.put("/sys/fs/cgroup/a/b/cpu.max", own);
    if (above != nullptr) tree.put("/sys/fs/cgroup/a/cpu.max", above);
    if (top != nullptr) tree.put("/sys/fs/cgroup/cpu.max", top);
    return tree.cores();
  };
  CHECK(with("max 100000\n", nullptr, nullptr) == 0);
  CHECK(with("300000 100000\n", nullptr, nullptr) == 3);
  CHECK(with("max 100000\n", "250000 100000\n", nullptr) == 2);  // the group above, rounded down
  CHECK(with("800000 100000\n", "300000 50000\n", "400000 100000\n") == 4);  // the tightest
  CHECK(with("5000 100000\n", nullptr, nullptr) == 1);                       // at least one
  CHECK(with("nonsense", "", "200000\n") == 0);
}

void test_inside_a_container() {
  // Without a name space for groups: the path is the host's, the mount shows the own group.
  const char *const mounts = "30 22 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
  CHECK(Tree()
            .put("/proc/self/mountinfo", mounts)
            .put("/proc/self/cgroup", "0::/docker/abc\n")
            .put("/sys/fs/cgroup/cpu.max", "150000 100000\n")
            .cores() == 1);
  CHECK(Tree()
            .put("/proc/self/mountinfo", mounts)
            .put("/proc/self/cgroup", "0::/elsewhere\n")
            .put("/sys/fs/cgroup/cpu.max", "200000 100000\n")
            .cores() == 2);
  CHECK(Tree()
            .put("/proc/self/mountinfo", kTwo)
            .put("/proc/self/cgroup", "0::/\n")
            .put("/sys/fs/cgroup/cpu.max", "700000 100000\n")
            .cores() == 7);
}

void test_version_one() {
  const char *const mounts =
      "31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
      "32 25 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
      "33 25 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";
  const char *const groups = "4:cpu,cpuacct:/job\n3:cpuset:/set\n0::/user\n";
  const auto with = [&](const char *quota) {
    return Tree()
        .put("/proc/self/mountinfo", mounts)
        .put("/proc/self/cgroup", groups)
        .put("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", quota)
        .put("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n")
        .put("/sys/fs/cgroup/cpuset/set/cpu.cfs_quota_us", "1\n")  // not of the CPU controller
        .cores();
  };
  CHECK(with("-1\n") == 0);
  CHECK(with("600000\n") == 6);
}

void test_threads() {
  const int cores = mlsd::usable_cores(), quota = mlsd::quota_cores("");
  CHECK(cores >= 1);
  CHECK(quota == 0 || cores <= quota);
  CHECK(mlsd::set_num_threads(1 << 20));
  CHECK(mlsd::num_threads() == cores);
  CHECK(!mlsd::set_num_threads(-1));
  CHECK(mlsd::set_num_threads(0));
}

}  // namespace

int main() {
  test_version_two();
  test_inside_a_container();
  test_version_one();
  test_threads();
  return check::done();
}
