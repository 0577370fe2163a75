// make classroom, the script that puts a class on one machine, run as its users run it, with and without a terminal;
// and what docs/lab.md says about it.

#include <signal.h>

#include <filesystem>
#include <fstream>
#include <regex>

#include "support/classroom.h"

namespace fs = std::filesystem;

namespace {

// What the document shows between two texts.
std::string shown(const std::string& before, const std::string& after) {
  static const std::string text = read_file("docs/lab.md");
  const size_t begin = text.find(before);
  if (begin == std::string::npos) throw std::runtime_error("docs/lab.md has no " + before);
  return text.substr(begin + before.size(), text.find(after, begin + before.size()) - begin - before.size());
}

// The first `code span` of each row of a table.
std::vector<std::string> first_spans(const std::string& table) {
  const std::regex row("\n *\\| `([^`]+)` \\|");
  return {std::sregex_token_iterator(table.begin(), table.end(), row, 1), std::sregex_token_iterator()};
}

// Drops what differs between runs: times, and who came first; and the borders.
std::string timeless(std::string screen) {
  for (const auto& [pattern, text] :
       {std::pair("\\d\\d:\\d\\d ", "HH:MM "),
        {"joined \\w+@10.77.0..:25253 lab *", "joined "}, {" *│", "│"}, {"─|┬|┼", ""}, {" *\n", "\n"}})
    screen = std::regex_replace(screen, std::regex(pattern), text);
  return screen;
}

// A terminal on which the class is shown: tmux within tmux.
class Screen {
 public:
  Screen(size_t columns, size_t rows)
      : room_("4", std::getenv("PATH"),
              {"env", "-u", "TMUX", "LC_ALL=C.UTF-8", "tmux", "-u", "-f", "/dev/null", "-L", "outer", "new-session",
               "-d", "-x", std::to_string(columns), "-y", std::to_string(rows), Classroom::script_path()}) {
    EXPECT_EQ(room_.script().exit_status(), 0);
  }
  ~Screen() { run("kill-server || true"); }

  void press(const std::string& keys) const { run("send-keys " + keys); }
  void type(const std::string& line) const { run("send-keys -l -- '" + line + "'"); }
  void enter(const std::string& line) const {
    type(line);
    press("Enter");
  }
  std::string text() const {
    run("capture-pane -p > " + shot_.path("screen"));
    return read_file(shot_.path("screen"));
  }
  bool shows(const std::string& text_shown) const {
    return eventually(60, [&] { return text().find(text_shown) != std::string::npos; });
  }

 private:
  void run(const std::string& command) const {
    room_.network().run(0, "env -u TMUX LC_ALL=C.UTF-8 TMUX_TMPDIR=" + room_.temporary() + " tmux -u -L outer " +
                               command);
  }
  Classroom room_;
  const Folder shot_;
};

// How section 3 finds out whether a machine answers.
std::string knocking() { return "nc" + shown("of its `ready` line, `nc", "` says"); }

// And not only in a user namespace, where tcpdump finds nobody else to become.
bool is_root() { return read_file("/proc/self/uid_map").find("4294967295") != std::string::npos; }

// A class of three, and what the document has to try at its switch.
struct Trials {
  Trials() {
    ann.wait_for("joined bob@.*");
    bob.wait_for("joined ann@.*");
  }
  void try_and_wait(const std::string& commands) const {
    lab.say(commands + "\necho tried");
    lab.wait_for("(switch# )*tried");
  }

  const std::vector<std::string> tried = first_spans(shown("| type | and see |", "\n\n"));
  const Folder path;
  Classroom room{"3", fill_path(path)};
  const std::map<std::string, std::unique_ptr<Process>> terminals = room.enter();
  Process &ann = *terminals.at("ann"), &bob = *terminals.at("bob"), &lab = *terminals.at("switch");
};

}  // namespace

TEST(Lab, PutsAClassOnOneMachineAndLeavesNothingHoweverItEnds) {
  NEEDS_NAMESPACES();
  NEEDS_PROGRAM("tmux", "tmux");
  for (const int how : {0, SIGTERM, SIGHUP, SIGINT, SIGKILL}) {
    SCOPED_TRACE("ended by " + (how == 0 ? "tmux kill-server" : "signal " + std::to_string(how)));
    Classroom room("3");
    const Folder scratch;
    const std::string tmux = room.entrance(), shot = scratch.path("screen");
    const std::vector<std::string> people = {"ann@10.77.0.1", "bob@10.77.0.2", "carl@10.77.0.3"};
    for (size_t pane = 0; pane < people.size(); ++pane)
      EXPECT_TRUE(eventually(60, [&] {
        room.network().run(0, tmux + " capture-pane -p -t %" + std::to_string(pane) + " > " + shot);
        const std::string screen = read_file(shot);
        for (size_t other = 0; other < people.size(); ++other)
          if (other != pane && screen.find("joined " + people[other]) == std::string::npos) return false;
        return true;
      })) << read_file(shot);
    EXPECT_GE(room.processes(), 7u);  // of which it is seen that the count below would find them
    // It may be killed itself, with all else in its namespace of processes, before it has ended.
    if (how == 0) room.network().run(0, tmux + " kill-server || true");
    else room.script().signal(how);
    EXPECT_EQ(room.script().exit_status(), how == SIGKILL ? 128 + SIGKILL : 0);
    room.expect_nothing_left();
  }
}

TEST(Lab, OnATerminalShowsTheClassUntilItIsLeftOrTheTerminalIsClosed) {
  NEEDS_NAMESPACES();
  NEEDS_PROGRAM("tmux", "tmux");
  NEEDS_PROGRAM("script", "bsdutils");
  for (const bool closed : {false, true}) {
    Classroom room("2", std::getenv("PATH"), {"script", "-qefc", Classroom::script_path(), "/dev/null"});
    Process& terminal = room.script();
    EXPECT_TRUE(eventually(60, [&] { return terminal.output().find("joined bob@10.77.0.2") != std::string::npos; }))
        << terminal.output();
    if (closed) terminal.signal(SIGKILL);  // of whom the terminal is
    else terminal.say("\x02" "d");
    EXPECT_EQ(terminal.exit_status(), closed ? 128 + SIGKILL : 0);
    room.expect_nothing_left();
  }
}

TEST(Lab, OnATerminalOf80ColumnsShowsAllThatTheSwitchSays) {
  NEEDS_NAMESPACES();
  NEEDS_PROGRAM("tmux", "tmux");
  const Screen screen(80, 24);
  ASSERT_TRUE(screen.shows("ann>")) << screen.text();
  screen.press("C-b n");
  EXPECT_TRUE(screen.shows("\nThis is a shell on the switch")) << screen.text();
  EXPECT_TRUE(screen.shows("\nswitch#")) << screen.text();
  for (const std::string& row : lines_of(screen.text()))
    EXPECT_TRUE(row.empty() || std::regex_match(row, std::regex("[T─ s0].*|these lines can .*"))) << "broken: " << row;
}

TEST(Lab, FindsTheProgramsOfTheSwitchWhereAnOrdinaryUsersPathDoesNotLeadToThem) {
  NEEDS_NAMESPACES();
  NEEDS_PROGRAM("tmux", "tmux");
  NEEDS_PROGRAM("nft", "nftables");
  Classroom room("1", "/usr/bin:/bin");
  const std::string tmux = room.entrance();
  const Folder scratch;
  room.network().run(0, tmux + " send-keys -t switch 'nft list tables; tc qdisc; echo ended $?' Enter");
  EXPECT_TRUE(eventually(60, [&] {
    room.network().run(0, tmux + " capture-pane -p -t switch >" + scratch.path("screen"));
    return read_file(scratch.path("screen")).find("\nended 0\n") != std::string::npos;
  })) << read_file(scratch.path("screen"));
}

TEST(Lab, WithoutTmuxSaysHowToEnterEachMachine) {
  NEEDS_NAMESPACES();
  const Folder path;
  fill_path(path);
  for (const bool by_signal : {false, true}) {
    Classroom room("2", path.path());
    room.script().wait_for("tmux is not installed .*");
    const auto people = room.enter();
    people.at("ann")->wait_for("joined bob@10.77.0.2:25253 lab");
    people.at("bob")->wait_for("joined ann@10.77.0.1:25253 lab");
    people.at("ann")->say("/send bob ann.txt");
    people.at("bob")->wait_for("receive 1 offered ann@10.77.0.1:25253 19 bytes: ann.txt");
    if (by_signal) room.script().signal(SIGTERM);
    else room.script().say("");
    EXPECT_EQ(room.script().exit_status(), 0);
    for (const auto& person : people) person.second->exit_status();
    room.expect_nothing_left();
  }
}

TEST(Lab, WhereNamespacesAreForbiddenSaysWhatToDo) {
  NEEDS_NAMESPACES();
  const Folder path;
  const std::string refusal = "unshare: write failed /proc/self/uid_map: Operation not permitted";
  fs::permissions(path.write("unshare", "#!/bin/sh\necho '" + refusal + "' >&2\nexit 1\n"), fs::perms::owner_all);
  fill_path(path);
  Classroom room("3", path.path());
  room.script().wait_for("classroom: namespaces are not allowed here \\(" + refusal + "\\): use 'sudo make classroom', "
                         "or, .*'sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0'; .*");
  EXPECT_EQ(room.script().exit_status(), 1);
  room.expect_nothing_left();
}

TEST(Lab, TakesTheProgramThatWasMeantWhereItWasTyped) {
  NEEDS_NAMESPACES();
  const Network network(0);
  const Folder theirs;
  Process script(network.descriptor(0), {"/usr/bin/env", "PEER=./peer", Classroom::script_path()}, theirs.path());
  script.wait_for("classroom: there is no " + theirs.path() + "/./peer yet; make it with: make");
  EXPECT_EQ(script.exit_status(), 1);
}

TEST(Lab, RefusesANumberOfMachinesThatItCannotMake) {
  NEEDS_NAMESPACES();
  for (const std::string hosts : {"0", "31", "-1", "four", "2 3", "010", "99999999999999999999"}) {
    Classroom room(hosts);
    room.script().wait_for("classroom: HOSTS is the number of machines, 1 to 30, and not '" + hosts + "'");
    EXPECT_EQ(room.script().exit_status(), 2);
  }
}

TEST(LabDocument, ShowsTheScreenOfAClassAndTheKeysThatReachEachPartOfIt) {
  NEEDS_NAMESPACES();
  NEEDS_PROGRAM("tmux", "tmux");
  const std::string block = shown("while carl is typing:\n\n", "\n\n") + "\n";
  const std::string sample = std::regex_replace(block, std::regex("(^|\n)    "), "$1");
  const auto rows = static_cast<size_t>(std::count(sample.begin(), sample.end(), '\n'));
  Screen screen(98, rows);
  for (const std::string pane : {"ann", "bob", "carl", "dora"}) {  // three others each, in the order of the panes
    ASSERT_TRUE(eventually(60, [&] {
      const std::string text = screen.text();
      const std::regex joined("joined \\w+@10");
      return std::distance(std::sregex_iterator(text.begin(), text.end(), joined), std::sregex_iterator()) == 12;
    })) << screen.text();
  }
  screen.enter("/msg bob shall I send you something?");
  ASSERT_TRUE(screen.shows("delivered bob")) << screen.text();
  screen.enter("/to bob");
  ASSERT_TRUE(screen.shows("\nto bob@")) << screen.text();
  screen.enter("/send bob ann.txt");
  ASSERT_TRUE(screen.shows("/reject 1 does not")) << screen.text();
  screen.press("C-b Right");
  screen.enter("/accept 1");
  ASSERT_TRUE(screen.shows("receive 1 stored")) << screen.text();
  screen.press("C-b Down");
  screen.enter("/all lunch?");
  ASSERT_TRUE(screen.shows("delivered 3 of 3")) << screen.text();
  screen.press("C-b Left");
  screen.type("/group 十二点?");
  EXPECT_TRUE(eventually(60, [&] { return timeless(screen.text()) == timeless(sample); }))
      << "The document shows\n" << timeless(sample) << "but it is\n" << timeless(screen.text());
  screen.press("C-c");  // takes away what is typed
  EXPECT_TRUE(eventually(60, [&] { return screen.text().find("/group") == std::string::npos; })) << screen.text();
  screen.press("C-c");
  EXPECT_TRUE(screen.shows("carl's peer has ended.")) << screen.text();
  EXPECT_TRUE(screen.shows("\ncarl#")) << screen.text();
  screen.press("C-b n");
  EXPECT_TRUE(screen.shows("\nswitch#")) << screen.text();
}

TEST(LabDocument, SaysWhatIsSeenOfACableThatIsPulledOutAndOfPacketsThatAreLost) {
  NEEDS_NAMESPACES();
  Trials room;
  room.lab.say(room.tried.at(0));
  room.ann.wait_for("left bob@\\S+: " + kSilent);
  room.bob.wait_for("left ann@\\S+: " + kSilent);
  room.lab.say(std::regex_replace(room.tried[0], std::regex("down"), "up"));
  room.ann.wait_for("joined bob@.*");
  room.bob.wait_for("joined ann@.*");

  room.try_and_wait(room.tried.at(1));
  const std::string sent_again = "grep '^Tcp: [0-9]' /proc/net/snmp | cut -d' ' -f13";
  for (bool is_lost = false; !is_lost && !testing::Test::HasFailure();) {
    room.ann.say("/msg bob hello");
    room.ann.wait_for("(delivered|failed) bob@.*hello");
    room.lab.say("echo again $(ip netns exec ann sh -c \"" + sent_again + "\")");
    is_lost = !std::regex_match(room.lab.wait_for("(switch# )*again \\d+"), std::regex(".*again 0"));
  }
  EXPECT_EQ(room.ann.count("left .*"), 1u);  // that of the cable
  room.try_and_wait("nft flush ruleset");
}

TEST(LabDocument, SaysWhatIsSeenOfAFirewallAndHowToOpenIt) {
  NEEDS_NAMESPACES();
  Trials room;
  room.try_and_wait(room.tried.at(2));
  room.ann.say("/msg bob hello");
  room.ann.wait_for("failed bob@\\S+: .*not delivered: hello");
  const std::string knock = "ip netns exec carl " + std::regex_replace(knocking(), std::regex("ADDRESS"), "10.77.0.2");
  room.lab.say(knock);
  room.lab.wait_for(".* timed out.*");
  const std::string rules = shown("Then, with its names\n", "\n\n");  // here they are bob's
  const std::regex insert(" +sudo (nft insert rule) inet filter input");
  room.try_and_wait(std::regex_replace(rules, insert, "ip netns exec bob $1 inet f input"));
  room.lab.say(knock);
  room.lab.wait_for(".* succeeded!.*");
  room.ann.say("/msg 10.77.0.2:25253 and now?");
  room.ann.wait_for("delivered bob@\\S+: and now\\?");

  if (!is_root()) return;  // as the row says
  room.lab.say(room.tried.at(3));
  room.lab.wait_for(".*ChatByP2P/1 HE(LLO|RE) id=.*");
}

TEST(LabDocument, SaysWhatTheCommandsAnswerBySomebodyIsMissing) {
  NEEDS_NAMESPACES();
  Network network(3);
  Process& ann = network.peer(1, "ann");
  Process& bob = network.peer(2, "bob");
  ann.wait_for("joined bob@.*");
  bob.wait_for("joined ann@.*");
  const Folder scratch;
  const auto output = [&](int host, const std::string& command) {
    network.run(host, "(" + command + ") >" + scratch.path("output") + " 2>&1 || true");
    return read_file(scratch.path("output"));
  };
  const auto expect = [&](int host, const std::string& command, const std::string& pattern, bool found = true) {
    const std::string text = output(host, command);
    EXPECT_EQ(std::regex_search(text, std::regex(pattern)), found) << command << "\n" << text;
  };
  const std::string text = shown("\n1. **Both: which address", "\n5. ");
  for (const std::string command : {"ip -brief -4 addr", "ss -lun", "ss -ltn"})
    EXPECT_NE(text.find("`" + command + "`"), std::string::npos) << command;
  expect(1, "ip -brief -4 addr", "eth0\\S* +UP +10\\.77\\.0\\.1/28");
  for (const int host : {2, 3}) {  // where a peer runs, and where none does
    expect(host, "ss -lun", "0\\.0\\.0\\.0:25252 ", host == 2);
    expect(host, "ss -lun", "0\\.0\\.0\\.0:25253 ", host == 2);
    expect(host, "ss -ltn", "0\\.0\\.0\\.0:25253 ", host == 2);
  }

  const auto knock_at = [](const std::string& ip) { return std::regex_replace(knocking(), std::regex("ADDRESS"), ip); };
  const auto answers = first_spans(text);
  ASSERT_EQ(answers.size(), 4u);
  expect(1, knock_at("10.77.0.2"), answers[0]);
  expect(1, knock_at("10.77.0.3"), answers[1]);
  network.drop(3, "input", "tcp dport 25253");
  expect(1, knock_at("10.77.0.3"), answers[2]);
  expect(1, knock_at("10.77.0.9"), answers[3]);
  expect(1, "ip neigh show 10.77.0.9", "FAILED\\s*$");

  if (!is_root()) return;
  Process arriving(network.descriptor(2), {"/bin/sh", "-c", "exec " + shown("`/scan ADDRESS`:\n\n       sudo ", "\n")},
                   scratch.path());
  arriving.wait_for("listening on any.*");
  ann.say("/scan 10.77.0.2");
  arriving.wait_for(".*ChatByP2P/1 HELLO id=.*");
  arriving.wait_for(".*ChatByP2P/1 HERE id=.*");
}
