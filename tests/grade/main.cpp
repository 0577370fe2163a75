// make grade PEER=path/to/a/peer: how far a program keeps what docs/protocol.md and docs/interface.md promise.
//
// Each case is a process of its own, JOBS=6 at a time, those that may take long first: so none can disturb another, and
// one that hangs is ended. What it has seen is kept until the end, and printed for the cases that failed. With --table,
// or OUTPUT=csv, one line is printed instead: the program, and its points for each requirement; POINTS=FILE writes that
// line to a file, beside the report. FILTER=R7, or FILTER=R7.Repeats, runs some only.
//
// Exit status: 0 with all 100 points, 1 with less, 2 if nothing could be judged here.

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <map>
#include <sstream>

#include "grade.h"

namespace fs = std::filesystem;
using grade::Case;

namespace {

struct Requirement { const char *id, *says; int points; };
const Requirement kRequirements[] = {
    {"R1", "starts with a name, a group and a port of its own; refuses wrong options", 8},
    {"R2", "looks for others, by broadcast and by asking every address", 12},
    {"R3", "answers who asks, and lists who hears it", 10},
    {"R4", "lists all who answered, and /list shows them", 10},
    {"R5", "keeps the list true", 10},
    {"R6", "sends messages to one, a group, or all, and says what became of them", 15},
    {"R7", "takes a stream for a stream", 15},
    {"R8", "offers, accepts, verifies and stores files", 12},
    {"R9", "is harmed by no stranger", 8},
    {"R10", "folders, and files that go on (extra)", 10}};

struct Outcome {
  const Case* of;
  bool passed;
  std::string report;
};

std::string environment(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value && *value ? value : otherwise;
}

// A network of one's own is not enough for root, who could walk back into that of the machine. In a user namespace even
// root has no power over what is outside. Where the system forbids it, the tests' own way has to do.
void give_up_power() {
  const std::string map = "0 " + std::to_string(::getuid()) + " 1", group = "0 " + std::to_string(::getgid()) + " 1";
  if (::unshare(CLONE_NEWUSER) == -1) return;
  std::ofstream("/proc/self/setgroups") << "deny";
  std::ofstream("/proc/self/uid_map") << map;
  std::ofstream("/proc/self/gid_map") << group;
}

[[noreturn]] void run(const Case& its, const std::string& folder) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const std::string output = folder + "/gtest";
  if (!std::freopen(output.c_str(), "w", stdout) || ::dup2(STDOUT_FILENO, STDERR_FILENO) == -1) ::_exit(2);
  testing::GTEST_FLAG(filter) = its.requirement + "." + its.name;
  grade::begin_case(folder, its.limit);
  const int status = RUN_ALL_TESTS();
  grade::end_case();
  ::fflush(stdout);
  ::_exit(status);
}

std::vector<Outcome> run_all(const std::vector<const Case*>& cases, size_t jobs, bool shows_progress) {
  struct Running { const Case* of; std::string folder; double since; };
  const Folder scratch;
  std::map<pid_t, Running> running;
  std::vector<Outcome> outcomes;
  for (size_t next = 0; next < cases.size() || !running.empty();) {
    if (next < cases.size() && running.size() < jobs) {
      const std::string folder = scratch.path(std::to_string(next));
      fs::create_directory(folder);
      const pid_t pid = ::fork();
      if (pid == 0) run(*cases[next], folder);
      running[pid] = {cases[next++], folder, grade::now()};
      continue;
    }
    int status = 0;
    const pid_t pid = ::waitpid(-1, &status, WNOHANG);
    if (pid <= 0) {
      // A case ends itself in time. This is for what its author did not think of.
      for (const auto& [case_pid, one] : running)
        if (grade::now() > one.since + one.of->limit + 5) ::kill(case_pid, SIGKILL);
      ::usleep(5000);
      continue;
    }
    const Running& one = running.at(pid);
    const bool passed = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    std::string report = read_file(one.folder + "/report");
    if (!passed && report.empty())
      report = "    expected  an end within " + std::to_string(one.of->limit) +
               " s\n    came      none, or the grader was in trouble:\n" +
               read_file(one.folder + "/gtest").substr(0, 1000);
    outcomes.push_back({one.of, passed, report});
    std::error_code none;
    fs::remove_all(one.folder, none);
    running.erase(pid);
    if (shows_progress) std::cout << (passed ? '.' : 'F') << std::flush;
  }
  if (shows_progress) std::cout << "\n" << std::flush;
  return outcomes;
}

}  // namespace

int main(int argc, char** argv) {
  const bool is_table = (argc > 1 && std::string(argv[1]) == "--table") || environment("OUTPUT", "") == "csv";
  int one = 1;
  testing::InitGoogleTest(&one, argv);
  ::signal(SIGPIPE, SIG_IGN);
  const std::string program = peer_program(), filter = environment("FILTER", "");
  give_up_power();
  if (!enter_private_network()) {
    std::cerr << "grade: network namespaces are not allowed here; run it as root, or allow them: sysctl "
                 "kernel.apparmor_restrict_unprivileged_userns=0 kernel.unprivileged_userns_clone=1\n";
    return 2;
  }
  if (::access(program.c_str(), X_OK) == -1) {
    std::cerr << "grade: " << program << " is not a program that can be started; build it first\n";
    return 2;
  }
  grade::begin_case("", 0);  // from here on now() is how long it takes

  std::vector<const Case*> cases;
  for (const Case& each : grade::all_cases())  // R1 is not R10
    if (filter.empty() || filter == "*" || (each.requirement + ".").rfind(filter + ".", 0) == 0 ||
        each.requirement + "." + each.name == filter)
      cases.push_back(&each);
  if (cases.empty()) {
    std::cerr << "grade: no case is called " << filter << "; FILTER takes R1 to R10, or one such as R1.Leaving\n";
    return 2;
  }
  std::stable_sort(cases.begin(), cases.end(), [](const Case* a, const Case* b) { return a->limit > b->limit; });
  const auto jobs = static_cast<size_t>(std::max(1, std::atoi(environment("JOBS", "6").c_str())));
  const std::vector<Outcome> outcomes = run_all(cases, jobs, !is_table && ::isatty(STDOUT_FILENO));

  std::ostringstream points, table, failures;
  points << std::fixed << std::setprecision(1) << environment("PEER", "./peer");
  table << std::fixed << std::setprecision(1);
  double score = 0, extra = 0;
  bool all_passed = true, all_extra = true;
  for (const Requirement& requirement : kRequirements) {
    const bool is_extra = requirement.id == std::string("R10");
    const auto is_its = [&](const Case& each) { return each.requirement == requirement.id; };
    const auto all = std::count_if(grade::all_cases().begin(), grade::all_cases().end(), is_its);
    int passed = 0, of = 0;
    std::string names;
    std::ostringstream reports;
    for (const Case* each : cases) {
      if (!is_its(*each)) continue;
      const auto is_of = [&](const Outcome& outcome) { return outcome.of == each; };
      const Outcome& outcome = *std::find_if(outcomes.begin(), outcomes.end(), is_of);
      ++of;
      passed += outcome.passed;
      if (outcome.passed) names += " " + each->name;
      else
        reports << "\n"
                << each->requirement << "." << each->name << " (" << each->clauses << "): " << each->title << "\n"
                << outcome.report;
    }
    if (passed < of) failures << "\n" << requirement.id << ", passed:" << (names.empty() ? " none" : names) << "\n";
    failures << reports.str();
    const double its_points = requirement.points * double(passed) / double(all);
    (is_extra ? extra : score) += its_points;
    (is_extra ? all_extra : all_passed) = passed == of && (is_extra ? all_extra : all_passed);
    points << " " << its_points;
    if (of == 0) continue;
    table << std::left << std::setw(4) << requirement.id << std::right << std::setw(5) << its_points << " of "
          << std::setw(2) << requirement.points << " points, " << std::setw(2) << passed << " of " << std::setw(2) << of
          << " cases: " << requirement.says << "\n";
  }
  points << " " << score + extra << "\n";
  if (const std::string file = environment("POINTS", ""); !file.empty()) std::ofstream(file) << points.str();
  // All but one of many cases may round to 100, and would hide the one.
  const auto rounded = [](double sum, int most, bool all) {
    return all ? most : std::min(most - 1, int(std::lround(sum)));
  };
  const bool is_whole = cases.size() == grade::all_cases().size();
  if (is_table) {
    std::cout << points.str();
  } else {
    std::cout << program << "\n\n" << table.str() << failures.str() << "\n";
    if (is_whole)
      std::cout << "score " << rounded(score, 100, all_passed) << " of 100, and " << rounded(extra, 10, all_extra)
                << " of 10 extra";
    std::cout << (is_whole ? " (" : "(") << std::lround(grade::now()) << " s)\n";
  }
  return all_passed && (is_whole || all_extra) ? 0 : 1;
}
