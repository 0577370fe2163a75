// discovery.cpp: finding the peers of the network segment, over UDP, and noticing when they go.
//
// Read protocol.h first; transfer.cpp is next. Only the main thread enters here: the select() loop of peer.cpp
// calls receive() when a datagram is there and tick() when something is due. What it finds out is pushed as events.
//
// Three datagrams do it all [4]: HELLO asks, HERE answers and is the heartbeat, BYE leaves. They travel three ways:
// a broadcast on every interface; a sweep, one HELLO to each address of the segment, for networks that drop
// broadcasts; and a HELLO to an address that the user names (/scan).
//
// Two sockets. The shared one is bound to the well-known port 25252 together with every other instance on the host;
// a broadcast reaches them all. The own one is bound to a port no one else has: all we send leaves from there, so an
// answer to its source finds exactly us. A unicast to a shared port would reach only one instance, the kernel's pick.
//
// Left out on purpose: authentication. Whoever owns a UDP port may say what he likes about himself, and only that.

#include <ifaddrs.h>
#include <net/if.h>

#include <random>

#include "protocol.h"

using namespace std::chrono_literals;

namespace {

// ---- Timers and limits [4.5] ---------------------------------------------------

constexpr auto kHeartbeat = 5s;             // give or take kJitter
constexpr auto kJitter = 500ms;
constexpr auto kOverdue = 6s;               // not heard for so long: ask
constexpr auto kAskEvery = 1s;
constexpr auto kSilence = 15s;              // three heartbeats: gone
constexpr int kKnockAt = 3;                 // every third question goes over TCP
constexpr int kBurst = 3;                   // HELLOs at start: one lost datagram costs nothing
constexpr auto kBurstPause = 200ms;
constexpr auto kLook = 250ms;               // how often users, and interfaces, are looked after
constexpr auto kProbePause = 7ms;           // of the sweep: about 143 a second, see Discovery::probe()
constexpr auto kScanGrace = 1s;             // left for the last answers
constexpr int kSweepBits = 22;              // a sweep is at most a /22: 1,022 addresses
constexpr size_t kMaxUsers = 1024;
constexpr int kDatagramsAtOnce = 256;
constexpr int kSocketBuffer = 1 << 20;      // bytes

// Heartbeats of a class that starts together would stay together; a little chance spreads them.
Clock::duration with_jitter(Clock::duration time) {
  static std::mt19937 random{std::random_device{}()};
  const auto jitter = std::chrono::nanoseconds(kJitter).count();
  return time + std::chrono::nanoseconds(std::uniform_int_distribution<int64_t>(-jitter, jitter)(random));
}

enum class Sharing { shared, exclusive };

// Bound to every address of the host: a socket bound to one address would not hear its network's broadcasts.
Descriptor open_udp_socket(uint16_t port, Sharing sharing) {
  Descriptor fd(check(::socket(AF_INET, SOCK_DGRAM, 0), "socket"));
  const int on = 1;
  // SO_REUSEADDR, not SO_REUSEPORT: that one deals broadcasts out among the sockets of one user, and shuts out others'.
  if (sharing == Sharing::shared)
    check(::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), "setsockopt SO_REUSEADDR");
  // Without it a sendto() to a broadcast address is refused with EACCES.
  check(::setsockopt(fd.get(), SOL_SOCKET, SO_BROADCAST, &on, sizeof on), "setsockopt SO_BROADCAST");
  // The default receive buffer holds some 256 small datagrams, fewer than a large class answers to one broadcast;
  // the send buffer has to hold the probes that wait for ARP. The kernel may grant less: no reason to fail.
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &kSocketBuffer, sizeof kSocketBuffer);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUF, &kSocketBuffer, sizeof kSocketBuffer);
  sockaddr_in raw = Address{INADDR_ANY, port}.to_sockaddr();
  check(::bind(fd.get(), generic(raw), sizeof raw), "bind UDP port " + std::to_string(port));
  return fd;
}

}  // namespace

// ============================================================================
// The outside: what peer.cpp calls
// ============================================================================

Discovery::Discovery(const Announcement& self, std::vector<std::string> only, EventQueue& events)
    : self_(self), only_(std::move(only)), events_(events),
      shared_socket_(open_udp_socket(kDiscoveryPort, Sharing::shared)),
      own_socket_(open_udp_socket(self.port, Sharing::exclusive)),
      next_heartbeat_(Clock::now() + with_jitter(kHeartbeat)) {
  tick();
}

void Discovery::watch(fd_set& readable, int& highest) const {
  for (const int fd : {shared_socket_.get(), own_socket_.get()}) {
    FD_SET(fd, &readable);
    highest = std::max(highest, fd);
  }
}

void Discovery::receive(const fd_set& readable) {
  for (const int fd : {shared_socket_.get(), own_socket_.get()}) {
    if (!FD_ISSET(fd, &readable)) continue;
    // Not until the socket is empty: in a storm of datagrams it never is, and the keyboard waits behind this loop.
    for (int i = 0; i < kDatagramsAtOnce; ++i) {
      std::array<char, kMaxDatagram + 1> bytes;  // one more, or a longer datagram, cut, would look like a valid one
      sockaddr_in raw{};
      socklen_t length = sizeof raw;
      // MSG_DONTWAIT: select() may report a datagram that the kernel then drops for a wrong checksum.
      const ssize_t got = uninterrupted(
          [&] { return ::recvfrom(fd, bytes.data(), bytes.size(), MSG_DONTWAIT, generic(raw), &length); });
      if (got == -1) break;
      const std::string_view text(bytes.data(), static_cast<size_t>(got));
      if (text.size() <= kMaxDatagram) hear_datagram(text, Address::from_sockaddr(raw));
    }
  }
}

void Discovery::tick() {
  const auto now = Clock::now();
  if (now >= next_look_) {
    next_look_ = now + kLook;
    read_interfaces();
    for (auto it = users_.begin(); it != users_.end();) {
      look_after(it->second);
      it = Clock::now() - it->second.heard > kSilence ? users_.erase(it) : std::next(it);
    }
  }
  if (hellos_left_ > 0 && now >= next_hello_) {
    --hellos_left_;
    next_hello_ = now + kBurstPause;
    broadcast(Verb::hello);
  }
  if (now >= next_heartbeat_) {
    next_heartbeat_ = now + with_jitter(kHeartbeat);
    broadcast(Verb::here);
  }
  if (!probes_.empty() && now >= next_probe_) probe();
  if (scanned_ && probes_.empty() && now >= scan_ends_)
    events_.push({Event::Kind::scanned, "", {}, {}, 0, *std::exchange(scanned_, std::nullopt)});
  due_ = std::min(next_look_, next_heartbeat_);
  if (hellos_left_ > 0) due_ = std::min(due_, next_hello_);
  if (!probes_.empty()) due_ = std::min(due_, next_probe_);
}

void Discovery::scan() {
  hellos_left_ = kBurst;
  probes_.clear();
  for (const Interface& i : interfaces_)
    if (i.ip >> 24 != IN_LOOPBACKNET) sweep(i.ip, __builtin_popcount(i.netmask), kDiscoveryPort);
  scanned_ = probes_.size();
  scan_ends_ = Clock::now() + kScanGrace;
}

void Discovery::scan(uint32_t network, int bits, uint16_t port) {
  probes_.clear();
  for (int i = 0; i < (bits == 32 ? kBurst : 1); ++i) sweep(network, bits, port);
  scanned_ = bits == 32 ? 1 : probes_.size();
  scan_ends_ = Clock::now() + kScanGrace;
}

void Discovery::introduce_as(const std::string& name, const std::string& group) {
  self_.name = name;
  self_.group = group;
  send_to_all(Verb::here);
}

void Discovery::leave() { send_to_all(Verb::bye); }

void Discovery::heard_over_tcp(const Announcement& who, Address address) {
  // A datagram proves by its source who owns the port; over TCP it is only said. It does not oust one who is alive.
  for (const auto& [id, user] : users_)
    if (id != who.id && user.address == address && user.listed && Clock::now() - user.heard < kOverdue) return;
  if (User* user = hear(who, address)) confirm(*user);
}

size_t Discovery::count() const {
  size_t listed = 0;
  for (const auto& [id, user] : users_) listed += user.listed;
  return listed;
}

Address Discovery::self_address() const {
  for (const Interface& i : interfaces_)
    if (i.ip >> 24 != IN_LOOPBACKNET) return {i.ip, self_.port};
  return {interfaces_.empty() ? INADDR_LOOPBACK : interfaces_.front().ip, self_.port};
}

// connect() on a UDP socket sends nothing: it looks up the route and remembers the source address that goes with it.
// A new socket each time, for the kernel keeps the first source address it chose.
std::optional<uint32_t> Discovery::source_for(Address to) const {
  const Descriptor fd(check(::socket(AF_INET, SOCK_DGRAM, 0), "socket"));
  sockaddr_in raw = to.to_sockaddr();
  if (::connect(fd.get(), generic(raw), sizeof raw) == -1) return std::nullopt;
  const uint32_t source = local_address(fd.get()).ip;
  return only_.empty() || is_ours(source) ? std::optional(source) : std::nullopt;
}

bool Discovery::is_ours(uint32_t ip) const {
  return std::any_of(interfaces_.begin(), interfaces_.end(), [&](const Interface& i) { return i.ip == ip; });
}

// ============================================================================
// Hearing: a datagram has arrived
// ============================================================================

void Discovery::hear_datagram(std::string_view text, Address from) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.remove_suffix(1);  // typed into nc -u
  const auto who = Announcement::parse(text);
  // Our own broadcasts come back to us. And what we could not answer through a chosen interface, we have not heard.
  if (!who || who->id == self_.id || (!only_.empty() && !source_for(from))) return;
  const Address address{from.ip, who->port};
  if (who->verb == Verb::hello) answer(*who, from);
  if (from.port != who->port) {
    // Hearsay: it was not sent from the port it speaks of. An instance that answers for its host sends such, and so
    // can anyone who wants to be taken for a neighbour. Believe nothing of it; ask at the door it names.
    const auto known = users_.find(who->id);
    if (who->verb == Verb::here && (known == users_.end() || known->second.address != address)) send(Verb::hello, address);
    return;
  }
  if (who->verb == Verb::bye) {
    const auto user = users_.find(who->id);
    if (user == users_.end() || user->second.address.ip != from.ip) return;
    unlist(user->second, "said bye");
    user->second.left = true;
    return;
  }
  const bool known = users_.count(who->id) > 0;
  User* user = hear(*who, address);
  if (!user) return;
  if (who->to == self_.id) {
    confirm(*user);
  } else if (!known) {
    ask(*user);
  } else if (who->verb == Verb::hello && Clock::now() - user->heard_us > kHeartbeat) {
    // Why does it ask, when it has been answered? Perhaps our answers do not arrive. look_after() will find out.
    user->unsure = true;
  }
}

void Discovery::answer(const Announcement& hello, Address from) {
  send(Verb::here, from, hello.id);
  if (!hello.ask_host) return;
  // The question was for the whole host and the kernel gave it to us alone: name the instances beside us [4.4].
  for (const auto& [id, user] : users_) {
    Announcement neighbour = user.card;
    neighbour.verb = Verb::here;
    neighbour.to.clear();
    if (user.listed && is_ours(user.address.ip) && id != hello.id) send_text(neighbour.format(), from);
  }
}

// Enters into the list what a peer said of itself. Returns its entry, or null where it may not have one.
User* Discovery::hear(const Announcement& who, Address address) {
  const auto found = users_.find(who.id);
  if (who.id == self_.id || (found != users_.end() && found->second.left)) return nullptr;
  if (found == users_.end()) {
    // A port has one owner: whoever had this one before has gone, killed perhaps, and was started anew.
    for (auto it = users_.begin(); it != users_.end();) {
      if (it->second.address == address) unlist(it->second, "replaced");
      it = it->second.address == address ? users_.erase(it) : std::next(it);
    }
    if (users_.size() >= kMaxUsers) return nullptr;
    const auto now = Clock::now();
    User& user = users_[who.id] = {who, address, true, false, true, 0, now, now, {}};
    events_.push({Event::Kind::joined, "", who, address});
    return &user;
  }
  // A peer on two networks is heard from two addresses, and is one entry: the first address stays until it falls
  // silent. By the same rule nobody can take over the entry of a peer that is alive by claiming its id.
  User& user = found->second;
  if (user.address != address && Clock::now() - user.heard < kOverdue) return nullptr;
  const std::string before = user.card.name + "@" + user.address.text() + " " + user.card.group;
  user.card = who;
  user.address = address;
  user.heard = Clock::now();
  if (user.listed && before != who.name + "@" + address.text() + " " + who.group)
    events_.push({Event::Kind::changed, before, who, address});
  return &user;
}

void Discovery::confirm(User& user) {
  user.heard_us = Clock::now();
  user.unsure = false;
  user.asks = 0;
  if (!std::exchange(user.listed, true)) events_.push({Event::Kind::joined, "", user.card, user.address});
}

// ============================================================================
// Looking after the list: what is due
// ============================================================================

void Discovery::look_after(User& user) {
  const auto now = Clock::now();
  if (user.left) return;
  if (now - user.heard > kSilence) return unlist(user, "silent for 15 s");
  // We hear it, but nothing that we sent has reached it: a list with it on would promise what cannot work.
  if (user.unsure && now - user.heard_us > kSilence) unlist(user, "does not hear us");
  const bool overdue = now - user.heard > kOverdue;
  if ((overdue || user.unsure) && now - user.asked > kAskEvery) ask(user);
}

void Discovery::ask(User& user) {
  user.asked = Clock::now();
  // A firewall may let TCP pass where UDP is dropped, in either direction.
  if (++user.asks % kKnockAt == 0) events_.push({Event::Kind::unheard, "", user.card, user.address});
  else send(Verb::hello, user.address);
}

void Discovery::unlist(User& user, const std::string& reason) {
  if (std::exchange(user.listed, false)) events_.push({Event::Kind::left, reason, user.card, user.address});
}

// Read again and again: a cable is plugged in, Wi-Fi comes up, DHCP gives another address. What is new is greeted.
// getifaddrs() is not in POSIX, but in every system that this could run on.
void Discovery::read_interfaces() {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) == -1) return;
  std::vector<Interface> now;
  for (const ifaddrs* i = list; i; i = i->ifa_next) {
    const auto ip_of = [](const sockaddr* a) { return ntohl(reinterpret_cast<const sockaddr_in*>(a)->sin_addr.s_addr); };
    const bool chosen = only_.empty() || std::find(only_.begin(), only_.end(), i->ifa_name) != only_.end();
    const bool is_up = (i->ifa_flags & IFF_UP) && (i->ifa_flags & IFF_RUNNING);
    if (chosen && is_up && i->ifa_addr && i->ifa_addr->sa_family == AF_INET && i->ifa_netmask)
      now.push_back({i->ifa_name, ip_of(i->ifa_addr), ip_of(i->ifa_netmask)});
  }
  ::freeifaddrs(list);
  if (now == interfaces_) return;
  interfaces_ = std::move(now);
  scan();
  scanned_.reset();  // nobody asked for this one, so nobody is told of its end
}

// ============================================================================
// Sending
// ============================================================================

// To the directed broadcast address of each network. 255.255.255.255 would leave by one interface only, and fail
// with ENETUNREACH on a host without a default route.
void Discovery::broadcast(Verb verb) {
  for (const Interface& i : interfaces_) {
    Announcement what = self_;
    what.verb = verb;
    what.ip = i.ip;
    if (~i.netmask > 1) send_text(what.format(), {i.ip | ~i.netmask, kDiscoveryPort});  // a /31 and a /32 have none
  }
}

// By broadcast, and to everyone we know besides, where broadcasts are dropped.
void Discovery::send_to_all(Verb verb) {
  broadcast(verb);
  for (const auto& [id, user] : users_) send(verb, user.address);
}

// Queues the addresses of a network for probe(), all but its own and its broadcast address.
void Discovery::sweep(uint32_t network, int bits, uint16_t port) {
  if (bits < kSweepBits)
    events_.push({Event::Kind::note, "a scan asks at most 1,022 addresses: of " + Address{network, 0}.ip_text() + "/" +
                                         std::to_string(bits) + " only the /22 around it; /scan NETWORK/BITS asks more"});
  bits = std::max(bits, kSweepBits);
  const uint32_t hosts = static_cast<uint32_t>((uint64_t{1} << (32 - bits)) - 1);  // the host part's mask
  const uint32_t first = network & ~hosts;
  for (uint32_t host = 0; host <= hosts; ++host)
    if (hosts < 2 || (host != 0 && host != hosts)) probes_.push_back({first + host, port});
}

// One HELLO of the sweep. Paced, because a probe to an address where nobody is stays in the send buffer for the 3 s
// that ARP tries: with the default buffer, the 257th in that time makes sendto() block, and the program with it.
void Discovery::probe() {
  const Address to = probes_.front();
  // Who was found by broadcast meanwhile need not be asked again, unless the user wants the scan.
  const bool known = !scanned_ && std::any_of(users_.begin(), users_.end(), [&](const auto& entry) {
    return entry.second.address.ip == to.ip && !entry.second.unsure;
  });
  const bool sent = known || send(Verb::hello, to, "", to.port == kDiscoveryPort);
  if (sent) probes_.pop_front();
  next_probe_ = Clock::now() + (sent ? 1 : 10) * kProbePause;  // the buffer is full: this one again, later
  scan_ends_ = Clock::now() + kScanGrace;
}

bool Discovery::send(Verb verb, Address to, const std::string& heard, bool ask_host) {
  const auto source = source_for(to);
  if (!source) return true;  // nowhere to send it to, now or later
  Announcement what = self_;
  what.verb = verb;
  what.ip = *source;
  what.to = heard;
  what.ask_host = ask_host;
  return send_text(what.format(), to);
}

// False where it did not fit the buffer just now. Every other failure is a datagram lost, as any may be: an
// interface that has just gone, a firewall that says EPERM.
bool Discovery::send_text(const std::string& text, Address to) {
  sockaddr_in raw = to.to_sockaddr();
  const ssize_t sent = uninterrupted(
      [&] { return ::sendto(own_socket_.get(), text.data(), text.size(), MSG_DONTWAIT, generic(raw), sizeof raw); });
  return sent != -1 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != ENOBUFS);
}
