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
  std::random_device random;
  char id[17];
  std::snprintf(id, sizeof id, "%08x%08x", random(), random());
  settings.self.id = id;
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

// NAME@IP:PORT, which is never ambiguous and can be typed as WHO; without a name where none is known.
std::string label(const std::string& name, Address address) { return (name.empty() ? "" : name + "@") + address.text(); }
std::string label(const User& user) { return label(user.card.name, user.address); }
std::string label(const Target& target) { return label(target.name, target.address); }
std::string label(const Event& event) { return label(event.who.name, event.address); }

// Takes the next word off `rest`, and the blanks behind it.
std::string take_word(std::string& rest) {
  const std::string word = rest.substr(0, rest.find(' '));
  rest.erase(0, std::min(rest.find_first_not_of(' ', word.size()), rest.size()));
  return word;
}

class Peer {
 public:
  explicit Peer(const Settings& settings)
      : self_(settings.self), terminal_(::isatty(STDIN_FILENO) && ::isatty(STDOUT_FILENO)) {
    catch_signals();  // before anyone can see us: who is found may be told to leave
    prepare_folder(settings.folder);
    open_ports(settings);
    print("ready " + label(own_entry()) + " " + self_.group);
  }

  int run() {
    while (!is_over()) {
      fd_set readable = wait();
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
  // ---- Starting ------------------------------------------------------------------------

  // A folder that the user names must be good; without the default one, all but receiving files still works.
  void prepare_folder(const std::string& named) {
    folder_ = named.empty() ? "downloads" : named;
    ::mkdir(folder_.c_str(), 0777);
    if (::access(folder_.c_str(), W_OK | X_OK) == 0) return;
    const std::string why = "files cannot be stored in " + folder_ + ": " + std::generic_category().message(errno);
    if (!named.empty()) throw UsageError{why};
    print("note: " + why + "; choose another folder with --dir");
  }

  void open_ports(const Settings& settings) {
    const bool chosen = settings.self.port != 0;
    for (self_.port = chosen ? settings.self.port : kFirstPort;; ++self_.port) try {
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

  void catch_signals() {
    queue_to_wake = &events_;
    struct sigaction action{};
    action.sa_handler = on_signal;  // without SA_RESTART: uninterrupted() does that, where it is wanted
    for (const int number : {SIGINT, SIGTERM, SIGHUP}) check(::sigaction(number, &action, nullptr), "sigaction");
    // A write to a connection that the other side has closed raises SIGPIPE and ends the program: an error will do.
    action.sa_handler = SIG_IGN;
    check(::sigaction(SIGPIPE, &action, nullptr), "sigaction");
  }

  // ---- The loop -------------------------------------------------------------------------

  // Until there is something to do: which descriptors can be read.
  fd_set wait() {
    fd_set readable;
    FD_ZERO(&readable);
    int highest = events_.descriptor();
    FD_SET(highest, &readable);
    discovery_->watch(readable, highest);
    if (transfer_->can_accept()) FD_SET(transfer_->listener(), &readable);
    if (reads_commands()) FD_SET(STDIN_FILENO, &readable);
    highest = std::max(highest, transfer_->listener());
    const auto until = std::min(discovery_->due(), Clock::now() + 100ms);  // the clock decides in reads_commands(), too
    const auto left = std::chrono::duration_cast<std::chrono::microseconds>(until - Clock::now()).count();
    timeval timeout{0, std::max<long>(left, 0)};
    if (::select(highest + 1, &readable, nullptr, nullptr, &timeout) != -1) return readable;
    if (errno != EINTR) check(-1, "select");
    FD_ZERO(&readable);  // after an error the set means nothing
    return readable;
  }

  bool is_over() const { return signal_caught || leave_now_ || (leaving_ && !transfer_->sending()); }

  bool reads_commands() const {
    const auto now = Clock::now();
    const bool found = discovery_->count() > 0 && now - last_joined_ > kFirstQuiet;
    return !input_ended_ && (terminal_ || found || now - started_ > kFirstScan);
  }

  void read_keyboard() {
    std::array<char, 4096> bytes;
    const ssize_t got = uninterrupted([&] { return ::read(STDIN_FILENO, bytes.data(), bytes.size()); });
    if (got > 0) input_.append(bytes.data(), static_cast<size_t>(got));
    else if (!input_.empty()) input_ += '\n';  // the end of input ends its last line, too
    for (size_t end; (end = input_.find('\n')) != std::string::npos; input_.erase(0, end + 1))
      obey(input_.substr(0, end));
    if (got <= 0) input_ended_ = leaving_ = true;
    if (terminal_) std::cout << "> " << std::flush;
  }

  // The one way to the screen: whatever strangers wrote into a line, it cannot steer the terminal.
  void print(const std::string& line) {
    std::cout << (terminal_ ? "\r\033[K" : "") << printable(line) << (terminal_ ? "\n> " : "\n");
    if (!std::cout.flush()) leave_now_ = true;  // nobody reads us any more
  }

  // ---- Commands -------------------------------------------------------------------------

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
    const bool is_text = line[0] != '/' || line.substr(0, 2) == "//";
    std::string rest = line;
    const std::string name = is_text ? "" : take_word(rest);
    try {
      if (leaving_ && name != "/quit") throw std::runtime_error("leaving; /quit again does not wait");
      if (is_text) return say(line.substr(line[0] == '/' ? 1 : 0));
      const auto command = std::find_if(commands().begin(), commands().end(), [&](auto& c) { return c.name == name; });
      if (command == commands().end()) throw std::runtime_error("unknown command " + name + "; /help lists them");
      (this->*command->run)(rest);
    } catch (const std::exception& error) {
      print(std::string("error: ") + error.what());
      for (const char* sends : {"", "/msg", "/group", "/all", "/send"}) undelivered_ |= name == sends;
    }
  }

  // Whom WHO means. A word can be one user's name and another's number: then it is refused, never guessed.
  Target find(const std::string& who) const {
    if (who.empty()) throw std::runtime_error("to whom? a name, a number of /list, NAME@IP:PORT or IP:PORT");
    const auto number = parse_number(who, numbered_.size());
    const std::string numbered = number && *number > 0 ? numbered_[*number - 1] : "";
    const auto address = parse_address(who);
    std::vector<Target> fits;
    for (const auto& [id, user] : discovery_->users()) {
      const bool named = who == user.card.name || who == label(user) || address == user.address;
      if (user.listed && (named || id == numbered)) fits.push_back({id, user.address, user.card.name});
    }
    if (fits.size() == 1) return fits[0];
    if (fits.empty() && address) return {"", *address};
    if (fits.empty() && (who == self_.name || numbered == self_.id)) throw std::runtime_error(who + " is you");
    if (fits.empty() && !numbered.empty()) throw std::runtime_error("number " + who + " has left; /list again");
    if (fits.empty()) throw std::runtime_error("nobody called " + who + " is online; /list shows who is");
    std::string candidates;
    for (const Target& fit : fits) candidates += (candidates.empty() ? "" : " or ") + label(fit);
    throw std::runtime_error(who + " can mean more than one user; write " + candidates);
  }

  User own_entry() const {
    User own;
    own.card = self_;
    own.address = discovery_->self_address();
    own.card.ip = own.address.ip;
    return own;
  }

  void list(std::string) {
    std::vector<User> all = {own_entry()};
    for (const auto& [id, user] : discovery_->users())
      if (user.listed) all.push_back(user);
    std::sort(all.begin(), all.end(), [](const User& a, const User& b) { return label(a) < label(b); });
    numbered_.clear();
    for (const User& user : all) {
      const auto& [card, address] = std::tie(user.card, user.address);
      numbered_.push_back(card.id);
      print("user " + std::to_string(numbered_.size()) + (card.id == self_.id ? " * " : " - ") + card.name + " " +
            card.group + " " + address.text() + (card.ip == address.ip ? "" : " says " + Address{card.ip}.ip_text()));
    }
    print("users " + std::to_string(all.size()));
  }

  void choose(std::string who) {
    chosen_ = find(who);
    print("to " + label(*chosen_));
  }

  void rename(std::string name) { introduce_as(name, self_.group); }
  void join(std::string group) { introduce_as(self_.name, group); }

  void introduce_as(const std::string& name, const std::string& group) {
    if (!is_name(name) || !is_name(group))
      throw std::runtime_error("a name or group is 1 to 32 characters without blanks or control characters");
    self_.name = name;
    self_.group = group;
    discovery_->introduce_as(name, group);
    transfer_->introduce_as(name, group);
    print("you " + label(own_entry()) + " " + group);
  }

  void scan(std::string target) {
    if (target.empty()) return discovery_->scan();
    const size_t slash = std::min(target.find('/'), target.size());
    const auto bits = slash < target.size() ? parse_number(target.substr(slash + 1), 32) : std::optional<uint64_t>(32);
    const auto address = parse_address(target);
    const auto ip = address ? address->ip : parse_ip(target.substr(0, slash));
    if (!ip || !bits) throw std::runtime_error("/scan takes nothing, ADDRESS, ADDRESS:PORT or NETWORK/BITS");
    const uint16_t port = address ? address->port : kDiscoveryPort;
    if (!discovery_->source_for({*ip, port})) throw std::runtime_error("no usable route leads to " + target);
    discovery_->scan(*ip, static_cast<int>(*bits), port);
  }

  void help(std::string) {
    for (const Command& c : commands()) print("help: " + std::string(c.name) + " " + c.arguments + ": " + c.meaning);
    print("help: any other line is a message to whom /to chose; a first // sends one /");
  }

  void quit(std::string) { (leaving_ ? leave_now_ : leaving_) = true; }

  // ---- Messages ---------------------------------------------------------------------------

  struct Post {                        // what the user said once, to one or to many; its key is its ticket
    std::string text;
    Scope scope = Scope::to_one;
    size_t total = 0, open = 0, reached = 0;
    std::string missed = {};           // the names of those who did not get it
  };

  void say(const std::string& text) {
    if (!chosen_) throw std::runtime_error("to whom? choose with /to WHO, or write /msg WHO TEXT");
    const auto user = discovery_->users().find(chosen_->id);
    const bool listed = user != discovery_->users().end() && user->second.listed;
    if (!chosen_->id.empty() && !listed) throw std::runtime_error(label(*chosen_) + " has left; /to WHO chooses another");
    if (listed) chosen_ = Target{chosen_->id, user->second.address, user->second.card.name};
    post(Scope::to_one, text, {*chosen_});
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
      if (user.listed && (group.empty() || user.card.group == group)) all.push_back({id, user.address, user.card.name});
    if (all.empty()) throw std::runtime_error("nobody else is " + (group.empty() ? "online" : "in group " + group));
    return all;
  }

  void post(Scope scope, const std::string& text, const std::vector<Target>& to) {
    if (text.empty()) throw std::runtime_error("there is no text to send");
    if (text.size() > kMaxText)
      throw std::runtime_error("a message has at most 4000 bytes; this one has " + std::to_string(text.size()));
    if (!is_text(text)) throw std::runtime_error("a message is UTF-8 without control characters");
    const uint64_t ticket = next_post_++;
    posts_[ticket] = {text, scope, to.size(), to.size(), 0};
    for (const Target& target : to) try {
        transfer_->send_message(ticket, target, scope, text);
      } catch (const std::exception& error) {
        Event event{Event::Kind::undelivered, error.what(), {}, target.address, ticket};
        event.who.name = target.name;
        settle(event);
      }
  }

  // One copy of a post was delivered, or was not. The last one sums it up.
  void settle(const Event& event) {
    Post& post = posts_[event.ticket];
    const bool missed = event.kind == Event::Kind::undelivered;
    const std::string name = event.who.name.empty() ? label(event) : event.who.name;
    if (missed) print("failed " + label(event) + ": " + event.text + "; not delivered: " + post.text);
    else if (post.scope == Scope::to_one) print("delivered " + label(event) + ": " + post.text);
    else ++post.reached;
    if (missed) post.missed += (post.missed.empty() ? "; not reached: " : ", ") + name;
    undelivered_ |= missed;
    if (--post.open > 0) return;
    if (post.scope != Scope::to_one)
      print("delivered " + std::to_string(post.reached) + " of " + std::to_string(post.total) + post.missed);
    posts_.erase(event.ticket);
  }

  void show_message(const Event& event) {
    if (transfer_->is_repeat(event)) return;
    const std::string scope(kScopes[static_cast<int>(event.message.scope)]);
    print("message " + label(event) + " " + scope + ": " + event.message.text);
  }

  // ---- Files ------------------------------------------------------------------------------

  struct File {                        // an offer or a transfer; its key is the number that the user sees
    uint64_t ticket = 0;
    std::string direction, who;
    uint64_t size = 0;
    std::string name, state = "offered";
    std::string text() const { return who + " " + std::to_string(size) + " bytes"; }
  };

  void send_file(std::string rest) {
    const Target to = find(take_word(rest));
    if (rest.empty()) throw std::runtime_error("which file? /send WHO PATH");
    const Event offered = transfer_->send_file(to, rest);
    add_file({offered.ticket, "send", label(to), offered.size, offered.text});
  }

  void add_file(const File& file) {
    files_[next_file_] = file;
    print(file.direction + " " + std::to_string(next_file_++) + " offered " + file.text() + ": " + file.name);
  }

  // The entry whose number `rest` begins with.
  File& take_file(std::string& rest) {
    const std::string word = take_word(rest);
    const auto found = files_.find(parse_number(word).value_or(0));
    if (found == files_.end()) throw std::runtime_error("there is no transfer '" + word + "'; /transfers lists them");
    return found->second;
  }

  void answer(std::string rest, Accept consent) {
    const File& file = take_file(rest);
    if (file.direction != "receive" || file.state != "offered")
      throw std::runtime_error("that is not an offer that waits for an answer; /transfers lists them");
    if (!rest.empty() && safe_file_name(rest) != rest)
      throw std::runtime_error("'" + rest + "' is not a file name; give one without a path");
    transfer_->answer(file.ticket, consent, rest);
  }

  void accept(std::string rest) { answer(rest, Accept::always); }
  void reject(std::string rest) { answer(take_word(rest), Accept::never); }
  void cancel(std::string rest) { transfer_->cancel(take_file(rest).ticket); }

  void list_transfers(std::string) {
    for (const auto& [number, file] : files_)
      print("transfer " + std::to_string(number) + " " + file.direction + " " + file.state + " " + file.text() + ": " +
            file.name);
    print("transfers " + std::to_string(files_.size()));
  }

  void update_file(const Event& event) {
    const auto found = std::find_if(files_.begin(), files_.end(), [&](auto& f) { return f.second.ticket == event.ticket; });
    if (found == files_.end()) return;
    File& file = found->second;
    const bool sending = file.direction == "send";
    const std::string start = file.direction + " " + std::to_string(found->first) + " ";
    if (event.kind == Event::Kind::started) print(start + (file.state = "started") + " " + file.text() + ": " + file.name);
    if (event.kind == Event::Kind::failed) print(start + "failed " + file.who + ": " + event.text + ": " + file.name);
    if (event.kind == Event::Kind::stored)
      print(start + (sending ? "delivered " : "stored ") + file.text() + ", cksum " + std::to_string(event.crc) + ": " +
            event.text);
    undelivered_ |= sending && event.kind == Event::Kind::failed;
    if (event.kind != Event::Kind::started) files_.erase(found);
  }

  // ---- Events: what the other parts report -----------------------------------------------------

  void handle(const Event& event) {
    using Kind = Event::Kind;
    const std::string online = std::to_string(discovery_->count()) + " users online";
    switch (event.kind) {
      case Kind::joined:
        last_joined_ = Clock::now();
        return print("joined " + label(event) + " " + event.who.group);
      case Kind::left: return print("left " + label(event) + ": " + event.text);
      case Kind::changed: return print("changed " + label(event) + " " + event.who.group + ": was " + event.text);
      case Kind::unheard: return transfer_->knock({event.who.id, event.address, event.who.name});
      case Kind::scanned: return print("scanned " + std::to_string(event.size) + " addresses; " + online);
      case Kind::note: return print("note: " + event.text);
      case Kind::introduced: return discovery_->heard_over_tcp(event.who, event.address);
      case Kind::message: return show_message(event);
      case Kind::delivered:
      case Kind::undelivered: return settle(event);
      case Kind::offered: return add_file({event.ticket, "receive", label(event), event.size, event.text});
      case Kind::started:
      case Kind::stored:
      case Kind::failed: return update_file(event);
    }
  }

  Announcement self_;
  const bool terminal_;
  std::string folder_;
  EventQueue events_;                       // before those who push into it: it is destroyed after them
  std::unique_ptr<Discovery> discovery_;
  std::unique_ptr<Transfer> transfer_;
  const Clock::time_point started_ = Clock::now();
  Clock::time_point last_joined_;
  std::string input_;                       // typed, and not yet a line
  bool input_ended_ = false, leaving_ = false, leave_now_ = false, undelivered_ = false;
  std::vector<std::string> numbered_;       // ids in the order of the last /list: numbers must not shift meanwhile
  std::optional<Target> chosen_;            // by /to
  std::map<uint64_t, Post> posts_;
  std::map<uint64_t, File> files_;
  uint64_t next_post_ = 1, next_file_ = 1;
};

}  // namespace

int main(int argc, char** argv) try {
  Peer peer(parse_options({argv + 1, argv + argc}));
  return peer.run();
} catch (const UsageError& error) {
  std::cerr << "peer: " << printable(error.sentence) << '\n';
  return 2;
} catch (const std::exception& error) {
  std::cerr << "peer: " << error.what() << '\n';
  return 1;
}
