// What the tests stand on: real ./peer processes driven through pipes, in network namespaces made for the test,
// so that no packet of ours can reach a real network. Implemented in testing.cpp.
//
//   Network    the private network of one test: a bridge and N hosts on it (the virtual classroom), or one host alone
//   Process    a program of which every line is kept, and can be waited for
//   Socket     a scripted peer: raw UDP or TCP, in one host's namespace
//
// A wait is a poll with a deadline, never a fixed sleep; one that is missed fails the test and shows what was printed.
// The system's calls are one level below, in system.h.

#ifndef CHATBYP2P_TESTING_H
#define CHATBYP2P_TESTING_H

#include <gtest/gtest.h>
#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <regex>
#include <string>
#include <vector>

// Puts this process into a network namespace of its own, before any test runs. False where the
// system forbids it. And has the sanitizers, if any are used, end a process with a status that
// Process knows for a report; and puts the folders of nft and tc into the PATH, in which an
// ordinary user may not have them.
bool enter_private_network();

// At the top of every test that starts a peer.
#define NEEDS_NAMESPACES()                                                                               \
  if (!namespaces_work())                                                                                \
  GTEST_SKIP() << "network namespaces are not allowed here; run as root, or allow them: "                \
                  "sysctl kernel.apparmor_restrict_unprivileged_userns=0 kernel.unprivileged_userns_clone=1"
bool namespaces_work();

// And of every test that uses a program which may be missing: its name, and that of its package.
#define NEEDS_PROGRAM(program, package)                           \
  if (std::system("command -v " program " >/dev/null") != 0)      \
  GTEST_SKIP() << program " is not installed: apt-get install " package

// True as soon as `condition` is; false if it is not within `seconds`.
bool eventually(double seconds, const std::function<bool()>& condition);
// The same for what has to come, but need not be fast: a busy machine has 30 s for it.
inline bool eventually(const std::function<bool()>& condition) { return eventually(30, condition); }

// A folder, in `where`, that goes away with the object.
class Folder {
 public:
  explicit Folder(const std::string& where = "/tmp");
  ~Folder();
  Folder(const Folder&) = delete;
  std::string path(const std::string& name = "") const { return path_ + (name.empty() ? "" : "/" + name); }
  std::string write(const std::string& name, const std::string& content) const;  // its path
  std::vector<std::string> names(const std::string& subfolder = "") const;       // sorted

 private:
  std::string path_;
};

std::string peer_program();  // $PEER, or ./peer
// A sentence that the specification leaves to each program, as a pattern: `ours` where ours plays `name`; any other where
// the second implementation does (KINDS=second).
std::string wording(const std::string& name, const std::string& ours);
std::string sanitizer();     // with which it was built: $SANITIZE, "thread" or "address,undefined"
int class_size();            // 30; with the thread sanitizer, which takes ten times the memory and the time, 12
std::string read_file(const std::string& path);
std::vector<std::string> lines_of(const std::string& text);  // without their ends
std::string joined(const std::vector<std::string>& texts, const std::string& between);
std::string id_in(const std::string& line);  // of an announcement; "" if it has none
// Where the text has what the pattern (ECMAScript) says, from left to right. They point into the text.
std::vector<std::smatch> matches(const std::string& text, const std::string& pattern);
std::vector<std::smatch> matches(std::string&& gone, const std::string& pattern) = delete;
bool is_sanitizers(const std::string& text);  // there is a report of a sanitizer in it
std::string random_bytes(size_t size, unsigned seed);
std::string cksum(const std::string& path);  // "CRC SIZE", by the system's own command

class Process {
 public:
  Process(int network, const std::vector<std::string>& command, const std::string& folder);
  Process(Process&&) = delete;
  ~Process();                                        // ends it, by SIGKILL if need be; a crash or a report then fails the test

  void say(const std::string& line) const;           // a line of its standard input
  bool has_read() const;                             // all that was said; what is said next is another program's, perhaps
  void end_input();
  void signal(int number) const;
  pid_t pid() const { return pid_; }
  // What it uses now: of "fd" and "task", how many; of a line of /proc/PID/status, as "VmHWM", how many KiB.
  size_t uses(const std::string& what) const;
  bool is_waiting() const;                           // each of its threads, for something to happen
  // The first line, of those printed and not passed by an earlier wait_for(), that `pattern` (ECMAScript) matches whole.
  // Lines before it are kept for count(), not for the next wait_for(). Fails the test after `seconds`.
  std::string wait_for(const std::string& pattern, double seconds = 30);
  bool prints(const std::string& pattern, double seconds);  // the same, without passing it and without failing
  size_t count(const std::string& pattern);          // of all lines so far
  const std::vector<std::string>& lines();           // all so far: where there are many, cheaper than count()
  std::string output();                              // of both streams, all so far
  // 128 + N if signal N ended it; -1, and a failure, if it still runs. A report of a sanitizer fails the test, too.
  int exit_status(double seconds = 30);

  void read_more(double seconds = 0);                // what it prints, lest a full pipe make it wait for us

 private:
  bool ends(double seconds, int& status);
  std::string state() const;
  pid_t pid_ = -1;
  int in_ = -1, out_ = -1;
  mutable bool is_told_ = false;                     // to leave, by a signal
  std::string partial_;
  std::vector<std::string> lines_;
  size_t passed_ = 0;
};

// N hosts on one bridge: host 1 is 10.77.0.1, and so on; on a network of so many bits, but more
// than ten hosts on a /24. With no host it is a single namespace with loopback only: host 0.
class Network {
 public:
  explicit Network(int hosts, int bits = 28);
  ~Network();
  Network(const Network&) = delete;

  static std::string address(int host) { return "10.77.0." + std::to_string(host); }
  void run(int host, const std::string& command) const;  // in a shell; the test fails if it does
  // A firewall of that host: drops what `rule` fits (as nft has it) at the hook "input" or "output". One a host; "nft
  // flush ruleset" ends it.
  void drop(int host, const std::string& hook, const std::string& rule) const;
  int descriptor(int host) const;                    // of its namespace
  // A socket of that host, of IPv4; the caller closes it. A type may be SOCK_STREAM | SOCK_NONBLOCK, for instance.
  int socket(int host, int type, int protocol = 0) const;
  // A packet socket (packet(7)), for frames of that kind on that interface: "eth0" of a host, "v1" of the switch to host 1.
  int cable(int host, const std::string& interface, int type, int kind) const;

  // ./peer on that host, in a folder of its own, folder(name), which it finds again when it is started again; with --name
  // and --group lab unless given.
  Process& peer(int host, const std::string& name, std::vector<std::string> options = {});
  // One on each host, u1 on host 1 and so on: started as a class would, all at once, waiting for nobody.
  std::vector<Process*> peers(const std::vector<std::string>& options = {});
  const Folder& folder(const std::string& name) const;

 private:
  void wait_until_it_carries() const;
  std::vector<int> namespaces_;
  std::vector<std::pair<std::string, std::unique_ptr<Folder>>> folders_;
  std::vector<std::unique_ptr<Process>> processes_;
};

// A library, in `folder`, that makes fsync() and sync() hang for ever, as they do on a stick that was pulled out: for
// LD_PRELOAD. Whoever hangs has made the file "hangs" there.
std::string hung_disk(const Network& network, const Folder& folder);

// ./peer, in a folder of its own, with clocks that can be put on: what takes minutes is tested in
// no time. That holds for waits that look at the clock again and again, not for one long wait of
// the kernel's.
class ClockedPeer {
 public:
  // With the time of day so many seconds later than it is, from its start on.
  ClockedPeer(const Network& network, int host, const std::vector<std::string>& options, int date = 0);
  Process& process() { return *process_; }
  const Folder& folder() const { return folder_; }
  void let_pass(int seconds);                        // on the clock that timers go by, once all threads wait
  void set_date(int seconds) const;                  // the time of day is so much later than it is
  void slow_down_reading(int seconds) const;         // so much passes with each pread(), as on a bad disk

 private:
  void put_on(const std::string& clock, int seconds) const;
  const Folder folder_;
  int passed_ = 0;
  std::unique_ptr<Process> process_;
};

// For what has to be fast: on a busy machine all may stand still for a second, but hardly three times.
bool in_three_tries(const std::function<bool()>& works);

// Each has told of all others that they joined, within `seconds` for all of them together.
bool all_list_all(const std::vector<Process*>& peers, double seconds);
// The same; if not, the test fails, and shows the first that has not.
void expect_all_list_all(const std::vector<Process*>& peers, double seconds = 30);

// What is said of who was not heard for three heartbeats, as a pattern: a busy machine may notice it some seconds late.
inline const std::string kSilent = "silent for (1[5-9]|2\\d) s";

// A test on one host, which has loopback only.
class OneHost : public testing::Test {
 protected:
  void SetUp() override {
    NEEDS_NAMESPACES();
    network = std::make_unique<Network>(0);
  }
  std::unique_ptr<Network> network;
};

// The first line over TCP of ann, and the reply of bob, where a test plays them itself.
inline const std::string kAnnsHello =
    "ChatByP2P/1 HELLO id=00000000000000aa ip=127.0.0.1 port=40000 name=ann group=lab\n";
inline const std::string kBobsReply =
    "OK ChatByP2P/1 HERE id=00000000000000bb ip=127.0.0.1 port=40001 name=bob group=lab\n";

// A raw socket in a host's namespace. What is waited for and does not come within 30 s ends the test: it is thrown.
class Socket {
 public:
  // Connected; from the address `from`, if one is given, as any of 127.0.0.0/8 may be.
  static Socket tcp(const Network& network, int host, const std::string& ip, int port, const std::string& from = "");
  static Socket tcp_listener(const Network& network, int host, int port);
  static Socket udp(const Network& network, int host, int port, const std::string& from = "0.0.0.0");  // may broadcast
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)), buffer_(std::move(other.buffer_)) {}
  ~Socket();

  Socket accept() const;
  bool send(const std::string& bytes) const;         // false once the other side has closed the connection
  void end_output() const;                           // half-closes: nothing more will be sent
  void reset();                                      // ends the connection with a reset
  void send_to(const std::string& ip, int port, const std::string& datagram) const;
  // A datagram, perhaps a broadcast, with a source that is forged.
  static void forge(const Network& network, int host, const std::string& from_ip, int from_port,
                    const std::string& to_ip, int to_port, const std::string& datagram);
  void share_port_no_more() const;                   // from now on nobody else can bind it
  // Makes this socket a peer that the one at ip:port lists: HELLO, and the answer HERE that it is heard.
  void meet(const std::string& ip, int port, const std::string& fields) const;
  std::string line();                                // without its LF
  std::optional<std::string> line_or_end();          // nothing where the other side has closed the connection
  std::string datagram() const;
  bool is_closed();                                  // by the other side, with nothing more to read, within 30 s

 private:
  explicit Socket(int fd) : fd_(fd) {}
  int fd_;
  std::string buffer_;
};

#endif
