// discovery.cpp: finding the peers of the network segment, over UDP, and noticing when they go.
//
// Read protocol.h first; transfer.cpp is next. Only the main thread enters here: the select() loop
// of peer.cpp calls receive() when a datagram has come, and tick() again and again.
//
// Three datagrams do it all [4]: HELLO asks, HERE answers and is the heartbeat, BYE leaves. They
// travel by broadcast on every network; where broadcast finds nobody, by a sweep, one HELLO after
// the other to each address; and by a HELLO to an address that the user names (/scan).
//
// Roster knows who is here, and decides what to say to whom, and when. It has no socket and no
// clock: it is told what has come and what time it is, and it gives back the datagrams to send. So
// a test plays an hour of a class in a millisecond, and the same again from the same seed. Around
// it is a thin shell: two sockets, the list of interfaces, the clock. For a second reading: sweeps,
// hosts with several instances, our interfaces, /scan and /diag.
//
// Left out on purpose: authentication. Whoever owns a UDP port may say about himself what he likes,
// and only that.

#include <ifaddrs.h>
#include <net/if.h>

#include <random>
#include <set>

#include "protocol.h"

using namespace std::chrono_literals;

namespace {

// ---- Timers and limits [2.2], [2.3] -------------------------------------------------

constexpr size_t kBeatsASecond = 20;  // of all peers of a network together
constexpr auto kAnswerSpread = 500us; // for each user: so long the answers to a broadcast take
constexpr auto kLeftFor = 15s;        // so long nothing is listed under the id of one who said BYE
constexpr auto kReplacedFor = 5s;     // and of one in whose place another has started
constexpr auto kAskEvery = 500ms;     // a question is repeated
constexpr int kMaxQuestions = 24;     // unanswered: whatever we hear of it, it does not hear us
constexpr int kBurst = 3;             // HELLOs at start: one lost datagram costs nothing
constexpr auto kBurstPause = 250ms;
constexpr auto kBroadcastFirst = 3s;  // nobody found by then: the network is swept
constexpr auto kProbePause = 250ms;   // of a sweep: see Roster::probe()
constexpr auto kSweepAgain = 5min;    // where it is of use
constexpr auto kScanGrace = 1s;       // left for the last answers
constexpr size_t kProbesBetweenNotes = 120;  // of a /scan: 30 s
constexpr int kSweepBits = 22;        // a sweep is at most a /22: 1,022 addresses
constexpr size_t kCrowd = 50;         // of more users, not each gets a BYE of his own
constexpr size_t kMaxListed = 1024;
constexpr size_t kMaxPeers = 1280;    // listed or not
constexpr size_t kMaxFromOne = 128;   // listed at one IP address: it must not crowd out the others

// ---- A network that we are on -------------------------------------------------------------

struct Interface {
  std::string name;
  uint32_t ip = 0;
  uint32_t netmask = 0;
  uint32_t other_end = 0;  // of a point-to-point link; else 0

  bool operator==(const Interface& o) const {
    return std::tie(name, ip, netmask, other_end) == std::tie(o.name, o.ip, o.netmask, o.other_end);
  }
  bool is_loopback() const { return ip >> 24 == IN_LOOPBACKNET; }
  bool has_on_link(uint32_t other) const {
    const bool is_in_network = (ip & netmask) == (other & netmask);
    return is_in_network || other == other_end;
  }
  // A /31 and a /32 have no broadcast address.
  bool can_broadcast() const { return ~netmask > 1 && other_end == 0; }
  uint32_t broadcast_ip() const { return ip | ~netmask; }
  int bits() const { return __builtin_popcount(netmask); }  // 24, of 255.255.255.0
};

// Whether one of them has this address.
bool has_ip(const std::vector<Interface>& all, uint32_t ip) {
  for (const Interface& one : all)
    if (one.ip == ip) return true;
  return false;
}

// ============================================================================
// The roster: who is here, as a value
// ============================================================================

struct Datagram {
  Announcement what;
  Address to;
};

// Which of our two sockets a datagram has come to: only the shared one hears broadcasts.
enum class Door { own, shared };

// A probe comes to the shared port, too, but asks for the whole host.
bool came_by_broadcast(const Announcement& said, Door door) {
  return door == Door::shared && !said.ask_host;
}

// Whom to ask: the addresses of a network, the nearest to `ip` first, or `ip` alone.
struct Range {
  uint32_t ip = 0;
  int bits = 32;
  uint16_t port = 0;  // 0: first that of a host's first instance, then the shared one
};

class Roster {
 public:
  using Time = Clock::time_point;

  // A peer that was heard. Only a listed one is shown: we hear it, and it has shown that it hears
  // us. One that has left is kept for a while: a datagram that was overtaken by its BYE must not
  // bring it back.
  struct Peer {
    enum class State { heard, listed, left };
    State state = State::heard;
    Identity who;         // at the address where its datagrams come from
    int questions = 0;    // of ours, since it last showed that it hears us
    Time last_heard;
    Time last_asked;      // or it was new, or showed that it hears us: no reason to ask yet
    Time last_answer;     // to a datagram of ours
    Time forget_at;       // once it has left
    Time look_at = Time::max();  // when the agenda has it next
    std::chrono::seconds every = kHeartbeat;  // so often it says HERE
    bool was_broadcast = false;  // whether it was ever heard by broadcast

    Time overdue_at() const { return last_heard + every * 6 / 5; }
    Time movable_at() const { return last_heard + every * 2; }  // another address may have its id
    Time gone_at() const { return last_heard + every * 3; }
  };

  // Who we are; and what chance begins with: the same seed gives the same run. `epoch` is when the
  // clock on the wall began: by it, peers that do not know each other do the same at one time.
  Roster(const Identity& self, uint32_t seed, Time epoch = {})
      : self_(self), random_(seed), epoch_(epoch) {}

  // What happens, and when.
  void never_sweep() { may_sweep_ = false; }                            // --scan=off
  void start(const std::vector<Interface>& networks, Time now);
  void use_networks(const std::vector<Interface>& networks, Time now);  // these are up, by now
  void hear(const Announcement& words, Address from, Door door, Time now);
  void hear_introduction(const Identity& who);                          // over TCP
  void scan(const std::vector<Range>& ranges, Time now);  // its end is told
  void scan_all(Time now);                                // the same of all our networks
  void rename(const std::string& name, const std::string& group);
  void leave();
  void run(Time now);                                                   // does all that is due
  Time next_due() const;

  // What comes of it: for the caller to send, and to tell.
  std::vector<Datagram> take_datagrams() { return std::exchange(datagrams_, {}); }
  std::vector<Event> take_events() { return std::exchange(events_, {}); }

  const std::map<std::string, Peer>& peers() const { return peers_; }   // by id
  std::vector<Identity> users() const;                                  // who is listed, sorted

 private:
  using State = Peer::State;

  struct Task {
    enum class Kind { greet, heartbeat, answer, ask, sweep, probe, end_scan, look_after };
    Kind kind;
    std::string id = {};    // ask, look_after: which peer
    Address address = {};   // answer: where to
  };

  // A network of ours; where broadcast finds nobody, it is swept [4.3].
  struct Sweep {
    Interface network;
    bool broadcast_works = false;
    int rounds = 0;             // that have begun
    Time begins_at;             // the next one
    std::deque<Address> left;   // of this one: to be asked
  };

  // A look at many addresses that the user wants.
  struct Scan {
    std::deque<Address> left;  // to be asked; each address is there twice
    size_t addresses = 0;      // how many, in all
    Time ends_at;              // once all have been asked
  };

  // Hearing
  void answer(const std::string& asker, Address to);
  void answer_hello(const Announcement& hello, Address from);
  void answer_after(Clock::duration delay, const std::string& asker, Address to);
  void answer_pending(Address to);
  void answer_for_host(const std::string& asker, Address from);
  void hear_of(const Announcement& said, Clock::duration delay);
  void follow_hearsay(const Identity& who);
  void hear_bye(const Identity& who);
  Peer* find(const Identity& who);
  Peer* update(const Announcement& said);
  Peer& insert(const Announcement& said);
  void move(Peer& peer, Address to);
  void confirm(Peer& peer);
  void unlist(Peer& peer, const std::string& reason);
  void dismiss(Peer& peer, const std::string& reason, Clock::duration time);

  // Who may have an entry, and where
  std::vector<Peer*> peers_at(uint32_t ip);
  size_t count_at(uint32_t ip);
  bool may_be_listed(uint32_t ip);
  bool may_move(const Peer& peer, Address to);
  void make_room();
  void erase(const std::string& id);
  void retire_former_owner(const Peer& owner);

  // Looking after the list
  void plan(Time when, const Task& task) { agenda_.emplace(when, task); }
  void carry_out(const Task& task, Time due);
  void plan_heartbeat();
  void beat();
  std::chrono::seconds interval() const;
  Clock::duration chance(Clock::duration most);
  Clock::duration spread() const;
  void ask(Peer& peer);
  void ask_after(Clock::duration delay, Peer& peer);
  void ask_unless_answered(const std::string& id);
  Time next_question(const Peer& peer) const;
  void look_again(Peer& peer);
  void look_after(const std::string& id, Time due);
  void keep_true(Peer& peer);

  // Speaking
  void broadcast(Verb verb);
  Announcement announcement(Verb verb) const;
  void send(const Announcement& what, Address to);
  void tell(const Event& event);

  // Sweeps
  void look_around();
  void begin_burst();
  void begin(Task::Kind kind);
  void greet();
  void note_broadcast(const Announcement& said, Address from, Door door);
  void begin_sweeps();
  bool is_worth_it(const Sweep& sweep) const;
  Time next_round(const Interface& network) const;
  Range range_of(const Interface& network) const;
  std::deque<Address> addresses_of(const Range& range) const;
  void skip_probes(uint32_t ip);
  std::deque<Address>* next_probes();
  void probe();
  void question(const Announcement& hello, Address to);
  void follow_scan();
  void tell_scan();
  void end_scan(Time due);

  bool is_unicast(Address source) const;

  Time now_;                          // what we have been told last
  Identity self_;
  std::minstd_rand random_;
  Time epoch_;
  std::vector<Interface> networks_;
  std::map<std::string, Peer> peers_;                  // by id
  std::set<std::pair<uint32_t, std::string>> by_ip_;   // the same ids, by their IP address
  size_t listed_ = 0;                                  // how many of them are listed
  std::multimap<Time, Task> agenda_;  // all that is to be done later, in the order of time
  std::map<Address, std::string> pending_;  // answers to broadcasts: where to, and to which id
  std::chrono::seconds every_ = kHeartbeat; // between our heartbeats, as we said it last
  int hellos_left_ = 0;                     // of the burst
  bool may_sweep_ = true;
  std::vector<Sweep> sweeps_;               // one for each network but loopback
  size_t turn_ = 0;                         // which of them has asked last
  std::optional<Scan> scan_;                // what the user has asked for
  std::set<uint32_t> asked_;                // IP addresses that a HELLO was sent to, alone
  std::vector<Datagram> datagrams_;
  std::vector<Event> events_;
};

// ---- A datagram has come ------------------------------------------------------------

void Roster::hear(const Announcement& words, Address from, Door door, Time now) {
  now_ = now;
  const bool is_ours = words.who.id == self_.id;
  if (is_ours || !is_unicast(from)) return;
  Announcement said = words;
  said.who.address.ip = from.ip;  // whatever it says itself
  // A broadcast is heard by a whole class, which must not speak all at once.
  const bool is_broadcast = came_by_broadcast(said, door);
  const Clock::duration delay = is_broadcast ? chance(spread()) : 0s;
  if (said.verb == Verb::hello && is_broadcast) answer_after(delay, said.who.id, from);
  if (said.verb == Verb::hello && !is_broadcast) answer_hello(said, from);
  // Not from the port in it: somebody else speaks of this peer.
  const bool is_hearsay = from.port != said.who.address.port;
  if (is_hearsay) {
    if (said.verb == Verb::here) follow_hearsay(said.who);
  } else if (said.verb == Verb::bye) {
    hear_bye(said.who);
  } else {
    hear_of(said, delay);
  }
  note_broadcast(said, from, door);
}

void Roster::answer(const std::string& asker, Address to) {
  Announcement here = announcement(Verb::here);
  here.to = asker;
  send(here, to);
}

void Roster::answer_hello(const Announcement& hello, Address from) {
  answer(hello.who.id, from);
  if (hello.ask_host) answer_for_host(hello.who.id, from);
}

// A HELLO or HERE from the peer itself.
void Roster::hear_of(const Announcement& said, Clock::duration delay) {
  const bool is_new = !find(said.who);
  Peer* const peer = update(said);
  if (!peer) return;
  const bool hears_us = said.verb == Verb::here && said.to == self_.id;
  if (hears_us) {
    confirm(*peer);
    return;
  }
  // Why does one ask that is listed? Perhaps because our datagrams do not arrive. But to answer
  // each question with a question would never end.
  const bool is_asking = said.verb == Verb::hello;
  const bool is_doubtful = is_asking && now_ - peer->last_asked > kHeartbeat;
  if (is_new || is_doubtful) ask_after(delay, *peer);
}

// Only from the address that the list has for it: nobody can say BYE for another.
void Roster::hear_bye(const Identity& who) {
  Peer* const peer = find(who);
  if (peer) dismiss(*peer, "said bye", kLeftFor);
}

// The entry of this id, if it is at this address.
Roster::Peer* Roster::find(const Identity& who) {
  const auto known = peers_.find(who.id);
  if (known == peers_.end()) return nullptr;
  Peer& peer = known->second;
  return peer.who.address == who.address ? &peer : nullptr;
}

// Keeps what a peer said of itself. Returns its entry, or null where it may not have one.
Roster::Peer* Roster::update(const Announcement& said) {
  const Identity& who = said.who;
  const auto known = peers_.find(who.id);
  if (known == peers_.end()) return &insert(said);
  Peer& peer = known->second;
  if (peer.state == State::left) return nullptr;
  const Identity before = peer.who;
  const bool has_moved = before.address != who.address;
  if (has_moved && !may_move(peer, who.address)) return nullptr;
  if (has_moved) move(peer, who.address);
  peer.who = who;
  peer.every = said.every;
  peer.last_heard = now_;
  const bool is_renamed = before.name != who.name || before.group != who.group;
  const bool is_shown = peer.state == State::listed;
  if (is_shown && (has_moved || is_renamed))
    tell(UserChanged{who, before});
  return &peer;
}

Roster::Peer& Roster::insert(const Announcement& said) {
  if (peers_.size() >= kMaxPeers) make_room();
  by_ip_.emplace(said.who.address.ip, said.who.id);
  Peer& peer = peers_[said.who.id];
  peer.who = said.who;
  peer.every = said.every;
  peer.last_heard = now_;
  peer.last_asked = now_;
  return peer;
}

// It hears us: this is what makes it one of the list.
void Roster::confirm(Peer& peer) {
  if (peer.state != State::listed) {
    if (!may_be_listed(peer.who.address.ip)) return;
    // Not before: anyone can claim an address, but not read what is sent there.
    retire_former_owner(peer);
    peer.state = State::listed;
    ++listed_;
    tell(UserJoined{peer.who});
    skip_probes(peer.who.address.ip);
  }
  peer.questions = 0;
  peer.last_answer = now_;
  // Its own question, which often follows its answer, is no reason to ask again.
  peer.last_asked = now_;
  look_again(peer);
}

void Roster::unlist(Peer& peer, const std::string& reason) {
  if (peer.state != State::listed) return;
  peer.state = State::heard;
  --listed_;
  tell(UserLeft{peer.who, reason});
}

// It has left. Its entry stays for a while: what it sent before may still be on its way.
void Roster::dismiss(Peer& peer, const std::string& reason, Clock::duration time) {
  unlist(peer, reason);
  peer.state = State::left;
  peer.forget_at = now_ + time;
  look_again(peer);
}

// Over TCP an address is only said; a datagram shows by its source who owns the port. So an
// introduction lists nobody: it makes us ask.
void Roster::hear_introduction(const Identity& who) {
  const Peer* const known = find(who);
  const bool is_listed = known && known->state == State::listed;
  if (is_listed || !is_unicast(who.address)) return;
  question(announcement(Verb::hello), who.address);
}

// ---- Looking after the list ---------------------------------------------------------

void Roster::run(Time now) {
  now_ = now;
  while (next_due() <= now_) {
    const auto first = agenda_.begin();
    const Time due = first->first;
    const Task task = first->second;
    agenda_.erase(first);
    carry_out(task, due);
  }
}

Roster::Time Roster::next_due() const {
  return agenda_.empty() ? Time::max() : agenda_.begin()->first;
}

void Roster::carry_out(const Task& task, Time due) {
  switch (task.kind) {
    case Task::Kind::greet: return greet();
    case Task::Kind::heartbeat: return beat();
    case Task::Kind::answer: return answer_pending(task.address);
    case Task::Kind::ask: return ask_unless_answered(task.id);
    case Task::Kind::sweep: return begin_sweeps();
    case Task::Kind::probe: return probe();
    case Task::Kind::end_scan: return end_scan(due);
    case Task::Kind::look_after: return look_after(task.id, due);
  }
}

// The next one comes as soon as this one said.
void Roster::beat() {
  every_ = interval();
  broadcast(Verb::here);
  plan_heartbeat();
}

// Each hears all others. With one interval for all classes, the work would grow with the square of
// their number.
std::chrono::seconds Roster::interval() const {
  const size_t users = listed_ + 1;
  const size_t needed = (users + kBeatsASecond - 1) / kBeatsASecond;
  return std::max(kHeartbeat, std::chrono::seconds(needed));
}

// The heartbeats of a class that started together would stay together; a little chance spreads
// them.
void Roster::plan_heartbeat() {
  const Clock::duration tenth = Clock::duration(every_) / 10;
  const Time earliest = now_ + every_ - tenth;
  plan(earliest + chance(2 * tenth), {Task::Kind::heartbeat});
}

Clock::duration Roster::chance(Clock::duration most) {
  const auto steps = static_cast<uint32_t>(most / 1us) + 1;
  return random_() % steps * 1us;
}

// On another host, other instances may have gone unheard so far. Those beside us we hear.
void Roster::ask(Peer& peer) {
  ++peer.questions;
  peer.last_asked = now_;
  Announcement hello = announcement(Verb::hello);
  const bool is_beside_us = has_ip(networks_, peer.who.address.ip);
  hello.ask_host = !is_beside_us;
  question(hello, peer.who.address);
  look_again(peer);
}

// When it has to be asked, should nothing come of it before.
Roster::Time Roster::next_question(const Peer& peer) const {
  const bool is_listed = peer.state == State::listed;
  const bool all_is_well = is_listed && peer.questions == 0;
  if (all_is_well) return peer.overdue_at();
  const bool is_urgent = is_listed || peer.questions < kMaxQuestions;
  if (is_urgent) return peer.last_asked + kAskEvery;
  return peer.last_asked + kHeartbeat;
}

// Sees to it that the agenda has the peer in time. An entry that is too early does no harm: it will
// be seen then that there is nothing to do yet. So a storm of datagrams makes no storm of entries.
void Roster::look_again(Peer& peer) {
  Time next = std::min(next_question(peer), peer.gone_at());
  if (peer.state == State::left) next = peer.forget_at;
  if (peer.look_at <= next) return;
  peer.look_at = next;
  plan(next, {Task::Kind::look_after, peer.who.id});
}

void Roster::look_after(const std::string& id, Time due) {
  const auto found = peers_.find(id);
  const bool is_stale = found == peers_.end() || found->second.look_at != due;
  if (is_stale) return;
  Peer& peer = found->second;
  peer.look_at = Time::max();
  const bool has_left = peer.state == State::left;
  const Time end = has_left ? peer.forget_at : peer.gone_at();
  if (now_ >= end) {
    const auto silence = std::chrono::duration_cast<std::chrono::seconds>(now_ - peer.last_heard);
    unlist(peer, "silent for " + to_string(silence.count()) + " s");
    erase(id);
    return;
  }
  if (!has_left) keep_true(peer);
  look_again(peer);
}

void Roster::keep_true(Peer& peer) {
  // We hear it, but nothing that we sent has reached it: a list with it on would promise what
  // cannot work.
  const bool is_heard = now_ < peer.overdue_at();
  const bool is_deaf = is_heard && peer.questions >= kMaxQuestions;
  if (is_deaf) unlist(peer, "does not hear us");
  if (now_ >= next_question(peer)) ask(peer);
}

// ---- What we say of ourselves -------------------------------------------------------

void Roster::start(const std::vector<Interface>& networks, Time now) {
  now_ = now;
  networks_ = networks;
  look_around();
  plan_heartbeat();
}

void Roster::rename(const std::string& name, const std::string& group) {
  self_.name = name;
  self_.group = group;
  const Announcement here = announcement(Verb::here);
  for (const auto& [id, peer] : peers_) send(here, peer.who.address);
}

// The broadcast is for those as well who hear us and whom we do not hear. And to each, lest it be
// dropped, or be read from the shared port after something newer from the own one; but in a crowd
// only to those whom no broadcast seems to reach.
void Roster::leave() {
  broadcast(Verb::bye);
  const Announcement bye = announcement(Verb::bye);
  const bool is_crowd = listed_ + 1 > kCrowd;
  for (const auto& [id, peer] : peers_) {
    if (is_crowd && peer.was_broadcast) continue;
    send(bye, peer.who.address);
  }
}

// To the directed broadcast address of each network. 255.255.255.255 would leave by one interface
// only, and fail with ENETUNREACH on a host without a default route.
void Roster::broadcast(Verb verb) {
  const Announcement what = announcement(verb);
  for (const Interface& network : networks_) {
    if (!network.can_broadcast()) continue;
    const Address everybody{network.broadcast_ip(), kDiscoveryPort};
    send(what, everybody);
  }
}

Announcement Roster::announcement(Verb verb) const {
  Announcement what;
  what.verb = verb;
  what.who = self_;
  what.every = every_;
  return what;
}

void Roster::send(const Announcement& what, Address to) {
  datagrams_.push_back({what, to});
}

void Roster::tell(const Event& event) { events_.push_back(event); }

std::vector<Identity> Roster::users() const {
  std::map<std::string, Identity> by_label;  // no two have the same: nor have they one address
  for (const auto& [id, peer] : peers_) {
    if (peer.state != State::listed) continue;
    by_label[peer.who.label()] = peer.who;
  }
  std::vector<Identity> sorted;
  for (const auto& [label, who] : by_label) sorted.push_back(who);
  return sorted;
}

// ============================================================================
// The shell: two sockets, and a clock
// ============================================================================

constexpr auto kLook = 250ms;           // how often the interfaces are looked at
constexpr auto kLongestPause = 100ms;
constexpr int kDatagramsAtOnce = 64;    // of each socket, before all else has its turn
constexpr int kSocketBuffer = 1 << 20;  // bytes

// The shared socket is bound to the well-known port together with every other instance on the host:
// a broadcast reaches them all. The own one is bound to a port that no one else has: all we send
// leaves from there, so an answer to its source finds exactly us. A unicast to a shared port would
// reach only one instance, the kernel's pick.
Descriptor shared_socket;
Descriptor own_socket;

std::optional<Roster> roster;
std::vector<Interface> interfaces;                 // those to use that are up
Clock::time_point next_look;                       // at the interfaces

struct Counters {
  uint64_t sent = 0;  // datagrams
  uint64_t received = 0;
  std::string failure;  // "; the last that was not: " and why
};
Counters counters;

void set_option(const Descriptor& fd, int option, const char* name) {
  const int on = 1;
  const std::string call = std::string("setsockopt ") + name;
  check(::setsockopt(fd.get(), SOL_SOCKET, option, &on, sizeof on), call);
}

// Linux shares a UDP port by the first; by the second alone, it would shut out the instances of
// other users of the host. macOS and the BSDs share it by the second.
void share_port(const Descriptor& fd) {
  set_option(fd, SO_REUSEADDR, "SO_REUSEADDR");
  set_option(fd, SO_REUSEPORT, "SO_REUSEPORT");
}

// Bound to every address of the host: a socket bound to one address does not hear its network's
// broadcasts.
Descriptor open_udp_socket(uint16_t port) {
  Descriptor fd(check(::socket(AF_INET, SOCK_DGRAM, 0), "socket"));
  if (port == kDiscoveryPort) share_port(fd);
  // Without it a sendto() to a broadcast address fails with EACCES.
  set_option(fd, SO_BROADCAST, "SO_BROADCAST");
  // The default receive buffer holds some 256 small datagrams, fewer than a large class answers to
  // one broadcast; the send buffer has to hold the probes that wait for ARP. The kernel may grant
  // less, which is no reason to fail.
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &kSocketBuffer, sizeof kSocketBuffer);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUF, &kSocketBuffer, sizeof kSocketBuffer);
  sockaddr_in raw = Address{INADDR_ANY, port}.to_sockaddr();
  const int result = ::bind(fd.get(), generic(raw), sizeof raw);
  check(result, "bind UDP port " + to_string(port));
  keep_to_chosen_interface(fd.get());
  return fd;
}

Descriptor open_shared_socket() {
  try {
    return open_udp_socket(kDiscoveryPort);
  } catch (const std::system_error& error) {
    if (error.code() != std::errc::address_in_use) throw;
    throw std::runtime_error(
        "another program holds UDP port 25252, at which all peers are found; end it: "
        "ss -lunp | grep 25252 names it (with sudo, if it is another user's)");
  }
}

// A failure is a datagram lost, as any may be: the send buffer is full, an interface has gone, a
// firewall says EPERM.
void send_datagram(const Datagram& datagram) {
  const auto source = discovery::source_for(datagram.to.ip);
  if (!source) return;  // no usable route leads there
  Announcement what = datagram.what;
  if (what.who.id == myself.id) what.who.said_ip = *source;
  const std::string text = what.format();
  const int fd = own_socket.get();
  sockaddr_in raw = datagram.to.to_sockaddr();
  trace("UDP", {*source, myself.address.port}, "->", datagram.to, text);
  const ssize_t result =
      ::sendto(fd, text.data(), text.size(), MSG_DONTWAIT, generic(raw), sizeof raw);
  if (result == -1) {
    counters.failure = "; the last that was not: " + error_text(errno);
  } else {
    ++counters.sent;
  }
}

// What the roster wants to have sent, and told.
void follow_roster() {
  for (const Datagram& datagram : roster->take_datagrams()) send_datagram(datagram);
  for (const Event& event : roster->take_events()) events.push(event);
}

void note_own_datagram(const Announcement& said, Address from);

void hear(std::string_view text, Address from, Door door) {
  // A line end, where one types into nc -u.
  text = text.substr(0, text.find_last_not_of("\r\n") + 1);  // npos + 1 is 0
  const auto said = Announcement::parse(text);
  if (!said) return;
  // What came through an interface that is not ours, we have not heard.
  const bool may_be_foreign = !chosen_interfaces.empty();
  if (may_be_foreign && !discovery::source_for(from.ip)) return;
  if (said->who.id == myself.id) note_own_datagram(*said, from);
  roster->hear(*said, from, door, Clock::now());
}

Address our_end(int fd, Address other);

void receive_from(Door door) {
  const int fd = door == Door::shared ? shared_socket.get() : own_socket.get();
  // Not until the socket is empty: in a storm of datagrams it never is, and the keyboard waits
  // behind this loop.
  for (int i = 0; i < kDatagramsAtOnce; ++i) {
    std::array<char, kMaxDatagram + 1> bytes;  // one more, or a longer one, cut, would look valid
    sockaddr_in raw{};
    socklen_t length = sizeof raw;
    // MSG_DONTWAIT: select() may report a datagram that the kernel then drops for a wrong checksum.
    const ssize_t got =
        ::recvfrom(fd, bytes.data(), bytes.size(), MSG_DONTWAIT, generic(raw), &length);
    if (got == -1) return;
    const std::string_view text(bytes.data(), static_cast<size_t>(got));
    const Address from = Address::from_sockaddr(raw);
    if (tracing) trace("UDP", our_end(fd, from), "<-", from, text);
    ++counters.received;
    if (text.size() <= kMaxDatagram) hear(text, from, door);
  }
}

std::vector<Interface> read_interfaces();

}  // namespace

void discovery::open() {
  own_socket = open_udp_socket(myself.address.port);
  shared_socket = open_shared_socket();
  interfaces = read_interfaces();
  const auto wall_time = std::chrono::system_clock::now().time_since_epoch();
  const auto epoch = Clock::now() - std::chrono::duration_cast<Clock::duration>(wall_time);
  roster.emplace(myself, std::random_device()(), epoch);
  if (!sweeps_allowed) roster->never_sweep();
  roster->start(interfaces, Clock::now());
}

void discovery::watch(fd_set& readable) {
  FD_SET(shared_socket.get(), &readable);
  FD_SET(own_socket.get(), &readable);
}

void discovery::receive(const fd_set& readable) {
  if (FD_ISSET(shared_socket.get(), &readable)) receive_from(Door::shared);
  if (FD_ISSET(own_socket.get(), &readable)) receive_from(Door::own);
  follow_roster();
}

// The interfaces are looked at again and again: a cable is plugged in, Wi-Fi comes up, DHCP gives
// another address.
void discovery::tick() {
  const auto now = Clock::now();
  if (now >= next_look) {
    next_look = now + kLook;
    interfaces = read_interfaces();
    roster->use_networks(interfaces, now);
  }
  roster->run(now);
  follow_roster();
}

Clock::duration discovery::pause() {
  const auto until_due = roster->next_due() - Clock::now();
  return std::clamp<Clock::duration>(until_due, 0ms, kLongestPause);
}

void discovery::rename() {
  roster->rename(myself.name, myself.group);
  follow_roster();
}

void discovery::leave() {
  roster->leave();
  follow_roster();
}

void discovery::introduced(const Identity& who) {
  roster->hear_introduction(who);
  follow_roster();
}

std::vector<Identity> discovery::users() { return roster->users(); }

namespace {

// ============================================================================
// SECOND READING: sweeps, hosts with several instances, our interfaces, /scan, /diag
// ============================================================================

// ---- Sweeps [4.3] -------------------------------------------------------------------

void Roster::use_networks(const std::vector<Interface>& networks, Time now) {
  now_ = now;
  if (networks == networks_) return;
  networks_ = networks;
  look_around();
}

// To all networks; and for those that are new, a sweep is due.
void Roster::look_around() {
  if (networks_.empty())
    tell(Told{"note: no network interface is up; waiting for one"});
  const std::vector<Sweep> before = std::exchange(sweeps_, {});
  for (const Interface& network : networks_) {
    if (network.is_loopback()) continue;
    Sweep sweep;
    sweep.network = network;
    sweep.begins_at = now_;
    if (network.can_broadcast()) sweep.begins_at += kBroadcastFirst;
    for (const Sweep& former : before)
      if (former.network == network) sweep = former;
    sweeps_.push_back(sweep);
    plan(sweep.begins_at, {Task::Kind::sweep});
  }
  begin_burst();
}

void Roster::begin_burst() {
  hellos_left_ = kBurst;
  begin(Task::Kind::greet);
}

// What plans itself again is planned once, or it would go at twice its pace.
void Roster::begin(Task::Kind kind) {
  for (const auto& [time, task] : agenda_)
    if (task.kind == kind) return;
  plan(now_, {kind});
}

void Roster::greet() {
  if (hellos_left_ == 0) return;
  broadcast(Verb::hello);
  --hellos_left_;
  plan(now_ + kBurstPause, {Task::Kind::greet});
}

// Broadcast works where another host's comes to us, or where one that we have not asked by itself
// answers ours. A probe shows nothing; nor does it that somebody was heard.
void Roster::note_broadcast(const Announcement& said, Address from, Door door) {
  const bool is_broadcast = came_by_broadcast(said, door);
  Peer* const peer = find(said.who);
  if (peer && is_broadcast) peer->was_broadcast = true;
  const bool is_answer = said.verb == Verb::here && said.to == self_.id;
  const bool was_asked = asked_.count(from.ip) > 0 || asked_.size() == kMaxPeers;
  const bool is_proof = is_broadcast || (is_answer && !was_asked);
  if (!is_proof || has_ip(networks_, from.ip)) return;
  for (Sweep& sweep : sweeps_) {
    if (!sweep.network.has_on_link(from.ip)) continue;
    sweep.broadcast_works = true;
    sweep.left.clear();
  }
}

void Roster::begin_sweeps() {
  for (Sweep& sweep : sweeps_) {
    if (sweep.begins_at > now_ || sweep.broadcast_works || !may_sweep_) continue;
    sweep.begins_at = next_round(sweep.network);
    plan(sweep.begins_at, {Task::Kind::sweep});
    if (!is_worth_it(sweep)) continue;
    ++sweep.rounds;
    sweep.left = addresses_of(range_of(sweep.network));
    for (const auto& [id, peer] : peers_)
      if (peer.state == State::listed) skip_probes(peer.who.address.ip);
    begin(Task::Kind::probe);
  }
}

// Twice in any case: who started before us, and hides behind a firewall as we do, asks us only when
// he sweeps again. From then on, while somebody is there.
bool Roster::is_worth_it(const Sweep& sweep) const {
  if (sweep.rounds < 2) return true;
  for (const auto& [id, peer] : peers_) {
    const bool is_there = sweep.network.has_on_link(peer.who.address.ip);
    const bool is_beside_us = has_ip(networks_, peer.who.address.ip);
    if (peer.state == State::listed && is_there && !is_beside_us) return true;
  }
  return false;
}

// A firewall that lets in only answers forgets a question after 30 s. So two such hosts find each
// other only if they ask each other at one time: when the clock on the wall shows full five
// minutes, or ten where the sweep takes longer.
Roster::Time Roster::next_round(const Interface& network) const {
  const Clock::duration round = network.bits() > kSweepBits ? kSweepAgain : 2 * kSweepAgain;
  return now_ + round - (now_ - epoch_) % round;
}

Range Roster::range_of(const Interface& network) const {
  Range range;
  range.ip = network.ip;
  range.bits = network.bits();
  if (network.other_end != 0) range = {network.other_end};
  return range;
}

// The nearest first: DHCP gives neighbours' numbers to neighbours. Distances count around the
// network, so that two peers ask each other at the same step. First all at a host's first own port,
// for a firewall lets in what comes from where a datagram was sent to; then all at the shared one,
// which any instance of a host hears.
std::deque<Address> Roster::addresses_of(const Range& range) const {
  const uint16_t first = range.port == 0 ? kFirstPort : range.port;
  const uint16_t second = range.port == 0 ? kDiscoveryPort : range.port;
  const uint32_t size = uint32_t{1} << (32 - std::max(range.bits, kSweepBits));
  const uint32_t mask = size - 1;  // of the host part
  std::deque<Address> addresses;
  for (const uint16_t port : {first, second}) {
    for (uint32_t step = 0; step < size; ++step) {
      const uint32_t distance = (step + 1) / 2;
      const bool is_above = step % 2 == 1;
      const uint32_t host = (is_above ? range.ip + distance : range.ip - distance) & mask;
      // The network's own number, and its broadcast address.
      const bool is_reserved = size > 2 && (host == 0 || host == mask);
      if (!is_reserved) addresses.push_back({(range.ip & ~mask) + host, port});
    }
  }
  return addresses;
}

// Somebody is found there by now. But a /scan asks all that it was told to.
void Roster::skip_probes(uint32_t ip) {
  const auto is_there = [&](const Address& probed) { return probed.ip == ip; };
  for (Sweep& sweep : sweeps_) {
    auto& left = sweep.left;
    left.erase(std::remove_if(left.begin(), left.end(), is_there), left.end());
  }
}

// Whose turn it is: the user's first, then one network after the other, lest a large one hold up a
// small one.
std::deque<Address>* Roster::next_probes() {
  if (scan_ && !scan_->left.empty()) return &scan_->left;
  for (size_t i = 0; i < sweeps_.size(); ++i) {
    turn_ = (turn_ + 1) % sweeps_.size();
    Sweep& sweep = sweeps_[turn_];
    if (!sweep.left.empty()) return &sweep.left;
  }
  return nullptr;
}

// One HELLO, four times a second. For an address where nobody is, the kernel asks three times by
// ARP; a switch may cut off a port that sends more than 15 such questions a second.
void Roster::probe() {
  std::deque<Address>* const left = next_probes();
  if (!left) return;
  Announcement hello = announcement(Verb::hello);
  hello.ask_host = true;
  question(hello, left->front());
  left->pop_front();
  const bool is_scan = scan_ && left == &scan_->left;
  if (is_scan) follow_scan();
  plan(now_ + kProbePause, {Task::Kind::probe});
}

// A HELLO to one address alone.
void Roster::question(const Announcement& hello, Address to) {
  if (asked_.size() < kMaxPeers) asked_.insert(to.ip);
  send(hello, to);
}

// ---- /scan --------------------------------------------------------------------------

void Roster::scan_all(Time now) {
  std::vector<Range> ranges;
  for (const Interface& network : networks_)
    if (!network.is_loopback()) ranges.push_back(range_of(network));
  scan(ranges, now);
  begin_burst();
}

// What the user wants to have scanned, in place of what he wanted before.
void Roster::scan(const std::vector<Range>& ranges, Time now) {
  now_ = now;
  scan_ = Scan();
  for (const Range& range : ranges) {
    if (range.bits < kSweepBits) {
      const std::string network = Address{range.ip, 0}.ip_text() + "/" + to_string(range.bits);
      tell(Told{"note: a scan asks at most 1,022 addresses, of " + network +
                " the /22 around it; /scan NETWORK/22 asks more"});
    }
    const std::deque<Address> addresses = addresses_of(range);
    scan_->left.insert(scan_->left.end(), addresses.begin(), addresses.end());
  }
  scan_->addresses = scan_->left.size() / 2;  // each is asked twice
  begin(Task::Kind::probe);
  if (scan_->addresses > 10) tell_scan();
  if (scan_->left.empty()) follow_scan();
}

// It may take minutes, so how far it is is told now and then.
void Roster::follow_scan() {
  const size_t left = scan_->left.size();
  if (left > 0) {
    if (left % kProbesBetweenNotes == 0) tell_scan();
    return;
  }
  scan_->ends_at = now_ + kScanGrace;
  plan(scan_->ends_at, {Task::Kind::end_scan});
}

void Roster::tell_scan() {
  const auto time_left = static_cast<int>(scan_->left.size()) * kProbePause + kScanGrace;
  const std::string addresses = to_string(scan_->addresses);
  const std::string seconds = to_string(time_left / 1s);
  tell(Told{"note: scanning " + addresses + " addresses, " + seconds + " s to go"});
}

void Roster::end_scan(Time due) {
  if (!scan_ || scan_->ends_at != due) return;  // another one has taken its place
  const std::string asked = to_string(scan_->addresses);
  const std::string online = to_string(listed_);
  scan_.reset();
  tell(Told{"scanned " + asked + " addresses; " + online + " users online"});
}

// ---- In a large class [4.2] -----------------------------------------------------------

// N users answer a broadcast within N times half a millisecond. All at once they would overflow the
// asker's receive buffer.
Clock::duration Roster::spread() const { return (listed_ + 1) * kAnswerSpread; }

// One answer is enough for all that it has asked until then.
void Roster::answer_after(Clock::duration delay, const std::string& asker, Address to) {
  const bool is_flood = pending_.size() == kMaxPeers;
  if (is_flood) return;
  const bool is_first = pending_.count(to) == 0;
  pending_[to] = asker;
  if (is_first) plan(now_ + delay, {Task::Kind::answer, "", to});
}

void Roster::answer_pending(Address to) {
  answer(pending_.at(to), to);
  pending_.erase(to);
}

void Roster::ask_after(Clock::duration delay, Peer& peer) {
  peer.last_asked = now_;
  if (delay == 0s) ask(peer);
  else plan(now_ + delay, {Task::Kind::ask, peer.who.id});
}

void Roster::ask_unless_answered(const std::string& id) {
  const auto found = peers_.find(id);
  if (found == peers_.end()) return;
  Peer& peer = found->second;
  const bool was_answered = peer.last_answer >= peer.last_asked;
  const bool is_asked = peer.questions > 0;
  const bool has_left = peer.state == State::left;
  if (!was_answered && !is_asked && !has_left) ask(peer);
}

// ---- Who may have an entry, and where [4.4] -----------------------------------------

std::vector<Roster::Peer*> Roster::peers_at(uint32_t ip) {
  std::vector<Peer*> found;
  auto it = by_ip_.lower_bound({ip, ""});
  for (; it != by_ip_.end() && it->first == ip; ++it) {
    Peer& peer = peers_.at(it->second);
    found.push_back(&peer);
  }
  return found;
}

// How many are listed at that IP address.
size_t Roster::count_at(uint32_t ip) {
  size_t listed = 0;
  for (const Peer* const peer : peers_at(ip))
    if (peer->state == State::listed) ++listed;
  return listed;
}

bool Roster::may_be_listed(uint32_t ip) {
  return listed_ < kMaxListed && count_at(ip) < kMaxFromOne;
}

// A peer on two networks is heard from two addresses, and is one entry: the first address stays
// until it falls silent. By the same rule nobody can take over the entry of a peer that is alive by
// claiming its id.
bool Roster::may_move(const Peer& peer, Address to) {
  if (now_ <= peer.movable_at()) return false;
  for (const Peer* const other : peers_at(to.ip)) {
    const bool is_taken = other->state == State::listed && other->who.address == to;
    if (is_taken) return false;
  }
  // It has its place in the list already, if any; but perhaps not at that IP address.
  const bool stays_at_ip = peer.who.address.ip == to.ip;
  if (peer.state != State::listed || stays_at_ip) return true;
  return count_at(to.ip) < kMaxFromOne;
}

void Roster::move(Peer& peer, Address to) {
  by_ip_.erase({peer.who.address.ip, peer.who.id});
  by_ip_.emplace(to.ip, peer.who.id);
  peer.who.address = to;
  peer.questions = 0;  // so far it was asked elsewhere
}

// To be heard costs nothing, and a source may be forged; so who is not listed makes room, the
// longest silent first.
void Roster::make_room() {
  const Peer* oldest = nullptr;
  for (const auto& [id, peer] : peers_) {
    if (peer.state == State::listed) continue;
    const bool is_older = !oldest || peer.last_heard < oldest->last_heard;
    if (is_older) oldest = &peer;
  }
  if (oldest) erase(oldest->who.id);
}

void Roster::erase(const std::string& id) {
  const auto entry = peers_.find(id);
  by_ip_.erase({entry->second.who.address.ip, id});
  peers_.erase(entry);
}

// A port has one owner: whoever had this one before has gone, killed perhaps, and was started anew.
void Roster::retire_former_owner(const Peer& owner) {
  for (Peer* const former : peers_at(owner.who.address.ip)) {
    if (former->who.id == owner.who.id) continue;
    if (former->who.address != owner.who.address) continue;
    if (former->state == State::left) continue;
    dismiss(*former, "replaced", kReplacedFor);
  }
}

// ---- Hosts with several instances [4.3] ---------------------------------------------

// A HERE that does not come from the port it speaks of. An instance that answers for its host sends
// such, and so can anyone who wants to be taken for a neighbour. Believe nothing of it; ask at the
// door it names.
void Roster::follow_hearsay(const Identity& who) {
  const bool is_known = find(who);
  if (!is_known) question(announcement(Verb::hello), who.address);
}

// The question was for the whole host, and the kernel gave it to us alone: name the instances
// beside us.
void Roster::answer_for_host(const std::string& asker, Address from) {
  for (const auto& [id, peer] : peers_) {
    const bool is_beside_us = id != asker && has_ip(networks_, peer.who.address.ip);
    if (peer.state != State::listed || !is_beside_us) continue;
    Announcement here;
    here.verb = Verb::here;
    here.who = peer.who;
    send(here, from);
  }
}

// A peer has an address of its own. An answer to a broadcast address would go to everybody: with
// one datagram somebody could make a whole class talk.
bool Roster::is_unicast(Address source) const {
  const bool is_multicast = source.ip >> 28 == 14;  // 224.0.0.0/4
  const bool is_special = source.ip == INADDR_ANY || source.ip == INADDR_BROADCAST;
  if (source.port == 0 || is_special || is_multicast) return false;
  for (const Interface& network : networks_) {
    const bool is_network = source.ip == (network.ip & network.netmask);
    const bool is_broadcast = source.ip == network.broadcast_ip();
    if (network.can_broadcast() && (is_network || is_broadcast)) return false;
  }
  return true;
}

// ---- Our interfaces -----------------------------------------------------------------

uint32_t ip_of(const sockaddr* address) {
  return ntohl(reinterpret_cast<const sockaddr_in*>(address)->sin_addr.s_addr);
}

bool is_usable(const ifaddrs& entry) {
  const std::string label = entry.ifa_name;
  const auto is_it = [&](const std::string& name) {
    return name == label || name == device_of(label);
  };
  const auto& names = chosen_interfaces;
  const bool is_chosen = names.empty() || std::any_of(names.begin(), names.end(), is_it);
  const bool is_up = (entry.ifa_flags & IFF_UP) && (entry.ifa_flags & IFF_RUNNING);
  const bool is_ipv4 = entry.ifa_addr && entry.ifa_addr->sa_family == AF_INET;
  return is_chosen && is_up && is_ipv4 && entry.ifa_netmask;
}

// Those to use that are up; if the system cannot say, those that were. getifaddrs() is not in
// POSIX, but in every system that this could run on.
std::vector<Interface> read_interfaces() {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) == -1) return interfaces;
  std::vector<Interface> usable;
  for (const ifaddrs* entry = list; entry; entry = entry->ifa_next) {
    if (!is_usable(*entry)) continue;
    Interface interface;
    interface.name = entry->ifa_name;
    interface.ip = ip_of(entry->ifa_addr);
    interface.netmask = ip_of(entry->ifa_netmask);
    const bool is_point_to_point = entry->ifa_flags & IFF_POINTOPOINT;
    if (is_point_to_point && entry->ifa_dstaddr) interface.other_end = ip_of(entry->ifa_dstaddr);
    if (interface.other_end == interface.ip) interface.other_end = 0;  // as some VPNs have it
    usable.push_back(interface);
  }
  ::freeifaddrs(list);
  return usable;
}

}  // namespace

uint32_t discovery::own_ip() {
  for (const Interface& i : interfaces)
    if (!i.is_loopback()) return i.ip;
  return INADDR_LOOPBACK;
}

// On a network that we are on ourselves, the address we have there. Beyond, the kernel knows:
// connect() on a UDP socket sends nothing, but looks up the route, and the source address that goes
// with it.
std::optional<uint32_t> discovery::source_for(uint32_t ip) {
  for (const Interface& i : interfaces)
    if (i.has_on_link(ip)) return i.ip;
  const Descriptor fd(::socket(AF_INET, SOCK_DGRAM, 0));  // without one: no route
  sockaddr_in raw = Address{ip, kDiscoveryPort}.to_sockaddr();
  if (::connect(fd.get(), generic(raw), sizeof raw) == -1) return std::nullopt;
  const uint32_t source = local_address(fd.get()).ip;
  if (!chosen_interfaces.empty() && !has_ip(interfaces, source)) return std::nullopt;
  return source;
}

// All of 127.0.0.0/8 is this host; and so is 0.0.0.0, by which connect() means 127.0.0.1.
bool discovery::is_own(Address address) {
  const bool is_this_host = address.ip == INADDR_ANY || address.ip >> 24 == IN_LOOPBACKNET;
  return address.port == myself.address.port && (is_this_host || has_ip(interfaces, address.ip));
}

namespace {

// Our sockets are bound to every address that we have. This is the one by which the other is
// reached.
Address our_end(int fd, Address other) {
  const uint32_t ip = discovery::source_for(other.ip).value_or(INADDR_ANY);
  return {ip, local_address(fd).port};
}

}  // namespace

// ---- /scan --------------------------------------------------------------------------

void discovery::scan() {
  roster->scan_all(Clock::now());
  follow_roster();
}

void discovery::scan(uint32_t network, int bits, uint16_t port) {
  roster->scan({{network, bits, port}}, Clock::now());
}

// ---- What is wrong: /diag -----------------------------------------------------------

namespace {

std::map<uint32_t, uint64_t> came_back;  // how many of our broadcasts, by our address

// So does a probe of the sweep, which says nothing of them.
void note_own_datagram(const Announcement& said, Address from) {
  const bool is_broadcast = !said.ask_host;
  if (is_broadcast && has_ip(interfaces, from.ip)) ++came_back[from.ip];
}

}  // namespace

std::vector<std::string> discovery::diagnosis() {
  std::vector<std::string> lines;
  for (const Interface& i : interfaces) {
    const std::string count = to_string(came_back[i.ip]);
    lines.push_back("interface " + i.name + ": our broadcast came back " + count + " times");
  }
  lines.push_back(to_string(counters.sent) + " datagrams sent" + counters.failure);
  lines.push_back(to_string(counters.received) + " datagrams received");
  for (const auto& [id, peer] : roster->peers())
    if (peer.state == Roster::Peer::State::heard)
      lines.push_back(peer.who.label() + " is heard, but does not hear us");
  return lines;
}
