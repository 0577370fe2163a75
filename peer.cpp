// peer.cpp: the program: the options, the commands, what is printed, the one select() loop, and main().
//
// Read protocol.h, discovery.cpp and transfer.cpp first. This file brings together what those two do not know of each
// other: whom discovery has found, transfer can talk to. It is built up to main(), at its end, which names the parts.
//
// Only the main thread runs here, and only it touches the list of users and the screen. What the threads of connections
// have to say comes out of the event queue, one event at a time, in handle(). docs/interface.md has every line printed.
//
// Left out on purpose, for now: a line editor. A terminal that stands still (Ctrl-S) stops the program with it; a
// larger program would give the screen a thread of its own.

#include <net/if.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <random>
#include <stdexcept>
#include <thread>

#include "protocol.h"

using namespace std::chrono_literals;

namespace {

// ============================================================================
// Options
// ============================================================================

using UsageError = std::invalid_argument;  // what is wrong with the command line, in one sentence: exit status 2

struct Option {
  const char *name, *value, *meaning;
  bool (*set)(const std::string& value);  // false where that is no good value
};

const Option kOptions[] = {
    {"--name", "NAME", "1 to 32 characters without blanks: who you are",
     [](const std::string& value) { return is_name(myself.name = value); }},
    {"--group", "GROUP", "1 to 32 characters without blanks: your group (lab)",
     [](const std::string& value) { return is_name(myself.group = value); }},
    {"--port", "N", "1024 to 65535, not 25252: our own port (first free from 25253)",
     [](const std::string& value) {
       myself.address.port = static_cast<uint16_t>(parse_number(value, UINT16_MAX).value_or(0));
       return myself.address.port >= 1024 && myself.address.port != kDiscoveryPort;
     }},
    {"--interface", "NAME", "a network interface, to use it alone; may be repeated (all)",
     [](const std::string& value) { return chosen_interfaces.push_back(value), ::if_nametoindex(value.c_str()) != 0; }},
    {"--dir", "DIR", "a folder: where received files go (downloads)",
     [](const std::string& value) { return !(download_folder = value).empty(); }},
    {"--accept", "HOW", "ask, always or never: what to do with offered files (ask)",
     [](const std::string& value) {
       accept_policy = value == "always" ? Accept::always : value == "never" ? Accept::never : Accept::ask;
       return value == "ask" || accept_policy != Accept::ask;
     }}};

// `wanted` of a new user: asked for on a terminal, with `offered` for an empty answer.
std::string ask_for(const std::string& wanted, const std::string& offered) {
  while (::isatty(STDIN_FILENO)) {
    std::cout << "Your " << wanted << " [" << offered << "]: " << std::flush;
    std::string answer;
    if (!std::getline(std::cin, answer) || answer.empty()) break;
    if (is_name(answer)) return answer;
    std::cout << "A " << wanted << " is 1 to 32 characters without blanks.\n";
  }
  return offered;
}

void parse_options(const std::vector<std::string>& arguments) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    const size_t equals = arguments[i].find('=');
    const std::string name = arguments[i].substr(0, equals);
    const auto option = std::find_if(std::begin(kOptions), std::end(kOptions), [&](auto& o) { return o.name == name; });
    if (name == "--help") {
      std::cout << "usage: peer [OPTION VALUE]...\n";
      for (const Option& o : kOptions) std::cout << "  " << o.name << " " << o.value << "  " << o.meaning << "\n";
      std::exit(0);
    }
    if (option == std::end(kOptions)) throw UsageError("unknown option '" + name + "'; --help lists them");
    if (equals == std::string::npos && i + 1 == arguments.size()) throw UsageError(name + " needs a value; see --help");
    const std::string value = equals == std::string::npos ? arguments[++i] : arguments[i].substr(equals + 1);
    if (!option->set(value)) throw UsageError(name + " takes " + option->meaning + "; not '" + value + "'");
  }
  const char* user = std::getenv("USER");
  if (myself.name.empty()) myself.name = ask_for("name", user && is_name(user) ? user : "user");
  if (myself.group.empty()) myself.group = ask_for("group", "lab");
}

// ============================================================================
// State, and the screen
// ============================================================================

struct Post {  // what the user said or sent once, to one or to many
  std::string text, scope;
  size_t total, open, reached = 0;
  std::string got = {}, missed = {};  // who, and who not
};

struct File {  // an offer or a transfer
  uint64_t ticket;
  std::string direction, who;
  Offer offer = {};
  uint64_t post = 0;  // that it is part of
  std::string state = "offered";
  Clock::time_point started = {};
  uint64_t resumed_at = 0;
};

const bool terminal = ::isatty(STDIN_FILENO) && ::isatty(STDOUT_FILENO);
const Clock::time_point start_time = Clock::now();
Clock::time_point last_joined;
std::string typed;                   // and not yet a line
bool input_ended, leaving, leave_now, undelivered, progress_is_shown;
Clock::time_point progress_at;
std::vector<std::string> numbered;   // ids in the order of the last /list: numbers must not shift meanwhile
std::optional<Identity> chosen;      // by /to
std::map<uint64_t, Post> posts;      // by ticket
std::map<uint64_t, File> files;      // by the number that the user sees
uint64_t next_post = 1, next_file = 1;

std::string progress();  // of the transfer that runs, if one does

// Without wrapping around where the row ends (ESC [?7l): what is in the next row would be left there.
std::string one_row(const std::string& text) { return "\033[?7l" + printable(text) + "\033[?7h"; }

void show_prompt() {
  if (!terminal) return;
  const std::string now = progress();
  progress_is_shown = !now.empty();
  std::cout << "\r\033[K" << (now.empty() ? "" : one_row(now) + "\n") << "> ";
}

// The one way to the screen: whatever strangers wrote into a line, it cannot steer the terminal. There, the line goes
// above the prompt, and above the progress of a transfer.
void print(const std::string& line) {
  if (terminal) std::cout << (progress_is_shown ? "\r\033[K\033[A\033[K" : "\r\033[K");
  std::cout << printable(line) << '\n';
  show_prompt();
  if (!std::cout.flush()) leave_now = undelivered = true;  // nobody reads us any more
}

// Four times a second, without touching the line that is being typed: up, anew, and back (ESC 7, ESC 8).
void show_progress() {
  if (!progress_is_shown || Clock::now() < progress_at) return;
  progress_at = Clock::now() + 250ms;
  std::cout << "\0337\033[A\r\033[K" << one_row(progress()) << "\0338" << std::flush;
}

// Somebody under the name that the list has: a conversation may have begun under an older one.
// Anyone can claim an id, though; its address he cannot.
std::string label(const Identity& who) {
  const auto user = discovery::user(who.id);
  return (user && user->address == who.address ? *user : who).label();
}

Identity own_entry() {
  Identity own = myself;
  own.said_ip = own.address.ip = discovery::own_ip();
  return own;
}

// ============================================================================
// Commands: what cannot be done is thrown, as one sentence
// ============================================================================

[[noreturn]] void fail(const std::string& sentence) { throw std::runtime_error(sentence); }

// Takes the next word off `rest`, and the blanks behind it.
std::string next_word(std::string& rest) {
  std::string_view left = rest;
  const std::string word(take_word(left));
  rest = left.substr(std::min(left.find_first_not_of(' '), left.size()));
  return word;
}

// Whom WHO means. A word can be one user's name and another's number: then it is refused, never guessed.
Identity find(const std::string& who) {
  if (who.empty()) fail("to whom? a name, a number of /list, NAME@IP:PORT or IP:PORT");
  const auto number = parse_number(who, numbered.size());
  const std::string id = number.value_or(0) > 0 ? numbered[*number - 1] : "";
  const auto address = parse_address(std::string_view(who).substr(who.rfind('@') + 1));  // npos + 1 is 0
  std::vector<Identity> fits;
  std::string candidates;
  for (const Identity& user : discovery::users()) {
    const bool named = who == user.name || id == user.id;
    const bool at_address = address == user.address && (who == user.label() || who == address->text());
    if (!(address ? at_address : named)) continue;  // a name that looks like an address shall mislead nobody
    fits.push_back(user);
    candidates += (candidates.empty() ? "" : " or ") + user.label();
  }
  if (fits.size() == 1) return fits[0];
  if (fits.size() > 1) fail(who + " can mean more than one user; write " + candidates);
  if (address && who == address->text()) return {"", "", "", *address, 0};
  if (who == myself.name || id == myself.id) fail(who + " is you");
  fail("nobody called " + who + " is online; /list shows who is");
}

void list(std::string) {
  std::vector<Identity> all = discovery::users();
  const Identity own = own_entry();
  all.insert(std::find_if(all.begin(), all.end(), [&](auto& user) { return user.label() > own.label(); }), own);
  numbered.clear();
  for (const Identity& user : all) {
    numbered.push_back(user.id);
    const std::string said = user.said_ip == user.address.ip ? "" : " says " + Address{user.said_ip}.ip_text();
    print("user " + to_string(numbered.size()) + (user.id == myself.id ? " * " : " - ") + user.name + " " + user.group +
          " " + user.address.text() + said);
  }
  print("users " + to_string(all.size()));
}

void choose(std::string who) {
  chosen = find(who);
  print("to " + chosen->label());
}

void introduce_as(const std::string& name, const std::string& group) {
  if (!is_name(name) || !is_name(group)) fail("a name or group is 1 to 32 characters without blanks");
  myself.name = name;
  myself.group = group;
  discovery::tell_everyone(Verb::here);
  print("you " + own_entry().label() + " " + group);
}

void scan(std::string where) {
  if (where.empty()) return discovery::scan();
  const size_t slash = where.find('/');
  const auto bits = slash == std::string::npos ? 32 : parse_number(where.substr(slash + 1), 32);
  const auto address = parse_address(where);
  const auto ip = address ? address->ip : parse_ip(where.substr(0, slash));
  if (!ip || !bits) fail("/scan takes nothing, ADDRESS, ADDRESS:PORT or NETWORK/BITS");
  if (!discovery::source_for(*ip)) fail("no usable route leads to " + where);
  discovery::scan(*ip, static_cast<int>(*bits), address ? address->port : kDiscoveryPort);
}

void quit(std::string) {
  leave_now = leaving;
  leaving = true;
}

// ---- Messages ---------------------------------------------------------------

// One copy of a post was delivered, or was not. The last one sums it up.
void settle(const Event& event) {
  Post& post = posts[event.ticket];
  const bool missed = event.kind == Event::Kind::undelivered, is_file = post.scope == "files";
  const std::string who = label(event.who);
  undelivered |= missed;
  if (missed && !is_file) print("failed " + who + ": " + event.text + "; not delivered: " + post.text);
  if (!missed && post.scope == "private") print("delivered " + who + ": " + post.text);
  if (missed) post.missed += (post.missed.empty() ? "" : ", ") + who + (is_file ? " (" + event.text + ")" : "");
  else post.got += (post.got.empty() ? "" : ", ") + who;
  post.reached += !missed;
  if (--post.open > 0) return;
  const std::string reached = to_string(post.reached) + " of " + to_string(post.total);
  const std::string not_to = post.missed.empty() ? "" : "; not reached: " + post.missed;
  if (is_file) print("sent to " + reached + (post.got.empty() ? "" : ", " + post.got) + not_to + ": " + post.text);
  else if (post.scope != "private") print("delivered " + reached + not_to);
  posts.erase(event.ticket);
}

void send(const std::string& scope, const std::string& text, const std::vector<Identity>& to) {
  if (text.empty()) fail("there is no text to send");
  if (text.size() > kMaxText) fail("a message has at most 4000 bytes; this one has " + to_string(text.size()));
  if (!is_text(text)) fail("a message is UTF-8 without control characters");
  const uint64_t ticket = next_post++;
  posts[ticket] = {text, scope, to.size(), to.size()};
  for (const Identity& one : to) try {
      transfer::send_message(one, scope, text, ticket);
    } catch (const std::exception& error) {
      settle({Event::Kind::undelivered, one, error.what(), ticket});
    }
}

// Everyone else, or everyone else in our group.
std::vector<Identity> audience(const std::string& scope) {
  std::vector<Identity> all;
  for (const Identity& user : discovery::users())
    if (scope == "all" || user.group == myself.group) all.push_back(user);
  if (all.empty()) fail("nobody else is " + (scope == "all" ? "online" : "in group " + myself.group));
  return all;
}

void send_to_many(const std::string& scope, const std::string& text) { send(scope, text, audience(scope)); }

void say(const std::string& text) {
  if (!chosen) fail("to whom? choose with /to WHO, or write /msg WHO TEXT");
  const auto to = discovery::user(chosen->id);
  if (!to && !chosen->id.empty()) fail(chosen->label() + " has left; /to WHO chooses another");
  send("private", text, {to.value_or(*chosen)});
}

void message(std::string rest) {
  const Identity to = find(next_word(rest));
  send("private", rest, {to});
}

// ---- Files --------------------------------------------------------------------

void print_file(uint64_t number, const File& file, const std::string& remark = "") {
  const Offer& offer = file.offer;
  const std::string entries = offer.is_folder() ? " in " + to_string(offer.files) + " files and folders" : "";
  print(file.direction + " " + to_string(number) + " " + file.state + " " + file.who + " " + to_string(offer.size) +
        " bytes" + entries + remark + ": " + offer.name);
}

// To each of them on a connection and a thread of its own: who is slow, or says no, holds up nobody.
void send_files(const std::string& path, const std::vector<Identity>& to) {
  const uint64_t post = to.size() > 1 ? next_post++ : 0;
  if (post != 0) posts[post] = {path, "files", to.size(), to.size()};
  for (const Identity& one : to) try {
      files[next_file++] = {transfer::send_file(one, path), "send", label(one), {0, 1, path}, post};
    } catch (const std::exception& error) {
      if (post == 0) throw;
      settle({Event::Kind::undelivered, one, error.what(), post});
    }
}

void send_file(std::string rest) {
  const Identity to = find(next_word(rest));
  if (rest.empty()) fail("which file? /send WHO PATH");
  send_files(rest, {to});
}

void send_file_to_many(const std::string& scope, const std::string& path) {
  if (path.empty()) fail("which file? /send" + scope + " PATH");
  if (::access(path.c_str(), R_OK) == -1) fail("cannot read " + path + ": " + std::generic_category().message(errno));
  send_files(path, audience(scope));
}

// The entry whose number `rest` begins with.
File& take_file(std::string& rest) {
  const std::string word = next_word(rest);
  if (word.empty()) fail("which transfer? give its number; /transfers lists them");
  const auto found = files.find(parse_number(word).value_or(0));
  if (found == files.end()) fail("there is no transfer '" + word + "'; /transfers lists them");
  return found->second;
}

void answer(std::string rest, Accept consent) {
  File& file = take_file(rest);
  if (file.direction != "receive" || file.state != "offered") fail("that is not an offer that waits for an answer");
  if (!rest.empty() && safe_file_name(rest) != rest) fail("'" + rest + "' is not a file name; give one without a path");
  file.state = "answered";
  transfer::answer(file.ticket, consent, rest);
}

// Bytes a second since it started, not counting what an earlier try has left.
double speed(const File& file, uint64_t done) {
  const std::chrono::duration<double> time = Clock::now() - file.started + 1ms;
  return static_cast<double>(done - std::min(done, file.resumed_at)) / time.count();
}

std::string megabytes(double bytes) { return to_string(std::llround(bytes / 1e6)) + " MB"; }

void list_transfers(std::string) {
  for (const auto& [number, file] : files) {
    const uint64_t done = transfer::bytes_done(file.ticket);
    const std::string progress = ", " + to_string(done) + " done, " + megabytes(speed(file, done)) + "/s";
    print_file(number, file, file.state == "started" ? progress : "");
  }
  print("transfers " + to_string(files.size()));
}

// For the line above the prompt: how far the first transfer that runs has come. What matters most comes first, for the
// line is cut where the screen ends.
std::string progress() {
  const auto is_running = [](const auto& f) { return f.second.state == "started"; };
  const auto found = std::find_if(files.begin(), files.end(), is_running);
  if (found == files.end()) return "";
  const File& file = found->second;
  const uint64_t done = transfer::bytes_done(file.ticket), size = std::max<uint64_t>(file.offer.size, 1);
  const double rate = speed(file, done);
  std::string bar(10, ' ');
  std::fill_n(bar.begin(), std::min<uint64_t>(done * 10 / size, 10), '=');
  const auto left = std::llround(static_cast<double>(size - std::min(size, done)) / std::max(rate, 1.0));
  return "[" + bar + "] " + to_string(done * 100 / size) + " %, " + megabytes(rate) + "/s, " +
         (rate > 0 ? to_string(left) + " s left, " : "") + file.direction + " " + to_string(found->first) + " " +
         file.who + ": " + file.offer.name;
}

// An offer, or a transfer that has begun, or has ended, well or badly.
void update_file(const Event& event) {
  using Kind = Event::Kind;
  const auto is_meant = [&](const auto& f) { return f.second.ticket == event.ticket; };
  if (event.kind == Kind::offered && std::none_of(files.begin(), files.end(), is_meant))
    files[next_file++] = {event.ticket, "receive", label(event.who)};
  const auto found = std::find_if(files.begin(), files.end(), is_meant);
  if (found == files.end()) return;
  auto& [number, file] = *found;
  const bool sends = file.direction == "send", failed = event.kind == Kind::failed, stored = event.kind == Kind::stored;
  undelivered |= sends && (failed || (stored && event.file.files < file.offer.files));
  if (event.kind == Kind::started) {
    file.state = "started";
    file.started = Clock::now();
    file.resumed_at = transfer::bytes_done(file.ticket);
  }
  if (failed || stored) file.state = failed ? "failed" : sends ? "delivered" : "stored";
  if (!failed) file.offer = event.file;
  print_file(number, file, (stored ? ", cksum " + to_string(event.crc) : failed ? ", " : "") + event.text);
  if (terminal && !sends && event.kind == Kind::offered && accept_policy == Accept::ask)
    print("note: /accept " + to_string(number) + " takes it, /reject " + to_string(number) + " does not");
  if (!failed && !stored) return;
  const Event end{failed ? Kind::undelivered : Kind::delivered, event.who, event.text, file.post};
  files.erase(found);
  if (end.ticket != 0) settle(end);
}

// ---- The table -----------------------------------------------------------------

void help(std::string);

const struct Command {
  const char *name, *arguments, *meaning;
  void (*run)(std::string rest);
} kCommands[] = {
    {"/list", "", "who is online", list},
    {"/to", " WHO", "talk to WHO: a name, a number of /list, NAME@IP:PORT or IP:PORT", choose},
    {"/msg", " WHO TEXT", "one message", message},
    {"/group", " TEXT", "a message to everyone in your group", [](std::string text) { send_to_many("group", text); }},
    {"/all", " TEXT", "a message to everyone", [](std::string text) { send_to_many("all", text); }},
    {"/send", " WHO PATH", "offer a file or a folder", send_file},
    {"/sendgroup", " PATH", "to everyone in your group", [](std::string path) { send_file_to_many("group", path); }},
    {"/sendall", " PATH", "to everyone", [](std::string path) { send_file_to_many("all", path); }},
    {"/accept", " N [AS]", "take the file of offer N, as AS", [](std::string rest) { answer(rest, Accept::always); }},
    {"/reject", " N", "do not take it", [](std::string rest) { answer(next_word(rest), Accept::never); }},
    {"/cancel", " N", "end transfer N", [](std::string rest) { transfer::cancel(take_file(rest).ticket); }},
    {"/transfers", "", "offers and transfers under way", list_transfers},
    {"/name", " NEW", "change your name", [](std::string name) { introduce_as(name, myself.group); }},
    {"/join", " GROUP", "change your group", [](std::string group) { introduce_as(myself.name, group); }},
    {"/scan", " [TARGET]", "look again; TARGET: ADDRESS, ADDRESS:PORT or NETWORK/BITS", scan},
    {"/help", "", "this list", help},
    {"/quit", "", "finish what is being sent, and leave; twice: leave now", quit},
};

void help(std::string) {
  for (const Command& c : kCommands) print(std::string("help: ") + c.name + c.arguments + ": " + c.meaning);
  print("help: any other line is a message to whom /to chose; a first // sends one /");
}

// One line of input.
void obey(std::string line) {
  if (!line.empty() && line.back() == '\r') line.pop_back();  // a script written on Windows
  if (line.find_first_not_of(" \t") == std::string::npos) return;
  const bool is_text = line[0] != '/' || line.substr(0, 2) == "//";
  std::string rest = line;
  const std::string name = is_text ? "" : next_word(rest);
  try {
    if (leaving && name != "/quit") fail("leaving; /quit again does not wait");
    if (is_text) return say(line.substr(line[0] == '/' ? 1 : 0));
    const auto is_meant = [&](const Command& command) { return command.name == name; };
    const auto command = std::find_if(std::begin(kCommands), std::end(kCommands), is_meant);
    if (command == std::end(kCommands)) fail("unknown command " + name + "; /help lists them");
    command->run(rest);
  } catch (const std::exception& error) {
    print(std::string("error: ") + error.what());
    for (const char* sends : {"", "/msg", "/group", "/all", "/send", "/sendgroup", "/sendall"})
      undelivered |= name == sends;
  }
}

// ============================================================================
// Events: what the other parts report
// ============================================================================

void handle(const Event& event) {
  using Kind = Event::Kind;
  switch (event.kind) {
    case Kind::joined:
      last_joined = Clock::now();
      return print("joined " + event.who.label() + " " + event.who.group);
    case Kind::left: return print("left " + event.who.label() + ": " + event.text);
    case Kind::changed: return print("changed " + event.who.label() + " " + event.who.group + ": was " + event.text);
    case Kind::unheard: return transfer::knock(event.who);
    case Kind::told: return print(event.text);
    case Kind::introduced: return discovery::heard_over_tcp(event.who);
    case Kind::message:
      if (transfer::is_repeat(event)) return;
      return print("message " + label(event.who) + " " + event.message.scope + ": " + event.message.text);
    case Kind::delivered:
    case Kind::undelivered: return settle(event);
    case Kind::offered:
    case Kind::started:
    case Kind::stored:
    case Kind::failed: return update_file(event);
  }
}

void handle_events() {
  transfer::reap();  // first: what an ended thread has pushed is in the queue by then
  for (const Event& event : events.take_all()) handle(event);
}

// ============================================================================
// Starting, the loop, and main()
// ============================================================================

std::atomic<int> signal_caught{0};  // a handler may run on any thread

// All a handler may do: note it, and make select() return. A flag alone could be set just before select() begins to
// wait, and be seen only when the next datagram comes.
extern "C" void on_signal(int number) {
  signal_caught = number;
  events.wake();
}

void catch_signals() {
  struct sigaction action{};
  action.sa_handler = on_signal;
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) check(::sigaction(number, &action, nullptr), "sigaction");
  // A write to a connection that the other side has closed raises SIGPIPE and ends the program: an error will do.
  action.sa_handler = SIG_IGN;
  check(::sigaction(SIGPIPE, &action, nullptr), "sigaction");
}

// 512 connections, each with a folder and a file of it open, need more descriptors than the 1,024 that a program may
// have unless it asks for more. What select() watches is opened first, and stays below FD_SETSIZE.
void allow_descriptors() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == -1) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);  // if it fails, the program has what it had
}

// A folder that the user names must be good; without the default one, all but receiving files still works.
void prepare_folder() {
  const int error = ::mkdir(download_folder.c_str(), 0777) == -1 && errno != EEXIST ? errno : 0;
  if (::access((download_folder + "/.").c_str(), W_OK | X_OK) == 0) return;  // "/." of a file is ENOTDIR
  const std::string reason = std::generic_category().message(error != 0 ? error : errno);
  const std::string why = "files cannot be stored in " + download_folder + ": " + reason;
  if (download_folder != "downloads") throw UsageError(why);
  print("note: " + why + "; choose another folder with --dir");
}

// Who we are: the id is drawn, and the port is the one that was named, or else the first free one.
void open_ports() {
  std::random_device random;
  while (myself.id.size() < 16) myself.id += "0123456789abcdef"[random() % 16];
  uint16_t& port = myself.address.port;
  const bool is_named = port != 0;
  if (!is_named) port = kFirstPort;
  for (;; ++port) try {
      transfer::open([](uint32_t ip) { return discovery::source_for(ip).has_value(); });
      discovery::open();
      return;
    } catch (const std::system_error& error) {
      if (error.code() != std::errc::address_in_use) throw;
      if (is_named || port == kLastPort) throw UsageError(std::string(error.what()) + "; --port chooses another");
    }
}

// The first command of a pipe waits until the first scan was answered: somebody was found and nobody new came for a
// moment, or 1 s has passed.
bool reads_commands() {
  const auto now = Clock::now();
  const bool found = last_joined > start_time && now - last_joined > 200ms;
  return !input_ended && (terminal || found || now - start_time > 1s);
}

void read_keyboard() {
  std::array<char, 4096> bytes;
  const ssize_t got = uninterrupted([&] { return ::read(STDIN_FILENO, bytes.data(), bytes.size()); });
  if (std::exchange(progress_is_shown, false)) std::cout << "\033[2A\033[M\033[B";  // Enter has moved the prompt away
  if (got > 0) typed.append(bytes.data(), static_cast<size_t>(got));
  else if (!typed.empty()) typed += '\n';  // the end of input ends its last line, too
  for (size_t end; (end = typed.find('\n')) != std::string::npos; typed.erase(0, end + 1)) obey(typed.substr(0, end));
  if (got <= 0) input_ended = leaving = true;
  if (!progress_is_shown) show_prompt();  // or print() has done so
  std::cout.flush();
}

// Until there is something to do: which descriptors can be read. They were opened first of all, so they are small
// numbers: one of FD_SETSIZE (1,024) or more would make FD_SET() write outside its array, without a word. select()
// overwrites its set and, on Linux, its timeout: both are made anew each time.
fd_set wait() {
  fd_set readable;
  FD_ZERO(&readable);
  FD_SET(events.descriptor(), &readable);
  discovery::watch(readable);
  transfer::watch(readable);
  if (reads_commands()) FD_SET(STDIN_FILENO, &readable);
  timeval timeout{0, std::chrono::duration_cast<std::chrono::microseconds>(discovery::pause()).count()};
  if (::select(FD_SETSIZE, &readable, nullptr, nullptr, &timeout) != -1) return readable;
  if (errno != EINTR) check(-1, "select");
  FD_ZERO(&readable);  // after an error the set means nothing
  return readable;
}

bool is_over() { return signal_caught || leave_now || (leaving && !transfer::is_sending()); }

}  // namespace

int main(int argc, char** argv) try {
  parse_options({argv + 1, argv + argc});
  catch_signals();  // before anyone can see us: who is found may be told to leave
  allow_descriptors();
  prepare_folder();
  open_ports();
  print("ready " + own_entry().label() + " " + myself.group);
  if (terminal) print("/help lists the commands");
  while (!is_over()) {
    const fd_set readable = wait();
    if (FD_ISSET(STDIN_FILENO, &readable)) read_keyboard();
    discovery::receive(readable);
    transfer::accept_connection(readable);
    discovery::tick();
    handle_events();
    show_progress();
  }
  discovery::tell_everyone(Verb::bye);
  transfer::cancel();  // some connections have last words to say
  for (const auto end = Clock::now() + 1s; transfer::is_open() && Clock::now() < end; std::this_thread::sleep_for(1ms))
    handle_events();
  transfer::close();
  handle_events();
  if (terminal) std::cout << std::endl;
  return undelivered && !::isatty(STDIN_FILENO) ? 1 : 0;
} catch (const UsageError& error) {
  std::cerr << "peer: " << printable(error.what()) << '\n';
  return 2;
} catch (const std::exception& error) {
  std::cerr << "peer: " << error.what() << '\n';
  return 1;
}
