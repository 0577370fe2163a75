// A peer on a terminal: tmux is the terminal, and what is looked at is its screen, as a user would see it.

#include <cstdlib>
#include <filesystem>

#include "support/testing.h"

class Terminal : public OneHost {
 protected:
  void SetUp() override {
    OneHost::SetUp();
    if (std::system("command -v tmux >/dev/null") != 0) GTEST_SKIP() << "tmux is not installed: apt-get install tmux";
  }
  void TearDown() override {
    if (running_) tmux("kill-server 2>/dev/null || true");  // it ends with the peer, if that has ended
  }

  // A peer of the user ann, on a terminal of 16 rows. Its exit status will be in the file "status".
  void start(const std::string& options) {
    running_ = true;
    std::filesystem::remove(folder_.path("status"));
    tmux("-f /dev/null new-session -d -x 70 -y 16 'cd " + folder_.path() + "; USER=ann " + peer_program() + " " +
         options + "; echo $? > status'");
  }
  void type(const std::string& text) const { tmux("send-keys -l '" + text + "'"); }
  void press(const std::string& key) const { tmux("send-keys " + key); }

  std::string screen() const {
    tmux("capture-pane -p > " + folder_.path("screen") + " 2>/dev/null || true");
    return read_file(folder_.path("screen"));
  }
  bool shows(const std::string& what) const {
    return eventually(10, [&] { return screen().find(what) != std::string::npos; });
  }
  // Of the rows on the screen, those that begin so.
  size_t rows(const std::string& beginning) const {
    const std::string all = "\n" + screen();
    size_t count = 0;
    for (size_t at = 0; (at = all.find("\n" + beginning, at)) != std::string::npos; ++at) ++count;
    return count;
  }
  std::string exit_status() const {
    eventually(10, [&] { return !read_file(folder_.path("status")).empty(); });
    return read_file(folder_.path("status"));
  }

 private:
  void tmux(const std::string& command) const {
    network->run(0, "TMUX_TMPDIR=" + folder_.path() + " TERM=xterm tmux " + command);
  }
  const Folder folder_;
  bool running_ = false;
};

TEST_F(Terminal, AsksForNameAndGroupUntilTheyAreGoodAndOffersTheUsualOnes) {
  start("");
  ASSERT_TRUE(shows("Your name [ann]:")) << screen();
  type("two words");
  press("Enter");
  EXPECT_TRUE(shows("A name is 1 to 32 characters without blanks.\nYour name [ann]:")) << screen();
  press("Enter");
  EXPECT_TRUE(shows("Your group [lab]:")) << screen();
  type("chess");
  press("Enter");
  EXPECT_TRUE(shows("ready ann@127.0.0.1:25253 chess\n/help lists the commands\n>")) << screen();
  type("/quit");
  press("Enter");
  EXPECT_EQ(exit_status(), "0\n");
}

TEST_F(Terminal, ShowsHowFarATransferIsInOneRowThatGoesAwayWithItAndKeepsWhatIsBeingTyped) {
  start("--name bob --group lab");
  ASSERT_TRUE(shows("ready bob@")) << screen();
  Process& ann = network->peer(0, "ann");
  ann.wait_for("joined bob.*");
  network->run(0, "truncate -s 60M " + network->folder("ann").path("big"));
  network->run(0, "tc qdisc add dev lo root tbf rate 8mbit burst 128k latency 100ms");  // 60 s: time to look
  ann.say("/send bob big");
  EXPECT_TRUE(shows("note: /accept 1 takes it, /reject 1 does not\n>")) << screen();
  type("/accept 1");
  press("Enter");
  EXPECT_TRUE(shows(" MB/s, ")) << screen();
  type("/msg ann half a");
  EXPECT_TRUE(shows("> /msg ann half a")) << screen();
  const auto progress = [this] { const std::string all = screen(); return all.substr(all.find("\n["), 30); };
  const std::string before = progress();
  EXPECT_TRUE(eventually(10, [&] { return progress() != before; })) << screen();
  EXPECT_TRUE(shows("> /msg ann half a")) << screen();
  ann.say("/msg bob hello");
  EXPECT_TRUE(shows("private: hello\n[")) << screen();
  type(" line");
  press("Enter");
  ann.wait_for("message bob@\\S+ private: half a line");
  EXPECT_TRUE(eventually(10, [this] { return rows("delivered ann@") == 1 && rows("[") == 1; })) << screen();
  network->run(0, "tc qdisc del dev lo root");
  EXPECT_TRUE(eventually(60, [this] { return rows("receive 1 stored ann@") == 1; })) << screen();
  EXPECT_EQ(rows("["), 0u) << screen();
}

TEST_F(Terminal, EndsAtOnceByCtrlCAndByCtrlDWhenAllIsSent) {
  for (const std::string key : {"C-c", "C-d"}) {
    start("--name bob --group lab");
    EXPECT_TRUE(shows("/help lists the commands\n>")) << screen();
    press(key);
    EXPECT_EQ(exit_status(), "0\n");
    TearDown();
  }
}
