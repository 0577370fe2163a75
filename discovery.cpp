// discovery.cpp: finding the peers of the network segment, over UDP, and noticing when they go.
//
// Read protocol.h first; transfer.cpp is next. Only the main thread enters here: the select() loop of peer.cpp calls
// receive() when a datagram is there, and tick() again and again. What it finds out is pushed as events. The file is
// built from the wire up: sending, hearing, looking after the list, and at its end what peer.cpp calls.
//
// Three datagrams do it all [4]: HELLO asks, HERE answers and is the heartbeat, BYE leaves. They travel three ways: by
// broadcast on every interface; by a sweep, one HELLO to each address of the segment, for networks that drop
// broadcasts; and by a HELLO to an address that the user names (/scan).
//
// Two sockets. The shared one is bound to the well-known port 25252 together with every other instance on the host: a
// broadcast reaches them all. The own one is bound to a port that no one else has: all we send leaves from there, so an
// answer to its source finds exactly us. A unicast to a shared port would reach only one instance, the kernel's pick.
//
// Left out on purpose: authentication. Whoever owns a UDP port may say about himself what he likes, and only that.

#include <ifaddrs.h>
#include <net/if.h>

#include <random>

#include "protocol.h"

using namespace std::chrono_literals;

namespace {

// ---- Timers and limits [2.3] ---------------------------------------------------

constexpr auto kHeartbeat = 5s;        // give or take kJitter
constexpr auto kJitter = 500ms;
constexpr auto kOverdue = 6s;          // not heard for so long: ask
constexpr auto kSilent = 10s;          // and asked since it was overdue: its id may be heard from another address
constexpr auto kGone = 15s;            // not heard for three heartbeats
constexpr auto kAskEvery = 500ms;
constexpr int kMaxAsks = 24;           // unanswered: whatever we hear of it, it does not hear us
constexpr int kBurst = 3;              // HELLOs at start, one a look: one lost datagram costs nothing
constexpr auto kLook = 250ms;          // how often users, and interfaces, are looked after
constexpr auto kProbePause = 7ms;      // of the sweep: 143 a second, see probe()
constexpr auto kScanGrace = 1s;        // left for the last answers
constexpr int kSweepBits = 22;         // a sweep is at most a /22: 1,022 addresses
constexpr size_t kMaxUsers = 1024;     // listed
constexpr size_t kMaxHeard = 1280;     // listed or not
constexpr size_t kMaxFromOne = 128;    // listed at one IP address: it shall not crowd out the others
constexpr int kDatagramsAtOnce = 64;   // of each socket, before all else has its turn
constexpr int kSocketBuffer = 1 << 20;  // bytes

// ---- State -----------------------------------------------------------------------

// A peer that was heard. Only a listed one is shown: we hear it, and it has shown that it hears us [4.4].
struct User {
  enum class State { heard, listed, left };  // left: BYE, or replaced; an overtaken HERE must not bring it back
  Identity who;                              // at the address where its datagrams come from
  State state = State::heard;
  int asks = 0;                              // questions of ours since it last showed that it hears us
  Clock::time_point last_heard, last_asked;
  Clock::time_point last_answer = {};        // to a datagram of ours
};

struct Interface {
  std::string name;
  uint32_t ip, netmask;
  Clock::time_point heard_back = {};         // when we last heard a broadcast of our own
  bool operator==(const Interface& o) const { return name == o.name && ip == o.ip && netmask == o.netmask; }
  bool is_loopback() const { return ip >> 24 == IN_LOOPBACKNET; }
  bool has_on_link(uint32_t other) const { return (ip & netmask) == (other & netmask); }
  bool can_broadcast() const { return ~netmask > 1; }  // a /31 and a /32 have no broadcast address
  uint32_t broadcast_ip() const { return ip | ~netmask; }
  int bits() const { return __builtin_popcount(netmask); }  // 24, of 255.255.255.0
};

Descriptor shared_socket, own_socket;
std::vector<Interface> interfaces{{}};   // those to use that are up; before the first look, unlike any
std::map<std::string, User> heard;       // by id
std::deque<Address> probes;              // of the sweep, still to be sent
std::optional<uint64_t> asked_to_scan;   // how many addresses the /scan under way asks, if there is one
int hellos_left = 0;                     // of the burst
uint64_t sent = 0, received = 0;         // datagrams
Clock::time_point send_failed;           // when last, and
std::string send_error;                  // why
Clock::time_point next_heartbeat, next_look, next_probe, scan_ends;

// The heartbeats of a class that started together would stay together; a little chance spreads them.
Clock::time_point heartbeat_to_come() {
  static std::random_device random;
  return Clock::now() + kHeartbeat - kJitter + random() % (2 * kJitter / 1ms) * 1ms;
}

// Bound to every address of the host: a socket bound to one address does not hear its network's broadcasts.
Descriptor open_udp_socket(uint16_t port) {
  Descriptor fd(check(::socket(AF_INET, SOCK_DGRAM, 0), "socket"));
  const int on = 1;
  // SO_REUSEADDR, not SO_REUSEPORT: that one shuts out the instances of other users of the host.
  if (port == kDiscoveryPort)
    check(::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), "setsockopt SO_REUSEADDR");
  // Without it a sendto() to a broadcast address fails with EACCES.
  check(::setsockopt(fd.get(), SOL_SOCKET, SO_BROADCAST, &on, sizeof on), "setsockopt SO_BROADCAST");
  // The default receive buffer holds some 256 small datagrams, fewer than a large class answers to one broadcast; the
  // send buffer has to hold the probes that wait for ARP. The kernel may grant less, which is no reason to fail.
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &kSocketBuffer, sizeof kSocketBuffer);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUF, &kSocketBuffer, sizeof kSocketBuffer);
  sockaddr_in raw = Address{INADDR_ANY, port}.to_sockaddr();
  check(traced(fd.get(), "bind", ::bind(fd.get(), generic(raw), sizeof raw)), "bind UDP port " + to_string(port));
  return fd;
}

// ============================================================================
// Sending
// ============================================================================

bool is_ours(uint32_t ip) {
  return std::any_of(interfaces.begin(), interfaces.end(), [&](const Interface& i) { return i.ip == ip; });
}

// A failure is a datagram lost, as any may be: the send buffer is full, an interface has gone, a firewall says EPERM.
void send_text(const std::string& text, Address to) {
  sockaddr_in raw = to.to_sockaddr();
  const int fd = own_socket.get();
  if (tracing) trace(ends_of(fd, "->", to), text);
  const ssize_t result = ::sendto(fd, text.data(), text.size(), MSG_DONTWAIT, generic(raw), sizeof raw);
  if (result != -1) return void(++sent);
  send_error = error_text(errno);
  send_failed = Clock::now();
  traced(fd, "sendto", result, to);
}

void send(Announcement what, Address to) {
  const auto source = discovery::source_for(to.ip);
  if (!source) return;  // no usable route leads there
  what.who.said_ip = *source;
  send_text(what.format(), to);
}

// To the directed broadcast address of each network. 255.255.255.255 would leave by one interface only, and fail with
// ENETUNREACH on a host without a default route.
void broadcast(Verb verb) {
  for (const Interface& i : interfaces)
    if (i.can_broadcast()) send({verb, myself}, {i.broadcast_ip(), kDiscoveryPort});
}

// ============================================================================
// Hearing: a datagram has arrived
// ============================================================================

void ask(User& user) {
  user.last_asked = Clock::now();
  ++user.asks;
  send({Verb::hello, myself, "", !is_ours(user.who.address.ip)}, user.who.address);
}

// Whether the list has room for one more at that IP address.
bool has_room_for(uint32_t ip) {
  size_t listed = 0;
  size_t at_that_ip = 0;
  for (const auto& [id, user] : heard) {
    if (user.state != User::State::listed) continue;
    ++listed;
    if (user.who.address.ip == ip) ++at_that_ip;
  }
  return listed < kMaxUsers && at_that_ip < kMaxFromOne;
}

void unlist(User& user, const std::string& reason) {
  if (std::exchange(user.state, User::State::heard) == User::State::listed)
    events.push({Event::Kind::left, user.who, reason});
}

// A port has one owner: whoever had this one before has gone, killed perhaps, and was started anew.
void retire_former_owner(const User& owner) {
  for (auto& [id, former] : heard) {
    const bool is_other = &former != &owner && former.who.address == owner.who.address;
    if (!is_other || former.state == User::State::left) continue;
    unlist(former, "replaced");
    former.state = User::State::left;
    former.last_heard = Clock::now() - kSilent;  // for 5 s more its id is refused [4.4]
  }
}

// It hears us: this is what makes it one of the list.
void confirm(User& user) {
  if (user.state != User::State::listed) {
    if (!has_room_for(user.who.address.ip)) return;
    retire_former_owner(user);  // not before: anyone can claim an address, but not read what is sent there
  }
  user.asks = 0;
  user.last_asked = Clock::now();  // its own question, which often follows its answer, is no reason to ask again
  if (std::exchange(user.state, User::State::listed) == User::State::listed) return;
  events.push({Event::Kind::joined, user.who});
  // Its host has been asked by then: by broadcast, probe or question. But a /scan asks all that it was told to.
  const Address probed{user.who.address.ip, kDiscoveryPort};
  if (!asked_to_scan) probes.erase(std::remove(probes.begin(), probes.end(), probed), probes.end());
}

bool is_free(Address address) {
  const auto is_owner = [&](const auto& entry) {
    return entry.second.who.address == address && entry.second.state == User::State::listed;
  };
  return std::none_of(heard.begin(), heard.end(), is_owner);
}

// Keeps what a peer said of itself. Returns its entry, or null where it may not have one.
User* hear(const Identity& who) {
  const auto found = heard.find(who.id);
  const bool is_new = found == heard.end();
  if (who.id == myself.id || (!is_new && found->second.state == User::State::left)) return nullptr;
  // A peer on two networks is heard from two addresses, and is one entry: the first address stays until it falls
  // silent. By the same rule nobody can take over the entry of a peer that is alive by claiming its id.
  const bool moves = !is_new && !(found->second.who.address == who.address);
  const bool is_silent = !is_new && Clock::now() - found->second.last_heard > kSilent;
  if (moves && !(is_silent && has_room_for(who.address.ip) && is_free(who.address))) return nullptr;
  if (is_new) {
    // To be heard costs nothing, and its source may be forged; so who is not listed makes room, longest silent first.
    const auto last = [](const User& user) { return std::pair(user.state == User::State::listed, user.last_heard); };
    const auto is_less = [&](const auto& a, const auto& b) { return last(a.second) < last(b.second); };
    if (heard.size() >= kMaxHeard) heard.erase(std::min_element(heard.begin(), heard.end(), is_less));
    return &(heard[who.id] = {who, User::State::heard, 0, Clock::now(), {}});
  }
  User& user = found->second;
  user.last_heard = Clock::now();
  const Identity before = std::exchange(user.who, who);
  if (user.state == User::State::listed && (before.label() != who.label() || before.group != who.group))
    events.push({Event::Kind::changed, who, before.label() + " " + before.group});
  return &user;
}

void answer(const Announcement& hello, Address from) {
  send({Verb::here, myself, hello.who.id}, from);
  if (!hello.ask_host) return;
  // The question was for the whole host, and the kernel gave it to us alone: name the instances beside us [4.3].
  for (const auto& [id, user] : heard)
    if (user.state == User::State::listed && is_ours(user.who.address.ip) && id != hello.who.id)
      send_text(Announcement{Verb::here, user.who}.format(), from);
}

void hear_datagram(std::string_view text, Address from) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.remove_suffix(1);  // typed into nc -u
  const auto said = Announcement::parse(text);
  // What came through an interface that is not ours, we have not heard. And our own broadcasts come back to us.
  if (!said || (!chosen_interfaces.empty() && !discovery::source_for(from.ip))) return;
  if (said->who.id == myself.id) {
    for (Interface& i : interfaces)
      if (i.ip == from.ip && !said->ask_host) i.heard_back = Clock::now();  // with it, it is a probe of the sweep
    return;
  }
  Identity who = said->who;
  who.address.ip = from.ip;
  const auto known = heard.find(who.id);
  const bool is_known = known != heard.end() && known->second.who.address == who.address;
  if (said->verb == Verb::hello) answer(*said, from);
  if (from.port != who.address.port) {
    // Hearsay: it does not come from the port that it speaks of. An instance that answers for its host sends such, and
    // so can anyone who wants to be taken for a neighbour. Believe nothing of it; ask at the door it names.
    if (said->verb == Verb::here && !is_known) send({Verb::hello, myself}, who.address);
    return;
  }
  if (said->verb == Verb::bye) {
    if (!is_known) return;
    unlist(known->second, "said bye");
    known->second.state = User::State::left;
    known->second.last_heard = Clock::now();  // for kGone from now on
    return;
  }
  const bool is_new = known == heard.end();
  User* user = hear(who);
  if (!user) return;
  const bool is_answer = said->verb == Verb::here && said->to == myself.id;
  if (is_answer) {
    user->last_answer = Clock::now();
    return confirm(*user);
  }
  // A newcomer: does it hear us? And why does one ask that is listed? Perhaps because our datagrams do not arrive.
  const bool is_question = is_new || said->verb == Verb::hello;
  if (is_question && Clock::now() - user->last_asked > kHeartbeat) ask(*user);
}

// ============================================================================
// Looking after the list, and the sweep
// ============================================================================

void look_after(User& user) {
  const auto now = Clock::now();
  if (user.state == User::State::left) return;
  if (now - user.last_heard > kGone) return unlist(user, "silent for 15 s");
  // We hear it, but nothing that we sent has reached it: a list with it on would promise what cannot work.
  const bool is_overdue = now - user.last_heard > kOverdue;
  if (user.asks >= kMaxAsks && !is_overdue) unlist(user, "does not hear us");
  const bool in_doubt = user.asks > 0 || user.state == User::State::heard || is_overdue;
  if (in_doubt && now - user.last_asked > (user.asks < kMaxAsks ? kAskEvery : kHeartbeat)) ask(user);
}

// Read again and again: a cable is plugged in, Wi-Fi comes up, DHCP gives another address. What is new is greeted.
// getifaddrs() is not in POSIX, but in every system that this could run on.
void read_interfaces() {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) == -1) return;
  const auto ip_of = [](const sockaddr* a) { return ntohl(reinterpret_cast<const sockaddr_in*>(a)->sin_addr.s_addr); };
  std::vector<Interface> now;
  for (const ifaddrs* i = list; i; i = i->ifa_next) {
    const auto& names = chosen_interfaces;
    const bool is_chosen = names.empty() || std::find(names.begin(), names.end(), i->ifa_name) != names.end();
    const bool is_up = (i->ifa_flags & IFF_UP) && (i->ifa_flags & IFF_RUNNING);
    if (is_chosen && is_up && i->ifa_addr && i->ifa_addr->sa_family == AF_INET && i->ifa_netmask)
      now.push_back({i->ifa_name, ip_of(i->ifa_addr), ip_of(i->ifa_netmask)});
  }
  ::freeifaddrs(list);
  if (now == interfaces) return;
  interfaces = std::move(now);
  const auto asked = asked_to_scan;
  discovery::scan();
  asked_to_scan = asked;  // nobody has asked for this one, so nobody is told of its end
}

// Queues the addresses of a network for probe(), all but the network's own (host part 0) and its broadcast address.
void sweep(uint32_t network, int bits, uint16_t port) {
  if (bits < kSweepBits)
    events.push({Event::Kind::told, {}, "note: a scan asks at most 1,022 addresses, of " + Address{network}.ip_text() +
                                            "/" + to_string(bits) + " the /22 around it; /scan NETWORK/22 asks more"});
  const uint32_t mask = bits == 32 ? 0 : ~uint32_t{0} >> std::max(bits, kSweepBits);  // of the host part
  for (uint32_t host = 0; host <= mask; ++host)
    if (mask < 2 || (host != 0 && host != mask)) probes.push_back({(network & ~mask) + host, port});
}

// Everyone twice: a datagram may be lost, and a peer that starts with us may have opened its port only after our first.
void repeat_probes() {
  asked_to_scan = probes.size();
  for (size_t i = 0; i < *asked_to_scan; ++i) probes.push_back(Address(probes[i]));
  scan_ends = Clock::now() + kScanGrace;
}

// One HELLO of the sweep. Paced, because a probe to an address where nobody is stays in the send buffer for the 3 s
// that ARP tries: with the default buffer, the 257th in that time would make a sendto() without MSG_DONTWAIT block for
// them all, and the program with it.
void probe() {
  send({Verb::hello, myself, "", probes.front().port == kDiscoveryPort}, probes.front());
  probes.pop_front();
  next_probe = Clock::now() + kProbePause;
  scan_ends = Clock::now() + kScanGrace;
}

// ============================================================================
// What is wrong: /diag
// ============================================================================

void tell(bool holds, const std::string& what, const std::string& remedy = "") {
  events.push({Event::Kind::told, {}, holds ? "diag ok: " + what : "diag failed: " + what + ": " + remedy});
}

bool is_recent(Clock::time_point then) { return Clock::now() - then < kGone; }

std::string ago(Clock::time_point then) {
  return then == Clock::time_point() ? "never" : to_string((Clock::now() - then) / 1s) + " s ago";
}

}  // namespace

// ============================================================================
// What peer.cpp calls
// ============================================================================

void discovery::open() {
  own_socket = open_udp_socket(myself.address.port);
  shared_socket = open_udp_socket(kDiscoveryPort);
  read_interfaces();
  next_heartbeat = heartbeat_to_come();
}

void discovery::watch(fd_set& readable) {
  for (const int fd : {shared_socket.get(), own_socket.get()}) FD_SET(fd, &readable);
}

void discovery::receive(const fd_set& readable) {
  for (const int fd : {shared_socket.get(), own_socket.get()}) {
    if (!FD_ISSET(fd, &readable)) continue;
    // Not until the socket is empty: in a storm of datagrams it never is, and the keyboard waits behind this loop.
    for (int i = 0; i < kDatagramsAtOnce; ++i) {
      std::array<char, kMaxDatagram + 1> bytes;  // one more, or a longer datagram, cut, would look like a valid one
      sockaddr_in raw{};
      socklen_t length = sizeof raw;
      // MSG_DONTWAIT: select() may report a datagram that the kernel then drops for a wrong checksum.
      const ssize_t got = ::recvfrom(fd, bytes.data(), bytes.size(), MSG_DONTWAIT, generic(raw), &length);
      if (got == -1) break;
      const std::string_view text(bytes.data(), static_cast<size_t>(got));
      const Address from = Address::from_sockaddr(raw);
      if (tracing) trace(ends_of(fd, "<-", from), text);
      ++received;
      if (text.size() <= kMaxDatagram) hear_datagram(text, from);
    }
  }
}

void discovery::tick() {
  const auto now = Clock::now();
  if (now >= next_look) {
    next_look = now + kLook;
    read_interfaces();
    if (hellos_left > 0) broadcast(Verb::hello);
    hellos_left = std::max(hellos_left - 1, 0);
    for (auto it = heard.begin(); it != heard.end();) {
      look_after(it->second);
      it = now - it->second.last_heard > kGone ? heard.erase(it) : std::next(it);
    }
  }
  if (now >= next_heartbeat) {
    next_heartbeat = heartbeat_to_come();
    broadcast(Verb::here);
  }
  if (!probes.empty() && now >= next_probe) probe();
  if (!asked_to_scan || !probes.empty() || now < scan_ends) return;
  events.push({Event::Kind::told, {}, "scanned " + to_string(*asked_to_scan) + " addresses; " +
                                          to_string(discovery::users().size()) + " users online"});
  asked_to_scan.reset();
}

Clock::duration discovery::pause() { return probes.empty() ? 100ms : kProbePause; }

void discovery::scan() {
  if (interfaces.empty()) events.push({Event::Kind::told, {}, "note: no network interface is up; waiting for one"});
  hellos_left = kBurst;
  probes.clear();
  for (const Interface& i : interfaces)
    if (!i.is_loopback()) sweep(i.ip, i.bits(), kDiscoveryPort);
  repeat_probes();
}

void discovery::scan(uint32_t network, int bits, uint16_t port) {
  probes.clear();
  sweep(network, bits, port);
  repeat_probes();
}

// To each, lest a broadcast be dropped, or be read from the shared port after something newer from the own one. But a
// BYE is for those as well who hear us and whom we do not hear.
void discovery::tell_everyone(Verb verb) {
  if (verb == Verb::bye) broadcast(verb);
  for (const auto& [id, user] : heard) send({verb, myself}, user.who.address);
}

// Over TCP anyone can name any port of his host; a datagram shows by its source who owns it. So we ask at that port,
// once, and believe what comes from there.
void discovery::introduced(const Identity& who) {
  const auto user = discovery::user(who.id);
  const bool is_listed = user && user->address == who.address;
  if (!is_listed) send({Verb::hello, myself}, who.address);
}

void discovery::diagnose() {
  for (const Interface& i : interfaces) {
    const std::string address = Address{i.ip}.ip_text(), broadcast = Address{i.broadcast_ip()}.ip_text();
    tell(true, "interface " + i.name + " is up, with " + address + "/" + to_string(i.bits()));
    if (i.can_broadcast())
      tell(is_recent(i.heard_back), "our last broadcast to " + broadcast + " was heard back " + ago(i.heard_back),
           "a firewall of this machine drops it; let in UDP 25252 to 25508");
  }
  const auto is_network = [](const Interface& i) { return !i.is_loopback(); };
  tell(std::any_of(interfaces.begin(), interfaces.end(), is_network), "a network to find others on",
       "no interface but lo is up with an IPv4 address; plug in a cable or join a Wi-Fi; ip -brief -4 addr lists them");
  const std::string shared = to_string(local_address(shared_socket.get()).port);
  const std::string own = to_string(local_address(own_socket.get()).port);
  tell(true, "ports UDP " + shared + ", UDP " + own + " and TCP " + own + " are bound");
  tell(!is_recent(send_failed), to_string(sent) + " datagrams sent, " + to_string(received) + " received",
       "the last that could not be sent, " + ago(send_failed) + ": " + send_error);
  for (const auto& [id, user] : heard)
    if (user.state != User::State::left)
      tell(user.state == User::State::listed, user.who.label() + " was heard " + ago(user.last_heard),
           "but does not hear us; its firewall must let in UDP 25252 to 25508");
  const auto is_here = [](const auto& u) { return u.second.state != User::State::left; };
  tell(std::any_of(heard.begin(), heard.end(), is_here), "others are heard",
       "nobody is; /diag ADDRESS looks at one of them");
}

bool discovery::diagnose(Address other) {
  const auto source = source_for(other.ip);
  const std::string ip = other.ip_text();
  const std::string from = source ? " from " + Address{*source}.ip_text() : "";
  tell(source.has_value(), "a route leads to " + ip + from,
       "none by the interfaces we use; ip route get " + ip + " shows which one it takes");
  if (!source) return false;
  const auto reaches = [&](const Interface& i) { return i.has_on_link(other.ip); };
  tell(std::any_of(interfaces.begin(), interfaces.end(), reaches), ip + " is on a network of ours",
       "a router is between, and no broadcast passes it; /scan " + ip + " finds who is there");
  for (auto& [id, user] : heard)
    if (user.who.address == other) user.last_answer = {};  // what it has answered before says nothing of now
  send({Verb::hello, myself}, other);
  return true;
}

void discovery::diagnose_answer(Address other) {
  Clock::time_point last_heard, last_answer;
  for (const auto& [id, user] : heard)
    if (user.who.address == other && user.state != User::State::left)
      last_heard = user.last_heard, last_answer = user.last_answer;
  const std::string whose = is_recent(last_heard) ? "it is heard, but its firewall drops what comes to it; "
                                                  : "if TCP is ok, a firewall drops UDP; ";
  tell(last_answer != Clock::time_point(), "UDP: " + other.text() + " answered " + ago(last_answer),
       whose + "both machines must let in UDP 25252 to 25508");
}

std::vector<Identity> discovery::users() {
  std::multimap<std::string, Identity> by_label;  // each label is made once: sorting would make it many times
  for (const auto& [id, user] : heard)
    if (user.state == User::State::listed) by_label.emplace(user.who.label(), user.who);
  std::vector<Identity> listed;
  for (const auto& [label, who] : by_label) listed.push_back(who);
  return listed;
}

std::optional<Identity> discovery::user(const std::string& id) {
  const auto found = heard.find(id);
  if (found == heard.end() || found->second.state != User::State::listed) return std::nullopt;
  return found->second.who;
}

// All of 127.0.0.0/8 is this host; and so is 0.0.0.0, by which connect() means 127.0.0.1.
bool discovery::is_own(Address address) {
  const bool is_this_host = address.ip == INADDR_ANY || address.ip >> 24 == IN_LOOPBACKNET;
  return address.port == myself.address.port && (is_this_host || is_ours(address.ip));
}

uint32_t discovery::own_ip() {
  for (const Interface& i : interfaces)
    if (!i.is_loopback()) return i.ip;
  return INADDR_LOOPBACK;
}

// On a network that we are on ourselves, the address we have there. Beyond, the kernel knows: connect() on a UDP socket
// sends nothing, but looks up the route, and the source address that goes with it.
std::optional<uint32_t> discovery::source_for(uint32_t ip) {
  for (const Interface& i : interfaces)
    if (i.has_on_link(ip)) return i.ip;
  const Descriptor fd(::socket(AF_INET, SOCK_DGRAM, 0));  // without one, no route, and the program goes on
  sockaddr_in raw = Address{ip, kDiscoveryPort}.to_sockaddr();
  if (::connect(fd.get(), generic(raw), sizeof raw) == -1) return std::nullopt;
  const uint32_t source = local_address(fd.get()).ip;
  return chosen_interfaces.empty() || is_ours(source) ? std::optional(source) : std::nullopt;
}
