// How peer.cpp reads what you type: pure functions and the line editor, without a terminal or a process. Nobody else
// needs them, so no header declares them: this includes the whole file.

#define main peer_main
#include "peer.cpp"
#undef main

#include <gtest/gtest.h>
#include <pthread.h>

namespace {

// Types into a line editor, and shows its text with a bar where the cursor is.
class Typist {
 public:
  Typist() { std::setlocale(LC_CTYPE, "C.UTF-8"); }

  LineEditor::Request type(const std::string& bytes) {
    editor.type(bytes);
    return editor.press_keys();
  }
  // Its row, and the cursor's column by the sequence that puts it there: "\r\033[5C".
  std::string shown() {
    const std::string row = editor.row("", 200);
    const size_t end = row.rfind('\r');
    const size_t column = std::stoul(row.substr(end + 3));
    std::string text = row.substr(0, end);
    size_t at = 0;
    const auto is_reached = [&] {
      const bool is_cut = at < text.size() && is_continuation(text[at]);
      return at == text.size() || (!is_cut && columns(std::string_view(text).substr(0, at)) >= column);
    };
    while (!is_reached()) ++at;
    return text.insert(at, "|");
  }
  std::string after(const std::string& bytes) {
    EXPECT_EQ(type(bytes), LineEditor::Request::none) << bytes;
    return shown();
  }

  LineEditor editor{[](const std::string& before) { return before + "completed"; }};
};

using Request = LineEditor::Request;

const std::string kLeft = "\033[D", kWordsLeft = "\033[1;5D", kWordsRight = "\033[1;3C";
const std::string kPaste = "\033[200~", kPasted = "\033[201~";

}  // namespace

TEST(Keys, ChangeTheTextAndMoveTheCursor) {
  const std::pair<std::string, std::string> all[] = {
      {"ab", "ab|"},
      {"ab" + kLeft, "a|b"},
      {"ab\033OD", "a|b"},
      {"ab" + kLeft + kLeft + kLeft + "x", "x|ab"},
      {"ab\033[Hx\033[Fy", "xaby|"},
      {"ab\x01x\x05y", "xaby|"},
      {"ab\033[1~\033[3~", "|b"},
      {"ab\x01\x04", "|b"},
      {"ab\x7F", "a|"},
      {"ab\b", "a|"},
      {"one two" + kLeft + "\x0B", "one tw|"},
      {"one two" + kLeft + "\x15", "|o"},
      {"one two\x17", "one |"},
      {"one two  \x17", "one |"},
      {"one two\033\x7F", "one |"},
      {"one two\033\b", "one |"},
      {"one two" + kWordsLeft, "one |two"},
      {"one two\033[1;3D", "one |two"},
      {"one two" + kWordsLeft + kWordsLeft + kWordsLeft, "|one two"},
      {"one two\x01" + kWordsRight, "one| two"},
      {"one two\x01" + kWordsRight + kWordsRight + kWordsRight, "one two|"},
      {"你好\x7F", "你|"},
      {"e\xCC\x81x" + kLeft + kLeft, "|e\xCC\x81x"},
      {"a\t", "acompleted|"},
      {"\t", "|"},
      {"b\x01\t", "|b"}};
  for (const auto& [keys, shown] : all) EXPECT_EQ(Typist().after(keys), shown) << printable(keys);
}

TEST(Keys, ThatMeanNothingTakeNoOtherWithThem) {
  for (const std::string key : {"\033", "\033[15~", "\033[a", "\033[24;5~", "\033[?1;2c", "\033OP", "\x1F", "\xC2\x85"})
    EXPECT_EQ(Typist().after("a" + key + "bc"), "abc|") << printable(key);
  for (const std::string key : {"\033", "\033[", "\033[1;", "\033O"}) {
    Typist enter;
    EXPECT_EQ(enter.type("a" + key + "\r"), Request::line) << printable(key);
    EXPECT_EQ(enter.editor.take_line().text, "a");
  }
}

TEST(Keys, MayComeInPieces) {
  const std::string whole = "a" + kLeft + "你" + kPaste + "x" + kPasted + "\033[1;5D";
  Typist typist;
  for (const char byte : whole) typist.type(std::string(1, byte));
  EXPECT_EQ(typist.shown(), "|你xa");
}

TEST(Keys, AfterEscAreTheirOwn) {
  Typist typist;
  typist.type("\033");
  EXPECT_EQ(typist.after("b"), "b|");
  EXPECT_EQ(typist.after("\033c\033\033d"), "bcd|");
}

TEST(Keys, BringBackEarlierLinesAndKeepTheNewOne) {
  Typist typist;
  for (const char* line : {"one\r", "two\n", "two\n", "\n"}) {
    EXPECT_EQ(typist.type(line), Request::line);
    typist.editor.take_line();
  }
  EXPECT_EQ(typist.after("new\033[A"), "two|");
  EXPECT_EQ(typist.after("\033[A\x10"), "one|");
  EXPECT_EQ(typist.after("\033[B\x0E\x0E"), "new|");
}

TEST(Keys, AskForWhatIsNotTheEditors) {
  Typist typist;
  EXPECT_EQ(typist.type("\x04"), Request::leave);
  EXPECT_EQ(typist.type("a\x04"), Request::none);
  EXPECT_EQ(typist.type("\x0C" "b\r"), Request::clear_screen);
  EXPECT_EQ(typist.editor.press_keys(), Request::line);
  EXPECT_EQ(typist.editor.take_line().text, "ab");
  EXPECT_TRUE(typist.editor.is_empty());
}

TEST(Keys, ThatAreNotUtf8AreRejectedOneByOne) {
  Typist typist;
  EXPECT_EQ(typist.after("a\xE9"), "a|");  // more of it may come
  EXPECT_EQ(typist.editor.take_rejected(), "");
  EXPECT_EQ(typist.after("b\xFF\x80"), "ab|");
  EXPECT_EQ(typist.editor.take_rejected(), "\xE9\xFF\x80");
  EXPECT_EQ(typist.editor.take_rejected(), "");
  EXPECT_EQ(typist.after("\xE4\xBD" "c\xA0"), "abc|");
}

// wcwidth() knows no width then. They must not count as accents of the one before.
TEST(Keys, ThatAreNotAsciiAreOnesOfTheirOwnWhereThereIsNoLocaleForThem) {
  Typist typist;
  std::setlocale(LC_CTYPE, "C");
  typist.type("a文é");
  typist.type("\x7F");
  EXPECT_EQ(typist.editor.row("", 200), "a文\r\033[2C");
  typist.type(kLeft + "\x7F");
  EXPECT_EQ(typist.editor.row("", 200), "文\r\033[0C");
}

TEST(Keys, ThatArePastedAreTextWhateverTheyWere) {
  Typist typist;
  EXPECT_EQ(typist.after(kPaste + "a\tb\x03\x04" + kLeft + "c\rd\r\ne\n" + kPasted + "f"), "a b   c↵d↵e↵f|");
  EXPECT_EQ(typist.type("\r"), Request::line);
  const TypedLine line = typist.editor.take_line();
  EXPECT_EQ(line.text, "a b   c\nd\ne\nf");
  EXPECT_TRUE(line.begins_pasted);
}

TEST(Keys, TellATypedBeginningFromAPastedOne) {
  const auto begins_pasted = [](const std::string& keys) {
    Typist typist;
    EXPECT_EQ(typist.type(keys + "\r"), Request::line);
    return typist.editor.take_line().begins_pasted;
  };
  EXPECT_TRUE(begins_pasted(kPaste + "/a" + kPasted));
  EXPECT_TRUE(begins_pasted("b\x01" + kPaste + "/a" + kPasted));
  EXPECT_FALSE(begins_pasted("/" + kPaste + "a" + kPasted));
  EXPECT_FALSE(begins_pasted(kPaste + "a" + kPasted + "\x01/"));
  EXPECT_FALSE(begins_pasted(kPaste + "a" + kPasted + "\x15/"));
}

TEST(Keys, OfOneLineThatWasCopiedWithItsEndAreOneLine) {
  Typist typist;
  EXPECT_EQ(typist.type(kPaste + "/list\r" + kPasted + "\r"), Request::line);
  EXPECT_EQ(typist.editor.take_line().text, "/list");
}

TEST(Keys, ShowTheEndOfALongLineWhereTheCursorIs) {
  Typist typist;
  typist.type("0123456789");
  EXPECT_EQ(typist.editor.row("> ", 8), "> 56789\r\033[7C");
  typist.type("\x01");
  EXPECT_EQ(typist.editor.row("> ", 8), "> 01234\r\033[2C");
  typist.type("\x0B" "中文");
  EXPECT_EQ(typist.editor.row("> ", 8), "> 中文\r\033[6C");
}

TEST(Paths, MeanWhatTheyWouldInAShell) {
  const std::pair<const char*, const char*> paths[] = {
      {"my file", "my file"},  // the blank needs no quotes here
      {"'my file'", "my file"},
      {"\"my file\"", "my file"},
      {"my\\ file", "my file"},
      {"my file  ", "my file"},
      {"my\\ ", "my "},
      {"'my '", "my "},
      {"'my' ' '", "my  "},
      {"'a\\b'", "a\\b"},
      {"\"a\\\"b\\\\c\\$d\"", "a\"b\\c$d"},
      {"it\\'s", "it's"},
      {"\"it's\"", "it's"},
      {"it's", "it's"},  // no quote ends it: as it is typed
      {"a\\", "a\\"},
      {"~", "/home/ann"},
      {"~/my file", "/home/ann/my file"},
      {"'~/x'", "~/x"},
      {"~bob/x", "~bob/x"},
      {"a~/x", "a~/x"},
      {"$HOME/x", "$HOME/x"},  // no variables: nobody pastes them
      {"  ", ""},
      {"", ""}};
  for (const auto& [typed, meant] : paths) EXPECT_EQ(as_a_shell_reads(typed, "/home/ann"), meant) << typed;
}

// ---- WHO: strings in, user out ------------------------------------------------------------

namespace {

Identity user_of(const std::string& name, const std::string& address) {
  Identity user;
  user.id = "00000000000000aa";
  user.name = name;
  user.group = "lab";
  user.address = *parse_address(address);
  return user;
}

}  // namespace

TEST(Who, IsANameAnAddressOrBoth) {
  const Identity bob = user_of("bob", "10.0.0.2:25253");
  for (const char* who : {"bob", "10.0.0.2:25253", "bob@10.0.0.2:25253", "bo\u2060b"})
    EXPECT_TRUE(is_called(bob, who)) << who;
  for (const char* who : {"", "bo", "Bob", "bob ", "10.0.0.2", "10.0.0.2:25254", "bob@10.0.0.3:25253",
                          "eve@10.0.0.2:25253", "@10.0.0.2:25253", "bob@"})
    EXPECT_FALSE(is_called(bob, who)) << who;
}

TEST(Who, WithAnAddressInItIsNoName) {
  const Identity liar = user_of("cleo@10.0.0.7:25253", "10.0.0.2:25253");
  EXPECT_FALSE(is_called(liar, "cleo@10.0.0.7:25253"));
  EXPECT_TRUE(is_called(liar, "cleo@10.0.0.7:25253@10.0.0.2:25253"));
  EXPECT_FALSE(is_called(user_of("10.0.0.7:25253", "10.0.0.2:25253"), "10.0.0.7:25253"));
}

TEST(Who, IsANumberOfTheLastListOnly) {
  const Identity bob = user_of("bob", "10.0.0.2:25253");
  numbered = {{bob}};
  ASSERT_NE(by_number("1"), nullptr);
  EXPECT_EQ(by_number("1")->who.name, "bob");
  for (const char* who : {"0", "2", "-1", "+1", "1 ", "", "one", "18446744073709551617"})
    EXPECT_EQ(by_number(who), nullptr) << who;
  numbered.clear();
  EXPECT_EQ(by_number("1"), nullptr);
}

// ---- WHO, where several are listed -----------------------------------------------------------

void let_discovery_list(const std::vector<Identity>& users);  // in roster.cpp

namespace {

// Ann, and what /list shows her:
//   1  3    chess  10.77.0.5:25253      a name that is another's number
//   2  ann  lab    10.77.0.1:25253      she herself
//   3  anna lab    10.77.0.6:25253
//   4  bob  lab    10.77.0.2:25253      two of one name
//   5  bob  chess  10.77.0.3:25253
//   6  cleo chess  10.77.0.4:25253
class WhoIsMeant : public testing::Test {
 protected:
  void SetUp() override {
    myself = user("ann", "lab", "10.77.0.1:25253");
    users = {user("3", "chess", "10.77.0.5:25253"),   user("anna", "lab", "10.77.0.6:25253"),
             user("bob", "lab", "10.77.0.2:25253"),   user("bob", "chess", "10.77.0.3:25253"),
             user("cleo", "chess", "10.77.0.4:25253")};
    let_discovery_list(users);
    for (const Identity& one : users) handle(UserJoined{one});
    said([] { list_users(""); });
  }
  void TearDown() override {
    for (const Identity& one : users) directory.remove(one.id);
    news.clear();
    numbered.clear();
    chosen.reset();
    myself = Identity();
    let_discovery_list({});
  }

  static Identity user(const std::string& name, const std::string& group, const std::string& address) {
    Identity who = user_of(name, address);
    who.group = group;
    who.id = "00000000000000" + address.substr(8, 1) + address.substr(8, 1);
    return who;
  }

  // What the function says, or what it throws.
  template <class Function>
  static std::string said(Function function) {
    testing::internal::CaptureStdout();
    std::string error;
    try {
      function();
    } catch (const std::exception& thrown) {
      error = std::string("error: ") + thrown.what();
    }
    std::cout.flush();
    return testing::internal::GetCapturedStdout() + error;
  }

  // "cleo@10.77.0.4:25253", or why nobody is meant.
  static std::string found(const std::string& who) {
    std::string label;
    const std::string error = said([&] { label = find(who).label(); });
    return label + error;
  }

  Users users;
};

const std::string kNobody = "; /list shows who is";

}  // namespace

TEST_F(WhoIsMeant, ByANameANumberAnAddressOrBoth) {
  for (const char* who : {"cleo", "6", "10.77.0.4:25253", "cleo@10.77.0.4:25253"})
    EXPECT_EQ(found(who), "cleo@10.77.0.4:25253") << who;
  EXPECT_EQ(found("1"), "3@10.77.0.5:25253");
  EXPECT_EQ(found("bob@10.77.0.3:25253"), "bob@10.77.0.3:25253");
  EXPECT_EQ(found("4"), "bob@10.77.0.2:25253");
}

TEST_F(WhoIsMeant, IsRefusedAndNotGuessedWhereTwoFit) {
  EXPECT_EQ(found("bob"), "error: bob can mean more than one user; write bob@10.77.0.2:25253 or bob@10.77.0.3:25253");
  EXPECT_EQ(found("3"), "error: 3 can mean more than one user; write 3@10.77.0.5:25253 or anna@10.77.0.6:25253");
  EXPECT_EQ(those_called("3").size(), 2u);
}

TEST_F(WhoIsMeant, IsNotOneself) {
  for (const std::string who : {"ann", "2", "10.77.0.1:25253", "127.0.0.1:25253", "ann@10.77.0.1:25253"})
    EXPECT_EQ(found(who), "error: " + who + " is you");
}

TEST_F(WhoIsMeant, IsWhoeverIsAtAnAddressWhereNobodyIsListed) {
  const Identity whoever = find("10.77.0.9:25253");
  EXPECT_EQ(whoever.address.text(), "10.77.0.9:25253");
  EXPECT_EQ(whoever.id, "");
  EXPECT_EQ(whoever.name, "");
}

// There is no WHO for all or for a group: those have commands of their own.
TEST_F(WhoIsMeant, IsNobodyByAnyOtherWord) {
  EXPECT_EQ(found(""), "error: to whom? a name, a number of /list, NAME@IP:PORT or IP:PORT");
  for (const std::string who : {"all", "lab", "cleo@chess", "Cleo", "7", "0", "10.77.0.4", "eve@10.77.0.4:25253",
                                "cleo@10.77.0.9:25253", "bob "})
    EXPECT_EQ(found(who), "error: nobody called " + who + " is online" + kNobody);
  EXPECT_EQ(found("cl"), "error: nobody called cl is online (did you mean cleo@10.77.0.4:25253?)" + kNobody);
}

TEST_F(WhoIsMeant, ByANumberIsWhoHadItWhenItWasShown) {
  lose(users[4], "has left");
  EXPECT_EQ(found("6"), "error: number 6 was cleo@10.77.0.4:25253, who has left; /list shows the numbers now");
  let_discovery_list({users[4]});
  EXPECT_EQ(found("cleo"), "cleo@10.77.0.4:25253");  // by the name it is who has it now
  EXPECT_EQ(found("4"), "error: nobody called 4 is online" + kNobody);
}

TEST_F(WhoIsMeant, ByToMayBeOnlyTheBeginningOfANameAndByNothingElse) {
  EXPECT_EQ(said([] { choose("cl"); }), "to cleo@10.77.0.4:25253\n");
  EXPECT_EQ(said([] { choose("6"); }), "to cleo@10.77.0.4:25253\n");
  ASSERT_TRUE(chosen);
  EXPECT_EQ(chosen->who.id, users[4].id);
  EXPECT_EQ(said([] { choose("bo"); }), "error: nobody called bo is online (did you mean bob@10.77.0.2:25253 or "
                                        "bob@10.77.0.3:25253?)" + kNobody);
  EXPECT_FALSE(chosen);  // the next line must not go to cleo
  EXPECT_EQ(said([] { choose("ann"); }), "error: ann is you");  // though anna begins so
  EXPECT_EQ(said([] { choose("2"); }), "error: 2 is you");
  EXPECT_EQ(said([] { choose("cleo hello"); }), "error: /to takes one user; /msg cleo TEXT sends one message");
  EXPECT_EQ(said([] { choose(""); }).substr(0, 15), "error: to whom?");
}

// Blanks between words count for nothing; in the text they are the text's.
TEST_F(WhoIsMeant, IsTheFirstWordHoweverManyBlanksAreBehindIt) {
  std::string rest = "cleo    two  words ";
  EXPECT_EQ(next_word(rest), "cleo");
  EXPECT_EQ(rest, "two  words ");
  EXPECT_EQ(said([] { obey_line("/to    6"); }), "to cleo@10.77.0.4:25253\n");
  EXPECT_EQ(said([] { obey_line("/to 6   "); }), "to cleo@10.77.0.4:25253\n");
  EXPECT_EQ(said([] { obey_line("/msg   bob   hi"); }).substr(0, 36), "error: bob can mean more than one us");
  EXPECT_EQ(said([] { obey_line("/msg  cleo   "); }), "error: there is no text to send");
}

TEST_F(WhoIsMeant, BySendComesFirstOrIsAPathForWhomToChose) {
  for (const char* who : {"cleo", "6", "10.77.0.9:25253", "ann", "bob", "3"}) EXPECT_TRUE(names_somebody(who)) << who;
  for (const char* who : {"report.pdf", "cl", "all", "lab", "7", ""}) EXPECT_FALSE(names_somebody(who)) << who;
  EXPECT_EQ(said([] { offer_to_one("bob x"); }).substr(0, 36), "error: bob can mean more than one us");
  EXPECT_EQ(said([] { offer_to_one("ann x"); }), "error: ann is you");
  EXPECT_EQ(said([] { offer_to_one("cleo   /no/such  file"); }),
            "error: cannot read /no/such  file: No such file or directory");
  EXPECT_EQ(said([] { offer_to_one("cleo"); }), "error: which file? /send WHO PATH");
  EXPECT_EQ(said([] { offer_to_one(""); }).substr(0, 15), "error: to whom?");
  EXPECT_EQ(said([] { offer_to_one("/no/such"); }), "error: nobody called /no/such is online" + kNobody);
  EXPECT_EQ(said([] { offer_to_one("/dev/null"); }), "error: to whom? /send WHO /dev/null");
  said([] { choose("cleo"); });
  EXPECT_EQ(said([] { offer_to_one("/no/such"); }),
            "error: nobody called /no/such is online, and there is no file /no/such");
}

TEST_F(WhoIsMeant, ByGroupIsWhoHasOurGroupAndByAllEverybodyElse) {
  const auto labels = [](const Users& all) {
    std::string text;
    for (const Identity& one : all) text += one.label() + " ";
    return text;
  };
  EXPECT_EQ(labels(audience("group")), "anna@10.77.0.6:25253 bob@10.77.0.2:25253 ");
  EXPECT_EQ(audience("all").size(), 5u);
  myself.group = "go";
  EXPECT_EQ(said([] { send_to_group("hi"); }), "error: nobody else is in group go");
  let_discovery_list({});
  EXPECT_EQ(said([] { send_to_all("hi"); }), "error: nobody else is online");
}

namespace {

// A terminal in the place of standard input and output, for as long as it exists.
class OwnTerminal {
 public:
  OwnTerminal() {
    ::grantpt(master_.get());
    ::unlockpt(master_.get());
    const Descriptor slave(::open(::ptsname(master_.get()), O_RDWR | O_NOCTTY));
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO}) ::dup2(slave.get(), fd);
  }
  ~OwnTerminal() {
    ::dup2(input_.get(), STDIN_FILENO);
    ::dup2(output_.get(), STDOUT_FILENO);
  }
  static bool edits_lines() {
    termios modes{};
    ::tcgetattr(STDIN_FILENO, &modes);
    return (modes.c_lflag & ICANON) != 0;
  }

 private:
  const Descriptor input_{::dup(STDIN_FILENO)}, output_{::dup(STDOUT_FILENO)};
  const Descriptor master_{::posix_openpt(O_RDWR | O_NOCTTY)};
};

// Whatever writes through it is interrupted by the second Ctrl-C, which ends the program on the spot.
struct EndedWhileItWrites : std::stringbuf {
  explicit EndedWhileItWrites(const TerminalModes& modes) : modes_(modes) {}
  int sync() override {
    modes_.release_at_once();
    is_terminal_as_before = OwnTerminal::edits_lines();
    return 0;
  }
  bool is_terminal_as_before = false;

 private:
  const TerminalModes& modes_;
};

// What a program finds that starts one with handlers for its signals.
class OwnSignals {
 public:
  OwnSignals() {
    events.open();
    for (int number = 1; number < 32; ++number) ::sigaction(number, nullptr, &before_[number]);
    catch_signals();
  }
  ~OwnSignals() {
    for (int number = 1; number < 32; ++number) ::sigaction(number, &before_[number], nullptr);
  }

 private:
  struct sigaction before_[32];
};

}  // namespace

// A terminal that has stopped keeps the program from giving it back; a second Ctrl-C ends it there, and left the shell
// without echo.
TEST(Modes, AreThoseOfTheShellAlsoWhereTheProgramEndsWhileItGivesThemBack) {
  bool was_seized = false;
  bool is_as_before = false;
  {
    const OwnTerminal terminal_of_the_test;
    TerminalModes modes;
    modes.seize();
    was_seized = !OwnTerminal::edits_lines();
    EndedWhileItWrites interrupted(modes);
    std::streambuf* const usual = std::cout.rdbuf(&interrupted);
    modes.release();
    std::cout.rdbuf(usual);
    is_as_before = interrupted.is_terminal_as_before;
  }
  EXPECT_TRUE(was_seized);
  EXPECT_TRUE(is_as_before);
}

// Not every call that waits is ours to repeat: fsync(), and what std::cout writes with on macOS, fail with EINTR as well.
TEST(Signals, DoNotBreakOffACallThatWaits) {
  const OwnSignals caught;
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const Descriptor reader(ends[0]), writer(ends[1]);
  set_non_blocking(writer.get());
  while (::write(writer.get(), "x", 1) == 1) continue;  // full
  set_blocking(writer.get());
  std::atomic<bool> has_written{false};
  const pthread_t waiting = ::pthread_self();
  std::thread other([&] {
    for (int i = 0; i < 100 && !has_written; ++i) {
      ::pthread_kill(waiting, SIGWINCH);
      std::this_thread::sleep_for(1ms);
    }
    std::vector<char> bytes(1 << 20);
    EXPECT_GT(::read(reader.get(), bytes.data(), bytes.size()), 0);
  });
  const ssize_t written = ::write(writer.get(), "x", 1);
  has_written = true;
  other.join();
  EXPECT_EQ(written, 1);
}
