// The console on a terminal: tmux is the terminal; the tests press its keys and read its screen, as a user would.

#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <regex>
#include <sstream>
#include <thread>

#include "support/testing.h"

namespace {

// A terminal in which a peer runs; when it has ended, it shows the exit status and the terminal's modes.
class Console {
 public:
  Console(const Network& network, const std::string& arguments, int width = 80, int height = 24,
          const std::string& environment = "")
      : Console(network, width, height) {
    start(environment + " " + peer_program() + " " + arguments + "; echo ended $?; stty -a; exec sleep 60");
  }
  Console(const Network& network, int width, int height)
      : network_(network), size_(" -x " + std::to_string(width) + " -y " + std::to_string(height)) {}
  ~Console() {
    // The peer first: LeakSanitizer stops it when it ends, and would wait for ever if a SIGCONT undid that stop. Who
    // loses his terminal gets one.
    const std::string of_each_pane = "list-panes -a -F '#{pane_pid}' | xargs -r -n 1 ";
    run(of_each_pane + "pkill -TERM -P || true");
    EXPECT_TRUE(eventually([&] {
      run(of_each_pane + "pgrep -P > " + folder_.path("children") + " || true");
      return read_file(folder_.path("children")).empty();
    })) << screen();
    EXPECT_FALSE(is_sanitizers(scrolled())) << scrolled();  // a report has more rows than the screen
    run("kill-server");
  }

  void start(const std::string& command) const {
    run("new-session -d" + size_ + " 'cd " + folder_.path() + " && " + command + "'");
  }
  void type(const std::string& text) const { run("send-keys -l -- '" + text + "'"); }
  void press(const std::string& keys) const { run("send-keys " + keys); }  // as tmux calls them: Left BSpace C-a
  void paste(const std::string& text) const {  // as from a clipboard, which the peer has to have asked for
    run("load-buffer " + folder_.write("clipboard", text));
    run("paste-buffer -p");
  }
  void terminate() const { run("display-message -p '#{pane_pid}' | xargs pkill -TERM -P"); }  // the peer
  void resize(int width, int height) const {
    run("resize-window -x " + std::to_string(width) + " -y " + std::to_string(height));
  }
  void run(const std::string& command) const {
    network_.run(0, "env -u TMUX TERM=xterm-256color LC_ALL=C.UTF-8 tmux -u -f /dev/null -S " + folder_.path("tmux") +
                        " " + command);
  }

  // The rows of the screen, without blank ones at its end.
  std::vector<std::string> rows() const {
    run("capture-pane -p > " + folder_.path("screen"));
    std::vector<std::string> rows = lines_of(read_file(folder_.path("screen")));
    while (!rows.empty() && rows.back().empty()) rows.pop_back();
    return rows;
  }
  std::string scrolled() const {  // the screen and what was above it, no row cut in two
    run("capture-pane -J -p -S - > " + folder_.path("screen"));
    return read_file(folder_.path("screen"));
  }

  std::string colours() const {  // the screen, with the sequences that colour it
    run("capture-pane -e -p > " + folder_.path("screen"));
    return read_file(folder_.path("screen"));
  }
  size_t count(const std::string& pattern) const {  // rows
    const auto all = rows();
    const std::regex row(pattern);
    return static_cast<size_t>(std::count_if(all.begin(), all.end(), [&](auto& r) { return std::regex_match(r, row); }));
  }
  std::string screen() const {
    std::string all;
    for (const std::string& row : rows()) all += row + "\n";
    return all;
  }
  bool shows(const std::string& pattern, double seconds = 30) const {
    return eventually(seconds, [&] { return std::regex_search(screen(), std::regex(pattern)); });
  }
  // Its last row is this one, and the cursor is in this column of it (0 is the first).
  bool ends_in(const std::string& row, int column) const {
    return eventually([&] {
      run("display-message -p '#{cursor_x}' > " + folder_.path("cursor"));
      const auto all = rows();
      return !all.empty() && all.back() == row && std::stoi(read_file(folder_.path("cursor"))) == column;
    });
  }
  const Folder& folder() const { return folder_; }

 private:
  const Network& network_;
  const std::string size_;
  const Folder folder_;
};

constexpr char kAnn[] = "--name ann --group lab";

}  // namespace

class Terminals : public OneHost {
 protected:
  void SetUp() override {
    OneHost::SetUp();
    NEEDS_PROGRAM("tmux", "tmux");
    NEEDS_PROGRAM("pkill", "procps");
  }
};

TEST_F(Terminals, EditTheLineWithTheUsualKeysWhateverItsScript) {
  Console ann(*network, kAnn, 60, 10);
  ASSERT_TRUE(ann.shows("/help lists"));
  ann.type("say 你好 café");
  EXPECT_TRUE(ann.ends_in("ann> say 你好 café", 18)) << ann.screen();
  ann.press("BSpace BSpace Left Left");
  EXPECT_TRUE(ann.ends_in("ann> say 你好 ca", 14)) << ann.screen();
  ann.press("BSpace BSpace");  // one character, two columns
  EXPECT_TRUE(ann.ends_in("ann> say 你ca", 11)) << ann.screen();
  ann.press("Home");
  ann.type("X");
  EXPECT_TRUE(ann.ends_in("ann> Xsay 你ca", 6)) << ann.screen();
  ann.press("DC Right");  // Delete
  EXPECT_TRUE(ann.ends_in("ann> Xay 你ca", 7)) << ann.screen();
  ann.press("C-k");
  EXPECT_TRUE(ann.ends_in("ann> Xa", 7)) << ann.screen();
  ann.type(" bb cc");
  ann.press("C-w");
  EXPECT_TRUE(ann.ends_in("ann> Xa bb", 11)) << ann.screen();
  ann.press("C-a C-e C-u");
  EXPECT_TRUE(ann.ends_in("ann>", 5)) << ann.screen();
  ann.type("e\xCC\x81x");  // an accent that combines belongs to its letter
  ann.press("Left BSpace");
  EXPECT_TRUE(ann.ends_in("ann> x", 5)) << ann.screen();
}

TEST_F(Terminals, LoseNoKeyBehindOneThatMeansNothing) {
  Console ann(*network, kAnn);
  ASSERT_TRUE(ann.shows("/help lists"));
  ann.type("/list");
  ann.press("Escape Enter");  // Esc alone, and then Enter
  EXPECT_TRUE(ann.shows("users 1\n")) << ann.screen();
  ann.press("F5");
  ann.press("-H 1b 5b 61");  // ESC [ a: Shift and Up, on some
  ann.type("/transfers");
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("transfers 0\n")) << ann.screen();
  ann.press("Escape");
  ann.type("x");
  EXPECT_TRUE(ann.ends_in("ann> x", 6)) << ann.screen();
}

TEST_F(Terminals, TellWhatIsTypedAndIsNotUtf8) {
  Console ann(*network, kAnn);
  ASSERT_TRUE(ann.shows("/help lists"));
  ann.press("-H e9");  // an e with an accent, in Latin-1
  ann.type("x");
  EXPECT_TRUE(ann.shows("note: left out, because it is not UTF-8: \\\\xe9; is your terminal set to UTF-8\\?\n")) << ann.screen();
  EXPECT_TRUE(ann.ends_in("ann> x", 6)) << ann.screen();
}

TEST_F(Terminals, MoveAndDeleteByWords) {
  Console ann(*network, kAnn, 60, 10);
  ASSERT_TRUE(ann.shows("/help lists"));
  ann.press("Tab");
  ann.type("one two three");
  EXPECT_TRUE(ann.ends_in("ann> one two three", 18)) << ann.screen();
  ann.press("C-Left M-Left");
  EXPECT_TRUE(ann.ends_in("ann> one two three", 9)) << ann.screen();
  ann.press("C-Right");
  EXPECT_TRUE(ann.ends_in("ann> one two three", 12)) << ann.screen();
  ann.press("M-BSpace");
  EXPECT_TRUE(ann.ends_in("ann> one  three", 9)) << ann.screen();
}

TEST_F(Terminals, WithoutEscapeSequencesGetNone) {
  Console ann(*network, 80, 24);
  Process& bob = network->peer(0, "bob");
  bob.wait_for("ready .*");
  ann.start("PS1=shell: exec sh -i");
  ASSERT_TRUE(ann.shows("shell:"));
  ann.run("pipe-pane 'cat >" + ann.folder().path("sent") + "'");
  ann.type("TERM=dumb " + peer_program() + " " + kAnn);
  ann.press("Enter");
  ASSERT_TRUE(ann.shows("\njoined bob@\\S+ lab\n$")) << ann.screen();
  ann.type("/to boc");
  ann.press("BSpace");  // it is the terminal that edits the line
  ann.type("b");
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("\n/to bob\nto bob@\\S+\n$")) << ann.screen();
  bob.wait_for("joined ann.*");
  bob.say("/msg ann hello");
  EXPECT_TRUE(ann.shows("\nmessage bob@\\S+ private: hello\n$")) << ann.screen();
  ann.press("C-c");
  EXPECT_TRUE(ann.shows("\n\\^Cshell:")) << ann.screen();
  EXPECT_EQ(read_file(ann.folder().path("sent")).find('\033'), std::string::npos) << read_file(ann.folder().path("sent"));
}

TEST_F(Terminals, AsNarrowAsTheyMayBeLeaveWhatIsAboveTheLineAlone) {
  Console ann(*network, kAnn, 20, 6);
  ASSERT_TRUE(ann.shows("/help lists"));
  ann.type("/nonsense");
  ann.press("Enter");
  ASSERT_TRUE(ann.shows("error"));
  for (const int width : {4, 3, 2, 1, 20}) {
    ann.resize(width, 6);
    ann.type("中x");
  }
  EXPECT_TRUE(ann.shows("ann> .*x\n$")) << ann.screen();
  ann.press("C-u");
  ann.type("/list");
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("users 1\n")) << ann.screen();
}

TEST_F(Terminals, BringBackEarlierLinesAndKeepTheNewOne) {
  Console ann(*network, kAnn, 60, 20);
  ASSERT_TRUE(ann.shows("/help lists"));
  ann.type("/list");
  ann.press("Enter");
  ann.type("/transfers");
  ann.press("Enter");
  ann.type("half");
  ann.press("Up");
  EXPECT_TRUE(ann.ends_in("ann> /transfers", 15)) << ann.screen();
  ann.press("Up Up");
  EXPECT_TRUE(ann.ends_in("ann> /list", 10)) << ann.screen();
  ann.press("Down Down");
  EXPECT_TRUE(ann.ends_in("ann> half", 9)) << ann.screen();
}

TEST_F(Terminals, CompleteCommandsNamesAndPaths) {
  Console ann(*network, kAnn, 80, 20);
  network->peer(0, "bob");
  ASSERT_TRUE(ann.shows("joined bob"));
  ann.folder().write("a long report.pdf", "x");
  ann.folder().write("a long letter.pdf", "x");
  ann.type("/li\t");
  EXPECT_TRUE(ann.ends_in("ann> /list", 11)) << ann.screen();
  ann.press("C-u");
  ann.type("/sendg\t");
  ann.press("C-u");
  ann.type("/send b\ta lo\t");
  EXPECT_TRUE(ann.ends_in("ann> /send bob a long", 22)) << ann.screen();
  ann.type("\t");
  EXPECT_TRUE(ann.shows("help: a long letter.pdf, a long report.pdf\n")) << ann.screen();
  ann.type("r\t");
  EXPECT_TRUE(ann.ends_in("ann> /send bob a long report.pdf", 32)) << ann.screen();
}

TEST_F(Terminals, ListWhatTabFindsInOrderAndWithoutItsFolder) {
  Console ann(*network, kAnn);
  ASSERT_TRUE(ann.shows("/help lists"));
  network->run(0, "mkdir -p " + ann.folder().path("photos/2026"));
  for (const char* name : {"c.jpg", "a.jpg", "b and d.jpg"}) ann.folder().write("photos/" + std::string(name), "x");
  ann.type("/sendall photos/\t\t");
  EXPECT_TRUE(ann.shows("\nhelp: 2026/, a.jpg, b and d.jpg, c.jpg\n")) << ann.screen();
}

TEST_F(Terminals, SayOfAFileWhatAPersonWantsToKnow) {
  Console ann(*network, kAnn);
  Process& bob = network->peer(0, "bob");
  ASSERT_TRUE(ann.shows("joined bob"));
  bob.wait_for("joined ann.*");
  network->run(0, "truncate -s 1500M " + ann.folder().path("film"));
  ann.folder().write("x", "x");
  ann.type("/send bob film");
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("\nsend 1 offered bob 1.6 GB: film\n"
                        "note: bob has been asked; /cancel 1 takes the offer back\nann>")) << ann.screen();
  ann.type("/cancel");
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("\nsend 1 failed bob 1.6 GB, cancelled: film\n")) << ann.screen();
  bob.wait_for("receive 1 failed .*");
  ann.type("/send bob x");
  ann.press("Enter");
  bob.wait_for("receive 2 offered ann@\\S+ 1 bytes: x");
  bob.say("/accept");
  EXPECT_TRUE(ann.shows("\nsend 2 delivered bob 1 byte: x\n")) << ann.screen();
}

TEST_F(Terminals, AlignTheColumnsOfTheList) {
  Console ann(*network, kAnn);
  network->peer(0, "christopher").wait_for("joined ann.*");
  network->peer(0, "李雷", {"--group", "chess"}).wait_for("joined ann.*");
  network->peer(0, std::string(32, 'x')).wait_for("joined ann.*");
  ASSERT_TRUE(ann.shows("joined xx"));
  ann.type("/list");
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("\nuser 1 \\* ann                  lab   127.0.0.1:\\d+"
                        "\nuser 2 - christopher          lab   127.0.0.1:\\d+"
                        "\nuser 3 - x{32} lab   127.0.0.1:\\d+"
                        "\nuser 4 - 李雷                 chess 127.0.0.1:\\d+\nusers 4\n")) << ann.screen();
}

TEST_F(Terminals, CompleteAPathForWhomOneHasChosen) {
  Console ann(*network, kAnn);
  network->peer(0, "bob");
  ASSERT_TRUE(ann.shows("joined bob"));
  ann.folder().write("my report.pdf", "x");
  ann.folder().write("notes.txt", "x");
  ann.type("/send n\t");
  EXPECT_TRUE(ann.ends_in("ann> /send n", 12)) << ann.screen();
  ann.press("C-u");
  ann.type("/to bob");
  ann.press("Enter");
  ann.type("/send n\t");
  EXPECT_TRUE(ann.ends_in("ann to bob> /send notes.txt", 27)) << ann.screen();
  ann.press("C-u");
  ann.type("/send my r\t");
  EXPECT_TRUE(ann.ends_in("ann to bob> /send my report.pdf", 31)) << ann.screen();
  ann.press("C-u");
  ann.type("/send b\tn\t");
  EXPECT_TRUE(ann.ends_in("ann to bob> /send bob notes.txt", 31)) << ann.screen();
}

TEST_F(Terminals, BreakRowsBetweenWordsWhateverTheirScript) {
  Console ann(*network, kAnn, 40, 20);
  Process& bob = network->peer(0, "bob");
  ASSERT_TRUE(ann.shows("joined bob"));
  bob.wait_for("joined ann.*");
  bob.say("/msg ann one two three four five extraordinarily long words are not broken");
  EXPECT_TRUE(ann.shows("bob: one two three four five\n  extraordinarily long words are not\n  broken\n")) << ann.screen();
  bob.say("/msg ann xy图书馆六点关门请大家准时离开谢谢合作明天见");
  EXPECT_TRUE(ann.shows("bob: xy图书馆六点关门请大家准时离\n  开谢谢合作明天见\n")) << ann.screen();
  bob.say("/msg ann " + std::string(85, 'w') + " end");  // what no row can hold
  EXPECT_TRUE(ann.shows("\n  w{38}\nw{40}\nw{7} end\n")) << ann.screen();
  ann.type("/to no such user is here, and so this line has to be two");
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("ann> /to no such user is here, and so\n  this line has to be two\nerror: ")) << ann.screen();
}

TEST_F(Terminals, NeitherSendNorCompleteWhatIsPastedBeforeEnter) {
  Console ann(*network, kAnn, 60, 10);
  Process& bob = network->peer(0, "bob");
  ASSERT_TRUE(ann.shows("joined bob"));
  ann.type("/to bob");
  ann.press("Enter");
  ASSERT_TRUE(ann.shows("to bob@"));
  ann.paste("two\nlines\tand ");
  // Newer versions of tmux show ^D for such a character. So: what a terminal sends around a paste, and Ctrl-D and Ctrl-U.
  ann.press("-H 1b 5b 32 30 30 7e 04 15 1b 5b 32 30 31 7e");
  ann.paste("more");
  EXPECT_TRUE(ann.ends_in("ann to bob> two↵lines and   more", 32)) << ann.screen();
  ann.press("Enter");
  bob.wait_for("message ann@\\S+ private: two");
  bob.wait_for("message ann@\\S+ private: lines and   more");
}

TEST_F(Terminals, SendLinesThatArePastedAsMessagesAndNeverAsCommands) {
  Console ann(*network, kAnn, 60, 14);
  Process& bob = network->peer(0, "bob");
  ASSERT_TRUE(ann.shows("joined bob"));
  ann.paste("/quit\n/list\n");
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("ann> /quit↵/list\nerror: to whom\\? ")) << ann.screen();
  ann.type("/to bob");
  ann.press("Enter");
  ASSERT_TRUE(ann.shows("to bob@"));
  ann.paste("/quit\n\n  /list\n// end\n");
  EXPECT_TRUE(ann.ends_in("ann to bob> /quit↵↵  /list↵// end↵", 34)) << ann.screen();
  ann.press("Enter");
  for (const char* line : {"/quit", "  /list", "// end"}) bob.wait_for("message ann@\\S+ private: " + std::string(line));
  ann.type("/msg bob ");  // typed, it means one line: what follows was for bob alone, and /to may have chosen another
  ann.paste("one\ntwo");
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("error: several lines go to the user that /to chose; ")) << ann.screen();
  ann.paste("/list\n");  // one line is one line
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("\nusers 2\n")) << ann.screen();
  ann.paste("fine\n" + std::string(4001, 'x'));
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("error: a message has at most 4000 bytes; this one has 4001")) << ann.screen();
  ann.type("the end");
  ann.press("Enter");
  bob.wait_for("message ann@\\S+ private: the end");
  EXPECT_EQ(bob.count("message .*"), 4u);
}

// What is typed into a long line while two others write ten messages a second, step by step.
class Flooded : public Terminals, public testing::WithParamInterface<std::pair<int, int>> {};

TEST_P(Flooded, LeaveTheTypedLineWholeAfterEveryStep) {
  const int width = GetParam().first;
  const int height = GetParam().second;
  Console ann(*network, kAnn, width, height);
  Process& bob = network->peer(0, "bob");
  Process& cleo = network->peer(0, "cleo");
  ASSERT_TRUE(ann.shows("joined cleo"));
  ASSERT_TRUE(ann.shows("joined bob"));
  bob.wait_for("joined ann.*");
  cleo.wait_for("joined ann.*");
  ann.type("/to bob");
  ann.press("Enter");
  ASSERT_TRUE(ann.shows("to bob@"));

  std::atomic<bool> over{false};
  std::atomic<bool> is_resizing{false};
  std::thread flood([&] {
    for (int i = 0; !over; std::this_thread::sleep_for(std::chrono::milliseconds(50))) {
      if (is_resizing) continue;
      (i % 2 ? bob : cleo).say("/msg ann flood " + std::to_string(i));
      ++i;
    }
  });
  std::string before, after;  // the cursor
  const std::string prompt = "ann to bob> ";
  const auto expect_right = [&] {
    // The row: the prompt, and around the cursor a part of the text. Above it: messages, each whole and each after the
    // one before.
    EXPECT_TRUE(eventually([&] {
      const auto rows = ann.rows();
      if (rows.empty() || rows.back().substr(0, prompt.size()) != prompt) return false;
      std::string shown = rows.back().substr(prompt.size());
      const size_t found = (before + after).find(shown);
      return found != std::string::npos && found <= before.size() &&
             before.substr(0, found + shown.size() + 1).size() == before.size();
    })) << ann.screen() << before << "|" << after;
    std::string text = ann.screen();
    size_t rows_with_prompt = 0;
    for (const std::string& row : lines_of(text)) {
      const bool is_row = row.substr(0, prompt.size()) == prompt;
      rows_with_prompt += is_row;
      EXPECT_TRUE(is_row || std::regex_match(row, std::regex("\\d\\d:\\d\\d (bob|cleo): flood \\d+|ann> .*|to bob@.*|"
                                                             "joined .*|ready .*|/help .*|")))
          << row;
    }
    EXPECT_EQ(rows_with_prompt, 1u) << text;
  };
  for (int i = 1; i <= 9; ++i) {
    const std::string piece = " " + std::to_string(i) + " 中文 and English,";
    ann.type(piece);
    before += piece;
    expect_right();
  }
  for (int i = 0; i < 60; ++i) {  // left, by characters
    ann.press("Left");
    size_t at = before.size() - 1;
    while ((before[at] & 0xC0) == 0x80) --at;
    after.insert(0, before.substr(at));
    before.erase(at);
  }
  expect_right();
  ann.type(" 新 words");
  before += " 新 words";
  expect_right();
  // Between the moment when tmux has broken the rows and that when it tells the new size, a program
  // cannot know where its row is by now. So nothing comes just then.
  const auto resize = [&](int to_width) {
    is_resizing = true;
    EXPECT_TRUE(eventually([&] { return bob.has_read() && cleo.has_read(); }));
    expect_right();
    ann.resize(to_width, height);
    expect_right();
    is_resizing = false;
  };
  resize(width / 2 + 10);
  ann.press("BSpace BSpace");
  before.erase(before.size() - 2);
  expect_right();
  resize(width);
  ann.press("Enter");
  bob.wait_for("message ann@\\S+ private: " + before + after);
  over = true;
  flood.join();
  EXPECT_EQ(bob.count("message .*"), 1u);
}

INSTANTIATE_TEST_SUITE_P(At, Flooded, testing::Values(std::pair(80, 24), std::pair(40, 10)));

TEST_F(Terminals, AreLeftInOrderHoweverTheProgramEnds) {
  for (const std::string end : {"C-c", "C-d", "C-\\\\", "/quit Enter", "SIGTERM"}) {
    Console ann(*network, kAnn);
    ASSERT_TRUE(ann.shows("/help lists"));
    if (end == "SIGTERM") ann.terminate();
    else ann.press(end);
    EXPECT_TRUE(ann.shows("ended 0")) << end << ann.screen();
    EXPECT_TRUE(ann.shows(" icanon ")) << end << ann.screen();
    EXPECT_TRUE(ann.shows(" echo ")) << end << ann.screen();
  }
}

TEST_F(Terminals, SayWhyAProgramThatWasToldToQuitDoesNotYet) {
  Process& bob = network->peer(0, "bob");
  Console ann(*network, kAnn);
  ASSERT_TRUE(ann.shows("joined bob"));
  ann.folder().write("a", "hello\n");
  ann.type("/send bob a");
  ann.press("Enter");
  bob.wait_for("receive 1 offered .*");
  ann.type("/quit");
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("note: waiting for bob \\(send 1, offered\\); /quit again leaves now")) << ann.screen();
  ann.type("/quit");
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("ended 0")) << ann.screen();
}

TEST_F(Terminals, SayForWhoseMessagesAProgramWaitsThatCtrlDWasPressedIn) {
  std::vector<Process*> stopped;
  for (const char* name : {"bob", "cleo"}) stopped.push_back(&network->peer(0, name));
  Console ann(*network, kAnn, 120, 24);
  ASSERT_TRUE(ann.shows("joined bob"));
  ASSERT_TRUE(ann.shows("joined cleo"));
  for (Process* one : stopped) one->signal(SIGSTOP);
  ann.type("/all hello?");
  ann.press("Enter C-d");
  EXPECT_TRUE(ann.shows("note: waiting for (bob|cleo) \\(message\\), (bob|cleo) \\(message\\); /quit again leaves now")) << ann.screen();
  ann.press("C-d");  // the same as /quit again
  EXPECT_TRUE(ann.shows("ended 0")) << ann.screen();
  for (Process* one : stopped) one->signal(SIGCONT);
}

TEST_F(Terminals, TakeAwayWhatIsTypedAtTheFirstCtrlCAndLeaveAtOneInAnEmptyLine) {
  Console ann(*network, kAnn);
  ASSERT_TRUE(ann.shows("/help lists"));
  ann.press("h a l f C-c");  // all at once: the keys before it are read before it is obeyed
  EXPECT_TRUE(ann.ends_in("ann>", 5)) << ann.screen();
  ann.type("/list");
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("users 1\n")) << ann.screen();
  ann.press("Up");
  EXPECT_TRUE(ann.ends_in("ann> /list", 10)) << ann.screen();
  ann.press("C-c");
  EXPECT_TRUE(ann.ends_in("ann>", 5)) << ann.screen();
  ann.press("C-c");
  EXPECT_TRUE(ann.shows("ended 0")) << ann.screen();
}

// bob, whose disk stands still as soon as a file of ann's is to be stored there.
class HungBob {
 public:
  explicit HungBob(Network& network)
      : console(network, "--name bob --group lab --accept always", 80, 24,
                "ASAN_OPTIONS=verify_asan_link_order=0 LD_PRELOAD=" + hung_disk(network, folder_)),
        ann(network.peer(0, "ann")) {
    network.folder("ann").write("a", "hello\n");
  }

  // ann sends it; whether his disk hangs now.
  bool hangs() {
    ann.wait_for("joined bob.*");
    ann.say("/send bob a");
    ann.wait_for("send 1 started .*");
    return eventually([&] { return folder_.names().front() == "hangs"; });
  }

 private:
  const Folder folder_;  // made before the console, which is started with what is in it

 public:
  Console console;
  Process& ann;
};

TEST_F(Terminals, AreLeftInOrderByTheSecondCtrlCToo) {
  NEEDS_PROGRAM("cc", "gcc");
  HungBob hung(*network);
  Console& bob = hung.console;
  Process& ann = hung.ann;
  ASSERT_TRUE(hung.hangs());
  bob.press("C-c");
  ann.wait_for("left bob@\\S+: said bye");
  EXPECT_TRUE(eventually([&] {
    bob.press("C-c");
    return bob.shows("ended", 1);
  })) << bob.screen();
  EXPECT_TRUE(bob.shows("ended 130")) << bob.screen();
  EXPECT_TRUE(bob.shows(" icanon ")) << bob.screen();
}

TEST_F(Terminals, SayThatSomethingHangsAndAreThenLeftAtTheNextCtrlC) {
  NEEDS_PROGRAM("cc", "gcc");
  HungBob hung(*network);
  Console& bob = hung.console;
  ASSERT_TRUE(hung.hangs());
  bob.type("/quit");
  bob.press("Enter");
  EXPECT_TRUE(bob.shows("note: something hangs, perhaps a disk; Ctrl-C ends the program at once")) << bob.screen();
  bob.press("C-c");
  EXPECT_TRUE(bob.shows("ended 130")) << bob.screen();
  EXPECT_TRUE(bob.shows(" icanon ")) << bob.screen();
}

TEST_F(Terminals, AreTheShellsWhileTheProgramIsStoppedAndTheLineIsThereAgainAfterFg) {
  Console ann(*network, 80, 24);
  ann.start("PS1=shell: exec sh -i");
  ann.type(peer_program() + " " + kAnn);
  ann.press("Enter");
  ASSERT_TRUE(ann.shows("/help lists"));
  ann.type("half a li");
  ASSERT_TRUE(ann.ends_in("ann> half a li", 14)) << ann.screen();
  ann.press("C-z");
  ASSERT_TRUE(ann.shows("Stopped")) << ann.screen();
  ann.type("stty -a | grep -o [[:space:]]icanon; stty -a | grep -ow echo");
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("\n icanon\necho\n")) << ann.screen();
  ann.type("fg");
  ann.press("Enter");
  EXPECT_TRUE(ann.ends_in("ann> half a li", 14)) << ann.screen();
  ann.type("ne");
  EXPECT_TRUE(ann.ends_in("ann> half a line", 16)) << ann.screen();
}

TEST_F(Terminals, WithoutAShellThatCouldContinueItDoNotStopTheProgram) {
  Console ann(*network, 80, 24);
  ann.start("exec " + peer_program() + " " + kAnn);
  ASSERT_TRUE(ann.shows("/help lists"));
  ann.press("C-z");
  ann.type("/list");
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("users 1\n")) << ann.screen();
}

TEST_F(Terminals, AskForNameAndGroupUntilTheyAreGoodAndOfferTheUsualOnes) {
  Console ann(*network, "", 80, 24, "USER=ann");
  ASSERT_TRUE(ann.shows("Your name \\[ann\\]:")) << ann.screen();
  ann.type("two words");
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("A name is 1 to 32 characters without blanks, no / first; Ctrl-D leaves.\nYour name \\[ann\\]:")) << ann.screen();
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("Your group \\[lab\\]:")) << ann.screen();
  ann.type("chess");
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("ready ann@127.0.0.1:25253 chess\n/help lists the commands\nann>")) << ann.screen();
}

TEST_F(Terminals, OfferUserWhereTheUsersNameIsNone) {
  Console ann(*network, "", 80, 24, "USER=two\\ words");
  ASSERT_TRUE(ann.shows("Your name \\[user\\]:")) << ann.screen();
  ann.press("Enter");
  ASSERT_TRUE(ann.shows("Your group \\[lab\\]:")) << ann.screen();
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("ready user@127.0.0.1:25253 lab\n")) << ann.screen();
}

TEST_F(Terminals, TakeNoCommandForANameAndLeaveAtCtrlDThere) {
  Console ann(*network, "", 80, 24, "USER=ann");
  ASSERT_TRUE(ann.shows("Your name \\[ann\\]:")) << ann.screen();
  ann.type("/quit");
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("A name is .*, no / first; Ctrl-D leaves.\nYour name \\[ann\\]:")) << ann.screen();
  ann.press("-H 65 e9");  // an e, and one with an accent in Latin-1
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("(A name is .*\nYour name \\[ann\\]:[^]*){2}")) << ann.screen();
  ann.press("C-d");
  EXPECT_TRUE(ann.shows("\nended 0\n")) << ann.screen();
  EXPECT_FALSE(ann.shows("ready", 0.1)) << ann.screen();
}

TEST_F(Terminals, ShowTheQuestionsWhereTheOutputIsAFile) {
  Console ann(*network, 80, 24);
  ann.start("USER=ann " + peer_program() + " >output; echo ended $?; exec sleep 60");
  ASSERT_TRUE(ann.shows("Your name \\[ann\\]:")) << ann.screen();
  ann.press("Enter");
  ASSERT_TRUE(ann.shows("Your group \\[lab\\]:")) << ann.screen();
  ann.press("Enter");
  ann.type("/quit");
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("ended 0")) << ann.screen();
  EXPECT_EQ(read_file(ann.folder().path("output")).substr(0, 10), "ready ann@");
}

TEST_F(Terminals, TellAFolderThatCannotBeUsedBeforeTheyAsk) {
  Console ann(*network, "--dir /nowhere/at/all");
  EXPECT_TRUE(ann.shows("^peer: files cannot be stored in /nowhere/at/all: .*\nended 2")) << ann.screen();
}

// README.md shows each line that is typed, with an Enter where ⏎ stands; then it says what is seen.
TEST_F(Terminals, TakeTheKeysOfTheReadmeForAFirstMessage) {
  const std::string readme = read_file("README.md");
  std::smatch claim;
  ASSERT_TRUE(std::regex_search(readme, claim, std::regex("(\\d+) keys in all[^:]*:\n\n((?:    .*\n)+)")));
  Process& bob = network->peer(0, "bob");
  bob.wait_for("ready .*");
  Console ann(*network, 80, 24);
  ann.start("ln -s " + peer_program() + " peer && USER=ann exec sh -i");
  const std::vector<std::string> next = {"Your name", "Your group", "joined bob", "to bob@", "delivered bob\n"};
  const std::regex shown("    (.+?)((?: ⏎)+) {3,}.*");
  std::istringstream lines(claim[2]);
  size_t keys = 0, enters = 0;
  std::smatch match;
  for (std::string line; std::getline(lines, line) && std::regex_match(line, match, shown);) {
    ann.type(match[1]);
    keys += match[1].str().size();
    for (size_t left = match[2].str().size() / std::strlen(" ⏎"); left > 0; --left, ++keys) {
      ann.press("Enter");
      ASSERT_LT(enters, next.size());
      EXPECT_TRUE(ann.shows(next[enters++])) << ann.screen();
    }
  }
  EXPECT_EQ(enters, next.size());
  EXPECT_EQ(keys, std::stoul(claim[1]));
  EXPECT_NE(claim[2].str().find("delivered bob"), std::string::npos);
  bob.wait_for("message ann@\\S+ private: hi");
}

TEST_F(Terminals, TellNewcomersOneByOneAndAClassInOneLine) {
  Console ann(*network, kAnn);
  ASSERT_TRUE(ann.shows("/help lists"));
  network->peer(0, "bob");
  EXPECT_TRUE(ann.shows("joined bob@127.0.0.1:\\d+ lab")) << ann.screen();
  std::vector<Socket> scripted;  // they are quick enough to come all at once, also where a sanitizer slows processes down
  for (int i = 11; i <= 30; ++i) {
    scripted.push_back(Socket::udp(*network, 0, 40000 + i));
    const std::string n = std::to_string(i);
    scripted.back().meet("127.0.0.1", 25253, "id=00000000000000" + n + " ip=127.0.0.1 port=400" + n + " name=u" + n + " group=lab");
  }
  EXPECT_TRUE(ann.shows("\\d+ joined; /list shows who is online")) << ann.screen();
  for (size_t i = 0; i < scripted.size(); ++i) {
    const std::string n = std::to_string(11 + i);
    scripted[i].send_to("127.0.0.1", 25253, "ChatByP2P/1 BYE id=00000000000000" + n + " ip=127.0.0.1 port=400" + n +
                                                " name=u" + n + " group=lab");
  }
  EXPECT_TRUE(ann.shows("\n\\d+ left; /list shows who is online")) << ann.screen();
}

// Who changes his name 900 times cannot push off the screen what people have said.
TEST_F(Terminals, SumUpWhatAStrangerSaysOfHimself) {
  Console ann(*network, kAnn);
  ASSERT_TRUE(ann.shows("/help lists"));
  const Socket eve = Socket::udp(*network, 0, 40001, "127.0.0.2");
  const std::string id = "id=00000000000000ee ip=127.0.0.2 port=40001 group=lab name=";
  eve.meet("127.0.0.1", 25253, id + "eve");
  ASSERT_TRUE(ann.shows("joined eve@127.0.0.2:40001 lab"));
  for (int i = 0; i < 900; ++i) eve.send_to("127.0.0.1", 25253, "ChatByP2P/1 HERE " + id + "eve" + std::to_string(i));
  EXPECT_TRUE(eventually([&] {
    eve.send_to("127.0.0.1", 25253, "ChatByP2P/1 HERE " + id + "mallory");
    return ann.shows("changed mallory@127.0.0.2:40001 lab: was eve\\S* lab", 1);
  })) << ann.screen();
  EXPECT_TRUE(ann.shows("^ready ann@")) << ann.screen();
}

TEST_F(Terminals, ShowWhenWhoAndToWhomAndWhetherItArrived) {
  Console ann(*network, kAnn);
  Process& bob = network->peer(0, "bob");
  ASSERT_TRUE(ann.shows("joined bob"));
  bob.wait_for("joined ann.*");
  bob.say("/msg ann to you");
  bob.say("/group to the group");
  bob.say("/all to all");
  for (const char* line : {"bob: to you", "bob \\[group\\]: to the group", "bob \\[all\\]: to all"})
    EXPECT_TRUE(ann.shows("\n\\d\\d:\\d\\d " + std::string(line) + "\n")) << ann.screen();
  ann.type("/to b");  // the only beginning of a name
  ann.press("Enter");
  ASSERT_TRUE(ann.shows("\nto bob@")) << ann.screen();
  ann.type("hello");
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("ann to bob> hello\n\\d\\d:\\d\\d delivered bob\n")) << ann.screen();
  bob.say("/quit");
  ASSERT_TRUE(ann.shows("\nleft bob@"));
  ann.type("hello?");
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("\nerror: bob@\\S+ has left; /to WHO chooses another\n")) << ann.screen();
}

TEST_F(Terminals, SayThatTheOneWeTalkToHasLeftAndThatHeIsBack) {
  Console ann(*network, kAnn);
  Process& bob = network->peer(0, "bob");
  ASSERT_TRUE(ann.shows("joined bob"));
  ann.type("/to bob");
  ann.press("Enter");
  ASSERT_TRUE(ann.ends_in("ann to bob>", 12)) << ann.screen();
  bob.say("/quit");
  EXPECT_TRUE(ann.shows("\nleft bob@.*\nnote: bob@127.0.0.1:\\d+ has left; /to WHO chooses another\nann>")) << ann.screen();
  EXPECT_TRUE(ann.ends_in("ann>", 5)) << ann.screen();
  network->peer(0, "zoe");  // who is not he
  ASSERT_TRUE(ann.shows("joined zoe"));
  Process& again = network->peer(0, "bob");
  EXPECT_TRUE(ann.shows("note: bob is back; /to bob talks to him again\nann>")) << ann.screen();
  EXPECT_EQ(ann.count("note: .* is back.*"), 1u) << ann.screen();
  ann.type("not yet");
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("\nerror: bob@\\S+ has left; he is back, and /to bob talks to him again\n")) << ann.screen();
  ann.type("/to bob");
  ann.press("Enter");
  ann.type("welcome");
  ann.press("Enter");
  again.wait_for("message ann@\\S+ private: welcome");
}

TEST_F(Terminals, SayOnceHowToAnswer) {
  Console ann(*network, kAnn);
  Process& bob = network->peer(0, "bob");
  ASSERT_TRUE(ann.shows("joined bob"));
  bob.wait_for("joined ann.*");
  bob.say("/msg ann hi");
  EXPECT_TRUE(ann.shows("bob: hi\nnote: to answer, type /to bob; what you type then goes to bob\nann>")) << ann.screen();
  ann.type("hi bob");
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("error: to whom\\? choose with /to bob, or write /msg bob TEXT\n")) << ann.screen();
  bob.say("/msg ann are you there?");
  EXPECT_TRUE(ann.shows("are you there\\?\nann>")) << ann.screen();
  EXPECT_EQ(ann.count("note: to answer.*"), 1u) << ann.screen();
}

TEST_F(Terminals, ShowNamesThatClashApartAndTellBoth) {
  Console ann(*network, kAnn);
  Process& bob = network->peer(0, "bob");
  ASSERT_TRUE(ann.shows("joined bob"));
  bob.wait_for("joined ann.*");
  bob.say("/name ann");
  bob.wait_for("note: ann@\\S+ has the same name as you; /name NEW gives you another");
  EXPECT_TRUE(ann.shows("note: ann@\\S+ has the same name as you; /name NEW gives you another")) << ann.screen();
  bob.say("/all which one am I?");
  EXPECT_TRUE(ann.shows("\\d\\d:\\d\\d ann@127.0.0.1:\\d+ \\[all\\]: which one am I\\?")) << ann.screen();
  bob.say("/name cleo@10.0.0.7:25253");  // nor can one take another's address for a name
  ASSERT_TRUE(ann.shows("changed cleo@10.0.0.7:25253@127.0.0.1")) << ann.screen();
  bob.say("/all and now?");
  EXPECT_TRUE(ann.shows("cleo@10.0.0.7:25253@127.0.0.1:\\d+ \\[all\\]: and now")) << ann.screen();
}

// Whoever says that he is bob, but is not at the address where bob is listed, is shown with his own, and not in bob's
// colour. Nor does the invisible, or a sign that looks like a label's, make a second bob look like the first.
TEST_F(Terminals, ShowTheAddressOfEachWhoOnlyCallsHimselfBob) {
  Console ann(*network, kAnn);
  ASSERT_TRUE(ann.shows("/help lists"));
  const std::string bobs = "id=00000000000000bb ip=127.0.0.1 port=40001 name=bob group=lab";
  const Socket bob = Socket::udp(*network, 0, 40001);
  bob.meet("127.0.0.1", 25253, bobs);
  ASSERT_TRUE(ann.shows("joined bob@127.0.0.1:40001"));
  const auto says = [&](const std::string& fields, const std::string& from, const std::string& text) {
    Socket liar = Socket::tcp(*network, 0, "127.0.0.1", 25253, from);
    liar.send("ChatByP2P/1 HELLO " + fields + "\nMSG number=1 scope=private :" + text + "\n");
    liar.line();
    EXPECT_EQ(liar.line(), "OK");
  };
  says(bobs, "127.0.0.1", "it is me");
  EXPECT_TRUE(ann.shows("\\d\\d:\\d\\d bob: it is me\n")) << ann.screen();
  says("id=00000000000000bb ip=127.0.0.2 port=7777 name=bob group=lab", "127.0.0.2", "with his id");
  EXPECT_TRUE(ann.shows("\\d\\d:\\d\\d bob@127.0.0.2:7777: with his id\n")) << ann.screen();
  const Socket eve = Socket::udp(*network, 0, 40002, "127.0.0.2");
  eve.meet("127.0.0.1", 25253, "id=00000000000000ee ip=127.0.0.2 port=40002 name=eve group=lab");
  ASSERT_TRUE(ann.shows("joined eve@127.0.0.2:40002"));
  says("id=00000000000000ff ip=127.0.0.2 port=40002 name=bob group=lab", "127.0.0.2", "from where eve is");
  EXPECT_TRUE(ann.shows("\\d\\d:\\d\\d bob@127.0.0.2:40002: from where eve is\n")) << ann.screen();
  const std::string colours = ann.colours();
  EXPECT_TRUE(std::regex_search(colours, std::regex("\033\\[3[1-6]mbob\033\\[[0-9]*m: it is me"))) << colours;
  EXPECT_TRUE(std::regex_search(colours, std::regex("\\d bob@127.0.0.2:7777: with"))) << colours;
}

TEST_F(Terminals, ShowTheAddressesOfNamesThatOnlyLookDifferentToAProgram) {
  Console ann(*network, kAnn);
  Process& bob = network->peer(0, "bob", {"--port", "25261"});
  Process& eve = network->peer(0, "bo\u2060b", {"--port", "25262"});
  ASSERT_TRUE(ann.shows("joined bo[^@]*b@127.0.0.1:25261"));
  ASSERT_TRUE(ann.shows("joined bo[^@]*b@127.0.0.1:25262"));
  bob.wait_for("joined ann.*");
  eve.wait_for("joined ann.*");
  bob.say("/all one");
  EXPECT_TRUE(ann.shows("\\d\\d:\\d\\d bob@127.0.0.1:25261 \\[all\\]: one\n")) << ann.screen();
  ann.type("/to bob");
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("error: bob can mean more than one user; write ")) << ann.screen();
  eve.say("/name an\uFE0Fn");
  eve.wait_for("you .*");
  EXPECT_TRUE(ann.shows("note: \\S+@127.0.0.1:25262 has the same name as you")) << ann.screen();
  eve.say("/name bob：25253");
  ASSERT_TRUE(ann.shows("changed bob：25253@127.0.0.1:25262")) << ann.screen();
  eve.say("/all two");
  EXPECT_TRUE(ann.shows("\\d\\d:\\d\\d bob：25253@127.0.0.1:25262 \\[all\\]: two\n")) << ann.screen();
}

TEST_F(Terminals, AreColouredUnlessTheUserDoesNotWantThat) {
  Console coloured(*network, kAnn), plain(*network, "--name eve --group lab", 80, 24, "NO_COLOR=1");
  Process& bob = network->peer(0, "bob");
  ASSERT_TRUE(coloured.shows("joined bob"));
  ASSERT_TRUE(plain.shows("joined bob"));
  ASSERT_TRUE(eventually([&] { return bob.count("joined .*") == 2; }));
  bob.say("/all colour?");
  ASSERT_TRUE(coloured.shows("colour\\?"));
  ASSERT_TRUE(plain.shows("colour\\?"));
  EXPECT_TRUE(std::regex_search(coloured.colours(), std::regex("\033\\[3[1-6]mbob"))) << coloured.colours();
  EXPECT_EQ(plain.colours().find('\033'), std::string::npos) << plain.colours();
}

TEST_F(Terminals, ShowAllHelpOnOneScreenAndAnExampleOfEach) {
  Console ann(*network, kAnn);
  ASSERT_TRUE(ann.shows("/help lists"));
  ann.press("C-l");
  ann.type("/help");
  ann.press("Enter");
  ASSERT_TRUE(ann.shows("help: /quit"));
  EXPECT_EQ(ann.rows().front(), "ann> /help") << ann.screen();  // nothing has scrolled away
  EXPECT_EQ(ann.count("help: .*") + 2, ann.rows().size()) << ann.screen();  // and none is longer than a row
  ann.type("/help send");
  ann.press("Enter");
  EXPECT_TRUE(ann.shows("help: /send \\[WHO\\] PATH: .*\nhelp: for example  /send bob .*\nhelp: send a large folder as a tar archive: only .*\n")) << ann.screen();
}

TEST_F(Terminals, ShowHowFarATransferIsInOneRowThatGoesAwayWithIt) {
  Console bob(*network, "--name bob --group lab", 70, 16);
  ASSERT_TRUE(bob.shows("ready bob@"));
  Process& ann = network->peer(0, "ann");
  ann.wait_for("joined bob.*");
  network->run(0, "truncate -s 60M " + network->folder("ann").path("big"));
  network->run(0, "tc qdisc add dev lo root tbf rate 8mbit burst 128k latency 100ms");  // 60 s: time to look
  ann.say("/send bob big");
  ASSERT_TRUE(bob.shows("\nreceive 1 offered ann 63 MB: big\n"
                        "note: /accept 1 takes it, /reject 1 does not\nbob>")) << bob.screen();
  bob.type("/accept 1");
  bob.press("Enter");
  EXPECT_TRUE(bob.shows("[kM]B/s, ")) << bob.screen();
  bob.type("/msg ann half a");
  EXPECT_TRUE(bob.shows("\n\\[.*\nbob> /msg ann half a")) << bob.screen();
  const auto progress = [&] { const std::string all = bob.screen(); return all.substr(all.find("\n["), 30); };
  const std::string before = progress();
  EXPECT_TRUE(eventually([&] { return progress() != before; })) << bob.screen();
  ann.say("/msg bob hello");
  EXPECT_TRUE(bob.shows("ann: hello\nnote: .*\n\\[.*\nbob> /msg ann half a")) << bob.screen();
  bob.type(" line");
  bob.press("Enter");
  ann.wait_for("message bob@\\S+ private: half a line");
  EXPECT_TRUE(bob.shows("delivered ann\n\\[.*\nbob>\n$")) << bob.screen();
  EXPECT_EQ(bob.count("\\[.*"), 1u) << bob.screen();
  network->run(0, "tc qdisc del dev lo root");
  EXPECT_TRUE(eventually(60, [&] { return bob.count("receive 1 stored ann 63 MB: downloads/big") == 1; })) << bob.screen();
  EXPECT_EQ(bob.count("\\[.*"), 0u) << bob.screen();
}
