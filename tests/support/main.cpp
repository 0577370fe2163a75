// main() of the tests: one queue. Each test is a separate process in a private network. JOBS=4 run at a time, because a
// test mostly waits. Two thirds of these are long ones, which tests/support/seconds names. Each prints a line when it
// ends; if it failed, its output follows. The last line says how many tests passed, failed and were skipped. If a
// process ends before its test does, the test has failed. With STRICT=1, or in CI, a skipped test is a failure.
//
//   KINDS='plain thread'   runs each test once for each kind: with the program as it is, or as it is built for that
//                          sanitizer. Unit tests have parts of the program within them: .build/thread/run-units. The
//                          kind "user" is the plain one run by root as nobody, who can read the copy in USER_FOLDER.
//                          The kind "second" has the tests of tests/second/together only: two implementations meet.
//   STEPS=.ci/steps        other commands, in the same queue: a line of that file has a name, and what sh makes of the
//                          rest. So many at a time as there are cores, and two more.
//   JOBS=1                 one at a time, and what a test prints is seen at once.
//   SECOND_TRY=1           a failed test or step runs once more at the end, when nothing else runs. If it passes then,
//                          it counts as passed. A line before the last one says how many ran again.

#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <map>
#include <set>
#include <sstream>
#include <thread>

#include "system.h"
#include "testing.h"

namespace {

using Clock = std::chrono::steady_clock;
using Words = std::vector<std::string>;

// ---- One test, in a process of its own --------------------------------------------------------

// Its exit status. Not GoogleTest's own, 0 and 1: a program that ends amid a test may have those, too.
enum Result { kPassed = 10, kFailed = 11, kSkipped = 12 };

// Set for such a process.
constexpr char kQueued[] = "QUEUED_TEST";

Result run_test(int argc, char** argv) {
  // A test may start this program, too.
  for (const char* name : {kQueued, "KINDS", "STEPS", "SECOND_TRY"}) ::unsetenv(name);
  testing::InitGoogleTest(&argc, argv);
  ::signal(SIGPIPE, SIG_IGN);
  enter_private_network();
  const int status = RUN_ALL_TESTS();
  const testing::UnitTest& all = *testing::UnitTest::GetInstance();
  if (status != 0 || all.test_to_run_count() != 1) return kFailed;
  return all.skipped_test_count() == 1 ? kSkipped : kPassed;
}

// ---- What waits in the queue ------------------------------------------------------------------

struct Job {
  std::string title;
  Words command;
  std::map<std::string, std::string> environment;
  std::string folder;  // to run in, as nobody; empty for here, as oneself
  int seconds = 0;     // which it is known to take, if many
  bool is_step = false;
  bool is_second_try = false;
};

bool become_nobody(const std::string& folder) {
  constexpr unsigned kNobody = 65534;
  return ::chdir(folder.c_str()) == 0 && ::setgroups(0, nullptr) == 0 && ::setgid(kNobody) == 0 &&
         ::setuid(kNobody) == 0;
}

[[noreturn]] void become(const Job& job, const std::string& output) {
  for (const auto& [name, value] : job.environment) ::setenv(name.c_str(), value.c_str(), 1);
  if (!output.empty()) {
    const int fd = ::open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd == -1 || ::dup2(fd, STDOUT_FILENO) == -1 || ::dup2(fd, STDERR_FILENO) == -1) ::_exit(127);
  }
  if (!job.folder.empty() && !become_nobody(job.folder)) ::_exit(127);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::become(job.command);
}

pid_t start(const Job& job, const std::string& output) {
  std::cout.flush();
  const pid_t pid = ::fork();
  if (pid == 0) become(job, output);
  if (pid == -1) throw std::runtime_error(std::string("fork: ") + ::strerror(errno));
  return pid;
}

Job test_job(const std::string& program, const Words& options) {
  Job job;
  job.command = {program};
  job.command.insert(job.command.end(), options.begin(), options.end());
  job.environment[kQueued] = "1";
  return job;
}

// The tests of that program which the options select, as GoogleTest lists them: a suite's name ends with a dot, and each
// of its tests follows with two blanks before it, and perhaps a remark behind it.
Words tests_of(const std::string& program, const Words& options, const std::string& scratch) {
  Job listing = test_job(program, options);
  listing.command.push_back("--gtest_list_tests");
  int status = 0;
  ::waitpid(start(listing, scratch), &status, 0);
  const bool all = std::count(options.begin(), options.end(), "--gtest_also_run_disabled_tests") > 0;
  Words names;
  std::string suite;
  for (const std::string& line : lines_of(read_file(scratch))) {
    const bool is_suite = line.rfind("  ", 0) != 0;
    const std::string name = is_suite ? line : line.substr(2);
    const std::string word = name.substr(0, name.find(' '));
    if (is_suite) suite = word;
    else if (all || word.find("DISABLED_") == std::string::npos) names.push_back(suite + word);
  }
  return names;
}

std::map<std::string, int> known_seconds() {
  std::map<std::string, int> all;
  std::ifstream file("tests/support/seconds");
  int seconds = 0;
  for (std::string name; file >> seconds >> name;) all[name] = seconds;
  return all;
}

const std::string kThisProgram = "/proc/self/exe";

// What differs from one kind to the other.
struct Kind {
  std::string title;
  std::string folder;
  std::string tests = kThisProgram;
  std::string units;  // the program of the unit tests, if it is another
  std::string peer = setting("PEER", "./peer");
  std::string sanitizer;
};

Kind kind_of(const std::string& name) {
  Kind kind;
  if (name == "plain") return kind;
  kind.title = name + " ";
  if (name == "user") {
    kind.folder = setting("USER_FOLDER", "/nonexistent");
    kind.tests = ".build/run-tests";
    kind.peer = "./peer";
  } else {
    kind.units = ".build/" + name + "/run-units";
    kind.peer = ".build/" + name + "/peer";
    kind.sanitizer = name;
  }
  return kind;
}

// A line has whom tests/second plays, and in which test.
std::vector<Job> jobs_of_two_kinds(const Words& options, const std::string& scratch) {
  const Words all = tests_of(kThisProgram, options, scratch);
  std::ifstream file("tests/second/together");
  std::vector<Job> jobs;
  for (std::string who, name; file >> who >> name;) {
    if (std::find(all.begin(), all.end(), name) == all.end()) continue;
    Job job = test_job(kThisProgram, options);
    job.title = "second plays " + who + " " + name;
    job.command.push_back("--gtest_filter=" + name);
    job.command.push_back("--gtest_brief=1");
    job.environment["PEER"] = setting("PEER", "./peer");
    job.environment["SANITIZE"] = "";
    job.environment["SECOND_PLAYS"] = who;
    jobs.push_back(job);
  }
  return jobs;
}

// These compile the programs that they try: it makes no difference to them how ours is sanitized.
const std::set<std::string> kWithoutOurPeer = {"Documents.TheProtocolIsAnotherOneEachYear",
                                               "Pack.HasAllThatAStudentNeedsInThatYearsProtocol"};

std::vector<Job> jobs_of(const Kind& kind, const Words& options, const std::string& scratch) {
  const Words sanitized = kind.units.empty() ? Words() : tests_of(kind.units, options, scratch);
  const std::set<std::string> of_units(sanitized.begin(), sanitized.end());
  const auto seconds = known_seconds();
  std::vector<Job> jobs;
  for (const std::string& name : tests_of(kThisProgram, options, scratch)) {
    if (!kind.sanitizer.empty() && kWithoutOurPeer.count(name) > 0) continue;
    Job job = test_job(of_units.count(name) ? kind.units : kind.tests, options);
    job.title = kind.title + name;
    job.folder = kind.folder;
    job.command.push_back("--gtest_filter=" + name);
    job.command.push_back("--gtest_brief=1");
    job.environment["PEER"] = kind.peer;
    job.environment["SANITIZE"] = kind.sanitizer;
    if (!kind.folder.empty()) {
      job.environment["PATH"] = "/usr/bin:/bin";
      job.environment["HOME"] = kind.folder;  // that of root, which is ours, nobody else may read
    }
    const auto known = seconds.find(name);
    job.seconds = known == seconds.end() ? 0 : known->second;
    jobs.push_back(job);
  }
  return jobs;
}

std::vector<Job> steps_in(const std::string& path) {
  std::vector<Job> jobs;
  for (const std::string& line : lines_of(read_file(path))) {
    const size_t blank = line.find(' ');
    if (line.empty() || line[0] == '#' || blank == std::string::npos) continue;
    Job job;
    job.title = line.substr(0, blank);
    job.command = {"/bin/sh", "-c", line.substr(blank)};
    job.is_step = true;
    jobs.push_back(job);
  }
  return jobs;
}

// ---- The queue ---------------------------------------------------------------------------------

enum class Verdict { passed, failed, skipped, again };

const std::map<Verdict, std::string> kWords = {
    {Verdict::passed, "ok      "},
    {Verdict::failed, "FAILED  "},
    {Verdict::skipped, "skipped "},
    {Verdict::again, "AGAIN   "}};

class Queue {
 public:
  Queue(size_t at_once, bool has_second_try) : tests_at_once_(at_once), has_second_try_(has_second_try) {}

  void add(const Job& job) { lane_of(job).waiting.push_back(job); }

  void run() {
    const auto longer = [](const Job& a, const Job& b) { return a.seconds > b.seconds; };
    std::stable_sort(long_.waiting.begin(), long_.waiting.end(), longer);
    while (are_any_waiting() || !running_.empty()) {
      start_tests();
      start_steps();
      start_second_try();
      end_what_hangs();
      end_one();
    }
  }

  int total(Verdict verdict) const {
    const auto found = totals_.find(verdict);
    return found == totals_.end() ? 0 : found->second;
  }

 private:
  struct Lane {
    std::deque<Job> waiting;
    size_t running = 0;
  };
  struct Running {
    Job job;
    std::string output;  // the path of what it prints; empty where that is seen at once
    Clock::time_point since;
  };
  // A test that takes so long hangs, but for those that take LONG=1. Steps end by themselves.
  static constexpr auto kLongest = std::chrono::minutes(15);

  Lane& lane_of(const Job& job) {
    if (job.is_second_try) return again_;
    if (job.is_step) return steps_;
    return job.seconds > 0 ? long_ : short_;
  }

  bool are_any_waiting() const {
    const auto waits = [](const Lane& lane) { return !lane.waiting.empty(); };
    return waits(long_) || waits(short_) || waits(steps_) || waits(again_);
  }

  // Long tests wait for most of their time, and short ones compute. If all long ones came first, the cores would have
  // little to do at first, and too much later.
  void start_tests() {
    const size_t most_long = (2 * tests_at_once_ + 2) / 3;
    while (long_.running + short_.running < tests_at_once_) {
      const bool may_be_long = long_.running < most_long || short_.waiting.empty();
      Lane& next = may_be_long && !long_.waiting.empty() ? long_ : short_;
      if (next.waiting.empty()) return;
      start_first(next);
    }
  }

  void start_steps() {
    const size_t at_once = std::thread::hardware_concurrency() + 2;
    while (steps_.running < at_once && !steps_.waiting.empty()) start_first(steps_);
  }

  // By itself: on a busy machine a test may fail that finds no fault.
  void start_second_try() {
    if (running_.empty() && !again_.waiting.empty()) start_first(again_);
  }

  void start_first(Lane& lane) {
    Running one;
    one.job = lane.waiting.front();
    one.since = Clock::now();
    if (tests_at_once_ > 1) one.output = folder_.path(std::to_string(started_));
    const pid_t pid = start(one.job, one.output);
    running_[pid] = one;
    lane.waiting.pop_front();
    ++lane.running;
    ++started_;
  }

  void end_what_hangs() const {
    for (const auto& [pid, one] : running_)
      if (!one.job.is_step && Clock::now() - one.since > kLongest) ::kill(pid, SIGKILL);
  }

  void end_one() {
    int status = 0;
    rusage used{};
    const pid_t pid = ::wait4(-1, &status, WNOHANG, &used);
    const auto ended = running_.find(pid);
    if (ended == running_.end()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      return;
    }
    const Running one = ended->second;
    running_.erase(ended);
    --lane_of(one.job).running;
    report(one, status, used);
    std::error_code ignored;
    std::filesystem::remove(one.output, ignored);
  }

  void report(const Running& one, int status, const rusage& used) {
    const Words printed = lines_of(read_file(one.output));
    Verdict verdict = verdict_of(one.job, status);
    if (verdict == Verdict::failed && has_second_try_ && !one.job.is_second_try) {
      verdict = Verdict::again;
      try_again(one.job);
    }
    ++totals_[verdict];
    const std::chrono::duration<double> took = Clock::now() - one.since;
    std::cout << kWords.at(verdict) << one.job.title << std::fixed << std::setprecision(1) << " (" << took.count()
              << " s, " << seconds(used) << " s of a core)";
    if (verdict == Verdict::skipped) std::cout << ": " << reason(printed);
    if (one.job.is_step && !printed.empty()) std::cout << ": " << printed.back();
    std::cout << std::endl;
    if (verdict == Verdict::passed || verdict == Verdict::skipped) return;
    for (const std::string& line : printed) std::cout << "    " << line << "\n";
    std::cout << "    " << how_it_ended(one.job, status) << std::endl;
  }

  void try_again(Job job) {
    job.is_second_try = true;
    job.title += ", second try";
    again_.waiting.push_back(job);
  }

  static Verdict verdict_of(const Job& job, int status) {
    if (!WIFEXITED(status)) return Verdict::failed;
    const int code = WEXITSTATUS(status);
    if (code == (job.is_step ? EXIT_SUCCESS : int(kPassed))) return Verdict::passed;
    return code == kSkipped && !job.is_step ? Verdict::skipped : Verdict::failed;
  }

  static double seconds(const rusage& used) {
    const auto of = [](const timeval& time) { return double(time.tv_sec) + double(time.tv_usec) / 1e6; };
    return of(used.ru_utime) + of(used.ru_stime);
  }

  // GoogleTest prints it in the line after the one that ends with this word.
  static std::string reason(const Words& printed) {
    for (size_t i = 1; i < printed.size(); ++i)
      if (printed[i - 1].find(": Skipped") != std::string::npos) return printed[i];
    return "";
  }

  static std::string how_it_ended(const Job& job, int status) {
    if (WIFSIGNALED(status)) return std::string("It died: ") + ::strsignal(WTERMSIG(status));
    const int code = WEXITSTATUS(status);
    if (code == kFailed && !job.is_step) return "It failed.";
    return "It ended with status " + std::to_string(code) + (job.is_step ? "." : ", before its test did.");
  }

  const Folder folder_;
  const size_t tests_at_once_;
  const bool has_second_try_;
  Lane long_;
  Lane short_;
  Lane steps_;
  Lane again_;  // what failed on its first try
  std::map<pid_t, Running> running_;
  size_t started_ = 0;
  std::map<Verdict, int> totals_;
};

int run_queue(const Words& options) {
  const size_t at_once = std::max(1u, number_setting("JOBS", 1));
  Queue queue(at_once, setting("SECOND_TRY") == "1");
  const Folder scratch;
  std::istringstream kinds(setting("KINDS", "plain"));
  for (std::string kind; kinds >> kind;) {
    const std::string list = scratch.path("list");
    const bool is_of_two = kind == "second";
    const auto jobs = is_of_two ? jobs_of_two_kinds(options, list) : jobs_of(kind_of(kind), options, list);
    for (const Job& job : jobs) queue.add(job);
  }
  for (const Job& step : steps_in(setting("STEPS", "/dev/null"))) queue.add(step);
  queue.run();
  const bool must_not_skip = setting("STRICT") == "1" || setting("CI") == "true";
  const int failed = queue.total(Verdict::failed);
  const int skipped = queue.total(Verdict::skipped);
  const int tried_again = queue.total(Verdict::again);
  if (tried_again > 0) std::cout << tried_again << " ran a second time (AGAIN, above): find out why the first failed\n";
  if (must_not_skip && skipped > 0) std::cout << "skipping counts as failing here\n";
  std::cout << queue.total(Verdict::passed) << " passed, " << failed << " failed, " << skipped << " skipped\n";
  return failed > 0 || (must_not_skip && skipped > 0) ? 1 : 0;
}

}  // namespace

// NOLINTNEXTLINE(bugprone-exception-escape): an exception ends it, and shows what it was
int main(int argc, char** argv) {
  if (std::getenv(kQueued)) return run_test(argc, argv);
  return run_queue(Words(argv + 1, argv + argc));
}
