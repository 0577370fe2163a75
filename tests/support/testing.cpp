// The implementation of testing.h.

#include "testing.h"

#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <regex>
#include <set>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "system.h"

namespace fs = std::filesystem;

namespace {

using Clock = std::chrono::steady_clock;

bool namespaces = false;
int home_network = -1;
bool has_started_ours = false, has_started_second = false;  // of two implementations, which this process has
constexpr int kReported = 66;  // the exit status of a process of which a sanitizer has something to report

Clock::time_point in(double seconds) {
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

bool readable(int fd, double seconds) {
  pollfd ready{fd, POLLIN, 0};
  return ::poll(&ready, 1, static_cast<int>(seconds * 1000)) > 0;
}

// setns() moves the calling thread only, and a socket stays in the namespace that it was made in.
template <class Action>
auto within(int network, Action action) {
  must(::setns(network, CLONE_NEWNET) == 0, "setns");
  auto result = action();
  must(::setns(home_network, CLONE_NEWNET) == 0, "setns back");
  return result;
}

// By default AddressSanitizer and UndefinedBehaviorSanitizer end a process with status 1, as our
// program ends itself when something was not delivered. Whatever is started from here inherits
// this, by way of a shell, too.
void tell_sanitizers() {
  const std::string exitcode = "exitcode=" + std::to_string(kReported);
  for (const char* name : {"ASAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"}) {
    const char* given = std::getenv(name);
    const std::string options = (given ? given + std::string(":") : "") + exitcode;
    ::setenv(name, options.c_str(), 1);
  }
  // Some tests preload a library, which then comes before that of the sanitizer.
  const std::string address = std::getenv("ASAN_OPTIONS") + std::string(":verify_asan_link_order=0");
  ::setenv("ASAN_OPTIONS", address.c_str(), 1);
}

bool has_reported(int status) { return WIFEXITED(status) && WEXITSTATUS(status) == kReported; }

int new_network() {
  must(::unshare(CLONE_NEWNET) == 0, "unshare");
  const int network = ::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  must(network != -1 && ::setns(home_network, CLONE_NEWNET) == 0, "setns back");
  return network;
}

void shell(int network, const std::string& command) {
  const int status = within(network, [&] { return std::system(command.c_str()); });
  if (status != 0) throw std::runtime_error("failed: " + command);
}

}  // namespace

bool namespaces_work() { return namespaces; }

std::string sanitizer() { return setting("SANITIZE"); }

int class_size() { return sanitizer() == "thread" ? 12 : 30; }

std::string peer_program() {
  has_started_ours = true;
  return fs::absolute(setting("PEER", "./peer"));
}

// With SECOND_PLAYS=bob every bob is another program: SECOND, or tests/second.
static bool is_second(const std::string& name) { return name == setting("SECOND_PLAYS"); }

std::string wording(const std::string& name, const std::string& ours) { return is_second(name) ? ".*" : ours; }

bool enter_private_network() {
  ::setenv("PATH", (setting("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin").c_str(), 1);
  tell_sanitizers();
  const uid_t uid = ::getuid();
  const gid_t gid = ::getgid();
  if (::unshare(uid == 0 ? CLONE_NEWNET : CLONE_NEWUSER | CLONE_NEWNET) == -1) return false;
  if (uid != 0) {
    std::ofstream("/proc/self/setgroups") << "deny";
    std::ofstream("/proc/self/uid_map") << "0 " << uid << " 1";
    std::ofstream("/proc/self/gid_map") << "0 " << gid << " 1";
  }
  home_network = ::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  namespaces = home_network != -1 && std::system("ip link set lo up") == 0;
  return namespaces;
}

bool eventually(double seconds, const std::function<bool()>& condition) {
  for (const auto deadline = in(seconds); Clock::now() < deadline; std::this_thread::sleep_for(std::chrono::milliseconds(5)))
    if (condition()) return true;
  return condition();
}

// ---- Files ------------------------------------------------------------------------------

Folder::Folder(const std::string& where) : path_(where + "/chatbyp2p.XXXXXX") {
  must(::mkdtemp(path_.data()) != nullptr, "mkdtemp in " + where);
}

Folder::~Folder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::string Folder::write(const std::string& name, const std::string& content) const {
  std::ofstream(path(name), std::ios::binary) << content;
  return path(name);
}

std::vector<std::string> Folder::names(const std::string& subfolder) const { return names_in(path(subfolder)); }

std::string read_file(const std::string& path) {
  std::ostringstream content;
  content << std::ifstream(path, std::ios::binary).rdbuf();
  return content.str();
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::string joined(const std::vector<std::string>& texts, const std::string& between) {
  std::string all;
  for (const std::string& text : texts) all += (all.empty() ? "" : between) + text;
  return all;
}

std::vector<std::smatch> matches(const std::string& text, const std::string& pattern) {
  static std::map<std::string, std::regex> compiled;
  const std::regex& regex = compiled.emplace(pattern, pattern).first->second;
  return {std::sregex_iterator(text.begin(), text.end(), regex), std::sregex_iterator()};
}

std::string id_in(const std::string& line) {
  const auto found = matches(line, " id=([0-9a-f]{16})");
  return found.empty() ? "" : found[0][1].str();
}

bool is_sanitizers(const std::string& text) {
  return text.find("Sanitizer") != std::string::npos || text.find(": runtime error: ") != std::string::npos;
}

std::string random_bytes(size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

std::string cksum(const std::string& path) {
  FILE* pipe = ::popen(("cksum < '" + path + "'").c_str(), "r");
  must(pipe != nullptr, "popen");
  char line[100] = "";
  if (!std::fgets(line, sizeof line, pipe)) line[0] = '\0';
  ::pclose(pipe);
  return std::string(line, std::strcspn(line, "\n"));
}

// ---- Processes -----------------------------------------------------------------------------

Process::Process(int network, const std::vector<std::string>& command, const std::string& folder) {
  int in[2], out[2];
  must(::pipe2(in, O_CLOEXEC) == 0 && ::pipe2(out, O_CLOEXEC) == 0, "pipe2");
  pid_ = ::fork();
  must(pid_ != -1, "fork");
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a test that crashes leaves no peer behind
    reset_signals();
    ::dup2(in[0], 0);
    ::dup2(out[1], 1);
    ::dup2(out[1], 2);
    if (::setns(network, CLONE_NEWNET) == 0 && ::chdir(folder.c_str()) == 0) become(command);
    ::_exit(127);
  }
  ::close(in[0]);
  ::close(out[1]);
  in_ = in[1];
  out_ = out[0];
}

// Asked to leave first: only who ends by itself has its leaks and races told by a sanitizer, and its lines counted.
Process::~Process() {
  end_input();
  if (pid_ != -1) {
    int status = 0;
    if (!is_told_) signal(SIGTERM);  // a second one would end it on the spot
    signal(SIGCONT);
    const bool left = ends(5, status);
    if (!left && ::kill(pid_, SIGKILL) == 0) ::waitpid(pid_, nullptr, 0);
    const bool crashed = left && WIFSIGNALED(status) && WTERMSIG(status) != SIGTERM && WTERMSIG(status) != SIGKILL;
    if (crashed || (left && has_reported(status))) ADD_FAILURE() << "left with status " << status << ":\n" << output();
  }
  ::close(out_);
}

void Process::say(const std::string& line) const {
  const std::string bytes = line + "\n";
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t wrote = ::write(in_, bytes.data() + done, bytes.size() - done);
    if (wrote == -1) return;
    done += static_cast<size_t>(wrote);
  }
}

bool Process::has_read() const {
  int left = 0;
  return ::ioctl(in_, FIONREAD, &left) == 0 && left == 0;
}

void Process::end_input() {
  if (in_ != -1) ::close(std::exchange(in_, -1));
}

void Process::signal(int number) const {
  if (pid_ == -1) return;  // it has ended; and kill(-1) would be for every process there is
  ::kill(pid_, number);
  is_told_ |= number == SIGTERM || number == SIGINT;
  // kill() returns before the process stands still: another of its threads may still answer a message. WNOWAIT, for one
  // that has ended instead is still to be asked how; and its number is not to be another's before.
  siginfo_t ignored{};
  if (number == SIGSTOP) ::waitid(P_PID, static_cast<id_t>(pid_), &ignored, WSTOPPED | WEXITED | WNOWAIT);
}

size_t Process::uses(const std::string& what) const {
  const std::string folder = "/proc/" + std::to_string(pid_) + "/";
  if (fs::is_directory(folder + what)) {
    const fs::directory_iterator all(folder + what);
    return static_cast<size_t>(std::distance(begin(all), end(all)));
  }
  const std::string status = read_file(folder + "status");
  const size_t at = status.find(what + ":");
  return at == std::string::npos ? 0 : std::stoul(status.substr(at + what.size() + 1));
}

bool Process::is_waiting() const {
  std::error_code ended;
  for (const auto& thread : fs::directory_iterator("/proc/" + std::to_string(pid_) + "/task", ended)) {
    const std::string status = read_file(thread.path() / "status");
    const bool is_asleep = status.find("\nState:\tS") != std::string::npos;
    if (!is_asleep) return false;
  }
  return true;
}

void Process::read_more(double seconds) {
  char bytes[65536];
  if (!readable(out_, seconds)) return;
  const ssize_t got = ::read(out_, bytes, sizeof bytes);
  if (got <= 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // its end has come; do not spin until the deadline
    return;
  }
  partial_.append(bytes, static_cast<size_t>(got));
  for (size_t end; (end = partial_.find('\n')) != std::string::npos; partial_.erase(0, end + 1))
    lines_.push_back(partial_.substr(0, end));
}

std::string Process::wait_for(const std::string& pattern, double seconds) {
  const std::regex regex(pattern);
  const auto deadline = in(seconds);
  for (size_t i = passed_; true; ++i) {
    while (i >= lines_.size() && Clock::now() < deadline) read_more(0.05);
    if (i >= lines().size()) break;  // with what came while we stood still ourselves
    if (!std::regex_match(lines_[i], regex)) continue;
    passed_ = i + 1;
    return lines_[i];
  }
  ADD_FAILURE() << "no line '" << pattern << "' within " << seconds << " s; " << state() << ":\n" << output();
  return "";
}

// For who reads of a failure: does it stand still, or is there nobody any more?
std::string Process::state() const {
  siginfo_t ended{};
  const bool is_ours = pid_ != -1;
  if (is_ours) ::waitid(P_PID, static_cast<id_t>(pid_), &ended, WEXITED | WNOHANG | WNOWAIT);
  if (!is_ours || ended.si_pid == 0) return is_ours ? "it runs, and says" : "it had ended, and said";
  const std::string how = ended.si_code == CLD_EXITED ? "with status " : "by signal ";
  return "it has ended, " + how + std::to_string(ended.si_status) + ", and said";
}

bool Process::prints(const std::string& pattern, double seconds) {
  const std::regex regex(pattern);
  return eventually(seconds, [&] {
    read_more(0);
    for (size_t i = passed_; i < lines_.size(); ++i)
      if (std::regex_match(lines_[i], regex)) return true;
    return false;
  });
}

const std::vector<std::string>& Process::lines() {
  while (readable(out_, 0)) {
    const size_t before = lines_.size() + partial_.size();
    read_more(0);
    if (lines_.size() + partial_.size() == before) break;
  }
  return lines_;
}

size_t Process::count(const std::string& pattern) {
  const std::regex regex(pattern);
  const auto& all = lines();
  const auto matches = [&](const std::string& line) { return std::regex_match(line, regex); };
  return static_cast<size_t>(std::count_if(all.begin(), all.end(), matches));
}

std::string Process::output() {
  std::string all;
  for (const std::string& line : lines()) all += line + "\n";
  return all + partial_;
}

bool Process::ends(double seconds, int& status) {
  return eventually(seconds, [&] {
    read_more(0);  // a full pipe would keep it from ending
    return ::waitpid(pid_, &status, WNOHANG) == pid_;
  });
}

int Process::exit_status(double seconds) {
  if (pid_ == -1) throw std::logic_error("how it ended was asked before");  // waitpid(-1) would wait for any
  int status = 0;
  if (!ends(seconds, status)) {
    ADD_FAILURE() << "still running after " << seconds << " s:\n" << output();
    return -1;
  }
  pid_ = -1;
  if (has_reported(status)) ADD_FAILURE() << "a sanitizer has something to report:\n" << output();
  return shell_status(status);
}

// ---- The virtual classroom -----------------------------------------------------------------

namespace {

constexpr int kMostWithArp = 10;

// Three a host, and a test may be a thousand attackers; many systems grant 1,024 unless asked.
void allow_descriptors() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

std::string mac(int host) {
  char text[18];
  std::snprintf(text, sizeof text, "02:00:00:00:00:%02x", static_cast<unsigned>(host & 255));
  return text;
}

// All namespaces of a machine share one table of neighbours, with room for 1,024: N hosts fill N *
// N of it, and each absent address that they sweep takes one more for seconds. So a small network
// is a /28, and nine tests at a time have room. A crowd needs more addresses, and has a /24, as a
// real one would. But what is entered by hand does not count: a crowd gets no ARP; each address has
// its host's MAC address, an absent one that of the switch, which drops it.
std::string all_neighbours(int hosts) {
  std::string batch = "neigh add 10.77.0.255 lladdr ff:ff:ff:ff:ff:ff dev eth0 nud permanent\n"
                      "neigh add 0.0.0.0 lladdr 00:00:00:00:00:00 dev lo nud permanent\n";
  for (int host = 1; host <= 254; ++host)
    batch += "neigh add " + Network::address(host) + " lladdr " + mac(host <= hosts ? host : 0) +
             " dev eth0 nud permanent\n";
  return batch;
}

// A frame for all on this cable, which no program but ours knows. On a link that is not up yet it is lost.
void call_through(int cable) {
  sockaddr_ll everybody{};
  socklen_t size = sizeof everybody;
  ::getsockname(cable, reinterpret_cast<sockaddr*>(&everybody), &size);  // it has the interface, and the kind of frame
  everybody.sll_halen = ETH_ALEN;
  std::memset(everybody.sll_addr, 0xff, ETH_ALEN);
  ::sendto(cable, "probe", 5, 0, reinterpret_cast<const sockaddr*>(&everybody), sizeof everybody);
}

// The hosts that were heard since the last call, by the last byte of their MAC addresses: the switch is 0.
std::set<int> heard_through(int cable) {
  std::set<int> hosts;
  char frame[64];
  sockaddr_ll from{};
  socklen_t size = sizeof from;
  while (::recvfrom(cable, frame, sizeof frame, 0, reinterpret_cast<sockaddr*>(&from), &size) > 0)
    hosts.insert(from.sll_addr[ETH_ALEN - 1]);
  return hosts;
}

}  // namespace

Network::Network(int hosts, int bits) {
  namespaces_.push_back(new_network());  // host 0: the switch, or the only one
  shell(namespaces_[0], "ip link set lo up");
  allow_descriptors();
  if (hosts == 0) return;
  // Without querying multicast and without spanning tree, a bridge forwards from its first moment on.
  std::string batch = "link add br0 address " + mac(0) + " type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n"
                      "link set br0 up\n";
  for (int host = 1; host <= hosts; ++host) {
    namespaces_.push_back(new_network());
    const std::string link = "v" + std::to_string(host);
    // /proc/PID/fd names a namespace that has no name of its own.
    const std::string name = "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(namespaces_.back());
    batch += "link add " + link + " type veth peer name eth0 address " + mac(host) + " netns " + name +
             "\nlink set " + link + " master br0 up\n";
  }
  const Folder scratch;
  shell(namespaces_[0], "ip -batch " + scratch.write("batch", batch));
  const bool is_crowd = hosts > kMostWithArp;
  const std::string own = "link set lo up\nlink set eth0 up\naddr add ";
  const std::string prefix = "/" + std::to_string(is_crowd ? 24 : bits);
  const std::string rest = prefix + " brd + dev eth0\n" + (is_crowd ? all_neighbours(hosts) : "");
  for (int host = 1; host <= hosts; ++host)
    run(host, "ip -batch " + scratch.write("batch", own + address(host) + rest));
  wait_until_it_carries();
}

// Where many networks are made at once, one is there before it carries anything: its links come up when the kernel has
// time. So nothing begins before the switch has heard each host, and each host the switch. They call with frames of a
// kind that IP knows nothing of: no port, no counter and no table of neighbours shows it.
void Network::wait_until_it_carries() const {
  constexpr double kPatience = 60;
  const int last = static_cast<int>(namespaces_.size()) - 1;
  std::vector<int> cables = {cable(0, "br0", SOCK_DGRAM | SOCK_NONBLOCK, ETH_P_802_EX1)};
  std::set<int> mute, deaf;  // hosts that the switch has not heard yet, and that have not heard the switch
  for (int host = 1; host <= last; ++host) {
    cables.push_back(cable(host, "eth0", SOCK_DGRAM | SOCK_NONBLOCK, ETH_P_802_EX1));
    mute.insert(host);
    deaf.insert(host);
  }
  const bool is_up = eventually(kPatience, [&] {
    call_through(cables[0]);
    for (const int host : mute) call_through(cables[static_cast<size_t>(host)]);
    for (const int host : heard_through(cables[0])) mute.erase(host);
    for (const int host : std::set<int>(deaf))
      if (heard_through(cables[static_cast<size_t>(host)]).count(0) > 0) deaf.erase(host);
    return mute.empty() && deaf.empty();
  });
  for (const int fd : cables) ::close(fd);
  if (!is_up) throw std::runtime_error("the virtual network carries nothing");
}

static void expect_both_kinds() {
  if (setting("SECOND_PLAYS").empty()) return;
  EXPECT_TRUE(has_started_ours && has_started_second) << "only one of two implementations took part";
}

Network::~Network() {
  if (!processes_.empty()) expect_both_kinds();
  for (const auto& process : processes_) process->signal(SIGTERM);  // all at once, for each may take a moment
  processes_.clear();
  for (const int network : namespaces_) ::close(network);  // the last reference: the kernel takes it all down
}

void Network::drop(int host, const std::string& hook, const std::string& rule) const {
  run(host, "nft add table inet f && nft 'add chain inet f c { type filter hook " + hook + " priority 0; }' && "
            "nft add rule inet f c " + rule + " drop");
}

int Network::descriptor(int host) const { return namespaces_.at(static_cast<size_t>(host)); }

int Network::socket(int host, int type, int protocol) const {
  const int fd = within(descriptor(host), [&] { return ::socket(AF_INET, type | SOCK_CLOEXEC, protocol); });
  must(fd != -1, "socket");
  return fd;
}

int Network::cable(int host, const std::string& interface, int type, int kind) const {
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(static_cast<uint16_t>(kind));
  const int fd = within(descriptor(host), [&] {
    address.sll_ifindex = static_cast<int>(::if_nametoindex(interface.c_str()));
    return ::socket(AF_PACKET, type | SOCK_CLOEXEC, address.sll_protocol);
  });
  must(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0, "bind to " + interface);
  return fd;
}

void Network::run(int host, const std::string& command) const { shell(descriptor(host), command); }

static std::string program_of(const std::string& name) {
  if (!is_second(name)) return peer_program();
  has_started_second = true;
  return fs::absolute(setting("SECOND", ".build/second"));
}

Process& Network::peer(int host, const std::string& name, std::vector<std::string> options) {
  std::vector<std::string> command = {program_of(name), "--name", name, "--group", "lab"};
  command.insert(command.end(), options.begin(), options.end());
  const auto is_its = [&](const auto& entry) { return entry.first == name; };
  if (std::none_of(folders_.begin(), folders_.end(), is_its)) folders_.emplace_back(name, std::make_unique<Folder>());
  processes_.push_back(std::make_unique<Process>(descriptor(host), command, folder(name).path()));
  return *processes_.back();
}

std::vector<Process*> Network::peers(const std::vector<std::string>& options) {
  std::vector<Process*> all;
  for (int host = 1; host < static_cast<int>(namespaces_.size()); ++host)
    all.push_back(&peer(host, "u" + std::to_string(host), options));
  return all;
}

const Folder& Network::folder(const std::string& name) const {
  for (const auto& entry : folders_)
    if (entry.first == name) return *entry.second;
  throw std::runtime_error("no peer was called " + name);
}

std::string hung_disk(const Network& network, const Folder& folder) {
  const std::string source = folder.write(
      "hung.c", "int pause(void);\n"
                "int creat(const char*, unsigned);\n"
                "int fsync(int fd) { creat(\"" + folder.path("hangs") + "\", 0600); for (;;) pause(); return fd; }\n"
                "void sync(void) { fsync(0); }\n");
  network.run(0, "cc -shared -fPIC -o " + folder.path("hung.so") + " " + source);
  return folder.path("hung.so");
}

namespace {

// A clock is ahead by as many seconds as its file in the present folder says, and timers by as many
// more for each pread() as the file "reading" says. A condition variable waits for a moment that
// the program has read from such a clock, and the kernel knows nothing of that. The calls by
// number, lest a sanitizer, which reads the clock as well, be asked before it is ready.
constexpr char kClocks[] = R"(
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long spent_reading;

static long seconds_in(const char* file) {
  const long fd = syscall(SYS_openat, AT_FDCWD, file, O_RDONLY);
  char text[20] = "";
  if (fd < 0) return 0;
  syscall(SYS_read, fd, text, sizeof text - 1);
  syscall(SYS_close, fd);
  return atol(text);
}

static long ahead(clockid_t which) {
  if (which == CLOCK_REALTIME) return seconds_in("date");
  if (which == CLOCK_MONOTONIC) return seconds_in("timers") + __atomic_load_n(&spent_reading, __ATOMIC_SEQ_CST);
  return 0;
}

ssize_t pread64(int fd, void* into, size_t most, off_t offset) {
  __atomic_add_fetch(&spent_reading, seconds_in("reading"), __ATOMIC_SEQ_CST);
  return syscall(SYS_pread64, fd, into, most, offset);
}

int clock_gettime(clockid_t which, struct timespec* now) {
  const long result = syscall(SYS_clock_gettime, which, now);
  now->tv_sec += ahead(which);
  return (int)result;
}

int pthread_cond_clockwait(pthread_cond_t* changed, pthread_mutex_t* mutex, clockid_t which,
                           const struct timespec* until) {
  int (*wait)(pthread_cond_t*, pthread_mutex_t*, clockid_t, const struct timespec*) =
      dlsym(RTLD_NEXT, "pthread_cond_clockwait");
  struct timespec moment = *until;
  moment.tv_sec -= ahead(which);
  return wait(changed, mutex, which, &moment);
}
)";

}  // namespace

ClockedPeer::ClockedPeer(const Network& network, int host, const std::vector<std::string>& options, int date) {
  const std::string library = folder_.path("clocks.so");
  network.run(0, "cc -shared -fPIC " + folder_.write("clocks.c", kClocks) + " -o " + library + " -ldl");
  std::vector<std::string> command = {"/usr/bin/env", "LD_PRELOAD=" + library, peer_program()};
  command.insert(command.end(), options.begin(), options.end());
  set_date(date);
  process_ = std::make_unique<Process>(network.descriptor(host), command, folder_.path());
}

// A thread that has just sent what it will wait for an answer to may not have looked at the clock
// yet: its time would begin behind the one that passes here.
void ClockedPeer::let_pass(int seconds) {
  EXPECT_TRUE(eventually([&] { return process_->is_waiting(); }));
  passed_ += seconds;
  put_on("timers", passed_);
}

void ClockedPeer::set_date(int seconds) const { put_on("date", seconds); }
void ClockedPeer::slow_down_reading(int seconds) const { put_on("reading", seconds); }

// By rename(): while a file is being written, it says nothing, and the clock would go back.
void ClockedPeer::put_on(const std::string& clock, int seconds) const {
  fs::rename(folder_.write("new", std::to_string(seconds)), folder_.path(clock));
}

bool in_three_tries(const std::function<bool()>& works) { return works() || works() || works(); }

static size_t count_joined(Process& peer) {
  const auto is_joined = [](const std::string& line) { return line.rfind("joined ", 0) == 0; };
  const auto& lines = peer.lines();
  return static_cast<size_t>(std::count_if(lines.begin(), lines.end(), is_joined));
}

bool all_list_all(const std::vector<Process*>& peers, double seconds) {
  const auto is_complete = [&](Process* peer) { return count_joined(*peer) >= peers.size() - 1; };
  return eventually(seconds, [&] { return std::all_of(peers.begin(), peers.end(), is_complete); });
}

void expect_all_list_all(const std::vector<Process*>& peers, double seconds) {
  if (all_list_all(peers, seconds)) return;
  const size_t others = peers.size() - 1;
  for (Process* peer : peers)
    if (count_joined(*peer) < others)
      FAIL() << count_joined(*peer) << " of " << others << " joined within " << seconds << " s:\n" << peer->output();
}

// ---- Raw sockets ----------------------------------------------------------------------------

constexpr double kSilence = 30;  // seconds; more than any answer takes, on a machine however busy

Socket Socket::tcp(const Network& network, int host, const std::string& ip, int port, const std::string& from) {
  Socket s(network.socket(host, SOCK_STREAM));
  if (!from.empty()) bind_to(s.fd_, from, 0);
  const sockaddr_in address = socket_address(ip, port);
  must(::connect(s.fd_, raw(address), sizeof address) == 0, "connect " + ip);
  return s;
}

Socket Socket::tcp_listener(const Network& network, int host, int port) {
  Socket s(network.socket(host, SOCK_STREAM));
  listen_on(s.fd_, port);
  return s;
}

Socket Socket::udp(const Network& network, int host, int port, const std::string& from) {
  Socket s(network.socket(host, SOCK_DGRAM));
  allow_broadcasts(s.fd_);
  bind_to(s.fd_, from, port);
  return s;
}

void Socket::share_port_no_more() const {
  const int off = 0;
  must(::setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &off, sizeof off) == 0, "setsockopt SO_REUSEADDR");
}

void Socket::forge(const Network& network, int host, const std::string& from_ip, int from_port,
                   const std::string& to_ip, int to_port, const std::string& datagram) {
  const Socket s(network.socket(host, SOCK_RAW, IPPROTO_RAW));
  allow_broadcasts(s.fd_);
  const sockaddr_in from = socket_address(from_ip, from_port), to = socket_address(to_ip, to_port);
  ip head{};
  head.ip_v = 4;
  head.ip_hl = 5;
  head.ip_ttl = 64;
  head.ip_p = IPPROTO_UDP;
  head.ip_src = from.sin_addr;
  head.ip_dst = to.sin_addr;  // its length and checksum the kernel fills in
  udphdr ports{};             // without a checksum, which UDP allows
  ports.source = from.sin_port;
  ports.dest = to.sin_port;
  ports.len = htons(static_cast<uint16_t>(sizeof ports + datagram.size()));
  std::string packet(reinterpret_cast<const char*>(&head), sizeof head);
  packet.append(reinterpret_cast<const char*>(&ports), sizeof ports);
  packet += datagram;
  const auto sent = ::sendto(s.fd_, packet.data(), packet.size(), 0, raw(to), sizeof to);
  must(sent == static_cast<ssize_t>(packet.size()), "send a forged datagram");
}

Socket::~Socket() {
  if (fd_ != -1) ::close(fd_);
}

Socket Socket::accept() const {
  if (!readable(fd_, kSilence)) throw std::runtime_error("nobody has connected within 30 s");
  return Socket(::accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC));
}

bool Socket::send(const std::string& bytes) const {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t sent = ::send(fd_, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (sent == -1) return false;  // what is read next shows why
    done += static_cast<size_t>(sent);
  }
  return true;
}

void Socket::end_output() const { ::shutdown(fd_, SHUT_WR); }

void Socket::reset() {
  close_by_reset(std::exchange(fd_, -1));
}

void Socket::send_to(const std::string& ip, int port, const std::string& datagram) const {
  send_datagram(fd_, ip, port, datagram);
}

void Socket::meet(const std::string& ip, int port, const std::string& fields) const {
  send_to(ip, port, "ChatByP2P/1 HELLO " + fields);
  const std::string id = id_in(datagram());
  ASSERT_NE(id, "");
  send_to(ip, port, "ChatByP2P/1 HERE " + fields + " to=" + id);
}

std::string Socket::line() {
  const auto line = line_or_end();
  if (!line) throw std::runtime_error("the connection has ended where a line was expected");
  return *line;
}

std::optional<std::string> Socket::line_or_end() {
  const auto deadline = in(kSilence);
  size_t end;
  while ((end = buffer_.find('\n')) == std::string::npos) {
    if (Clock::now() > deadline) throw std::runtime_error("30 s of silence where a line was expected: " + buffer_);
    if (!readable(fd_, 0.1)) continue;
    char bytes[65536];
    const ssize_t got = ::recv(fd_, bytes, sizeof bytes, 0);
    if (got <= 0 && buffer_.empty()) return std::nullopt;
    if (got <= 0) throw std::runtime_error("the connection has ended in the middle of a line: " + buffer_);
    buffer_.append(bytes, static_cast<size_t>(got));
  }
  const std::string line = buffer_.substr(0, end);
  buffer_.erase(0, end + 1);
  return line;
}

std::string Socket::datagram() const {
  char bytes[2048];
  if (!readable(fd_, kSilence)) throw std::runtime_error("30 s of silence where a datagram was expected");
  const ssize_t got = ::recv(fd_, bytes, sizeof bytes, 0);
  return std::string(bytes, static_cast<size_t>(std::max<ssize_t>(got, 0)));
}

bool Socket::is_closed() {
  char byte;
  return buffer_.empty() && readable(fd_, kSilence) && ::recv(fd_, &byte, 1, 0) <= 0;
}
