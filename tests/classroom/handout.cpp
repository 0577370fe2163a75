// Plays the handout, docs/assignment.md, in a class of three, as a student would: the test reads from the document what
// to type and what to see. The last name before a line says in whose pane to look.

#include <cstring>
#include <regex>
#include <set>

#include "support/classroom.h"

namespace {

struct Row {
  std::string where, type, see;  // a machine's name is where its peer runs; with "#", the shell that comes after it
};

struct Step {
  std::string machine, command, output;  // `bob# command`, what is below it
};

const std::string& handout() {
  static const std::string text = read_file("docs/assignment.md");
  return text;
}

// From `beginning` to the next heading.
std::string section(const std::string& beginning) {
  const size_t begin = handout().find(beginning);
  if (begin == std::string::npos) return "";
  return handout().substr(begin, handout().find("\n#", begin + 1) - begin);
}

// Of a table; `\|` is a bar within a cell.
std::vector<Row> rows_of(const std::string& text) {
  std::vector<Row> rows;
  for (const std::string& line : lines_of(std::regex_replace(text, std::regex(R"(\\\|)"), "\x01"))) {
    std::smatch cells;
    if (!std::regex_match(line, cells, std::regex(R"(\| ?(.*?) ?\| ?(.*?) ?\| ?(.*?) ?\|)"))) continue;
    if (line.find("| where |") == 0 || line.find("|---|") == 0) continue;
    rows.push_back({cells[1], std::regex_replace(cells[2].str(), std::regex("\x01"), "|"), cells[3]});
  }
  return rows;
}

// Of an indented block. A command goes on where a line begins with blanks and a small letter; three blanks end it.
std::vector<Step> steps_of(const std::string& text) {
  std::vector<Step> steps;
  size_t indentation = 0;
  for (const std::string& line : lines_of(text)) {
    std::smatch match;
    if (std::regex_match(line, match, std::regex("(    +)(\\w+)# (.*?)(   .*)?"))) {
      indentation = match[1].str().size();
      steps.push_back({match[2], match[3], ""});
    } else if (!steps.empty() && line.find("    ") == 0) {
      const bool is_command = std::regex_match(line, std::regex(" +[a-z].*"));
      std::string& of = is_command ? steps.back().command : steps.back().output;
      of += (of.empty() ? "" : "\n") + line.substr(indentation);
    }
  }
  return steps;
}

// A regular expression for what the document shows, in which `…`, REASON, WHO and N stand for what differs.
std::string pattern(const std::string& shown) {
  std::string regex;
  for (const char c : shown) regex += (std::strchr("\\^$.|?*+()[]{}", c) ? "\\" : "") + std::string(1, c);
  for (const auto& [word, any] :
       {std::pair("…", ".*"), {"\\bREASON\\b", ".+"}, {"\\bWHO\\b", "\\S+"}, {"\\bN\\b", "\\d+"}})
    regex = std::regex_replace(regex, std::regex(word), any);
  return regex;
}

class Handout : public testing::Test {
 protected:
  void SetUp() override {
    NEEDS_NAMESPACES();
    // In the folder of the student's program, as the document has it.
    const size_t begin = handout().find("    PEER=$PWD/peer HOSTS=3 $COURSE/tests/classroom.sh");
    ASSERT_NE(begin, std::string::npos);
    const std::string command = handout().substr(begin, handout().find('\n', begin) - begin);
    const std::string folder = std::filesystem::path(peer_program()).parent_path();
    const std::string course = std::filesystem::current_path();
    room_ = std::make_unique<Classroom>("(the command has it)", fill_path(path_), std::vector<std::string>{
        "/bin/sh", "-c", "COURSE='" + course + "'; cd '" + folder + "' && exec env" + command});
    for (auto& [name, terminal] : room_->enter()) panes_[name].process = std::move(terminal);
    ASSERT_EQ(panes_.size(), 4u);
    for (const std::string name : {"ann", "bob", "carl"})
      for (int n = 0; n < 2; ++n) panes_[name].process->wait_for("joined \\w+@10\\.77\\.0\\..:25253 lab");
  }

  void TearDown() override {
    if (panes_.size() != 4) return;
    EXPECT_FALSE(is_sanitizers(screens())) << screens();  // else a killed peer tells nothing
    room_->script().say("");
    EXPECT_EQ(room_->script().exit_status(), 0);
  }

  void play(const Row& row) {
    SCOPED_TRACE("| " + row.where + " | " + row.type + " | " + row.see + " |");
    if (!row.where.empty()) where_ = row.where;
    const std::string name = where_.substr(0, where_.find_first_of("#, "));
    if (!row.type.empty()) {
      if (where_.back() == '#') enter_shell(name);
      mark();
    }
    for (const auto& match : matches(row.type, "`([^`]+)`|Ctrl-C")) {
      if (match[1].matched) say(name, match[1]);
      else interrupt(name);
    }
    if (where_.back() == '#' && row.see.empty()) await_shell(name);
    see(name, row.see);
    // A moment longer than they need to list each other, the kernel may know bob's machine for unreachable: a person
    // takes longer to type.
    if (row.type.find(" up`") != std::string::npos) await("ip -n ann neigh show 10.77.0.2 | grep -q lladdr");
  }

  void play(const std::vector<Row>& rows) {
    for (const Row& row : rows) {
      play(row);
      if (HasFailure()) return;  // each would wait in vain
    }
  }

  void begin(const Step& step) {
    SCOPED_TRACE(step.command);
    enter_shell(step.machine);
    mark();
    say(step.machine, step.command);
  }

  void play(const std::vector<Step>& steps) {
    for (const Step& step : steps) {
      begin(step);
      expect(step.machine, step.output);
    }
  }

  // The prose names the panes, the lines are `spans`.
  void see(const std::string& name, const std::string& text) {
    std::set<std::string> panes{name};
    for (const auto& match : matches(text, "([^`]*)`([^`]+)`")) {
      const std::string prose = match[1];
      std::set<std::string> named;
      for (const std::string who : {"ann", "bob", "carl"})
        if (std::regex_search(prose, std::regex("\\b" + who + "\\b")) ||
            (who != name && prose.find("the others") != std::string::npos))
          named.insert(who);
      if (!named.empty()) panes = named;
      for (const std::string& pane : panes) expect(pane, match[2]);
    }
  }

  // That pane has printed it since mark(). A datagram has no line end: another one, or the prompt, stands behind it.
  void expect(const std::string& name, const std::string& shown) {
    const std::regex line("(^|\n)(\\w+# |> )*" + pattern(shown) + "(\n|ChatByP2P/1 |\\w+# )");
    Pane& pane = panes_.at(name);
    EXPECT_TRUE(shown.empty() || eventually(60, [&] {
      return std::regex_search(pane.process->output().substr(pane.seen), line);
    })) << name << " does not print\n" << shown << "\n" << screens();
  }

  std::string screens() {
    std::string all;
    for (auto& [name, pane] : panes_) all += "--- " + name + "\n" + pane.process->output() + "\n";
    return all;
  }

  void mark() {
    for (auto& [name, pane] : panes_) pane.seen = pane.process->output().size();
  }

  void say(const std::string& name, std::string line) {
    Pane& pane = panes_.at(name);
    const std::string all = pane.process->output();
    const auto offers = matches(all, "receive (\\d+) offered");
    if (!offers.empty()) line = std::regex_replace(line, std::regex("\\bN\\b"), offers.back()[1].str());
    pane.process->say(line);
    EXPECT_TRUE(eventually([&] { return pane.process->has_read(); }));
    ++played_;
  }

  // Until what was typed is done, though it shows nothing.
  void await_shell(const std::string& name) {
    const std::string done = "done " + std::to_string(played_);
    panes_.at(name).process->say("echo " + done);
    expect(name, done);
  }

  void await(const std::string& condition) {
    Process& shell = *panes_.at("switch").process;
    shell.say("until " + condition + "; do sleep 0.1; done; echo it is so");
    shell.wait_for("(switch# )*it is so");
  }

  // Ctrl-C, which a terminal would send to all that runs there; the shell then asks for a command.
  void interrupt(const std::string& name) {
    Pane& pane = panes_.at(name);
    const size_t before = pane.process->output().size();
    panes_.at("switch").process->say("kill -INT $(ip netns pids " + name + ")");
    EXPECT_TRUE(eventually([&] {
      const std::string output = pane.process->output(), prompt = name + "# ";
      return output.size() > before && output.substr(output.size() - prompt.size()) == prompt;
    })) << pane.process->output();
  }

  void enter_shell(const std::string& name) {
    if (name != "switch" && panes_.at(name).process->count(name + "'s peer has ended.*") == 0) interrupt(name);
  }

  struct Pane {
    std::unique_ptr<Process> process;
    size_t seen = 0;  // how much of its output does not count
  };
  const Folder path_;
  std::unique_ptr<Classroom> room_;
  std::map<std::string, Pane> panes_;
  std::string where_;
  int played_ = 0;
};

}  // namespace

// The Makefile that everybody starts with, docs/starter/Makefile.
TEST(HandoutMakefile, BuildsWhatChangedAndWhatASanitizerNeeds) {
  const Folder program;
  program.write("Makefile", read_file("docs/starter/Makefile"));
  program.write("main.cpp", "#include \"peer.h\"\nint main() { return Peer().status; }\n");
  program.write("peer.h", "struct Peer { int status = 0; };\n");
  const std::string here = "unset MAKEFLAGS MAKELEVEL PEER CXXFLAGS; cd " + program.path() + " && ";
  EXPECT_EQ(std::system((here + "make >log 2>&1 && ./peer && make -q").c_str()), 0) << read_file(program.path("log"));
  EXPECT_EQ(read_file(program.path("log")).find("warning"), std::string::npos);
  EXPECT_NE(std::system((here + "touch -d tomorrow peer.h && make -q").c_str()), 0);
  const auto sanitized = matches(handout(), "`(make clean; make CXXFLAGS=[^`]*)`");
  ASSERT_EQ(sanitized.size(), 1u);
  EXPECT_EQ(std::system((here + sanitized[0][1].str() + " >log 2>&1 && grep -q __asan peer && ./peer").c_str()), 0)
      << read_file(program.path("log"));
}

TEST_F(Handout, ItsFirstHourShowsAPacketAndAnAnswer) {
  const std::string hour = section("\n5. **Your first packet**");
  const auto steps = steps_of(hour.substr(0, hour.find("\n6. ")));
  ASSERT_EQ(steps.size(), 2u);
  begin(steps[0]);
  await("ip netns exec bob ss -Hlun | grep -q :25252");
  begin(steps[1]);
  expect("bob", "ChatByP2P/1 HELLO id=… ip=10.77.0.1 port=25253 name=ann group=lab");
  interrupt("bob");
  play(steps_of(hour.substr(hour.find("\n6. "))));
  EXPECT_EQ(played_, 3);
}

TEST_F(Handout, ItsFirstMilestoneIsSeenAsItSays) {
  play(rows_of(section("\n### Milestone 1")));
  EXPECT_EQ(played_, 5);
}

TEST_F(Handout, ItsSecondMilestoneIsSeenAsItSays) {
  play(rows_of(section("\n### Milestone 2")));
  EXPECT_EQ(played_, 14);
}

TEST_F(Handout, ItsThirdMilestoneIsSeenAsItSays) {
  play(rows_of(section("\n### Milestone 3")));
  EXPECT_EQ(played_, 16);
}

TEST_F(Handout, ItsFourthMilestoneIsSeenAsItSays) {
  const std::string text = section("\n### Milestone 4"), third = section("\n### Milestone 3");
  std::vector<Step> steps = steps_of(text);
  ASSERT_EQ(steps.size(), 4u);
  const Step crowd = steps.back();
  steps.pop_back();
  play(steps);
  ASSERT_FALSE(HasFailure());
  begin(crowd);
  await("[ $(ip netns exec bob ss -Htn sport = :25253 | grep -c EST) -ge 128 ]");
  const auto meanwhile = matches(text, "ann's `(/msg bob ([^`]+))` is delivered");
  ASSERT_EQ(meanwhile.size(), 1u);
  say("ann", meanwhile[0][1]);
  expect("ann", "delivered bob@10.77.0.2:25253: " + meanwhile[0][2].str());
  expect(crowd.machine, crowd.output);

  std::vector<Row> rows = rows_of(text);
  ASSERT_EQ(rows.back().type, "milestone 3's second table once more");
  const std::string resumed = rows.back().see;
  rows.pop_back();
  play(rows);
  play(rows_of(third.substr(third.find("a file of 20 MB"))));
  ASSERT_FALSE(HasFailure());
  see("bob", resumed);
  EXPECT_EQ(played_, 4 + 1 + 4 + 9);
}
