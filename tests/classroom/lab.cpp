// make classroom: the script that puts a class on one machine, run as its users do, on a terminal and without one.
// How to play with it is in docs/lab.md.

#include <signal.h>

#include <filesystem>

#include "support/classroom.h"

namespace fs = std::filesystem;

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

TEST(Lab, RefusesANumberOfMachinesThatItCannotMake) {
  NEEDS_NAMESPACES();
  for (const std::string hosts : {"0", "31", "-1", "four", "2 3", "010", "99999999999999999999"}) {
    Classroom room(hosts);
    room.script().wait_for("classroom: HOSTS is the number of machines, 1 to 30, and not '" + hosts + "'");
    EXPECT_EQ(room.script().exit_status(), 2);
  }
}
