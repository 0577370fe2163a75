// A peer behind a router that translates addresses (NAT), and one outside. A scan by hand finds who
// is outside. What works in one direction only is said.

#include "support/testing.h"

namespace {

// Host 1 becomes 10.78.0.1. Host 0 is its router, and sends what comes from there as 10.77.0.14.
void put_behind_nat(const Network& network, const std::string& rule_for_udp) {
  network.run(0, "ip link add br1 type bridge stp_state 0 forward_delay 0 mcast_snooping 0 && "
                 "ip link set br1 up && ip link set v1 master br1 && "
                 "ip addr add 10.77.0.14/28 dev br0 && ip addr add 10.78.0.14/28 dev br1 && "
                 "echo 1 > /proc/sys/net/ipv4/ip_forward");
  network.run(0, "nft add table ip n && "
                 "nft 'add chain ip n c { type nat hook postrouting priority srcnat; }' && "
                 "nft add rule ip n c oifname br0 meta l4proto udp " + rule_for_udp + " && "
                 "nft add rule ip n c oifname br0 masquerade");
  network.run(1, "ip addr flush dev eth0 && ip addr add 10.78.0.1/28 brd + dev eth0 && "
                 "ip route add default via 10.78.0.14");
}

}  // namespace

TEST(Nat, ThatKeepsOurPortLetsBothListEachOtherAndOneWrite) {
  NEEDS_NAMESPACES();
  Network network(2);
  put_behind_nat(network, "masquerade");
  Process& bob = network.peer(2, "bob", {"--accept", "always"});
  bob.wait_for("ready bob@10.77.0.2:25253 lab");
  Process& ann = network.peer(1, "ann");
  ann.wait_for("ready ann@10.78.0.1:25253 lab");
  ann.say("/scan 10.77.0.2");
  ann.wait_for("joined bob@10.77.0.2:25253 lab");
  bob.wait_for("joined ann@10.77.0.14:25253 lab");
  ann.say("/msg bob hello");
  bob.wait_for("message ann@10.77.0.14:25253 private: hello");
  ann.say("/send bob " + network.folder("ann").write("a.txt", "text"));
  bob.wait_for("receive 1 stored ann@10.77.0.14:25253 4 bytes, .*");
  const std::string why =
      "cannot connect to 10.77.0.14:25253: Connection refused; a router \\(NAT\\) hides it \\(it "
      "says 10.78.0.1\\): it can write to you, but you can reach it only if that router forwards TCP 25253 "
      "to it";
  bob.say("/msg ann hello");
  bob.wait_for("failed ann@10.77.0.14:25253: " + why + "; not delivered: hello");
  bob.say("/diag ann");
  bob.wait_for("diag: TCP: " + why);
  EXPECT_FALSE(ann.prints("left .*", 17));  // no heartbeat passes, so each asks the other
  EXPECT_EQ(bob.count("left .*"), 0u);
  ann.say("/diag");
  ann.wait_for("diag: .*ours never came back.*");
  EXPECT_EQ(ann.count("diag: bob@.*"), 0u);
}

TEST(Nat, ThatChangesOurPortLetsOneListTheOtherAndIsNamed) {
  NEEDS_NAMESPACES();
  Network network(2);
  put_behind_nat(network, "masquerade to :40000");
  Process& bob = network.peer(2, "bob");
  bob.wait_for("ready bob@10.77.0.2:25253 lab");
  Process& ann = network.peer(1, "ann");
  ann.wait_for("ready ann@10.78.0.1:25253 lab");
  ann.say("/scan 10.77.0.2");
  ann.wait_for("joined bob@10.77.0.2:25253 lab");
  ann.say("/msg bob hello");
  bob.wait_for("message ann@10.77.0.14:25253 private: hello");
  ann.say("/diag");
  ann.wait_for("diag: bob@10.77.0.2:25253 answers us, but has never asked us: it cannot list us, "
               "most likely because a router \\(NAT\\) changes our port");
  EXPECT_EQ(bob.count("joined .*"), 0u);
}
