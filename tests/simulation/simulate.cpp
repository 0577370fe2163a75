// make simulate: a class in virtual time. Several Rosters, one for each peer, on a network that
// loses, doubles, reorders and delays; hosts that are cut off, one way or both; peers that are
// paused, killed, and started again on the same port; addresses that change; a stranger who forges.
// Some networks drop broadcasts, and some hosts have a firewall that lets in only answers. One seed
// decides everything, so you can replay a schedule that failed.
//
//   make simulate SEEDS=1000     so many schedules, from seed 1 on
//   make simulate SEED=7         one of them, as a ladder of its datagrams
//
// What must hold, whatever happens [4.4]:
//
//   - an id is one entry and so is an address, and nobody lists himself;
//   - joined, left and changed, replayed, give the list;
//   - for 15 s after a BYE nobody is listed under that id again;
//   - a forged datagram changes nothing about a peer that is alive;
//   - three heartbeats after the last fault every list holds exactly those who are there (four, if
//     somebody was paused until then); without broadcast, or through firewalls, once all have swept
//     their network again;
//   - where broadcasts arrive, there are heartbeats from then on, and nothing else; but a host that
//     is alone may sweep.

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <set>

#include "support/ladder.h"
#include "support/system.h"

#include "discovery.cpp"  // Roster is a part of it that no other file has to know


namespace {

constexpr auto kFaults = 30s;                // there are faults for so long
// Three heartbeats, each of them 0.5 s late. Who slept when the faults ended reads only then what had
// come before: perhaps that a peer is at an address which another one has by now. Nobody else is
// listed there until that is forgotten, after three heartbeats; the fourth tells who is there.
constexpr auto kHeartbeats = 16500ms;
constexpr auto kAfterSleep = 5500ms;
constexpr auto kWatched = 12s;               // so long what was complete has to stay so
constexpr auto kSweep = 7s;                  // of 14 addresses at two ports, by one instance
constexpr auto kSweepsAgain = 5min;          // after the beginning, which is at a full hour
constexpr auto kRemembers = 30s;             // a firewall remembers a question
constexpr uint32_t kNetwork = 0x0A4D0000;    // 10.77.0.0/28
constexpr uint32_t kNetmask = 0xFFFFFFF0;
constexpr uint32_t kLoopbackNetmask = 0xFF000000;
constexpr char kForger[] = "forger";          // his column in the ladder
constexpr Address kStranger{kNetwork + 66, 40000};
constexpr uint32_t kNobody = UINT32_MAX;     // in place of a peer's number
constexpr size_t kStorm = 4000;              // datagrams a second: more is a storm

struct Violation {
  std::string what;
};

// ============================================================================
// The world: hosts, their peers, and the network between them
// ============================================================================

struct Peer {
  Identity self;
  uint32_t host = 0;
  std::unique_ptr<Roster> roster;         // none while it does not run
  bool is_paused = false;
  std::map<std::string, Identity> shown;  // what its user has been told, by id
  std::map<std::string, Time> left_at;    // who has said BYE to it, and when
};

struct Packet {
  std::string text;
  Address from;
  Address to;
  uint32_t sender = kNobody;   // a peer
  uint32_t host = 0;           // that it goes to
  bool is_broadcast = false;
};

class World {
 public:
  explicit World(uint32_t seed) : random_(seed), peers_(2 + chance(8)) {
    const uint32_t hosts = 2 + chance(5);
    for (uint32_t i = 0; i < hosts; ++i) addresses_.push_back(kNetwork + 1 + i);
    std::vector<uint16_t> next_ports(hosts, kFirstPort);
    for (uint32_t i = 0; i < peers_.size(); ++i) {
      peers_[i].host = chance(hosts);
      peers_[i].self.name = "u" + std::to_string(i);
      peers_[i].self.group = "lab";
      peers_[i].self.address.port = next_ports[peers_[i].host]++;
      ladder_.add_column(name(i));
    }
    ladder_.add_column(kForger);
    if (chance(2) == 0) loss_ = chance(60);
    if (chance(2) == 0) doubling_ = chance(40);
    if (chance(2) == 0) delay_ = 1 + chance(2000);
    has_broadcast_ = chance(8) > 0;
    if (chance(8) == 0) raise_firewalls();
    plan_end();
  }

  void run() {
    if (!has_broadcast_) note(0, "broadcasts are dropped");
    for (uint32_t i = 0; i < peers_.size(); ++i) start(i);
    while (now_ < end_) {
      if (now_ >= next_fault_) play_fault();
      deliver();
      for (uint32_t i = 0; i < peers_.size(); ++i) run(i);
      if (now_ >= next_check_) check_all_lists();
      if (now_ >= quiet_at_) is_quiet_ = true;
      now_ = next_moment();
    }
    check_all_lists();
  }

  const Ladder& ladder() const { return ladder_; }

 private:
  uint32_t chance(size_t below) { return static_cast<uint32_t>(random_() % below); }
  bool happens(uint32_t percent) { return chance(100) < percent; }
  uint32_t any_peer() { return chance(peers_.size()); }
  uint32_t any_host() { return chance(addresses_.size()); }

  Time next_moment() const {
    Time next = std::min(end_, next_fault_);
    next = std::min(next, next_check_);
    if (!is_quiet_) next = std::min(next, quiet_at_);
    if (!air_.empty()) next = std::min(next, air_.begin()->first);
    for (const Peer& peer : peers_)
      if (peer.roster && !peer.is_paused) next = std::min(next, peer.roster->next_due());
    return std::max(next, now_ + 1us);
  }

  void raise_firewalls() {
    for (uint32_t host = 0; host < addresses_.size(); ++host)
      if (chance(2) == 0) firewalled_.insert(host);
  }

  // Instances of a host share the pace of a sweep, so it may take as many times longer.
  void plan_end() {
    const auto sweep = kSweep * static_cast<int>(peers_.size());
    next_check_ = begin_ + kFaults + kHeartbeats;
    const bool is_found_by_sweeps = !has_broadcast_ || !firewalled_.empty();
    if (is_found_by_sweeps) {
      next_check_ = begin_ + kSweepsAgain + sweep + kHeartbeats;
      end_ = next_check_ + kAfterSleep + kWatched;
      return;
    }
    quiet_at_ = next_check_ + kAfterSleep + sweep;
    end_ = quiet_at_ + kWatched;
  }

  // ---- The peers ----------------------------------------------------------------------

  // Under a new id, as each start has one.
  void start(uint32_t i) {
    constexpr char kHex[] = "0123456789abcdef";
    Peer& peer = peers_[i];
    peer.self.id.clear();
    while (peer.self.id.size() < 16) peer.self.id += kHex[chance(16)];
    peer.shown.clear();
    peer.left_at.clear();
    peer.is_paused = false;
    peer.roster = std::make_unique<Roster>(peer.self, random_());
    peer.roster->start(networks_of(peer.host), now_);
    const bool is_firewalled = firewalled_.count(peer.host) > 0;
    const std::string at = Address{addresses_[peer.host], peer.self.address.port}.text();
    note(i, "starts at " + at + (is_firewalled ? ", firewalled" : ""));
    follow(i);
  }

  void run(uint32_t i) {
    if (!peers_[i].roster || peers_[i].is_paused) return;
    peers_[i].roster->run(now_);
    follow(i);
  }

  std::vector<Interface> networks_of(uint32_t host) const {
    Interface loopback;
    loopback.name = "lo";
    loopback.ip = INADDR_LOOPBACK;
    loopback.netmask = kLoopbackNetmask;
    Interface ethernet;
    ethernet.name = "eth0";
    ethernet.ip = addresses_[host];
    ethernet.netmask = kNetmask;
    return {loopback, ethernet};
  }

  // What its roster wants to have sent, and told.
  void follow(uint32_t i) {
    for (const Datagram& datagram : peers_[i].roster->take_datagrams()) post(i, datagram);
    const std::vector<Event> events = peers_[i].roster->take_events();
    for (const Event& event : events) replay(i, event);
    if (!events.empty()) check_list(i);
  }

  // ---- The network --------------------------------------------------------------------

  void post(uint32_t i, const Datagram& datagram) {
    const Announcement& what = datagram.what;
    const bool is_heartbeat = what.verb == Verb::here && what.to.empty();
    if (is_quiet_ && !is_heartbeat && !is_alone(peers_[i].host))
      throw Violation{name(i) + " says more than heartbeats: " + what.format()};
    note_pace();
    Packet packet;
    packet.text = what.format();
    packet.to = datagram.to;
    packet.sender = i;
    const uint32_t host = peers_[i].host;
    const bool stays = datagram.to.ip >> 24 == IN_LOOPBACKNET;
    packet.from = {stays ? INADDR_LOOPBACK : addresses_[host], peers_[i].self.address.port};
    if (stays) {
      packet.is_broadcast = datagram.to.ip == (INADDR_LOOPBACK | ~kLoopbackNetmask);
      transmit(packet, host);
      return;
    }
    packet.is_broadcast = datagram.to.ip == (kNetwork | ~kNetmask);
    for (uint32_t k = 0; k < addresses_.size(); ++k)
      if (packet.is_broadcast || addresses_[k] == datagram.to.ip) transmit(packet, k);
  }

  // Then no broadcast of another host is heard, and the network is swept once more.
  bool is_alone(uint32_t host) const {
    const auto is_elsewhere = [&](const Peer& peer) { return peer.roster && peer.host != host; };
    return std::none_of(peers_.begin(), peers_.end(), is_elsewhere);
  }

  void note_pace() {
    const auto second = std::chrono::duration_cast<std::chrono::seconds>(now_ - begin_);
    if (second != second_) posted_ = 0;
    second_ = second;
    if (++posted_ > kStorm) throw Violation{"a storm of datagrams"};
  }

  void transmit(Packet packet, uint32_t to_host) {
    packet.host = to_host;
    const uint32_t from_host = peers_[packet.sender].host;
    const bool is_dropped = packet.is_broadcast && !has_broadcast_;
    if (is_dropped && from_host != to_host) return;
    if (!packet.is_broadcast) flows_[{packet.from, packet.to}] = now_;
    if (from_host == to_host) {
      air_.emplace(now_ + 100us, packet);
      return;
    }
    if (cut_.count({from_host, to_host}) > 0 || happens(loss_)) return;
    air_.emplace(now_ + 100us + chance(delay_ * 1000) * 1us, packet);
    if (happens(doubling_)) air_.emplace(now_ + 100us + chance(delay_ * 1000) * 1us, packet);
  }

  void deliver() {
    while (!air_.empty() && air_.begin()->first <= now_) {
      const Packet packet = air_.begin()->second;
      air_.erase(air_.begin());
      if (!passes_firewall(packet)) continue;
      uint32_t last = kNobody;
      for (uint32_t i = 0; i < peers_.size(); ++i) {
        if (!peers_[i].roster || peers_[i].host != packet.host) continue;
        if (packet.is_broadcast || packet.to.port == peers_[i].self.address.port) give(i, packet);
        last = i;
      }
      // Of a unicast to the shared port the kernel gives one of them a copy.
      const bool is_shared = !packet.is_broadcast && packet.to.port == kDiscoveryPort;
      if (is_shared && last != kNobody) give(last, packet);
    }
  }

  // It lets in what comes from where something of ours has gone to, of late.
  bool passes_firewall(const Packet& packet) {
    const bool is_inside = packet.from.ip == addresses_[packet.host];
    const bool is_loopback = packet.from.ip >> 24 == IN_LOOPBACKNET;
    if (firewalled_.count(packet.host) == 0 || is_inside || is_loopback) return true;
    const auto question = flows_.find({packet.to, packet.from});
    if (question == flows_.end() || now_ - question->second > kRemembers) return false;
    question->second = now_;  // an answer keeps it open
    return true;
  }

  void give(uint32_t i, const Packet& packet) {
    if (peers_[i].is_paused) {
      waiting_[i].push_back(packet);
      return;
    }
    const auto said = Announcement::parse(packet.text);
    if (!said) throw Violation{"this is no announcement: " + packet.text};
    draw(i, packet, *said);
    const auto before = living(i);
    const bool is_shared = packet.is_broadcast || packet.to.port == kDiscoveryPort;
    const Door door = is_shared ? Door::shared : Door::own;
    peers_[i].roster->hear(*said, packet.from, door, now_);
    if (packet.sender == kNobody) check_forgery(i, before);
    follow(i);
  }

  // ---- Faults -------------------------------------------------------------------------

  void play_fault() {
    if (now_ >= begin_ + kFaults) {
      heal();
      next_fault_ = Time::max();
      return;
    }
    next_fault_ = std::min(now_ + (50 + chance(2000)) * 1ms, begin_ + kFaults);
    switch (chance(10)) {
      case 0: return kill(any_peer());
      case 1: return leave(any_peer());
      case 2: return start_again(any_peer());
      case 3: return pause(any_peer());
      case 4: return resume(any_peer());
      case 5: return cut_one_way(any_host(), any_host());
      case 6: return cut_both_ways(any_host(), any_host());
      case 7: return cut_.clear();
      case 8: return move(any_host());
      default: return forge(any_peer(), any_peer());
    }
  }

  void heal() {
    cut_.clear();
    loss_ = 0;
    doubling_ = 0;
    delay_ = 1;
    const auto is_asleep = [](const Peer& peer) { return peer.roster && peer.is_paused; };
    if (std::any_of(peers_.begin(), peers_.end(), is_asleep)) next_check_ += kAfterSleep;
    for (uint32_t i = 0; i < peers_.size(); ++i) resume(i);
    note(0, "the faults end");
  }

  void kill(uint32_t i) {
    peers_[i].roster.reset();
    waiting_[i].clear();
    note(i, "is killed");
  }

  void leave(uint32_t i) {
    if (!peers_[i].roster || peers_[i].is_paused) return;
    peers_[i].roster->leave();
    follow(i);
    kill(i);
  }

  void start_again(uint32_t i) {
    kill(i);
    start(i);
  }

  void pause(uint32_t i) { peers_[i].is_paused = true; }

  void resume(uint32_t i) {
    if (!peers_[i].roster || !peers_[i].is_paused) return;
    peers_[i].is_paused = false;
    const std::vector<Packet> packets = std::exchange(waiting_[i], {});
    for (const Packet& packet : packets) give(i, packet);
  }

  void cut_one_way(uint32_t from, uint32_t to) { cut_.insert({from, to}); }

  void cut_both_ways(uint32_t one, uint32_t other) {
    cut_one_way(one, other);
    cut_one_way(other, one);
  }

  // DHCP gives it another address.
  void move(uint32_t host) {
    const uint32_t ip = kNetwork + 1 + chance(14);
    if (std::count(addresses_.begin(), addresses_.end(), ip) > 0) return;
    addresses_[host] = ip;
    for (uint32_t i = 0; i < peers_.size(); ++i) {
      if (!peers_[i].roster || peers_[i].host != host) continue;
      note(i, "is at " + Address{ip}.ip_text() + " now");
      peers_[i].roster->use_networks(networks_of(host), now_);
      follow(i);
    }
  }

  // Somebody at an address of his own says that he is another.
  void forge(uint32_t victim, uint32_t listener) {
    Announcement said;
    said.verb = static_cast<Verb>(chance(3));
    said.who = peers_[victim].self;
    said.who.name = "evil";
    if (chance(2) == 0) said.who.address.port = kStranger.port;
    if (said.verb == Verb::here && chance(2) == 0) said.to = peers_[listener].self.id;
    Packet packet;
    packet.text = said.format();
    packet.from = kStranger;
    packet.host = peers_[listener].host;
    packet.to = {addresses_[packet.host], peers_[listener].self.address.port};
    air_.emplace(now_ + 100us, packet);
  }

  // ---- What must hold -----------------------------------------------------------------

  void replay(uint32_t i, const Event& event) {
    if (const auto* joined = std::get_if<UserJoined>(&event)) replay_joined(i, joined->who);
    if (const auto* left = std::get_if<UserLeft>(&event)) replay_left(i, *left);
    if (const auto* changed = std::get_if<UserChanged>(&event)) replay_changed(i, changed->who);
  }

  void replay_joined(uint32_t i, const Identity& who) {
    Peer& peer = peers_[i];
    const auto left = peer.left_at.find(who.id);
    const bool is_early = left != peer.left_at.end() && now_ - left->second < kLeftFor;
    if (is_early) throw Violation{name(i) + " lists " + who.id + " again, too soon after its BYE"};
    const bool is_new = peer.shown.emplace(who.id, who).second;
    if (!is_new) throw Violation{name(i) + " is told twice that " + who.id + " joined"};
    note(i, "lists " + who.label());
  }

  void replay_left(uint32_t i, const UserLeft& left) {
    Peer& peer = peers_[i];
    const std::string& id = left.who.id;
    const bool was_shown = peer.shown.erase(id) > 0;
    if (!was_shown) throw Violation{name(i) + " is told that " + id + " left, who was not there"};
    if (left.why == "said bye") peer.left_at[id] = now_;
    note(i, "loses " + left.who.label() + ", " + left.why);
  }

  void replay_changed(uint32_t i, const Identity& who) {
    Peer& peer = peers_[i];
    if (peer.shown.count(who.id) == 0)
      throw Violation{name(i) + " is told of a change of " + who.id + ", who is not there"};
    peer.shown[who.id] = who;
    note(i, "has " + who.label() + " by now");
  }

  void check_list(uint32_t i) const {
    const Peer& peer = peers_[i];
    const std::vector<Identity> users = peer.roster->users();
    std::set<std::string> addresses;
    for (const Identity& user : users) {
      const bool is_alone = addresses.insert(user.address.text()).second;
      if (!is_alone) throw Violation{name(i) + " lists two at " + user.address.text()};
      if (user.id == peer.self.id) throw Violation{name(i) + " lists itself"};
      const auto shown = peer.shown.find(user.id);
      if (shown == peer.shown.end() || shown->second.label() != user.label())
        throw Violation{name(i) + " was not told of " + user.label()};
    }
    if (users.size() != peer.shown.size())
      throw Violation{name(i) + " was told of more users than it lists"};
  }

  void check_all_lists() {
    next_check_ = Time::max();
    for (uint32_t i = 0; i < peers_.size(); ++i) {
      if (!peers_[i].roster) continue;
      std::set<std::string> listed;
      for (const Identity& user : peers_[i].roster->users()) listed.insert(user.id);
      for (uint32_t k = 0; k < peers_.size(); ++k) {
        const bool is_listed = listed.erase(peers_[k].self.id) > 0;
        const bool is_there = k != i && peers_[k].roster;
        if (is_listed && !is_there) throw Violation{name(i) + " lists " + name(k) + ", who is gone"};
        if (is_there && !is_listed && can_meet(i, k))
          throw Violation{name(i) + " does not list " + name(k)};
      }
      if (!listed.empty()) throw Violation{name(i) + " lists somebody who is not there"};
    }
  }

  // Whoever is behind a firewall finds a host by its first instance, at whose port he asks.
  bool can_meet(uint32_t i, uint32_t k) const {
    const uint32_t one = peers_[i].host;
    const uint32_t other = peers_[k].host;
    return one == other || (can_find(one, other) && can_find(other, one));
  }

  bool can_find(uint32_t host, uint32_t other) const {
    return firewalled_.count(host) == 0 || has_first(other);
  }

  bool has_first(uint32_t host) const {
    for (const Peer& peer : peers_)
      if (peer.host == host && peer.roster && peer.self.address.port == kFirstPort) return true;
    return false;
  }

  // Who is listed and was heard of late. The stranger may be listed himself, at his own address, and
  // what he says of himself is no forgery.
  std::map<std::string, std::string> living(uint32_t i) const {
    std::map<std::string, std::string> labels;
    for (const auto& [id, peer] : peers_[i].roster->peers()) {
      const bool is_listed = peer.state == Roster::Peer::State::listed;
      const bool is_recent = now_ < peer.movable_at();
      if (is_listed && is_recent && peer.who.address.ip != kStranger.ip)
        labels[id] = peer.who.label();
    }
    return labels;
  }

  void check_forgery(uint32_t i, const std::map<std::string, std::string>& before) const {
    const std::map<std::string, std::string> after = living(i);
    for (const auto& [id, label] : before) {
      const auto now = after.find(id);
      if (now == after.end() || now->second != label)
        throw Violation{name(i) + " believes a forged datagram about " + label};
    }
  }

  // ---- The ladder ---------------------------------------------------------------------

  std::string name(uint32_t i) const { return peers_[i].self.name; }
  double seconds() const { return std::chrono::duration<double>(now_ - begin_).count(); }
  void note(uint32_t i, const std::string& text) { ladder_.note(seconds(), name(i), text); }

  void draw(uint32_t i, const Packet& packet, const Announcement& said) {
    std::string label(kVerbs[static_cast<size_t>(said.verb)]);
    if (!said.to.empty()) label += " to=";
    if (said.ask_host) label += " ask=";
    const std::string from = packet.sender == kNobody ? kForger : name(packet.sender);
    ladder_.message(seconds(), from, name(i), label);
  }

  std::mt19937 random_;
  const Time begin_ = Time(1h);  // not at 0, where a clock that was never set stands, too
  Time now_ = begin_;
  Time next_fault_ = begin_;
  Time next_check_;              // of all lists
  Time quiet_at_ = Time::max();  // from then on there are heartbeats only
  bool is_quiet_ = false;
  Time end_;
  std::chrono::seconds second_{0};  // of this one, how many datagrams were sent:
  size_t posted_ = 0;
  bool has_broadcast_ = true;
  uint32_t loss_ = 0;            // percent
  uint32_t doubling_ = 0;        // percent
  uint32_t delay_ = 2;           // at most, in ms
  std::vector<Peer> peers_;
  std::vector<uint32_t> addresses_;                  // of the hosts
  std::multimap<Time, Packet> air_;                  // on their way
  std::map<uint32_t, std::vector<Packet>> waiting_;  // for who is paused
  std::set<uint32_t> firewalled_;                    // hosts that let in only answers
  std::map<std::pair<Address, Address>, Time> flows_;  // what has gone from where to where, and when
  std::set<std::pair<uint32_t, uint32_t>> cut_;      // nothing gets from the first host to the second
  Ladder ladder_;
};

// Plays one schedule. Where something does not hold, says what, and shows the last of the ladder.
bool holds(uint32_t seed) {
  World world(seed);
  try {
    world.run();
    return true;
  } catch (const Violation& violation) {
    std::cout << world.ladder().text(60);
    std::cout << "seed " << seed << ": " << violation.what << std::endl;
    return false;
  }
}

}  // namespace

int main() {
  const uint32_t seed = number_setting("SEED", 0);
  if (seed != 0) {
    World world(seed);
    try {
      world.run();
      std::cout << world.ladder().text();
      return 0;
    } catch (const Violation& violation) {
      std::cout << world.ladder().text();
      std::cout << violation.what << std::endl;
      return 1;
    }
  }
  const uint32_t seeds = number_setting("SEEDS", 1000);
  for (uint32_t i = 1; i <= seeds; ++i)
    if (!holds(i)) return 1;
  std::cout << seeds << " schedules, and all held" << std::endl;
}
