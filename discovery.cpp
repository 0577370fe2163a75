// discovery.cpp: finding the peers of the network segment, over UDP, and noticing when they go.
//
// Read protocol.h first; transfer.cpp is next. Only the main thread runs this code: the select()
// loop of peer.cpp calls receive() when a datagram has arrived, and tick() on every round.
//
// Three datagrams do it all [4]: HELLO asks, HERE answers and is the heartbeat, BYE leaves. They
// travel by broadcast on every network. If broadcast finds nobody, a sweep sends a HELLO to each
// address in turn; and the user can send one to any address (/scan).
//
// Roster knows who is here, and decides what to say to whom, and when. It has no socket and no
// clock: it is told what has arrived and what time it is, and returns the datagrams to send. So a
// test plays an hour of a class in a millisecond, and plays it again from the same seed. Around it
// is a thin shell: two sockets, the list of interfaces, the clock.
//
// The first reading ends with the shell. The second covers sweeps, large classes, limits, hosts
// with several instances, our sockets and interfaces, /scan and /diag.
//
// Left out on purpose: authentication. The owner of a UDP port may say what he likes about himself,
// but nothing about anybody else.

#include <ifaddrs.h>
#include <net/if.h>

#include <memory>
#include <random>
#include <set>

#include "protocol.h"

namespace {

using std::chrono::seconds;
using Users = vector<Identity>;

// ---- Timers and limits [2.2], [2.3] -------------------------------------------------

// The second reading has more of them, each where it is used.
constexpr auto kLeftFor = 15s;      // after a BYE, nobody is listed under its id
constexpr auto kReviewStep = 250ms;  // see rounded_up()
constexpr auto kAskEvery = 500ms;   // until a question is repeated
constexpr int kMaxQuestions = 24;   // unanswered ones: it does not hear us, though we hear it
constexpr int kBurst = 3;           // HELLOs at start: one lost datagram costs nothing
constexpr auto kBurstPause = 250ms;
constexpr size_t kMaxPeers = 1280;  // listed or not

// ---- A network that we are on -------------------------------------------------------------

struct Interface {
  string name;
  uint32_t ip = 0;
  uint32_t netmask = 0;
  uint32_t other_end = 0;  // of a point-to-point link; else 0

  // A /31 and a /32 have no broadcast address.
  bool can_broadcast() const { return ~netmask > 1 && other_end == 0; }
  uint32_t broadcast_ip() const { return ip | ~netmask; }
};

using Interfaces = vector<Interface>;

// Whether one of them has this address.
bool has_ip(const Interfaces& all, uint32_t ip);

// ============================================================================
// The roster: who is here, as a value
// ============================================================================

struct Datagram {
  Announcement what;
  Address to;
};

// Which of our two sockets a datagram has come to: only the shared one hears broadcasts.
enum class Door { own, shared };

// The addresses to ask: those of a network, the nearest to `ip` first; or `ip` alone.
struct Range {
  uint32_t ip = 0;
  int bits = 32;
  uint16_t port = 0;  // 0: both at which a peer can be found
};

class Probes;  // the addresses that a sweep or a /scan still has to ask, one at a time

class Roster {
 public:
  // A peer that we have heard. Users see it once it is listed, which it is when it has shown that
  // it hears us. One that has left is kept for a while: an old datagram that its BYE has overtaken
  // must not bring it back.
  struct Peer {
    enum class State { heard, listed, left };
    State state = State::heard;
    Identity who;       // its address is the one that its datagrams come from
    int questions = 0;  // that we have asked since it last showed that it hears us
    Time last_heard;
    Time last_asked;    // set as well when it is new or has answered: no need to ask then
    Time ask_at = Time::max();     // when to ask a question that must wait
    Time review_at = Time::max();  // when the agenda will look at it
    Time forget_at;                // for one that has left
    seconds every = kHeartbeat;    // between its heartbeats
    bool was_broadcast = false;    // whether a broadcast of its own has ever reached us
    bool has_asked = false;        // whether a HELLO of its own has: if not, it cannot list us

    bool is_listed() const { return state == State::listed; }
    bool has_left() const { return state == State::left; }
    Time overdue_at() const { return last_heard + every * 6 / 5; }
    // From then on another address may take its id.
    Time movable_at() const { return last_heard + every * 2; }
    Time end_at() const { return has_left() ? forget_at : last_heard + every * 3; }
  };

  // The same seed gives the same run.
  Roster(const Identity& self, uint32_t seed);
  ~Roster();

  // What happens, and when. `networks` are the ones that are up.
  void start(const Interfaces& networks, Time now);
  void use_networks(const Interfaces& networks, Time now);
  void hear(const Announcement& words, Address from, Door door, Time now);
  void hear_introduction(const Identity& who);       // over TCP
  void rename(const string& name, const string& group);
  void leave();
  void run(Time now);                                // does whatever is due
  Time next_due() const;
  // The moment at which the wall clock showed zero, on our own clock. With it, peers that do not
  // know each other can act at the same time.
  void set_epoch(Time epoch);
  void never_sweep();                                // --scan=off
  void scan(const vector<Range>& ranges, Time now);  // tells the user when it ends
  void scan_all(Time now);                           // all our networks

  // The results: for the caller to send, and to pass on to the user.
  vector<Datagram> take_datagrams() { return std::exchange(datagrams_, {}); }
  vector<Event> take_events() { return std::exchange(events_, {}); }

  const std::map<string, Peer>& peers() const { return peers_; }  // by id
  struct Broadcasts {
    uint64_t ours = 0;    // that came back to us
    uint64_t others = 0;  // of other hosts
  };
  Broadcasts broadcasts_on(uint32_t ip) const;  // the network where that is our address
  Users users() const;                                            // those listed, sorted

 private:
  using State = Peer::State;

  // From here on you may skip to the first section behind the class. Each group of functions below
  // has a section of its own; what is not in the first reading is in the second.

  enum class Kind { greet, heartbeat, answer, probe, review };
  struct Task {
    Kind kind;
    string id = {};        // review: which peer
    Address address = {};  // answer: where to
  };

  // Hearing
  void answer(const string& asker, Address to);
  void answer_after(Duration delay, const string& asker, Address to);
  void answer_pending(Address to);
  void answer_for_host(const string& asker, Address from);
  void hear_of_another(const Announcement& said);
  void hear_from_peer(const Announcement& said, Duration delay);
  void hear_bye(const Identity& who);
  void note_broadcast(const Announcement& said, Address from, Door door);
  void note_own(const Announcement& said, Address from, Door door);

  // The entries
  Peer* find(const Identity& who);
  Peer* update(const Announcement& said);
  Peer& insert(const Announcement& said);
  void confirm(Peer& peer);
  void unlist(Peer& peer, const string& reason);
  void dismiss(Peer& peer, const string& reason, Duration time);
  void erase(const string& id);
  void move(Peer& peer, Address to);
  void make_room();
  void replace_others_at(const Peer& owner);
  bool may_move(const Peer& peer, Address to);
  bool may_be_listed(uint32_t ip);
  size_t count_at(uint32_t ip);
  vector<Peer*> peers_at(uint32_t ip);
  bool is_unicast(Address source) const;

  // Looking after them
  void plan(Time when, const Task& task) {
    agenda_.emplace(when, task);
  }
  void carry_out(const Task& task, Time due);
  void plan_review(Peer& peer);
  void review(const string& id, Time due);
  void make_sure_it_hears_us(Peer& peer);
  Time next_question(const Peer& peer) const;
  void ask(Peer& peer);
  void ask_after(Duration delay, Peer& peer);
  void probe(Time due);
  void plan_probe();

  // Speaking
  void look_around();
  void begin_burst();
  void greet();
  void send_heartbeat();
  void ask_on_loopback();
  void plan_heartbeat();
  seconds interval() const;
  Duration random_time(Duration most);
  Duration delay_of_answer(const Announcement& said, Door door);
  bool needs_own_bye(const Peer& peer) const;
  Announcement announcement(Verb verb) const;
  void broadcast(Verb verb);
  void send_hello(const Announcement& hello, Address to);
  void send(const Announcement& what, Address to) {
    datagrams_.push_back({what, to});
  }
  void tell(const Event& event) { events_.push_back(event); }

  Time now_;  // what we were last told
  Identity self_;
  std::minstd_rand random_;
  Interfaces networks_;
  std::map<string, Peer> peers_;                 // by id
  std::set<std::pair<uint32_t, string>> by_ip_;  // the same ids, by their IP address
  size_t listed_ = 0;                            // how many of them are listed
  std::multimap<Time, Task> agenda_;             // everything to be done later, in order
  std::map<Address, string> pending_;  // answers that wait: where to, and to which id
  std::map<uint32_t, Broadcasts> broadcasts_;  // that we have heard, by our address
  std::set<uint32_t> asked_;           // IP addresses to which we have sent a unicast HELLO
  seconds every_ = kHeartbeat;         // between our heartbeats, as we last announced it
  int hellos_left_ = 0;                // of the burst that is under way
  int beats_ = 0;                      // heartbeats planned so far: the first few come sooner
  const std::unique_ptr<Probes> probes_;
  Time probe_at_ = Time::max();        // when the agenda will look at them
  vector<Datagram> datagrams_;
  vector<Event> events_;
};

// ---- A datagram has come ------------------------------------------------------------

// A HELLO is answered. A HELLO or a HERE makes its sender known, or shows that it is still there; a
// HERE that answers us gets it onto the list. A BYE takes it off.

void Roster::hear(const Announcement& words, Address from, Door door, Time now) {
  now_ = now;
  const bool is_ours = words.who.id == self_.id;
  if (is_ours) note_own(words, from, door);
  if (is_ours || !is_unicast(from)) return;
  Announcement said = words;
  said.who.address.ip = from.ip;  // whatever it says itself
  const Duration delay = delay_of_answer(said, door);
  if (said.verb == Verb::hello) {
    answer_after(delay, said.who.id, from);
    if (said.ask_host) answer_for_host(said.who.id, from);
  }
  // Only the owner of a port can send from it. From another port, this is hearsay.
  const bool is_of_another = from.port != said.who.address.port;
  if (is_of_another) hear_of_another(said);
  else if (said.verb == Verb::bye) hear_bye(said.who);
  else hear_from_peer(said, delay);
  note_broadcast(said, from, door);
}

void Roster::answer(const string& asker, Address to) {
  Announcement here = announcement(Verb::here);
  here.to = asker;
  send(here, to);
}

// A HELLO or HERE from the peer itself.
void Roster::hear_from_peer(const Announcement& said, Duration delay) {
  const bool is_new = !find(said.who);
  Peer* const peer = update(said);
  if (!peer) return;
  const bool hears_us = said.verb == Verb::here && said.to == self_.id;
  if (hears_us) {
    confirm(*peer);
    return;
  }
  // Why does a listed peer ask? Perhaps because our datagrams do not arrive. But if every question
  // were answered with a question, there would be no end to it.
  const bool is_asking = said.verb == Verb::hello;
  if (is_asking) peer->has_asked = true;
  const bool is_doubtful = is_asking && now_ - peer->last_asked > kHeartbeat;
  if (is_new || is_doubtful) ask_after(delay, *peer);
}

// It counts only from the address in the list: nobody can say BYE for somebody else.
void Roster::hear_bye(const Identity& who) {
  Peer* const peer = find(who);
  const bool is_there = peer && !peer->has_left();
  if (is_there) dismiss(*peer, "said bye", kLeftFor);
}

// ---- The entries ----------------------------------------------------------------------

// The entry with this id, if it has this address; else null.
Roster::Peer* Roster::find(const Identity& who) {
  const auto known = peers_.find(who.id);
  if (known == peers_.end()) return nullptr;
  Peer& peer = known->second;
  return peer.who.address == who.address ? &peer : nullptr;
}

// Records what a peer says about itself. Returns its entry, or null if it may not have one.
Roster::Peer* Roster::update(const Announcement& said) {
  const Identity& who = said.who;
  const auto known = peers_.find(who.id);
  if (known == peers_.end()) return &insert(said);
  Peer& peer = known->second;
  if (peer.has_left()) return nullptr;
  const Identity before = peer.who;
  const bool has_moved = before.address != who.address;
  if (has_moved && !may_move(peer, who.address)) return nullptr;
  if (has_moved) move(peer, who.address);
  peer.who = who;
  peer.every = said.every;
  peer.last_heard = now_;
  const bool is_same = before.looks_like(who);
  if (peer.is_listed() && !is_same)
    tell(UserChanged{who, before});
  return &peer;
}

// It hears us. This, and nothing else, makes it a listed peer.
void Roster::confirm(Peer& peer) {
  if (!peer.is_listed()) {
    if (!may_be_listed(peer.who.address.ip)) {
      peer.questions = kMaxQuestions;  // ask it now and then: there may be room by then
      plan_review(peer);
      return;
    }
    // Not before: anyone can claim an address, but not read what is sent there.
    replace_others_at(peer);
    peer.state = State::listed;
    ++listed_;
    tell(UserJoined{peer.who});
  }
  peer.questions = 0;
  peer.ask_at = Time::max();
  // Its own question often follows right behind its answer, and is no reason to ask again.
  peer.last_asked = now_;
  plan_review(peer);
}

void Roster::unlist(Peer& peer, const string& reason) {
  if (!peer.is_listed()) return;
  peer.state = State::heard;
  --listed_;
  tell(UserLeft{peer.who, reason});
}

// It has left. Its entry stays for a while, because an older datagram may still arrive.
void Roster::dismiss(Peer& peer, const string& reason, Duration time) {
  unlist(peer, reason);
  peer.state = State::left;
  peer.forget_at = now_ + time;
  plan_review(peer);
}

// ---- What is due ----------------------------------------------------------------------

// The agenda holds everything to be done later. For each peer, that is its next review: is it to be
// asked, or given up?

void Roster::run(Time now) {
  now_ = now;
  while (next_due() <= now_) {
    const auto first = agenda_.begin();
    const auto [due, task] = *first;  // a copy, which erase() leaves alone
    agenda_.erase(first);
    carry_out(task, due);
  }
}

Time Roster::next_due() const {
  return agenda_.empty() ? Time::max() : agenda_.begin()->first;
}

void Roster::carry_out(const Task& task, Time due) {
  switch (task.kind) {
    case Kind::greet: greet(); break;
    case Kind::heartbeat: send_heartbeat(); break;
    case Kind::answer: answer_pending(task.address); break;
    case Kind::probe: probe(due); break;
    case Kind::review: review(task.id, due); break;
  }
}

// Makes sure that the agenda looks at the peer in time. Looking too early does no harm, so we plan
// again only if the moment comes earlier. Otherwise a storm of datagrams would flood the agenda.
void Roster::plan_review(Peer& peer) {
  Time next = peer.end_at();
  if (!peer.has_left())
    next = std::min(next, next_question(peer));
  if (peer.review_at <= next) return;
  peer.review_at = next;
  plan(next, {Kind::review, peer.who.id});
}

void Roster::review(const string& id, Time due) {
  const auto found = peers_.find(id);
  const bool is_stale = found == peers_.end() || found->second.review_at != due;
  if (is_stale) return;
  Peer& peer = found->second;
  peer.review_at = Time::max();
  if (now_ >= peer.end_at()) {
    const auto silence = (now_ - peer.last_heard) / 1s;
    unlist(peer, "silent for " + to_string(silence) + " s");
    erase(id);
    return;
  }
  if (!peer.has_left()) make_sure_it_hears_us(peer);
  plan_review(peer);
}

void Roster::make_sure_it_hears_us(Peer& peer) {
  // We hear it, but nothing that we send reaches it. If we went on listing it, the list would
  // promise what cannot work.
  const bool is_heard = now_ < peer.overdue_at();
  const bool is_deaf = is_heard && peer.questions >= kMaxQuestions;
  if (is_deaf) unlist(peer, "does not hear us");
  if (now_ >= next_question(peer)) ask(peer);
}

// The next full quarter of a second: then we look at all peers that may be overdue. To look at each
// at its own moment would wake the program twice as often in a class of a hundred.
Time rounded_up(Time when) {
  const Duration since_full = when.time_since_epoch() % kReviewStep;
  const bool is_full = since_full == 0s;
  return is_full ? when : when + kReviewStep - since_full;
}

// When to ask it, unless we hear from it first.
Time Roster::next_question(const Peer& peer) const {
  const bool all_is_well = peer.is_listed() && peer.questions == 0;
  if (peer.ask_at != Time::max()) return peer.ask_at;
  if (all_is_well) return rounded_up(peer.overdue_at());
  // If it is heard, and the last of them is in vain, we unlist it then.
  const bool is_on_trial = peer.is_listed() && now_ < peer.overdue_at();
  const bool is_urgent = is_on_trial || peer.questions < kMaxQuestions;
  if (is_urgent) return peer.last_asked + kAskEvery;
  return peer.last_asked + kHeartbeat;
}

// Ask for its whole host, as there may be instances that we have not heard yet. Those on our own
// host we hear anyway.
void Roster::ask(Peer& peer) {
  const Address to = peer.who.address;
  ++peer.questions;
  peer.last_asked = now_;
  peer.ask_at = Time::max();
  Announcement hello = announcement(Verb::hello);
  hello.ask_host = !has_ip(networks_, to.ip);
  send_hello(hello, to);
  plan_review(peer);
}

// ---- What we say about ourselves ----------------------------------------------------

// A burst of HELLOs at the start, then a HERE every few seconds, and at the end a BYE.

void Roster::start(const Interfaces& networks, Time now) {
  now_ = now;
  networks_ = networks;
  look_around();
  plan_heartbeat();
}

// After the first HELLO we know whether our broadcasts come back to us on loopback.
void Roster::greet() {
  const bool is_first = hellos_left_ == kBurst;
  if (!is_first) ask_on_loopback();
  broadcast(Verb::hello);
  --hellos_left_;
  if (hellos_left_ > 0) plan(now_ + kBurstPause, {Kind::greet});
}

// Announces how soon the next one will come.
void Roster::send_heartbeat() {
  ask_on_loopback();
  every_ = interval();
  broadcast(Verb::here);
  plan_heartbeat();
}

// The broadcast also reaches those who hear us although we do not hear them. Each known peer gets
// its own BYE as well: the network may drop the broadcast, or a peer may read it from the shared
// port only after a newer datagram from the other port.
void Roster::leave() {
  broadcast(Verb::bye);
  const Announcement bye = announcement(Verb::bye);
  for (const auto& [id, peer] : peers_)
    if (needs_own_bye(peer)) send(bye, peer.who.address);
}

// Sends to the directed broadcast address of each network. 255.255.255.255 would leave through one
// interface only, and fail with ENETUNREACH on a host without a default route.
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

// ============================================================================
// The shell: two sockets, and a clock
// ============================================================================

constexpr auto kLook = 250ms;         // between two looks at the interfaces and the wall clock
constexpr auto kLongestPause = 100ms;
constexpr int kDatagramsAtOnce = 64;  // from each socket, before everything else gets its turn

// Every instance on the host binds the shared socket to the same well-known port, and a broadcast
// reaches them all. Each binds its own socket to a port that nobody else has. Everything we send
// leaves from there, so that an answer to its source finds exactly us. A unicast to the shared port
// would reach one instance only, and the kernel picks which.
Descriptor shared_socket;
Descriptor own_socket;

optional<Roster> roster;
Interfaces interfaces;  // those that are up, and that we may use
Time next_look;         // when to look again: see kLook

// Defined in the second reading.
Interfaces read_interfaces();
void share_port(const Descriptor& fd);
void enlarge_buffers(const Descriptor& fd);
Descriptor open_shared_socket();
Time start_of_wall_clock();
bool came_through_our_interface(Address from);
void note_sent(ssize_t result);
void note_received(int fd, Address from, string_view text);

void switch_on(const Descriptor& fd, int option) {
  const int on = 1;
  const int result = ::setsockopt(fd.get(), SOL_SOCKET, option, &on, sizeof on);
  check(result, "setsockopt");
}

// It is bound to every address of the host: a socket bound to a single address does not receive the
// broadcasts of its network.
Descriptor open_udp_socket(uint16_t port) {
  const int number = ::socket(AF_INET, SOCK_DGRAM, 0);
  Descriptor fd(check(number, "socket"));
  if (port == kDiscoveryPort) share_port(fd);
  // Without it a sendto() to a broadcast address fails with EACCES.
  switch_on(fd, SO_BROADCAST);
  enlarge_buffers(fd);
  sockaddr_in raw = Address{INADDR_ANY, port}.to_sockaddr();
  const int result = ::bind(fd.get(), generic(raw), sizeof raw);
  check(result, "bind UDP port " + to_string(port));
  keep_to_chosen_interface(fd.get());
  return fd;
}

// A failure (full send buffer, vanished interface, a firewall's EPERM) is one more lost datagram,
// and any datagram may get lost.
void send_datagram(const Datagram& datagram) {
  const Address to = datagram.to;
  const auto source = discovery::source_for(to.ip);
  if (!source) return;  // no usable route leads there
  Announcement what = datagram.what;
  // It may be about another instance on our host: see answer_for_host().
  const bool is_about_us = what.who.id == myself.id;
  if (is_about_us) what.who.said_ip = *source;
  const string text = what.format();
  trace("UDP", {*source, myself.address.port}, "->", to, text);
  const int fd = own_socket.get();
  sockaddr_in raw = to.to_sockaddr();
  const ssize_t sent =
      ::sendto(fd, text.data(), text.size(), MSG_DONTWAIT, generic(raw), sizeof raw);
  note_sent(sent);
}

// Sends the roster's datagrams, and passes on what it has to tell the user.
void send_and_tell() {
  for (const Datagram& datagram : roster->take_datagrams())
    send_datagram(datagram);
  for (const Event& event : roster->take_events())
    events.push(event);
}

void hear_text(string_view text, Address from, Door door) {
  if (text.size() > kMaxDatagram) return;
  // Somebody may be typing into nc -u: drop the end of the line.
  const size_t last = text.find_last_not_of("\r\n");
  text = text.substr(0, last + 1);  // npos + 1 is 0
  const auto said = Announcement::parse(text);
  if (!said || !came_through_our_interface(from)) return;
  roster->hear(*said, from, door, Clock::now());
}

void receive_from(Door door) {
  const int fd = door == Door::shared ? shared_socket.get() : own_socket.get();
  // Do not loop until the socket is empty. In a storm of datagrams it never is, and the keyboard
  // would have to wait.
  for (int i = 0; i < kDatagramsAtOnce; ++i) {
    // The kernel cuts off what does not fit. With one byte more we see that there was more.
    std::array<char, kMaxDatagram + 1> bytes;
    sockaddr_in raw{};
    socklen_t length = sizeof raw;
    // MSG_DONTWAIT: select() may report a datagram that the kernel then drops for a wrong checksum.
    const ssize_t got =
        ::recvfrom(fd, bytes.data(), bytes.size(), MSG_DONTWAIT, generic(raw), &length);
    if (got == -1) return;  // nothing is left, or select() will call us again
    const auto size = static_cast<size_t>(got);
    const string_view text(bytes.data(), size);
    const Address from = Address::from_sockaddr(raw);
    note_received(fd, from, text);
    hear_text(text, from, door);
  }
}

}  // namespace

void discovery::open() {
  own_socket = open_udp_socket(myself.address.port);
  shared_socket = open_shared_socket();
  interfaces = read_interfaces();
  const uint32_t seed = std::random_device()();
  roster.emplace(myself, seed);
  if (!sweeps_allowed) roster->never_sweep();
  roster->start(interfaces, Clock::now());
}

void discovery::watch(fd_set& readable) {
  FD_SET(shared_socket.get(), &readable);
  FD_SET(own_socket.get(), &readable);
}

void discovery::receive(const fd_set& readable) {
  if (FD_ISSET(shared_socket.get(), &readable))
    receive_from(Door::shared);
  if (FD_ISSET(own_socket.get(), &readable))
    receive_from(Door::own);
  send_and_tell();
}

// Reads the interfaces every now and then: a cable is plugged in, Wi-Fi comes up, DHCP assigns
// another address.
void discovery::tick() {
  const Time now = Clock::now();
  if (now >= next_look) {
    next_look = now + kLook;
    interfaces = read_interfaces();
    roster->use_networks(interfaces, now);
    roster->set_epoch(start_of_wall_clock());
  }
  roster->run(now);
  send_and_tell();
}

Duration discovery::pause() {
  const Duration until_due = roster->next_due() - Clock::now();
  return std::clamp<Duration>(until_due, 0ms, kLongestPause);
}

void discovery::leave() {
  roster->leave();
  send_and_tell();
}

namespace {

// ============================================================================
// SECOND READING: sweeps, large classes, limits of the list, hosts with several instances, our
// sockets and interfaces, /scan, /diag
// ============================================================================

// ---- Probes: sweeps and scans [4.3] -----------------------------------------------------

constexpr auto kBroadcastFirst = 3s;  // if nobody is found by then, the network is swept
constexpr auto kBroadcastProves = 60s;  // for so long, one that arrived shows that broadcast works
constexpr auto kAnswerProves = 15s;     // for so long, an answer to ours shows it
constexpr auto kProbePause = 250ms;   // see Probes::pause()
constexpr auto kSweepAgain = 5min;    // where that is of use; see Probes::period()
constexpr auto kClockStep = 1s;       // the wall clock was set, or we slept; less is NTP's steering
constexpr auto kScanGrace = 1s;       // for the last answers to arrive
constexpr size_t kProbesBetweenNotes = 120;  // of a /scan: 30 s
constexpr int kSweepBits = 22;        // a sweep is at most a /22: 1,022 addresses

int bits_of(const Interface& network) {  // 24, of 255.255.255.0
  return __builtin_popcount(network.netmask);
}

bool is_loopback(uint32_t ip) { return ip >> 24 == IN_LOOPBACKNET; }

bool is_on_link(const Interface& network, uint32_t ip) {
  const uint32_t differing = ip ^ network.ip;  // the bits in which the two addresses differ
  const bool is_in_network = (differing & network.netmask) == 0;
  return is_in_network || ip == network.other_end;
}

bool operator==(const Interface& one, const Interface& other) {
  if (one.name != other.name || one.ip != other.ip)
    return false;
  return one.netmask == other.netmask && one.other_end == other.other_end;
}

bool has_ip(const Interfaces& all, uint32_t ip) {
  for (const Interface& one : all)
    if (one.ip == ip) return true;
  return false;
}

Range range_of(const Interface& network) {
  if (network.other_end != 0) return {network.other_end};
  return {network.ip, bits_of(network)};
}

using Addresses = std::deque<Address>;

// The nearest come first, since DHCP hands out neighbouring addresses. The distance is counted
// around the network, so that two peers ask each other at the same step. All are first asked at the
// port of a host's first instance: a firewall lets in what comes from the address and port to which
// we have just sent something. Then all are asked at the shared port, where any instance can hear
// it.
Addresses addresses_of(const Range& range) {
  const bool is_any = range.port == 0;
  const uint16_t first = is_any ? kFirstPort : range.port;
  const uint16_t second = is_any ? kDiscoveryPort : range.port;
  const int host_bits = 32 - std::max(range.bits, kSweepBits);
  const uint32_t size = uint32_t{1} << host_bits;
  const uint32_t mask = size - 1;  // of the host part
  const uint32_t network = range.ip & ~mask;
  Addresses addresses;
  for (const uint16_t port : {first, second}) {
    for (uint32_t step = 0; step < size; ++step) {
      const uint32_t distance = (step + 1) / 2;
      const bool is_above = step % 2 == 1;
      const uint32_t ip = is_above ? range.ip + distance : range.ip - distance;
      const uint32_t host = ip & mask;
      // The address of the network itself, and its broadcast address.
      const bool is_reserved = size > 2 && (host == 0 || host == mask);
      if (!is_reserved) addresses.push_back({network + host, port});
    }
  }
  return addresses;
}

class Probes {
 public:
  void never_sweep() { may_sweep_ = false; }

  // The first round of a network depends on when we came, not on the wall clock.
  void set_epoch(Time epoch, Time now) {
    now_ = now;
    const Duration step = epoch - epoch_;
    if (std::chrono::abs(step) < kClockStep) return;
    epoch_ = epoch;
    for (Sweep& sweep : sweeps_)
      if (sweep.rounds > 0) sweep.begins_at = next_round(sweep);
  }

  // Sweeps those that are new.
  void use_networks(const Interfaces& networks, Time now) {
    now_ = now;
    networks_ = networks;
    const vector<Sweep> before = std::exchange(sweeps_, {});
    for (const Interface& network : networks) {
      if (is_loopback(network.ip)) continue;
      Sweep sweep;
      sweep.network = network;
      sweep.begins_at = now;
      if (network.can_broadcast()) sweep.begins_at += kBroadcastFirst;
      for (const Sweep& former : before)
        if (former.network == network) sweep = former;
      sweeps_.push_back(sweep);
    }
  }

  // The network of this address needs no sweep until then.
  void note_broadcast(uint32_t ip, Time until) {
    for (Sweep& sweep : sweeps_) {
      if (!is_on_link(sweep.network, ip)) continue;
      sweep.broadcast_works_until = std::max(sweep.broadcast_works_until, until);
      // If it works no longer by then, the next round begins.
      sweep.begins_at = std::min(sweep.begins_at, sweep.broadcast_works_until);
      sweep.left.clear();
    }
  }

  // Replaces a scan that is under way.
  void scan(const vector<Range>& ranges, Time now) {
    now_ = now;
    scan_ = Scan();
    Addresses& left = scan_->left;
    for (const Range& range : ranges) {
      if (range.bits < kSweepBits) {
        string network = Address{range.ip}.ip_text();
        network += "/" + to_string(range.bits);
        lines_.push_back("note: a scan asks at most 1,022 addresses: of " + network +
                         ", only the /22 around it; /scan NETWORK/22 asks another");
      }
      const Addresses addresses = addresses_of(range);
      left.insert(left.end(), addresses.begin(), addresses.end());
    }
    scan_->addresses = left.size() / 2;  // each is asked twice
    if (scan_->addresses > 10) tell_progress();
    if (left.empty()) advance_scan();
  }

  // Does whatever is due, and returns an address if it is time to ask one. `users` are listed.
  optional<Address> take(const Users& users, Time now) {
    now_ = now;
    end_scan(users.size());
    begin_rounds(users);
    skip_found(users);
    Addresses* const left = next_queue();
    if (!left || now < next_probe_) return nullopt;
    const Address next = left->front();
    left->pop_front();
    const bool is_scan = scan_ && left == &scan_->left;
    next_probe_ = now + (is_scan ? kProbePause : pause(users));
    if (is_scan) advance_scan();
    return next;
  }

  Time next_due() const {
    Time next = Time::max();
    bool has_addresses = scan_ && !scan_->left.empty();
    if (scan_ && !has_addresses) next = scan_->ends_at;
    for (const Sweep& sweep : sweeps_) {
      if (!sweep.left.empty()) has_addresses = true;
      if (may_sweep_) next = std::min(next, sweep.begins_at);
    }
    return has_addresses ? std::min(next, next_probe_) : next;
  }

  vector<string> take_lines() { return std::exchange(lines_, {}); }  // for the user

 private:
  // A network, swept if broadcast finds nobody there.
  struct Sweep {
    Interface network;
    Time broadcast_works_until;
    int rounds = 0;            // begun so far
    Duration period = kSweepAgain;  // between rounds
    Time begins_at;            // the next round
    Addresses left;            // still to be asked in this round
  };

  // What the user wants us to ask.
  struct Scan {
    Addresses left;            // still to be asked; at first, each address is in it twice
    size_t addresses = 0;      // how many in all
    Time ends_at;              // once every address has been asked
  };

  void begin_rounds(const Users& users) {
    for (Sweep& sweep : sweeps_) {
      const bool is_due = sweep.begins_at <= now_;
      if (!is_due || !may_sweep_) continue;
      const Addresses all = addresses_of(range_of(sweep.network));
      sweep.period = period(all, users);
      sweep.begins_at = next_round(sweep);
      const bool broadcast_works = now_ < sweep.broadcast_works_until;
      if (broadcast_works || !is_worth_it(sweep, users)) continue;
      ++sweep.rounds;
      sweep.left = all;
    }
  }

  // Two rounds in any case: a peer that started before us, and is behind a firewall as we are, asks
  // us only in its next sweep. After that, only while there is somebody.
  bool is_worth_it(const Sweep& sweep, const Users& users) const {
    if (sweep.rounds < 2) return true;
    for (const Identity& user : users) {
      const uint32_t ip = user.address.ip;
      const bool is_there = is_on_link(sweep.network, ip);
      if (is_there && !has_ip(networks_, ip)) return true;
    }
    return false;
  }

  // Five minutes, doubled until a round fits in: our networks take turns. So of two periods, one is
  // a multiple of the other, and a slow host still begins together with a fast one.
  Duration period(const Addresses& addresses, const Users& users) const {
    const size_t probes = addresses.size() * sweeps_.size();
    const Duration round = static_cast<int>(probes) * pause(users);
    Duration period = kSweepAgain;
    while (period < round)
      period *= 2;
    return period;
  }

  // A firewall that lets in nothing but answers forgets a question after 30 s. So two such hosts
  // find each other only if they ask at the same time. They do: when the wall clock shows a
  // multiple of their period.
  Time next_round(const Sweep& sweep) const {
    const Duration passed = (now_ - epoch_) % sweep.period;
    const Time next = now_ + sweep.period - passed;
    const Time until = sweep.broadcast_works_until;
    return now_ < until ? std::min(next, until) : next;
  }

  // Four a second. The kernel sends three ARP requests for an address that nobody has, and a switch
  // may cut off a port that sends more than 15 of them a second. All instances of this host are
  // behind one such port, so they share the pace.
  Duration pause(const Users& users) const {
    int instances = 1;
    for (const Identity& user : users) {
      const uint32_t ip = user.address.ip;
      if (is_loopback(ip) || has_ip(networks_, ip)) ++instances;
    }
    return instances * kProbePause;
  }

  // A sweep need not ask where somebody has been found. A scan asks every address it was told to.
  void skip_found(const Users& users) {
    std::set<uint32_t> found;
    for (const Identity& user : users)
      found.insert(user.address.ip);
    for (Sweep& sweep : sweeps_) {
      Addresses& left = sweep.left;
      while (!left.empty() && found.count(left.front().ip) > 0)
        left.pop_front();
    }
  }

  // The queue whose turn it is. A scan comes first, and the networks take turns, or a large one
  // would hold up a small one.
  Addresses* next_queue() {
    if (scan_ && !scan_->left.empty()) return &scan_->left;
    for (size_t i = 0; i < sweeps_.size(); ++i) {
      turn_ = (turn_ + 1) % sweeps_.size();
      Sweep& sweep = sweeps_[turn_];
      if (!sweep.left.empty()) return &sweep.left;
    }
    return nullptr;
  }

  // A scan may take minutes, so we report progress now and then.
  void advance_scan() {
    const size_t left = scan_->left.size();
    scan_->ends_at = now_ + kScanGrace;  // if that was the last one
    const size_t asked = 2 * scan_->addresses - left;
    if (left > 0 && asked % kProbesBetweenNotes == 0) tell_progress();
  }

  void tell_progress() {
    const auto left = static_cast<int>(scan_->left.size());
    const auto time_left = left * kProbePause + kScanGrace;
    const string addresses = to_string(scan_->addresses);
    const string time = to_string(time_left / 1s);
    lines_.push_back("note: scanning " + addresses + " addresses, " + time + " s to go");
  }

  void end_scan(size_t online) {
    if (!scan_ || !scan_->left.empty()) return;
    if (scan_->ends_at > now_) return;
    const string asked = to_string(scan_->addresses);
    lines_.push_back("scanned " + asked + " addresses; " + to_string(online) + " users online");
    scan_.reset();
  }

  Time epoch_;             // see Roster::set_epoch()
  Time now_;
  bool may_sweep_ = true;
  Time next_probe_;        // not before
  Interfaces networks_;
  vector<Sweep> sweeps_;   // one for each network but loopback
  size_t turn_ = 0;        // the one that asked last
  optional<Scan> scan_;
  vector<string> lines_;
};

// ---- The roster and its probes --------------------------------------------------------

Roster::Roster(const Identity& self, uint32_t seed)
    : self_(self),
      random_(seed),
      probes_(std::make_unique<Probes>()) {}

Roster::~Roster() = default;

void Roster::never_sweep() { probes_->never_sweep(); }

void Roster::set_epoch(Time epoch) {
  probes_->set_epoch(epoch, now_);
  plan_probe();
}

void Roster::use_networks(const Interfaces& networks, Time now) {
  now_ = now;
  if (networks == networks_) return;
  networks_ = networks;
  look_around();
}

void Roster::look_around() {
  if (networks_.empty()) tell(Told{"note: no network interface is up; waiting for one"});
  probes_->use_networks(networks_, now_);
  plan_probe();
  begin_burst();
}

// A burst that is under way starts again.
void Roster::begin_burst() {
  if (hellos_left_ == 0) plan(now_, {Kind::greet});
  hellos_left_ = kBurst;
}

void Roster::scan(const vector<Range>& ranges, Time now) {
  now_ = now;
  probes_->scan(ranges, now);
  plan_probe();
}

void Roster::scan_all(Time now) {
  vector<Range> ranges;
  for (const Interface& network : networks_)
    if (!is_loopback(network.ip)) ranges.push_back(range_of(network));
  scan(ranges, now);
  begin_burst();
}

// As in plan_review(), to look too early does no harm.
void Roster::plan_probe() {
  for (const string& line : probes_->take_lines())
    tell(Told{line});
  const Time next = probes_->next_due();
  if (probe_at_ <= next) return;
  probe_at_ = next;
  plan(next, {Kind::probe});
}

void Roster::probe(Time due) {
  if (due != probe_at_) return;
  probe_at_ = Time::max();
  const optional<Address> next = probes_->take(users(), now_);
  if (next) {
    Announcement hello = announcement(Verb::hello);
    hello.ask_host = true;
    send_hello(hello, *next);
  }
  plan_probe();
}

// A probe arrives at the shared port as well, but it asks for the whole host.
bool came_by_broadcast(const Announcement& said, Door door) {
  return door == Door::shared && !said.ask_host;
}

// Broadcast works on a network if one arrives from another host. A host that answers ours before we
// have sent it a HELLO of its own proves less: our firewall may let that in because an earlier peer
// at our port asked for it. But if broadcasts arrive, a heartbeat follows. Probes prove nothing,
// and neither does hearing somebody.
void Roster::note_broadcast(const Announcement& said, Address from, Door door) {
  const bool is_broadcast = came_by_broadcast(said, door);
  Peer* const peer = find(said.who);
  if (peer && is_broadcast) peer->was_broadcast = true;
  const bool is_answer = said.verb == Verb::here && said.to == self_.id;
  const bool are_all_noted = asked_.size() < kMaxPeers;
  const bool was_asked = asked_.count(from.ip) > 0 || !are_all_noted;
  const bool is_beside_us = has_ip(networks_, from.ip);
  if (is_beside_us) return;
  for (const Interface& network : networks_)
    if (is_broadcast && is_on_link(network, from.ip))
      ++broadcasts_[network.ip].others;
  if (is_broadcast) probes_->note_broadcast(from.ip, now_ + kBroadcastProves);
  else if (is_answer && !was_asked) probes_->note_broadcast(from.ip, now_ + kAnswerProves);
  plan_probe();
}

// To a single address.
void Roster::send_hello(const Announcement& hello, Address to) {
  if (asked_.size() < kMaxPeers) asked_.insert(to.ip);
  send(hello, to);
}

// ---- Where loopback carries no broadcast [4.3] ------------------------------------------

constexpr uint16_t kLastLocalPort = kFirstPort + 15;  // the last one that we ask

void Roster::note_own(const Announcement& said, Address from, Door door) {
  const bool is_broadcast = came_by_broadcast(said, door);
  if (is_broadcast && has_ip(networks_, from.ip))
    ++broadcasts_[from.ip].ours;
}

Roster::Broadcasts Roster::broadcasts_on(uint32_t ip) const {
  const auto counted = broadcasts_.find(ip);
  return counted == broadcasts_.end() ? Broadcasts() : counted->second;
}

// On macOS and the BSDs it does not, and we do not hear our own HELLO there. But the instances of a
// host have the first free ports, and each of them names the others. An instance with any other
// port asks them, and is found that way.
void Roster::ask_on_loopback() {
  Announcement hello = announcement(Verb::hello);
  hello.ask_host = true;
  for (const Interface& network : networks_) {
    if (!is_loopback(network.ip)) continue;
    if (broadcasts_on(network.ip).ours > 0) continue;
    std::set<uint16_t> known{self_.address.port};
    for (const Peer* const peer : peers_at(network.ip))
      if (peer->is_listed())
        known.insert(peer->who.address.port);
    for (uint16_t port = kFirstPort; port <= kLastLocalPort; ++port)
      if (known.count(port) == 0)
        send_hello(hello, {network.ip, port});
  }
}

// ---- In a large class [4.2] -----------------------------------------------------------

constexpr size_t kBeatsASecond = 20;   // by all peers of a network together
constexpr int kEarlyBeats = 3;         // for those that have missed all HELLOs of the burst
constexpr auto kEarlyPause = 2s;
constexpr auto kAnswerSpread = 500us;  // for each user, to spread the answers to a broadcast
constexpr size_t kCrowd = 50;          // with more users, not everybody gets a BYE of his own

// Everybody hears everybody else. If the interval were the same for all classes, the number of
// datagrams received would grow with the square of the number of users.
seconds Roster::interval() const {
  const size_t users = listed_ + 1;
  const size_t needed = (users + kBeatsASecond - 1) / kBeatsASecond;
  return std::max(kHeartbeat, seconds(needed));
}

// Peers that started together would send their heartbeats together for ever. So the first pause
// after the early ones has any length, and a little randomness keeps them apart.
void Roster::plan_heartbeat() {
  const bool is_early = beats_ < kEarlyBeats;
  const bool is_first = beats_ == kEarlyBeats;
  ++beats_;
  const Duration every = is_early ? kEarlyPause : every_;
  const Duration tenth = every / 10;
  Duration pause = every - tenth + random_time(2 * tenth);
  if (is_first) pause = random_time(every);
  plan(now_ + pause, {Kind::heartbeat});
}

Duration Roster::random_time(Duration most) {
  const auto steps = static_cast<uint32_t>(most / 1us) + 1;
  return random_() % steps * 1us;
}

// A whole class hears a broadcast. If everybody answered at once, the asker's receive buffer would
// overflow. So N users spread their answers over N times half a millisecond.
Duration Roster::delay_of_answer(const Announcement& said, Door door) {
  if (!came_by_broadcast(said, door)) return 0s;
  const size_t users = listed_ + 1;
  return random_time(users * kAnswerSpread);
}

// One answer is enough for everything that it has asked by then.
void Roster::answer_after(Duration delay, const string& asker, Address to) {
  if (delay == 0s) {
    answer(asker, to);
    return;
  }
  const bool is_flood = pending_.size() == kMaxPeers;
  if (is_flood) return;
  const bool is_first = pending_.count(to) == 0;
  pending_[to] = asker;
  if (is_first)
    plan(now_ + delay, {Kind::answer, "", to});
}

void Roster::answer_pending(Address to) {
  answer(pending_.at(to), to);
  pending_.erase(to);
}

void Roster::ask_after(Duration delay, Peer& peer) {
  peer.last_asked = now_;
  peer.ask_at = now_ + delay;
  if (delay == 0s) ask(peer);
  else plan_review(peer);
}

// If no broadcast of its own has ever reached us, ours may not reach it.
bool Roster::needs_own_bye(const Peer& peer) const {
  const bool is_crowd = listed_ + 1 > kCrowd;
  return !is_crowd || !peer.was_broadcast;
}

// ---- Who may have an entry, and where [4.4] -----------------------------------------

constexpr auto kReplacedFor = 5s;    // nobody is listed under the id of a peer that was replaced
constexpr size_t kMaxListed = 1024;
constexpr size_t kMaxFromOne = 128;  // from one IP address, which must not crowd out the others

Roster::Peer& Roster::insert(const Announcement& said) {
  const Identity& who = said.who;
  if (peers_.size() >= kMaxPeers) make_room();
  by_ip_.emplace(who.address.ip, who.id);
  Peer& peer = peers_[who.id];
  peer.who = who;
  peer.every = said.every;
  peer.last_heard = now_;
  peer.last_asked = now_;
  return peer;
}

// Being heard costs nothing, and a source may be forged. So peers that are not listed make room,
// the one silent for longest first.
void Roster::make_room() {
  const Peer* oldest = nullptr;
  for (const auto& [id, peer] : peers_) {
    if (peer.is_listed()) continue;
    const bool is_older = !oldest || peer.last_heard < oldest->last_heard;
    if (is_older) oldest = &peer;
  }
  if (oldest) erase(oldest->who.id);
}

void Roster::erase(const string& id) {
  const auto entry = peers_.find(id);
  const uint32_t ip = entry->second.who.address.ip;
  by_ip_.erase({ip, id});
  peers_.erase(entry);
}

vector<Roster::Peer*> Roster::peers_at(uint32_t ip) {
  vector<Peer*> found;
  auto it = by_ip_.lower_bound({ip, ""});
  while (it != by_ip_.end() && it->first == ip) {
    Peer& peer = peers_.at(it->second);
    found.push_back(&peer);
    ++it;
  }
  return found;
}

// How many peers are listed at this IP address.
size_t Roster::count_at(uint32_t ip) {
  size_t listed = 0;
  for (const Peer* const peer : peers_at(ip))
    if (peer->is_listed()) ++listed;
  return listed;
}

bool Roster::may_be_listed(uint32_t ip) {
  return listed_ < kMaxListed && count_at(ip) < kMaxFromOne;
}

// We may hear a peer on two networks, from two addresses. It stays one entry, with its first
// address until that falls silent. By the same rule, nobody can take over the entry of a peer that
// is alive by claiming its id.
bool Roster::may_move(const Peer& peer, Address to) {
  if (now_ <= peer.movable_at()) return false;
  for (const Peer* const other : peers_at(to.ip)) {
    const bool is_there = other->who.address == to;
    if (is_there && other->is_listed()) return false;
  }
  // A listed peer needs no second place in the list, but it may need one at the new IP address.
  const bool stays_at_ip = peer.who.address.ip == to.ip;
  if (!peer.is_listed() || stays_at_ip) return true;
  return count_at(to.ip) < kMaxFromOne;
}

void Roster::move(Peer& peer, Address to) {
  by_ip_.erase({peer.who.address.ip, peer.who.id});
  by_ip_.emplace(to.ip, peer.who.id);
  peer.who.address = to;
  peer.questions = 0;  // those asked so far went to its former address
}

// A port has one owner, so the former owner is gone: it may have been killed and started again.
void Roster::replace_others_at(const Peer& owner) {
  const Address address = owner.who.address;
  for (Peer* const other : peers_at(address.ip)) {
    const bool is_owner = other->who.id == owner.who.id;
    const bool is_there = other->who.address == address;
    if (is_owner || !is_there || other->has_left()) continue;
    dismiss(*other, "replaced", kReplacedFor);
  }
}

// Whether it can be the address of a single peer. An answer to a broadcast address would go to
// everybody: one forged datagram could make a whole class talk.
bool Roster::is_unicast(Address source) const {
  const bool is_multicast = source.ip >> 28 == 14;  // 224.0.0.0/4
  const bool is_special = source.ip == INADDR_ANY || source.ip == INADDR_BROADCAST;
  if (source.port == 0 || is_special || is_multicast) return false;
  for (const Interface& network : networks_) {
    const uint32_t number = network.ip & network.netmask;
    const bool is_network = source.ip == number;
    const bool is_broadcast = source.ip == network.broadcast_ip();
    if (network.can_broadcast() && (is_network || is_broadcast)) return false;
  }
  return true;
}

Users Roster::users() const {
  std::map<string, Identity> by_label;  // no two share an address, so no two share a label
  for (const auto& [id, peer] : peers_) {
    if (!peer.is_listed()) continue;
    by_label[peer.who.label()] = peer.who;
  }
  Users sorted;
  for (const auto& [label, who] : by_label)
    sorted.push_back(who);
  return sorted;
}

// ---- A new name -----------------------------------------------------------------------

void Roster::rename(const string& name, const string& group) {
  self_.name = name;
  self_.group = group;
  const Announcement here = announcement(Verb::here);
  for (const auto& [id, peer] : peers_)
    send(here, peer.who.address);
}

// ---- What a peer does not say by itself: hearsay [4.3], introductions [5.2] -----------------

// It did not come from the port that it names. An instance that answers for its host sends such a
// HERE, but so can anyone who wants to impersonate a neighbour. Believe none of it: ask at the port
// that it names.
void Roster::hear_of_another(const Announcement& said) {
  const bool is_known = find(said.who);
  if (said.verb != Verb::here || is_known) return;
  send_hello(announcement(Verb::hello), said.who.address);
}

// The question was meant for the whole host, but the kernel gave it to us alone. So we name the
// other instances on our host.
void Roster::answer_for_host(const string& asker, Address from) {
  for (const Interface& network : networks_) {
    for (const Peer* const peer : peers_at(network.ip)) {
      if (peer->who.id == asker || !peer->is_listed()) continue;
      Announcement here;
      here.verb = Verb::here;
      here.who = peer->who;
      send(here, from);
    }
  }
}

// Over TCP, a peer only claims its address; the source of a datagram shows who owns the port. So an
// introduction does not list anybody: it makes us ask.
void Roster::hear_introduction(const Identity& who) {
  const Peer* const known = find(who);
  const bool is_listed = known && known->is_listed();
  if (is_listed || !is_unicast(who.address)) return;
  send_hello(announcement(Verb::hello), who.address);
}

// ---- Our sockets ----------------------------------------------------------------------

constexpr int kSocketBuffer = 1 << 20;  // bytes

// On Linux SO_REUSEADDR shares a UDP port (SO_REUSEPORT alone would shut out other users of the
// host). On macOS and the BSDs SO_REUSEPORT does.
void share_port(const Descriptor& fd) {
  switch_on(fd, SO_REUSEADDR);
  switch_on(fd, SO_REUSEPORT);
}

// The default receive buffer holds some 256 small datagrams, and a large class sends more in answer
// to one broadcast. The send buffer has to hold the probes that wait for ARP. The kernel may grant
// less, which is no reason to fail.
void enlarge_buffers(const Descriptor& fd) {
  for (const int option : {SO_RCVBUF, SO_SNDBUF})
    ::setsockopt(fd.get(), SOL_SOCKET, option, &kSocketBuffer, sizeof kSocketBuffer);
}

Descriptor open_shared_socket() {
  try {
    return open_udp_socket(kDiscoveryPort);
  } catch (const std::system_error& error) {
    if (error.code() != std::errc::address_in_use) throw;
    throw std::runtime_error(
        "another program holds UDP port 25252, which every peer needs; end it: "
        "ss -lunp | grep 25252 names it (with sudo, if it is another user's)");
  }
}

// As a time on our own clock, which nobody can set. Ask for it anew each time: the wall clock can
// be set, and on Linux, ours stands still while a laptop sleeps.
Time start_of_wall_clock() {
  const auto wall_time = std::chrono::system_clock::now().time_since_epoch();
  return Clock::now() - std::chrono::duration_cast<Duration>(wall_time);
}

// Our sockets are bound to all our addresses. This is the one from which we reach the other side.
Address our_end(int fd, Address other) {
  const uint32_t ip = discovery::source_for(other.ip).value_or(INADDR_ANY);
  const uint16_t port = local_address(fd).port;
  return {ip, port};
}

struct Counters {
  uint64_t sent = 0;  // datagrams
  uint64_t received = 0;
  string failure;     // "; the last failure: Network is down"
};
Counters counters;

void note_sent(ssize_t result) {
  if (result != -1) ++counters.sent;
  else counters.failure = "; the last failure: " + error_text(errno);
}

void note_received(int fd, Address from, string_view text) {
  ++counters.received;
  if (tracing)
    trace("UDP", our_end(fd, from), "<-", from, text);
}

// ---- Our interfaces -----------------------------------------------------------------

uint32_t ip_of(const sockaddr* address) {
  const auto* const raw = reinterpret_cast<const sockaddr_in*>(address);
  return ntohl(raw->sin_addr.s_addr);
}

bool is_chosen(const string& label) {
  if (chosen_interfaces.empty()) return true;
  for (const string& name : chosen_interfaces)
    if (name == label || name == device_of(label)) return true;
  return false;
}

bool is_usable(const ifaddrs& entry) {
  const bool is_up = entry.ifa_flags & IFF_UP;
  const bool is_running = entry.ifa_flags & IFF_RUNNING;
  const bool is_ipv4 = entry.ifa_addr && entry.ifa_addr->sa_family == AF_INET;
  return is_up && is_running && is_ipv4 && entry.ifa_netmask && is_chosen(entry.ifa_name);
}

Interface interface_of(const ifaddrs& entry) {
  Interface interface;
  interface.name = entry.ifa_name;
  interface.ip = ip_of(entry.ifa_addr);
  interface.netmask = ip_of(entry.ifa_netmask);
  const bool is_point_to_point = entry.ifa_flags & IFF_POINTOPOINT;
  if (!is_point_to_point || !entry.ifa_dstaddr) return interface;
  const uint32_t other_end = ip_of(entry.ifa_dstaddr);
  if (other_end != interface.ip) interface.other_end = other_end;  // some VPNs give our own address
  return interface;
}

// The interfaces that are up and that we may use; the former ones if the system cannot say.
// getifaddrs() is not in POSIX, but every system that this program could run on has it.
Interfaces read_interfaces() {
  ifaddrs* list = nullptr;
  const int result = ::getifaddrs(&list);
  if (result == -1) return interfaces;
  Interfaces usable;
  for (const ifaddrs* entry = list; entry; entry = entry->ifa_next)
    if (is_usable(*entry)) usable.push_back(interface_of(*entry));
  ::freeifaddrs(list);
  return usable;
}

// We ignore what comes through an interface that the user has not chosen.
bool came_through_our_interface(Address from) {
  return chosen_interfaces.empty() || discovery::source_for(from.ip);
}

}  // namespace

uint32_t discovery::own_ip() {
  for (const Interface& network : interfaces)
    if (!is_loopback(network.ip)) return network.ip;
  return INADDR_LOOPBACK;
}

// For a network that we are on, this is our address there. Beyond, we ask the kernel: connect() on
// a UDP socket sends nothing, but it looks up the route and the source address that goes with it.
optional<uint32_t> discovery::source_for(uint32_t ip) {
  for (const Interface& network : interfaces)
    if (is_on_link(network, ip)) return network.ip;
  const Descriptor fd(::socket(AF_INET, SOCK_DGRAM, 0));  // if that fails, so does connect()
  sockaddr_in raw = Address{ip, kDiscoveryPort}.to_sockaddr();
  const int result = ::connect(fd.get(), generic(raw), sizeof raw);
  if (result == -1) return nullopt;
  const uint32_t source = local_address(fd.get()).ip;
  const bool is_ours = chosen_interfaces.empty() || has_ip(interfaces, source);
  if (!is_ours) return nullopt;
  return source;
}

// All of 127.0.0.0/8 is this host, and so is 0.0.0.0, which connect() takes for 127.0.0.1.
bool discovery::is_own(Address address) {
  const uint32_t ip = address.ip;
  const bool is_always_us = ip == INADDR_ANY || is_loopback(ip);
  const bool is_this_host = is_always_us || has_ip(interfaces, ip);
  return is_this_host && address.port == myself.address.port;
}

// ---- The rest of what peer.cpp asks for -------------------------------------------------

Users discovery::users() {
  return roster->users();
}

void discovery::rename() {
  roster->rename(myself.name, myself.group);
  send_and_tell();
}

void discovery::introduced(const Identity& who) {
  roster->hear_introduction(who);
  send_and_tell();
}

void discovery::scan() {
  roster->scan_all(Clock::now());
  send_and_tell();
}

void discovery::scan(uint32_t network, int bits, uint16_t port) {
  const Range range{network, bits, port};
  roster->scan({range}, Clock::now());
  send_and_tell();
}

// For /diag.
vector<string> discovery::diagnosis() {
  vector<string> lines;
  for (const Interface& network : interfaces) {
    const Roster::Broadcasts heard = roster->broadcasts_on(network.ip);
    // On macOS and the BSDs, that is no fault.
    if (heard.ours == 0 && is_loopback(network.ip)) continue;
    string line = "interface " + network.name + ": our broadcast came back ";
    line += to_string(heard.ours) + " times";
    if (!is_loopback(network.ip))
      line += ", another host's came " + to_string(heard.others) + " times";
    lines.push_back(line);
  }
  lines.push_back(to_string(counters.sent) + " datagrams sent" + counters.failure);
  lines.push_back(to_string(counters.received) + " datagrams received");
  for (const auto& [id, peer] : roster->peers()) {
    const bool is_heard = !peer.is_listed() && !peer.has_left();
    if (is_heard) lines.push_back(peer.who.label() + " is heard, but does not hear us");
    // Through a NAT our HELLO may come from another port than it names: a peer that hears it
    // answers, and does nothing more [4.3].
    const bool is_one_sided = peer.is_listed() && !peer.has_asked;
    if (is_one_sided)
      lines.push_back(peer.who.label() + " answers us, but has never asked us: it cannot list " +
                      "us, most likely because a router (NAT) changes our port");
  }
  return lines;
}
