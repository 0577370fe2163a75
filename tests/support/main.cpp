// main() of the tests. Most of a test is waiting, so JOBS=4 of them run at a time: this program starts itself so many
// times, and each of these jobs takes every fourth test (GoogleTest calls that a shard), in a private network of its own.
// Each test is a line when it has ended; what a job with a failure has printed follows at its end, and at last how many
// tests passed, failed and were skipped. Of a job that dies, the tests without a result have failed. With STRICT=1, or in
// CI, a skipped test is a failure.

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <iostream>
#include <map>

#include "testing.h"

namespace {

// All jobs count in this, which is a file that each of them has mapped.
struct Totals {
  std::atomic<int> begun, passed, failed, skipped;  // begun: how many tests those that have begun are going to run
};

Totals* map_totals(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd == -1 || ::ftruncate(fd, sizeof(Totals)) == -1) std::abort();
  void* shared = ::mmap(nullptr, sizeof(Totals), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (shared == MAP_FAILED) std::abort();
  ::close(fd);
  return static_cast<Totals*>(shared);
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// ---- A job -----------------------------------------------------------------------------------

// The folder of its parent, which has the totals in it, and the job's output. Nobody else has this variable.
constexpr char kFolder[] = "JOB_FOLDER";

class Counter : public testing::EmptyTestEventListener {
 public:
  explicit Counter(Totals& totals) : totals_(totals) {}
  void OnTestIterationStart(const testing::UnitTest& all, int) override { totals_.begun += all.test_to_run_count(); }
  void OnTestEnd(const testing::TestInfo& test) override {
    const testing::TestResult& result = *test.result();
    if (result.Skipped()) ++totals_.skipped;
    else if (result.Passed()) ++totals_.passed;
    else ++totals_.failed;
  }

 private:
  Totals& totals_;
};

class OneLineATest : public testing::EmptyTestEventListener {
 public:
  explicit OneLineATest(int fd) : fd_(fd) {}
  void OnTestEnd(const testing::TestInfo& test) override {
    const testing::TestResult& result = *test.result();
    const std::string how = result.Passed() ? "ok      " : result.Skipped() ? "skipped " : "FAILED  ";
    const std::string line = how + test.test_suite_name() + "." + test.name() + " (" +
                             std::to_string(result.elapsed_time() / 1000) + " s)" +
                             (result.Skipped() ? std::string(": ") + result.GetTestPartResult(0).message() : "") + "\n";
    if (::write(fd_, line.data(), line.size()) == -1) std::abort();
  }

 private:
  const int fd_;
};

int run_job(const std::string& folder, int argc, char** argv) {
  ::unsetenv(kFolder);  // a test may start this program, too
  testing::InitGoogleTest(&argc, argv);
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  listeners.Append(new Counter(*map_totals(folder + "/totals")));
  if (environment("GTEST_TOTAL_SHARDS") != "1") {
    listeners.Append(new OneLineATest(::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0)));
    const std::string output = folder + "/" + environment("GTEST_SHARD_INDEX");
    if (!std::freopen(output.c_str(), "w", stdout)) std::abort();
    if (::dup2(STDOUT_FILENO, STDERR_FILENO) == -1) std::abort();
  }
  ::signal(SIGPIPE, SIG_IGN);
  enter_private_network();
  return RUN_ALL_TESTS();
}

// ---- Their parent ------------------------------------------------------------------------------

// A program anew, and not a copy of this one: GoogleTest reads these variables before main() begins.
pid_t start_job(int index, int jobs, const std::string& folder, char** argv) {
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  ::setenv("GTEST_TOTAL_SHARDS", std::to_string(jobs).c_str(), 1);
  ::setenv("GTEST_SHARD_INDEX", std::to_string(index).c_str(), 1);
  ::setenv(kFolder, folder.c_str(), 1);
  ::execv("/proc/self/exe", argv);
  ::_exit(127);
}

int run_jobs(char** argv) {
  const int jobs = std::max(1, std::atoi(environment("JOBS").c_str()));
  const Folder folder;
  const Totals& totals = *map_totals(folder.path("totals"));
  std::map<pid_t, std::string> outputs;
  for (int i = 0; i < jobs; ++i) outputs[start_job(i, jobs, folder.path(), argv)] = folder.path(std::to_string(i));
  int broken = 0;  // jobs that died, or with a failure
  while (!outputs.empty()) {
    int status = 0;
    const pid_t pid = ::wait(&status);
    if (status != 0) {
      ++broken;
      std::cout << read_file(outputs[pid]) << std::flush;
    }
    if (WIFSIGNALED(status)) std::cout << "A job died: " << ::strsignal(WTERMSIG(status)) << std::endl;
    outputs.erase(pid);
  }
  const int without_result = totals.begun - totals.passed - totals.failed - totals.skipped;
  if (without_result > 0) std::cout << without_result << " tests have no result" << std::endl;
  const int failed = std::max(totals.failed + without_result, broken);
  std::cout << totals.passed << " passed, " << failed << " failed, " << totals.skipped << " skipped" << std::endl;
  const bool must_not_skip = environment("STRICT") == "1" || environment("CI") == "true";
  if (must_not_skip && totals.skipped > 0) std::cout << "skipping counts as failing here" << std::endl;
  return failed > 0 || (must_not_skip && totals.skipped > 0) ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string folder = environment(kFolder);
  return folder.empty() ? run_jobs(argv) : run_job(folder, argc, argv);
}
