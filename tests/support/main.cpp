// main() of the tests. Most of a test is waiting, so JOBS=4 of them run at a time: this process becomes so many, and each
// takes every fourth test (GoogleTest calls that a shard), in a private network of its own. Each test is a line when it
// has ended; what a shard with a failure has printed follows at its end, and at last how many tests passed, failed and
// were skipped. With STRICT=1, or in CI, a skipped test is a failure.

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <iostream>
#include <map>

#include "testing.h"

namespace {

struct Totals { std::atomic<int> passed, failed, skipped, broken; };  // broken: shards that crashed, or with a failure

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

int run_shard(Totals& totals, int fd) {
  enter_private_network();
  if (fd != STDOUT_FILENO) testing::UnitTest::GetInstance()->listeners().Append(new OneLineATest(fd));
  const int status = RUN_ALL_TESTS();
  const auto& all = *testing::UnitTest::GetInstance();
  totals.passed += all.successful_test_count();
  totals.failed += all.failed_test_count();
  totals.skipped += all.skipped_test_count();
  return status;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  ::signal(SIGPIPE, SIG_IGN);
  const int jobs = std::max(1, std::atoi(environment("JOBS").c_str()));
  void* shared = ::mmap(nullptr, sizeof(Totals), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  Totals& totals = *new (shared) Totals{};
  const Folder outputs;
  std::map<pid_t, std::string> shards;
  for (int i = 0; i < jobs; ++i) {
    const std::string output = outputs.path(std::to_string(i));
    const pid_t pid = ::fork();
    if (pid != 0) {
      shards[pid] = output;
      continue;
    }
    ::setenv("GTEST_TOTAL_SHARDS", std::to_string(jobs).c_str(), 1);
    ::setenv("GTEST_SHARD_INDEX", std::to_string(i).c_str(), 1);
    const int fd = jobs > 1 ? ::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0) : STDOUT_FILENO;
    if (jobs > 1 && (!std::freopen(output.c_str(), "w", stdout) || ::dup2(STDOUT_FILENO, STDERR_FILENO) == -1)) ::_exit(1);
    const int status = run_shard(totals, fd);
    std::exit(status);  // and not _exit(): gcov writes its counters on the way out
  }
  while (!shards.empty()) {
    int status = 0;
    const pid_t pid = ::wait(&status);
    totals.broken += status != 0;
    if (status != 0) std::cout << read_file(shards[pid]) << std::flush;
    shards.erase(pid);
  }
  std::cout << totals.passed << " passed, " << totals.failed << " failed, " << totals.skipped << " skipped" << std::endl;
  const bool must_not_skip = environment("STRICT") == "1" || environment("CI") == "true";
  if (must_not_skip && totals.skipped > 0) std::cout << "skipping counts as failing here" << std::endl;
  return totals.broken > 0 || (must_not_skip && totals.skipped > 0) ? 1 : 0;
}
