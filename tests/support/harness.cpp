// What the tests stand on, tested: their main(), and what testing.h promises.

#include <signal.h>

#include <filesystem>

#include "testing.h"

// Run only by the tests below, in a process of their own.
TEST(HarnessSample, DISABLED_Passes) {}
TEST(HarnessSample, DISABLED_Dies) { ::raise(SIGKILL); }
TEST(HarnessSample, DISABLED_PassesToo) {}
TEST(HarnessSample, DISABLED_FindsNftAndTc) { Network(0).run(0, "nft list tables && tc qdisc"); }

class Harness : public OneHost {
 protected:
  // This program, with other tests.
  std::unique_ptr<Process> tests(const std::string& jobs, const std::string& filter,
                                 const std::string& path = std::getenv("PATH")) const {
    const std::string program = std::filesystem::read_symlink("/proc/self/exe");
    const std::vector<std::string> command = {"/usr/bin/env", "JOBS=" + jobs, "PATH=" + path, program,
                                              "--gtest_filter=" + filter, "--gtest_also_run_disabled_tests"};
    return std::make_unique<Process>(network->descriptor(0), command, std::filesystem::current_path());
  }
};

TEST_F(Harness, RunsEachTestOnceHoweverManyJobsThereAre) {
  for (const std::string jobs : {"1", "2", "5"}) {
    const auto run = tests(jobs, "HarnessSample.*Passes*");
    EXPECT_EQ(run->exit_status(), 0);
    EXPECT_EQ(run->count("2 passed, 0 failed, 0 skipped"), 1u) << run->output();
  }
}

TEST_F(Harness, CountsAsFailedWhatAJobThatDiesHasNotRun) {
  for (const std::string jobs : {"1", "3"}) {
    const auto run = tests(jobs, "HarnessSample.*Passes*:HarnessSample.*Dies");
    EXPECT_EQ(run->exit_status(), 1);
    const std::string totals = jobs == "1" ? "1 passed, 2 failed, 0 skipped" : "2 passed, 1 failed, 0 skipped";
    EXPECT_EQ(run->count(totals), 1u) << run->output();
    EXPECT_EQ(run->count("A job died: Killed"), 1u) << run->output();
    EXPECT_EQ(run->count(".* RUN .*HarnessSample.DISABLED_Dies"), 1u) << run->output();
  }
}

TEST_F(Harness, FindsTheProgramsOfTheSystemWhereAnOrdinaryUsersPathDoesNotLeadToThem) {
  NEEDS_PROGRAM("nft", "nftables");
  NEEDS_PROGRAM("tc", "iproute2");
  const auto run = tests("1", "HarnessSample.*FindsNftAndTc", "/usr/bin:/bin");
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
