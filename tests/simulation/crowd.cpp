// make crowd: what a segment of up to a thousand peers costs, in virtual time. Each peer is a
// Roster on a host of its own; the network between them loses what it is told to lose, and takes
// 0.1 to 0.4 ms for the rest. Nobody needs time to think, so unlike `make segment` this shows what
// the rules cost, and not what the machine can do. docs/performance.md has a table of it.
//
//   make crowd                          2, 30, 100, 253 and 1,000 peers, losing 0, 20 and 40 %
//   make crowd CROWDS='2 30' LOSSES=0   these only
//
// The rows are computed at the same time. All took 14 minutes of processor time on a busy machine,
// and 2 GB; without the three of 1,000, it is a minute. docs/pictures/crowd.txt is a run that was
// kept, from which a curve is drawn.
//
// All start within a second. The columns, of which "each" is the mean of all peers:
//
//   complete   s from the last start until every list is complete, all at the same moment; 119 if
//              that did not happen in two minutes: with much loss, one of many thousand entries is
//              nearly always missing, because 24 questions or their answers were lost in a row
//   sent, got  datagrams of each, and KiB without headers, until then
//   burst      the most that came to one peer within 10 ms: a receive buffer has to hold them
//   heartbeats that all together send to the network in a second: N / 5, were they five seconds
//              apart for all; the mean of a minute of peace or more, in whole intervals; and the
//              most in any minute of it
//   left       how often somebody was said to have left in that time, though all are there
//
// It fails where, with a fifth lost at most, lists are not complete after two minutes; where the
// mean is more than 20 heartbeats a second (and a tenth, for chance); or where, without loss,
// somebody is said to have left.

#include <cstdio>
#include <cstdlib>
#include <future>
#include <iostream>
#include <queue>
#include <sstream>
#include <unordered_map>

#include "support/system.h"

#include "discovery.cpp"  // Roster is a part of it that no other file has to know

namespace {

constexpr uint32_t kNetwork = 0x0A4D0000;  // 10.77.0.0/16
constexpr uint32_t kNetmask = 0xFFFF0000;
constexpr auto kStarts = 1s;               // all start within
constexpr auto kPatience = 120s;           // for the lists to be complete
constexpr auto kSettled = 70s;             // by then, each has said its interval and kept to it
constexpr auto kMinute = 60s;
constexpr double kMostBeats = 20 * 1.1;

using Words = std::shared_ptr<const Announcement>;

struct Peer {
  std::unique_ptr<Roster> roster;
  Address address;
  Time planned = Time::max();  // when the queue has what its agenda has next
  size_t listed = 0;
  size_t left = 0;
  size_t burst = 0;          // datagrams of the present 10 ms
  int64_t burst_of = 0;      // which are those
};

// Something that happens at its time: to a peer, a datagram or what its own agenda has next.
struct Happening {
  Time when;
  uint32_t peer = 0;
  Words words;               // none: its agenda
  Address from;
  Door door = Door::own;

  bool operator<(const Happening& other) const { return when > other.when; }
};

struct Costs {
  double sent = 0;
  double received = 0;
  double sent_bytes = 0;
  double received_bytes = 0;
};

struct Row {
  std::string text;
  bool is_good = false;
};

class Crowd {
 public:
  Crowd(uint32_t peers, uint32_t loss) : random_(peers * 100 + loss), loss_(loss), peers_(peers) {
    for (uint32_t i = 0; i < peers; ++i) prepare(i);
  }

  // A row of the table.
  Row run() {
    while (!are_complete() && now_ < begin_ + kPatience && happen()) {}
    const std::chrono::duration<double> complete = now_ - last_start_;
    const bool is_complete = are_complete();
    const Costs costs = costs_;
    const size_t burst = burst_;
    while (now_ < begin_ + kSettled && happen()) {}
    const Time peace = now_;
    const auto length = length_of_peace();
    beats_ = 0;
    most_beats_ = 0;
    beats_at_.clear();
    for (Peer& peer : peers_) peer.left = 0;
    while (now_ < peace + length && happen()) {}
    size_t left = 0;
    for (const Peer& peer : peers_) left += peer.left;
    const double beats = per_second(beats_, length);
    const double most = per_second(most_beats_, kMinute);
    const auto count = static_cast<double>(peers_.size());
    char text[200];
    std::snprintf(text, sizeof text,
                  "%5zu %4u %% %9.2f %7.0f %6.0f %7.0f %6.0f %6zu %9.1f %9.1f %6.1f %5zu",
                  peers_.size(), loss_, complete.count(), costs.sent / count,
                  costs.sent_bytes / 1024 / count, costs.received / count,
                  costs.received_bytes / 1024 / count, burst, count / 5, beats, most, left);
    const bool is_steady = loss_ > 0 || left == 0;
    Row row;
    row.text = text;
    const bool is_found = is_complete || loss_ > 20;
    row.is_good = is_found && is_steady && beats <= kMostBeats;
    return row;
  }

 private:
  static double per_second(size_t count, seconds time) {
    return static_cast<double>(count) / static_cast<double>(time.count());
  }

  // A minute at least, and whole intervals.
  seconds length_of_peace() const {
    const auto every = std::max(kHeartbeat, seconds((peers_.size() + 19) / 20));
    const auto intervals = (kMinute + every - 1s) / every;
    return intervals * every;
  }

  uint32_t chance(uint32_t below) { return static_cast<uint32_t>(random_() % below); }

  void prepare(uint32_t i) {
    Identity self;
    char id[17];
    std::snprintf(id, sizeof id, "%016x", i + 1);
    self.id = id;
    self.name = "user" + std::to_string(i + 1);
    self.group = "lab";
    self.address.port = kFirstPort;
    peers_[i].address = {kNetwork + 1 + i, kFirstPort};
    peers_[i].roster = std::make_unique<Roster>(self, static_cast<uint32_t>(random_()));
    self.said_ip = peers_[i].address.ip;
    numbers_[peers_[i].address.ip] = i;
    Happening start;
    start.when = begin_ + chance(kStarts / 1us) * 1us;
    start.peer = i;
    queue_.push(start);
    peers_[i].planned = start.when;
    waiting_.insert(i);
  }

  bool are_complete() const { return complete_ == peers_.size(); }

  // The next of all that happens; false where nothing does any more.
  bool happen() {
    if (queue_.empty()) return false;
    const Happening next = queue_.top();
    queue_.pop();
    now_ = next.when;
    Peer& peer = peers_[next.peer];
    const bool has_started = waiting_.count(next.peer) == 0;
    const bool is_task = !next.words;
    if (is_task && next.when != peer.planned) return true;  // one that came earlier did it
    if (is_task) peer.planned = Time::max();
    if (is_task && has_started) peer.roster->run(now_);
    else if (is_task) start(next.peer);
    else if (has_started) receive(peer, next);
    follow(next.peer);
    return true;
  }

  void start(uint32_t i) {
    waiting_.erase(i);
    last_start_ = now_;
    Interface ethernet;
    ethernet.name = "eth0";
    ethernet.ip = peers_[i].address.ip;
    ethernet.netmask = kNetmask;
    peers_[i].roster->start({ethernet}, now_);
  }

  void receive(Peer& peer, const Happening& datagram) {
    const int64_t part = (now_ - begin_) / 10ms;
    if (part != peer.burst_of) peer.burst = 0;
    peer.burst_of = part;
    burst_ = std::max(burst_, ++peer.burst);
    peer.roster->hear(*datagram.words, datagram.from, datagram.door, now_);
  }

  void follow(uint32_t i) {
    Peer& peer = peers_[i];
    for (const Datagram& datagram : peer.roster->take_datagrams()) send(i, datagram);
    for (const Event& event : peer.roster->take_events()) {
      const bool was_complete = peer.listed + 1 == peers_.size();
      if (std::holds_alternative<UserJoined>(event)) ++peer.listed;
      if (std::holds_alternative<UserLeft>(event)) {
        --peer.listed;
        ++peer.left;
      }
      const bool is_complete = peer.listed + 1 == peers_.size();
      if (is_complete && !was_complete) ++complete_;
      if (was_complete && !is_complete) --complete_;
    }
    plan(i);
  }

  // To look too early does no harm. But what was planned for later must not be carried out then, or
  // each task that comes in between would leave one more for ever.
  void plan(uint32_t i) {
    const Time due = std::max(peers_[i].roster->next_due(), now_);
    if (waiting_.count(i) > 0 || peers_[i].planned <= due) return;
    Happening next;
    next.when = due;
    next.peer = i;
    queue_.push(next);
    peers_[i].planned = due;
  }

  void send(uint32_t i, const Datagram& datagram) {
    const std::string text = datagram.what.format();
    costs_.sent += 1;
    costs_.sent_bytes += static_cast<double>(text.size());
    auto words = std::make_shared<Announcement>(datagram.what);
    const bool is_broadcast = datagram.to.ip == (kNetwork | ~kNetmask);
    if (!is_broadcast) {
      const auto to = numbers_.find(datagram.to.ip);
      if (to != numbers_.end()) deliver(i, to->second, words, datagram.to, text.size());
      return;
    }
    if (datagram.what.verb == Verb::here) count_heartbeat();
    for (uint32_t k = 0; k < peers_.size(); ++k) {
      const bool hears = k != i && waiting_.count(k) == 0;
      if (hears) deliver(i, k, words, datagram.to, text.size());
    }
  }

  void count_heartbeat() {
    ++beats_;
    beats_at_.push_back(now_);
    while (beats_at_.front() <= now_ - kMinute) beats_at_.pop_front();
    most_beats_ = std::max(most_beats_, beats_at_.size());
  }

  void deliver(uint32_t from, uint32_t to, const Words& words, Address at, size_t bytes) {
    if (chance(100) < loss_) return;
    costs_.received += 1;
    costs_.received_bytes += static_cast<double>(bytes);
    Happening arrival;
    arrival.when = now_ + 100us + chance(300) * 1us;
    arrival.peer = to;
    arrival.words = words;
    arrival.from = peers_[from].address;
    arrival.door = at.port == kDiscoveryPort ? Door::shared : Door::own;
    queue_.push(arrival);
  }

  std::mt19937 random_;
  const Time begin_ = Time(1h);  // not at 0, where a clock that was never set stands, too
  Time now_ = begin_;
  Time last_start_ = begin_;
  uint32_t loss_;                // percent
  std::vector<Peer> peers_;
  std::unordered_map<uint32_t, uint32_t> numbers_;  // of the peers, by their IP addresses
  std::set<uint32_t> waiting_;                      // for their start
  std::priority_queue<Happening> queue_;
  size_t complete_ = 0;          // so many lists are complete
  size_t burst_ = 0;
  size_t beats_ = 0;             // heartbeats
  size_t most_beats_ = 0;        // in a minute
  std::deque<Time> beats_at_;    // those of the last minute
  Costs costs_;
};

std::vector<uint32_t> numbers_in(const char* name, const char* otherwise) {
  std::istringstream words(setting(name, otherwise));
  std::vector<uint32_t> numbers;
  for (uint32_t number = 0; words >> number;) numbers.push_back(number);
  return numbers;
}

}  // namespace

int main() {
  ::setvbuf(stdout, nullptr, _IONBF, 0);
  std::printf("                        each, until all lists are complete         heartbeats a second\n");
  std::printf("peers  lost  complete    sent    KiB     got    KiB  burst  every 5 s      mean   most  left\n");
  std::vector<std::future<Row>> rows;
  for (const uint32_t peers : numbers_in("CROWDS", "2 30 100 253 1000"))
    for (const uint32_t loss : numbers_in("LOSSES", "0 20 40"))
      rows.push_back(std::async(std::launch::async, [=] { return Crowd(peers, loss).run(); }));
  bool is_good = true;
  for (std::future<Row>& future : rows) {
    const Row row = future.get();
    std::printf("%s\n", row.text.c_str());
    if (!row.is_good) is_good = false;
  }
  if (!is_good) std::cerr << "a row is not as it must be: see above" << std::endl;
  return is_good ? 0 : 1;
}
