// The implementation of pair.h.

#include "pair.h"

#include <fcntl.h>
#include <net/ethernet.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <sstream>
#include <stdexcept>

#include "grade.h"
#include "support/system.h"

namespace grade {

namespace {

// All that passes the cable of host 1, in the format of libpcap, as a process of its own: it ends with this object. Of a
// program that floods, the first megabytes tell enough.
class Capture {
 public:
  explicit Capture(const std::string& file) {
    const int out = ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    must(out != -1, "open " + file);
    const int cable = network().cable(0, "v1", SOCK_RAW, ETH_P_ALL);
    pid_ = ::fork();
    if (pid_ == 0) run(cable, out);
    ::close(cable);
    ::close(out);
  }
  ~Capture() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

 private:
  [[noreturn]] static void run(int cable, int out) {
    constexpr uint32_t kMostOfAPacket = 262'144;
    constexpr size_t kMostInAll = 16'000'000;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const uint32_t first[] = {0xa1b2c3d4, 2 | 4u << 16, 0, 0, kMostOfAPacket, 1};  // version 2.4, of Ethernet
    std::string bytes(reinterpret_cast<const char*>(first), sizeof first), packet(kMostOfAPacket, '\0');
    for (size_t all = 0; all < kMostInAll && ::write(out, bytes.data(), bytes.size()) != -1; all += bytes.size()) {
      const ssize_t got = ::recv(cable, packet.data(), packet.size(), 0);
      if (got == -1) break;
      timeval now{};
      ::gettimeofday(&now, nullptr);
      const auto size = static_cast<uint32_t>(got);
      const uint32_t head[] = {static_cast<uint32_t>(now.tv_sec), static_cast<uint32_t>(now.tv_usec), size, size};
      bytes.assign(reinterpret_cast<const char*>(head), sizeof head);
      bytes.append(packet, 0, size);
    }
    ::_exit(0);
  }

  pid_t pid_ = -1;
};

// What one can do with the other, each by itself: what fails first is no reason not to try the next.
class Direction {
 public:
  Direction(Program& from, Program& to) : from_(from), to_(to) {}

  void try_all() {
    attempt("found", [&] { from_.prints("joined " + to_.me(), 20); });
    attempt("message", [&] { send_message(); });
    attempt("file", [&] { send_file(); });
  }
  std::string result() const { return missing_.empty() ? "ok" : missing_; }

 private:
  void attempt(const std::string& what, const std::function<void()>& try_it) {
    try {
      try_it();
    } catch (const std::exception&) {
      missing_ += (missing_.empty() ? "" : ",") + what;
    }
  }
  void send_message() {
    const std::string text = words("a message of " + from_.name);
    from_.say("/msg " + to_.at() + " " + text);
    to_.prints("message " + from_.who() + " private: " + text, 15);
    from_.prints("delivered ..." + to_.at() + ": " + text, 15);
  }
  void send_file() {
    constexpr size_t kSize = 300'000;
    const std::string name = drawn("file" + from_.name.substr(0, 3)) + ".bin";
    const std::string content = random_bytes(kSize, drawn_number(name, 1, 1'000'000));
    from_.write(name, content);
    const std::string what = " 300000 bytes, cksum " + crc(content) + ": " + name;
    const std::string delivered = "send ... delivered ..." + to_.at() + what;
    from_.say("/send " + to_.at() + " " + name);
    accept(name, delivered);
    from_.prints(delivered, 20);
    to_.has_stored(name, content);
  }
  // Typed, because a program that knows no files yet has no --accept either, and would not start.
  // One that asks nobody has taken the file by itself.
  void accept(const std::string& name, const std::string& delivered) {
    const std::string offered = "receive ... offered " + from_.who() + " 300000 bytes: " + name;
    const auto is_answered = [&] { return to_.count(offered) > 0 || from_.count(delivered) > 0; };
    until(15, is_answered, to_.name + " prints: " + offered);
    if (to_.count(offered) == 0) return;
    std::istringstream words(to_.prints(offered));
    std::string receive, number;
    words >> receive >> number;
    to_.say("/accept " + number);
  }

  Program &from_, &to_;
  std::string missing_;
};

}  // namespace

bool play_pair(const std::string& one, const std::string& other, const std::string& capture) {
  // Seconds: enough for every wait of both directions, or the second would pay for the first.
  constexpr int kLimit = 200;
  const Folder scratch;
  begin_case(scratch.path(), kLimit, "pair");
  classroom(2);
  bool is_good = false;
  std::string results;
  {
    const Capture recording(capture);
    ::setenv("PEER", one.c_str(), 1);
    Program ann("ann", {}, 1);
    ::setenv("PEER", other.c_str(), 1);
    Program bob("bob", {}, 2);
    Direction there(ann, bob), back(bob, ann);
    try {
      ann.ready();
      bob.ready();
      there.try_all();
      back.try_all();
      results = there.result() + " " + back.result();
    } catch (const std::exception&) {
      results = "ready ready";  // what does not start works with nobody
    }
    is_good = results == "ok ok";
    end_case();
  }
  if (is_good) std::filesystem::remove(capture);
  std::cout << results << std::endl;
  return is_good;
}

}  // namespace grade
