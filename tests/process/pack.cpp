// The pack for a class (tests/handout.sh), used as a student uses it: where this repository cannot be seen.

#include <filesystem>
#include <fstream>

#include "support/testing.h"

namespace fs = std::filesystem;

class Pack : public OneHost {
 protected:
  // The pack, in a new folder; `choices` are settings as `make handout` takes them.
  void take(const std::string& choices) {
    network->run(0, choices + " tests/handout.sh " + pack() + " >" + scratch_.path("said"));
  }
  std::string pack() const { return scratch_.path("pack"); }
  // What commands print that are typed in the pack, on a machine without this repository: its folder is empty there.
  std::string typed(const std::string& commands) const {
    const std::string output = scratch_.path("output");
    const std::string repository = fs::current_path();
    const std::string script =
        scratch_.write("script", "set -e\nmount -t tmpfs none '" + repository + "'\n[ ! -e '" + repository +
                                     "/Makefile' ]\ncd " + pack() + "\nunset MAKEFLAGS MAKELEVEL FILTER JOBS PEER\n" + commands);
    network->run(0, "unshare -rm sh " + script + " >" + output + " 2>&1 || cat " + output);
    return read_file(output);
  }
  std::string file(const std::string& name) const { return read_file(scratch_.path("pack/" + name)); }

 private:
  const Folder scratch_;
};

TEST_F(Pack, HasAllThatAStudentNeedsInThatYearsProtocol) {
  NEEDS_PROGRAM("make", "make");
  take("YEAR=2027");
  for (const std::string name : {"README.md", "docs/assignment.md", "docs/protocol.md", "docs/interface.md", "docs/first-contact.md",
                                 "docs/lab.md", "docs/zh/assignment.md", "tests/classroom.sh", "tests/grade/class.sh"})
    EXPECT_TRUE(fs::exists(pack() + "/" + name)) << name;
  EXPECT_NE(file("docs/protocol.md").find("ChatByP27/1 HELLO"), std::string::npos);
  EXPECT_EQ(file("docs/protocol.md").find("ChatByP2P/1"), std::string::npos);

  EXPECT_NE(typed("cp -r starter mine; make -C mine CXXFLAGS=-O0 peer test").find("PASSED"), std::string::npos);
  const std::string report = typed("make grade CXXFLAGS=-O0 PEER=mine/peer MILESTONE=0");
  EXPECT_TRUE(std::regex_search(report, std::regex("milestone 0 +(\\S+) of +\\1 points, +(\\d+) of +\\2 cases\n"))) << report;
  EXPECT_EQ(report.find("milestone 1"), std::string::npos) << report;

  // In one's own folder, as the report says how to run a case again.
  const std::string again = typed("make -C mine grade COURSE=$PWD FILTER=R1.SaysThatItIsReady SEED=7");
  EXPECT_NE(again.find("1 of  1 cases"), std::string::npos) << again;
  EXPECT_NE(again.find("SEED=7)"), std::string::npos) << again;
}

TEST_F(Pack, HasNothingThatGivesTheSolutionAway) {
  take("");
  for (const auto& entry : fs::recursive_directory_iterator(pack())) {
    const std::string name = entry.path().filename();
    for (const std::string ours : {"peer.cpp", "discovery.cpp", "transfer.cpp", "protocol.h", "peer", "second.cpp", "pitfalls.md",
                                   "tour.md", "instructor.md", "exercises.md", "testing.md", "wrong.txt", "unfinished.txt", "parts.svg", "threads.svg"})
      EXPECT_FALSE(name == ours && entry.path().parent_path().filename() != "grade") << entry.path();
    if (entry.path().extension() != ".md") continue;
    // A link leads nowhere else either.
    const std::string text = read_file(entry.path());
    for (const auto& link : matches(text, R"(\]\(([^)#\s]+))"))
      EXPECT_TRUE(link[1].str().find("://") != std::string::npos || fs::exists(entry.path().parent_path() / link[1].str()))
          << entry.path() << " links to " << link[1];
  }
}

// As with GRADER=built, which compiles it, and so takes a minute.
TEST_F(Pack, UsesAGraderThatCameWithIt) {
  NEEDS_PROGRAM("make", "make");
  take("");
  std::ofstream(pack() + "/grade") << "#!/bin/sh\necho graded $PEER\n";
  fs::permissions(pack() + "/grade", fs::perms::owner_all);
  EXPECT_EQ(typed("make grade PEER=mine/peer"), "graded " + pack() + "/mine/peer\n");
}

// The folder itself was taken for it.
TEST_F(Pack, AsksWhichProgramIsMeantWhereNoneIsNamed) {
  NEEDS_PROGRAM("make", "make");
  take("");
  for (const std::string command : {"grade", "classroom"}) {
    const std::string sentence = "which program? make " + command + " PEER=path/to/your/peer";
    EXPECT_NE(typed("make " + command).find(sentence), std::string::npos) << command;
  }
  EXPECT_FALSE(fs::exists(pack() + "/.build")) << "it has built the grader before it asked";
  EXPECT_NE(file("docs/lab.md").find("    make classroom PEER=mine/peer "), std::string::npos);
}

TEST_F(Pack, IsRefusedWhereSomethingIsInTheWay) {
  const Folder taken;
  network->run(0, "! tests/handout.sh " + taken.path() + " 2>" + taken.path("said"));
  EXPECT_NE(read_file(taken.path("said")).find("is there already; name a new folder"), std::string::npos);
}
