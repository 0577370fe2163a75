// make soak: 20 peers on 7 hosts join, leave, rename themselves, talk, send, cancel, and are killed, at random, on a
// network that breaks now and then. At the end it compares what each sender said about each message and file with what
// the receivers showed and what is in their folders.
//
//   make soak                          five minutes of it, and one more in which all comes to rest
//   make soak SECONDS=60 PEERS=20      SECONDS of storm
//   make soak SEED=7                   the same decisions again: they depend on the seed alone, which is printed first
//   make soak SANITIZE=thread          under a sanitizer
//
// What is never allowed:
//   - a message shown twice; or to one it was not for; or under another sender, scope or text;
//   - `delivered`, and not shown by a receiver that was not killed (by SIGKILL: it may have acknowledged what it
//     was about to show);
//   - `failed`, or refused as an error, and shown or stored all the same;
//   - a message or file without exactly one report, under the name of whom it was for, by a sender that was not killed,
//     however else it left;
//   - a file under its final name with other bytes; `delivered` and not there under the name that the sender was told;
//     more copies of it than were delivered or may have arrived; one that no living receiver has told of; a .part of a
//     file that is there, from the same address;
//   - two users listed at one address; a list that is not right once all is calm, or that does not follow from the lines
//     joined, left and changed;
//   - in the calm, a message or file that is not delivered in the end;
//   - an exit status that docs/interface.md, 6, does not foresee; a line that its 3 does not have (a sanitizer's, say);
//   - a process that does not end; descriptors or threads that it has not given back before.
// What is allowed: where the sender says "it may have arrived", or was killed before it said anything, at most once. A
// .part of another try may stay where two tries of one file were under way together, since each has its own.
//
// A sender is given one command at a time. Behind each goes a command that does not exist: the error about it tells
// that the one before has been carried out, so that any other error is about that one. Who gets a message to all, a
// /list in the same write says. Names are never used again: p17 is the 17th process, p17.2 what it is called later.
//
// In order of reading: chance; the account, and complaints; what a peer prints; what is done to it; faults of the
// network; the storm, the calm, the audit; main.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <map>
#include <random>
#include <set>
#include <sstream>
#include <thread>

#include "support/system.h"
#include "support/testing.h"

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using std::to_string;

namespace {

const unsigned kSeconds = number_setting("SECONDS", 300);
const unsigned kPeers = std::max(2u, number_setting("PEERS", 20));
const unsigned kSeed = number_setting("SEED", std::random_device()() % 1'000'000);
constexpr int kHosts = 7;
constexpr double kStep = 0.05;      // seconds from one random decision to the next
constexpr double kPatience = 400;   // the longest wait that the protocol allows is 300 s, for the reply to END
const char* const kGroups[] = {"red", "green", "blue"};

double now() {
  static const auto start = Clock::now();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// ---- Chance ---------------------------------------------------------------------------------

// Each decision has dice of its own, made from the seed and its number: so none depends on how many were made before.
class Dice {
 public:
  Dice(unsigned kind, unsigned number) {
    std::seed_seq seeds{kSeed, kind, number};
    random_.seed(seeds);
  }
  unsigned below(unsigned limit) { return static_cast<unsigned>(random_() % limit); }

 private:
  std::mt19937 random_;
};

enum : unsigned { kOfStep = 1, kOfFault, kOfAnswer };

// ---- The account ------------------------------------------------------------------------------

enum class Outcome { open, delivered, failed, unknown };  // unknown: "it may have arrived"

struct Item;
struct Life;
struct Seat;

// One message, or one try of a file, to one receiver.
struct Copy {
  Item* item;
  Life* to;
  std::string address;      // that the sender has for it, of a message to many
  Outcome outcome = Outcome::open;
  std::string report = "";  // the sender's line
  int number = 0;           // of a file: the sender's number for it; 0: not yet known
  std::string stored_as = "";  // the name that the sender was told
  int shown = 0;            // of a message
};

struct File {
  std::string name, path;
  Seat* owner;
  std::map<const Seat*, std::vector<Copy*>> tries;
  std::set<const Seat*> crossed;  // where two tries of it were under way together
};

// What one command of one sender sends.
struct Item {
  Life* from;
  std::string key;          // its lines, and no others, have it in them
  std::string text;         // of a message
  std::string scope;        // private, group, all
  File* file = nullptr;
  bool has_audience = false;  // its sender has said to whom it goes; unless it was killed before
  std::vector<std::unique_ptr<Copy>> copies;

  long count(Outcome outcome) const {
    return std::count_if(copies.begin(), copies.end(), [&](auto& copy) { return copy->outcome == outcome; });
  }
};

struct User { std::string name, group, address; };

// One process.
struct Life {
  int number;
  Seat* seat;
  bool asks;                // --accept ask
  std::string name, group, address;
  std::unique_ptr<Process> process;
  std::vector<std::string> log;
  size_t heard = 0;         // lines
  bool busy = true, leaving = false, killed = false, ended = false, doomed = false;
  bool missed = false;      // something was not delivered, so its exit status is 1
  Item *pending = nullptr, *post = nullptr;  // the command under way; a message to many without its report yet
  std::map<int, Copy*> sends;        // under way, by the number that its user sees
  std::map<int, File*> receives;
  std::vector<int> offers;           // that wait for an answer
  std::map<int, std::string> view;   // the users online, by what it said of each that came, changed, went
  std::vector<User> listing, listed;  // /list: as it comes, and the last one
};

// Where one process comes after the other, with the same folder.
struct Seat {
  unsigned index;
  int host;
  std::unique_ptr<Folder> folder;
  Life* life = nullptr;
  Life* last = nullptr;
  std::vector<File*> files;
  struct Stored { File* file; std::string name, from_ip; };
  std::vector<Stored> stored;        // as its processes have told
};

std::unique_ptr<Network> network;
std::string work_path;
std::vector<Seat> seats;
std::vector<std::unique_ptr<Life>> lives(1);  // by number, from 1
std::vector<std::unique_ptr<Item>> items(1);  // messages by number, and tries of files
std::vector<std::unique_ptr<File>> files(1);
bool calm = false;

struct Totals { unsigned joined, quit, interrupted, killed, skipped, resumed, faults; } totals{};

// A complaint is shown at the end, with what each of these has said about it.
struct Complaint {
  std::string what, key;
  std::vector<Life*> about;
};
std::vector<Complaint> complaints;
constexpr size_t kMostShown = 30;

void complain(const std::string& what, const std::string& key, std::vector<Life*> about) {
  complaints.push_back({what, key, std::move(about)});
  if (complaints.size() <= kMostShown) std::cout << "FAULT at " << now() << " s: " << what << std::endl;
}

Life* life_of(const std::string& who) {
  const size_t number = who.size() > 1 && who[0] == 'p' ? static_cast<size_t>(std::atoi(who.c_str() + 1)) : 0;
  return number < lives.size() ? lives[number].get() : nullptr;
}

std::string address_of(const std::string& who) {
  std::string address = who.substr(who.find('@') + 1);
  while (!address.empty() && std::strchr(":,;", address.back())) address.pop_back();
  return address;
}

// Of "m12 ..."; of "f12.dat", "out/f12.dir/" and "downloads/f12 (1).dat".
Item* message_of(const std::string& text) {
  const size_t number = text[0] == 'm' ? static_cast<size_t>(std::atoi(text.c_str() + 1)) : 0;
  return number < items.size() ? items[number].get() : nullptr;
}
std::string base_name(std::string path) {
  if (!path.empty() && path.back() == '/') path.pop_back();
  return path.substr(path.rfind('/') + 1);
}
File* file_of(const std::string& path) {
  const std::string name = base_name(path);
  const size_t number = name[0] == 'f' ? static_cast<size_t>(std::atoi(name.c_str() + 1)) : 0;
  return number < files.size() ? files[number].get() : nullptr;
}

Item& new_item(Life& from, const std::string& scope, File* file = nullptr) {
  items.push_back(std::make_unique<Item>());
  Item& item = *items.back();
  item.from = &from;
  item.scope = scope;
  item.file = file;
  item.key = file ? file->name.substr(0, file->name.find('.')) : "m" + to_string(items.size() - 1) + " ";
  return item;
}

Copy* copy_to(const Item& item, const Life& to) {
  const auto is_its = [&](const auto& copy) { return copy->to == &to; };
  const auto found = std::find_if(item.copies.begin(), item.copies.end(), is_its);
  return found == item.copies.end() ? nullptr : found->get();
}

Copy& add_copy(Item& item, Life& to, const std::string& address = "") {
  if (Copy* known = copy_to(item, to)) return known->address = address, *known;
  item.copies.push_back(std::make_unique<Copy>(Copy{&item, &to, address}));
  if (item.file) item.file->tries[to.seat].push_back(item.copies.back().get());
  return *item.copies.back();
}

// `who`, if the line says it, is whom the sender's user would take it to be about.
void settle(Copy& copy, Outcome outcome, const std::string& line, const std::string& who = "") {
  if (!who.empty() && life_of(who) != copy.to)
    complain("it was for " + copy.to->name + ": " + line, copy.item->key, {copy.item->from, copy.to});
  if (copy.outcome != Outcome::open)
    complain("reported twice: " + copy.report + " | " + line, copy.item->key, {copy.item->from, copy.to});
  copy.outcome = outcome;
  copy.report = line;
}

Outcome failure(const std::string& reason) {
  const std::string doubt = "it may have arrived";
  const bool in_doubt = reason.size() >= doubt.size() && reason.substr(reason.size() - doubt.size()) == doubt;
  return in_doubt ? Outcome::unknown : Outcome::failed;
}

// ---- What a peer prints ---------------------------------------------------------------------------

void kill(Life& life) {
  life.killed = true;
  life.process->signal(SIGKILL);
  ++totals.killed;
}

// A peer that is to die amid a transfer dies when its bytes flow. If that transfer fails before they do, the next one may
// come in the calm, where nobody dies by chance.
void kill_if_doomed(Life& life) {
  const bool is_its_end = life.doomed && !life.killed && !calm;
  if (is_its_end) kill(life);
}

// The part of `line` behind the first ": ", or behind the last one.
std::string behind_first(const std::string& line) { return line.substr(std::min(line.find(": ") + 2, line.size())); }
std::string behind_last(const std::string& line) { return line.substr(std::min(line.rfind(": ") + 2, line.size())); }

void hear_listing(Life& life) {
  life.listed = std::exchange(life.listing, {});
  std::map<std::string, int> at;
  for (const User& user : life.listed)
    if (++at[user.address] > 1) complain(life.name + " lists two users at " + user.address, user.address, {&life});
  Item* item = life.pending;
  if (!item || item->has_audience) return;
  item->has_audience = true;
  for (const User& user : life.listed) {
    Life* to = life_of(user.name);
    if (to && to != &life && (item->scope == "all" || user.group == life.group)) add_copy(*item, *to, user.address);
  }
  for (auto& copy : item->copies)
    if (copy->address.empty()) complain("shown to one it was not for: " + copy->to->name, item->key, {copy->to, &life});
}

void hear_message(Life& life, const std::string& line, const std::string& who, const std::string& scope) {
  const std::string text = behind_first(line);
  Item* item = message_of(text);
  if (!item || item->text != text || item->scope + ":" != scope || item->from != life_of(who) ||
      item->from->address.substr(item->from->address.rfind(':')) != address_of(who).substr(address_of(who).rfind(':')))
    return complain("shown, and never said so: " + line, item ? item->key : who, {&life, item ? item->from : &life});
  Copy* copy = copy_to(*item, life);
  if (!copy && item->has_audience)
    return complain("shown to one it was not for: " + line, item->key, {&life, item->from});
  if (!copy) copy = &add_copy(*item, life);  // its sender's lines are not read yet, and will tell
  if (++copy->shown > 1) complain("shown twice: " + line, item->key, {&life, item->from});
}

void hear_summary(Life& life, const std::string& line, Item* item, long reached, long total) {
  life.missed |= reached < total;
  if (!item) return complain("a summary of nothing: " + line, "delivered", {&life});
  for (auto& copy : item->copies)
    if (copy->outcome == Outcome::open)
      settle(*copy, item->file ? Outcome::failed : Outcome::delivered, line);  // of a file, each was reported before
  if (item->count(Outcome::delivered) != reached || static_cast<long>(item->copies.size()) != total)
    complain("the numbers are wrong (" + to_string(item->copies.size()) + " were listed): " + line, item->key, {&life});
}

void hear_failure(Life& life, const std::string& line, const std::string& who) {
  life.missed = true;
  const std::string certain = "; not delivered: ", in_doubt = "; it may have arrived: ";
  const size_t certain_end = line.find(certain), end = std::min(certain_end, line.find(in_doubt));
  const size_t divider = end == certain_end ? certain.size() : in_doubt.size();
  Item* item = end == std::string::npos ? nullptr : message_of(line.substr(end + divider));
  if (!item || item->from != &life) return complain("a failure of nothing: " + line, who, {&life});
  for (auto& copy : item->copies)
    if (item->scope == "private" || copy->address == address_of(who))
      return settle(*copy, end == certain_end ? Outcome::failed : Outcome::unknown, line, who);
  complain("a failure of a copy that was not made: " + line, item->key, {&life});
}

void hear_send(Life& life, const std::string& line, int number, const std::string& state, const std::string& who) {
  File* file = file_of(behind_last(line));
  Copy*& copy = life.sends[number];
  Life* to = life_of(who);
  if (file && to && !copy)
    for (Copy* one : file->tries[to->seat])
      if (one->item->from == &life && one->to == to && one->number == 0 && one->outcome == Outcome::open) copy = one;
  if (!copy) return complain("it sends what nobody asked for: " + line, who, {&life});
  copy->number = number;
  if (state == "started") {
    totals.resumed += line.find(", resumed at ") != std::string::npos;
    kill_if_doomed(life);
  } else if (state == "delivered" || state == "failed") {
    life.missed |= state == "failed";
    copy->stored_as = base_name(behind_last(line));
    settle(*copy, state == "delivered" ? Outcome::delivered : failure(line.substr(0, line.rfind(": "))), line, who);
    life.sends.erase(number);
  } else if (state != "offered") {
    complain("not a state: " + line, who, {&life});
  }
}

void hear_receive(Life& life, const std::string& line, int number, const std::string& state, const std::string& who) {
  File* file = file_of(behind_last(line));
  if (!file || !life_of(who)) return complain("it receives what nobody sent: " + line, who, {&life});
  if (state == "offered" && life.receives.count(number) == 0) {
    for (const auto& entry : life.receives)
      if (entry.second == file) file->crossed.insert(life.seat);
    life.receives[number] = file;
    if (life.asks) life.offers.push_back(number);
  } else if (state == "started") {
    kill_if_doomed(life);
  } else if (state == "stored" || state == "failed") {
    const std::string address = address_of(who);
    if (state == "stored")
      life.seat->stored.push_back({file, base_name(behind_last(line)), address.substr(0, address.rfind(':'))});
    life.receives.erase(number);
  } else if (state != "offered" && state != "answered") {  // in /transfers
    complain("not a state: " + line, who, {&life});
  }
}

void hear_of_user(Life& life, const std::string& line, const std::string& what, const std::string& who,
                  const std::string& group) {
  Life* user = life_of(who);
  const bool known = user && life.view.count(user->number) > 0;
  if (!user || user == &life || known == (what == "joined"))
    return complain("it does not follow from what was said before: " + line, who.substr(0, who.find('@')), {&life});
  if (what == "left") life.view.erase(user->number);
  else life.view[user->number] = who.substr(0, who.find('@')) + " " + group.substr(0, group.find(':'));
}

// The command that does not exist was refused, or the one before it.
void hear_error(Life& life, const std::string& line) {
  if (line.find("no command /mark") != std::string::npos) {
    life.busy = false;
    life.pending = nullptr;
  } else if (Item* item = life.pending) {
    life.missed = item->has_audience = true;
    if (item == life.post) life.post = nullptr;
    for (auto& copy : item->copies) settle(*copy, Outcome::failed, line);
  }
}

void hear(Life& life, const std::string& line) {
  char stamp[20];
  std::snprintf(stamp, sizeof stamp, "%7.2f ", now());
  life.log.push_back(stamp + line);
  std::istringstream words(line.substr(0, 400));
  std::string verb, a, b, c, d;
  words >> verb >> a >> b >> c >> d;
  const int number = std::atoi(a.c_str());
  if (verb == "ready") life.address = address_of(a);
  else if (verb == "joined" || verb == "left" || verb == "changed") hear_of_user(life, line, verb, a, b);
  else if (verb == "user") words >> verb, life.listing.push_back({c, d, verb});
  else if (verb == "users") hear_listing(life);
  else if (verb == "message") hear_message(life, line, a, b);
  else if (verb == "failed") hear_failure(life, line, a);
  else if (verb == "delivered" && a.find('@') == std::string::npos)
    hear_summary(life, line, std::exchange(life.post, nullptr), number, std::atoi(c.c_str()));
  else if (verb == "delivered") {
    Item* item = message_of(behind_first(line));
    if (!item || item->from != &life || item->copies.empty()) return complain("never sent: " + line, a, {&life});
    settle(*item->copies[0], Outcome::delivered, line, a);
  } else if (verb == "send") hear_send(life, line, number, b, c);
  else if (verb == "receive") hear_receive(life, line, number, b, c);
  else if (verb == "sent") {
    const File* file = file_of(behind_last(line));
    const auto is_meant = [&](auto& item) { return item && item->file == file && item->from == &life; };
    const auto item = std::find_if(items.begin(), items.end(), is_meant);
    const bool found = file && item != items.end();
    hear_summary(life, line, found ? item->get() : nullptr, std::atoi(b.c_str()), std::atoi(d.c_str()));
  } else if (verb == "error:") hear_error(life, line);
  else if (verb == "you") {
    life.name = a.substr(0, a.find('@'));
    life.group = b;
  } else if (verb != "transfers" && verb != "scanned" && verb != "note:")
    complain("not a line of docs/interface.md: " + line, line, {&life});
}

// ---- What is done to a peer --------------------------------------------------------------------------

void command(Life& life, const std::string& line, Item* item = nullptr) {
  static unsigned marks = 0;
  life.busy = true;
  life.pending = item;
  life.process->say(line + "\n/mark" + to_string(++marks));
}

void start(Seat& seat, const std::string& group) {
  lives.push_back(std::make_unique<Life>());
  Life& life = *lives.back();
  life.number = static_cast<int>(lives.size()) - 1;
  life.seat = &seat;
  life.asks = seat.index % 4 == 3;
  life.name = "p" + to_string(life.number);
  life.group = group;
  const std::vector<std::string> how{peer_program(), "--name",   life.name, "--group",
                                     group,          "--accept", life.asks ? "ask" : "always"};
  life.process = std::make_unique<Process>(network->descriptor(seat.host), how, seat.folder->path());
  seat.life = seat.last = &life;
  ++totals.joined;
  command(life, "/list");
}

void say_to(Life& life, Seat& other, Dice& dice) {
  if (!other.last) return;
  Item& item = new_item(life, "private");
  const unsigned length = dice.below(20) == 0 ? dice.below(3000) : dice.below(60);
  item.text = item.key + "grüß dich,";  // a blank at the end of a line would be hard to see here
  for (unsigned i = 0; i < length; ++i) item.text += " abcdefghij:;@/"[dice.below(15)];
  item.text += '.';
  add_copy(item, *other.last);
  item.has_audience = true;
  command(life, "/msg " + other.last->name + " " + item.text, &item);
}

void say_to_many(Life& life, const std::string& scope) {
  if (life.post) return;  // its report does not say which message it is about
  Item& item = new_item(life, scope);
  item.text = item.key + "to " + scope;
  life.post = &item;
  command(life, "/list\n/" + scope + " " + item.text, &item);
}
void say_to_group(Life& life, Seat&, Dice&) { say_to_many(life, "group"); }
void say_to_all(Life& life, Seat&, Dice&) { say_to_many(life, "all"); }

// A file of `size` bytes, or a folder of some that have so many together.
File& new_file(Life& life, size_t size, unsigned parts = 0) {
  files.push_back(std::make_unique<File>());
  File& file = *files.back();
  const unsigned number = static_cast<unsigned>(files.size()) - 1;
  file.name = "f" + to_string(number) + (parts > 0 ? ".dir" : ".dat");
  file.owner = life.seat;
  file.owner->files.push_back(&file);
  const Folder& folder = *file.owner->folder;
  file.path = folder.path("out/" + file.name);
  fs::create_directories(folder.path("out" + (parts > 0 ? "/" + file.name + "/sub/empty" : "")));
  if (parts == 0) folder.write("out/" + file.name, random_bytes(size, number));
  for (unsigned i = 0; i < parts; ++i)
    folder.write("out/" + file.name + (i % 2 ? "/sub/" : "/") + to_string(i), random_bytes(size / parts, number + i));
  return file;
}

void send_to(Life& life, File& file, Life& to) {
  Item& item = new_item(life, "private", &file);
  add_copy(item, to);
  item.has_audience = true;
  command(life, "/send " + to.name + " out/" + file.name, &item);
}

size_t random_size(Dice& dice, unsigned most_bits) {
  const unsigned bits = dice.below(most_bits);
  return (size_t{1} << bits) + dice.below(1u << bits);
}

void send_file(Life& life, Seat& other, Dice& dice) {
  if (other.last) send_to(life, new_file(life, random_size(dice, 22)), *other.last);
}

void send_folder(Life& life, Seat& other, Dice& dice) {
  const unsigned parts = 1 + dice.below(9);
  if (other.last) send_to(life, new_file(life, random_size(dice, 20), parts), *other.last);
}

void send_to_many(Life& life, const std::string& scope, Dice& dice) {
  File& file = new_file(life, random_size(dice, 16));
  command(life, "/list\n/send" + scope + " out/" + file.name, &new_item(life, scope, &file));
}
void send_to_group(Life& life, Seat&, Dice& dice) { send_to_many(life, "group", dice); }
void send_to_all(Life& life, Seat&, Dice& dice) { send_to_many(life, "all", dice); }

// One of the two will be killed once the bytes flow.
void send_and_kill(Life& life, Seat& other, Dice& dice) {
  const size_t size = 2'000'000 + dice.below(3'000'000);
  const bool sender_dies = dice.below(2) == 0;
  if (!other.life || other.life->leaving) return;
  (sender_dies ? life : *other.life).doomed = true;
  send_to(life, new_file(life, size), *other.life);
}

bool is_in_reach(const Seat& seat) { return seat.life && !seat.life->leaving && !seat.life->killed; }

// Whether what this seat did not get, or perhaps not, could be sent again: not before both sides know of the last end.
bool can_be_sent_again(const File& file, const Seat& to) {
  const auto found = file.tries.find(&to);
  if (found == file.tries.end() || !is_in_reach(to)) return false;
  const auto has_ended = [](const Copy* copy) { return copy->outcome != Outcome::open || copy->item->from->ended; };
  if (found->second.back()->outcome == Outcome::delivered) return false;
  if (!std::all_of(found->second.begin(), found->second.end(), has_ended)) return false;
  const auto& receives = to.life->receives;
  const auto is_same = [&](const auto& entry) { return entry.second == &file; };
  return std::none_of(receives.begin(), receives.end(), is_same);
}

void send_again(Life& life, Seat&, Dice& dice) {
  std::vector<std::pair<File*, const Seat*>> all;
  for (File* file : life.seat->files)
    for (const auto& [to, tries] : file->tries)
      if (can_be_sent_again(*file, *to)) all.emplace_back(file, to);
  const unsigned which = dice.below(1'000'000);
  if (all.empty()) return;
  const auto [file, to] = all[which % all.size()];
  send_to(life, *file, *to->life);
}

void cancel(Life& life, Seat&, Dice& dice) {
  std::vector<int> numbers;
  for (const auto& entry : life.sends) numbers.push_back(entry.first);
  for (const auto& entry : life.receives) numbers.push_back(entry.first);
  const unsigned which = dice.below(1'000'000);
  if (!numbers.empty()) command(life, "/cancel " + to_string(numbers[which % numbers.size()]));
}

void rename(Life& life, Seat&, Dice& dice) {
  command(life, "/name p" + to_string(life.number) + "." + to_string(dice.below(100)));
}
void join(Life& life, Seat&, Dice& dice) { command(life, std::string("/join ") + kGroups[dice.below(3)]); }
void look(Life& life, Seat&, Dice& dice) {
  const char* const ways[] = {"/list", "/transfers", "/scan"};
  command(life, ways[dice.below(3)]);
}

void quit(Life& life, Seat&, Dice&) {
  life.leaving = true;
  life.process->say("/quit");
  ++totals.quit;
}
void interrupt(Life& life, Seat&, Dice&) {
  life.leaving = true;
  life.process->signal(SIGINT);
  ++totals.interrupted;
}
void kill_now(Life& life, Seat&, Dice&) { kill(life); }

const struct Action {
  unsigned weight;
  void (*run)(Life& life, Seat& other, Dice& dice);
} kActions[] = {{420, say_to},       {50, say_to_group}, {30, say_to_all},      {150, send_file}, {50, send_folder},
                {10, send_to_group}, {5, send_to_all},   {10, send_and_kill},   {90, send_again}, {50, cancel},
                {40, rename},        {20, join},         {30, look},            {8, quit},        {5, interrupt},
                {7, kill_now}};

void step(unsigned number) {
  Dice dice(kOfStep, number);
  Seat& seat = seats[dice.below(kPeers)];
  Seat& other = seats[(seat.index + 1 + dice.below(kPeers - 1)) % kPeers];
  const std::string group = kGroups[dice.below(3)];
  const bool impatient = dice.below(4) == 0;
  unsigned what = dice.below(975);
  if (!seat.life) return start(seat, group);
  Life& life = *seat.life;
  if (life.killed) return;
  if (life.leaving) {  // it waits for its last file, perhaps
    if (impatient) life.process->say("/quit");
    return;
  }
  if (life.busy) {
    ++totals.skipped;
    return;
  }
  for (const Action& action : kActions) {
    if (what < action.weight) return action.run(life, other, dice);
    what -= action.weight;
  }
}

// Offers are taken, declined, or left alone until the calm.
void answer_offers(Life& life) {
  for (size_t i = 0; i < life.offers.size() && !life.busy && !life.leaving; ++i) {
    const auto found = life.receives.find(life.offers[i]);
    const unsigned chance = Dice(kOfAnswer, static_cast<unsigned>(life.number * 1000 + life.offers[i])).below(100);
    if (!calm && chance >= 80 && found != life.receives.end()) continue;
    if (found != life.receives.end())
      command(life, (calm || chance < 60 ? "/accept " : "/reject ") + to_string(life.offers[i]));
    life.offers.erase(life.offers.begin() + static_cast<std::ptrdiff_t>(i));
    return;
  }
}

bool has_exited(const Life& life) {
  siginfo_t info{};
  const id_t pid = static_cast<id_t>(life.process->pid());
  return ::waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0;
}

void read_lines(Life& life) {
  const std::vector<std::string>& lines = life.process->lines();
  while (life.heard < lines.size()) hear(life, lines[life.heard++]);
}

void bury(Life& life) {
  read_lines(life);  // what it wrote between our last look and its end
  const int status = life.process->exit_status();
  const int right = life.killed ? 128 + SIGKILL : life.missed ? 1 : 0;
  if (status != right || (!life.killed && !life.leaving))
    complain(life.name + " has ended, with status " + to_string(status) + "; expected: " +
                 (life.leaving || life.killed ? to_string(right) : "no end"), "", {&life});
  life.ended = true;
  life.process.reset();
  life.receives.clear();
  life.seat->life = nullptr;
}

// Whatever has to be done again and again.
void attend() {
  for (Seat& seat : seats) {
    if (!seat.life) continue;
    Life& life = *seat.life;
    const bool exited = has_exited(life);
    read_lines(life);
    if (exited) bury(life);
    else if (!life.killed) answer_offers(life);
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
}

// ---- Faults of the network ---------------------------------------------------------------------------

// One after the other, with pauses. A host that is mute takes in messages whose acknowledgement is lost: what its peers
// are sent then is sent again when they can be heard, and must not be shown twice.
class Faults {
 public:
  void tick() {
    if (now() < next_) return;
    if (!undo_.empty()) return heal();
    Dice dice(kOfFault, ++number_);
    const int host = 1 + static_cast<int>(dice.below(kHosts));
    const std::string port = "v" + to_string(host);
    const unsigned kind = dice.below(4);
    next_ = now() + 2 + dice.below(13);
    pause_ = 2 + dice.below(5);
    if (kind == 0) cut("ip link set " + port + " down", "ip link set " + port + " up");
    if (kind == 1) cut(rule("numgen random mod 100 < 10"), "nft flush chain bridge soak c");
    if (kind == 2) cut(rule("iifname " + port), "nft flush chain bridge soak c");
    if (kind == 3) cut(rule("oifname " + port), "nft flush chain bridge soak c");
    ++totals.faults;
  }

  void heal() {
    if (!undo_.empty()) network->run(0, undo_);
    undo_.clear();
    next_ = now() + pause_;
  }

 private:
  static std::string rule(const std::string& which) { return "nft 'add rule bridge soak c " + which + " drop'"; }
  void cut(const std::string& how, const std::string& undo) {
    network->run(0, how);
    undo_ = undo;
  }

  unsigned number_ = 0, pause_ = 0;
  double next_ = 5;
  std::string undo_;
};

// 50 Mbit/s: a file of some MB takes long enough to be cut short.
void build_network() {
  network = std::make_unique<Network>(kHosts);
  network->run(0, "nft 'add table bridge soak; add chain bridge soak c { type filter hook forward priority 0; }'");
  for (int host = 1; host <= kHosts; ++host)
    network->run(0, "tc qdisc add dev v" + to_string(host) + " root tbf rate 50mbit burst 64k limit 512k");
}

// ---- The storm, the calm, the audit ----------------------------------------------------------------------

struct Resources { size_t descriptors, threads; };

// Those of a peer at rest. The first thread of all may bring others, which stay: ThreadSanitizer's.
Resources measure_resources() {
  const Folder folder;
  const auto start_one = [&](const std::string& name) {
    const std::vector<std::string> how{peer_program(), "--name", name, "--accept", "always"};
    return std::make_unique<Process>(network->descriptor(1), how, folder.path());
  };
  const auto ann = start_one("ann");
  ann->wait_for("ready .*", 60);
  ann->say("/mark");
  ann->wait_for("error: there is no command /mark.*", 60);  // or each peer would seem busy for ever
  const size_t descriptors = ann->uses("fd");
  const auto bob = start_one("bob");
  ann->wait_for("joined bob.*", 60);
  folder.write("x", "hello\n");
  ann->say("/send bob x");
  ann->wait_for("send 1 delivered .*", 60);
  if (!eventually(60, [&] { return ann->uses("fd") == descriptors; }))
    throw std::runtime_error("it keeps descriptors");
  return {descriptors, ann->uses("task")};
}

void storm() {
  Faults faults;
  unsigned steps = 0;
  for (const double begin = now(); now() < begin + kSeconds; attend()) {
    faults.tick();
    if (now() < begin + steps * kStep) continue;
    step(++steps);
    if (steps % 1200 == 0)
      std::cout << "  " << static_cast<int>(now()) << " s: " << items.size() - 1 << " sent" << std::endl;
  }
  faults.heal();
}

bool wait_until(const std::string& what, double seconds, const std::function<bool()>& condition) {
  for (const double begin = now(); now() < begin + seconds; attend())
    if (condition()) {
      std::cout << "  " << static_cast<int>(now()) << " s: " << what << std::endl;
      return true;
    }
  std::cout << "not within " << seconds << " s: " << what << std::endl;
  return false;
}

bool all_is_quiet() {
  for (const Seat& seat : seats) {
    const Life* life = seat.life;
    if (life && (life->busy || life->leaving || life->killed || !life->offers.empty())) return false;
  }
  for (const auto& item : items)
    if (item && !item->from->ended && item->count(Outcome::open) > 0) return false;
  return true;
}

// Asks each again and again, for until it answers the list is an old one.
std::vector<Life*> those_with_a_wrong_list() {
  std::set<std::string> expected;
  std::vector<Life*> wrong;
  for (const Seat& seat : seats)
    if (seat.life) expected.insert(seat.life->name + " " + seat.life->group);
  for (const Seat& seat : seats) {
    if (!seat.life) continue;
    Life& life = *seat.life;
    std::set<std::string> listed, told{life.name + " " + life.group};
    for (const User& user : life.listed) listed.insert(user.name + " " + user.group);
    for (const auto& entry : life.view) told.insert(entry.second);
    if (listed == expected && told == expected && life.listed.size() == expected.size()) continue;
    wrong.push_back(&life);
    if (!life.busy) command(life, "/list");
  }
  return wrong;
}

void expect_right_lists(const std::string& who) {
  if (wait_until("all lists are right: " + who, 60, [] { return those_with_a_wrong_list().empty(); })) return;
  for (Life* life : those_with_a_wrong_list())
    complain(life->name + " lists " + to_string(life->listed.size()) + " users, and has told of " +
                 to_string(life->view.size() + 1), "", {life});
}

// Somebody does not have what was sent to it from here.
bool is_lacking(const Seat& from) {
  return std::any_of(from.files.begin(), from.files.end(), [](const File* file) {
    return std::any_of(file->tries.begin(), file->tries.end(),
                       [](const auto& entry) { return entry.second.back()->outcome != Outcome::delivered; });
  });
}

// Each says something to all, and sends again what had not arrived; again and again, until all of it is delivered. Few
// at a time, for on a slow machine, under a sanitizer, even a sound peer may not answer within its 10 s.
void send_in_calm() {
  constexpr long kAtOnce = 10;
  std::vector<Item*> posts(kPeers);
  const auto has_reached_all = [&](const Seat& seat) {
    return posts[seat.index] && posts[seat.index]->count(Outcome::delivered) == kPeers - 1;
  };
  wait_until("each has reached all, and all files have arrived", kPatience, [&] {
    long under_way = 0;
    for (const auto& item : items)
      if (item && !item->from->ended) under_way += item->count(Outcome::open);
    bool done = under_way == 0;
    for (Seat& seat : seats) {
      if (has_reached_all(seat) && !is_lacking(seat)) continue;
      done = false;
      if (!seat.life || seat.life->busy || under_way > kAtOnce) continue;
      Dice dice(kOfStep, 0);
      if (has_reached_all(seat)) send_again(*seat.life, seat, dice);
      else if (!seat.life->post) say_to_many(*seat.life, "all"), posts[seat.index] = seat.life->post;
      under_way += kPeers / 2;
    }
    return done;
  });
  for (const Seat& seat : seats) {
    if (!seat.life) complain(seat.last->name + " has gone, in the calm", "", {seat.last});
    else if (!has_reached_all(seat)) complain(seat.life->name + " cannot reach all, in the calm", "", {seat.life});
    else if (is_lacking(seat)) complain(seat.life->name + " cannot send all files, in the calm", "", {seat.life});
  }
}

void expect_resources(const Resources& at_start) {
  const auto has_too_many = [&](const Seat& seat) {
    return !seat.life || seat.life->process->uses("fd") > at_start.descriptors ||
           seat.life->process->uses("task") > at_start.threads;
  };
  const auto none_has = [&] { return std::none_of(seats.begin(), seats.end(), has_too_many); };
  if (wait_until("descriptors and threads are as at the start", 120, none_has)) return;
  for (const Seat& seat : seats) {
    if (!seat.life || !has_too_many(seat)) continue;
    const auto numbers = [](size_t descriptors, size_t threads) {
      return to_string(descriptors) + " descriptors and " + to_string(threads) + " threads";
    };
    const Process& process = *seat.life->process;
    complain(seat.life->name + " has " + numbers(process.uses("fd"), process.uses("task")) +
                 "; at the start it had " + numbers(at_start.descriptors, at_start.threads), "", {seat.life});
  }
}

void calm_down(const Resources& at_start) {
  calm = true;
  wait_until("what was under way has ended", kPatience, all_is_quiet);
  for (Seat& seat : seats)
    if (seat.life && seat.index % 5 == 0) kill(*seat.life);
  wait_until("some more were killed", 60, all_is_quiet);
  expect_right_lists("those who live");
  for (Seat& seat : seats)
    if (!seat.life) start(seat, "red");
  expect_right_lists("those and new ones");
  send_in_calm();
  expect_resources(at_start);
  for (Seat& seat : seats)
    if (seat.life) seat.life->leaving = true, seat.life->process->say("/quit");
  wait_until("all have quit", 60, [] {
    return std::none_of(seats.begin(), seats.end(), [](auto& seat) { return seat.life != nullptr; });
  });
  for (Seat& seat : seats)
    if (seat.life) complain(seat.life->name + " does not end", "", {seat.life});
}

void audit_copy(const Item& item, const Copy& copy) {
  const auto wrong = [&](const std::string& what) {
    complain(what + ": " + item.key + " from " + item.from->name + ": " + copy.report, item.key, {item.from, copy.to});
  };
  if (copy.outcome == Outcome::open && !item.from->killed) wrong("no report");
  if (item.file) return;
  if (copy.outcome == Outcome::delivered && copy.shown == 0 && !copy.to->killed) wrong("delivered, and never shown");
  if (copy.outcome == Outcome::failed && copy.shown > 0) wrong("failed, and shown");
}

bool is_same(const std::string& path, const std::string& other) {
  if (!fs::is_directory(path)) return read_file(path) == read_file(other);
  return std::system(("diff -rq '" + path + "' '" + other + "' >/dev/null").c_str()) == 0;
}

// What is in a seat's folder of one file, against all tries to send it there.
void audit_file(const File& file, const Seat& seat, const std::vector<std::string>& found) {
  const std::vector<Copy*>& tries = file.tries.at(&seat);
  std::vector<Life*> about;
  std::set<std::string> finals, told;
  size_t may_be = 0, witnesses_killed = 0, stored = 0;
  for (const Copy* copy : tries) {
    for (Life* life : {copy->item->from, copy->to})
      if (std::find(about.begin(), about.end(), life) == about.end()) about.push_back(life);
    may_be += copy->outcome == Outcome::unknown || copy->outcome == Outcome::open;
    witnesses_killed += copy->to->killed;
  }
  const auto wrong = [&](const std::string& what) { complain(what, tries[0]->item->key, about); };
  const std::string folder = seat.folder->path("downloads/");
  for (const std::string& name : found) {
    const bool is_part = name.size() > 5 && name.substr(name.size() - 5) == ".part";
    if (!is_part) finals.insert(name);
    if (!is_part && !is_same(file.path, folder + name)) wrong("other bytes than were sent: " + folder + name);
    for (const auto& one : seat.stored) {
      const bool is_its = one.file == &file && name.find("." + one.from_ip + ".part") != std::string::npos;
      if (is_its && file.crossed.count(&seat) == 0) wrong("a part of a file that was stored: " + folder + name);
    }
  }
  for (const auto& one : seat.stored) {
    stored += one.file == &file;
    if (one.file == &file && finals.count(one.name) == 0) wrong("stored, and not there: " + folder + one.name);
  }
  for (const Copy* copy : tries) {
    if (copy->outcome != Outcome::delivered) continue;
    if (!told.insert(copy->stored_as).second) wrong("two were delivered under one name: " + copy->stored_as);
    if (finals.count(copy->stored_as) == 0) wrong("delivered, and not there: " + copy->report);
  }
  if (finals.size() > told.size() + may_be) wrong("failed, and there: " + folder + *finals.rbegin());
  if (finals.size() < stored || finals.size() > stored + witnesses_killed)
    wrong(to_string(finals.size()) + " are there, " + to_string(stored) + " were told of: " + folder + file.name);
}

void audit() {
  for (const auto& item : items)
    if (item)
      for (const auto& copy : item->copies) audit_copy(*item, *copy);
  for (const Seat& seat : seats) {
    std::map<File*, std::vector<std::string>> found;
    for (const std::string& name : seat.folder->names("downloads")) found[file_of(name)].push_back(name);
    for (const auto& [file, names] : found)
      if (!file || file->tries.count(&seat) == 0)
        complain("nobody sent this: " + seat.folder->path(names[0]), names[0], {});
    for (const auto& file : files)
      if (file && file->tries.count(&seat) > 0) audit_file(*file, seat, found[file.get()]);
  }
}

void summarize() {
  std::map<Outcome, size_t> messages, tries;
  size_t shown = 0, stored = 0;
  uintmax_t bytes = 0;
  for (const auto& item : items)
    if (item)
      for (const auto& copy : item->copies) {
        ++(item->file ? tries : messages)[copy->outcome];
        shown += static_cast<size_t>(copy->shown);
      }
  for (const Seat& seat : seats) {
    stored += seat.stored.size();
    const std::string folder = seat.folder->path("downloads");
    if (!fs::exists(folder)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(folder))
      if (entry.is_regular_file()) bytes += entry.file_size();
  }
  using O = Outcome;
  std::cout << "peers: " << totals.joined << " started, " << totals.quit << " quit, " << totals.interrupted
            << " interrupted, " << totals.killed << " killed, the last " << kPeers << " quit together\n"
            << "messages: " << messages[O::delivered] << " delivered, " << messages[O::failed] << " failed, "
            << messages[O::unknown] << " unknown, " << messages[O::open] << " of killed senders; " << shown
            << " shown\n"
            << "files and folders: " << tries[O::delivered] << " delivered, " << tries[O::failed] << " failed, "
            << tries[O::unknown] << " unknown, " << tries[O::open] << " of killed senders; " << totals.resumed
            << " resumed; " << stored << " stored, " << bytes / 1'000'000 << " MB\n"
            << "network: " << totals.faults << " faults; steps skipped, for the peer was busy: " << totals.skipped
            << std::endl;
}

// Each with both sides' lines about it; where it is about a process as such, its last ones.
void show_complaints() {
  for (size_t i = 0; i < std::min(kMostShown, complaints.size()); ++i) {
    const Complaint& one = complaints[i];
    std::cout << "\n" << i + 1 << ". " << one.what << "\n";
    for (const Life* life : one.about) {
      std::cout << "  " << life->name << " (" << life->address << (life->killed ? ", killed" : "") << "):\n";
      for (size_t n = 0; n < life->log.size(); ++n)
        if (one.key.empty() ? n + 40 > life->log.size() : life->log[n].find(one.key) != std::string::npos)
          std::cout << "    " << life->log[n].substr(0, 300) << "\n";
    }
  }
  std::cout << "\n" << complaints.size() << " faults; again: SEED=" << kSeed << std::endl;
}

void give_up(int) { ::execlp("rm", "rm", "-rf", "--", work_path.c_str(), nullptr); }

}  // namespace

// NOLINTNEXTLINE(bugprone-exception-escape): an exception ends it, and shows what it was
int main(int argc, char** argv) {
  std::cout << "SEED=" << kSeed << ", " << kPeers << " peers, " << kSeconds << " s of storm" << std::endl;
  // What is an assertion to a test is an exception here.
  testing::GTEST_FLAG(throw_on_failure) = true;
  testing::InitGoogleTest(&argc, argv);
  ::signal(SIGPIPE, SIG_IGN);
  if (!enter_private_network()) {
    std::cerr << "network namespaces are not allowed here; run as root" << std::endl;
    return 1;
  }
  const Folder work;
  work_path = work.path();
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::signal(number, give_up);
  build_network();
  const Resources at_start = measure_resources();
  for (unsigned i = 0; i < kPeers; ++i) {
    seats.emplace_back();
    seats.back().index = i;
    seats.back().host = 1 + static_cast<int>(i) % kHosts;
    seats.back().folder = std::make_unique<Folder>(work.path());
  }
  storm();
  calm_down(at_start);
  audit();
  summarize();
  if (!complaints.empty()) show_complaints();
  else std::cout << "The account balances." << std::endl;
  lives.clear();
  seats.clear();
  network.reset();
  return complaints.empty() ? 0 : 1;
}
