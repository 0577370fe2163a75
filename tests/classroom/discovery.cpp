// Peers find and lose each other on virtual networks: clause 4 of docs/protocol.md, from outside.

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <map>
#include <thread>

#include "support/testing.h"

namespace {

// Ends a time in which nobody should leave. Without this check, a dead peer would pass, too.
void expect_all_to_reach(Process& peer, int others) {
  const std::string all = std::to_string(others);
  peer.say("/all still here?");
  peer.wait_for("delivered " + all + " of " + all);
  EXPECT_EQ(peer.count("left .*"), 0u) << peer.output();
}

// A point-to-point link between two hosts, as a VPN has one: an interface "p2p" in each, which is there as long as this
// object is.
class PointToPointLink {
 public:
  PointToPointLink(const Network& network, int one, int other)
      : ends_{end_in(network.descriptor(one)), end_in(network.descriptor(other))}, carrier_([this] { carry(); }) {}
  PointToPointLink(const PointToPointLink&) = delete;
  ~PointToPointLink() {
    is_over_ = true;
    carrier_.join();
    for (const int end : ends_) ::close(end);
  }

 private:
  // setns() moves the thread that calls it: so this needs one of its own.
  static int end_in(int network_namespace) {
    int fd = -1;
    std::thread opener([&] {
      ifreq request{};
      std::string("p2p").copy(request.ifr_name, IFNAMSIZ - 1);
      request.ifr_flags = IFF_TUN | IFF_NO_PI;
      if (::setns(network_namespace, CLONE_NEWNET) != 0) return;
      fd = ::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
      EXPECT_EQ(::ioctl(fd, TUNSETIFF, &request), 0);
    });
    opener.join();
    return fd;
  }

  void carry() const {
    while (!is_over_) {
      std::array<pollfd, 2> ready = {pollfd{ends_[0], POLLIN, 0}, {ends_[1], POLLIN, 0}};
      ::poll(ready.data(), ready.size(), 100);
      pass_on(ends_[0], ends_[1]);
      pass_on(ends_[1], ends_[0]);
    }
  }

  static void pass_on(int from, int to) {
    std::array<char, 2000> packet{};
    const ssize_t size = ::read(from, packet.data(), packet.size());
    if (size <= 0) return;
    const ssize_t sent = ::write(to, packet.data(), static_cast<size_t>(size));
    static_cast<void>(sent);  // a link may lose a packet
  }

  const std::array<int, 2> ends_;
  std::atomic<bool> is_over_{false};
  std::thread carrier_;
};

}  // namespace

TEST(Discovery, FiveHostsListEachOtherWithinASecondAndTalkAndSendFiles) {
  NEEDS_NAMESPACES();
  std::unique_ptr<Network> class_of_five;
  std::vector<Process*> peers;
  const auto list_each_other_within_a_second = [&] {
    class_of_five = std::make_unique<Network>(5);
    peers = class_of_five->peers({"--accept", "always"});
    for (Process* peer : peers) peer->wait_for("ready .*");
    return all_list_all(peers, 1);
  };
  EXPECT_TRUE(in_three_tries(list_each_other_within_a_second));
  expect_all_list_all(peers);
  Network& network = *class_of_five;
  for (int from = 1; from <= 5; ++from)
    for (int to = 1; to <= 5; ++to)
      if (from != to)
        peers[static_cast<size_t>(from - 1)]->say("/msg u" + std::to_string(to) + " from " + std::to_string(from));
  for (int to = 1; to <= 5; ++to) {
    Process& peer = *peers[static_cast<size_t>(to - 1)];
    EXPECT_TRUE(eventually([&] { return peer.count("message .*") >= 4 && peer.count("delivered .*") >= 4; }));
    for (int from = 1; from <= 5; ++from)
      EXPECT_EQ(peer.count("message u" + std::to_string(from) + "@\\S+ private: from .*"), from == to ? 0u : 1u);
    EXPECT_EQ(peer.count("failed .*"), 0u);
  }
  const std::string file = network.folder("u1").write("ten megabytes.bin", random_bytes(10'000'000, 1));
  for (int to = 2; to <= 5; ++to) peers[0]->say("/send u" + std::to_string(to) + " ten megabytes.bin");
  for (int to = 2; to <= 5; ++to) {
    peers[0]->wait_for("send \\d+ delivered .*");
    peers[static_cast<size_t>(to - 1)]->wait_for("receive 1 stored u1@\\S+ 10000000 bytes, cksum \\d+: .*");
    EXPECT_EQ(cksum(network.folder("u" + std::to_string(to)).path("downloads/ten megabytes.bin")), cksum(file));
  }
}

TEST(Discovery, InstancesOfOneHostAndOfAnotherAllSeeAll) {
  NEEDS_NAMESPACES();
  Network network(2);
  std::vector<Process*> peers;
  for (const auto& [host, name] : {std::pair(1, "a"), {1, "b"}, {1, "c"}, {2, "d"}, {2, "e"}})
    peers.push_back(&network.peer(host, name));
  expect_all_list_all(peers);
  for (Process* peer : peers) {
    peer->say("/list");
    peer->wait_for("users 5");  // each once, though those of one host hear each other on two interfaces
  }
}

TEST(Discovery, NeedsNoNetworkButLoopback) {
  NEEDS_NAMESPACES();
  Network network(0);
  std::vector<Process*> peers = {&network.peer(0, "a"), &network.peer(0, "b"), &network.peer(0, "c", {"--interface", "lo"})};
  expect_all_list_all(peers);
}

TEST(Discovery, FindsOthersByBroadcastAlone) {
  NEEDS_NAMESPACES();
  Network network(2);
  const std::vector<Process*> peers = {&network.peer(1, "ann", {"--scan=off"}), &network.peer(2, "bob", {"--scan=off"})};
  expect_all_list_all(peers);
}

// By SO_REUSEPORT the kernel lets in sockets of one user only: so one without it has to get the port, too, before ours
// and after it. Only root can try it with another user indeed.
TEST(Discovery, ASecondUserOfTheMachineIsNotShutOut) {
  NEEDS_NAMESPACES();
  Network network(0);
  const Socket before = Socket::udp(network, 0, 25252);
  Process& ann = network.peer(0, "ann");
  ann.wait_for("ready .*");
  const Socket after = Socket::udp(network, 0, 25252);
  EXPECT_NE(before.datagram(), "");  // it is the same port: who says HELLO there is heard by all
  const Folder home;
  const std::string program = home.path("peer");  // where the other user can read it
  network.run(0, "cp " + peer_program() + " " + program + " && chmod 755 " + home.path() + " " + program);
  std::vector<std::string> command = {"/usr/bin/env", program, "--name", "bob"};
  const std::vector<std::string> as_another = {"setpriv", "--reuid", "65534", "--clear-groups"};
  if (std::system("setpriv --reuid 65534 --clear-groups true 2>/dev/null") == 0)
    command.insert(command.begin() + 1, as_another.begin(), as_another.end());
  Process bob(network.descriptor(0), command, home.path());
  bob.wait_for("joined ann@127.0.0.1:25253 lab");
  ann.wait_for("joined bob@127.0.0.1:25254 lab");
}

// As on macOS and the BSDs. bob has another port than those that are asked: he asks himself.
TEST(Discovery, InstancesOfAHostFindEachOtherWhereLoopbackCarriesNoBroadcast) {
  NEEDS_NAMESPACES();
  Network network(0);
  network.drop(0, "input", "ip daddr 127.255.255.255");
  Process& ann = network.peer(0, "ann");
  ann.wait_for("ready .*");
  Process& bob = network.peer(0, "bob", {"--port", "25301"});
  ann.wait_for("joined bob@.*");
  bob.wait_for("joined ann@.*");
  Process& cleo = network.peer(0, "cleo");
  expect_all_list_all({&ann, &bob, &cleo});
  ann.say("/diag");
  ann.wait_for("diag: \\d+ datagrams received");
  EXPECT_EQ(ann.count("diag: interface lo: .*"), 0u);  // it is no fault
}

TEST(Discovery, ADatagramThatIsTooLongIsNotTakenForItsBeginning) {
  NEEDS_NAMESPACES();
  Network network(0);
  network.peer(0, "bob", {"--port", "25301"}).wait_for("ready .*");
  const Socket stranger = Socket::udp(network, 0, 40000);
  const auto hello = [](const std::string& id, size_t size) {
    const std::string said = "ChatByP2P/1 HELLO id=" + id + " ip=127.0.0.1 port=40000 name=cut group=lab colour=";
    return said + std::string(size - said.size(), 'x');
  };
  stranger.send_to("127.0.0.1", 25301, hello("00000000000000cc", 513));
  stranger.send_to("127.0.0.1", 25301, hello("00000000000000dd", 512));  // the longest that is allowed
  const std::string answer = stranger.datagram();  // the first one, and the second has it
  EXPECT_EQ(answer.substr(0, 16), "ChatByP2P/1 HERE");
  EXPECT_NE(answer.find(" to=00000000000000dd"), std::string::npos) << answer;
}

TEST(Discovery, FourHundredQuestionsAtOnceAreAllAnswered) {
  NEEDS_NAMESPACES();
  Network network(0);
  Process& bob = network.peer(0, "bob", {"--port", "25301"});
  bob.wait_for("ready .*");
  std::vector<Socket> strangers;  // four, since what a socket gets is not to overflow here either
  for (int port = 40001; port <= 40004; ++port) strangers.push_back(Socket::udp(network, 0, port));
  bob.signal(SIGSTOP);  // as if all came in the same instant
  for (int port = 40001; port <= 40004; ++port)
    for (int i = 0; i < 100; ++i)
      strangers[static_cast<size_t>(port - 40001)].send_to(
          "127.0.0.1", 25301, "ChatByP2P/1 HELLO id=" + std::string(11, '0') + std::to_string(port) +
                                  " ip=127.0.0.1 port=" + std::to_string(port) + " name=zoe group=lab");
  bob.signal(SIGCONT);
  for (const Socket& stranger : strangers) {
    int answers = 0;
    while (answers < 100)
      if (stranger.datagram().find("ChatByP2P/1 HERE") == 0) ++answers;
  }
}

TEST(Discovery, ListsNobodyOnHearsayButAsksAtTheDoor) {
  NEEDS_NAMESPACES();
  Network network(0);
  Process& bob = network.peer(0, "bob", {"--port", "25301"});
  bob.wait_for("ready .*");
  const Socket gossip = Socket::udp(network, 0, 40000), door = Socket::udp(network, 0, 40007);
  gossip.send_to("127.0.0.1", 25301, "ChatByP2P/1 HERE id=00000000000000cc ip=127.0.0.1 port=40007 name=ghost group=lab");
  EXPECT_EQ(door.datagram().substr(0, 17), "ChatByP2P/1 HELLO");
  gossip.send_to("127.0.0.1", 25301, "ChatByP2P/1 BYE id=00000000000000cc ip=127.0.0.1 port=40007 name=ghost group=lab");
  gossip.meet("127.0.0.1", 25301, "id=00000000000000dd ip=127.0.0.1 port=40000 name=gossip group=lab");
  bob.wait_for("joined gossip@127.0.0.1:40000 lab");
  EXPECT_EQ(bob.count("joined .*"), 1u);
  door.meet("127.0.0.1", 25301, "id=00000000000000cc ip=10.9.9.9 port=40007 name=real group=lab");
  bob.wait_for("joined real@127.0.0.1:40007 lab");
  bob.say("/list");  // the address that it gave is shown where it is another one
  bob.wait_for("user 3 - real lab 127.0.0.1:40007 says 10.9.9.9");
  gossip.send_to("127.0.0.1", 25301, "ChatByP2P/1 BYE id=00000000000000cc ip=127.0.0.1 port=40007 name=real group=lab");
  door.send_to("127.0.0.1", 25301, "ChatByP2P/1 BYE id=00000000000000cc ip=127.0.0.1 port=40007 name=real group=lab");
  bob.wait_for("left real@127.0.0.1:40007: said bye");
}

TEST(Discovery, LeavesTheNetworkInPeaceWhenAllHaveBeenFound) {
  NEEDS_NAMESPACES();
  Network network(0);
  std::vector<Process*> peers = {&network.peer(0, "a"), &network.peer(0, "b"), &network.peer(0, "c")};
  expect_all_list_all(peers);
  const Folder scratch;
  const auto datagrams = [&] {  // sent by this host so far
    network.run(0, "awk '/^Udp:/ && $5 ~ /^[0-9]/ { print $5 }' /proc/self/net/snmp > " + scratch.path("sent"));
    return std::stoi(read_file(scratch.path("sent")));
  };
  peers[0]->say("/scan 127.0.0.1");  // whoever is asked may ask back, but questions must not beget questions
  peers[0]->wait_for("scanned 1 addresses; 2 users online");
  const int before = datagrams();
  EXPECT_FALSE(peers[0]->prints("left .*", 4));
  EXPECT_LT(datagrams() - before, 100);
  for (Process* peer : peers) expect_all_to_reach(*peer, 2);  // it was not for want of peers that all was quiet
}

TEST(Discovery, KeepsToTheInterfacesThatWereChosen) {
  NEEDS_NAMESPACES();
  Network network(2);
  Process& outside = network.peer(2, "outside");
  Process& a = network.peer(1, "a", {"--interface", "lo", "--port", "25301"});
  Process& b = network.peer(1, "b", {"--interface", "lo"});
  Process& c = network.peer(1, "c", {"--interface", "eth0"});
  a.wait_for("joined b@127.0.0.1:\\d+ lab");
  b.wait_for("joined a@127.0.0.1:\\d+ lab");
  c.wait_for("joined outside@10.77.0.2:25253 lab");
  outside.wait_for("joined c@10.77.0.1:\\d+ lab");
  a.say("/msg 10.77.0.2:25253 let me out");
  a.wait_for("failed 10.77.0.2:25253: no usable route.*not delivered: let me out");
  EXPECT_THROW(Socket::tcp(network, 2, "10.77.0.1", 25301), std::exception);  // a listens on lo only
  a.say("/scan 10.77.0.2");
  a.wait_for("error: no usable route leads to 10.77.0.2");
  for (Process* peer : {&outside, &a, &b, &c}) {
    expect_all_to_reach(*peer, 1);
    EXPECT_EQ(peer->count("joined .*"), 1u) << peer->output();
  }
}

TEST(Discovery, UsesEachInterfaceThatWasChosenAndNoOther) {
  NEEDS_NAMESPACES();
  Network network(2);
  network.run(1, "ip link add eth1 type veth peer name eth2 && ip link set eth1 up && ip link set eth2 up && "
                 "ip addr add 10.79.0.1/28 brd + dev eth1");
  Process& both = network.peer(1, "both", {"--interface", "lo", "--interface", "eth0"});
  network.peer(1, "inside", {"--interface", "lo"}).wait_for("joined both@127.0.0.1:\\d+ lab");
  network.peer(2, "outside").wait_for("joined both@10.77.0.1:\\d+ lab");
  for (const char* name : {"inside", "outside"})
    EXPECT_TRUE(both.prints("joined " + std::string(name) + "@.*", 30)) << both.output();
  both.say("/scan 10.79.0.2");
  both.wait_for("error: no usable route leads to 10.79.0.2");
}

// As with a cable and Wi-Fi in one network: the routes lead through eth0, for it came up first.
TEST(Discovery, LeavesByTheInterfaceThatWasChosenWhateverTheRoutesPrefer) {
  NEEDS_NAMESPACES();
  Network network(0);
  network.run(0, "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6");  // whose own packets would be counted
  int last_byte = 0;
  for (const std::string name : {"eth0", "wlan0"}) {
    network.run(0, "ip link add " + name + " type veth peer name far-" + name + " && ip link set far-" + name + " up && " +
                       "ip addr add 10.77.0." + std::to_string(++last_byte) + "/28 brd + dev " + name +
                       " && ip link set " + name + " up && " +
                       "until ip link show " + name + " | grep -q 'state UP'; do sleep 0.02; done && " +
                       "ip neigh add 10.77.0.5 lladdr 02:00:00:00:00:05 dev " + name);
  }
  const Folder scratch;
  const auto packets = [&](const std::string& name) {
    network.run(0, "sed 's/:/ /' /proc/self/net/dev | awk '$1 == \"" + name + "\" { print $11 }' >" + scratch.path("sent"));
    return std::stoi(read_file(scratch.path("sent")));
  };
  Process& ann = network.peer(0, "ann", {"--interface", "wlan0"});
  ann.wait_for("ready ann@10.77.0.2:25253 lab");
  ann.say("/scan 10.77.0.5");
  ann.wait_for("scanned 1 addresses; 0 users online");
  ann.say("/msg 10.77.0.5:25253 by which way?");
  ann.wait_for("failed 10.77.0.5:25253: .*");
  EXPECT_EQ(packets("eth0"), 0);
  EXPECT_GT(packets("wlan0"), 10);
}

TEST(Discovery, AnInterfaceIsFoundByItsNameWhateverTheLabelOfItsAddress) {
  NEEDS_NAMESPACES();
  Network network(2);
  network.run(1, "ip addr flush dev eth0 && ip addr add 10.77.0.7/28 brd + dev eth0 label eth0:1");
  Process& bob = network.peer(2, "bob");
  network.peer(1, "ann", {"--interface", "eth0"}).wait_for("ready ann@10.77.0.7:25253 lab");
  bob.wait_for("joined ann@10.77.0.7:25253 lab");
}

TEST(Discovery, WorksByTheSweepAloneWhereBroadcastsAreDropped) {
  NEEDS_NAMESPACES();
  Network network(5);
  for (int host = 1; host <= 5; ++host)
    network.drop(host, "input", "meta pkttype broadcast");
  const auto peers = network.peers();
  expect_all_list_all(peers);
  // And they stay: no heartbeat arrives, so each asks.
  EXPECT_FALSE(peers[0]->prints("left .*", 17));
  for (Process* peer : peers) expect_all_to_reach(*peer, 4);
}

TEST(Discovery, ASweptHostAnswersForAllItsInstances) {
  NEEDS_NAMESPACES();
  Network network(2);
  for (int host = 1; host <= 2; ++host)
    network.drop(host, "input", "meta pkttype broadcast");
  std::vector<Process*> peers;
  for (const auto& [host, name] : {std::pair(1, "a"), {1, "b"}, {1, "c"}, {2, "d"}})
    peers.push_back(&network.peer(host, name));
  expect_all_list_all(peers);
}

// Each asks the other end alone, whatever network its address seems to be in. No heartbeat arrives; so it asks again.
TEST(Discovery, TheEndsOfAPointToPointLinkFindEachOtherAndStay) {
  NEEDS_NAMESPACES();
  if (::access("/dev/net/tun", R_OK | W_OK) != 0) GTEST_SKIP() << "there is no /dev/net/tun: modprobe tun";
  Network network(2);
  const PointToPointLink link(network, 1, 2);
  const auto connect = [&](int host, const std::string& own, const std::string& others) {
    network.run(host, "ip link set eth0 down && ip addr flush dev eth0 && ip link set p2p up && "
                      "ip addr add " + own + " peer " + others + "/16 dev p2p");
  };
  connect(1, "10.78.0.1", "10.99.0.1");
  connect(2, "10.99.0.1", "10.78.0.1");
  Process& ann = network.peer(1, "ann");
  Process& bob = network.peer(2, "bob");
  ann.wait_for("joined bob@10.99.0.1:25253 lab");
  bob.wait_for("joined ann@10.78.0.1:25253 lab");
  ann.say("/scan");
  ann.wait_for("scanned 1 addresses; 1 users online");
  EXPECT_FALSE(ann.prints("left .*", 17));
  for (Process* peer : {&ann, &bob}) expect_all_to_reach(*peer, 1);
}

// Such a network has two addresses, and none for broadcasts.
TEST(Discovery, TheTwoAddressesOfA31FindEachOther) {
  NEEDS_NAMESPACES();
  Network network(2);
  for (const int host : {1, 2})
    network.run(host, "ip addr flush dev eth0 && ip addr add 10.77.0." + std::to_string(host + 1) + "/31 dev eth0");
  Process& ann = network.peer(1, "ann");
  Process& bob = network.peer(2, "bob");
  ann.wait_for("joined bob@10.77.0.3:25253 lab");
  bob.wait_for("joined ann@10.77.0.2:25253 lab");
  ann.say("/scan");
  ann.wait_for("scanned 2 addresses; 1 users online");
}

// A crowd would drown whoever asks all of it, if it answered at once. So each answer waits for a random time, and those
// to many who asked one after the other come in another order: in no round only from a machine that had no time.
TEST(Discovery, InACrowdEachAnswerToABroadcastWaitsForATimeOfItsOwn) {
  NEEDS_NAMESPACES();
  constexpr int kCrowd = 40, kRounds = 20;
  Network network(0);
  // Both are among the first 16 ports: others find nobody where loopback carries no broadcast, see elsewhere.c.
  const std::vector<Process*> peers = {&network.peer(0, "ann", {"--port", "25261"}),
                                       &network.peer(0, "bob", {"--port", "25262"})};
  for (Process* peer : peers) peer->wait_for("joined .*");
  const auto fields = [](const std::string& id, int port) {
    return "id=" + std::string(16 - id.size(), '0') + id + " ip=127.0.0.1 port=" + std::to_string(port) + " name=zoe group=lab";
  };
  std::vector<Socket> crowd;
  for (const int peer : {25261, 25262}) {
    for (int i = 0; i < kCrowd; ++i) {
      const int port = 30000 + static_cast<int>(crowd.size());  // below those that the kernel gives away
      crowd.push_back(Socket::udp(network, 0, port));
      crowd.back().meet("127.0.0.1", peer, fields(std::to_string(port), port));
    }
  }
  for (Process* peer : peers)
    EXPECT_TRUE(eventually([&] { return peer->count("joined zoe.*") == kCrowd; })) << peer->output();
  const Socket asker = Socket::udp(network, 0, 31000);
  const std::string askers = "23456789";  // at 127.0.0.2 and so on: an address is answered once
  std::map<std::string, int> shuffled;    // rounds, by the port of the peer
  for (int round = 10; round < 10 + kRounds && shuffled.size() < peers.size(); ++round) {
    const std::string begin = std::to_string(round);
    for (const Process* peer : peers) peer->signal(SIGSTOP);
    for (const char who : askers)
      Socket::forge(network, 0, std::string("127.0.0.") + who, 31000, "127.255.255.255", 25252,
                    "ChatByP2P/1 HELLO " + fields(begin + who, 31000));
    for (const Process* peer : peers) peer->signal(SIGCONT);
    std::map<std::string, std::string> order;
    for (size_t answers = 0; answers < askers.size() * peers.size();) {
      const std::string said = asker.datagram();
      const auto found = matches(said, "HERE .* port=(\\d+) .* to=0+" + begin + "(\\d)( .*)?");
      if (found.empty()) continue;
      order[found[0][1]] += found[0][2];
      ++answers;
    }
    for (const auto& [port, whom] : order)
      if (whom != askers) ++shuffled[port];
  }
  EXPECT_EQ(shuffled.size(), peers.size());
}

TEST(Discovery, AnIntroductionOverTcpListsNobodyAndIsAskedAboutOnce) {
  NEEDS_NAMESPACES();
  Network network(0);
  Process& bob = network.peer(0, "bob", {"--port", "25301"});
  bob.wait_for("ready .*");
  const std::string zoe = "id=00000000000000cc ip=127.0.0.1 port=40007 name=zoe group=lab";
  const Socket door = Socket::udp(network, 0, 40007);
  Socket talk = Socket::tcp(network, 0, "127.0.0.1", 25301);
  talk.send("ChatByP2P/1 HELLO " + zoe + "\n");
  EXPECT_EQ(talk.line().substr(0, 20), "OK ChatByP2P/1 HERE ");
  const std::string question = door.datagram(), to_bob = " to=" + id_in(question);
  EXPECT_EQ(question.substr(0, 17), "ChatByP2P/1 HELLO");
  const Socket other = Socket::udp(network, 0, 40008);
  other.send_to("127.0.0.1", 25301, "ChatByP2P/1 HELLO id=00000000000000dd ip=127.0.0.1 port=40008 name=yan group=lab");
  for (int asked = 0; asked < 4; asked += other.datagram().find("ChatByP2P/1 HELLO") == 0) {}  // he is remembered
  bob.say("/list");
  bob.wait_for("users 1");
  door.send_to("127.0.0.1", 25301, "ChatByP2P/1 HELLO " + zoe + to_bob);  // a question is no answer
  EXPECT_EQ(door.datagram().substr(0, 16), "ChatByP2P/1 HERE");           // and she was asked once only
  bob.say("/list");
  bob.wait_for("users 1");
  door.send_to("127.0.0.1", 25301, "ChatByP2P/1 HERE " + zoe + to_bob);
  bob.wait_for("joined zoe@127.0.0.1:40007 lab");
}

TEST(Discovery, ListsNobodyWhomNothingReaches) {
  NEEDS_NAMESPACES();
  Network network(2);
  Process& ann = network.peer(1, "ann");
  Process& mute = network.peer(2, "mute");
  mute.wait_for("joined ann@.*");
  ann.wait_for("joined mute@.*");
  // From now on mute hears ann, but ann hears nothing of mute, over UDP or TCP.
  network.drop(2, "output", "oifname eth0 ip protocol { tcp, udp }");
  ann.wait_for("left mute@\\S+: " + kSilent);
  mute.wait_for("left ann@\\S+: does not hear us");
  EXPECT_FALSE(mute.prints("joined ann.*", 6));
  for (Process* peer : {&ann, &mute}) {
    peer->say("/list");
    peer->wait_for("users 1");
    EXPECT_EQ(peer->count("joined .*"), 1u) << peer->output();
  }
}

TEST(Discovery, AKilledPeerIsGoneAfterThreeHeartbeatsAndAMessageToItFailsAtOnce) {
  NEEDS_NAMESPACES();
  Network network(2);
  Process& ann = network.peer(1, "ann");
  Process& bob = network.peer(2, "bob");
  ann.wait_for("joined bob.*");
  bob.wait_for("joined ann.*");
  ann.say("/msg bob while you live");
  ann.wait_for("delivered bob@\\S+: while you live");
  bob.signal(SIGKILL);
  EXPECT_EQ(bob.exit_status(), 128 + SIGKILL);
  ann.say("/msg bob are you there");
  ann.wait_for("failed bob@10.77.0.2:25253: .*refused; .*not delivered: are you there");
  ann.wait_for("left bob@10.77.0.2:25253: " + kSilent);
}

TEST(Discovery, AClockThatIsSetTwoHoursOnMakesNobodyLeave) {
  NEEDS_NAMESPACES();
  Network network(0);
  ClockedPeer clocked(network, 0, {"--name", "bob"});
  Process& bob = clocked.process();
  Process& ann = network.peer(0, "ann");
  bob.wait_for("joined ann.*");
  ann.wait_for("joined bob.*");
  clocked.set_date(7200);
  EXPECT_FALSE(bob.prints("left .*", 2));
  bob.say("/msg ann what time is it?");
  bob.wait_for("delivered ann.*");
  EXPECT_EQ(bob.count("left .*"), 0u);
}

TEST(Discovery, WhoLeavesIsGoneAtOnce) {
  NEEDS_NAMESPACES();
  Network network(2);
  Process& ann = network.peer(1, "ann");
  for (const int how : {0, SIGINT, SIGTERM, SIGHUP}) {
    const std::string name = "bob" + std::to_string(how);
    Process& bob = network.peer(2, name);
    ann.wait_for("joined " + name + ".*");
    if (how == 0) bob.say("/quit");
    else bob.signal(how);
    EXPECT_EQ(bob.exit_status(), 0);
    ann.wait_for("left " + name + "@\\S+: said bye");  // else it would be silent for 15 s
  }
}

TEST(Discovery, APeerRestartedOnItsPortReplacesItsOldSelf) {
  NEEDS_NAMESPACES();
  Network network(2);
  Process& ann = network.peer(1, "ann");
  Process& bob = network.peer(2, "bob");
  ann.wait_for("joined bob.*");
  ann.say("/msg bob before");
  ann.wait_for("delivered bob@\\S+: before");
  bob.signal(SIGKILL);
  bob.exit_status();
  network.peer(2, "bob");
  ann.wait_for("left bob@\\S+: replaced");
  ann.wait_for("joined bob.*");
  ann.say("/msg bob again");  // not over the conversation with the old one
  ann.wait_for("delivered bob@\\S+: again");
}

TEST(Discovery, WhatAPeerSentBeforeItWasReplacedDoesNotBringItBack) {
  NEEDS_NAMESPACES();
  Network network(0);
  Process& ann = network.peer(0, "ann", {"--port", "25301"});
  ann.wait_for("ready .*");
  const std::string bob = "id=00000000000000bb ip=127.0.0.1 port=40000 name=bob group=lab";
  const std::string cleo = "id=00000000000000cc ip=127.0.0.1 port=40000 name=cleo group=lab";
  const Socket port = Socket::udp(network, 0, 40000);
  port.send_to("127.0.0.1", 25301, "ChatByP2P/1 HELLO " + bob);
  const std::string answer = port.datagram(), to_ann = " to=" + id_in(answer);
  port.send_to("127.0.0.1", 25301, "ChatByP2P/1 HERE " + bob + to_ann);
  ann.wait_for("joined bob@\\S+ lab");
  ann.signal(SIGSTOP);  // so that it reads these in one go
  for (const std::string& said : {"HELLO " + cleo, "HERE " + bob + to_ann, "HERE " + cleo + to_ann})
    port.send_to("127.0.0.1", 25301, "ChatByP2P/1 " + said);
  ann.signal(SIGCONT);
  ann.wait_for("left bob@\\S+: replaced");
  ann.wait_for("joined cleo@\\S+ lab");
  ann.say("/list");
  ann.wait_for("users 2");
}

TEST(Discovery, ANameOrGroupThatChangesIsSeenByTheOthers) {
  NEEDS_NAMESPACES();
  Network network(2);
  Process& ann = network.peer(1, "ann");
  Process& bob = network.peer(2, "bob");
  ann.wait_for("joined bob.*");
  bob.wait_for("joined ann.*");
  bob.say("/name 小明");
  ann.wait_for("changed 小明@10.77.0.2:25253 lab: was bob@10.77.0.2:25253 lab");
  bob.say("/join chess");
  ann.wait_for("changed 小明@10.77.0.2:25253 chess: was 小明@10.77.0.2:25253 lab");
  ann.say("/msg 小明 你好 👋");
  bob.wait_for("message ann@10.77.0.1:25253 private: 你好 👋");
  bob.say("/name 🦊👩‍👩‍👧");
  ann.wait_for("changed 🦊👩‍👩‍👧@10.77.0.2:25253 chess: was 小明@10.77.0.2:25253 chess");
  ann.say("/to 🦊👩‍👩‍👧");
  ann.wait_for("to 🦊👩‍👩‍👧@10.77.0.2:25253");
  ann.say("/group nobody is here");
  ann.wait_for("error: " + wording("ann", "nobody else is in group lab"));
}

TEST(Discovery, AnInterfaceThatComesUpLaterIsUsed) {
  NEEDS_NAMESPACES();
  Network network(2);
  network.run(2, "ip link set eth0 down && ip addr flush dev eth0");
  Process& ann = network.peer(1, "ann");
  Process& bob = network.peer(2, "bob");
  bob.wait_for("ready bob@127.0.0.1:25253 lab");
  network.run(2, "ip link set eth0 up && ip addr add 10.77.0.14/28 brd + dev eth0");
  ann.wait_for("joined bob@10.77.0.14:25253 lab");
  bob.wait_for("joined ann@10.77.0.1:25253 lab");
}

TEST(Discovery, ScansOneAddressOrANetworkAndTellsTheEnd) {
  NEEDS_NAMESPACES();
  Network network(3);
  for (int host = 1; host <= 3; ++host)  // or a heartbeat would find who is to be found by a scan
    network.drop(host, "input", "meta pkttype broadcast");
  Process& ann = network.peer(1, "ann", {"--scan=off"});
  network.peer(2, "bob", {"--scan", "off"});
  network.peer(3, "cleo", {"--scan", "off"});
  ann.say("/scan 10.77.0.2:25253");
  ann.wait_for("joined bob@10.77.0.2:25253 lab");
  ann.wait_for("scanned 1 addresses; 1 users online");
  ann.say("/scan 10.77.0.0/28");
  ann.wait_for("note: scanning 14 addresses, 8 s to go");
  ann.wait_for("joined cleo.*");
  ann.wait_for("scanned 14 addresses; 2 users online");
  ann.say("/scan 10.77.0.0/8");
  ann.wait_for("note: " + wording("ann", "a scan asks at most 1,022 addresses: of 10.77.0.0/8, only the /22 around it; .*"));
}

TEST(Discovery, AScanAsksAllThatItWasToldToThoughAnInterfaceChangesMeanwhile) {
  NEEDS_NAMESPACES();
  Network network(2);
  network.run(1, "ip route add 10.99.0.0/24 via 10.77.0.2");
  Process& ann = network.peer(1, "ann", {"--trace"});
  ann.wait_for("ready .*");
  ann.say("/scan 10.99.0.0/28");
  ann.wait_for(".* UDP \\S+ +-> 10.99.0.2:25253 .*");
  network.run(1, "ip addr add 10.88.0.1/30 brd + dev eth0");
  ann.wait_for("scanned 14 addresses; 0 users online");
  EXPECT_EQ(ann.count(".* UDP \\S+ +-> 10\\.99\\.0\\.\\d+:25253 .*"), 14u);
  EXPECT_EQ(ann.count(".* UDP \\S+ +-> 10\\.99\\.0\\.\\d+:25252 .*"), 14u);
}

TEST(Discovery, AnotherScanTakesThePlaceOfTheFirst) {
  NEEDS_NAMESPACES();
  Network network(0);
  Process& ann = network.peer(0, "ann");
  ann.wait_for("ready .*");
  ann.say("/scan 127.0.5.0/29");
  ann.say("/scan 127.0.6.0/28");  // takes longer: the first one would have ended before
  ann.wait_for("scanned 14 addresses; 0 users online");
  EXPECT_EQ(ann.count("scanned .*"), 1u) << ann.output();
}

// What goes to nobody is dropped before the kernel asks for him, or it would fill the table of
// neighbours.
TEST(Discovery, OfANetworkLargerThanA22AsksTheAddressesAroundItself) {
  NEEDS_NAMESPACES();
  Network network(3);
  const std::vector<std::string> addresses = {"10.77.7.250", "10.77.7.253", "10.77.8.2"};  // the last in the next /22
  for (int host = 1; host <= 3; ++host)
    network.run(host, "nft 'add table inet f; add chain inet f in { type filter hook input priority 0; }; "
                      "add rule inet f in meta pkttype broadcast drop; "
                      "add chain inet f out { type filter hook output priority 0; }; "
                      "add rule inet f out oifname eth0 ip daddr != { 10.77.7.250, 10.77.7.253, 10.77.8.2 } drop' && "
                      "ip addr flush dev eth0 && ip addr add " +
                          addresses[static_cast<size_t>(host - 1)] + "/16 brd + dev eth0");
  Process& ann = network.peer(1, "ann");
  network.peer(2, "bob").wait_for("ready .*");
  network.peer(3, "carl").wait_for("ready .*");
  ann.say("/scan");
  ann.wait_for("note: a scan asks at most 1,022 addresses: of 10.77.7.250/16, only the /22 around it; .*");
  ann.wait_for("joined bob@10.77.7.253:25253 lab");
  EXPECT_EQ(ann.count("joined .*"), 1u) << ann.output();
  ann.say("/scan 10.77.8.0/28");
  ann.wait_for("joined carl@10.77.8.2:25253 lab");
}
