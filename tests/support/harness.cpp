// Tests of the tests' own base: their main(), and the promises of testing.h.

#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "testing.h"

// Run only by the tests below, in a process of their own.
TEST(HarnessSample, DISABLED_Passes) {}
TEST(HarnessSample, DISABLED_Dies) { ::raise(SIGKILL); }
TEST(HarnessSample, DISABLED_Leaves) { ::_exit(0); }
TEST(HarnessSample, DISABLED_PassesToo) {}
TEST(HarnessSample, DISABLED_Skips) { GTEST_SKIP() << "for want of a moon"; }
TEST(HarnessSample, DISABLED_WorksOnceItsFileIsThere) {
  const std::string path = std::getenv("ITS_FILE");
  const bool was_there = ::access(path.c_str(), F_OK) == 0;
  std::ofstream file(path);
  EXPECT_TRUE(was_there);
}
TEST(HarnessSample, DISABLED_FindsNftAndTc) { Network(0).run(0, "nft list tables && tc qdisc"); }

class Harness : public OneHost {
 protected:
  // This program, with other tests; settings as "JOBS=3".
  std::unique_ptr<Process> tests(const std::string& filter, const std::vector<std::string>& settings) const {
    const std::string program = std::filesystem::read_symlink("/proc/self/exe");
    std::vector<std::string> command = {"/usr/bin/env"};
    command.insert(command.end(), settings.begin(), settings.end());
    const std::vector<std::string> words = {program, "--gtest_filter=" + filter, "--gtest_also_run_disabled_tests"};
    command.insert(command.end(), words.begin(), words.end());
    return std::make_unique<Process>(network->descriptor(0), command, std::filesystem::current_path());
  }
};

TEST_F(Harness, RunsEachTestOnceHoweverManyJobsThereAre) {
  for (const std::string jobs : {"1", "2", "5"}) {
    const auto run = tests("HarnessSample.*Passes*", {"JOBS=" + jobs});
    EXPECT_EQ(run->exit_status(), 0);
    EXPECT_EQ(run->count("ok +HarnessSample.DISABLED_Passes .*"), 1u) << run->output();
    EXPECT_EQ(run->count("2 passed, 0 failed, 0 skipped"), 1u) << run->output();
  }
}

TEST_F(Harness, CountsAsFailedATestThatDiesOrLeavesBeforeItsEnd) {
  for (const std::string jobs : {"1", "3"}) {
    const auto run = tests("HarnessSample.*Passes*:HarnessSample.*Dies:HarnessSample.*Leaves", {"JOBS=" + jobs});
    EXPECT_EQ(run->exit_status(), 1);
    EXPECT_EQ(run->count("2 passed, 2 failed, 0 skipped"), 1u) << run->output();
    EXPECT_EQ(run->count("FAILED +HarnessSample.DISABLED_Dies .*"), 1u) << run->output();
    EXPECT_EQ(run->count(" *It died: Killed"), 1u) << run->output();
    EXPECT_EQ(run->count(" *It ended with status 0, before its test did."), 1u) << run->output();
  }
}

TEST_F(Harness, SaysWhyATestWasSkippedAndFailsOfItWhereNothingMayBe) {
  const auto run = tests("HarnessSample.*Skips", {"JOBS=2", "STRICT=0", "CI=false"});
  EXPECT_EQ(run->exit_status(), 0);
  EXPECT_EQ(run->count("skipped +HarnessSample.DISABLED_Skips .*: for want of a moon"), 1u) << run->output();
  const auto strict = tests("HarnessSample.*Skips", {"JOBS=2", "STRICT=1"});
  EXPECT_EQ(strict->exit_status(), 1);
  EXPECT_EQ(strict->count("0 passed, 0 failed, 1 skipped"), 1u) << strict->output();
}

TEST_F(Harness, RunsStepsBesideTheTests) {
  const Folder folder;
  const std::string steps = folder.write("steps", "# a remark\n\nsings echo first; echo la la\nfails   exit 3\n");
  const auto run = tests("HarnessSample.*Passes", {"JOBS=2", "STEPS=" + steps});
  EXPECT_EQ(run->exit_status(), 1);
  EXPECT_EQ(run->count("2 passed, 1 failed, 0 skipped"), 1u) << run->output();
  EXPECT_EQ(run->count("ok +sings .*: la la"), 1u) << run->output();
  EXPECT_EQ(run->count(" *It ended with status 3."), 1u) << run->output();
}

TEST_F(Harness, RunsWhatFailedASecondTimeIfAskedToAndSaysSo) {
  const Folder folder;
  const std::string wanted = "if [ -e '" + folder.path("step") + "' ]; then exit 0; fi; ";
  const std::string once = "once  " + wanted + "touch '" + folder.path("step") + "'; exit 1\n";
  const std::string steps = folder.write("steps", once + "never exit 3\n");
  const std::string filter = "HarnessSample.*Once*:HarnessSample.*Dies:HarnessSample.*Passes";
  const auto run = tests(filter, {"JOBS=2", "SECOND_TRY=1", "STEPS=" + steps, "ITS_FILE=" + folder.path("test")});
  EXPECT_EQ(run->exit_status(), 1);
  EXPECT_EQ(run->count("AGAIN +HarnessSample.DISABLED_WorksOnceItsFileIsThere .*"), 1u) << run->output();
  EXPECT_EQ(run->count("ok +HarnessSample.DISABLED_WorksOnceItsFileIsThere, second try .*"), 1u) << run->output();
  EXPECT_EQ(run->count("ok +once, second try .*"), 1u) << run->output();
  EXPECT_EQ(run->count("FAILED +(HarnessSample.DISABLED_Dies|never), second try .*"), 2u) << run->output();
  EXPECT_EQ(run->count("4 ran a second time .*"), 1u) << run->output();
  EXPECT_EQ(run->count("3 passed, 2 failed, 0 skipped"), 1u) << run->output();
  const auto strict = tests("HarnessSample.*Once*", {"JOBS=2", "ITS_FILE=" + folder.path("other")});
  EXPECT_EQ(strict->exit_status(), 1);
  EXPECT_EQ(strict->count("0 passed, 1 failed, 0 skipped"), 1u) << strict->output();
}

TEST_F(Harness, SaysWhichSettingIsNoNumber) {
  const auto run = tests("HarnessSample.*Passes", {"JOBS=many"});
  EXPECT_EQ(run->exit_status(), 2);
  EXPECT_EQ(run->count("JOBS=many: JOBS takes a whole number"), 1u) << run->output();
}

// Whoever renames a test renames it there, too, or it would begin late.
TEST(HarnessSeconds, AreOfTestsThatThereAre) {
  std::set<std::string> names;
  const testing::UnitTest& all = *testing::UnitTest::GetInstance();
  for (int i = 0; i < all.total_test_suite_count(); ++i) {
    const testing::TestSuite& suite = *all.GetTestSuite(i);
    for (int j = 0; j < suite.total_test_count(); ++j)
      names.insert(std::string(suite.name()) + "." + suite.GetTestInfo(j)->name());
  }
  for (const std::string& line : lines_of(read_file("tests/support/seconds")))
    EXPECT_EQ(names.count(line.substr(line.find(' ') + 1)), 1u) << line;
}

TEST_F(Harness, FindsTheProgramsOfTheSystemWhereAnOrdinaryUsersPathDoesNotLeadToThem) {
  NEEDS_PROGRAM("nft", "nftables");
  NEEDS_PROGRAM("tc", "iproute2");
  const auto run = tests("HarnessSample.*FindsNftAndTc", {"PATH=/usr/bin:/bin"});
  EXPECT_EQ(run->exit_status(), 0) << run->output();
}

TEST_F(Harness, StartsProgramsThatASignalEndsThoughItIsIgnoredHere) {
  const auto before = ::signal(SIGHUP, SIG_IGN);  // as under nohup
  Process program(network->descriptor(0), {"/bin/sh", "-c", "echo ready; exec sleep 60"}, "/tmp");
  ::signal(SIGHUP, before);
  program.wait_for("ready");
  program.signal(SIGHUP);
  EXPECT_EQ(program.exit_status(), 128 + SIGHUP);
}

TEST_F(Harness, KnowsHowAProgramEndedThatWasToStandStill) {
  Process program(network->descriptor(0), {"/bin/sh", "-c", "exit 5"}, "/tmp");
  const std::string status = "/proc/" + std::to_string(program.pid()) + "/status";
  EXPECT_TRUE(eventually([&] { return read_file(status).find("\tZ (zombie)") != std::string::npos; }));
  program.signal(SIGSTOP);
  EXPECT_EQ(program.exit_status(), 5);
}
