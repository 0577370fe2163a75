// peer.cpp: the program: main(), the options, the one select() loop, the commands, and what is printed.
//
// Read protocol.h, discovery.cpp and transfer.cpp first. This file knows both through their classes in protocol.h, and
// brings together what they do not know of each other: whom Discovery has found, Transfer can talk to.
//
// Only the main thread runs here, and only it touches the list of users and the screen. What threads have to say
// comes out of the event queue, one event at a time, in handle(). docs/interface.md has every line that is printed.
//
// Left out on purpose, for now: a line editor. A terminal that stands still (Ctrl-S) stops the program with it; a larger
// program would give the screen a thread of its own.

#include <net/if.h>
#include <signal.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <random>
#include <stdexcept>
#include <tuple>

#include "protocol.h"

using namespace std::chrono_literals;

namespace {

constexpr auto kFirstScan = 1s;      // at most so long is the first command of a pipe held back
constexpr auto kFirstQuiet = 200ms;  // or, once somebody was found, until nobody new came for so long

// ============================================================================
// Options
// ============================================================================

constexpr const char* kUsage =
    "usage: peer [--name NAME] [--group GROUP] [--port N] [--interface NAME]...\n"
    "            [--dir DIR] [--accept ask|always|never] [--help]\n"
    "  --name NAME       who you are: 1 to 32 characters without blanks\n"
    "  --group GROUP     the group you belong to (lab)\n"
    "  --port N          this instance's own port, 1024 to 65535 (first free from 25253)\n"
    "  --interface NAME  use this network interface only; may be repeated (all that are up)\n"
    "  --dir DIR         where received files go (downloads)\n"
    "  --accept HOW      what to do with offered files: ask, always or never (ask)\n";

struct Settings {
  Announcement self;
  std::vector<std::string> interfaces;
  std::string folder;
  Accept accept = Accept::ask;
};

// What is wrong with the command line, in one sentence: exit status 2.
struct UsageError {
  std::string sentence;
};

void set_option(Settings& settings, const std::string& option, const std::string& value) {
  if (option == "--name" || option == "--group") {
    if (!is_name(value)) throw UsageError{option + " takes 1 to 32 characters without blanks, not '" + value + "'"};
    (option == "--name" ? settings.self.name : settings.self.group) = value;
  } else if (option == "--port") {
    const auto port = parse_number(value, UINT16_MAX);
    if (!port || *port < 1024 || *port == kDiscoveryPort)
      throw UsageError{"--port takes a number from 1024 to 65535 other than 25252, not '" + value + "'"};
    settings.self.port = static_cast<uint16_t>(*port);
  } else if (option == "--interface") {
    if (::if_nametoindex(value.c_str()) == 0) throw UsageError{"there is no interface '" + value + "'; see 'ip addr'"};
    settings.interfaces.push_back(value);
  } else if (option == "--dir") {
    settings.folder = value;
  } else if (option == "--accept") {
    const auto ways = {"ask", "always", "never"};
    const auto way = std::find(ways.begin(), ways.end(), value);
    if (way == ways.end()) throw UsageError{"--accept takes ask, always or never, not '" + value + "'"};
    settings.accept = static_cast<Accept>(way - ways.begin());
  } else {
    throw UsageError{"unknown option '" + option + "'; --help lists them"};
  }
}

// `wanted` of a new user: asked for on a terminal, with `offered` for an empty answer.
std::string ask_for(const std::string& wanted, std::string offered) {
  if (!is_name(offered)) offered = "user";
  while (::isatty(STDIN_FILENO)) {
    std::cout << "Your " << wanted << " [" << offered << "]: " << std::flush;
    std::string answer;
    if (!std::getline(std::cin, answer) || answer.empty()) break;
    if (is_name(answer)) return answer;
    std::cout << "A " << wanted << " is 1 to 32 characters without blanks.\n";
  }
  return offered;
}

std::string random_id() {
  std::random_device random;
  char id[17];
  std::snprintf(id, sizeof id, "%08x%08x", random(), random());
  return id;
}

Settings parse_options(const std::vector<std::string>& arguments) {
  Settings settings;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const size_t equals = std::min(arguments[i].find('='), arguments[i].size());
    const std::string option = arguments[i].substr(0, equals);
    if (option == "--help") {
      std::cout << kUsage;
      std::exit(0);
    }
    if (equals < arguments[i].size()) set_option(settings, option, arguments[i].substr(equals + 1));
    else if (i + 1 < arguments.size()) set_option(settings, option, arguments[++i]);
    else throw UsageError{option + " needs a value, or is unknown; --help lists the options"};
  }
  const char* user = std::getenv("USER");
  if (settings.self.name.empty()) settings.self.name = ask_for("name", user ? user : "");
  if (settings.self.group.empty()) settings.self.group = ask_for("group", "lab");
  settings.self.id = random_id();
  return settings;
}

// ============================================================================
// The peer
// ============================================================================

volatile sig_atomic_t signal_caught = 0;
const EventQueue* queue_to_wake = nullptr;

// All a handler may do: note it, and make select() return. A flag alone could be set just before select() begins to
// wait, and be seen only when the next datagram comes.
extern "C" void on_signal(int number) {
  signal_caught = number;
  queue_to_wake->wake();
}

std::string label(const std::string& name, Address address) { return name + "@" + address.text(); }
std::string label(const User& user) { return label(user.card.name, user.address); }

// The next word of `rest`, which keeps what follows the blanks behind it.
std::string take_word(std::string& rest) {
  const size_t end = std::min(rest.find(' '), rest.size());
  const std::string word = rest.substr(0, end);
  rest.erase(0, std::min(rest.find_first_not_of(' ', end), rest.size()));
  return word;
}

class Peer {
 public:
  explicit Peer(const Settings& settings)
      : self_(settings.self), terminal_(::isatty(STDIN_FILENO) && ::isatty(STDOUT_FILENO)) {
    prepare_folder(settings.folder);
    open_ports(settings);
    print("ready " + label(self_.name, discovery_->self_address()) + " " + self_.group);
  }

  int run() {
    while (!is_over()) {
      fd_set readable;
      FD_ZERO(&readable);
      int highest = events_.descriptor();
      FD_SET(events_.descriptor(), &readable);
      discovery_->watch(readable, highest);
      if (transfer_->can_accept()) watch(transfer_->listener(), readable, highest);
      if (reads_commands()) watch(STDIN_FILENO, readable, highest);
      wait(readable, highest);
      if (FD_ISSET(STDIN_FILENO, &readable)) read_keyboard();
      discovery_->receive(readable);
      if (FD_ISSET(transfer_->listener(), &readable)) transfer_->accept_connection();
      discovery_->tick();
      transfer_->reap();  // before the events: what it pushes comes after all that the ended threads have pushed
      for (const Event& event : events_.take_all()) handle(event);
    }
    discovery_->leave();
    transfer_->stop();
    for (const Event& event : events_.take_all()) handle(event);  // acknowledged already, so it has to be shown
    return undelivered_ && !::isatty(STDIN_FILENO) ? 1 : 0;
  }

 private:
  // ---- Starting ------------------------------------------------------------------

  // A folder given by the user must be good; without the default one, all but receiving files still works.
  void prepare_folder(const std::string& given) {
    folder_ = given.empty() ? "downloads" : given;
    ::mkdir(folder_.c_str(), 0777);
    if (::access(folder_.c_str(), W_OK | X_OK) == 0) return;
    const std::string why = "files cannot be stored in " + folder_ + ": " + std::generic_category().message(errno);
    if (!given.empty()) throw UsageError{why};
    print("note: " + why + "; choose another folder with --dir");
  }

  void open_ports(const Settings& settings) {
    const bool chosen = settings.self.port != 0;
    self_.port = chosen ? settings.self.port : kFirstPort;
    for (;; ++self_.port) {
      try {
        transfer_ = std::make_unique<Transfer>(self_, folder_, settings.accept, events_,
                                               [this](Address to) { return discovery_->source_for(to).has_value(); });
        discovery_ = std::make_unique<Discovery>(self_, settings.interfaces, events_);
        return;
      } catch (const std::system_error& error) {
        if (error.code() != std::errc::address_in_use) throw;
        if (chosen) throw UsageError{"port " + std::to_string(self_.port) + " is taken; choose another with --port"};
        if (self_.port == kLastPort) throw UsageError{"ports 25253 to 25508 are all taken; choose one with --port"};
      }
    }
  }

  // ---- The loop --------------------------------------------------------------------

  static void watch(int fd, fd_set& readable, int& highest) {
    FD_SET(fd, &readable);
    highest = std::max(highest, fd);
  }

  void wait(fd_set& readable, int highest) {
    const auto until = std::min(discovery_->due(), Clock::now() + 100ms);
    const auto left = std::chrono::duration_cast<std::chrono::microseconds>(until - Clock::now()).count();
    timeval timeout{0, std::max<long>(left, 0)};
    if (::select(highest + 1, &readable, nullptr, nullptr, &timeout) != -1) return;
    if (errno != EINTR) check(-1, "select");
    FD_ZERO(&readable);  // after an error the sets mean nothing
  }

  bool reads_commands() const {
    const auto now = Clock::now();
    const bool found = discovery_->count() > 0 && now - last_joined_ > kFirstQuiet;
    return !input_ended_ && (terminal_ || found || now - started_ > kFirstScan);
  }

  bool is_over() const { return signal_caught || leave_now_ || (leaving_ && !transfer_->sending()); }

  void read_keyboard() {
    std::array<char, 4096> bytes;
    const ssize_t got = uninterrupted([&] { return ::read(STDIN_FILENO, bytes.data(), bytes.size()); });
    if (got > 0) input_.append(bytes.data(), static_cast<size_t>(got));
    else if (!input_.empty()) input_ += '\n';  // the end of input ends its last line, too
    for (size_t end; (end = input_.find('\n')) != std::string::npos; input_.erase(0, end + 1)) obey(input_.substr(0, end));
    if (got <= 0) input_ended_ = leaving_ = true;
    if (terminal_) print_prompt();
  }

  // ---- Printing ----------------------------------------------------------------------

  // The one way to the screen: whatever strangers wrote into the line, it cannot steer the terminal.
  void print(const std::string& line) {
    std::cout << (terminal_ ? "\r\033[K" : "") << printable(line) << '\n';
    if (terminal_) print_prompt();
    if (!std::cout.flush()) leave_now_ = true;  // nobody reads us any more
  }

  void print_prompt() { std::cout << "> " << std::flush; }

  // Names that clash are shown apart.
  std::string short_label(const User& user) const {
    const auto same = [&](const auto& entry) { return entry.second.listed && entry.second.card.name == user.card.name; };
    const auto& users = discovery_->users();
    return std::count_if(users.begin(), users.end(), same) > 1 ? label(user) : user.card.name;
  }

  // ---- Commands ------------------------------------------------------------------------

  struct Command {
    const char *name, *arguments, *meaning;
    void (Peer::*run)(std::string rest);
  };

  static const std::vector<Command>& commands() {
    static const std::vector<Command> all = {
        {"/list", "", "who is online", &Peer::list},
        {"/to", "WHO", "plain lines go to WHO: a name, a number of /list, NAME@IP:PORT or IP:PORT", &Peer::choose},
        {"/msg", "WHO TEXT", "one message", &Peer::message},
        {"/group", "TEXT", "a message to everyone in your group", &Peer::message_group},
        {"/all", "TEXT", "a message to everyone", &Peer::message_all},
        {"/send", "WHO PATH", "offer a file", &Peer::send_file},
        {"/accept", "N [AS]", "take the file of offer N, under the name AS", &Peer::accept},
        {"/reject", "N", "do not take it", &Peer::reject},
        {"/cancel", "N", "end transfer N", &Peer::cancel},
        {"/transfers", "", "offers and transfers under way", &Peer::list_transfers},
        {"/name", "NEW", "change your name", &Peer::rename},
        {"/join", "GROUP", "change your group", &Peer::join},
        {"/scan", "[TARGET]", "look again; TARGET is ADDRESS, ADDRESS:PORT or NETWORK/BITS", &Peer::scan},
        {"/help", "", "this list", &Peer::help},
        {"/quit", "", "finish what is being sent, and leave; twice: leave now", &Peer::quit},
    };
    return all;
  }

  // One line of input. What cannot be done is one sentence, and the program goes on.
  void obey(std::string line) {
    if (!line.empty() && line.back() == '\r') line.pop_back();  // a script written on Windows
    if (line.find_first_not_of(" \t") == std::string::npos) return;
    if (line[0] != '/' || line.substr(0, 2) == "//") line = "/say " + line.substr(line[0] == '/' ? 1 : 0);
    std::string rest = line;
    const std::string name = take_word(rest);
    try {
      if (leaving_ && name != "/quit") throw std::runtime_error("leaving; /quit again does not wait");
      if (name == "/say") return say(line.substr(5));
      const auto command = std::find_if(commands().begin(), commands().end(), [&](auto& c) { return c.name == name; });
      if (command == commands().end()) throw std::runtime_error("unknown command " + name + "; /help lists them");
      (this->*command->run)(rest);
    } catch (const std::exception& error) {
      print(std::string("error: ") + error.what());
      for (const char* sends : {"/say", "/msg", "/group", "/all", "/send"}) undelivered_ |= name == sends;
    }
  }

  // Whom WHO means. A word can be one user's name and another's number: then it is refused, never guessed.
  Target find(const std::string& who) {
    if (who.empty()) throw std::runtime_error("to whom? a name, a number of /list, NAME@IP:PORT or IP:PORT");
    std::vector<std::pair<Target, std::string>> fits;
    const auto number = parse_number(who, numbered_.empty() ? 0 : numbered_.size());
    const std::string numbered = number && *number > 0 ? numbered_[*number - 1] : "";
    const auto address = parse_address(who);
    for (const auto& [id, user] : discovery_->users()) {
      const bool named = who == user.card.name || who == label(user) || address == user.address;
      if (user.listed && (named || id == numbered)) fits.push_back({{id, user.address}, label(user)});
    }
    if (fits.size() == 1) return fits[0].first;
    if (fits.empty() && address) return {"", *address};
    if (fits.empty() && (who == self_.name || numbered == self_.id)) throw std::runtime_error(who + " is you");
    if (fits.empty() && !numbered.empty()) throw std::runtime_error("number " + who + " has left; /list again");
    if (fits.empty()) throw std::runtime_error("nobody called " + who + " is online; /list shows who is");
    std::string candidates;
    for (const auto& fit : fits) candidates += (candidates.empty() ? "" : " or ") + fit.second;
    throw std::runtime_error(who + " can mean more than one user; write " + candidates);
  }

  std::string label_of(const Target& to) const {
    const auto user = discovery_->users().find(to.id);
    return user == discovery_->users().end() ? to.address.text() : label(user->second);
  }

  void list(std::string) {
    std::vector<User> all;
    for (const auto& [id, user] : discovery_->users())
      if (user.listed) all.push_back(user);
    User own;
    own.card = self_;
    own.address = discovery_->self_address();
    own.card.ip = own.address.ip;
    all.push_back(own);
    std::sort(all.begin(), all.end(), [](const User& a, const User& b) {
      return std::tie(a.card.name, a.address) < std::tie(b.card.name, b.address);
    });
    numbered_.clear();
    for (const User& user : all) {
      numbered_.push_back(user.card.id);
      const std::string says = user.card.ip == user.address.ip ? "" : " says " + Address{user.card.ip, 0}.ip_text();
      print("user " + std::to_string(numbered_.size()) + (user.card.id == self_.id ? " * " : " - ") + user.card.name +
            " " + user.card.group + " " + user.address.text() + says);
    }
    print("users " + std::to_string(all.size()));
  }

  void choose(std::string who) {
    chosen_ = find(who);
    chosen_label_ = label_of(*chosen_);
    print("to " + chosen_label_);
  }

  // ---- Messages --------------------------------------------------------------------------

  struct Post {                        // what the user said once, to one or to many
    std::string text;
    Scope scope = Scope::to_one;
    size_t total = 0, open = 0;
    std::vector<std::string> missed;   // the labels of those who did not get it
  };
  struct Letter {                      // one copy of it
    uint64_t post = 0;
    std::string to, short_to;
  };

  void say(const std::string& text) {
    if (!chosen_) throw std::runtime_error("to whom? choose with /to WHO, or write /msg WHO TEXT");
    const auto user = discovery_->users().find(chosen_->id);
    const bool listed = user != discovery_->users().end() && user->second.listed;
    if (!chosen_->id.empty() && !listed) throw std::runtime_error(chosen_label_ + " has left; /to WHO chooses another");
    post(Scope::to_one, text, {listed ? Target{chosen_->id, user->second.address} : *chosen_});
  }

  void message(std::string rest) {
    const Target to = find(take_word(rest));
    post(Scope::to_one, rest, {to});
  }

  void message_group(std::string text) { post(Scope::to_group, text, everyone(self_.group)); }
  void message_all(std::string text) { post(Scope::to_all, text, everyone("")); }

  std::vector<Target> everyone(const std::string& group) const {
    std::vector<Target> all;
    for (const auto& [id, user] : discovery_->users())
      if (user.listed && (group.empty() || user.card.group == group)) all.push_back({id, user.address});
    if (all.empty()) throw std::runtime_error("nobody else is " + (group.empty() ? "online" : "in group " + group));
    return all;
  }

  void post(Scope scope, const std::string& text, const std::vector<Target>& to) {
    if (text.empty()) throw std::runtime_error("there is no text to send");
    if (text.size() > kMaxText)
      throw std::runtime_error("a message has at most 4000 bytes; this one has " + std::to_string(text.size()));
    if (!is_text(text)) throw std::runtime_error("a message is UTF-8 without control characters");
    const uint64_t number = next_ticket_++;
    posts_[number] = {text, scope, to.size(), to.size(), {}};
    for (const Target& target : to) {
      const uint64_t ticket = next_ticket_++;
      const auto user = discovery_->users().find(target.id);
      const std::string name = user == discovery_->users().end() ? target.address.text() : short_label(user->second);
      letters_[ticket] = {number, label_of(target), name};
      try {
        transfer_->send_message(ticket, target, scope, text);
      } catch (const std::exception& error) {
        settle(ticket, error.what());
      }
    }
  }

  // A letter was delivered, or was not and `why` says the reason. The last one of a post sums it up.
  void settle(uint64_t ticket, const std::string& why) {
    const Letter letter = letters_[ticket];
    letters_.erase(ticket);
    Post& post = posts_[letter.post];
    undelivered_ |= !why.empty();
    if (!why.empty()) post.missed.push_back(letter.short_to);
    if (!why.empty()) print("failed " + letter.to + ": " + why + "; not delivered: " + post.text);
    else if (post.scope == Scope::to_one) print("delivered " + letter.to + ": " + post.text);
    if (--post.open > 0) return;
    if (post.scope != Scope::to_one) {
      std::string missed;
      for (const std::string& name : post.missed) missed += (missed.empty() ? "; not reached: " : ", ") + name;
      print("delivered " + std::to_string(post.total - post.missed.size()) + " of " + std::to_string(post.total) + missed);
    }
    posts_.erase(letter.post);
  }

  // ---- Files -----------------------------------------------------------------------------

  struct File {                        // an offer or a transfer; its number is its key in files_
    uint64_t ticket = 0;
    std::string direction, who;
    uint64_t size = 0;
    std::string name, state;
  };

  void send_file(std::string rest) {
    const Target to = find(take_word(rest));
    if (rest.empty()) throw std::runtime_error("which file? /send WHO PATH");
    struct stat info{};
    const uint64_t ticket = transfer_->send_file(to, rest);
    const uint64_t size = ::stat(rest.c_str(), &info) == 0 ? static_cast<uint64_t>(info.st_size) : 0;
    add_file({ticket, "send", label_of(to), size, *safe_file_name(rest), "offered"});
  }

  void add_file(const File& file) {
    files_[next_file_] = file;
    print_file(next_file_++, "offered", "", file.name);
  }

  void print_file(uint64_t number, const std::string& state, const std::string& sum, const std::string& name) {
    const File& file = files_[number];
    print(file.direction + " " + std::to_string(number) + " " + state + " " + file.who + " " +
          std::to_string(file.size) + " bytes" + sum + ": " + name);
  }

  // The number and the entry that `rest` begins with.
  std::pair<const uint64_t, File>& file_of(std::string& rest) {
    const std::string word = take_word(rest);
    const auto number = parse_number(word);
    const auto found = number ? files_.find(*number) : files_.end();
    if (found == files_.end()) throw std::runtime_error("there is no transfer '" + word + "'; /transfers lists them");
    return *found;
  }

  void answer(std::string rest, Accept consent) {
    const auto& [number, file] = file_of(rest);
    if (file.direction != "receive" || file.state != "offered")
      throw std::runtime_error("transfer " + std::to_string(number) + " is not an offer that waits for an answer");
    if (!rest.empty() && safe_file_name(rest) != rest)
      throw std::runtime_error("'" + rest + "' is not a file name; give one without a path");
    transfer_->answer(file.ticket, consent, rest);
  }

  void accept(std::string rest) { answer(rest, Accept::always); }
  void reject(std::string rest) { answer(take_word(rest), Accept::never); }
  void cancel(std::string rest) { transfer_->cancel(file_of(rest).second.ticket); }

  void list_transfers(std::string) {
    for (const auto& [number, file] : files_)
      print("transfer " + std::to_string(number) + " " + file.direction + " " + file.state + " " + file.who + " " +
            std::to_string(file.size) + " bytes: " + file.name);
    print("transfers " + std::to_string(files_.size()));
  }

  // ---- The other commands --------------------------------------------------------------------

  void rename(std::string name) { introduce_as(name, self_.group); }
  void join(std::string group) { introduce_as(self_.name, group); }

  void introduce_as(const std::string& name, const std::string& group) {
    if (!is_name(name) || !is_name(group))
      throw std::runtime_error("a name or group is 1 to 32 characters without blanks or control characters");
    self_.name = name;
    self_.group = group;
    discovery_->rename(name, group);
    transfer_->introduce_as(name, group);
    print("you " + label(name, discovery_->self_address()) + " " + group);
  }

  void scan(std::string target) {
    if (target.empty()) return discovery_->scan();
    const size_t slash = std::min(target.find('/'), target.size());
    const auto bits = slash < target.size() ? parse_number(target.substr(slash + 1), 32) : std::optional<uint64_t>(32);
    const auto address = parse_address(target);
    const auto ip = address ? address->ip : parse_ip(target.substr(0, slash));
    if (!ip || !bits) throw std::runtime_error("/scan takes nothing, ADDRESS, ADDRESS:PORT or NETWORK/BITS");
    const uint16_t port = address ? address->port : kDiscoveryPort;
    if (!discovery_->source_for({*ip, port})) throw std::runtime_error("no route to " + target + " that may be used");
    discovery_->scan(*ip, static_cast<int>(*bits), port);
  }

  void help(std::string) {
    for (const Command& c : commands())
      print("help: " + std::string(c.name) + " " + c.arguments + (*c.arguments ? ": " : ": ") + c.meaning);
    print("help: anything else is a message to whom /to chose; begin it with // to send a line that starts with /");
  }

  void quit(std::string) { (leaving_ ? leave_now_ : leaving_) = true; }

  // ---- Events: what the parts of the program report --------------------------------------------

  void handle(const Event& event) {
    using Kind = Event::Kind;
    const std::string who = label(event.who.name, event.address);
    switch (event.kind) {
      case Kind::joined:
        last_joined_ = Clock::now();
        return print("joined " + who + " " + event.who.group);
      case Kind::left: return print("left " + who + ": " + event.text);
      case Kind::changed: return print("changed " + who + " " + event.who.group + ": was " + event.text);
      case Kind::unheard: return knock({event.who.id, event.address});
      case Kind::scanned:
        return print("scanned " + std::to_string(event.size) + " addresses; " + std::to_string(discovery_->count()) +
                     " users online");
      case Kind::note: return print("note: " + event.text);
      case Kind::introduced: return discovery_->heard_over_tcp(event.who, event.address);
      case Kind::message: return show_message(event);
      case Kind::delivered: return settle(event.ticket, "");
      case Kind::undelivered: return settle(event.ticket, event.text);
      case Kind::offered: return add_file({event.ticket, "receive", who, event.size, event.text, "offered"});
      case Kind::started:
      case Kind::stored:
      case Kind::failed: return handle_file(event);
    }
  }

  void handle_file(const Event& event) {
    const auto found = std::find_if(files_.begin(), files_.end(), [&](auto& f) { return f.second.ticket == event.ticket; });
    if (found == files_.end()) return;
    auto& [number, file] = *found;
    const bool sending = file.direction == "send";
    if (event.kind == Event::Kind::started) {
      file.state = "started";
      return print_file(number, "started", "", file.name);
    }
    if (event.kind == Event::Kind::stored) {
      print_file(number, sending ? "delivered" : "stored", ", cksum " + std::to_string(event.crc), event.text);
    } else {
      undelivered_ |= sending;
      print(file.direction + " " + std::to_string(number) + " failed " + file.who + ": " + event.text + ": " + file.name);
    }
    files_.erase(found);
  }

  void show_message(const Event& event) {
    if (transfer_->is_repeat(event)) return;
    const auto user = discovery_->users().find(event.who.id);
    const bool listed = user != discovery_->users().end() && user->second.address.ip == event.address.ip;
    print("message " + (listed ? label(user->second) : label(event.who.name, event.address)) + " " +
          std::string(kScopes[static_cast<int>(event.message.scope)]) + ": " + event.message.text);
  }

  void knock(const Target& to) {
    try {
      transfer_->knock(to);
    } catch (const std::exception&) {
      // It cannot be reached over TCP either; Discovery draws the conclusion by itself.
    }
  }

  Announcement self_;
  const bool terminal_;
  std::string folder_;
  EventQueue events_;                       // before those who push into it
  std::unique_ptr<Discovery> discovery_;
  std::unique_ptr<Transfer> transfer_;
  const Clock::time_point started_ = Clock::now();
  Clock::time_point last_joined_;
  std::string input_;                       // typed, and not yet a line
  bool input_ended_ = false, leaving_ = false, leave_now_ = false, undelivered_ = false;
  std::vector<std::string> numbered_;       // ids in the order of the last /list: numbers must not shift meanwhile
  std::optional<Target> chosen_;            // by /to
  std::string chosen_label_;
  std::map<uint64_t, Post> posts_;
  std::map<uint64_t, Letter> letters_;      // by ticket
  std::map<uint64_t, File> files_;          // by the number that the user sees
  uint64_t next_ticket_ = 1, next_file_ = 1;

  friend void catch_signals(const Peer& peer);
};

void catch_signals(const Peer& peer) {
  queue_to_wake = &peer.events_;
  struct sigaction action{};
  action.sa_handler = on_signal;  // no SA_RESTART is needed: see uninterrupted()
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) check(::sigaction(number, &action, nullptr), "sigaction");
  // A write to a connection that the other side has closed raises SIGPIPE, which would end the program: an error will do.
  action.sa_handler = SIG_IGN;
  check(::sigaction(SIGPIPE, &action, nullptr), "sigaction");
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Settings settings = parse_options({argv + 1, argv + argc});
    Peer peer(settings);
    catch_signals(peer);
    return peer.run();
  } catch (const UsageError& error) {
    std::cerr << "peer: " << printable(error.sentence) << '\n';
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "peer: " << error.what() << '\n';
    return 1;
  }
}
