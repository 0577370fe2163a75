// peer.cpp: the program: the commands, what is printed, the one select() loop, and main().
//
// Read protocol.h, discovery.cpp and transfer.cpp first. Discovery and transfer know nothing of
// each other. This file brings them together: it lets transfer talk to the users that discovery
// finds.
//
// The first reading ends with main(). It goes from the state through WHO, messages, files and the
// table of commands to the events and the loop. Each piece comes before the ones that use it. The
// bodies missing here are in the second reading, under the same headings.
//
// Only the main thread runs this code (and, in a signal handler, any thread); and only it touches
// the list of users and the screen. The threads of connections report through the event queue, and
// handle() gets one event at a time. docs/interface.md has every line that the program prints.
//
// Left out on purpose: a thread for the screen. If the terminal stops, so does the program.

#include <net/if.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <termios.h>
#include <wchar.h>

#include <atomic>
#include <clocale>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <iostream>
#include <memory>
#include <random>
#include <set>
#include <stdexcept>
#include <thread>

#include "protocol.h"

namespace {

using Users = vector<Identity>;
using Strings = vector<string>;

// Says in one sentence what is wrong with the command line; exit status 2.
using UsageError = std::invalid_argument;

// A command that cannot be carried out throws one sentence that says why. obey() prints it.
[[noreturn]] void fail(const string& sentence) {
  throw std::runtime_error(sentence);
}

// ---- The screen and the keys --------------------------------------------------------

bool is_for_people();

// Whether we talk to a person, who gets more words and fewer numbers than a script.
const bool terminal = is_for_people();

// What was typed up to Enter, or came through a pipe up to its LF. If several lines were pasted, it
// has LFs in it.
struct TypedLine {
  string text;
  bool begins_pasted = false;  // so a "/" at its beginning was not meant as a command
};

class LineEditor;
class TerminalModes;

// Prints lines, and makes lines of the keys that are pressed. On a terminal, the line being typed
// stays below everything that is printed, with the progress of a transfer above it. Elsewhere there
// is neither, and a line is simply what ends in LF.
class Console {
 public:
  Console();
  ~Console();  // leaves the terminal as it was

  void print(const string& line);          // harmless, whatever a stranger put in it
  void print_quietly(const string& line);  // in a faint colour
  void write_line(const string& line);     // text that is known to be printable
  string painted(const string& text, const char* colour) const;

  void set_prompt(const string& who);  // who we are, and whom we are talking to
  void draw(const string& progress);   // the rows below; call it before each wait

  void read();                                   // what was typed, or what the pipe brought
  optional<TypedLine> take_line();               // from what was read, if there is a whole one
  bool has_ended() const { return has_ended_; }  // there is nothing more to read

  bool has_text() const;         // whether something is being typed
  void drop_text();              // takes it away, and keys not yet handled
  void erase();                  // takes the rows below away; draw() restores them
  void suspend();                // gives the terminal back, for Ctrl-Z
  void resume();                 // takes the terminal, at first and after fg
  void release_at_once() const;  // for a signal handler; output may be lost

 private:
  void draw_rows(const string& progress);
  optional<TypedLine> take_piped_line();

  const std::unique_ptr<LineEditor> editor_;
  // Never destroyed: while exit() destroys static objects, a signal may still arrive, and its
  // handler gives the terminal back.
  TerminalModes& modes_;
  bool has_ended_ = false;
  string piped_;  // read, but not yet a whole line
  string prompt_;
  // We erase the rows below before we print, and draw them again before we wait.
  bool is_erased_ = true;
  size_t drawn_width_ = 0;
  size_t progress_width_ = 0;  // of its row; 0 if there is none
  Time progress_due_;
};

Console console;

void print(const string& line) { console.print(line); }

// ---- State --------------------------------------------------------------------------

// A user chosen by /to, or numbered by /list: an id at an address, as long as it stays listed.
// Anyone who uses that id later may be somebody else.
struct Addressee {
  Identity who;
  string gone = {};  // "has left", say; empty while it is still listed
};

// An offer or a transfer.
struct File {
  uint64_t number = 0;  // which the user sees
  uint64_t ticket = 0;  // which transfer uses
  uint64_t post = 0;    // if it goes to many: what they all belong to; else 0
  string direction;     // the word that is printed: send or receive
  string state = "offered";  // then answered, started; at last delivered, stored or failed
  Identity who;  // at the other end
  string name;   // as offered; once it has arrived, as stored
  uint64_t size = 0;
  uint64_t entries = 1;
  Time started;
  uint64_t resumed_at = 0;

  bool is_sent() const { return direction == "send"; }
};

// Leaving takes time, because we finish sending first. A second /quit, or a signal, skips to the
// last stage.
enum class Stage { running, leaving, over };

Stage stage = Stage::running;
bool undelivered = false;        // whether something was: the exit status tells a script
vector<Addressee> numbered;      // as shown by the last /list; the numbers must not shift
optional<Addressee> chosen;      // by /to
optional<Identity> last_writer;  // of a private message
std::map<uint64_t, File> files;  // by number
uint64_t next_file = 1;

Identity own_entry() {
  Identity own = myself;
  own.address.ip = discovery::own_ip();
  own.said_ip = own.address.ip;
  return own;
}

// ---- What the second reading has ----------------------------------------------------

// Do not read this list. It is here because C++ wants names declared, and for looking one up.

// WHO: a word that the user typed for somebody.
Users those_called(const string& who);   // everybody it can mean
bool is_oneself(const string& who);
string name_of(const Identity& who);     // his present name
bool is_listed(const Identity& who);     // with this id at this address
bool names_somebody(const string& who);  // online or not
Identity find_by_beginning(const string& who);
string nobody_called(const string& who);
string no_command_called(const string& name);
string labels_of(const Users& users);  // "ann@10.0.0.7:25253 or ann@10.0.0.9:25253"
Users everyone();                      // including ourselves, sorted
Strings rows_of_list(const Users& users);
string prompt_text();

// Sizes, times and outcomes for people.
string size_of(const File& file);
string progress();  // of the first transfer that is running
string remark(const FileStarted& event);
string remark(const FileStored& event);
string remark(const FileFailed& event);
string under_way();  // what is being sent, and to whom

// Help for the user.
void expect_partner();  // whom /to chose; throws if he has left
void explain_offer(const File& file);
void tell_how_to_answer(const Identity& from);

// A post is one message or file, sent to one user or to many. It keeps track of each copy.
uint64_t open_post(const string& scope, const string& text, const Users& to);
void note_delivery(uint64_t post, const Identity& to);
void note_failure(uint64_t post, const Identity& to, const Failure& failure);

// Commands.
string next_word(string& rest);  // takes it off, with the blanks behind it
string trimmed(string line);     // empty if there is nothing to do
bool does_send(string line);     // so if it fails, something was not delivered
void show_message(const Identity& from, const Message& message);
void say_lines(const TypedLine& typed);  // several pasted lines
void send_to_group(string text);
void send_to_all(string text);
string readable_path(const string& typed, const string& command);
void offer_to_chosen(const string& typed);  // /send PATH
void offer_to_group(string path);
void offer_to_all(string path);
void offer_to(const Users& to, const string& path);
File& take_offer(string& rest, const string& command);  // the offer that N means
void expect_nothing(const string& rest);
void cancel_transfer(string rest);
void list_transfers(string);
void change_name(string name);
void change_group(string group);
void scan(string target);
void diagnose(string who);
void help(string name);

// Who comes and goes.
void show_news();                         // if it is due
void show_news_of(const Identity& who);   // first, if he is about to be mentioned
bool has_found_users();                   // whether the first HELLOs have been answered

// Before the loop.
void fill_standard_descriptors();
void parse_options(const Strings& words);
void ask_who_we_are();
void prepare_folder();
void prepare_output();
void allow_descriptors(rlim_t most);
// Enough for 512 accepted connections, each with a folder and a file, and as many of our own. Not
// RLIM_INFINITY, which macOS refuses: it allows 10,240 at most.
constexpr rlim_t kMostDescriptors = 8192;
void make_id();
void open_ports();  // the port from the options, or the first free one

// After the loop.
void admit_to_hang();
int exit_status();
void complain(const std::exception& error);

// ---- WHO: whom a word means ------------------------------------------------------------

// The user that WHO means. If it fits more than one, we refuse it, and never guess.
Identity find(const string& who) {
  if (who.empty()) fail("to whom? a name, a number of /list, NAME@IP:PORT or IP:PORT");
  const Users fits = those_called(who);
  if (fits.size() == 1) return fits[0];
  if (!fits.empty())
    fail(who + " can mean more than one user; write " + labels_of(fits));
  if (is_oneself(who)) fail(who + " is you");
  const auto address = parse_address(who);
  if (!address) fail(nobody_called(who) + "; /list shows who is");
  Identity whoever_is_there;
  whoever_is_there.address = *address;
  return whoever_is_there;
}

void list_users(string) {
  const Users all = everyone();
  numbered.clear();
  for (const Identity& user : all)
    numbered.push_back({user});
  for (const string& row : rows_of_list(all))
    print(row);
  print("users " + to_string(all.size()));
}

// Here the beginning of a name will do, if no other name begins with it, because we say whom we
// have chosen. With /msg that would be too late: when ann has left, the next line for her must not
// go to anna.
void choose(string rest) {
  chosen.reset();  // if this fails, the next line must not go to the former one
  const string who = next_word(rest);
  if (!rest.empty()) fail("/to takes one user; /msg " + who + " TEXT sends one message");
  chosen = Addressee{find_by_beginning(who)};
  print("to " + chosen->who.label());
}

// ---- Messages -----------------------------------------------------------------------

void expect_message(const string& text) {
  const string size = to_string(text.size());
  if (text.empty()) fail("there is no text to send");
  if (text.size() > kMaxText) fail("a message has at most 4000 bytes; this one has " + size);
  if (!is_text(text)) fail("a message must be UTF-8, without control characters");
}

void post_message(const string& scope, const string& text, const Users& to) {
  expect_message(text);
  const uint64_t post = open_post(scope, text, to);
  for (const Identity& one : to) {
    try {
      transfer::send_message(one, scope, text, post);
    } catch (const std::exception& error) {
      note_failure(post, one, {error.what()});
    }
  }
}

// A line that is not a command.
void say(const string& text) {
  const bool can_answer = last_writer && is_listed(*last_writer);
  const string who = can_answer ? name_of(*last_writer) : "WHO";
  if (!chosen) fail("to whom? choose with /to " + who + ", or write /msg " + who + " TEXT");
  expect_partner();
  post_message("private", text, {chosen->who});
}

void send_to_one(string rest) {
  const Identity to = find(next_word(rest));
  post_message("private", rest, {to});
}

// ---- Files --------------------------------------------------------------------------

void print_file(const File& file, const string& more = "") {
  show_news_of(file.who);
  const string number = to_string(file.number);
  const string what = file.direction + " " + number + " " + file.state;
  const string who = name_of(file.who);
  const string size = size_of(file) + more;
  print(what + " " + who + " " + size + ": " + file.name);
}

File& add_file(const string& direction, uint64_t ticket, const Identity& who) {
  const uint64_t number = next_file;
  ++next_file;
  File& file = files[number];
  file.number = number;
  file.ticket = ticket;
  file.direction = direction;
  file.who = who;
  return file;
}

// Null if it has ended, or if the user has not been told about it.
File* file_with(uint64_t ticket) {
  for (auto& [number, file] : files)
    if (file.ticket == ticket) return &file;
  return nullptr;
}

// Each offer has a connection and a thread of its own.
void offer(const string& path, const Identity& to, uint64_t post) {
  const uint64_t ticket = transfer::send_file(to, path);
  File& file = add_file("send", ticket, to);
  file.name = path;
  file.post = post;
}

void offer_to_one(string rest) {
  const string line = rest;
  const string who = next_word(rest);
  const bool is_path = !who.empty() && !names_somebody(who);
  if (is_path) {
    offer_to_chosen(line);
    return;
  }
  const Identity to = find(who);
  offer_to({to}, readable_path(rest, "/send WHO"));
}

void accept_offer(string rest) {
  File& file = take_offer(rest, "/accept");
  const bool is_name = rest.empty() || safe_file_name(rest) == rest;
  if (!is_name) fail("'" + rest + "' is not a file name; give one without a path");
  file.state = "answered";
  transfer::decide(file.ticket, transfer::Consent::given, rest);
}

void reject_offer(string rest) {
  File& file = take_offer(rest, "/reject");
  expect_nothing(rest);
  file.state = "answered";
  transfer::decide(file.ticket, transfer::Consent::refused, "");
}

// ---- The table of commands ----------------------------------------------------------

void quit(string) {
  const bool is_first = stage == Stage::running;
  stage = is_first ? Stage::leaving : Stage::over;
  if (!is_first || !terminal || !transfer::is_sending()) return;
  print("note: waiting for " + under_way() + "; /quit again leaves now");
}

struct Command {
  const char* name;
  const char* arguments;  // Tab reads them as well
  const char* meaning;
  const char* example;
  void (*run)(string rest);
  const char* advice = "";
};

// A table is read by its columns, so this one, and that of the options, is filled by position.
const Command kCommands[] = {
    {"/list", "", "who is online", "", list_users},
    {"/to", " WHO", "talk to WHO: a name, a number of /list, NAME@IP:PORT or IP:PORT", " bob",
     choose},
    {"/msg", " WHO TEXT", "one message", " bob See you at nine", send_to_one},
    {"/group", " TEXT", "a message to everyone in your group", " Where do we meet?",
     send_to_group},
    {"/all", " TEXT", "a message to everyone", " Lunch?", send_to_all},
    {"/send", " [WHO] PATH", "offer a file or a folder; without WHO, to the /to user",
     " bob Documents/my report.pdf", offer_to_one,
     "send a large folder as a tar archive: only a file resumes after a break"},
    {"/sendgroup", " PATH", "to everyone in your group", " photos/", offer_to_group},
    {"/sendall", " PATH", "to everyone", " task.pdf", offer_to_all},
    {"/accept", " [N [AS]]", "accept offer N, as AS; without N, the only one",
     " 1 bobs report.pdf", accept_offer},
    {"/reject", " [N]", "refuse it", " 1", reject_offer},
    {"/cancel", " [N]", "end transfer N; without N, the only one", " 1", cancel_transfer},
    {"/transfers", "", "offers and transfers under way", "", list_transfers},
    {"/name", " NEW", "change your name", " ann2", change_name},
    {"/join", " GROUP", "change your group", " chess", change_group},
    {"/scan", " [TARGET]", "look again; TARGET: ADDRESS, ADDRESS:PORT or NETWORK/BITS",
     " 10.0.0.0/24", scan},
    {"/diag", " [WHO]", "what is wrong when somebody is missing; WHO may be IP:PORT",
     " 10.0.0.7:25253", diagnose},
    {"/help", " [COMMAND]", "this list; or one command, with an example", " /send", help},
    {"/quit", "", "finish what is being sent, and leave; twice: leave now", "", quit},
};

const Command& command_called(const string& name) {
  for (const Command& command : kCommands)
    if (command.name == name) return command;
  fail(no_command_called(name));
}

void run_command(const string& name, const string& rest) {
  const Command& command = command_called(name);
  const bool takes_nothing = string_view(command.arguments).empty();
  const bool is_too_much = takes_nothing && !rest.empty();
  if (is_too_much) fail(name + " takes no arguments; /help " + name);
  command.run(rest);
}

// ---- A line of input ----------------------------------------------------------------

void obey_line(const string& line) {
  const bool is_escaped = begins_with(line, "//");
  const bool is_command = begins_with(line, "/") && !is_escaped;
  string rest = is_escaped ? line.substr(1) : line;
  const string name = is_command ? next_word(rest) : "";
  if (stage != Stage::running && name != "/quit") fail("leaving; /quit again does not wait");
  if (is_command) run_command(name, rest);
  else if (!rest.empty()) say(rest);
}

// What was typed may be a line, or several lines that were pasted.
void obey(const TypedLine& typed) {
  const bool is_one = typed.text.find('\n') == string::npos;
  try {
    if (is_one) obey_line(trimmed(typed.text));
    else say_lines(typed);
  } catch (const std::exception& error) {
    print(string("error: ") + error.what());
    if (does_send(trimmed(typed.text))) undelivered = true;
  }
}

void read_input() {
  console.read();
  auto line = console.take_line();
  while (line) {
    obey(*line);
    console.set_prompt(prompt_text());
    line = console.take_line();
  }
  const bool ends_us = console.has_ended() && stage == Stage::running;
  if (ends_us) stage = Stage::leaving;
}

// ---- Events: what the other parts report --------------------------------------------

// In the second reading: they are shown together, and not all at once.
void handle(const UserJoined& event);
void handle(const UserLeft& event);
void handle(const UserChanged& event);

void handle(const Told& event) {
  print(event.line);
}

void handle(const Traced& event) {
  console.print_quietly(event.line);
}

void handle(const Introduced& event) {
  discovery::introduced(event.who);
}

void handle(const MessageReceived& event) {
  const bool is_new = transfer::remember_message(event.from, event.message.number);
  if (!is_new) return;
  show_message(event.from, event.message);
  if (event.message.scope != "private") return;
  last_writer = event.from;
  tell_how_to_answer(event.from);
}

void handle(const MessageDelivered& event) {
  note_delivery(event.post, event.to);
}

void handle(const MessageFailed& event) {
  note_failure(event.post, event.to, event.failure);
}

void handle(const FileOffered& event) {
  File* file = file_with(event.ticket);  // if it is an offer of ours
  if (!file)
    file = &add_file("receive", event.ticket, event.other);
  file->name = event.offer.name;
  file->size = event.offer.size;
  file->entries = event.offer.files;
  print_file(*file);
  explain_offer(*file);
}

void handle(const FileStarted& event) {
  File* const file = file_with(event.ticket);
  if (!file) return;
  file->state = "started";
  file->started = event.when;
  file->resumed_at = event.resumed_at;
  print_file(*file, remark(event));
}

void handle(const FileStored& event) {
  File* const file = file_with(event.ticket);
  if (!file) return;
  const bool is_partial = event.files < file->entries;
  if (file->is_sent() && is_partial) undelivered = true;
  if (file->is_sent()) {
    file->state = "delivered";
    file->name = event.name;
  } else {
    file->state = "stored";
    file->name = download_folder + "/" + event.name;
  }
  file->size = event.size;
  file->entries = event.files;
  print_file(*file, remark(event));
  if (file->post != 0) note_delivery(file->post, file->who);
  files.erase(file->number);
}

void handle(const FileFailed& event) {
  File* const file = file_with(event.ticket);
  if (!file) return;
  if (file->is_sent()) undelivered = true;
  file->state = "failed";
  print_file(*file, remark(event));
  if (file->post != 0)
    note_failure(file->post, file->who, event.failure);
  files.erase(file->number);
}

// std::visit() calls the handle() for the kind of event that it is.
void handle_events() {
  transfer::reap();  // first, so that the queue has all that an ended thread pushed
  const auto handle_it = [](const auto& event) { handle(event); };
  for (const Event& event : events.take_all())
    std::visit(handle_it, event);
}

// ---- Signals ------------------------------------------------------------------------

// A handler may run at any moment, on any thread. So it only notes the signal and makes select()
// return; obey_signal() and follow_terminal() act on it, in the loop. If the loop hangs, a user
// sends a second signal: then note_signal() ends the program on the spot.
std::atomic<int> signal_caught{0};            // Ctrl-C, SIGTERM or SIGHUP, not obeyed yet
std::atomic<bool> stop_is_asked{false};       // Ctrl-Z
std::atomic<bool> screen_has_changed{false};  // fg, or another size

void catch_signals();
void note_signal(int number);
void obey_signal(int number);  // ends the program; Ctrl-C may only clear the line
void follow_terminal();

// A flag alone is not enough. It might be set just before select() begins to wait, and would be
// seen only after that wait.
extern "C" void on_signal(int number) {
  if (number == SIGTSTP) stop_is_asked = true;
  else if (number == SIGCONT || number == SIGWINCH) screen_has_changed = true;
  else note_signal(number);
  events.wake();
}

// ---- The loop -----------------------------------------------------------------------

const Time start_time = Clock::now();

// A script may begin with a message to somebody who has yet to be found. So the first command from
// a pipe waits until users have been found, or for 1 s.
bool reads_commands() {
  if (console.has_ended()) return false;
  return terminal || has_found_users() || Clock::now() - start_time > 1s;
}

// Waits until there is something to do. Returns the descriptors that can be read. select()
// overwrites its set and, on Linux, its timeout, so we make both anew each time.
fd_set wait() {
  fd_set readable;
  FD_ZERO(&readable);
  FD_SET(events.descriptor(), &readable);
  discovery::watch(readable);
  transfer::watch(readable);
  if (reads_commands()) FD_SET(STDIN_FILENO, &readable);
  timeval timeout{};
  timeout.tv_usec = static_cast<suseconds_t>(discovery::pause() / 1us);  // less than a second
  if (signal_caught != 0) timeout = {};  // a signal waits to be obeyed
  const int ready = ::select(FD_SETSIZE, &readable, nullptr, nullptr, &timeout);
  if (ready != -1) return readable;
  if (errno != EINTR) check(-1, "select");
  FD_ZERO(&readable);  // after an error, its contents mean nothing
  return readable;
}

bool is_over() {
  const bool nobody_reads_us = !std::cout;
  const bool has_left = stage == Stage::leaving && !transfer::is_sending();
  return stage == Stage::over || has_left || nobody_reads_us;
}

void say_goodbye() {
  discovery::leave();
  transfer::cancel_all();  // some of them have a last line to send
  const auto end = Clock::now() + 1s;
  while (transfer::is_open() && Clock::now() < end) {
    handle_events();
    std::this_thread::sleep_for(1ms);
  }
  if (transfer::is_open()) admit_to_hang();
  transfer::close();
  handle_events();
  show_news();
  console.erase();
  std::cout.flush();
}

}  // namespace

// Sets everything up, each thing before those that need it. Then waits for something to happen, and
// deals with it, until we leave.
int main(int argc, char** argv) try {
  fill_standard_descriptors();
  // FD_SET() of a number that is not below FD_SETSIZE (1,024) silently writes outside its array,
  // and whoever started us may have left us that many open files. With this limit, what select()
  // watches gets a smaller number, or is refused.
  allow_descriptors(FD_SETSIZE);
  events.open();
  prepare_output();
  parse_options({argv, argv + argc});
  prepare_folder();
  ask_who_we_are();
  catch_signals();  // before anybody can find us, and tell us to leave
  make_id();
  open_ports();
  allow_descriptors(kMostDescriptors);
  console.resume();
  print("ready " + own_entry().label() + " " + myself.group);
  if (terminal) print("/help lists the commands");
  while (!is_over()) {
    console.set_prompt(prompt_text());
    console.draw(progress());
    // Keys pressed before this signal are read after the wait. Obey it only then: Ctrl-C takes them
    // away.
    const int signal_to_obey = signal_caught;
    const fd_set readable = wait();
    if (FD_ISSET(STDIN_FILENO, &readable)) read_input();
    discovery::receive(readable);
    transfer::accept_connection(readable);
    discovery::tick();
    handle_events();
    show_news();
    follow_terminal();
    obey_signal(signal_to_obey);
  }
  say_goodbye();
  return exit_status();
} catch (const UsageError& error) {
  complain(error);
  return 2;
} catch (const std::exception& error) {
  complain(error);
  return 1;
}

// ============================================================================
// SECOND READING: the console and its keys, names and sizes for people, Tab, who comes and goes,
// sending to many, options and setting up, signals
// ============================================================================

namespace {

// ---- How wide text is on a screen ---------------------------------------------------

size_t columns(char32_t c) {
  if (c == '\t') return 8;  // at most
  if (c == '\n') return 1;  // in_one_row() shows it as one character
  const int width = ::wcwidth(static_cast<wchar_t>(c));
  if (width < 0) return 1;  // unknown. With 0, Backspace would take it for an accent.
  return static_cast<size_t>(width);
}

// A letter takes one column, and a Chinese character two. A combining accent takes none, nor does a
// sequence that sets a colour (ESC [ 32 m).
size_t columns(string_view text) {
  size_t sum = 0;
  bool is_sequence = false;
  while (!text.empty()) {
    const char32_t c = take_character(text);
    if (c == '\033') is_sequence = true;
    if (!is_sequence) sum += columns(c);
    if (c == 'm') is_sequence = false;
  }
  return sum;
}

// As much of the beginning as fits.
string clipped(string text, size_t width) {
  while (columns(text) > width) drop_last_character(text);
  return text;
}

string in_one_row(string_view text) {
  string shown;
  for (const char c : text) {
    if (c == '\n') shown += "↵";
    else shown += c;
  }
  return shown;
}

size_t screen_width() {
  constexpr size_t kUsual = 80;
  winsize size{};
  const int result = ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
  const bool is_known = result == 0 && size.ws_col > 0;
  return is_known ? size.ws_col : kUsual;
}

string_view without_blanks(string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  return text.substr(std::min(first, text.size()));
}

// Takes off a piece that must stay in one row: blanks, and the word behind them, or one wide
// character, since Chinese has no blanks.
string_view take_piece(string_view& line) {
  string_view rest = without_blanks(line);
  bool is_word = false;
  while (!rest.empty() && rest[0] != ' ' && rest[0] != '\t') {
    string_view behind = rest;
    const bool is_wide = columns(take_character(behind)) > 1;
    if (is_wide && is_word) break;
    rest = behind;
    if (is_wide) break;
    is_word = true;
  }
  const size_t size = line.size() - rest.size();
  const string_view piece = line.substr(0, size);
  line = rest;
  return piece;
}

// Breaks a line of text into rows of the screen. All but the first are indented, so that nothing in
// another user's text looks like a line of ours. A word longer than a row is left to the terminal,
// which can still copy it as one.
string wrapped(string_view line) {
  constexpr size_t kNarrow = 10;  // rows of two words would help nobody
  constexpr string_view kIndentation = "  ";
  const size_t width = screen_width();
  string rows;
  size_t column = 0;
  while (!line.empty()) {
    string_view piece = take_piece(line);
    const bool fits = column + columns(piece) <= width;
    if (!fits && column > 0 && width >= kNarrow) {
      piece = without_blanks(piece);
      rows += '\n';
      rows += kIndentation;
      column = kIndentation.size();
    }
    rows += piece;
    column += columns(piece);
    if (column > width) column = (column - 1) % width + 1;
  }
  return rows;
}

// ---- Keys ---------------------------------------------------------------------------

// A key is a character or one of these, whose numbers no character has.
enum Key : char32_t {
  kNoKey = 0x110000,  // a key that means nothing here
  kEnter,
  kTab,
  kArrowLeft,
  kArrowRight,
  kArrowUp,
  kArrowDown,
  kWordLeft,
  kWordRight,
  kHome,
  kEnd,
  kBackspace,
  kDelete,
  kDeleteWord,
  kDeleteToStart,
  kDeleteToEnd,
  kDeleteOrLeave,
  kClearScreen,
  kPasteBegins,  // "bracketed paste": the terminal marks what is pasted
  kPasteEnds,
};

// What a terminal sends for them. For ESC [, some send ESC O; key_of() takes both.
constexpr std::pair<string_view, Key> kKeys[] = {
    {"\x01", kHome},           // Ctrl-A. Emacs had most of these first.
    {"\x02", kArrowLeft},      // Ctrl-B
    {"\x04", kDeleteOrLeave},  // Ctrl-D
    {"\x05", kEnd},            // Ctrl-E
    {"\x06", kArrowRight},     // Ctrl-F
    {"\b", kBackspace},        // Ctrl-H
    {"\t", kTab},
    {"\n", kEnter},
    {"\x0B", kDeleteToEnd},  // Ctrl-K
    {"\x0C", kClearScreen},  // Ctrl-L
    {"\r", kEnter},
    {"\r\n", kEnter},          // in text from Windows
    {"\x0E", kArrowDown},      // Ctrl-N
    {"\x10", kArrowUp},        // Ctrl-P
    {"\x15", kDeleteToStart},  // Ctrl-U
    {"\x17", kDeleteWord},     // Ctrl-W
    {"\x7F", kBackspace},
    {"\033\b", kDeleteWord},    // Alt and Backspace on some terminals,
    {"\033\x7F", kDeleteWord},  // and on others
    {"\033[A", kArrowUp},
    {"\033[B", kArrowDown},
    {"\033[C", kArrowRight},
    {"\033[D", kArrowLeft},
    {"\033[1;3C", kWordRight},  // with Alt,
    {"\033[1;3D", kWordLeft},
    {"\033[1;5C", kWordRight},  // or Ctrl
    {"\033[1;5D", kWordLeft},
    {"\033[H", kHome},
    {"\033[F", kEnd},
    {"\033[1~", kHome},
    {"\033[7~", kHome},
    {"\033[4~", kEnd},
    {"\033[8~", kEnd},
    {"\033[3~", kDelete},
    {"\033[200~", kPasteBegins},
    {"\033[201~", kPasteEnds},
};

// Whether these can become a character when more bytes arrive.
bool can_be_cut(string_view bytes) {
  const size_t length = character_length(static_cast<unsigned char>(bytes[0]));
  if (length < 2 || bytes.size() > 3) return false;
  bytes.remove_prefix(1);
  return std::all_of(bytes.begin(), bytes.end(), is_continuation);
}

size_t size_of_sequence(string_view bytes) {
  if (bytes.size() == 1) return 0;
  if (bytes[1] == '\x7F' || bytes[1] == '\b') return 2;
  if (bytes[1] != '[' && bytes[1] != 'O') return 1;  // Esc itself; another key follows
  size_t from = 2;
  if (bytes[1] == '[') from = bytes.find_first_not_of("0123456789;?<=>", from);
  if (from >= bytes.size()) return 0;
  const bool is_whole = bytes[from] >= '@' && bytes[from] <= '~';  // else another key begins
  return is_whole ? from + 1 : from;
}

// How many of the bytes make up the first key; 0 if some are missing.
size_t size_of_key(string_view bytes) {
  if (bytes.empty()) return 0;
  if (bytes[0] == '\033') return size_of_sequence(bytes);
  if (begins_with(bytes, "\r\n")) return 2;
  string_view rest = bytes;
  const bool is_bad = take_character(rest) == kNotUtf8;
  if (is_bad && can_be_cut(bytes)) return 0;
  return bytes.size() - rest.size();
}

char32_t key_of(string bytes) {
  if (begins_with(bytes, "\033O")) bytes[1] = '[';
  for (const auto& [name, key] : kKeys)
    if (name == bytes) return key;
  string_view rest = bytes;
  const char32_t c = take_character(rest);
  const bool means_nothing = c != kNotUtf8 && is_control(c);
  return means_nothing ? char32_t{kNoKey} : c;
}

// ---- The line that is being typed ---------------------------------------------------

// What Tab turns the line into, up to the cursor.
string complete(const string& before);

// A terminal can edit a line by itself. But it cannot take a half-typed line away, and put it back
// when something else has been printed. So we get each key as it is pressed, and edit the line
// here. Keys go in, text and cursor come out, and no terminal is needed:
//
//   type()        takes the bytes that have arrived
//   press_keys()  take_key() makes keys of them; press() changes the text, the cursor, or which
//                 earlier line is shown
//   row()         returns as much of the text around the cursor as fits
class LineEditor {
 public:
  explicit LineEditor(string (*complete)(const string& before)) : complete_(complete) {}

  void type(string_view bytes) { keys_ += bytes; }

  // Handles the keys, up to one that asks for something that the editor cannot do. Call it until it
  // returns Request::none.
  enum class Request { none, line, leave, clear_screen };
  Request press_keys() {
    auto key = take_key();
    while (key) {
      const Request request = is_pasting_ ? Request::none : request_of(*key);
      if (request != Request::none) return request;
      press(*key);
      key = take_key();
    }
    return Request::none;
  }

  // After Request::line.
  TypedLine take_line() {
    // Pasting a line along with its end does not make it two.
    while (!text_.empty() && text_.back() == '\n')
      text_.pop_back();
    const bool is_last_again = !history_.empty() && history_.back() == text_;
    if (!text_.empty() && !is_last_again) history_.push_back(text_);
    const TypedLine line{text_, begins_pasted_};
    clear();
    return line;
  }

  // Bytes typed since the last call that are not UTF-8. They are not in the text.
  string take_rejected() { return std::exchange(rejected_, ""); }

  bool is_empty() const { return text_.empty(); }

  void clear() {
    shown_ = history_.size();
    show("");
  }

  // Those not handled yet. They may end in the middle of a paste.
  void forget_keys() {
    is_pasting_ = false;
    keys_.clear();
  }

  // Write this at the beginning of an empty row of that width: it leaves the cursor in its place.
  // If the text is too wide, the row shows the part that ends at the cursor.
  string row(const string& prompt, size_t width) {
    const size_t used = columns(prompt);
    const size_t room = width > used + 3 ? width - used - 1 : 2;
    const auto fits = [&](size_t from, size_t to) {
      return columns(part(from, to)) <= room;
    };
    size_t first = cursor_;
    size_t end = cursor_;
    while (first > 0 && fits(previous(first), cursor_))
      first = previous(first);
    while (end < text_.size() && fits(first, next(end)))
      end = next(end);
    const size_t column = used + columns(part(first, cursor_));
    cursor_column_ = std::min(column, width - 1);
    const string to_cursor = "\r\033[" + to_string(cursor_column_) + "C";
    return prompt + in_one_row(part(first, end)) + to_cursor;
  }
  size_t cursor_column() const { return cursor_column_; }

 private:
  // The next key. Nothing if the rest of its bytes is still to arrive.
  optional<char32_t> take_key() {
    const size_t size = size_of_key(keys_);
    if (size == 0) return nullopt;
    key_bytes_ = keys_.substr(0, size);
    keys_.erase(0, size);
    return key_of(key_bytes_);
  }

  Request request_of(char32_t key) const {
    if (key == kEnter) return Request::line;
    if (key == kClearScreen) return Request::clear_screen;
    if (key == kDeleteOrLeave && text_.empty()) return Request::leave;
    return Request::none;
  }

  void press(char32_t key) {
    if (key == kPasteEnds) is_pasting_ = false;
    else if (key == kNotUtf8) rejected_ += key_bytes_;
    else if (key < kNoKey) insert(key_bytes_);
    else if (is_pasting_) insert(key == kEnter ? "\n" : " ");  // pasted, so nobody pressed it
    else edit(key);
  }

  void edit(char32_t key) {
    switch (key) {
      case kPasteBegins: is_pasting_ = true; break;
      case kArrowLeft: cursor_ = previous(cursor_); break;
      case kArrowRight: cursor_ = next(cursor_); break;
      case kWordLeft: cursor_ = word_before(cursor_); break;
      case kWordRight: cursor_ = word_after(cursor_); break;
      case kHome: cursor_ = 0; break;
      case kEnd: cursor_ = text_.size(); break;
      case kArrowUp: show_history(shown_ - 1); break;
      case kArrowDown: show_history(shown_ + 1); break;
      case kBackspace: erase(previous(cursor_), cursor_); break;
      case kDelete:
      case kDeleteOrLeave: erase(cursor_, next(cursor_)); break;
      case kDeleteWord: erase(word_before(cursor_), cursor_); break;
      case kDeleteToStart: erase(0, cursor_); break;
      case kDeleteToEnd: erase(cursor_, text_.size()); break;
      case kTab: complete_to_cursor(); break;
      default: break;
    }
  }

  void complete_to_cursor() {
    if (cursor_ == 0) return;
    const string before = text_.substr(0, cursor_);
    replace(0, cursor_, complete_(before));
  }

  void replace(size_t from, size_t to, const string& with) {
    text_.replace(from, to - from, with);
    cursor_ = from + with.size();
    if (from == 0) begins_pasted_ = is_pasting_;  // the first character is a new one
  }
  void insert(const string& text) { replace(cursor_, cursor_, text); }
  void erase(size_t from, size_t to) { replace(from, to, ""); }
  void show(const string& text) {
    replace(0, text_.size(), text);
  }

  void show_history(size_t which) {
    if (which > history_.size()) return;  // before the first, it is SIZE_MAX
    if (shown_ == history_.size()) new_text_ = text_;
    shown_ = which;
    show(which == history_.size() ? new_text_ : history_[which]);
  }

  string_view part(size_t from, size_t to) const {
    return string_view(text_).substr(from, to - from);
  }

  // Where the character before this place begins, and where the one after it ends. Accents count as
  // part of their character.
  size_t previous(size_t at) const {
    while (at > 0) {
      --at;
      if (begins_character(at)) break;
    }
    return at;
  }
  size_t next(size_t at) const {
    while (at < text_.size()) {
      ++at;
      if (at == text_.size() || begins_character(at)) break;
    }
    return at;
  }
  bool begins_character(size_t at) const {
    string_view rest = part(at, text_.size());
    const bool is_head = !is_continuation(rest[0]);
    return is_head && columns(take_character(rest)) > 0;
  }

  bool is_gap(size_t at) const {
    return text_[at] == ' ' || text_[at] == '\n';
  }
  size_t word_before(size_t at) const {
    while (at > 0 && is_gap(at - 1)) --at;
    while (at > 0 && !is_gap(at - 1)) --at;
    return at;
  }
  size_t word_after(size_t at) const {
    while (at < text_.size() && is_gap(at)) ++at;
    while (at < text_.size() && !is_gap(at)) ++at;
    return at;
  }

  string (*complete_)(const string& before);
  bool is_pasting_ = false;
  string keys_;       // not handled yet
  string key_bytes_;  // of the key being handled
  string rejected_;   // not UTF-8, and not reported yet
  string text_;       // as shown
  string new_text_;   // the new line, while an earlier one is shown
  bool begins_pasted_ = false;
  size_t cursor_ = 0;  // how many bytes of the text are before it
  size_t cursor_column_ = 0;
  Strings history_;
  size_t shown_ = 0;  // which line of the history; its size means the new line
};

// ---- The modes of the terminal ------------------------------------------------------

// The modes outlive the program, so they must be restored when it ends or is stopped.
class TerminalModes {
 public:
  // No echo, no waiting for Enter. Ctrl-C and Ctrl-Z still send signals.
  void seize() {
    if (!is_seized_) {
      const int result = ::tcgetattr(STDIN_FILENO, &original_);
      if (result == -1) return;
    }
    termios raw = original_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | IEXTEN);
    // Otherwise Ctrl-C would discard keys that were pressed before it and not read yet; Ctrl-S
    // would stop the output, and with it the program; and CR LF in a pasted text would end a line
    // twice.
    raw.c_lflag |= NOFLSH;
    raw.c_iflag &= ~static_cast<tcflag_t>(IXON | ICRNL);
    raw.c_cc[VMIN] = 1;  // read() returns as soon as there is anything
    raw.c_cc[VTIME] = 0;
    const int result = set(raw);
    if (result == -1) return;
    is_seized_ = true;
    std::cout << kPasteOn << std::flush;
  }

  void release() {
    if (!is_seized_) return;
    std::cout << kPasteOff << std::flush;
    set(original_);
    is_seized_ = false;  // not before: if the terminal hangs, a second Ctrl-C ends us here
  }

  // For a signal handler: waits for nothing. Output that is not on the screen yet is lost.
  void release_at_once() const {
    if (!is_seized_) return;
    ::tcflush(STDOUT_FILENO, TCOFLUSH);
    ::tcsetattr(STDIN_FILENO, TCSANOW, &original_);
    const ssize_t written = ::write(STDOUT_FILENO, kPasteOff.data(), kPasteOff.size());
    if (written == -1) return;  // we have done what we could
  }

 private:
  static int set(const termios& modes) {
    const auto set_once = [&] { return ::tcsetattr(STDIN_FILENO, TCSADRAIN, &modes); };
    return uninterrupted(set_once);
  }

  // Bracketed paste: see kPasteBegins.
  static constexpr string_view kPasteOn = "\033[?2004h";
  static constexpr string_view kPasteOff = "\033[?2004l";
  termios original_{};
  std::atomic<bool> is_seized_{false};
};

// ---- The console --------------------------------------------------------------------

string environment(const char* name) {
  const char* const value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nobody sets one
  return value ? value : "";
}

// Some terminals, such as those in an editor's window, know no escape sequences. They edit lines by
// themselves, and we treat them like a pipe.
bool is_for_people() {
  const string kind = environment("TERM");
  const bool knows_sequences = !kind.empty() && kind != "dumb";
  return knows_sequences && ::isatty(STDIN_FILENO) && ::isatty(STDOUT_FILENO);
}

Console::Console()
    : editor_(std::make_unique<LineEditor>(complete)),
      modes_(*new TerminalModes) {}

Console::~Console() { modes_.release(); }

string Console::painted(const string& text, const char* colour) const {
  static const bool is_coloured = terminal && environment("NO_COLOR").empty();  // no-color.org
  if (!is_coloured) return printable(text);
  return string("\033[") + colour + "m" + printable(text) + "\033[m";
}

void Console::print(const string& line) {
  write_line(printable(line));
}

void Console::print_quietly(const string& line) {
  write_line(painted(line, "2"));
}

void Console::write_line(const string& line) {
  erase();
  std::cout << (terminal ? wrapped(line) : line) << '\n';
}

void Console::set_prompt(const string& who) { prompt_ = printable(who); }

void Console::erase() {
  if (is_erased_) return;
  is_erased_ = true;
  // Most terminals break a row in two when the window becomes too narrow for it. Then our rows
  // begin further up.
  const size_t width = screen_width();
  const size_t narrow = std::min(width, drawn_width_);
  const size_t progress_rows = (progress_width_ + narrow - 1) / narrow;
  const size_t rows = progress_rows + editor_->cursor_column() / width;
  std::cout << '\r';
  if (rows > 0) std::cout << "\033[" << rows << "A";
  std::cout << "\033[J";
}

void Console::draw(const string& progress) {
  const bool has_moved_on = progress_width_ > 0 && Clock::now() >= progress_due_;
  if (has_moved_on) erase();
  if (terminal && is_erased_) draw_rows(progress);
  std::cout.flush();
}

void Console::draw_rows(const string& progress) {
  is_erased_ = false;
  drawn_width_ = screen_width();
  const string now = clipped(printable(progress), drawn_width_);
  progress_width_ = columns(now);
  progress_due_ = Clock::now() + 250ms;
  // Half of the row is for what is typed, so a long prompt is cut in a narrow window.
  const size_t half = std::max<size_t>(drawn_width_ / 2, 2);
  const string prompt = clipped(prompt_, half - 2) + "> ";
  // The window may have become narrower just now. Do not let the row wrap (ESC [?7l): we would not
  // erase what ends up in the next one.
  std::cout << "\033[?7l" << now;
  if (!now.empty()) std::cout << "\n";
  std::cout << editor_->row(prompt, drawn_width_) << "\033[?7h";
}

void Console::read() {
  std::array<char, 4096> bytes;
  const auto read_once = [&] {
    return ::read(STDIN_FILENO, bytes.data(), bytes.size());
  };
  const ssize_t got = uninterrupted(read_once);
  has_ended_ = got <= 0;
  const size_t size = has_ended_ ? 0 : static_cast<size_t>(got);
  const string_view input(bytes.data(), size);
  if (terminal) {
    erase();
    editor_->type(input);
    return;
  }
  piped_ += input;
  if (has_ended_ && !piped_.empty()) piped_ += '\n';
}

void report_rejected(const string& bytes) {
  constexpr size_t kShown = 8;
  if (bytes.empty()) return;
  const string some = bytes.substr(0, kShown);
  print("note: left out, because it is not UTF-8: " + some + "; is your terminal set to UTF-8?");
}

optional<TypedLine> Console::take_line() {
  using Request = LineEditor::Request;
  if (!terminal) return take_piped_line();
  Request request = editor_->press_keys();
  while (request == Request::clear_screen) {
    std::cout << "\033[H\033[2J";
    request = editor_->press_keys();
  }
  report_rejected(editor_->take_rejected());
  if (request == Request::none) return nullopt;
  if (request == Request::leave) return TypedLine{"/quit"};
  const TypedLine line = editor_->take_line();
  const string text = printable(in_one_row(line.text));
  write_line(prompt_ + "> " + text);  // above the output that it causes
  return line;
}

optional<TypedLine> Console::take_piped_line() {
  const size_t end = piped_.find('\n');
  if (end == string::npos) return nullopt;
  const TypedLine line{piped_.substr(0, end)};
  piped_.erase(0, end + 1);
  return line;
}

bool Console::has_text() const { return !editor_->is_empty(); }

void Console::drop_text() {
  erase();
  editor_->forget_keys();
  editor_->clear();
}

void Console::suspend() {
  erase();
  std::cout.flush();
  modes_.release();
}

void Console::resume() {
  if (!terminal) return;
  erase();
  editor_->forget_keys();  // Ctrl-Z may have been in the middle of a paste
  modes_.seize();
}

void Console::release_at_once() const { modes_.release_at_once(); }

// ---- WHO: what fits a word ----------------------------------------------------------

void add_to_list(string& list, const string& word, const char* between = ", ") {
  if (!list.empty()) list += between;
  list += word;
}

// The address in IP:PORT or NAME@IP:PORT.
optional<Address> address_in(string_view who) {
  return parse_address(who.substr(who.rfind('@') + 1));  // npos + 1 is 0
}

// Whoever had this number in the last /list. Null if it is not a number of it.
const Addressee* by_number(const string& who) {
  const auto number = parse_number(who, numbered.size());
  if (!number || *number == 0) return nullptr;
  const auto index = static_cast<size_t>(*number) - 1;
  return &numbered[index];
}

// A word with an address in it is not a name: a name that looks like an address must not mislead.
bool is_called(const Identity& user, const string& who) {
  const string seen = comparable(who);
  if (!address_in(who)) return seen == comparable(user.name);
  const bool is_address = who == user.address.text();
  return is_address || seen == comparable(user.label());
}

// A word can be one user's name and another's number.
Users those_called(const string& who) {
  const Addressee* const at_number = by_number(who);
  if (at_number && !at_number->gone.empty()) {
    const string was = "number " + who + " was " + at_number->who.label();
    fail(was + ", who " + at_number->gone + "; /list shows the numbers now");
  }
  Users fits;
  for (const Identity& user : discovery::users()) {
    const bool has_number = at_number && at_number->who.id == user.id;
    if (has_number || is_called(user, who)) fits.push_back(user);
  }
  return fits;
}

// Whether it is our number, our name, or an address that leads back to us.
bool is_oneself(const string& who) {
  const Addressee* const at_number = by_number(who);
  if (at_number && at_number->who.id == myself.id) return true;
  const auto address = address_in(who);
  return address ? discovery::is_own(*address) : is_called(myself, who);
}

// ---- Names for people ---------------------------------------------------------------

// Who is listed, as discovery's events say, and which names there are. We keep count, so that a
// line with a name in it costs no more in a class of 1,000 than in one of 10.
class Directory {
 public:
  void enter(const Identity& who) {  // somebody who has joined or changed
    remove(who.id);
    users_[who.id] = who;
    names_.insert(comparable(who.name));
  }

  void remove(const string& id) {
    const auto user = users_.find(id);
    if (user == users_.end()) return;
    names_.erase(names_.find(comparable(user->second.name)));
    users_.erase(user);
  }

  // The user with this id at this address; null if nobody is listed with both. Anybody can claim an
  // id or a name, but nobody can be reached at somebody else's address.
  const Identity* find(const Identity& who) const {
    const auto user = users_.find(who.id);
    if (user == users_.end()) return nullptr;
    return user->second.address == who.address ? &user->second : nullptr;
  }

  // Whether this name of a listed user can mean nobody else.
  bool is_clear(const string& name) const {
    const string seen = comparable(name);
    const bool is_ours = seen == comparable(myself.name);
    return count(name) < 2 && !is_ours && !resembles_label(name);
  }

  // How many users have this name.
  size_t count(const string& name) const {
    return names_.count(comparable(name));
  }

 private:
  std::map<string, Identity> users_;  // by id
  std::multiset<string> names_;       // without their invisible characters
};

Directory directory;

bool is_listed(const Identity& who) { return directory.find(who) != nullptr; }

// NAME@IP:PORT; on a terminal just the name, if it can mean nobody else. We look it up, because a
// conversation may have begun under an older name.
string name_of(const Identity& who) {
  const Identity* const user = directory.find(who);
  if (!user) return who.label();
  const bool is_name_enough = terminal && directory.is_clear(user->name);
  return is_name_enough ? user->name : user->label();
}

// A peer always has the same colour. Only listed users have one.
string painted_name(const Identity& who) {
  static const char* const kColours[] = {"31", "32", "33", "34", "35", "36"};
  const string name = name_of(who);
  if (!is_listed(who)) return printable(name);
  const size_t number = std::hash<string>()(who.id);
  const char* const colour = kColours[number % std::size(kColours)];
  return console.painted(name, colour);
}

// Whether a plain line has somebody to go to.
bool is_talking() { return chosen && chosen->gone.empty(); }

string prompt_text() {
  if (!is_talking()) return myself.name;
  return myself.name + " to " + name_of(chosen->who);
}

// Never throws, because Tab calls it as well.
bool names_somebody(const string& who) {
  if (by_number(who) || address_in(who)) return true;
  if (is_oneself(who)) return true;
  return !those_called(who).empty();
}

Identity find_by_beginning(const string& who) {
  Users fits;
  const string beginning = comparable(who);
  for (const Identity& user : discovery::users()) {
    const string label = comparable(user.label());
    if (begins_with(label, beginning)) fits.push_back(user);
  }
  const bool is_only_one = fits.size() == 1 && !who.empty();
  if (is_only_one && !names_somebody(who)) return fits[0];
  return find(who);
}

// " (did you mean ann or anna?)", with the first three words that begin with what was typed.
string suggestion(const string& typed, const Strings& words) {
  constexpr size_t kMost = 3;
  string fits;
  size_t count = 0;
  for (const string& word : words) {
    const bool fits_so = begins_with(word, typed) && typed != "/";
    if (!fits_so || count == kMost) continue;
    ++count;
    add_to_list(fits, word, " or ");
  }
  return fits.empty() ? "" : " (did you mean " + fits + "?)";
}

// The names of all listed users.
Strings names() {
  Strings all;
  for (const Identity& user : discovery::users())
    all.push_back(name_of(user));
  return all;
}

string labels_of(const Users& users) {
  string labels;
  for (const Identity& user : users)
    add_to_list(labels, user.label(), " or ");
  return labels;
}

bool is_before(const Identity& one, const Identity& other) {
  return one.label() < other.label();
}

Users everyone() {
  Users all = discovery::users();
  all.push_back(own_entry());
  std::sort(all.begin(), all.end(), is_before);
  return all;
}

string nobody_called(const string& who) {
  return "nobody called " + who + " is online" + suggestion(who, names());
}

Strings command_names() {
  Strings names;
  for (const Command& command : kCommands)
    names.push_back(command.name);
  return names;
}

string no_command_called(const string& name) {
  const string hint = suggestion(name, command_names());
  return "there is no command " + name + hint + "; /help lists them";
}

// Adds blanks up to that width, unless the text is wider.
string padded(const string& text, size_t width) {
  const size_t used = std::min(width, columns(text));
  return text + string(width - used, ' ');
}

// On a terminal they are aligned, in columns that are as wide as they must be, up to a limit.
Strings rows_of_list(const Users& users) {
  constexpr size_t kMostName = 20;
  constexpr size_t kMostGroup = 12;
  size_t number_width = 0;
  size_t name_width = 0;
  size_t group_width = 0;
  for (const Identity& user : users) {
    if (!terminal) continue;
    number_width = to_string(users.size()).size();
    const size_t name = std::min(columns(user.name), kMostName);
    const size_t group = std::min(columns(user.group), kMostGroup);
    name_width = std::max(name_width, name);
    group_width = std::max(group_width, group);
  }
  Strings rows;
  for (const Identity& user : users) {
    const string number = to_string(rows.size() + 1);
    string row = "user " + padded(number, number_width);
    row += user.id == myself.id ? " * " : " - ";
    row += padded(user.name, name_width) + " ";
    row += padded(user.group, group_width) + " ";
    row += user.address.text();
    const bool is_there = user.said_ip == user.address.ip;
    if (!is_there) row += " says " + Address{user.said_ip}.ip_text();
    rows.push_back(row);
  }
  return rows;
}

// ---- Sizes, times and outcomes for people -------------------------------------------

string time_of_day() {
  return terminal ? local_time(std::time(nullptr), "%H:%M ") : "";
}

// For people: "37 bytes", "1.5 GB", "38 MB".
string amount(double bytes) {
  static const char* const kUnits[] = {"bytes", "kB", "MB", "GB", "TB", "PB", "EB"};
  if (bytes == 1) return "1 byte";
  size_t unit = 0;
  while (bytes >= 999.5) {
    bytes /= 1000;
    ++unit;
  }
  const int decimals = unit > 0 && bytes < 9.95 ? 1 : 0;
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.*f %s", decimals, bytes, kUnits[unit]);
  return text.data();
}

string size_text(uint64_t bytes) {
  return terminal ? amount(static_cast<double>(bytes)) : to_string(bytes);
}

string size_of(const File& file) {
  string size = size_text(file.size);
  if (!terminal) size += " bytes";
  const bool is_folder = !file.name.empty() && file.name.back() == '/';
  if (is_folder) size += " in " + to_string(file.entries) + " files and folders";
  return size;
}

string rate_text(double bytes) {
  if (terminal) return amount(bytes) + "/s";
  return to_string(std::llround(bytes / 1e6)) + " MB/s";
}

// Bytes a second since it started, without those that an earlier try had left.
double speed(const File& file, uint64_t done) {
  const auto passed = Clock::now() - file.started + 1ms;
  const std::chrono::duration<double> time = passed;
  const uint64_t bytes = done - std::min(done, file.resumed_at);
  return static_cast<double>(bytes) / time.count();
}

string so_far(const File& file) {
  const uint64_t done = transfer::bytes_done(file.ticket);
  const string rate = rate_text(speed(file, done));
  return ", " + size_text(done) + " done, " + rate;
}

string bar(uint64_t percent) {
  constexpr size_t kWidth = 10;
  const uint64_t most = std::min<uint64_t>(percent, 100);
  const auto full = static_cast<size_t>(most) * kWidth / 100;
  const string done(full, '=');
  const string left(kWidth - full, ' ');
  return "[" + done + left + "]";
}

// What matters most comes first, because the line is cut where the screen ends.
string progress_of(const File& file) {
  const uint64_t done = transfer::bytes_done(file.ticket);
  const uint64_t size = std::max<uint64_t>(file.size, 1);
  const uint64_t left = size - std::min(size, done);
  const uint64_t percent = done * 100 / size;
  const double rate = speed(file, done);
  const double seconds = static_cast<double>(left) / std::max(rate, 1.0);
  string line = bar(percent) + " " + to_string(percent) + " %, ";
  line += rate_text(rate) + ", ";
  if (rate > 0) line += to_string(std::llround(seconds)) + " s left, ";
  line += file.direction + " " + to_string(file.number) + " ";
  return line + name_of(file.who) + ": " + file.name;
}

string progress() {
  for (const auto& [number, file] : files)
    if (file.state == "started") return progress_of(file);
  return "";
}

string remark(const FileStarted& event) {
  return event.resumed_at > 0 ? ", resumed at " + size_text(event.resumed_at) : "";
}

string remark(const FileStored& event) {
  const string sum = terminal ? "" : ", cksum " + to_string(event.crc);
  return sum + event.missing;
}

string remark(const FileFailed& event) {
  const string doubt = event.failure.in_doubt ? "; it may have arrived" : "";
  return ", " + event.failure.reason + doubt;
}

// ---- What helps a user on -----------------------------------------------------------

size_t known_clashes = 0;  // how many users have our name, as we last said

// In one line, however many there are.
void warn_of_clashes() {
  const size_t clashes = directory.count(myself.name);
  const bool are_more = clashes > known_clashes;
  known_clashes = clashes;
  if (!are_more) return;
  string who = to_string(clashes) + " users have";
  for (const Identity& user : discovery::users())
    if (clashes == 1 && is_called(user, myself.name))
      who = user.label() + " has";
  print("note: " + who + " the same name as you; /name NEW gives you another");
}

string fate(const Addressee& partner) {
  return partner.who.label() + " " + partner.gone;
}

// Whether this is the user whom /to had chosen. If he has started again, his id is new, and only
// his name and IP address are the same.
bool is_partner_again(const Identity& user) {
  const Identity& partner = chosen->who;
  const bool has_his_name = comparable(user.name) == comparable(partner.name);
  return has_his_name && user.address.ip == partner.address.ip;
}

void expect_partner() {
  if (is_talking()) return;
  string next = "/to WHO chooses another";
  for (const Identity& user : discovery::users()) {
    const string choice = "/to " + name_of(user);
    if (is_partner_again(user)) next = "he is back, and " + choice + " talks to him again";
  }
  fail(fate(*chosen) + "; " + next);
}

void explain_offer(const File& file) {
  if (!terminal) return;
  const string n = to_string(file.number);
  const string who = name_of(file.who);
  const bool is_single = file.is_sent() && file.post == 0;
  const bool asks_us = !file.is_sent() && accept_policy == Accept::ask;
  if (is_single) print("note: " + who + " has been asked; /cancel " + n + " takes the offer back");
  if (asks_us) print("note: /accept " + n + " takes it, /reject " + n + " does not");
}

// Once is enough: after that the user knows how. A sender who is not listed can only be named by
// his address.
void tell_how_to_answer(const Identity& from) {
  static bool is_told = false;
  if (!terminal || is_talking() || is_told) return;
  is_told = true;
  const string who = is_listed(from) ? name_of(from) : from.address.text();
  print("note: to answer, type /to " + who + "; what you type then goes to " + who);
}

// ---- Messages, to one or to many ----------------------------------------------------

struct Post {
  string text;   // for a file, its path
  string scope;  // private, group, all; or files
  size_t total = 0;
  size_t reached = 0;
  string got;     // names of those who have it
  string missed;  // of those who do not
  string unsure;  // of those who may have it
  std::map<Address, Identity> awaited;  // those of whom we do not know it yet
};

std::map<uint64_t, Post> posts;  // by number
uint64_t next_post = 1;

uint64_t open_post(const string& scope, const string& text, const Users& to) {
  const uint64_t number = next_post;
  ++next_post;
  Post& post = posts[number];
  post.scope = scope;
  post.text = text;
  post.total = to.size();
  for (const Identity& one : to)
    post.awaited[one.address] = one;
  return number;
}

string summary(const Post& post) {
  const bool is_file = post.scope == "files";
  string line = is_file ? "sent to " : "delivered ";
  line += to_string(post.reached) + " of " + to_string(post.total);
  if (is_file && !post.got.empty())
    line += ", " + post.got;
  if (!post.missed.empty()) line += "; not reached: " + post.missed;
  if (!post.unsure.empty()) line += "; may have reached: " + post.unsure;
  if (is_file) line += ": " + post.text;
  return line;
}

// We know what has become of one copy. After the last one, we sum up.
void settle(uint64_t number, const Identity& to) {
  Post& post = posts.at(number);
  post.awaited.erase(to.address);
  if (!post.awaited.empty()) return;
  if (post.scope != "private") print(summary(post));
  posts.erase(number);
}

void note_delivery(uint64_t number, const Identity& to) {
  show_news_of(to);
  Post& post = posts.at(number);
  ++post.reached;
  add_to_list(post.got, name_of(to));
  if (post.scope == "private") {
    const string text = terminal ? "" : ": " + post.text;  // people see it a few rows above
    console.print_quietly(time_of_day() + "delivered " + name_of(to) + text);
  }
  settle(number, to);
}

void note_failure(uint64_t number, const Identity& to, const Failure& failure) {
  show_news_of(to);
  Post& post = posts.at(number);
  const bool is_file = post.scope == "files";
  const string doubt = failure.in_doubt ? "; it may have arrived: " : "; not delivered: ";
  string& list = failure.in_doubt ? post.unsure : post.missed;
  undelivered = true;
  add_to_list(list, name_of(to));
  const string outcome = failure.reason + doubt + post.text;
  if (is_file) list += " (" + failure.reason + ")";
  else print(time_of_day() + "failed " + name_of(to) + ": " + outcome);
  settle(number, to);
}

// All other users, or all others in our group.
Users audience(const string& scope) {
  Users all;
  for (const Identity& user : discovery::users()) {
    const bool is_meant = scope == "all" || user.group == myself.group;
    if (is_meant) all.push_back(user);
  }
  const string where = scope == "all" ? "online" : "in group " + myself.group;
  if (all.empty()) fail("nobody else is " + where);
  return all;
}

void send_to_group(string text) {
  post_message("group", text, audience("group"));
}

void send_to_all(string text) {
  post_message("all", text, audience("all"));
}

Strings lines_with_text(string_view text) {
  Strings lines;
  while (!text.empty()) {
    const string line(take_until(text, '\n'));
    if (!without_blanks(line).empty()) lines.push_back(line);
  }
  return lines;
}

// Each line is a message to the user that /to chose. None is a command, whatever it begins with.
void say_lines(const TypedLine& typed) {
  const bool is_command = typed.text[0] == '/' && !typed.begins_pasted;
  const string advice = "; paste them without a command in front";
  if (is_command) fail("several lines go to the user that /to chose" + advice);
  const Strings lines = lines_with_text(typed.text);
  // Check all of them before we send any: half a text helps nobody.
  for (const string& line : lines) expect_message(line);
  for (const string& line : lines) say(line);
}

void show_message(const Identity& from, const Message& message) {
  show_news_of(from);
  const string text = ": " + message.text;
  if (!terminal) {
    print("message " + name_of(from) + " " + message.scope + text);
    return;
  }
  const bool is_private = message.scope == "private";
  const string scope = is_private ? "" : " [" + message.scope + "]";
  const string line = painted_name(from) + scope + printable(text);
  console.write_line(time_of_day() + line);
}

// "bob (message), cleo@10.0.0.7:25253 (send 2, offered)"
string under_way() {
  string all;
  for (const auto& [post_number, post] : posts)
    for (const auto& [address, who] : post.awaited)
      if (post.scope != "files") add_to_list(all, name_of(who) + " (message)");
  for (const auto& [number, file] : files) {
    const string what = "send " + to_string(number) + ", " + file.state;
    const string whom = name_of(file.who) + " (" + what + ")";
    if (file.is_sent()) add_to_list(all, whom);
  }
  return all;
}

// ---- Files: which one, and to whom --------------------------------------------------

bool ends_in_blank(string_view text) {
  const size_t size = text.size();
  if (size == 0 || text[size - 1] != ' ') return false;
  return size == 1 || text[size - 2] != '\\';  // "\ " is a blank that was meant
}

// Reads a pasted path as a shell would: quotes and backslashes go, a leading ~ is the home folder,
// and blanks at the end do not count. If a quote is not closed, the path is taken as typed. We do
// not use wordexp(): it may start a shell, and OpenBSD does not have it.
string as_a_shell_reads(const string& typed, const string& home) {
  string_view rest = typed;
  string path;
  char quote = '\0';  // the one that is open, if any
  bool is_escaped = false;
  while (ends_in_blank(rest)) rest.remove_suffix(1);
  const bool begins_at_home = rest == "~" || begins_with(rest, "~/");
  if (begins_at_home) {
    path = home;
    rest.remove_prefix(1);
  }
  for (const char c : rest) {
    const bool can_begin = c == '\'' || c == '"';
    const bool is_quote = quote == '\0' ? can_begin : c == quote;
    if (is_escaped) {
      path += c;
      is_escaped = false;
    } else if (c == '\\' && quote != '\'') {
      is_escaped = true;
    } else if (is_quote) {
      quote = quote == '\0' ? c : '\0';
    } else {
      path += c;
    }
  }
  const bool is_whole = quote == '\0' && !is_escaped;
  return is_whole ? path : typed;
}

// The path as typed, if it exists; otherwise, as a shell would read it.
string path_meant_by(const string& typed) {
  const bool is_there = ::access(typed.c_str(), F_OK) == 0;
  if (is_there) return typed;
  const string home = environment("HOME");
  return as_a_shell_reads(typed, home.empty() ? "~" : home);
}

string readable_path(const string& typed, const string& command) {
  const string path = path_meant_by(typed);
  if (path.empty()) fail("which file? " + command + " PATH");
  const bool can_be_read = ::access(path.c_str(), R_OK) == 0;
  if (!can_be_read) fail("cannot read " + path + ": " + error_text(errno));
  return path;
}

// A slow receiver, or one who says no, does not hold up the others.
void offer_to(const Users& to, const string& path) {
  if (to.size() == 1) {
    offer(path, to[0], 0);
    return;
  }
  const uint64_t post = open_post("files", path, to);
  for (const Identity& one : to) {
    try {
      offer(path, one, post);
    } catch (const std::exception& error) {
      note_failure(post, one, {error.what()});
    }
  }
  const string asked = to_string(to.size()) + " users have been asked";
  if (terminal) print("note: " + asked + "; /transfers shows who has not answered");
}

void offer_to_group(string path) {
  offer_to(audience("group"), readable_path(path, "/sendgroup"));
}

void offer_to_all(string path) {
  offer_to(audience("all"), readable_path(path, "/sendall"));
}

void offer_to_chosen(const string& typed) {
  const string path = path_meant_by(typed);
  const string word = typed.substr(0, typed.find(' '));
  const bool is_there = ::access(path.c_str(), F_OK) == 0;
  if (!is_there && !chosen) find(word);  // throws: there is no such user
  if (!is_there) fail(nobody_called(word) + ", and there is no file " + path);
  if (!chosen) fail("to whom? /send WHO " + path);
  expect_partner();
  offer_to({chosen->who}, readable_path(typed, "/send"));
}

bool is_any(const File&) { return true; }
bool is_waiting_offer(const File& file) {
  return !file.is_sent() && file.state == "offered";
}

// The only file that can be meant.
File& only_file(const string& command, bool (*can_be_meant)(const File&)) {
  vector<File*> fits;
  for (auto& [number, file] : files)
    if (can_be_meant(file)) fits.push_back(&file);
  const string verb = command.substr(1);
  if (fits.empty()) fail("there is nothing to " + verb + "; /transfers lists what is under way");
  if (fits.size() > 1) fail("which one? write " + command + " N; /transfers shows each with its N");
  return *fits[0];
}

File& file_called(const string& number) {
  const auto found = files.find(parse_number(number).value_or(0));
  if (found == files.end()) fail("there is no transfer '" + number + "'; /transfers lists them");
  return found->second;
}

File& take_offer(string& rest, const string& command) {
  const string number = next_word(rest);
  if (number.empty()) return only_file(command, is_waiting_offer);
  File& file = file_called(number);
  if (!is_waiting_offer(file)) fail("that is not an offer that waits for an answer");
  return file;
}

void expect_nothing(const string& rest) {
  if (!rest.empty()) fail("'" + rest + "' is not needed; the number of a transfer is enough");
}

void cancel_transfer(string rest) {
  const string number = next_word(rest);
  const File& file = number.empty() ? only_file("/cancel", is_any) : file_called(number);
  expect_nothing(rest);
  transfer::cancel(file.ticket);
}

void list_transfers(string) {
  for (const auto& [number, file] : files)
    print_file(file, file.state == "started" ? so_far(file) : "");
  print("transfers " + to_string(files.size()));
}

// ---- The other commands -------------------------------------------------------------

string next_word(string& rest) {
  string_view left = rest;
  const string word(take_word(left));
  const size_t first = left.find_first_not_of(' ');
  rest = left.substr(std::min(first, left.size()));
  return word;
}

// A text keeps its blanks, but a line of nothing but blanks is empty.
string trimmed(string line) {
  const bool is_from_windows = !line.empty() && line.back() == '\r';
  if (is_from_windows) line.pop_back();
  const size_t first = line.find_first_not_of(" \t");
  if (first == string::npos) return "";
  if (line[first] == '/') line.erase(0, first);  // pasted, with its indentation
  return line;
}

bool does_send(string line) {
  const bool is_command = begins_with(line, "/") && !begins_with(line, "//");
  if (!is_command) return true;
  const string name = next_word(line);
  for (const char* one : {"/msg", "/group", "/all", "/send", "/sendgroup", "/sendall"})
    if (name == one) return true;
  return false;
}

const string kGoodName = "1 to 32 characters without blanks, no / first";

// We accept less for ourselves than is_name() accepts from others: "/quit" is a command typed in
// the wrong place.
bool is_own_name(const string& text) {
  return is_name(text) && text[0] != '/';
}

void introduce_as(const string& name, const string& group) {
  const bool are_good = is_own_name(name) && is_own_name(group);
  if (!are_good) fail("a name or group is " + kGoodName);
  myself.name = name;
  myself.group = group;
  known_clashes = 0;
  discovery::rename();
  print("you " + own_entry().label() + " " + group);
  warn_of_clashes();
}

void change_name(string name) {
  introduce_as(name, myself.group);
}

void change_group(string group) {
  introduce_as(myself.name, group);
}

// Everything, or ADDRESS, ADDRESS:PORT or NETWORK/BITS.
void scan(string target) {
  if (target.empty()) {
    discovery::scan();
    return;
  }
  const size_t slash = target.find('/');
  const bool is_network = slash != string::npos;
  const auto address = parse_address(target);
  auto ip = parse_ip(target.substr(0, slash));
  optional<uint64_t> bits = 32;
  uint16_t port = 0;  // 0: both at which a peer can be found
  if (is_network) bits = parse_number(target.substr(slash + 1), 32);
  if (address) {
    ip = address->ip;
    port = address->port;
  }
  if (!ip || !bits) fail("/scan takes ADDRESS, ADDRESS:PORT, NETWORK/BITS, or no argument");
  if (!discovery::source_for(*ip)) fail("no usable route leads to " + target);
  discovery::scan(*ip, static_cast<int>(*bits), port);
}

void print_help(const string& text) { print("help: " + text); }

void print_meaning(const Command& command) {
  const string usage = string(command.name) + command.arguments;
  print_help(usage + ": " + command.meaning);
}

void help(string name) {
  if (name.empty()) {
    for (const Command& command : kCommands) print_meaning(command);
    print_help("any other line goes to the /to user; // at its start sends one /");
    return;
  }
  if (name[0] != '/') name = "/" + name;
  const Command& command = command_called(name);
  const string advice = command.advice;
  print_meaning(command);
  print_help("for example  " + name + command.example);
  if (!advice.empty()) print_help(advice);
}

// ---- /diag --------------------------------------------------------------------------

// A thread tries TCP, and reports what came of it.
void diagnose_one(const Identity& other) {
  const string who = "diag: UDP: " + other.label();
  if (is_listed(other)) print(who + " has answered");
  else print(who + " has not answered; /scan IP:PORT asks it; both must let in UDP 25252-25508");
  transfer::diagnose(other);
}

void diagnose(string who) {
  if (!who.empty()) {
    diagnose_one(find(who));
    return;
  }
  print("diag: ports UDP 25252, UDP and TCP " + to_string(myself.address.port) + " are open");
  for (const string& line : discovery::diagnosis())
    print("diag: " + line);
  print("diag: if ours never came back, the firewall of this machine must let in UDP 25252 to "
        "25508 and TCP 25253 to 25508; if only ours came, nobody else is there, or the access "
        "point keeps its clients apart; if a peer does not hear us, its machine has a firewall");
}

// ---- What Tab adds ------------------------------------------------------------------

// The files and folders in `folder`, which is "photos/", say, or "" for the current one.
Strings entries_of(const string& folder) {
  const string where = folder.empty() ? "." : path_meant_by(folder);
  const std::filesystem::directory_iterator end;
  Strings found;
  std::error_code error;
  std::filesystem::directory_iterator entry(where, error);
  while (!error && entry != end) {
    string name = entry->path().filename().string();
    if (entry->is_directory(error)) name += "/";
    found.push_back(name);
    entry.increment(error);
  }
  return found;
}

string arguments_of(const string& name) {
  string arguments;
  for (const Command& command : kCommands)
    if (command.name == name) arguments = command.arguments;
  return arguments;
}

// Adds those that begin with what was typed, unless nobody could type them: the name of a file may
// have any bytes. `end` is a blank after a word; after a path, it would be part of the path.
void add_fitting(Strings& fits, const Strings& all, const string& typed, const string& end) {
  for (const string& one : all) {
    const bool can_be_typed = is_text(one) && one.find('\t') == string::npos;
    if (can_be_typed && begins_with(one, typed)) fits.push_back(one + end);
  }
}

// The possible ends of `line`. Leaves in it only the part that they replace. The table of commands
// says what may follow a command.
Strings take_possible_ends(string& line) {
  Strings fits;
  string rest = line;
  const string name = next_word(rest);
  if (name == line) {
    add_fitting(fits, command_names(), line, " ");
    return fits;
  }
  const string arguments = arguments_of(name);
  const bool takes_who = arguments.find("WHO") != string::npos;
  const bool takes_path = arguments.find("PATH") != string::npos;
  line = rest;
  const string who = next_word(rest);
  const bool may_be_who = takes_who && who == line;
  const bool is_who_given = takes_who && !may_be_who && names_somebody(who);
  // The first word of /send may be a path, if /to has chosen somebody.
  const bool may_be_path = takes_path && (!takes_who || is_who_given || is_talking());
  if (may_be_who) add_fitting(fits, names(), line, " ");
  if (is_who_given) line = rest;
  if (!may_be_path) return fits;
  const string folder = line.substr(0, begin_of_name(line));
  line.erase(0, folder.size());
  add_fitting(fits, entries_of(folder), line, "");
  return fits;
}

// What all of them begin with. As they are sorted, the first and the last differ most.
string common_beginning(const Strings& words) {
  const string& first = words.front();
  const string& last = words.back();
  const size_t most = std::min(first.size(), last.size());
  size_t size = 0;
  while (size < most && first[size] == last[size])
    ++size;
  string common = first.substr(0, size);
  while (!is_text(common)) common.pop_back();  // half a character
  return common;
}

string complete(const string& before) {
  string typed = before;
  Strings fits = take_possible_ends(typed);
  if (fits.empty()) return before;
  std::sort(fits.begin(), fits.end());
  const string common = common_beginning(fits);
  string all;
  for (const string& fit : fits) {
    const size_t last = fit.find_last_not_of(' ');
    add_to_list(all, fit.substr(0, last + 1));
  }
  const bool is_no_help = fits.size() > 1 && common == typed;
  if (is_no_help) console.print_quietly("help: " + all);
  const size_t kept = before.size() - typed.size();
  return before.substr(0, kept) + common;
}

// ---- Who comes and goes -------------------------------------------------------------

// What has happened to a user since we last printed something about him.
struct Change {
  string id;
  optional<Identity> before;  // nothing if he was not listed
  optional<Identity> now;
  string reason;  // if he has left

  // He has come and gone, or has his old name back.
  bool is_undone() const {
    if (!before || !now) return !before && !now;
    return before->looks_like(*now);
  }
  string verb() const {
    if (!before) return "joined";
    return now ? "changed" : "left";
  }
  string line() const {
    if (!now) return "left " + before->label() + ": " + reason;
    const string is_now = verb() + " " + now->label() + " " + now->group;
    if (!before) return is_now;
    return is_now + ": was " + before->label() + " " + before->group;
  }
};

// Changes that wait to be shown. There is one for each user, however often he comes, goes and
// changes his name. A stranger can cause any number of them by UDP. Printed one by one, they would
// bury what people say, or fill a pipe that nobody reads, and a write to that pipe would stop the
// program.
vector<Change> news;
Time news_since;  // when the first of them came
Time last_joined;

// Somebody has been found, and nobody new for a moment.
bool has_found_users() {
  return last_joined > start_time && Clock::now() - last_joined > 200ms;
}

vector<Change>::iterator news_of(const string& id) {
  auto change = news.begin();
  while (change != news.end() && change->id != id)
    ++change;
  return change;
}

void add_news(const Change& latest) {
  const auto known = news_of(latest.id);
  if (news.empty()) news_since = Clock::now();
  if (known == news.end()) {
    news.push_back(latest);
    return;
  }
  known->now = latest.now;
  known->reason = latest.reason;
  if (known->is_undone()) news.erase(known);
}

// Whether standard output takes a line at once. A full pipe would make us wait for its reader.
bool output_has_room() {
  std::cout.flush();
  fd_set writable;
  FD_ZERO(&writable);
  FD_SET(STDOUT_FILENO, &writable);
  timeval at_once{};
  return ::select(STDOUT_FILENO + 1, nullptr, &writable, nullptr, &at_once) == 1;
}

// "27 joined, 3 left; /list shows who is online"
string sum_of(const vector<Change>& changes) {
  string sum;
  for (const string verb : {"joined", "left", "changed"}) {
    size_t count = 0;
    for (const Change& change : changes)
      if (change.verb() == verb) ++count;
    if (count > 0) add_to_list(sum, to_string(count) + " " + verb);
  }
  return sum + "; /list shows who is online";
}

// Whether the user we talked to has come back.
bool is_return(const Change& change) {
  if (!terminal || !chosen || is_talking() || change.before) return false;
  return is_partner_again(*change.now);  // it is set, or nothing would have changed
}

void tell_return(const Identity& who) {
  print("note: " + who.name + " is back; /to " + name_of(who) + " talks to him again");
}

void show_changes(const vector<Change>& changes) {
  constexpr size_t kMostOneByOne = 3;
  const bool is_summed = terminal && changes.size() > kMostOneByOne;
  if (is_summed) console.print_quietly(sum_of(changes));
  for (const Change& change : changes)
    if (!is_summed) console.print_quietly(change.line());
  warn_of_clashes();
  for (const Change& change : changes)
    if (is_return(change)) tell_return(*change.now);
}

void show(vector<Change>::iterator change) {
  const vector<Change> shown = {*change};
  news.erase(change);
  show_changes(shown);
}

// On a terminal, all together, and twice a second at most: a whole class starting up is one line.
// Elsewhere, one by one, for as long as somebody reads.
void show_news() {
  if (news.empty()) return;
  const bool is_due = Clock::now() - news_since >= 500ms;
  if (terminal && is_due) show_changes(std::exchange(news, {}));
  while (!terminal && !news.empty() && output_has_room())
    show(news.begin());
}

void show_news_of(const Identity& who) {
  const auto change = news_of(who.id);
  if (change != news.end()) show(change);
}

// A user whom /to had chosen, or /list had numbered, is not there any more.
void lose(const Identity& who, const string& gone) {
  const bool is_partner = is_talking() && chosen->who.id == who.id;
  for (Addressee& one : numbered) {
    const bool is_it = one.who.id == who.id;
    if (is_it && one.gone.empty()) one.gone = gone;
  }
  if (!is_partner) return;
  chosen->gone = gone;
  show_news_of(who);  // news of the one we talk to does not wait
  if (terminal) print("note: " + fate(*chosen) + "; /to WHO chooses another");
}

void handle(const UserJoined& event) {
  last_joined = Clock::now();
  directory.enter(event.who);
  add_news({event.who.id, nullopt, event.who, ""});
}

void handle(const UserLeft& event) {
  directory.remove(event.who.id);
  add_news({event.who.id, event.who, nullopt, event.why});
  lose(event.who, "has left");
}

void handle(const UserChanged& event) {
  directory.enter(event.who);
  add_news({event.who.id, event.before, event.who, ""});
  const bool has_moved = event.who.address != event.before.address;
  if (has_moved) lose(event.who, "is at another address now");
}

// ---- Options ------------------------------------------------------------------------

string program_name = "peer";  // as it was started

constexpr string_view kVersion = "1.0.0";  // of the program; for the protocol, see kMagic

struct Option {
  const char* name;
  const char* value;  // optional if it begins with [; none if it is empty
  const char* meaning;
  bool (*set)(const string& value);  // false if the value is no good

  bool may_be_alone() const {
    return value[0] == 0 || value[0] == '[';
  }
};

bool set_name(const string& value) {
  myself.name = value;
  return is_own_name(value);
}

bool set_group(const string& value) {
  myself.group = value;
  return is_own_name(value);
}

bool set_port(const string& value) {
  const auto port = parse_port(value);
  if (!port || *port < 1024 || *port == kDiscoveryPort) return false;
  myself.address.port = *port;
  return true;
}

string interface_names() {
  string names;
  struct if_nameindex* const all = ::if_nameindex();
  if (!all) return "none";
  for (const struct if_nameindex* one = all; one->if_index != 0; ++one)
    add_to_list(names, one->if_name);
  ::if_freenameindex(all);
  return names;
}

bool add_interface(const string& value) {
  chosen_interfaces.push_back(value);
  if (::if_nametoindex(value.c_str()) != 0) return true;
  const string fault = "there is no network interface '" + value + "'";
  throw UsageError(fault + "; there are " + interface_names());
}

bool set_folder(const string& value) {
  download_folder = path_meant_by(value);
  return !download_folder.empty();
}

bool set_policy(const string& value) {
  if (value == "ask") accept_policy = Accept::ask;
  else if (value == "always") accept_policy = Accept::always;
  else if (value == "never") accept_policy = Accept::never;
  else return false;
  return true;
}

bool set_sweeps(const string& value) {
  sweeps_allowed = value == "on";
  return value == "on" || value == "off";
}

bool set_trace(const string& value) {
  tracing = true;
  if (value.empty()) return true;
  const string path = path_meant_by(value);
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0666);
  const string why = error_text(errno);
  trace_file = Descriptor(fd);
  if (fd == -1) throw UsageError("cannot write " + path + ": " + why);
  return true;
}

// On a full disk, the user does not get what he asked for.
[[noreturn]] void exit_printed() {
  std::cout.flush();
  std::exit(std::cout ? 0 : 1);
}

bool print_version(const string&) {
  std::cout << "ChatByP2P " << kVersion << ", protocol " << kMagic << "\n";
  exit_printed();
}

bool print_options(const string&);

const Option kOptions[] = {
    {"--name", "NAME", "1 to 32 characters without blanks, no / first: who you are", set_name},
    {"--group", "GROUP", "1 to 32 characters without blanks, no / first: your group (lab)",
     set_group},
    {"--port", "N", "1024 to 65535, not 25252: our own port (first free from 25253)", set_port},
    {"--interface", "NAME", "a network interface: use only this one; repeatable (all)",
     add_interface},
    {"--dir", "DIR", "a folder: where received files go (downloads)", set_folder},
    {"--accept", "HOW", "ask, always or never: what to do with offered files (ask)", set_policy},
    {"--scan", "HOW", "on or off: ask all addresses if broadcast finds nobody (on)", set_sweeps},
    {"--trace", "[=FILE]",
     "show what passes the sockets, or append it to FILE (off)", set_trace},
    {"--version", "", "which version this is", print_version},
    {"--help", "", "this list", print_options},
    {"-h", "", "the same", print_options},
};

bool print_options(const string&) {
  std::cout << "usage: " << program_name << " [OPTION VALUE]...\n";
  for (const Option& option : kOptions) {
    const char* const gap = option.may_be_alone() ? "" : " ";
    std::cout << "  " << option.name << gap << option.value << "  " << option.meaning << "\n";
  }
  exit_printed();
}

const Option& option_called(const string& name) {
  for (const Option& option : kOptions)
    if (option.name == name) return option;
  throw UsageError("unknown option '" + name + "'; --help lists them");
}

void set_option(const Option& option, const string& value) {
  if (option.set(value)) return;
  const string meaning = option.meaning;
  const string values = meaning.substr(0, meaning.find(':'));
  throw UsageError(string(option.name) + " takes " + values + "; not '" + value + "'");
}

// "--" ends them, as everywhere; and nothing else is taken.
void expect_no_more(const Strings& words, size_t from) {
  if (from < words.size())
    throw UsageError("unexpected '" + words[from] + "'; see --help");
}

// The first word is what the program was called by.
void parse_options(const Strings& words) {
  if (!words.empty()) {
    const string& path = words[0];
    program_name = path.substr(begin_of_name(path));
  }
  for (size_t i = 1; i < words.size(); ++i) {
    if (words[i] == "--") {
      expect_no_more(words, i + 1);
      return;
    }
    const size_t equals = words[i].find('=');
    const string name = words[i].substr(0, equals);
    const Option& option = option_called(name);
    string value;
    if (equals != string::npos) {
      value = words[i].substr(equals + 1);
    } else if (!option.may_be_alone()) {
      ++i;
      if (i == words.size()) throw UsageError(name + " needs a value; see --help");
      value = words[i];
    }
    set_option(option, value);
  }
}

// ---- Who we are, where it was not said ----------------------------------------------

// Asks for a name or a group, if there is a terminal; an empty answer means `offered`. If the
// output goes into a file, the question must not go there.
string ask_for(const string& wanted, const string& offered) {
  if (!::isatty(STDIN_FILENO)) return offered;
  std::ostream& screen = ::isatty(STDOUT_FILENO) ? std::cout : std::cerr;
  while (true) {
    screen << "Your " << wanted << " [" << offered << "]: " << std::flush;
    string answer;
    std::getline(std::cin, answer);
    if (!std::cin) {  // Ctrl-D
      screen << std::endl;
      std::exit(0);
    }
    if (answer.empty()) return offered;
    if (is_own_name(answer)) return answer;
    screen << "A " << wanted << " is " << kGoodName << "; Ctrl-D leaves.\n";
  }
}

void ask_who_we_are() {
  const string user = environment("USER");
  const string offered = is_own_name(user) ? user : "user";
  if (myself.name.empty())
    myself.name = ask_for("name", offered);
  if (myself.group.empty())
    myself.group = ask_for("group", "lab");
}

// ---- What is set up before the loop -------------------------------------------------

// A program may be started with standard input, output or error closed (<&- >&-). What it opens
// next gets that number, so it would read commands from a socket, or print into one. /dev/null
// keeps the number taken.
void fill_standard_descriptors() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) != -1) continue;
    check(::open("/dev/null", O_RDWR), "open /dev/null");  // takes the lowest free number: fd
  }
}

// Output is collected until flush(), so that the screen does not flicker. wcwidth() needs a locale.
void prepare_output() {
  static const char* const kLocales[] = {"C.UTF-8", "UTF-8", "en_US.UTF-8", ""};
  std::ios::sync_with_stdio(false);
  for (const char* name : kLocales) {  // macOS has the second
    // NOLINTNEXTLINE(concurrency-mt-unsafe): there is no other thread yet
    const char* const chosen_locale = std::setlocale(LC_CTYPE, name);
    if (chosen_locale) return;
  }
}

// From now on, every descriptor is below `most`. If this fails, nothing changes.
void allow_descriptors(rlim_t most) {
  rlimit limit{};
  const int result = ::getrlimit(RLIMIT_NOFILE, &limit);
  if (result == -1) return;
  limit.rlim_cur = std::min(limit.rlim_max, most);
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// A folder named by the user must be usable. Without the default one, everything still works except
// receiving files.
void prepare_folder() {
  const int made = ::mkdir(download_folder.c_str(), 0777);
  int error = made == 0 ? EEXIST : errno;
  const string inside = download_folder + "/.";  // if it is a file: ENOTDIR
  const int result = ::access(inside.c_str(), W_OK | X_OK);
  if (result == 0) return;
  if (error == EEXIST) error = errno;
  const string why = "files cannot be stored in " + download_folder + ": " + error_text(error);
  if (download_folder != "downloads") throw UsageError(why);
  print("note: " + why + "; choose another folder with --dir");
}

void make_id() {
  std::random_device random;
  while (myself.id.size() < 16)
    myself.id += "0123456789abcdef"[random() % 16];
}

// Opens all sockets with the port in `myself`. Returns what is wrong if another program has the
// port, and nothing if all is well.
string open_port() {
  const auto can_reach = [](uint32_t ip) {
    return discovery::source_for(ip).has_value();
  };
  try {
    transfer::open(can_reach);
    discovery::open();
  } catch (const std::system_error& error) {
    if (error.code() != std::errc::address_in_use) throw;
    return error.what();
  }
  return "";
}

void open_ports() {
  uint16_t& port = myself.address.port;
  const bool is_named = port != 0;
  if (!is_named) port = kFirstPort;
  string trouble = open_port();
  while (!trouble.empty() && !is_named && port < kLastPort) {
    ++port;
    trouble = open_port();
  }
  if (trouble.empty()) return;
  if (is_named) throw UsageError(trouble + "; --port chooses another");
  fail("ports 25253 to 25508 are all taken, for TCP or UDP; end a program that uses one, or choose "
       "another port with --port N");
}

// ---- Signals ------------------------------------------------------------------------

std::atomic<Time> caught_at{};

// The user sends a second one because we have not obeyed the first: a disk hangs, or nobody reads
// our output. But timeout(1) sends two at once, and a closing terminal several SIGHUPs: those count
// once.
bool is_second_signal(int number) {
  const bool is_later = Clock::now() - caught_at.load() > 100ms;
  return signal_caught != 0 && number != SIGHUP && is_later;
}

void note_signal(int number) {
  if (is_second_signal(number)) {
    console.release_at_once();
    ::_exit(128 + number);  // as a shell has it; exit() would wait for whatever hangs
  }
  if (signal_caught == 0) caught_at = Clock::now();
  signal_caught = number;
}

void catch_signals() {
  struct sigaction action{};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;  // a call such as fsync() goes on; see also uninterrupted()
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH}) {
    struct sigaction before{};
    check(::sigaction(number, nullptr, &before), "sigaction");
    // nohup ignores SIGHUP for us; a shell that has no fg, SIGTSTP.
    if (before.sa_handler == SIG_IGN) continue;
    check(::sigaction(number, &action, nullptr), "sigaction");
  }
  // A write to a connection that the other side has closed raises SIGPIPE, which ends the program.
  // Ignored, it leaves us the error EPIPE.
  action.sa_handler = SIG_IGN;
  check(::sigaction(SIGPIPE, &action, nullptr), "sigaction");
  // So does SIGXFSZ, for a file larger than `ulimit -f` allows. Ignored, it leaves us EFBIG.
  check(::sigaction(SIGXFSZ, &action, nullptr), "sigaction");
}

void stop() {
  console.suspend();
  ::signal(SIGTSTP, SIG_DFL);
  ::raise(SIGTSTP);  // not SIGSTOP, which stops us even if no shell is left to say fg
  ::signal(SIGTSTP, on_signal);
}

// The shell may have changed the terminal in any way before fg.
void follow_terminal() {
  const bool has_stopped = stop_is_asked.exchange(false);
  if (has_stopped) stop();
  const bool has_changed = screen_has_changed.exchange(false);
  if (has_stopped || has_changed) console.resume();
}

// Ctrl-C clears the line, if something is typed. Otherwise, and for the other signals, we leave.
void obey_signal(int number) {
  if (number == 0) return;
  if (number != SIGINT || !console.has_text()) {
    stage = Stage::over;
    return;
  }
  console.drop_text();
  int obeyed = SIGINT;
  signal_caught.compare_exchange_strong(obeyed, 0);  // unless another one has come since
}

// If a thread waits for something without a limit, close() waits for that thread. The loop has
// ended and will not obey a signal, so the next one must count as the second.
void admit_to_hang() {
  if (signal_caught == 0) signal_caught = SIGHUP;
  if (!terminal) return;
  print("note: something hangs, perhaps a disk; Ctrl-C ends the program at once");
  std::cout.flush();
}

// ---- The end --------------------------------------------------------------------------

int exit_status() {
  const bool is_script = !::isatty(STDIN_FILENO);
  const bool has_failed = !std::cout || (undelivered && is_script);
  return has_failed ? 1 : 0;
}

void complain(const std::exception& error) {
  std::cerr << program_name << ": " << printable(error.what()) << '\n';
}

}  // namespace
