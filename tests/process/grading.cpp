// The grader as its users see it: what it says to a beginner, the files it writes for other programs, a class, and the
// scripts in docs/gradescope. tests/grade/wrong.sh tests how it judges.

#include <signal.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>

#include "support/testing.h"

namespace fs = std::filesystem;

namespace {

std::string root() { return fs::current_path(); }

// A JSON text, read to its end: whether it is one. What is in it is asked by matches().
class Json {
 public:
  explicit Json(const std::string& text) : text_(text) {}
  bool is_valid() { return value() && (blanks(), at_ == text_.size()); }

 private:
  void blanks() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
  }
  bool takes(const std::string& word) {
    blanks();
    const bool is_there = text_.compare(at_, word.size(), word) == 0;
    if (is_there) at_ += word.size();
    return is_there;
  }
  bool string() {
    if (!takes("\"")) return false;
    for (; at_ < text_.size() && text_[at_] != '"'; ++at_) {
      if (static_cast<unsigned char>(text_[at_]) < 0x20) return false;
      if (text_[at_] == '\\') ++at_;
    }
    return takes("\"");
  }
  bool number() {
    blanks();
    const size_t begin = at_;
    while (at_ < text_.size() && (std::isdigit(static_cast<unsigned char>(text_[at_])) || text_[at_] == '.')) ++at_;
    return at_ > begin;
  }
  bool list(const char* end, bool has_keys) {
    if (takes(end)) return true;
    do {
      if (has_keys && !(string() && takes(":"))) return false;
      if (!value()) return false;
    } while (takes(","));
    return takes(end);
  }
  bool value() {
    if (takes("{")) return list("}", true);
    if (takes("[")) return list("]", false);
    return takes("true") || takes("false") || string() || number();
  }

  const std::string text_;
  size_t at_ = 0;
};

// A word of a name in front of a JSON number: all of these, summed up.
double sum(const std::string& text, const std::string& pattern) {
  double all = 0;
  for (const auto& found : matches(text, pattern)) all += std::stod(found[1]);
  return all;
}

// That were started with this argument.
int processes_with(const std::string& argument) {
  int count = 0;
  for (const auto& entry : fs::directory_iterator("/proc"))
    if (read_file(entry.path() / "cmdline").find(argument) != std::string::npos) ++count;
  return count;
}

}  // namespace

class Grading : public OneHost {
 protected:
  // A run of the shell, in the root of the repository; its output.
  std::string run(const std::string& command, int status, double seconds = 120) {
    const std::string clean = "unset FILTER LONG SEED JOBS OUTPUT; export GRADER=$PWD/.build/grade; ";
    Process shell(network->descriptor(0), {"/bin/sh", "-c", clean + command}, root());
    EXPECT_EQ(shell.exit_status(seconds), status) << shell.output();
    return shell.output();
  }
  std::string grade(const std::string& variables, int status) { return run(variables + " .build/grade", status); }
  std::string program(const std::string& name, const std::string& script) {
    const std::string path = folder.write(name, "#!/bin/sh\n" + script + "\n");
    fs::permissions(path, fs::perms::owner_all);
    return path;
  }
  // A submission whose Makefile "builds" a program that is there.
  void submit(const std::string& name, const std::string& rule) {
    fs::create_directories(folder.path("class/" + name));
    std::ofstream(folder.path("class/" + name + "/Makefile")) << "peer:\n\t" << rule << "\n";
  }
  Folder folder;
};

TEST_F(Grading, SaysAtOnceThatAProgramDoesNothingYet) {
  for (const char* script : {"exit 0", "exec sleep 1000"}) {
    const std::string report = grade("PEER=" + program("nothing", script), 1);
    EXPECT_NE(report.find("Worth mending first:\n  1. "), std::string::npos) << report;
    EXPECT_NE(report.find(" prints: ready "), std::string::npos) << report;
    EXPECT_NE(report.find("R9 was not tried: R1.SaysThatItIsReady comes first\n"), std::string::npos) << report;
    EXPECT_NE(report.find("score 0 of 100"), std::string::npos) << report;
    EXPECT_LT(lines_of(report).size(), 250u) << report;
  }
}

TEST_F(Grading, ShowsWhatPassedAndHowToSeeItAgain) {
  const std::string folder_of_pictures = folder.path("pictures");
  const std::string ready = program("ready", "echo \"ready $2@127.0.0.1:25253 $4\"; cat >/dev/null");
  const std::string junit = folder.path("junit.xml");
  const std::string report =
      grade("FILTER=R7.Repeats SEED=7 REPORTS=" + folder_of_pictures + " JUNIT=" + junit + " PEER=" + ready, 1);
  EXPECT_NE(report.find("accepts a TCP connection at its port, 25253"), std::string::npos) << report;
  EXPECT_NE(report.find("again     make grade FILTER=R7.Repeats SEED=7"), std::string::npos) << report;
  EXPECT_NE(report.find("* prints: ready "), std::string::npos) << report;
  EXPECT_NE(report.find("MISSING: "), std::string::npos) << report;
  EXPECT_NE(report.find("\nMend first what this shows: make grade FILTER=R7.Repeats SEED=7\n"), std::string::npos) << report;
  for (const std::string& line : lines_of(report)) {
    const bool is_as_it_came = !matches(line, "^ +(expected|got) ").empty();
    EXPECT_TRUE(is_as_it_came || line.size() <= 80) << line;
  }
  const std::string drawing = read_file(folder_of_pictures + "/R7.Repeats.svg");
  EXPECT_EQ(drawing.rfind("<svg", 0) == 0 || drawing.rfind("<?xml", 0) == 0, true) << drawing.substr(0, 100);
  EXPECT_NE(drawing.find("R7.Repeats"), std::string::npos);
  run("xmllint --noout " + junit + " " + folder_of_pictures + "/R7.Repeats.svg", 0);
  EXPECT_EQ(run("xmllint --xpath 'string(//testcase[@name=\"Repeats\"]/failure/@message)' " + junit, 0)
                .rfind("expected ", 0), 0u);
}

// A student reads them; the bytes of 32 foxes filled his first report.
TEST_F(Grading, ShowsNamesInEveryScriptAsTheyAreWritten) {
  const std::string latin =
      program("latin", "case $2 in *[!a-z]*) exit 2 ;; esac; echo \"ready $2@127.0.0.1:25253 $4\"; cat >/dev/null");
  const std::string report = grade("FILTER=R1.NamesOf32Characters PEER=" + latin, 1);
  EXPECT_NE(report.find("prints: ready 🦊🦊"), std::string::npos) << report;
  EXPECT_EQ(report.find("\\x"), std::string::npos) << report;
}

// Something came, and was not what was expected: the mark stands where it came.
TEST_F(Grading, MarksWhatMustNotHaveComeWhereItCame) {
  NEEDS_PROGRAM("nc", "netcat-openbsd");
  const std::string talks =
      program("talks", "{ until ss -ltn | grep -q :25253; do sleep 0.1; done; echo \"ready $2@127.0.0.1:25253 $4\"; } &\n"
                       "echo NO mood not today | nc -l 127.0.0.1 25253");
  const std::string report = grade("FILTER=R7.Repeats PEER=" + talks, 1);
  const std::string picture = report.substr(std::min(report.find("  seconds"), report.size()));
  EXPECT_FALSE(matches(picture, "\n *[0-9.]+  \\|== WRONG: NO mood not today\\\\n =+>\\|\n"
                                " +\\|   EXPECTED: OK ChatByP2P/1 HERE").empty()) << report;
  EXPECT_EQ(picture.find("MISSING"), std::string::npos) << picture;
  EXPECT_NE(picture.find("127.0.0.1:25253 "), std::string::npos) << picture;
  for (const std::string& line : lines_of(picture.substr(0, picture.find("\n\n")))) EXPECT_LE(line.size(), 80u) << line;
}

TEST_F(Grading, DrawsOtherNamesByAnotherSeed) {
  const std::string mute = program("mute", "exit 0");
  const auto name = [&](const std::string& seed) {
    const std::string report = grade("FILTER=R1.SaysThatItIsReady SEED=" + seed + " PEER=" + mute, 1);
    const auto found = matches(report, "prints: ready (\\w+)@");
    return found.empty() ? "none" : found[0][1].str();
  };
  const std::string first = name("7");
  EXPECT_EQ(first, name("7"));
  EXPECT_NE(first, name("8"));
}

TEST_F(Grading, WritesFilesForOtherPrograms) {
  const std::string junit = folder.path("junit.xml"), gradescope = folder.path("results.json"),
                    classroom50 = folder.path("result.json");
  // R1 passes, and R10's only case of the filter is not chosen: a part is written as a whole is.
  grade("FILTER=R1 JUNIT=" + junit + " GRADESCOPE=" + gradescope + " CLASSROOM50=" + classroom50 +
            " CLASSROOM=net ASSIGNMENT=peer USERNAME=ann SUBMISSION_TAG=submit/1 COMMIT_URL=https://a.example/c "
            "RELEASE_URL=https://a.example/r PEER=" + peer_program(),
        0);
  run("xmllint --noout " + junit, 0);
  const std::string xml = read_file(junit);
  EXPECT_FALSE(matches(xml, "<testsuite name=\"R1\" tests=\"[0-9]+\" failures=\"0\" errors=\"0\">").empty()) << xml;
  EXPECT_FALSE(matches(xml, "<testcase classname=\"R1\" name=\"Leaving\"").empty()) << xml;

  const std::string results = read_file(gradescope);
  EXPECT_TRUE(Json(results).is_valid()) << results;
  const std::string tests = results.substr(results.find("\"tests\""));
  EXPECT_NEAR(sum(tests, "\"score\": ([0-9.]+)"), 8, 0.1);
  EXPECT_NEAR(sum(tests, "\"max_score\": ([0-9.]+)"), 8, 0.1);
  EXPECT_FALSE(matches(tests, "\"name\": \"R1.Leaving: .*\"number\": \"1\\.[0-9]+\".*\"status\": \"passed\"").empty());
  EXPECT_FALSE(matches(results, "\"score\": 8\\.000,").empty()) << results.substr(0, 100);

  // What is extra comes on top.
  grade("FILTER=R10.EmptyOnes GRADESCOPE=" + gradescope + " PEER=" + peer_program(), 0);
  const std::string extra = read_file(gradescope);
  EXPECT_TRUE(Json(extra).is_valid()) << extra;
  EXPECT_GT(sum(extra, "\"score\": ([0-9.]+)"), 0) << extra;
  EXPECT_EQ(sum(extra, "\"max_score\": ([0-9.]+)"), 0) << extra;

  const std::string result = read_file(classroom50);
  EXPECT_TRUE(Json(result).is_valid()) << result;
  for (const char* field : {"\"schema\": \"classroom50/result/v1\"", "\"classroom\": \"net\"",
                            "\"submission\": \"submit/1\"", "\"review\": \"https://a.example/c\"", "\"score\": 80,",
                            "\"max-score\": 1000,", "\"owner\": \"ann\"", "\"assignment_type\": \"individual\""})
    EXPECT_NE(result.find(field), std::string::npos) << field << "\n" << result;
  EXPECT_EQ(sum(result.substr(result.find("\"tests\"")), "\"score\": ([0-9]+)"), 80);
}

// It refuses a file in which a score is above the most that it can be, and knows no extra points.
TEST_F(Grading, GivesClassroom50NoScoreAboveItsMost) {
  const std::string file = folder.path("result.json");
  grade("FILTER=R10.PathsThatAreNone CLASSROOM50=" + file + " PEER=" + peer_program(), 0);
  const std::string result = read_file(file);
  const auto scores = matches(result, "\"score\": ([0-9]+),\\s+\"max-score\": ([0-9]+)");
  EXPECT_EQ(scores.size(), 11u) << result;  // of each requirement, and of all
  for (const auto& one : scores) EXPECT_LE(std::stoi(one[1]), std::stoi(one[2])) << one[0];
  EXPECT_GT(sum(result.substr(result.find("\"tests\"")), "\"score\": ([0-9]+)"), 0);
}

TEST_F(Grading, OfAClassIsATableAndAMatrixOfWhoWorksWithWhom) {
  submit("ann", "cp " + peer_program() + " peer");
  submit("bob", "cp " + root() + "/.build/second peer");
  submit("carl", "false");
  std::ofstream(folder.path("class/carl/peer")) << "#!/bin/sh\n";  // built earlier, perhaps by somebody else
  fs::permissions(folder.path("class/carl/peer"), fs::perms::owner_all);
  std::ofstream(folder.path("class/carl/Makefile")) << "all:\n\tfalse\n";
  submit("dora", "cp /bin/cat peer");
  submit("fred/mine", "cp " + peer_program() + " peer");  // one folder too deep
  submit("erin", "test `wc -l </proc/net/dev` = 3 && cp " + peer_program() + " peer");  // a head of two lines, and lo
  submit("gina", "true");  // of milestone 2: it knows nothing of files that are accepted
  program("class/gina/peer", "case \"$*\" in *--accept*) exit 2 ;; esac; exec " + peer_program() + " \"$@\"");
  const std::string said = run("ip link add veth8 type veth peer name veth9 && FILTER=R1.SaysThatItIsReady "
                               "PEER=/nothing tests/grade/class.sh --pairs " + folder.path("class"), 0, 300);
  EXPECT_FALSE(matches(said, "ann +0\\.5 ").empty()) << said;
  EXPECT_FALSE(matches(said, "carl +does not build: see carl.build").empty()) << said;
  EXPECT_FALSE(matches(said, "fred +does not build: see fred.build").empty()) << said;
  EXPECT_NE(read_file(folder.path("class/fred.build")).find("no makefile"), std::string::npos);
  EXPECT_FALSE(matches(said, "ann +- +ok +ready +ok +ok").empty()) << said;
  EXPECT_FALSE(matches(said, "bob +ok +- +ready +ok").empty()) << said;
  EXPECT_FALSE(matches(said, "gina +ok +ok +ready +ok +-").empty()) << said;
  EXPECT_FALSE(matches(said, "erin +ok +ok +ready +-").empty()) << said << read_file(folder.path("class/erin.build"));
  EXPECT_FALSE(fs::exists(folder.path("class/pairs/ann-bob.pcap")));
  EXPECT_TRUE(fs::exists(folder.path("class/pairs/ann-dora.pcap")));
  EXPECT_TRUE(fs::exists(folder.path("class/dora.pictures/R1.SaysThatItIsReady.svg")));
}

// The machine was busy, or the Makefile waits for something: two reasons not to call its author.
TEST_F(Grading, OfAClassSaysWhichBuildTookTooLong) {
  submit("ann", "sleep 1000");
  const std::string said = run("BUILD_SECONDS=1 tests/grade/class.sh " + folder.path("class"), 0);
  EXPECT_FALSE(matches(said, "ann +does not build: see ann.build").empty()) << said;
  EXPECT_NE(read_file(folder.path("class/ann.build")).find("class.sh: stopped after 1 s; BUILD_SECONDS=600"), std::string::npos);
}

// A lecturer who presses Ctrl-C wants his machine back.
TEST_F(Grading, OfAClassThatIsInterruptedEndsAllThatItHasStarted) {
  for (const std::string name : {"ann", "bob"}) {
    submit(name, "true");
    program("class/" + name + "/peer", "echo \"ready $2@127.0.0.1:25253 $4\"; exec sleep 1000");
  }
  const std::string command = "unset JOBS; GRADER=$PWD/.build/grade FILTER=R1.SaysThatItIsReady "
                              "exec tests/grade/class.sh --pairs " + folder.path("class");
  Process script(network->descriptor(0), {"/bin/sh", "-c", command}, root());
  const std::string capture = folder.path("class/pairs/ann-bob.pcap");
  ASSERT_TRUE(eventually(60, [&] { return fs::exists(capture); })) << script.output();
  EXPECT_GT(processes_with(capture), 0);
  script.signal(SIGINT);
  EXPECT_EQ(script.exit_status(), 1);
  EXPECT_TRUE(eventually([&] { return processes_with(capture) == 0; }));
}

// docs/gradescope, in a folder laid out as Gradescope lays out /autograder. Nothing is installed there, and no user made.
TEST_F(Grading, RunsAsGradescopeRunsIt) {
  const std::string there = folder.path("autograder");
  for (const char* name : {"source", "submission", "results", "bin"}) fs::create_directories(there + "/" + name);
  fs::create_directory_symlink(root(), there + "/source/chatbyp2p");
  for (const char* name : {"setup.sh", "run_autograder"}) {
    std::string script = read_file(root() + "/docs/gradescope/" + name);
    ASSERT_FALSE(script.empty()) << name;
    for (size_t at = 0; (at = script.find("/autograder/", at)) != std::string::npos; at += there.size())
      script.replace(at, std::string("/autograder").size(), there);
    program("autograder/source/" + std::string(name), script);
  }
  for (const char* name : {"apt-get", "useradd", "chown", "chmod"}) program("autograder/bin/" + std::string(name), "exit 0");
  program("autograder/bin/runuser", "shift 3; exec \"$@\"");  // of: -u student --
  run("PATH=" + there + "/bin:$PATH MAKEFLAGS=n " + there + "/source/setup.sh", 0);
  const std::string autograder = "PATH=" + there + "/bin:$PATH FILTER=R1 " + there + "/source/run_autograder";

  std::ofstream(there + "/submission/Makefile") << "peer:\n\tcp " << peer_program() << " peer\n";
  run(autograder, 0);
  const std::string good = read_file(there + "/results/results.json");
  EXPECT_TRUE(Json(good).is_valid()) << good;
  EXPECT_FALSE(matches(good, "\"score\": 8\\.000,").empty()) << good.substr(0, 200);

  std::ofstream(there + "/submission/Makefile") << "peer:\n\tfalse\n";
  run(autograder, 0);
  const std::string bad = read_file(there + "/results/results.json");
  EXPECT_TRUE(Json(bad).is_valid()) << bad;
  EXPECT_FALSE(matches(bad, "\"score\": 0,").empty()) << bad;
}
