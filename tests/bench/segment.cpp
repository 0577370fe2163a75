// make segment: what a segment of N peers costs, and how that grows with N. docs/performance.md has a table of it.
//
//   make segment                       2, 10, 30, 100 and 253 hosts: some ten minutes
//   make segment SEGMENTS='2 10'       these only
//   make segment BEFORE=COMMIT         beside our own program as it was then: each step is measured for both, in turn
//
// Each host is a network namespace with one peer. All start at once, as fast as this machine can; unlike a real class,
// they share one machine's processor. In the columns, "each" is the mean of all peers:
//
//   seconds    all: from the start of the last peer until every list is complete, the median of kRounds;
//              20 % lost: the same, while the switch drops each packet, and each copy of a broadcast, with that chance;
//              one more: the others have been there for a while, and one starts: until it lists all, and all list it
//   sent, got  datagrams and KiB of each, IP headers and what comes back of its own broadcasts included: from its start
//              until all lists were complete; and in a minute of idling
//   CPU        of each: ms from its start until all lists were complete, % of one core while idling. What the kernel
//              does to deliver a datagram in another namespace is counted for the sender
//   MiB        resident memory of each, RSS, and the part of it that it shares with no other process, anon
//   lost       datagrams, of all peers, that found the receive buffer full
//
// With BEFORE, each size has three rows: now, before, and the first divided by the second.

#include <signal.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <thread>

#include "measure.h"
#include "support/system.h"
#include "support/testing.h"

namespace {

constexpr int kRounds = 5;
constexpr double kPatience = 120;  // seconds; far more than anything here should need
constexpr auto kSettle = std::chrono::seconds(12);  // until bursts, sweeps and questions are over
constexpr auto kIdle = std::chrono::seconds(30);

using Peers = std::vector<Process*>;

// The numbers of /proc/PID/FILE in the line that begins with `key`, in their order. Where a line of names with the same
// beginning comes before (net/snmp), it has no numbers.
std::vector<double> numbers(const Process& peer, const std::string& file, const std::string& key) {
  const std::string text = "\n" + read_file("/proc/" + std::to_string(peer.pid()) + "/" + file);
  std::vector<double> found;
  for (size_t at = 0; found.empty() && (at = text.find("\n" + key, at)) != std::string::npos; ++at) {
    const char* next = text.c_str() + at + 1 + key.size();
    for (char* end; true; next = end) {
      const double number = std::strtod(next, &end);
      if (end == next) break;
      found.push_back(number);
    }
  }
  if (found.empty()) throw std::runtime_error("no " + key + " in /proc/PID/" + file);
  return found;
}

// The mean of all peers; what is counted is counted since their host was made.
struct Cost {
  double sent = 0, received = 0, sent_kib = 0, received_kib = 0, dropped = 0, cpu = 0, resident = 0, anonymous = 0;
};

// Each namespace has one peer only, so what its network has counted is the peer's. Of IPv6, which the kernel speaks by
// itself, nothing is in these numbers.
Cost cost(const Peers& peers) {
  Cost mean;
  const auto add = [&](double& to, double value) { to += value / static_cast<double>(peers.size()); };
  for (const Process* peer : peers) {
    const auto udp = numbers(*peer, "net/snmp", "Udp:"), ip = numbers(*peer, "net/netstat", "IpExt:");
    add(mean.received, udp.at(0));
    add(mean.sent, udp.at(3));
    add(mean.dropped, udp.at(4));  // for want of room in the receive buffer
    add(mean.received_kib, ip.at(6) / 1024);
    add(mean.sent_kib, ip.at(7) / 1024);
    clockid_t clock;
    timespec time{};
    if (::clock_getcpuclockid(peer->pid(), &clock) == 0 && ::clock_gettime(clock, &time) == 0)
      add(mean.cpu, static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9);
    add(mean.resident, numbers(*peer, "status", "VmRSS:").at(0) / 1024);
    add(mean.anonymous, numbers(*peer, "status", "RssAnon:").at(0) / 1024);
  }
  return mean;
}

size_t count(Process& peer, const std::string& beginning) {
  const auto begins = [&](const std::string& line) { return line.rfind(beginning, 0) == 0; };
  return static_cast<size_t>(std::count_if(peer.lines().begin(), peer.lines().end(), begins));
}

double start_all(Network& network, Peers& peers, int hosts) {
  Clock::time_point last;
  for (int host = 1; host <= hosts; ++host) {
    last = Clock::now();
    peers.push_back(&network.peer(host, "u" + std::to_string(host)));
  }
  expect_all_list_all(peers, kPatience);
  return since(last);
}

void kill_all(Peers& peers) {
  for (Process* peer : peers) peer->signal(SIGKILL);
  for (Process* peer : peers) peer->exit_status();
  peers.clear();
}

void wait_until_each_says(const Peers& peers, const std::string& beginning) {
  for (Process* peer : peers)
    if (!eventually(kPatience, [&] { return count(*peer, beginning) > 0; }))
      throw std::runtime_error("not all have said: " + beginning);
}

double one_more(Network& network, Peers& peers) {
  peers.back()->signal(SIGTERM);
  peers.back()->exit_status();
  const int host = static_cast<int>(peers.size());
  peers.pop_back();
  wait_until_each_says(peers, "left ");
  const auto start = Clock::now();
  Process& newcomer = network.peer(host, "newcomer");
  wait_until_each_says(peers, "joined newcomer@");
  eventually(kPatience, [&] { return count(newcomer, "joined ") == peers.size(); });
  const double seconds = since(start);
  peers.push_back(&newcomer);
  return seconds;
}

// One of the two programs on a segment of one size: its path, and what has been measured of it.
struct Measured {
  explicit Measured(const std::string& path) : program(path) {}
  std::string program;
  std::vector<double> all;    // seconds, of each round
  std::vector<double> lossy;
  double newcomer = 0;
  Cost found;                 // until all lists were complete
  Cost idle;                  // in a minute; of the CPU, the share of one core
  double dropped = 0;         // of all peers
};

Cost minute_between(const Cost& before, const Cost& after, double seconds) {
  const double minutes = seconds / 60;
  Cost idle = after;
  idle.sent = (after.sent - before.sent) / minutes;
  idle.received = (after.received - before.received) / minutes;
  idle.sent_kib = (after.sent_kib - before.sent_kib) / minutes;
  idle.received_kib = (after.received_kib - before.received_kib) / minutes;
  idle.cpu = (after.cpu - before.cpu) / seconds;
  return idle;
}

// Network::peer() starts what PEER names.
void use(const Measured& measured) { ::setenv("PEER", measured.program.c_str(), 1); }

// All that takes one start: how the lists fill, a while of peace, and one more.
void measure_once(Measured& measured, int hosts) {
  use(measured);
  Network network(hosts);
  Peers peers;
  measured.all.push_back(start_all(network, peers, hosts));
  measured.found = cost(peers);
  std::this_thread::sleep_for(kSettle);
  const auto begin = Clock::now();
  const Cost before = cost(peers);
  std::this_thread::sleep_for(kIdle);
  const Cost after = cost(peers);
  measured.idle = minute_between(before, after, since(begin));
  measured.dropped = after.dropped * hosts;
  measured.newcomer = one_more(network, peers);
}

// Each starts anew, and the next one is started when it has ended.
void measure_rounds(std::vector<Measured>& programs, int hosts) {
  Network network(hosts);
  Peers peers;
  const auto start = [&](Measured& measured, std::vector<double>& times) {
    use(measured);
    times.push_back(start_all(network, peers, hosts));
    kill_all(peers);
  };
  for (int round = 1; round < kRounds; ++round)
    for (Measured& measured : programs)
      start(measured, measured.all);
  network.run(0, "nft 'add table bridge f; add chain bridge f lose { type filter hook forward priority 0; }; "
                 "add rule bridge f lose numgen random mod 100 < 20 drop'");
  for (int round = 0; round < kRounds; ++round)
    for (Measured& measured : programs)
      start(measured, measured.lossy);
}

// ---- The table ----------------------------------------------------------------------------

struct Column {
  int width;
  int decimals;
  double value;
};

std::vector<Column> row_of(const Measured& measured) {
  const Cost& found = measured.found;
  const Cost& idle = measured.idle;
  return {
      {8, 2, median(measured.all)},  {10, 2, median(measured.lossy)}, {9, 2, measured.newcomer},
      {8, 0, found.sent},            {6, 0, found.sent_kib},          {6, 0, found.received},
      {6, 0, found.received_kib},    {8, 0, idle.sent},               {6, 0, idle.sent_kib},
      {6, 0, idle.received},         {6, 0, idle.received_kib},       {8, 0, found.cpu * 1000},
      {7, 3, idle.cpu * 100},        {7, 1, idle.resident},           {6, 2, idle.anonymous},
      {6, 0, measured.dropped},
  };
}

void print(int hosts, const std::vector<Column>& row, const char* of_whom) {
  std::printf("%5d", hosts);
  for (const Column& column : row)
    std::printf("%*.*f", column.width, column.decimals, column.value);
  std::printf("%s\n", of_whom);
}

// Of nothing to nothing it is "nan".
std::vector<Column> ratio(const std::vector<Column>& now, const std::vector<Column>& before) {
  std::vector<Column> ratios = now;
  for (size_t i = 0; i < ratios.size(); ++i) {
    ratios[i].value = now[i].value / before[i].value;
    ratios[i].decimals = 2;
  }
  return ratios;
}

void measure(int hosts, const std::vector<std::string>& paths) {
  std::vector<Measured> programs(paths.begin(), paths.end());
  for (Measured& measured : programs)
    measure_once(measured, hosts);
  measure_rounds(programs, hosts);
  const std::vector<Column> now = row_of(programs.front());
  print(hosts, now, programs.size() > 1 ? "  now" : "");
  if (programs.size() == 1) return;
  const std::vector<Column> before = row_of(programs.back());
  print(hosts, before, "  before");
  print(hosts, ratio(now, before), "  ratio");
}

}  // namespace

int main(int argc, char** argv) {
  // What is an assertion to a test is an exception here.
  testing::GTEST_FLAG(throw_on_failure) = true;
  testing::InitGoogleTest(&argc, argv);
  ::setvbuf(stdout, nullptr, _IONBF, 0);
  ::signal(SIGPIPE, SIG_IGN);
  if (!enter_private_network()) {
    std::cerr << "network namespaces are not allowed here; run as root" << std::endl;
    return 1;
  }
  std::printf("      seconds                    until all lists are complete  a minute idle                CPU"
              "            MiB\n"
              "hosts     all 20%% lost one more    sent   KiB   got   KiB    sent   KiB   got   KiB      ms      %%"
              "    RSS  anon  lost\n");
  std::vector<std::string> programs = {peer_program()};
  const std::string before = setting("BENCH_BEFORE");
  if (!before.empty()) programs.push_back(before);
  try {
    for (int i = 1; i < argc; ++i) measure(std::atoi(argv[i]), programs);
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 1;
  }
}
