// What the cases of `make grade` are told with. They judge any program by docs/protocol.md and docs/interface.md alone:
// from outside, over its sockets and its standard streams, and with nothing of ours but the tests' virtual classroom.
//
//   CASE       one story of what a user, or another peer, may rely on; with its requirement and its clauses
//   Program    the program that is judged, started on a host of the virtual classroom
//   Stranger   a peer written by hand, who keeps to the protocol: it answers and beats by itself while a case waits
//   Talk       a TCP connection, opened by a Stranger or by the program
//   Ear        a bare UDP socket
//
// Every wait runs one loop that reads all of these, so nothing that floods or hangs can stop a case. The first
// expectation that is missed ends its case. It writes what was expected, what came, and a picture of all that passed.
//
// Names, groups, ids, ports and texts are drawn, by the seed that the report prints: a case calls somebody "ann", and
// the program is started as, say, "kelori". So nobody can answer from a table.
//
// What judges TCP introduces itself over TCP and is called by IP:PORT, so that a mistake in finding others does not
// cost the points of everything else. Cases that do need the list say so in their title.
//
// A program is kept in: in a network namespace there is no way to a real network, and in a process namespace of its own
// it ends with its case, whatever it has forked. The file system it shares with whoever runs the grader, as that user.

#ifndef CHATBYP2P_GRADE_H
#define CHATBYP2P_GRADE_H

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "support/testing.h"

namespace grade {

// A requirement's points are shared among its cases, by their weights. P5.3 is a clause of docs/protocol.md, I3 of
// docs/interface.md.
struct Case {
  Case(const char* requirement, const char* name, const char* clauses, const char* title, int limit, int weight);
  std::string requirement, name, clauses, title;
  int limit;   // seconds; who has more than kWorking waits for most of it
  int weight;
  bool is_long() const { return limit > kShort; }  // only with LONG=1
  std::string id() const { return requirement + "." + name; }
  static constexpr int kWorking = 20, kShort = 75;
};
const std::list<Case>& all_cases();

#define CASE_WORTH(weight, limit, requirement, name, clauses, title)                                         \
  static const grade::Case case_##requirement##_##name(#requirement, #name, clauses, title, limit, weight);   \
  TEST(requirement, name)
#define CASE_OF(limit, requirement, name, clauses, title) CASE_WORTH(1, limit, requirement, name, clauses, title)
#define CASE(requirement, name, clauses, title) CASE_OF(20, requirement, name, clauses, title)

// Before its first line a case may ask for hosts; else it is on one host, number 0, with loopback only.
void classroom(int hosts);
const Network& network();
// At the full five minutes of the clock on the wall a sweep begins anew. A case about one sweep lets that pass first, if
// it comes within so many seconds.
void begin_between_full_fives(int seconds);
void begin_case(const std::string& folder, int limit, const std::string& seed);
void end_case();  // ends all programs

constexpr double kEarlyBeats = 7;  // until then, heartbeats may come 2 s apart [4.2]
constexpr double kSoon = 8;   // for what is done at once, on a machine that has other things to do
constexpr double kStart = 5;  // for a program to start, or to refuse to
double now();                // seconds since the case began

[[noreturn]] void fail(const std::string& expected, const std::string& came);
void check(bool good, const std::string& expected, const std::string& came);
void until(double seconds, const std::function<bool()>& condition, const std::string& expected);
void pause(double seconds);  // and serves meanwhile
// That what was waited for since then has come neither too early nor too late. The bounds leave room for a program in
// a slow language on a busy machine; twice the time, or half of it, is outside.
void expect_took(double since, double least, double most, const std::string& what);
void expect_between(double since, double at, double least, double most, const std::string& what);

// Drawn by the seed, the same all through a case: a name for this part in the story; a text in place of that one.
std::string drawn(const std::string& part);
std::string words(const std::string& about);
std::string drawn_id(const std::string& part);
std::string the_file();   // "kelori.txt"
std::string six_bytes();  // what most files have in them, an LF at its end
uint32_t drawn_number(const std::string& what, uint32_t from, uint32_t to);

// "..." stands for anything; a text may have CR at its end.
bool fits(const std::string& pattern, const std::string& text);
std::string escaped(const std::string& bytes, size_t most = 160);
std::string crc(const std::string& bytes);  // as cksum has it
std::string text_of(size_t size, char letter = 'x');
inline const std::string kFox = "\xf0\x9f\xa6\x8a";  // a character of four bytes

// A line of the protocol, taken apart: its fields in any order, its text without the colon.
struct Line {
  explicit Line(const std::string& line);
  std::string verb, text, whole;
  std::vector<std::pair<std::string, std::string>> fields;
  std::string operator[](const std::string& key) const;  // "" if it is not there
  bool is(const std::string& verb, const std::vector<std::pair<std::string, std::string>>& required) const;
};
using Fields = std::vector<std::pair<std::string, std::string>>;  // {"to", "-"}: not there

class Program {
 public:
  // With --name and --group, unless the name is "". "ann" stands for a name that is drawn; another text is taken as it
  // is. So is the group.
  explicit Program(const std::string& name, std::vector<std::string> options = {}, int host = 0,
                   const std::string& group = "lab");
  Program(const Program&) = delete;
  ~Program();
  Program& ready();                                   // waits for the line, and knows port and address from there
  void say(const std::string& line);
  void say_bytes(const std::string& bytes);
  void end_input();
  void signal(int number);                            // SIGSTOP, SIGCONT, SIGTERM, SIGINT, SIGHUP, SIGKILL
  // Waits for a line of standard output that fits and was not waited for already, in whatever order they come.
  std::string prints(const std::string& pattern, double seconds = kSoon);
  void prints_not(const std::string& pattern, double seconds = 0);
  size_t count(const std::string& pattern) const;
  void expect_exit(int status, double seconds = kSoon);
  const std::string& errors() const { return errors_; }
  std::string output() const;
  void serves();                                      // a newcomer is answered and his message is shown
  size_t memory() const;                              // KiB in use, of all its processes
  std::string at() const { return ip + ":" + std::to_string(port); }
  std::string who() const { return name + "@" + at(); }
  std::string me() const { return who() + " " + group; }
  std::string path(const std::string& file = "") const { return folder_ + (file.empty() ? "" : "/" + file); }
  std::string write(const std::string& file, const std::string& content) const;
  std::vector<std::string> stored() const;            // names in downloads/
  // That the file stands there, with this content.
  void has_stored(const std::string& file, const std::string& content) const;
  void has_not_stored(const std::string& file) const;

  const std::string name, group;
  std::string ip = "127.0.0.1";
  int port = 25253;

 private:
  std::string nearest(const std::string& pattern) const;
  void read(int fd, bool is_error);
  bool has_ended();
  bool prints_only_at_its_end();
  struct Printed { std::string text; double at; bool used; };
  std::string folder_, partial_, errors_;
  std::vector<Printed> lines_;
  std::vector<int> streams_;
  size_t kept_ = 0;
  int in_ = -1, keeper_ = -1, status_ = -1, open_ = 2, served_ = 0;
};

struct Datagram {
  std::string bytes, ip;
  int port;
  double at;  // when the kernel got it
  bool used;
};

class Ear {
 public:
  explicit Ear(int port, const std::string& ip = "0.0.0.0", int host = 0);
  ~Ear();
  void send(const std::string& ip, int port, const std::string& bytes) const;
  void pour(const std::string& ip, int port, const std::string& bytes) const;  // one of thousands: not in the picture
  Datagram hears(const std::string& verb, const Fields& required = {}, double seconds = kSoon);
  void hears_not(const std::string& verb, const Fields& required, double seconds);
  size_t count(const std::string& verb, const Fields& required = {}) const;
  std::function<void(const Datagram&)> at_once = [](const Datagram&) {};
  void forget() { heard.clear(); }                    // from now on only what is new counts
  std::vector<Datagram> heard;
  const int port;
  std::string label;                                  // whose it is, in pictures

 private:
  void read();
  int fd_;
};

class Talk {
 public:
  // Of the stranger `who` at that port, with the program that is called so.
  Talk(int fd, const std::string& who, int port, const std::string& program);
  ~Talk();
  bool send(const std::string& bytes);
  void pieces(const std::string& bytes, size_t cut);  // two, or with 0, one byte at a time
  void stop_reading();                                // from now on, as somebody whose program hangs
  void rest(double seconds);                          // reads nothing meanwhile, so the buffers in between fill up
  std::string line(const std::string& expected = "a line");  // without its line end
  std::string expect(const std::string& pattern);     // the next line fits
  void ask(const std::string& request, const std::string& reply) { send(request + "\n"), expect(reply); }
  Line request(const std::string& verb, const Fields& required = {});
  std::string bytes(size_t size);
  void expect_end(double seconds = 15);               // what is sent meanwhile does not matter
  void expect_silence(double seconds);
  bool has_line() const { return buffer_.find('\n') != std::string::npos; }
  bool has_ended() const { return ended_; }
  bool was_reset() const { return was_reset_; }
  void expect_reset(double seconds = 15);
  void half_close();
  void reset();
  void close();
  bool claimed = false, introduced = false;           // of those that the program opened

 private:
  friend class Stranger;
  void read();
  bool write(const std::string& bytes);
  std::string who_, program_, buffer_;
  int port_;
  int fd_;
  bool ended_ = false, was_reset_ = false;
};

class Stranger {
 public:
  // The name and the group as Program has them; port 0 is drawn.
  explicit Stranger(const std::string& name, int port = 0, const std::string& group = "lab", int host = 0,
                    const std::string& ip = "127.0.0.1");
  ~Stranger();
  void join_broadcasts();                             // has the shared port, too, so that it is found
  std::string at() const { return ip_ + ":" + std::to_string(ear.port); }
  std::string who() const { return name + "@" + at(); }
  std::string me() const { return who() + " " + group; }
  std::string fields() const;
  std::string hello() const { return "ChatByP2P/1 HELLO " + fields(); }
  std::string here() const { return "ChatByP2P/1 HERE " + fields(); }
  std::string here(const std::string& to) const { return here() + " to=" + to; }
  std::string bye() const { return "ChatByP2P/1 BYE " + fields(); }
  void tell(const Program& program, const std::string& datagram) const;
  Datagram hears(const std::string& verb, const Fields& required = {}, double seconds = kSoon) {
    return ear.hears(verb, required, seconds);
  }
  std::string id_of(const Program& program);          // asks it, over UDP
  std::string id_by_tcp(const Program& program);
  Stranger& meet(Program& program);                   // says HELLO, and is listed
  Talk& call(const Program& program);
  Talk& introduced(const Program& program);           // has said HELLO there, and was answered
  Talk& asked();                                      // a connection of the program's, on which it asks for something
  bool is_called() const;                             // called() would return at once
  Talk& called();  // any, of which nothing was read: to answer even the HELLO by hand
  // A file that is offered and accepted: what follows is up to the case.
  Talk& offers(Program& program, const std::string& what, const std::string& answer = "OK");

  std::string name, group, id, announced_ip;
  bool answers = true, beats = true, introduces = true;
  void is_mute() { answers = beats = false; }         // over UDP, from now on
  Ear ear;

 private:
  Talk* waiting_call() const;
  void serve();
  void answer(const Datagram& datagram) const;
  friend void serve_all(double);
  std::string ip_;
  int host_, listener_;
  double beat_ = 5;
  std::unique_ptr<Ear> shared_;
};

// How most cases begin, as `auto&& [ann, zoe] = Strangers();`: ann is the program, zoe the stranger.
struct Strangers {
  explicit Strangers(std::vector<std::string> options = {});
  Program ann;
  Stranger zoe;
};

struct Listed {  // ann lists zoe
  explicit Listed(std::vector<std::string> options = {});
  Program ann;
  Stranger zoe;
};

}  // namespace grade

#endif
