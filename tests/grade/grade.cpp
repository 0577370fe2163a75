// The implementation of grade.h.

#include "grade.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <ctime>
#include <deque>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <stdexcept>

#include "support/ladder.h"
#include "support/system.h"

namespace fs = std::filesystem;

namespace grade {

namespace {

constexpr size_t kKeptOutput = 1'000'000, kKeptOfATalk = 32'000'000, kKeptSteps = 1000;
constexpr char kEnds[] = "ends the connection";
constexpr char kUser[] = "";  // who types and reads: no column of his own
constexpr int kFirstDrawn = 26000, kDrawnPorts = 3000;  // below those that the kernel gives to connections

// Something that passed between two columns of the picture.
struct Step {
  double at;
  std::string from, to, text;
  int times = 1;
  double last = 0;  // of the times, where there are several
};

// What one case is made of. Each has a process to itself, so there is one of these at a time.
struct World {
  std::string folder, seed;
  std::map<std::string, std::string> names;    // that were drawn, by their part in the story
  std::map<std::string, std::string> columns;  // who speaks at this IP:PORT
  std::vector<std::string> programs;
  std::string awaits;  // the column that something has to come to
  double fault_at = std::numeric_limits<double>::max();  // when it came, where that is known
  bool was_cut = false;                                  // lines have gone to the program in pieces
  int strangers_so_far = 0;
  std::chrono::steady_clock::time_point start;
  double limit = 0;
  std::unique_ptr<Network> network;
  std::deque<Step> steps;
  std::vector<std::pair<int, std::function<void()>>> watched;
  std::vector<Stranger*> strangers;
  std::list<Talk> talks;
  std::vector<int> keepers;
} world;

void watch(int fd, std::function<void()> readable) { world.watched.emplace_back(fd, std::move(readable)); }

void unwatch(int fd) {
  auto& all = world.watched;
  all.erase(std::remove_if(all.begin(), all.end(), [&](const auto& entry) { return entry.first == fd; }), all.end());
}

// The loop waits for all at once, so none may block.
int open_socket(int host, int type) { return network().socket(host, type | SOCK_NONBLOCK); }

// What comes again and again, as from a program that floods, is one step.
void note(const std::string& from, const std::string& to, const std::string& text, double at = now()) {
  auto& steps = world.steps;
  if (!steps.empty() && steps.back().from == from && steps.back().to == to && steps.back().text == text) {
    ++steps.back().times;
    steps.back().last = at;
    return;
  }
  steps.push_back({at, from, to, text});
  if (steps.size() > kKeptSteps) steps.pop_front();
}

bool is_stranger(const std::string& name) {
  const auto is_it = [&](const Stranger* one) { return one->name == name; };
  return std::any_of(world.strangers.begin(), world.strangers.end(), is_it);
}

// The column of who is at that address.
std::string column_at(const std::string& ip, int port) {
  const auto found = world.columns.find(ip + ":" + std::to_string(port));
  if (found != world.columns.end()) return found->second;
  if (ip == "127.255.255.255" || ip == "10.77.0.31") return "everybody";
  for (const auto& [address, name] : world.columns)  // a host has several addresses
    if (address.substr(address.find(':') + 1) == std::to_string(port)) return name;
  return ip + ":" + std::to_string(port);
}

// Of whoever asks the same again: the same. FNV-1a, and a finish that spreads it.
uint64_t chance(const std::string& about) {
  uint64_t hash = 14695981039346656037u;
  for (const char c : world.seed + "/" + about) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  hash ^= hash >> 31;
  hash *= 0x9E3779B97F4A7C15u;
  return hash ^ (hash >> 29);
}

// "kelori": six letters, so that no name is the beginning of another, and none is a number.
std::string syllables(const std::string& about) {
  uint64_t left = chance(about);
  std::string all;
  for (int i = 0; i < 3; ++i) {
    all += "bdfghklmnprstvz"[left % 15];
    left /= 15;
    all += "aeiou"[left % 5];
    left /= 5;
  }
  return all;
}

bool is_part(const std::string& text) {
  return !text.empty() && text.size() <= 10 &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789") == std::string::npos;
}

std::string name_for(const std::string& text) { return is_part(text) ? drawn(text) : text; }

// For as long as something has to come to this column.
struct Awaiting {
  explicit Awaiting(const std::string& column) { world.awaits = column; }
  ~Awaiting() { world.awaits.clear(); }
};

int next_port() {
  const int first = kFirstDrawn + static_cast<int>(chance("port") % (kDrawnPorts - 100));
  return first + world.strangers_so_far++;
}

// A program of a student may do anything: so it gets no more of the machine than it needs.
void restrict() {
  const rlimit core{0, 0}, file{1 << 29, 1 << 29};
  ::setrlimit(RLIMIT_CORE, &core);
  ::setrlimit(RLIMIT_FSIZE, &file);
}

pid_t program_pid = -1;

void pass_on(int number) {
  if (program_pid > 0) ::kill(program_pid, number == SIGUSR1 ? SIGSTOP : number == SIGUSR2 ? SIGCONT : number);
}

// The first process of a process namespace: with it ends whatever is in there. It passes on signals, and the status.
[[noreturn]] void keep(const std::function<void()>& run) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::setsid();
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2}) ::signal(number, pass_on);
  // Not before it is known to whom: the program may be running before fork() has returned here.
  sigset_t all, before;
  ::sigfillset(&all);
  ::sigprocmask(SIG_BLOCK, &all, &before);
  program_pid = ::fork();
  ::sigprocmask(SIG_SETMASK, &before, nullptr);
  if (program_pid == 0) {
    reset_signals();
    run();
    ::_exit(127);
  }
  // Or the input of a program would not end as long as the keeper of another one holds it, too.
  if (::syscall(SYS_close_range, 0u, ~0u, 0u) == -1)
    for (int fd = 0; fd < 4096; ++fd) ::close(fd);
  for (int status;;) {
    const pid_t ended = ::waitpid(-1, &status, 0);
    if (ended == -1 && errno != EINTR) ::_exit(127);
    if (ended == program_pid) ::_exit(shell_status(status));
  }
}

std::string announcement(const std::string& verb, const Fields& required) {
  std::string all = verb;
  for (const auto& [key, value] : required) all += value == "-" ? ", without " + key : " ... " + key + "=" + value;
  return all;
}

}  // namespace

// ---- Cases ---------------------------------------------------------------------------------------------------------

static std::list<Case>& cases() {
  static std::list<Case> all;
  return all;
}
const std::list<Case>& all_cases() { return cases(); }

Case::Case(const char* r, const char* n, const char* c, const char* t, int l, int w)
    : requirement(r), name(n), clauses(c), title(t), limit(l), weight(w) {
  cases().push_back(*this);
}

std::string drawn(const std::string& part) {
  std::string& name = world.names[part];
  for (int i = 0; name.empty(); ++i) {
    const std::string candidate = syllables(part + "/" + std::to_string(i));
    const auto is_it = [&](const auto& entry) { return entry.second == candidate; };
    if (std::none_of(world.names.begin(), world.names.end(), is_it)) name = candidate;
  }
  return name;
}

std::string words(const std::string& about) {
  return syllables("first/" + about) + " " + syllables("second/" + about) + " " + about;
}

std::string the_file() { return drawn("file") + ".txt"; }
std::string six_bytes() { return syllables("six").substr(0, 5) + "\n"; }

std::string drawn_id(const std::string& part) {
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(chance("id/" + part)));
  return digits;
}

uint32_t drawn_number(const std::string& what, uint32_t from, uint32_t to) {
  return from + static_cast<uint32_t>(chance(what) % (to - from + 1));
}

// The network of the handout: who has begun with its broadcast address, 10.77.0.31, is heard here, too. The time of a
// case begins once it is up.
void classroom(int hosts) {
  world.network = std::make_unique<Network>(hosts, 27);
  world.start = std::chrono::steady_clock::now();
}

void begin_between_full_fives(int seconds) {
  constexpr int kFive = 300;
  while (kFive - static_cast<int>(std::time(nullptr) % kFive) < seconds) ::usleep(100'000);
  world.start = std::chrono::steady_clock::now();
}

const Network& network() {
  if (!world.network) classroom(0);
  return *world.network;
}

void begin_case(const std::string& folder, int limit, const std::string& seed) {
  world.folder = folder;
  world.seed = seed;
  world.limit = limit;
  world.start = std::chrono::steady_clock::now();
}

void end_case() {
  for (const int keeper : world.keepers) {
    ::kill(-keeper, SIGKILL);
    ::kill(keeper, SIGKILL);
    ::waitpid(keeper, nullptr, 0);
  }
}

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now() - world.start).count(); }

// Each name that was drawn as its part, each number as N: what two cases that fail alike have in common.
static std::string without_chance(std::string text) {
  for (const auto& [part, name] : world.names)
    for (size_t at; (at = text.find(name)) != std::string::npos;) text.replace(at, name.size(), part);
  std::string all;
  for (const char c : text) {
    const bool is_digit = c >= '0' && c <= '9';
    if (!is_digit) all += c == '\n' ? ' ' : c;
    else if (all.empty() || all.back() != 'N') all += 'N';
  }
  return all;
}

// Whether that is what came: a few characters have to be all of a line, for any step could have them.
static bool has_come_by(const Step& step, const std::string& came) {
  constexpr size_t kTelling = 6;
  if (came.find(kEnds) != std::string::npos) return step.text.find(kEnds) != std::string::npos;
  return came.size() < kTelling ? step.text == came + "\\n" : step.text.find(came) != std::string::npos;
}

// Which step has what came, and was not expected: the last one of a program. None if there is no such step.
static const Step* step_with(const std::string& came) {
  const auto& steps = world.steps;
  const auto is_it = [&](const Step& step) {
    const auto& programs = world.programs;
    const bool is_programs = std::find(programs.begin(), programs.end(), step.from) != programs.end();
    return is_programs && step.at <= world.fault_at && has_come_by(step, came);
  };
  const auto found = std::find_if(steps.rbegin(), steps.rend(), is_it);
  return found == steps.rend() ? nullptr : &*found;
}

// "4 times, until 13.8726 s"; nothing for once.
static std::string how_often(const Step& step) {
  if (step.times == 1) return "";
  char until[32];
  std::snprintf(until, sizeof until, ", until %.4f s", step.last);
  return std::to_string(step.times) + " times" + until;
}

// For report.cpp: what passed, a row each, in the order in which it happened, which is not that in which we came to
// read it. The fault stands where it came, or where something is missing: at the end.
static void write_picture(const std::string& expected, const std::string& came) {
  std::ofstream rows(world.folder + "/steps");
  const auto write = [&](const std::string& kind, const Step& step) {
    rows << kind << '\t' << step.at << '\t' << step.from << '\t' << step.to << '\t' << how_often(step) << '\t' << step.text
         << '\n';
  };
  const auto is_earlier = [](const Step& one, const Step& other) { return one.at < other.at; };
  std::stable_sort(world.steps.begin(), world.steps.end(), is_earlier);
  for (const std::string& each : world.programs) write("program", {0, each, "", ""});
  const Step* const wrong = step_with(came);
  for (const Step& step : world.steps) {
    write(&step == wrong ? "wrong" : "step", step);
    if (&step == wrong) write("expected", {step.at, step.from, step.to, expected});
  }
  const std::string program = world.programs.empty() ? "the program" : world.programs[0];
  const bool is_missing = came.rfind("nothing", 0) == 0;
  if (!wrong) write("missing", {now(), program, world.awaits, expected});
  if (!wrong && !is_missing) write("came", {now(), program, "", came});
  for (const auto& [address, name] : world.columns) write("address", {0, name, "", address});
}

// For main.cpp, in the folder of the case: what was expected and what came, each a line. And, for all cases that failed
// alike to be told as one, both without what was drawn.
void fail(const std::string& expected, const std::string& came) {
  std::ofstream(world.folder + "/expected") << expected;
  std::ofstream(world.folder + "/came") << came;
  std::ofstream(world.folder + "/alike") << without_chance(expected) << "\n" << without_chance(came);
  if (world.was_cut) std::ofstream(world.folder + "/cut") << "yes";
  write_picture(expected, came);
  throw std::runtime_error(expected + "; " + came);
}

void check(bool good, const std::string& expected, const std::string& came) {
  if (!good) fail(expected, came);
}

// Reads what has come on any socket or stream, waiting for `seconds` at most.
void serve_all(double seconds) {
  std::vector<pollfd> ready;
  for (const auto& entry : world.watched) ready.push_back({entry.first, POLLIN, 0});
  ::poll(ready.data(), ready.size(), static_cast<int>(seconds * 1000));
  for (const pollfd& one : ready) {
    if (one.revents == 0) continue;
    const auto at =
        std::find_if(world.watched.begin(), world.watched.end(), [&](const auto& e) { return e.first == one.fd; });
    if (at == world.watched.end()) continue;
    const auto readable = at->second;  // a copy, for it may unwatch itself
    readable();
  }
  for (Stranger* stranger : world.strangers) stranger->serve();
}

void until(double seconds, const std::function<bool()>& condition, const std::string& expected) {
  const double end = now() + seconds;
  for (bool late = false; !condition(); late = now() > end) {
    char within[32];
    std::snprintf(within, sizeof within, ", within %g s", seconds);
    if (late) fail(expected + within, "nothing that fits");
    if (now() > world.limit) fail(expected, "nothing that fits, and the case has taken too long");
    serve_all(0.01);
  }
}

void expect_took(double since, double least, double most, const std::string& what) {
  expect_between(since, now(), least, most, what);
}

void expect_between(double since, double at, double least, double most, const std::string& what) {
  const double took = at - since;
  char bounds[64], came[32];
  std::snprintf(bounds, sizeof bounds, " (from %g to %g s are accepted)", least, most);
  std::snprintf(came, sizeof came, "after %.1f s", took);
  check(took >= least && took <= most, what + bounds, came);
}

void pause(double seconds) {
  for (const double end = now() + seconds; now() < end;) serve_all(std::max(0.0, std::min(0.02, end - now())));
}

bool fits(const std::string& pattern, const std::string& with_cr) {
  const std::string text = with_cr.substr(0, with_cr.size() - (!with_cr.empty() && with_cr.back() == '\r'));
  size_t at = 0, from = 0;
  for (bool first = true;; first = false) {
    const size_t dots = pattern.find("...", from);
    const std::string part = pattern.substr(from, dots == std::string::npos ? dots : dots - from);
    if (dots == std::string::npos)  // the last part, at the end
      return text.size() >= at + part.size() &&
             (first ? text == part : text.compare(text.size() - part.size(), part.size(), part) == 0);
    const size_t found = text.find(part, at);
    if (found == std::string::npos || (first && found != 0)) return false;
    at = found + part.size();
    from = dots + 3;
  }
}

std::string escaped(const std::string& bytes, size_t most) {
  size_t end = std::min(most, bytes.size());
  for (int i = 0; i < 3 && end < bytes.size() && (bytes[end] & 0xC0) == 0x80; ++i) --end;  // not amid a character
  std::string all;
  for (size_t i = 0; i < end; ++i) {
    if (bytes[i] == '\n') all += "\\n";
    else if (bytes[i] == '\r') all += "\\r";
    else all += bytes[i];
  }
  all = without_controls(all);
  return all + (bytes.size() > end ? "... (" + std::to_string(bytes.size()) + " bytes)" : "");
}

// POSIX: the polynomial over the bytes, and then over their number, lowest byte first; complemented.
std::string crc(const std::string& bytes) {
  uint32_t sum = 0;
  const auto add = [&](unsigned byte) {
    sum ^= byte << 24;
    for (int bit = 0; bit < 8; ++bit) sum = (sum << 1) ^ (sum & 0x80000000u ? 0x04C11DB7u : 0u);
  };
  for (const char byte : bytes) add(static_cast<unsigned char>(byte));
  for (size_t size = bytes.size(); size > 0; size >>= 8) add(size & 0xFF);
  return std::to_string(static_cast<uint32_t>(~sum));
}

std::string text_of(size_t size, char letter) { return std::string(size, letter); }

Line::Line(const std::string& line) : whole(line) {
  const size_t size = line.find_last_not_of("\r\n");
  std::string head = line.substr(0, size == std::string::npos ? 0 : size + 1);
  if (const size_t colon = head.find(" :"); colon != std::string::npos) {
    text = head.substr(colon + 2);
    head.erase(colon);
  }
  if (head.rfind("OK ChatByP2P/1 ", 0) == 0) head.erase(0, 15);
  else if (head.rfind("ChatByP2P/1 ", 0) == 0) head.erase(0, 12);
  for (size_t at = 0, end; at < head.size(); at = end + 1) {
    end = std::min(head.find(' ', at), head.size());
    const std::string word = head.substr(at, end - at);
    const size_t equals = word.find('=');
    if (at == 0) verb = word;
    else if (equals != std::string::npos) fields.emplace_back(word.substr(0, equals), word.substr(equals + 1));
  }
}

std::string Line::operator[](const std::string& key) const {
  for (const auto& [name, value] : fields)
    if (name == key) return value;
  return "";
}

bool Line::is(const std::string& wanted, const Fields& required) const {
  return verb == wanted && std::all_of(required.begin(), required.end(), [&](const auto& field) {
           return (*this)[field.first] == (field.second == "-" ? "" : field.second);
         });
}

// ---- The program that is judged ------------------------------------------------------------------------------------

Program::Program(const std::string& its_name, std::vector<std::string> options, int host,
                 const std::string& its_group)
    : name(its_name.empty() ? "the program" : name_for(its_name)), group(name_for(its_group)) {
  std::vector<std::string> command = {peer_program()};
  if (!its_name.empty()) command.insert(command.end(), {"--name", name, "--group", group});
  command.insert(command.end(), options.begin(), options.end());
  world.programs.push_back(name);
  note(kUser, name, escaped("starts it: " + joined(command, " ").substr(command[0].rfind('/') + 1)));
  folder_ = world.folder + "/" + escaped(name).substr(0, 40);
  fs::create_directories(folder_);
  int in[2], out[2], err[2];
  must(::pipe2(in, O_CLOEXEC) == 0 && ::pipe2(out, O_CLOEXEC) == 0 && ::pipe2(err, O_CLOEXEC) == 0, "pipe2");
  const int home = network().descriptor(host);
  const auto run = [&] {
    for (const auto& [from, to] : {std::pair(in[0], 0), std::pair(out[1], 1), std::pair(err[1], 2)}) ::dup2(from, to);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    restrict();
    if (::setns(home, CLONE_NEWNET) == 0 && ::chdir(folder_.c_str()) == 0) become(command);
  };
  // As fork(), but into a new process namespace; where that is not allowed, in our own, and then its group is ended.
  keeper_ = static_cast<int>(::syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0));
  if (keeper_ == -1) keeper_ = ::fork();
  must(keeper_ != -1, "fork");
  if (keeper_ == 0) keep(run);
  world.keepers.push_back(keeper_);
  for (const int fd : {in[0], out[1], err[1]}) ::close(fd);
  in_ = in[1];
  streams_ = {out[0], err[0]};
  for (const int fd : {in_, out[0], err[0]}) ::fcntl(fd, F_SETFL, O_NONBLOCK);
  watch(out[0], [this, fd = out[0]] { read(fd, false); });
  watch(err[0], [this, fd = err[0]] { read(fd, true); });
}

Program::~Program() {
  for (const int fd : streams_) unwatch(fd), ::close(fd);
  if (in_ != -1) ::close(in_);
}

void Program::read(int fd, bool is_error) {
  char bytes[65536];
  const ssize_t got = ::read(fd, bytes, sizeof bytes);
  if (got == -1 && errno == EAGAIN) return;
  if (got <= 0) {
    unwatch(fd);
    --open_;
    if (!is_error && !partial_.empty()) lines_.push_back({partial_, now(), false});
    return;
  }
  // What floods is read on, or it would stand still and look well, but slowly, and not kept.
  if ((kept_ += static_cast<size_t>(got)) > kKeptOutput) {
    if (kept_ - static_cast<size_t>(got) <= kKeptOutput)
      note(name, kUser, "more than a megabyte; the rest is not kept");
    ::usleep(2000);
    return;
  }
  if (is_error) {
    errors_.append(bytes, static_cast<size_t>(got));
    note(name, kUser, "on standard error: " + escaped(std::string(bytes, static_cast<size_t>(got))));
    return;
  }
  partial_.append(bytes, static_cast<size_t>(got));
  size_t from = 0;
  for (size_t end; (end = partial_.find('\n', from)) != std::string::npos; from = end + 1) {
    lines_.push_back({partial_.substr(from, end - from), now(), false});
    if (lines_.size() < 10'000) note(name, kUser, escaped(lines_.back().text), lines_.back().at);
  }
  partial_.erase(0, from);
}

Program& Program::ready() {
  const std::string line = prints("ready ...@...:... ...", kStart);
  const size_t at = line.find('@'), colon = line.find(':', at);
  ip = line.substr(at + 1, colon - at - 1);
  port = std::atoi(line.c_str() + colon + 1);
  world.columns[this->at()] = name;
  return *this;
}

void Program::say(const std::string& line) { say_bytes(line + "\n"); }

void Program::say_bytes(const std::string& bytes) {
  for (const std::string& line : lines_of(bytes)) note(kUser, name, "types: " + escaped(line));
  size_t done = 0;
  until(kSoon, [&] {
    const ssize_t wrote = ::write(in_, bytes.data() + done, bytes.size() - done);
    if (wrote == -1 && errno != EAGAIN) fail(name + " reads its input", "it has closed its input, or ended");
    done += static_cast<size_t>(std::max<ssize_t>(wrote, 0));
    return done == bytes.size();
  }, name + " reads its input");
}

void Program::end_input() {
  note(kUser, name, "ends its input");
  ::close(std::exchange(in_, -1));
}

void Program::signal(int number) {
  note(kUser, name, std::string("signal: ") + ::strsignal(number));
  if (has_ended()) return;  // and kill(-1) would be for every process there is
  ::kill(keeper_, number == SIGSTOP ? SIGUSR1 : number == SIGCONT ? SIGUSR2 : number);
}

bool Program::has_ended() {
  int status = 0;
  if (status_ == -1 && keeper_ != -1 && ::waitpid(keeper_, &status, WNOHANG) == keeper_) {
    world.keepers.erase(std::find(world.keepers.begin(), world.keepers.end(), keeper_));
    status_ = shell_status(status);
    keeper_ = -1;
  }
  return status_ != -1;
}

std::string Program::prints(const std::string& pattern, double seconds) {
  size_t looked = 0, found = 0;
  const std::string expected = name + " prints: " + escaped(pattern);
  const double end = now() + seconds;
  const auto has_come = [&] {
    for (; looked < lines_.size(); ++looked) {
      found = looked;
      if (!lines_[looked].used && fits(pattern, lines_[looked].text)) return true;
    }
    return false;
  };
  while (!has_come()) {
    if (has_ended() && open_ <= 0) {
      if (has_come()) break;
      fail(expected, status_ == 127 ? "it has ended, with status 127: is " + peer_program() + " a program?"
                                    : "it has ended, with status " + std::to_string(status_));
    }
    char within[32];
    std::snprintf(within, sizeof within, ", within %g s", seconds);
    if (now() > end || now() > world.limit) {
      if (prints_only_at_its_end()) fail(expected + within, "nothing before it ended. Flush what you print after each line");
      fail(expected + within, nearest(pattern));
    }
    serve_all(0.01);
  }
  lines_[found].used = true;
  return lines_[found].text;
}

// What is printed into a pipe waits in a buffer, unless it is flushed: the first trap of a program that is tested.
bool Program::prints_only_at_its_end() {
  constexpr double kPatience = 1;
  if (!lines_.empty() || in_ == -1) return false;
  end_input();
  for (const double end = now() + kPatience; now() < end && lines_.empty();) serve_all(0.01);
  return !lines_.empty();
}

// By how many characters one would have to be changed into the other, at most: their longest common parts, in order.
static size_t likeness(const std::string& one, const std::string& other) {
  std::vector<size_t> row(other.size() + 1), before;
  for (const char c : one) {
    before = row;
    for (size_t i = 0; i < other.size(); ++i)
      row[i + 1] = c == other[i] ? before[i] + 1 : std::max(before[i + 1], row[i]);
  }
  return row.back();
}

// A line that was not expected, but looks much as the one that was.
std::string Program::nearest(const std::string& pattern) const {
  constexpr size_t kCompared = 200, kLinesCompared = 100;
  const std::string wanted = pattern.substr(0, kCompared);
  std::string best;
  size_t most = 0;
  for (size_t i = lines_.size() - std::min(lines_.size(), kLinesCompared); i < lines_.size(); ++i) {
    const std::string line = lines_[i].text.substr(0, kCompared);
    const size_t alike = likeness(wanted, line);
    if (lines_[i].used || alike <= most || alike * 2 < wanted.size()) continue;
    most = alike;
    best = lines_[i].text;
  }
  if (lines_.empty()) return "nothing at all";
  return best.empty() ? "nothing that fits" : "nothing that fits; nearest is: " + escaped(best);
}

void Program::prints_not(const std::string& pattern, double seconds) {
  pause(seconds);
  check(!has_ended(), name + " does not print: " + pattern, "it has ended");
  for (const Printed& line : lines_) {
    if (line.used || !fits(pattern, line.text)) continue;
    world.fault_at = line.at;
    fail(name + " does not print: " + pattern, escaped(line.text));
  }
}

size_t Program::count(const std::string& pattern) const {
  return static_cast<size_t>(
      std::count_if(lines_.begin(), lines_.end(), [&](const Printed& l) { return fits(pattern, l.text); }));
}

void Program::expect_exit(int status, double seconds) {
  const std::string expected = name + " ends, with exit status " + std::to_string(status);
  until(seconds, [&] { return has_ended(); }, expected);
  until(kStart, [&] { return open_ <= 0; }, name + " closes its output");
  check(status_ == status, expected, status_ > 128 ? "it was ended by signal " + std::to_string(status_ - 128)
                                                   : "status " + std::to_string(status_));
}

std::string Program::output() const {
  std::string all;
  for (const Printed& line : lines_) all += line.text + "\n";
  return all + partial_;
}

void Program::serves() {
  const std::string number = std::to_string(++served_), text = words("still here? " + number);
  Stranger newcomer("guest" + number);
  Talk& talk = newcomer.introduced(*this);
  talk.ask("MSG number=1 :" + text, "OK...");
  prints("message " + newcomer.who() + " private: " + text);
  talk.close();
}

// Who is whose parent, the numbers of all processes that descend from this one.
static std::vector<pid_t> with_descendants(pid_t root) {
  std::map<pid_t, pid_t> parents;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator("/proc", none)) {
    const pid_t pid = std::atoi(entry.path().filename().c_str());
    if (pid <= 0) continue;
    const std::string stat = read_file(entry.path() / "stat");  // "7 (a name) S 1 ..."
    const size_t name_end = stat.rfind(')');
    if (name_end != std::string::npos) parents[pid] = std::atoi(stat.c_str() + std::min(stat.size(), name_end + 4));
  }
  std::vector<pid_t> all = {root};
  for (size_t i = 0; i < all.size(); ++i)
    for (const auto& [pid, parent] : parents)
      if (parent == all[i]) all.push_back(pid);
  return all;
}

size_t Program::memory() const {
  size_t sum = 0;
  for (const pid_t pid : with_descendants(keeper_)) {
    if (pid == keeper_) continue;
    const std::string status = read_file("/proc/" + std::to_string(pid) + "/status");
    const size_t at = status.find("VmRSS:");
    if (at != std::string::npos) sum += static_cast<size_t>(std::atoll(status.c_str() + at + 6));
  }
  return sum;
}

std::string Program::write(const std::string& file, const std::string& content) const {
  note(kUser, name, "in its folder is: " + escaped(file, 40) + ", " + std::to_string(content.size()) + " bytes");
  fs::create_directories(fs::path(path(file)).parent_path());
  std::ofstream(path(file), std::ios::binary) << content;
  return path(file);
}

std::vector<std::string> Program::stored() const { return names_in(path("downloads")); }

void Program::has_stored(const std::string& file, const std::string& content) const {
  const std::string where = path("downloads/" + file);
  check(fs::is_regular_file(where), "the file downloads/" + escaped(file),
        "downloads/ has: " + escaped(joined(stored(), ", ")));
  const std::string is = read_file(where);
  check(is == content, "downloads/" + escaped(file) + " as it was sent: " + escaped(content, 60), escaped(is, 60));
}

void Program::has_not_stored(const std::string& file) const {
  check(fs::symlink_status(path("downloads/" + file)).type() == fs::file_type::not_found,
        "no file has the name downloads/" + escaped(file), "it is there");
}

// ---- UDP -----------------------------------------------------------------------------------------------------------

// For how many seconds the kernel had this datagram before it was read: on a busy machine the grader comes late, too.
static double waited_for(msghdr& message) {
  constexpr double kMost = 10;  // more than that is a clock that was set
  timespec came{}, is{};
  ::clock_gettime(CLOCK_REALTIME, &is);
  came = is;
  for (cmsghdr* one = CMSG_FIRSTHDR(&message); one != nullptr; one = CMSG_NXTHDR(&message, one))
    if (one->cmsg_level == SOL_SOCKET && one->cmsg_type == SCM_TIMESTAMPNS)
      std::memcpy(&came, CMSG_DATA(one), sizeof came);
  const double seconds = static_cast<double>(is.tv_sec - came.tv_sec);
  const double waited = seconds + static_cast<double>(is.tv_nsec - came.tv_nsec) / 1e9;
  return waited >= 0 && waited < kMost ? waited : 0;
}

Ear::Ear(int its_port, const std::string& ip, int host)
    : port(its_port),
      label(port == 25252 ? "everybody" : "port " + std::to_string(port)),
      fd_(open_socket(host, SOCK_DGRAM)) {
  const int on = 1;
  ::setsockopt(fd_, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
  allow_broadcasts(fd_);
  bind_to(fd_, ip, port);
  watch(fd_, [this] { read(); });
}

void Ear::read() {
  char bytes[65536], control[CMSG_SPACE(sizeof(timespec))];
  iovec buffer{bytes, sizeof bytes};
  sockaddr_in from{};
  msghdr message{};
  message.msg_name = &from;
  message.msg_namelen = sizeof from;
  message.msg_iov = &buffer;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t got = ::recvmsg(fd_, &message, 0);
  if (got < 0 || heard.size() >= 10'000) return;
  char source[INET_ADDRSTRLEN];
  ::inet_ntop(AF_INET, &from.sin_addr, source, sizeof source);
  Datagram datagram{};
  datagram.bytes.assign(bytes, static_cast<size_t>(got));
  datagram.ip = source;
  datagram.port = ntohs(from.sin_port);
  datagram.at = now() - waited_for(message);
  // What we say to everybody ourselves was noted when we said it.
  const std::string who = column_at(source, datagram.port);
  const bool is_echo = port == 25252 && is_stranger(who);
  if (!is_echo) note(who, label, "UDP " + escaped(datagram.bytes), datagram.at);
  heard.push_back(datagram);
  at_once(datagram);
}

Ear::~Ear() {
  unwatch(fd_);
  ::close(fd_);
}

void Ear::send(const std::string& ip, int to, const std::string& bytes) const {
  note(label, column_at(ip, to), "UDP " + escaped(bytes));
  pour(ip, to, bytes);
}

void Ear::pour(const std::string& ip, int to, const std::string& bytes) const {
  send_datagram(fd_, ip, to, bytes);
}

Datagram Ear::hears(const std::string& verb, const Fields& required, double seconds) {
  Datagram found{};
  const Awaiting awaiting(label);
  until(seconds, [&] {
    for (Datagram& one : heard)
      if (!one.used && Line(one.bytes).is(verb, required)) return one.used = true, found = one, true;
    return false;
  }, label + " gets over UDP: " + announcement(verb, required));
  return found;
}

void Ear::hears_not(const std::string& verb, const Fields& required, double seconds) {
  pause(seconds);
  for (const Datagram& one : heard) {
    if (one.used || !Line(one.bytes).is(verb, required)) continue;
    world.fault_at = one.at;
    fail(label + " gets nothing over UDP like: " + announcement(verb, required), escaped(one.bytes));
  }
}

size_t Ear::count(const std::string& verb, const Fields& required) const {
  return static_cast<size_t>(
      std::count_if(heard.begin(), heard.end(), [&](const Datagram& d) { return Line(d.bytes).is(verb, required); }));
}

// ---- TCP -----------------------------------------------------------------------------------------------------------

Talk::Talk(int fd, const std::string& who, int port, const std::string& program)
    : who_(who), program_(program), port_(port), fd_(fd) {
  const int on = 1;
  ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  watch(fd_, [this] { read(); });
}

void Talk::read() {
  char bytes[65536];
  const ssize_t got = ::recv(fd_, bytes, sizeof bytes, 0);
  if (got == -1 && errno == EAGAIN) return;
  if (got > 0) {
    note(program_, who_, escaped(std::string(bytes, static_cast<size_t>(got))));
    if (buffer_.size() < kKeptOfATalk) buffer_.append(bytes, static_cast<size_t>(got));
    return;
  }
  note(program_, who_, got == 0 ? std::string("(") + kEnds + ")" : "(resets the connection)");
  ended_ = true;
  was_reset_ = got == -1;
  unwatch(fd_);
}

Talk::~Talk() { close(); }

void Talk::close() {
  if (fd_ == -1) return;
  unwatch(fd_);
  ::close(std::exchange(fd_, -1));
}

void Talk::half_close() {
  note(who_, program_, "(half-closes the connection)");
  ::shutdown(fd_, SHUT_WR);
}

void Talk::reset() {
  note(who_, program_, "(resets the connection)");
  unwatch(fd_);
  close_by_reset(std::exchange(fd_, -1));
}

bool Talk::send(const std::string& bytes) {
  note(who_, program_, escaped(bytes));
  return write(bytes);
}

bool Talk::write(const std::string& bytes) {
  size_t done = 0;
  bool good = true;
  until(kSoon, [&] {
    const ssize_t sent = ::send(fd_, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (sent == -1 && errno != EAGAIN) good = false;
    done += static_cast<size_t>(std::max<ssize_t>(sent, 0));
    return !good || done == bytes.size();
  }, program_ + " reads what comes over TCP");
  return good;
}

// Without a moment between them the kernel would hand over the pieces as one. In the picture they are one step.
void Talk::pieces(const std::string& bytes, size_t cut) {
  const std::string how = cut == 0 ? "one byte at a time: " : "in two pieces, " + std::to_string(cut) + " bytes first: ";
  note(who_, program_, how + escaped(bytes));
  world.was_cut = true;
  const size_t size = cut == 0 ? 1 : cut;
  for (size_t at = 0; at < bytes.size();) {
    const std::string piece = bytes.substr(at, at == 0 || cut == 0 ? size : std::string::npos);
    if (!write(piece)) return;
    at += piece.size();
    if (at < bytes.size()) pause(0.002);
  }
}

void Talk::stop_reading() {
  note(who_, program_, "(reads no more)");
  unwatch(fd_);
}

void Talk::rest(double seconds) {
  note(who_, program_, "(reads nothing for a while)");
  unwatch(fd_);
  pause(seconds);
  watch(fd_, [this] { read(); });
}

std::string Talk::line(const std::string& expected) {
  size_t end = 0;
  const Awaiting awaiting(who_);
  until(kSoon + 2, [&] {
    if ((end = buffer_.find('\n')) != std::string::npos) return true;
    if (ended_)
      fail(who_ + " gets over TCP: " + expected,
           program_ + " " + kEnds + (buffer_.empty() ? "" : ", after " + escaped(buffer_)));
    return false;
  }, who_ + " gets over TCP: " + expected);
  std::string line = buffer_.substr(0, end);
  buffer_.erase(0, end + 1);
  if (!line.empty() && line.back() == '\r') line.pop_back();
  return line;
}

std::string Talk::expect(const std::string& pattern) {
  const std::string got = line(pattern);
  const Awaiting awaiting(who_);
  check(fits(pattern, got), who_ + " gets over TCP: " + pattern, escaped(got));
  return got;
}

Line Talk::request(const std::string& verb, const Fields& required) {
  const Line got(line(announcement(verb, required)));
  const Awaiting awaiting(who_);
  check(got.is(verb, required), who_ + " gets over TCP: " + announcement(verb, required), escaped(got.whole));
  return got;
}

std::string Talk::bytes(size_t size) {
  until(
      kSoon + 2, [&] { return buffer_.size() >= size || ended_; },
      who_ + " gets " + std::to_string(size) + " bytes");
  const std::string got = buffer_.substr(0, size);
  check(got.size() == size, who_ + " gets " + std::to_string(size) + " bytes", std::to_string(got.size()));
  buffer_.erase(0, size);
  return got;
}

void Talk::expect_end(double seconds) {
  until(seconds, [&] { return ended_; }, program_ + " ends the connection of " + who_);
}

void Talk::expect_reset(double seconds) {
  const std::string expected = program_ + " resets the connection of " + who_;
  until(seconds, [&] { return ended_; }, expected);
  check(was_reset_, expected, program_ + " " + kEnds + " as usual");
}

void Talk::expect_silence(double seconds) {
  pause(seconds);
  check(buffer_.empty() && !ended_, who_ + " gets nothing for " + std::to_string(seconds).substr(0, 3) + " s",
        ended_ ? program_ + " " + kEnds : escaped(buffer_));
}

// ---- A peer written by hand ----------------------------------------------------------------------------------------

Stranger::Stranger(const std::string& its_name, int port, const std::string& its_group, int host,
                   const std::string& ip)
    : name(name_for(its_name)),
      group(name_for(its_group)),
      announced_ip(ip),
      ear(port == 0 ? next_port() : port, "0.0.0.0", host),
      ip_(ip),
      host_(host) {
  id = drawn_id(std::to_string(ear.port) + "/" + ip);
  ear.label = name;
  world.columns[at()] = name;
  listener_ = open_socket(host, SOCK_STREAM);
  listen_on(listener_, ear.port);
  beat_ = now() + 5;
  ear.at_once = [this](const Datagram& datagram) { answer(datagram); };
  watch(listener_, [this] {
    const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd == -1) return;
    const std::string program = world.programs.empty() ? "the program" : world.programs[0];
    note(program, name, "(connects)");
    world.talks.emplace_back(fd, name, ear.port, program);
  });
  world.strangers.push_back(this);
}

Stranger::~Stranger() {
  unwatch(listener_);
  ::close(listener_);
  world.strangers.erase(std::find(world.strangers.begin(), world.strangers.end(), this));
}

void Stranger::join_broadcasts() {
  shared_ = std::make_unique<Ear>(25252, "0.0.0.0", host_);
  shared_->at_once = [this](const Datagram& datagram) { answer(datagram); };
}

std::string Stranger::fields() const {
  return "id=" + id + " ip=" + announced_ip + " port=" + std::to_string(ear.port) + " name=" + name + " group=" + group;
}

void Stranger::answer(const Datagram& datagram) const {
  const Line line(datagram.bytes);
  if (answers && line.is("HELLO", {}) && line["id"] != id && !line["id"].empty())
    ear.send(datagram.ip, datagram.port, here(line["id"]));
}

void Stranger::serve() {
  if (beats && now() > beat_) {
    beat_ = now() + 5;
    note(kUser, name, "says HERE to everybody");  // a column for these would take room from all others
    ear.pour(host_ == 0 ? "127.255.255.255" : "10.77.0.31", 25252, here());
  }
  for (Talk& talk : world.talks) {
    if (talk.claimed || talk.port_ != ear.port) continue;
    if (introduces && !talk.introduced && talk.has_line()) {
      const Line line(talk.line());
      talk.introduced = true;
      talk.send(line.verb == "HELLO" && !line["id"].empty() ? "OK " + here(line["id"]) + "\n"
                                                            : "NO stranger introduce yourself first\n");
    }
    if (talk.ended_ && talk.buffer_.empty()) talk.close();
  }
}

void Stranger::tell(const Program& program, const std::string& datagram) const {
  ear.send(program.ip, program.port, datagram);
}

std::string Stranger::id_of(const Program& program) {
  tell(program, hello());
  return Line(hears("HERE", {{"to", id}}).bytes)["id"];
}

std::string Stranger::id_by_tcp(const Program& program) {
  Talk& talk = call(program);
  talk.send(hello() + "\n");
  const std::string its_id = talk.request("HERE", {{"to", id}})["id"];
  talk.close();
  return its_id;
}

Stranger& Stranger::meet(Program& program) {
  tell(program, hello());
  program.prints("joined " + me());
  return *this;
}

Talk& Stranger::call(const Program& program) {
  const int fd = open_socket(host_, SOCK_STREAM);
  if (ip_ != "127.0.0.1") bind_to(fd, ip_, 0);
  const sockaddr_in address = socket_address(program.ip, program.port);
  const int result = ::connect(fd, raw(address), sizeof address);
  pollfd done{fd, POLLOUT, 0};
  int error = result == -1 && errno != EINPROGRESS ? errno : 0;
  until(
      kSoon, [&] { return error != 0 || ::poll(&done, 1, 0) > 0; },
      program.name + " accepts a TCP connection at its port, " + std::to_string(program.port));
  socklen_t size = sizeof error;
  if (error == 0) ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  check(error == 0, program.name + " accepts a TCP connection at its port, " + std::to_string(program.port),
        std::strerror(error));
  note(name, program.name, "(connects)");
  world.talks.emplace_back(fd, name, ear.port, program.name);
  world.talks.back().claimed = true;
  return world.talks.back();
}

Talk& Stranger::introduced(const Program& program) {
  Talk& talk = call(program);
  talk.send(hello() + "\n");
  const Line reply(talk.line("OK ChatByP2P/1 HERE ... to=" + id));
  check(reply.is("HERE", {{"to", id}}) && reply.whole.rfind("OK ", 0) == 0, "OK ChatByP2P/1 HERE ... to=" + id,
        escaped(reply.whole));
  return talk;
}

Talk* Stranger::waiting_call() const {
  for (Talk& talk : world.talks) {
    const bool has_asked = talk.introduced && !talk.buffer_.empty();
    const bool is_ours = !talk.claimed && talk.port_ == ear.port;
    if (is_ours && (!introduces || has_asked)) return &talk;
  }
  return nullptr;
}

bool Stranger::is_called() const { return waiting_call() != nullptr; }

Talk& Stranger::called() {
  const std::string& program = world.programs[0];
  until(kSoon + 4, [&] { return is_called(); },
        program + " connects to " + name + (introduces ? ", introduces itself, and asks for something" : ""));
  Talk& talk = *waiting_call();
  talk.claimed = true;
  return talk;
}

Talk& Stranger::asked() { return called(); }

Talk& Stranger::offers(Program& program, const std::string& what, const std::string& answer) {
  Talk& talk = introduced(program);
  talk.send("OFFER " + what + "\n");
  talk.expect(answer);
  return talk;
}

Strangers::Strangers(std::vector<std::string> options) : ann("ann", std::move(options)), zoe("zoe") { ann.ready(); }

Listed::Listed(std::vector<std::string> options) : ann("ann", std::move(options)), zoe("zoe") {
  zoe.meet(ann.ready());
}

}  // namespace grade
