// What the program says when somebody is missing or cannot be reached. Each test breaks one thing that could break in a
// classroom.

#include "support/testing.h"

TEST(Diagnosis, IsOneScreen) {
  NEEDS_NAMESPACES();
  Network network(2);
  Process& ann = network.peer(1, "ann");
  Process& bob = network.peer(2, "bob");
  ann.wait_for("joined bob.*");
  bob.wait_for("joined ann.*");
  ann.say("/diag");
  ann.wait_for("diag: if ours never came back, .* UDP 25252 to 25508 and TCP 25253 to 25508; .*");  // the last one
  for (const char* line : {"ports UDP 25252, UDP and TCP 25253 are open", "interface lo: our broadcast came back [1-9]\\d* times",
                           "interface eth0: our broadcast came back [1-9]\\d* times, another host's came \\d+ times", "[1-9]\\d* datagrams sent",
                           "[1-9]\\d* datagrams received"})
    EXPECT_EQ(ann.count("diag: " + std::string(line)), 1u) << line << "\n" << ann.output();
  EXPECT_EQ(ann.count("diag: .*does not hear us"), 0u) << ann.output();
  for (const char* whom : {"bob", "10.77.0.2:25253"}) {
    ann.say("/diag " + std::string(whom));
    ann.wait_for("diag: UDP: bob@10.77.0.2:25253 has answered");
    ann.wait_for("diag: TCP: connected to 10.77.0.2:25253");
  }
}

TEST(Diagnosis, TellsTheOtherOnesFirewallFromAPeerThatDoesNotRunAndFromAnAddressThatIsNobodys) {
  NEEDS_NAMESPACES();
  Network network(3);
  network.peer(2, "bob").wait_for("ready .*");
  network.drop(2, "input", "meta l4proto { tcp, udp }");
  Process& ann = network.peer(1, "ann");
  ann.wait_for("ready .*");
  const auto tells = [&](const std::string& line) {
    EXPECT_TRUE(eventually([&] { return ann.count("diag: " + line) == 1; })) << line << "\n" << ann.output();
  };
  for (const char* address : {"10.77.0.2:25253", "10.77.0.3:25253", "10.77.0.7:25253"}) {
    ann.say("/diag " + std::string(address));
    tells("UDP: " + std::string(address) + " has not answered; .*");
  }
  tells("TCP: cannot connect to 10.77.0.2:25253: Connection timed out; most likely a firewall there .*");
  tells("TCP: cannot connect to 10.77.0.3:25253: Connection refused; no peer runs at that port, .*");
  tells("TCP: cannot connect to 10.77.0.7:25253: (No route to host|Host is down); nobody has that address, .*");
  EXPECT_TRUE(eventually([&] {
    ann.say("/diag");
    return ann.prints("diag: bob@10.77.0.2:25253 is heard, but does not hear us", 1);
  }));
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
  ann.wait_for("diag: interface eth0: our broadcast came back 0 times, .*");
  bob.wait_for("ready .*");
  bob.say("/diag");
  bob.wait_for("diag: 0 datagrams sent; the last failure: Operation not permitted");
}

// As ufw and firewalld install one: its owner and the others list each other, and yet only he can
// write.
TEST(Diagnosis, TellsBothSidesOfAFirewallThatLetsInOnlyAnswers) {
  NEEDS_NAMESPACES();
  Network network(2);
  network.drop(1, "input", "iifname eth0 ct state != { established, related }");
  Process& ann = network.peer(1, "ann");
  Process& bob = network.peer(2, "bob");
  ann.wait_for("joined bob.*");
  bob.wait_for("joined ann.*");
  ann.say("/diag");
  ann.wait_for("diag: interface eth0: our broadcast came back 0 times, another host's came 0 times");
  ann.wait_for("diag: if ours never came back, the firewall of this machine must let in UDP 25252 to 25508 and .*");
  EXPECT_TRUE(eventually([&] {
    bob.say("/diag");
    return bob.prints("diag: interface eth0: our broadcast came back [1-9]\\d* times, another host's came [1-9]\\d* times", 1);
  }));
  ann.say("/diag bob");
  ann.wait_for("diag: TCP: connected to 10.77.0.2:25253");
  bob.say("/diag ann");
  bob.wait_for("diag: UDP: ann@10.77.0.1:25253 has answered");
  bob.wait_for("diag: TCP: cannot connect to 10.77.0.1:25253: Connection timed out; most likely a firewall there .*");
}

TEST(Diagnosis, NamesAnAccessPointThatKeepsItsClientsApart) {
  NEEDS_NAMESPACES();
  Network network(2);
  for (const char* port : {"v1", "v2"})
    network.run(0, "bridge link set dev " + std::string(port) + " isolated on");
  Process& ann = network.peer(1, "ann");
  network.peer(2, "bob").wait_for("ready .*");
  ann.wait_for("ready .*");
  EXPECT_TRUE(eventually([&] {
    ann.say("/diag");
    return ann.prints("diag: interface eth0: our broadcast came back [1-9]\\d* times, another host's came 0 times", 1);
  }));
  ann.wait_for("diag: .*; if only ours came, nobody else is there, or the access point keeps its clients apart; .*");
}

TEST(Diagnosis, NamesAMissingRoute) {
  NEEDS_NAMESPACES();
  Network network(2);
  Process& ann = network.peer(1, "ann");
  ann.wait_for("ready .*");
  ann.say("/diag 192.0.2.1:25253");
  ann.wait_for("error: no usable route leads to 192.0.2.1:25253");
}

// It was said that the other one could not be reached, for the reason "cancelled".
TEST(Diagnosis, ThatIsCutShortByTheEndSaysNothingOfThePeer) {
  NEEDS_NAMESPACES();
  Network network(2);
  network.drop(2, "input", "meta l4proto tcp");
  Process& ann = network.peer(1, "ann");
  ann.wait_for("ready .*");
  ann.say("/diag 10.77.0.2:25253");
  ann.wait_for("diag: UDP: .*");
  ann.say("/quit");
  EXPECT_EQ(ann.exit_status(), 0);
  EXPECT_EQ(ann.count("diag.*TCP: .*"), 0u) << ann.output();
}

struct Firewall {
  std::string name, verdict, reason;
};

void PrintTo(const Firewall& firewall, std::ostream* out) { *out << firewall.name; }

// As ufw and firewalld set them up: nothing gets in that its owner has not asked for.
class FirewallOfAnother : public testing::TestWithParam<Firewall> {};

TEST_P(FirewallOfAnother, LetsHimWriteAndSendAndWhatIsSentToHimFailsWithWhatToDo) {
  NEEDS_NAMESPACES();
  Network network(2);
  const std::string unasked = "ct state != { established, related }";
  network.drop(1, "input", "iifname eth0 meta l4proto udp " + unasked);
  network.run(1, "nft 'add rule inet f c iifname eth0 meta l4proto tcp " + unasked + " " + GetParam().verdict + "'");
  Process& ann = network.peer(1, "ann", {"--accept", "always"});
  Process& bob = network.peer(2, "bob", {"--accept", "always"});
  ann.wait_for("joined bob.*");
  bob.wait_for("joined ann.*");
  for (const char* name : {"ann", "bob"}) network.folder(name).write("a.txt", "text");
  ann.say("/msg bob hello");
  bob.wait_for("message ann@\\S+ private: hello");
  ann.say("/send bob a.txt");
  bob.wait_for("receive 1 stored ann@\\S+ 4 bytes, .*");
  const std::string why = "cannot connect to 10.77.0.1:25253: " + GetParam().reason +
                          ": open TCP 25253 to 25508 on that machine";
  bob.say("/msg ann hello");
  bob.wait_for("failed ann@10.77.0.1:25253: " + why + "; not delivered: hello");
  bob.say("/send ann a.txt");
  bob.wait_for("send 2 failed ann@10.77.0.1:25253 4 bytes, " + why + ": a.txt");
  bob.say("/diag ann");
  bob.wait_for("diag: TCP: " + why);
}

INSTANTIATE_TEST_SUITE_P(
    Diagnosis, FirewallOfAnother,
    testing::Values(Firewall{"drops", "drop", "Connection timed out; most likely a firewall there lets nothing in"},
                    Firewall{"resets", "reject with tcp reset",
                             "Connection refused; no peer runs at that port, or a firewall or router there turns you "
                             "away"},
                    Firewall{"prohibits", "reject with icmp type admin-prohibited",
                             "No route to host; nobody has that address, the access point keeps you apart, or a firewall "
                             "there turns you away"}),
    [](const auto& firewall) { return firewall.param.name; });
