// make bench: how fast files go, side by side with what a user would take instead, and with iperf3, which only sends.
//
//   make bench                                 all of it: some minutes
//   make bench FILTER=scp                      the rows whose title, or own name, contains that
//   make bench BEFORE=COMMIT                   also beside our own program as it was then, in the same run
//   make bench BENCH_PAIRS=1 BENCH_SCALE=64    one pair a row, sizes divided by 64: to try the benchmark itself
//   make bench BENCH_DIR=/mnt BENCH_DISK=/mnt  where files lie: by default in memory, so that no disk is measured, and
//                                              /var/tmp for the rows named disk
//
// How to read a row: ours and theirs did the same job in turn, who goes first alternating. "ratio" is the median of the
// pairwise ratios, ours to theirs, and "min..max" is their spread: a difference smaller than the spread is none. The
// middle columns are the medians of each side alone, in MB/s (10^6 bytes).
//
// What is timed: ours, from typing /send to the line `delivered`, with both sides' checksums, fsync and the
// acknowledgement in it; theirs, from the start of the client until the program that writes the copy has ended. The
// receiver listens before the clock starts. All write new files, into a folder emptied outside of the time. Each copy's
// size is looked at, and the first of each row is compared byte for byte.
//
// Every program runs in a network namespace made for its row. In order of reading: the table; files and folders; the
// rivals; ours; the sections of the table; main.

#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <regex>
#include <sstream>
#include <thread>

#include "measure.h"
#include "support/system.h"
#include "support/testing.h"

namespace fs = std::filesystem;

namespace {

constexpr size_t kMiB = 1 << 20;
constexpr size_t kSmallFile = 4096;
constexpr double kPatience = 300;  // seconds for one copy; far more than any should need
constexpr size_t kMessages = 50;   // at least so many make one median

const size_t kPairs = std::max(1u, number_setting("BENCH_PAIRS", 5));
const size_t kScale = std::max(1u, number_setting("BENCH_SCALE", 1));
const size_t kBig = 1024 * kMiB / kScale;
const size_t kMany = 10'000 / kScale;

std::string output_of(const std::string& command) {
  FILE* pipe = ::popen(command.c_str(), "r");
  char line[300] = "";
  if (!pipe || !std::fgets(line, sizeof line, pipe)) line[0] = '\0';
  if (pipe) ::pclose(pipe);
  return std::string(line, std::strcspn(line, "\n"));
}

// The end of it says most, where it has the whole output of a program.
std::string on_one_line(std::string text) {
  constexpr size_t kMost = 300;
  if (text.size() > kMost) text = "..." + text.substr(text.size() - kMost);
  std::replace(text.begin(), text.end(), '\n', '|');
  return text;
}

void shell(const std::string& command) {
  if (std::system(command.c_str()) != 0) throw std::runtime_error("this failed: " + command);
}

// ---- The table ----------------------------------------------------------------------------

const char* filter = "";
std::string section, columns, printed_section;

void begin_section(const std::string& title, const std::string& its_columns) {
  section = title;
  columns = its_columns;
}

// What `measure` prints completes the line. A row that fails says so, and the next one is measured all the same.
void row(const std::string& name, const std::string& programs, const std::function<void()>& measure) {
  if ((section + " " + name).find(filter) == std::string::npos) return;
  if (printed_section != section) std::printf("\n%-40s%s\n", section.c_str(), columns.c_str());
  printed_section = section;
  std::istringstream words(programs);
  for (std::string program; words >> program;)
    if (std::system(("command -v " + program + " >/dev/null").c_str()) != 0) {
      std::printf("  %s: not installed, row left out\n", program.c_str());
      return;
    }
  std::printf("  %-38s", name.c_str());
  try {
    measure();
  } catch (const std::exception& error) {
    std::printf("failed: %s\n", on_one_line(error.what()).c_str());
  }
}

// One job, done once: its throughput in MB/s, or whatever the section compares. `round` counts from 0.
using Job = std::function<double(size_t round)>;

// Whichever goes first finds other caches, and another CPU clock, than the one that goes second: so each does in turn.
void compare(size_t pairs, const Job& ours, const Job& theirs) {
  std::vector<double> our, their, ratio;
  for (size_t round = 0; round < pairs; ++round) {
    if (round % 2 == 0) our.push_back(ours(round));
    their.push_back(theirs(round));
    if (round % 2 == 1) our.push_back(ours(round));
    ratio.push_back(our.back() / their.back());
  }
  const auto [least, most] = std::minmax_element(ratio.begin(), ratio.end());
  std::printf("%10.4g %10.4g %10.2f   %.2f..%.2f\n", median(our), median(their), median(ratio), *least, *most);
}

const char* const kCompared = "      ours     theirs      ratio   min..max";

// ---- Files and folders ----------------------------------------------------------------------

// Where the rows of a section work: sources, copies, and all that the rivals need.
char work_path[300] = "";

class Work {
 public:
  explicit Work(const std::string& where) : folder_(where) {
    std::strncpy(work_path, path().c_str(), sizeof work_path - 1);
    fs::create_directory(copies());
  }
  std::string path(const std::string& name = "") const { return folder_.path(name); }
  std::string copies() const { return path("copies"); }

 private:
  Folder folder_;
};

// On Ctrl-C this process becomes one that removes its files: they are gigabytes, perhaps of memory.
void give_up(int) { ::execlp("rm", "rm", "-rf", "--", work_path, nullptr); }

// Old copies go, and all that is not on the disk yet goes there, so that nobody pays for what another has written.
void empty(const std::string& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) fs::remove_all(entry.path());
  shell("sync -f " + folder);
}

void need_space(const Work& work, size_t bytes) {
  if (fs::space(work.path()).available < bytes)
    throw std::runtime_error("it needs " + std::to_string(bytes / kMiB) + " MiB in " + work.path());
}

// The source, which the last row may have left; and room for `copies` of it. Not zeros, and no two blocks alike: a copy
// with blocks exchanged would be found out.
std::string make_file(const Work& work, size_t bytes, size_t copies = 1) {
  const std::string path = work.path("big");
  empty(work.copies());
  if (fs::exists(path) && fs::file_size(path) != bytes) fs::remove(path);
  need_space(work, bytes * (copies + !fs::exists(path)));
  if (fs::exists(path)) return path;
  std::string block = random_bytes(kMiB, 1);
  std::ofstream out(path, std::ios::binary);
  for (size_t at = 0; at < bytes; at += block.size()) {
    std::memcpy(block.data(), &at, sizeof at);
    out.write(block.data(), static_cast<std::streamsize>(std::min(block.size(), bytes - at)));
  }
  if (!out.flush()) throw std::runtime_error("cannot write " + path);
  return path;
}

// A hundred files a folder, as a user's photographs or sources might lie.
std::string make_tree(const Work& work, size_t files) {
  const std::string path = work.path("tree" + std::to_string(files));
  empty(work.copies());
  need_space(work, 4 * files * kSmallFile);  // the tree, the copy, and what they take beside their bytes
  std::string content = random_bytes(kSmallFile, 2);
  for (size_t i = 0; i < files; ++i) {
    const std::string folder = path + "/" + std::to_string(i / 100);
    if (i % 100 == 0) fs::create_directories(folder);
    std::memcpy(content.data(), &i, sizeof i);
    std::ofstream(folder + "/" + std::to_string(i), std::ios::binary) << content;
  }
  return path;
}

size_t total_size(const std::string& path) {
  if (!fs::is_directory(path)) return fs::file_size(path);
  size_t total = 0;
  for (const auto& entry : fs::recursive_directory_iterator(path))
    if (entry.is_regular_file()) total += entry.file_size();
  return total;
}

// The folder holds one entry, which is the copy of `source`, and nothing else: no .part either.
void check_copy(const std::string& source, const std::string& folder, size_t round) {
  const auto entries = std::distance(fs::directory_iterator(folder), fs::directory_iterator());
  if (entries != 1) throw std::runtime_error(std::to_string(entries) + " entries where one copy was expected");
  const std::string copy = fs::directory_iterator(folder)->path();
  if (total_size(copy) != total_size(source)) throw std::runtime_error("the copy is not complete");
  if (round == 0) shell((fs::is_directory(source) ? "diff -rq " : "cmp ") + source + " " + copy);
}

// ---- The rivals ----------------------------------------------------------------------------

// Who sends, and who receives. With 0 hosts, both on one host; else from host 1 to the others, over veth and a bridge.
struct Place {
  explicit Place(int hosts) : network(hosts), from(std::min(hosts, 1)), to(std::min(hosts, 2)) {}
  std::string address() const { return to == 0 ? "127.0.0.1" : Network::address(to); }
  Network network;
  int from, to;
};

// The commands are the shell's: $SRC is to be copied into the empty folder $DST; $HOST and $PORT are the receiver's.
struct Rival {
  enum class End { client, server, reported };
  std::string name, programs;
  std::string server;  // on the receiving host; none: the client does it all
  std::string client;
  End end;             // whose exit says that the copy is complete; or the client reports its throughput itself
};

const Rival kNc = {"nc", "nc", "exec nc -4 -l $PORT </dev/null >$DST/copy", "exec nc -N $HOST $PORT <$SRC",
                   Rival::End::server};
const Rival kRsync = {"rsync (daemon)", "rsync",
                      "printf 'use chroot=no\\nreverse lookup=no\\nuid=0\\ngid=0\\n[to]\\npath=%s\\nread only=no\\n' "
                      "$DST >$WORK/rsync; "
                      "exec rsync --daemon --no-detach --config=$WORK/rsync --address=0.0.0.0 --port=$PORT",
                      "exec rsync $SRC rsync://$HOST:$PORT/to/copy", Rival::End::client};
// sshd wants an empty folder /run/sshd: it gets one that nobody else sees. One key serves as the host's and the user's.
const Rival kScp = {"scp", "scp sshd unshare",
                    "[ -e $WORK/key ] || ssh-keygen -q -t ed25519 -N '' -f $WORK/key; exec unshare -m sh -c '"
                    "mount -t tmpfs none /run && mkdir /run/sshd && exec $(command -v sshd) -D -e -f /dev/null "
                    "-h $0 -p $1 -o ListenAddress=0.0.0.0 -o AuthorizedKeysFile=$0.pub -o StrictModes=no "
                    "-o UsePAM=no -o PidFile=none -o PermitRootLogin=yes "
                    "-o Subsystem=\"sftp internal-sftp\"' $WORK/key $PORT",
                    "exec scp -q -F none -i $WORK/key -o IdentitiesOnly=yes -o StrictHostKeyChecking=no "
                    "-o UserKnownHostsFile=/dev/null -o BatchMode=yes -P $PORT $SRC $(id -un)@$HOST:$DST/copy",
                    Rival::End::client};
// `timeout`: unlike a program that was exec'ed, a part of a pipeline is not killed with the shell.
const Rival kTar = {"tar | nc", "nc tar", "timeout 300 nc -4 -l $PORT </dev/null | tar x -C $DST",
                    "tar c -C ${SRC%/*} ${SRC##*/} | timeout 300 nc -N $HOST $PORT", Rival::End::server};
const Rival kTarSync = {"tar | nc, and sync of the copy", "nc tar", kTar.server + " && sync -f $DST", kTar.client,
                        Rival::End::server};
const Rival kIperf = {"iperf3 (no file)", "iperf3", "exec iperf3 -s -4 -1 -p $PORT",
                      "exec iperf3 -J -c $HOST -p $PORT -n $SIZE", Rival::End::reported};

// Read from /proc: a connection made to find out would be the one that nc waits for.
bool listens(const Process& server, int port) {
  char entry[40];
  std::snprintf(entry, sizeof entry, ":%04X 00000000:0000 0A", static_cast<unsigned>(port));
  return read_file("/proc/" + std::to_string(server.pid()) + "/net/tcp").find(entry) != std::string::npos;
}

// Returns in the moment the process ends; Process::exit_status() looks every few milliseconds only.
void await_success(Process& process) {
  const int fd = static_cast<int>(::syscall(SYS_pidfd_open, process.pid(), 0));
  pollfd end{fd, POLLIN, 0};
  const int ended = ::poll(&end, 1, static_cast<int>(kPatience * 1000));
  ::close(fd);
  if (ended != 1) throw std::runtime_error("not finished after " + std::to_string(kPatience) + " s");
}

void demand_success(Process& process) {
  if (process.exit_status() != 0) throw std::runtime_error("exit status not 0; it said: " + process.output());
}

// iperf3's own figure leaves out its preparations, as a ceiling should.
double iperf_throughput(const std::string& output) {
  static const std::regex received("\"sum_received\":\\s*\\{[^}]*\"bits_per_second\":\\s*([0-9.e+]+)");
  std::smatch found;
  if (!std::regex_search(output, found, received)) throw std::runtime_error("iperf3 said: " + output);
  return std::stod(found[1]) / 8e6;
}

double run(const Rival& rival, const Place& place, const Work& work, const std::string& source, size_t round) {
  static int port = 7000;  // a new one each time: the last one may still be in TIME_WAIT
  empty(work.copies());
  const size_t size = total_size(source);
  const std::string values = "SRC=" + source + " DST=" + work.copies() + " HOST=" + place.address() + " PORT=" +
                             std::to_string(++port) + " SIZE=" + std::to_string(size) + " WORK=" + work.path() + "; ";
  std::optional<Process> server;
  if (!rival.server.empty()) {
    server.emplace(place.network.descriptor(place.to), std::vector<std::string>{"/bin/sh", "-c", values + rival.server},
                   work.path());
    if (!eventually([&] { return listens(*server, port); }))
      throw std::runtime_error(rival.name + " does not listen; it said: " + server->output());
  }
  const auto start = Clock::now();
  Process client(place.network.descriptor(place.from), {"/bin/sh", "-c", values + rival.client}, work.path());
  await_success(rival.end == Rival::End::server ? *server : client);
  const double seconds = since(start);
  demand_success(client);
  if (rival.end == Rival::End::server) demand_success(*server);
  if (rival.end == Rival::End::reported) return iperf_throughput(client.output());
  check_copy(source, work.copies(), round);
  return static_cast<double>(size) / 1e6 / seconds;
}

// ---- Ours -----------------------------------------------------------------------------------

const char* const kSendEnds = "send \\d+ (delivered|failed) .*|error: .*";
const char* const kMessageEnds = "(delivered|failed) bob@.*";

void demand_delivered(const std::string& line) {
  static const std::regex delivered("send \\d+ delivered .*");
  if (!std::regex_match(line, delivered)) throw std::runtime_error(line);
}

// ann, and bob, who takes every file into work.copies(). They have met, and wait for commands.
struct Ours {
  Ours(const Place& place, const Work& work, const std::string& program = peer_program())
      : copies(work.copies()),
        bob(place.network.descriptor(place.to), receiver("bob", copies, program), work.path()),
        ann(place.network.descriptor(place.from), {program, "--name", "ann"}, work.path()) {
    bob.wait_for("joined ann.*");
    ann.wait_for("joined bob.*");
    ann.say("/list");  // a peer takes its first command when its first scan has ended
    ann.wait_for("users 2");
  }

  static std::vector<std::string> receiver(const std::string& name, const std::string& folder,
                                           const std::string& program = peer_program()) {
    return {program, "--name", name, "--accept", "always", "--dir", folder};
  }

  // The seconds it took.
  double send(const std::string& source, size_t round) {
    empty(copies);
    const auto start = Clock::now();
    ann.say("/send bob " + source);
    const std::string end = ann.wait_for(kSendEnds, kPatience);
    const double seconds = since(start);
    demand_delivered(end);
    check_copy(source, copies, round);
    return seconds;
  }

  const std::string copies;
  Process bob, ann;
};

// One row: ours against one rival, both with the same source.
void against(const Rival& rival, const Place& place, const Work& work, const std::string& source, size_t pairs) {
  Ours ours(place, work);
  const double megabytes = static_cast<double>(total_size(source)) / 1e6;
  compare(
      pairs, [&](size_t round) { return megabytes / ours.send(source, round); },
      [&](size_t round) { return run(rival, place, work, source, round); });
}

// ---- The sections of the table ----------------------------------------------------------------

const std::string kMemory = setting("BENCH_DIR", "/dev/shm");
const std::string kDisk = setting("BENCH_DISK", "/var/tmp");

std::string size_name(size_t bytes) {
  const size_t mib = bytes / kMiB;
  return mib >= 1024 ? std::to_string(mib / 1024) + " GiB" : std::to_string(mib) + " MiB";
}

void big_file() {
  const Work work(kMemory);
  const auto rows = [&](int hosts, const std::vector<const Rival*>& rivals) {
    for (const Rival* rival : rivals)
      row(rival->name, rival->programs,
          [&] { against(*rival, Place(hosts), work, make_file(work, kBig), kPairs); });
  };
  begin_section("big file, " + size_name(kBig) + ", loopback", kCompared);
  rows(0, {&kNc, &kRsync, &kScp, &kIperf});
  begin_section("big file, " + size_name(kBig) + ", namespaces", kCompared);
  rows(2, {&kNc, &kRsync, &kScp, &kIperf});
}

void big_file_at_1_gbit() {
  const size_t pairs = std::min<size_t>(kPairs, 3);  // each takes 18 s
  const Work work(kMemory);
  begin_section("big file, " + size_name(kBig) + ", 1 Gbit/s, " + std::to_string(pairs) + " pairs", kCompared);
  for (const Rival* rival : {&kIperf, &kNc})
    row(rival->name, rival->programs, [&] {
      const Place place(2);
      // The burst has room for two of the 64 KiB packets that TCP hands down; less, and tbf has to cut them up.
      for (const int host : {1, 2})
        place.network.run(host, "tc qdisc add dev eth0 root tbf rate 1gbit burst 128kb latency 20ms");
      against(*rival, place, work, make_file(work, kBig), pairs);
    });
}

// On a disk, tar is shown with a sync after it, for ours has its copies on the disk when it ends.
void many_files() {
  const auto compare_with = [&](const Rival& rival, int hosts, const std::string& where) {
    const Work work(where);
    row(rival.name, rival.programs,
        [&] { against(rival, Place(hosts), work, make_tree(work, kMany), kPairs); });
  };
  const std::string title = "many files, " + std::to_string(kMany) + " of 4 KiB, ";
  begin_section(title + "loopback", kCompared);
  compare_with(kTar, 0, kMemory);
  begin_section(title + "namespaces", kCompared);
  compare_with(kTar, 2, kMemory);
  begin_section(title + "disk", kCompared);
  compare_with(kTarSync, 2, kDisk);
}

// All that arrives, in MB/s: at ten receivers at once, and at one of them alone.
void ten_receivers() {
  constexpr int kReceivers = 10;
  const size_t size = 256 * kMiB / kScale;
  begin_section("ten receivers, " + size_name(size) + " each, in total", "    to ten     to one      ratio   min..max");
  row("/sendall, ten namespaces", "", [&] {
    const Work work(kMemory);
    const Place place(1 + kReceivers);
    const std::string source = make_file(work, size, kReceivers);
    const double megabytes = static_cast<double>(size) / 1e6;
    Process ann(place.network.descriptor(1), {peer_program(), "--name", "ann"}, work.path());
    std::vector<std::string> folders;
    std::vector<std::unique_ptr<Process>> receivers;
    for (int i = 1; i <= kReceivers; ++i) {
      const std::string name = "r" + std::to_string(i);
      folders.push_back(work.copies() + "/" + name);
      fs::create_directory(folders.back());
      receivers.push_back(std::make_unique<Process>(place.network.descriptor(1 + i),
                                                    Ours::receiver(name, folders.back()), work.path()));
    }
    for (int i = 1; i <= kReceivers; ++i) ann.wait_for("joined .*");
    const auto timed = [&](const std::string& command, const std::string& ends) {
      for (const std::string& folder : folders) empty(folder);
      const auto start = Clock::now();
      ann.say(command + " " + source);
      const std::string end = ann.wait_for(ends, kPatience);
      const double seconds = since(start);
      if (command != "/sendall") demand_delivered(end);
      else if (end.find(" to 10 of 10") == std::string::npos) throw std::runtime_error(end);
      return seconds;
    };
    compare(
        kPairs,
        [&](size_t round) {
          const double seconds = timed("/sendall", "sent .*|error: .*");
          for (const std::string& folder : folders) check_copy(source, folder, round);
          return kReceivers * megabytes / seconds;
        },
        [&](size_t) { return megabytes / timed("/send r1", kSendEnds); });
  });
}

double peak_mib(const Process& process) { return static_cast<double>(process.uses("VmHWM")) / 1024; }

// The medians of three; and the most memory that either peer has had. The rival is the measure of the machine: where it
// slows down as well, it is memory that does not keep up.
void grow(const Rival& rival, const Work& work, const std::string& source, double units) {
  const Place place(2);
  Ours ours(place, work);
  const double megabytes = static_cast<double>(total_size(source)) / 1e6;
  std::vector<double> seconds, theirs;
  for (size_t round = 0; round < 3; ++round) {
    seconds.push_back(ours.send(source, round));
    theirs.push_back(megabytes / run(rival, place, work, source, round + 1));  // not round 0: ours was compared
  }
  std::printf("%10.4f %10.0f %10.0f %7.1f %7.1f\n", median(seconds), units / median(seconds), units / median(theirs),
              peak_mib(ours.ann), peak_mib(ours.bob));
}

void growth() {
  const Work work(kMemory);
  begin_section("growth, one file, namespaces", "   seconds       MB/s   MB/s, nc  MiB resident, ann bob");
  for (const size_t mib : {1u, 16u, 256u, 1024u, 4096u})
    row(std::to_string(mib) + " MiB" + (kScale == 1 ? "" : " / " + std::to_string(kScale)), "", [&] {
      const size_t size = mib * kMiB / kScale;
      grow(kNc, work, make_file(work, size), static_cast<double>(size) / 1e6);
    });
  begin_section("growth, files of 4 KiB, namespaces", "   seconds    files/s  tar | nc   MiB resident, ann bob");
  for (const size_t files : {100u, 1000u, 10'000u, 20'000u})
    row(std::to_string(files) + " files" + (kScale == 1 ? "" : " / " + std::to_string(kScale)), "", [&] {
      const size_t count = std::max<size_t>(1, files / kScale);
      grow(kTar, work, make_tree(work, count), static_cast<double>(count));
    });
}

// Milliseconds from typing a message to its acknowledgement; none if the end of a file came before that.
std::optional<double> message(Ours& ours) {
  std::this_thread::sleep_for(std::chrono::milliseconds(10));  // spread over the whole file, not all at its start
  const auto start = Clock::now();
  ours.ann.say("/msg bob x");
  const std::string line = ours.ann.wait_for(std::string(kMessageEnds) + "|" + kSendEnds, kPatience);
  const double milliseconds = since(start) * 1000;
  ours.bob.wait_for("message ann@.* private: x");
  if (line.rfind("delivered", 0) == 0) return milliseconds;
  demand_delivered(line);
  ours.ann.wait_for(kMessageEnds);
  return std::nullopt;
}

double message_time(Ours& ours) {
  std::vector<double> times;
  while (times.size() < kMessages) times.push_back(message(ours).value());
  return median(times);
}

void message_latency() {
  begin_section("message, in ms, namespaces", "while busy       idle      ratio   min..max");
  row("while " + size_name(kBig) + " goes to the same peer", "", [] {
    const Work work(kMemory);
    const Place place(2);
    const std::string source = make_file(work, kBig);
    Ours ours(place, work);
    message(ours);  // opens the connection
    const auto busy = [&](size_t) {
      std::vector<double> times;
      while (times.size() < kMessages) {
        empty(work.copies());
        ours.ann.say("/send bob " + source);
        ours.ann.wait_for("send \\d+ started .*");
        while (const auto time = message(ours)) times.push_back(*time);
      }
      return median(times);
    };
    compare(kPairs, busy, [&](size_t) { return message_time(ours); });
  });
}

// ---- Ours, as it was ----------------------------------------------------------------------------

// Each of the two has a place of its own, where nobody else is. Empty, and there are no such rows.
const std::string kBefore = setting("BENCH_BEFORE");

// Both write into the same folder, each in its turn. In a folder of its own each would have its own
// part of the disk, fuller or emptier, nearer to the source or farther: so the same program was
// twice as fast as itself.
void file_as_before(const std::string& source, const Work& work) {
  const Place place(2);
  const Place other_place(2);
  Ours now(place, work);
  Ours before(other_place, work, kBefore);
  const double megabytes = static_cast<double>(total_size(source)) / 1e6;
  compare(
      kPairs, [&](size_t round) { return megabytes / now.send(source, round); },
      [&](size_t round) { return megabytes / before.send(source, round); });
}

void beside_before() {
  if (kBefore.empty()) return;
  begin_section("beside the program of before, namespaces", kCompared);
  // Not many files on a disk: the same program differed from itself by a factor of two.
  row("before: one file of " + size_name(kBig), "", [] {
    const Work work(kMemory);
    file_as_before(make_file(work, kBig), work);
  });
  row("before: one file of " + size_name(kBig) + ", disk", "", [] {
    const Work work(kDisk);
    file_as_before(make_file(work, kBig), work);
  });
  row("before: " + std::to_string(kMany) + " files", "", [] {
    const Work work(kMemory);
    file_as_before(make_tree(work, kMany), work);
  });
  begin_section("a message, in ms, beside the program of before", kCompared);
  row("before: a message", "", [] {
    const Place place(2), other_place(2);
    const Work work(kMemory), other_work(kMemory);
    Ours now(place, work), before(other_place, other_work, kBefore);
    for (Ours* each : {&now, &before}) message(*each);  // opens the connection
    compare(
        kPairs, [&](size_t) { return message_time(now); }, [&](size_t) { return message_time(before); });
  });
}

// A peer on a terminal, where names stand alone if nobody else has them. Its users are datagrams of ours.
class Listener {
 public:
  explicit Listener(int users) : users_(users), network_(0), work_(kMemory) {
    std::ofstream(work_.path("start")) << "echo $$ >pid; exec " << peer_program() << " --name ann --group lab\n";
    const std::vector<std::string> command = {"/usr/bin/env", "script", "-q", "-f", "-c", "sh ./start", "/dev/null"};
    terminal_.emplace(network_.descriptor(0), command, work_.path());
    terminal_->wait_for("[^]*/help lists[^]*");
    pid_ = std::stoi(read_file(work_.path("pid")));
  }

  // How long the main thread is busy with a message of one of them, in microseconds.
  double cost_of_a_message() {
    for (int i = 0; i < users_; ++i) socket_of(i).meet("127.0.0.1", 25253, fields_of(i));
    Socket sender = Socket::tcp(network_, 0, "127.0.0.1", 25253, address_of(0));
    sender.send("ChatByP2P/1 HELLO " + fields_of(0) + "\n");
    constexpr int kCount = 5000;
    std::string messages;
    for (int i = 0; i < kCount; ++i) {
      ++number_;
      messages += "MSG number=" + std::to_string(number_) + " :this is " + std::to_string(number_) + "\n";
    }
    wait_until_idle();  // who has just come costs something, too: once
    const double before = busy();
    sender.send(messages);
    terminal_->wait_for("[^]*u0[^]*: this is " + std::to_string(number_) + "\\b[^]*");
    return (busy() - before) / kCount;
  }

 private:
  static std::string address_of(int i) { return "127.1.0." + std::to_string(1 + i % 10); }
  static std::string fields_of(int i) {
    const std::string number = std::to_string(1000 + i);
    return "id=000000000000" + number + " ip=" + address_of(i) + " port=" + std::to_string(40000 + i) + " name=u" +
           std::to_string(i) + " group=lab";
  }
  Socket socket_of(int i) const { return Socket::udp(network_, 0, 40000 + i, address_of(i)); }
  double busy() const {  // so far
    const std::string task = "/proc/" + std::to_string(pid_) + "/task/" + std::to_string(pid_);
    return std::stod(read_file(task + "/schedstat")) / 1000;
  }

  void wait_until_idle() const {
    double before = busy();
    for (;;) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      const double now = busy();
      if (now - before < 1000) return;
      before = now;
    }
  }

  const int users_;
  Network network_;
  Work work_;
  std::optional<Process> terminal_;
  int pid_ = -1;
  int number_ = 0;
};

void message_among_many() {
  begin_section("message shown, main thread, in us", "1000 users   10 users      ratio   min..max");
  row("on a terminal", "script", [] {
    Listener many(1000), few(10);
    compare(
        kPairs, [&](size_t) { return many.cost_of_a_message(); }, [&](size_t) { return few.cost_of_a_message(); });
  });
}

// ---- main -----------------------------------------------------------------------------------

std::string file_system(const std::string& folder) {
  return folder + " (" + output_of("df --output=fstype " + folder + " | tail -1") + ")";
}

void say_what_it_is_measured_on() {
  const std::string compiler = setting("CXX", "g++");
  std::cout << output_of("date '+%F %H:%M'") << ", " << output_of("sed -n 's/^model name.*: //p' /proc/cpuinfo") << ", "
            << std::thread::hardware_concurrency() << " cores, " << output_of("uname -sr") << ", load "
            << output_of("cut -d' ' -f1 /proc/loadavg") << "\n"
            << output_of(compiler + " --version") << ", " << setting("CXXFLAGS", "flags unknown") << "\n"
            << "Files in " << file_system(kMemory) << "; rows named disk: " << file_system(kDisk) << "\n"
            << "Pairs a row: " << kPairs << "; medians in MB/s (10^6 bytes); ratio: median of the pairs'.\n"
            << "namespaces: joined by veth and a bridge, MTU 1500, segmentation offload on." << std::endl;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) filter = argv[1];
  // What is an assertion to a test is an exception here, which ends the row.
  testing::GTEST_FLAG(throw_on_failure) = true;
  testing::InitGoogleTest(&argc, argv);
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  delete listeners.Release(listeners.default_result_printer());
  ::setvbuf(stdout, nullptr, _IONBF, 0);
  ::signal(SIGPIPE, SIG_IGN);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::signal(number, give_up);
  if (!enter_private_network()) {
    std::cerr << "network namespaces are not allowed here; run as root" << std::endl;
    return 1;
  }
  say_what_it_is_measured_on();
  big_file();
  big_file_at_1_gbit();
  many_files();
  ten_receivers();
  growth();
  message_latency();
  message_among_many();
  beside_before();
}
