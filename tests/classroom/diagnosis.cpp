// When somebody is missing: what /diag says of it. Each test breaks one thing, as a classroom would.

#include "support/testing.h"

TEST(Diagnosis, SaysOfEachStepThatItHolds) {
  NEEDS_NAMESPACES();
  Network network(2);
  Process& ann = network.peer(1, "ann");
  Process& bob = network.peer(2, "bob");
  ann.wait_for("joined bob.*");
  bob.wait_for("joined ann.*");
  ann.say("/diag");
  for (const char* fact : {"interface lo is up, with 127.0.0.1/8", "interface eth0 is up, with 10.77.0.1/\\d+",
                           "our last broadcast to 10.77.0.\\d+ was heard back \\d s ago", "a network to find others on",
                           "ports UDP 25252, UDP 25253 and TCP 25253 are bound", "\\d+ datagrams sent, \\d+ received",
                           "bob@10.77.0.2:25253 was heard \\d s ago", "others are heard"})
    EXPECT_TRUE(eventually(10, [&] { return ann.count("diag ok: " + std::string(fact)) == 1; })) << fact << ann.output();
  for (const char* whom : {"bob", "10.77.0.2", "10.77.0.2:25253"}) {
    ann.say("/diag " + std::string(whom));
    ann.wait_for("diag ok: a route leads to 10.77.0.2 from 10.77.0.1");
    ann.wait_for("diag ok: 10.77.0.2 is on a network of ours");
    ann.wait_for("diag ok: UDP: 10.77.0.2:25253 answered \\d s ago");
    ann.wait_for("diag ok: TCP: bob@10.77.0.2:25253 answers");
  }
  EXPECT_EQ(ann.count("diag failed.*"), 0u) << ann.output();
}

TEST(Diagnosis, TellsTheOtherOnesFirewallFromAPeerThatDoesNotRunAndFromAnAddressThatIsNobodys) {
  NEEDS_NAMESPACES();
  Network network(3);
  network.peer(2, "bob").wait_for("ready .*");
  network.drop(2, "input", "meta l4proto { tcp, udp }");
  Process& ann = network.peer(1, "ann");
  ann.wait_for("ready .*");
  ann.say("/diag 10.77.0.2");  // bob has a firewall
  ann.say("/diag 10.77.0.3");  // no peer runs there
  ann.say("/diag 10.77.0.7");  // nobody is there
  const auto tells = [&](const std::string& line) {
    EXPECT_TRUE(eventually(20, [&] { return ann.count("diag failed: " + line) == 1; })) << line << "\n" << ann.output();
  };
  tells("TCP: cannot connect to 10.77.0.2:25253: Connection timed out: a firewall drops it; .* TCP 25253 to 25508");
  tells("TCP: cannot connect to 10.77.0.3:25253: Connection refused: no peer listens there; .*");
  tells("TCP: cannot connect to 10.77.0.7:25253: No route to host: nobody has that address; .*");
  for (const char* host : {"2", "3", "7"}) tells("UDP: 10.77.0." + std::string(host) + ":25253 answered never: .*");
  tells("UDP: 10.77.0.2:.* it is heard, but its firewall drops what comes to it; .* UDP 25252 to 25508");
  network.run(2, "nft flush ruleset");
  network.drop(2, "input", "meta l4proto udp");
  ann.say("/diag 10.77.0.2");
  ann.wait_for("diag ok: TCP: bob@10.77.0.2:25253 answers");
}

TEST(Diagnosis, FindsOurOwnFirewall) {
  NEEDS_NAMESPACES();
  Network network(2);
  network.drop(1, "input", "iifname eth0 meta l4proto udp");
  network.drop(2, "output", "meta l4proto { tcp, udp }");
  Process& ann = network.peer(1, "ann");
  Process& bob = network.peer(2, "bob");
  ann.wait_for("ready .*");
  ann.say("/diag");
  ann.wait_for("diag failed: our last broadcast to 10.77.0.\\d+ was heard back never: a firewall of this machine drops it; .*");
  ann.wait_for("diag failed: others are heard: nobody is; /diag ADDRESS looks at one of them");
  bob.wait_for("ready .*");
  bob.say("/diag");
  bob.wait_for("diag failed: \\d+ datagrams sent, \\d+ received: the last that could not be sent, \\d s ago: Operation not permitted");
}

TEST(Diagnosis, NamesAMissingNetworkAMissingRouteAndARouter) {
  NEEDS_NAMESPACES();
  Network network(2);
  network.run(1, "ip route add 10.99.0.0/16 via 10.77.0.2");
  Process& ann = network.peer(1, "ann");
  ann.wait_for("ready .*");
  ann.say("/diag 10.99.0.1");
  ann.wait_for("diag failed: 10.99.0.1 is on a network of ours: a router is between, .*; /scan 10.99.0.1 finds who is there");
  ann.say("/diag 192.0.2.1");
  ann.wait_for("diag failed: a route leads to 192.0.2.1: none by the interfaces we use; ip route get 192.0.2.1 .*");
  network.run(1, "ip link set eth0 down");
  EXPECT_TRUE(eventually(10, [&] {
    ann.say("/diag");
    return ann.prints("diag failed: a network to find others on: no interface but lo is up .*", 1);
  }));
}
