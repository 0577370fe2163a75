// make grade PEER=path/to/a/peer: how far a program keeps what docs/protocol.md and docs/interface.md promise.
//
// Each case is a process of its own, so none can disturb another, and one that hangs is ended. JOBS=6 of those that work
// run at a time; those that wait for most of their time run side by side with them. A case that failed is tried once
// more, by itself. What it has seen is kept until the end: report.h has the ways to say it.
//
//   FILTER=R7, FILTER=R7.Repeats    some cases only
//   MILESTONE=1                     those of milestones 0 and 1 only
//   LONG=1                          those as well that wait for a minute or more: up to 330 s in all
//   SEED=7                          draws the same names, ids, ports and texts again
//   REPORTS=folder                  a picture of each case that failed, as SVG
//   JUNIT=file, GRADESCOPE=results.json, CLASSROOM50=result.json, POINTS=file: for other programs
//   SECOND_TRIES=0                  who fails once has failed
//   --table, or OUTPUT=csv          prints the line of points instead of the report
//   --cases                         judges nothing: prints each case with its milestone, points and clauses
//
// grade --pair ONE OTHER CAPTURE    lets two programs meet: pair.h
//
// Exit status: 0 with all 100 points, 1 with less, 2 if nothing could be judged here.

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <random>

#include "milestones.h"
#include "pair.h"
#include "report.h"
#include "support/system.h"

namespace fs = std::filesystem;
using grade::Case;
using grade::Outcome;

namespace {

constexpr size_t kWaitingAtOnce = 40;
constexpr int kToBeginAndEnd = 70;            // seconds that a case may take beside its own: for its network, say
constexpr double kForSecondTries = 60;        // seconds, in all
constexpr size_t kMostSecondTries = 20;       // where more have failed, it is not the machine

// A network of one's own is not enough for root, who could walk back into that of the machine. In a user namespace even
// root has no power over what is outside. Where the system forbids it, the tests' own way has to do.
void give_up_power() {
  const std::string map = "0 " + std::to_string(::getuid()) + " 1", group = "0 " + std::to_string(::getgid()) + " 1";
  if (::unshare(CLONE_NEWUSER) == -1) return;
  std::ofstream("/proc/self/setgroups") << "deny";
  std::ofstream("/proc/self/uid_map") << map;
  std::ofstream("/proc/self/gid_map") << group;
}

// ---- Running cases --------------------------------------------------------------------------------------------------

class Queue {
 public:
  Queue(std::string seed, bool shows_progress) : seed_(std::move(seed)), shows_progress_(shows_progress) {}

  // In the order in which they are given; `jobs` of those that work at a time.
  std::vector<Outcome> run(const std::vector<const Case*>& cases, size_t jobs);
  Outcome run_alone(const Case& its) { return run({&its}, 1).front(); }

 private:
  struct Running {
    const Case* of;
    std::string folder;
    double since;
  };
  static bool is_waiting(const Case& its) { return its.limit > Case::kWorking; }
  void start(const Case& its);
  void end_overdue() const;
  Outcome finish(const Running& one, int status) const;
  [[noreturn]] void be(const Case& its, const std::string& folder) const;

  const std::string seed_;
  const bool shows_progress_;
  const Folder scratch_;
  std::map<pid_t, Running> running_;
  int started_ = 0;
};

[[noreturn]] void Queue::be(const Case& its, const std::string& folder) const {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const std::string output = folder + "/gtest";
  if (!std::freopen(output.c_str(), "w", stdout) || ::dup2(STDOUT_FILENO, STDERR_FILENO) == -1) ::_exit(2);
  testing::GTEST_FLAG(filter) = its.id();
  grade::begin_case(folder, its.limit, seed_ + "/" + its.id());
  const int status = RUN_ALL_TESTS();
  grade::end_case();
  ::fflush(stdout);
  ::_exit(status);
}

void Queue::start(const Case& its) {
  const std::string folder = scratch_.path(std::to_string(started_++));
  fs::create_directory(folder);
  const pid_t pid = ::fork();
  if (pid == 0) be(its, folder);
  running_[pid] = {&its, folder, grade::now()};
}

// A case ends itself in time. This is for what its author did not think of.
void Queue::end_overdue() const {
  for (const auto& [pid, one] : running_)
    if (grade::now() > one.since + one.of->limit + kToBeginAndEnd) ::kill(pid, SIGKILL);
}

Outcome Queue::finish(const Running& one, int status) const {
  Outcome outcome;
  outcome.of = one.of;
  outcome.passed = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  outcome.seconds = grade::now() - one.since;
  if (!outcome.passed) read_outcome(one.folder, outcome);
  if (!outcome.passed && outcome.expected.empty()) {
    outcome.expected = "an end within " + std::to_string(one.of->limit) + " s";
    outcome.came = "none, or the grader was in trouble: " + read_file(one.folder + "/gtest").substr(0, 1000);
    outcome.alike = outcome.expected;
  }
  std::error_code none;
  fs::remove_all(one.folder, none);
  if (shows_progress_) std::cout << (outcome.passed ? '.' : 'F') << std::flush;
  return outcome;
}

std::vector<Outcome> Queue::run(const std::vector<const Case*>& cases, size_t jobs) {
  std::vector<const Case*> waiting, working;
  for (const Case* each : cases) (is_waiting(*each) ? waiting : working).push_back(each);
  const auto takes_longer = [](const Case* one, const Case* other) { return one->limit > other->limit; };
  std::stable_sort(waiting.begin(), waiting.end(), takes_longer);
  std::vector<Outcome> outcomes;
  size_t next_waiting = 0, next_working = 0;
  while (next_waiting < waiting.size() || next_working < working.size() || !running_.empty()) {
    const auto waits = [](const auto& entry) { return is_waiting(*entry.second.of); };
    const auto wait = static_cast<size_t>(std::count_if(running_.begin(), running_.end(), waits));
    if (next_waiting < waiting.size() && wait < kWaitingAtOnce) start(*waiting[next_waiting++]);
    if (next_working < working.size() && running_.size() - wait < jobs) start(*working[next_working++]);
    int status = 0;
    const pid_t pid = ::waitpid(-1, &status, WNOHANG);
    if (pid <= 0) {
      end_overdue();
      ::usleep(5000);
      continue;
    }
    outcomes.push_back(finish(running_.at(pid), status));
    running_.erase(pid);
  }
  const auto place = [&](const Outcome& outcome) { return std::find(cases.begin(), cases.end(), outcome.of); };
  std::sort(outcomes.begin(), outcomes.end(),
            [&](const Outcome& one, const Outcome& other) { return place(one) < place(other); });
  return outcomes;
}

// ---- Judging ----------------------------------------------------------------------------------------------------------

bool has_failed(const Outcome& outcome) { return !outcome.passed; }

// Those that ask whether a program says that it is ready; and whether it does anything at all.
const std::vector<std::string> kAboutReady = {"R1.SaysThatItIsReady", "R1.OptionsWithAnEqualsSign",
                                              "R1.DefaultsWithoutATerminal"};
const std::vector<std::string> kAboutHello = {"R2.SaysHelloAtStart", "R2.SaysWhoItIs"};

bool is_in(const std::vector<std::string>& ids, const Case& its) {
  return std::find(ids.begin(), ids.end(), its.id()) != ids.end();
}

bool has_any_passed(const std::vector<std::string>& ids, const std::vector<Outcome>& outcomes) {
  return std::any_of(outcomes.begin(), outcomes.end(),
                     [&](const Outcome& outcome) { return outcome.passed && is_in(ids, *outcome.of); });
}

Outcome not_tried(const Case& its, const Outcome& because) {
  Outcome outcome = because;
  outcome.of = &its;
  outcome.was_tried = false;
  outcome.picture = outcome.drawing = "";
  return outcome;
}

// A program that does nothing yet is told so at once, and nothing that would fail alike is tried. Of one that says
// HELLO, but not that it is ready, only R1 and R2 are.
std::vector<Outcome> judge(Queue& queue, const std::vector<const Case*>& cases, size_t jobs) {
  std::vector<const Case*> early, late, tried;
  size_t first = 0;
  for (const Case* each : cases) {
    const bool is_first = is_in(kAboutReady, *each) || is_in(kAboutHello, *each);
    (is_first || each->requirement == "R1" ? early : late).push_back(each);
    if (is_first) ++first;
  }
  if (first < kAboutReady.size() + kAboutHello.size()) return queue.run(cases, jobs);
  std::vector<Outcome> outcomes = queue.run(early, early.size());
  const bool is_ready = has_any_passed(kAboutReady, outcomes), says_hello = has_any_passed(kAboutHello, outcomes);
  for (const Case* each : late)
    if (is_ready || (says_hello && each->requirement == "R2")) tried.push_back(each);
  for (Outcome& outcome : queue.run(tried, jobs)) outcomes.push_back(std::move(outcome));
  if (tried.size() == late.size()) return outcomes;
  const Outcome because = *std::find_if(outcomes.begin(), outcomes.end(), has_failed);
  for (const Case* each : late)
    if (std::find(tried.begin(), tried.end(), each) == tried.end()) outcomes.push_back(not_tried(*each, because));
  return outcomes;
}

// A busy machine may fail a case, so it is tried once more, by itself.
void try_again(Queue& queue, std::vector<Outcome>& outcomes) {
  const auto failed = std::count_if(outcomes.begin(), outcomes.end(), has_failed);
  if (static_cast<size_t>(failed) > kMostSecondTries || setting("SECOND_TRIES") == "0") return;
  const double begun = grade::now();
  for (Outcome& outcome : outcomes) {
    const bool is_in_time = grade::now() + outcome.of->limit / 2.0 < begun + kForSecondTries;
    if (outcome.passed || !is_in_time) continue;
    Outcome second = queue.run_alone(*outcome.of);
    second.is_second_try = true;
    outcome = std::move(second);
  }
}

std::vector<const Case*> counted_cases() {
  const bool is_long = setting("LONG") == "1";
  std::vector<const Case*> all;
  for (const Case& each : grade::all_cases())
    if (is_long || !each.is_long()) all.push_back(&each);
  const auto number = [](const Case* its) { return std::atoi(its->requirement.c_str() + 1); };
  std::stable_sort(all.begin(), all.end(), [&](const Case* a, const Case* b) { return number(a) < number(b); });
  return all;
}

bool is_chosen(const Case& its, const std::string& filter) {
  const bool is_of_it = (its.requirement + ".").rfind(filter + ".", 0) == 0;  // R1 is not R10
  return filter.empty() || filter == "*" || filter == its.requirement + ".*" || is_of_it || filter == its.id();
}

bool is_due(const Case& its, const std::string& last_milestone) {
  return last_milestone.empty() || grade::milestone(its) <= std::atoi(last_milestone.c_str());
}

}  // namespace

// NOLINTNEXTLINE(bugprone-exception-escape): an exception ends it, and shows what it was
int main(int argc, char** argv) {
  const bool is_table = (argc > 1 && std::string(argv[1]) == "--table") || setting("OUTPUT") == "csv";
  int one = 1;
  testing::InitGoogleTest(&one, argv);
  ::signal(SIGPIPE, SIG_IGN);
  const std::string program = peer_program(), filter = setting("FILTER");
  const std::string seed = setting("SEED", std::to_string(std::random_device{}() % 100'000));
  const std::vector<const Case*> counted = counted_cases();
  if (!grade::milestones_are_valid()) return 2;
  if (argc > 1 && std::string(argv[1]) == "--cases") {
    grade::Report(program, seed, counted, {}).print_cases(std::cout);
    return 0;
  }
  const std::string last_milestone = setting("MILESTONE");
  if (last_milestone.find_first_not_of("01234") != std::string::npos) {
    std::cerr << "grade: MILESTONE is a number from 0 to " << grade::kLastMilestone << ", not " << last_milestone << "\n";
    return 2;
  }
  give_up_power();
  if (!enter_private_network()) {
    std::cerr << "grade: network namespaces are not allowed here; run it as root, or allow them: sysctl "
                 "kernel.apparmor_restrict_unprivileged_userns=0 kernel.unprivileged_userns_clone=1\n";
    return 2;
  }
  if (argc == 5 && std::string(argv[1]) == "--pair") return grade::play_pair(argv[2], argv[3], argv[4]) ? 0 : 1;
  const bool is_folder = std::filesystem::is_directory(program);
  if (is_folder || ::access(program.c_str(), X_OK) == -1) {
    std::cerr << "grade: " << program << " cannot be started; build it first\n";
    return 2;
  }
  grade::begin_case("", 0, seed);  // from here on now() is how long it takes

  std::vector<const Case*> chosen;
  for (const Case* each : counted)
    if (is_chosen(*each, filter) && is_due(*each, last_milestone)) chosen.push_back(each);
  if (chosen.empty()) {
    std::cerr << "grade: there is no case " << filter
              << "; FILTER takes R1 to R10, or a case such as R1.Leaving (LONG=1 adds those that wait long)\n";
    return 2;
  }
  const size_t jobs = std::max(1u, number_setting("JOBS", 6));
  Queue queue(seed, !is_table && ::isatty(STDOUT_FILENO));
  std::vector<Outcome> outcomes = judge(queue, chosen, jobs);
  try_again(queue, outcomes);

  const double seconds = grade::now();
  const grade::Report report(setting("PEER", "./peer"), seed, counted, outcomes);
  if (const std::string file = setting("POINTS"); !file.empty()) {
    std::ofstream points(file);
    report.print_points(points);
  }
  if (const std::string file = setting("JUNIT"); !file.empty()) report.write_junit(file);
  if (const std::string file = setting("GRADESCOPE"); !file.empty()) report.write_gradescope(file, seconds);
  if (const std::string file = setting("CLASSROOM50"); !file.empty()) report.write_classroom50(file);
  if (const std::string folder = setting("REPORTS"); !folder.empty()) report.write_drawings(folder);
  if (is_table) report.print_points(std::cout);
  else report.print(std::cout, seconds);
  return report.has_passed() ? 0 : 1;
}
