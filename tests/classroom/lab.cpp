// make classroom: the script that puts a class on one machine, run as its users do, on a terminal and without one.
// How to play with it is in docs/lab.md.

#include <signal.h>

#include <filesystem>

#include "support/testing.h"

namespace fs = std::filesystem;

namespace {

#define NEEDS_TMUX() \
  if (std::system("command -v tmux >/dev/null") != 0) GTEST_SKIP() << "tmux is not installed: apt-get install tmux"

// A run of the script with `hosts` hosts, in a network namespace of its own and with a folder of its own for temporary
// files. All its processes are known by having the name of that folder in their environment.
class Classroom {
 public:
  explicit Classroom(const std::string& hosts, const std::string& path = std::getenv("PATH"),
                     const std::vector<std::string>& command = {script_path()}) {
    std::vector<std::string> words = {"/usr/bin/env",           "HOSTS=" + hosts,           "PATH=" + path,
                                      "PEER=" + peer_program(), "TMPDIR=" + temporary(),    "TERM=xterm",
                                      "SHELL=/bin/sh",          "TMUX_TMPDIR=" + temporary()};
    words.insert(words.end(), command.begin(), command.end());
    script_ = std::make_unique<Process>(network_.descriptor(0), words, folder_.path());
  }

  static std::string script_path() { return fs::absolute("tests/classroom.sh"); }
  std::string temporary() const { return folder_.path(); }
  Process& script() { return *script_; }
  const Network& network() const { return network_; }

  // What the script says to type in order to get in, without what follows it.
  std::string entrance() {
    const std::string line = script_->wait_for("The class has begun; to see it: nsenter .* attach", 60);
    const size_t begin = line.find("nsenter");
    return begin == std::string::npos ? "false" : line.substr(begin, line.rfind(" attach") - begin);
  }

  size_t processes() const {
    size_t found = 0;
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator("/proc", ignored))
      found += read_file(entry.path() / "environ").find("TMPDIR=" + temporary()) != std::string::npos;
    return found;
  }

  // Within the time that the kernel takes to end some dozen processes.
  void expect_nothing_left() {
    EXPECT_TRUE(eventually(60, [&] { return processes() == 0; })) << processes() << " processes still run";
    EXPECT_EQ(folder_.names(), std::vector<std::string>());
    EXPECT_FALSE(fs::exists("/run/class"));
    EXPECT_FALSE(fs::exists("/run/netns/ann"));
  }

 private:
  const Folder folder_;
  const Network network_{0};
  std::unique_ptr<Process> script_;
};

// A folder for PATH, with what the script uses but for tmux.
void fill_path(const Folder& folder) {
  for (const std::string name :
       {"sh", "env", "id", "ip", "unshare", "nsenter", "mount", "setpriv", "sleep", "mkdir", "seq"})
    for (const std::string place : {"/sbin/", "/usr/sbin/", "/bin/", "/usr/bin/"})
      if (fs::exists(place + name) && !fs::exists(folder.path(name)))
        fs::create_symlink(place + name, folder.path(name));
}

}  // namespace

TEST(Lab, PutsAClassOnOneMachineAndLeavesNothingHoweverItEnds) {
  NEEDS_NAMESPACES();
  NEEDS_TMUX();
  for (const int how : {0, SIGTERM, SIGHUP, SIGINT, SIGKILL}) {
    SCOPED_TRACE("ended by " + (how == 0 ? "tmux kill-server" : "signal " + std::to_string(how)));
    Classroom room("3");
    const Folder scratch;
    const std::string tmux = room.entrance(), shot = scratch.path("screen");
    for (const auto& [pane, others] : {std::pair("%0", std::pair("bob@10.77.0.2", "carl@10.77.0.3")),
                                       {"%1", {"ann@10.77.0.1", "carl@10.77.0.3"}},
                                       {"%2", {"ann@10.77.0.1", "bob@10.77.0.2"}}})
      EXPECT_TRUE(eventually(60, [&, pane = pane, others = others] {
        room.network().run(0, tmux + " capture-pane -p -t " + pane + " > " + shot);
        const std::string screen = read_file(shot);
        return screen.find(std::string("joined ") + others.first) != std::string::npos &&
               screen.find(std::string("joined ") + others.second) != std::string::npos;
      })) << read_file(shot);
    EXPECT_GE(room.processes(), 7u);  // of which it is seen that the count below would find them
    if (how == 0) room.network().run(0, tmux + " kill-server");
    else room.script().signal(how);
    EXPECT_EQ(room.script().exit_status(), how == SIGKILL ? 128 + SIGKILL : 0);
    room.expect_nothing_left();
  }
}

TEST(Lab, OnATerminalShowsTheClassUntilItIsLeftOrTheTerminalIsClosed) {
  NEEDS_NAMESPACES();
  NEEDS_TMUX();
  if (std::system("command -v script >/dev/null") != 0)
    GTEST_SKIP() << "script is not installed: apt-get install bsdutils";
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

TEST(Lab, WithoutTmuxSaysHowToEnterEachMachine) {
  NEEDS_NAMESPACES();
  const Folder path;
  fill_path(path);
  for (const bool by_signal : {false, true}) {
    Classroom room("2", path.path());
    room.script().wait_for("tmux is not installed .*");
    std::vector<std::unique_ptr<Process>> people;
    for (int host = 1; host <= 2; ++host) {
      const std::string line = room.script().wait_for("  nsenter .* host (ann|bob)");
      people.push_back(std::make_unique<Process>(
          room.network().descriptor(0),
          std::vector<std::string>{"/usr/bin/env", "PEER=" + peer_program(), "sh", "-c", line}, room.temporary()));
    }
    people[0]->wait_for("joined bob@10.77.0.2:25253 lab");
    people[1]->wait_for("joined ann@10.77.0.1:25253 lab");
    people[0]->say("/send bob ann.txt");
    people[1]->wait_for("receive 1 offered ann@10.77.0.1:25253 19 bytes: ann.txt");
    if (by_signal) room.script().signal(SIGTERM);
    else room.script().say("");
    EXPECT_EQ(room.script().exit_status(), 0);
    for (const auto& person : people) person->exit_status();
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

TEST(Lab, RefusesANumberOfMachinesThatItCannotMake) {
  NEEDS_NAMESPACES();
  for (const std::string hosts : {"0", "31", "-1", "four", "2 3", "010", "99999999999999999999"}) {
    Classroom room(hosts);
    room.script().wait_for("classroom: HOSTS is the number of machines, 1 to 30, and not '" + hosts + "'");
    EXPECT_EQ(room.script().exit_status(), 2);
  }
}
