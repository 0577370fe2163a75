// protocol.h: what peers say to each other, and what the parts of one peer say to each other.
//
// READ THIS FIRST. Then discovery.cpp (UDP: who is here), transfer.cpp (TCP: messages and files),
// and peer.cpp (main, the select() loop, the commands), which puts the parts together.
//
//   Part 1  the protocol: limits, addresses, and every message with its parse() and format(). Pure
//           functions: no socket, no file, no clock. docs/protocol.md is the specification; "[4.2]"
//           means its clause 4.2.
//   Part 2  the program: small tools around POSIX calls, the events, and what discovery.cpp and
//           transfer.cpp, which do not know each other, offer to peer.cpp.
//   Then a second reading, for what you can skip at first: longer bodies of what the first one
//           declares, folders and resumed files on the wire, the checksum, --trace.
//
// One process is one peer. So a part of the program is a file and not a class: its state is in its
// unnamed namespace, where nobody else sees it. A larger program would make objects of them.
// Here everything is `inline`, because all three include this file.
//
// Threads: Part 1 may be called from any. The functions of discovery and transfer are for the main
// thread alone. The thread of a connection talks back to it through the queue `events`.
//
// Left out on purpose: IPv6 (it has no broadcast), encryption, and any library beyond C++17 and
// POSIX.

#ifndef CHATBYP2P_PROTOCOL_H
#define CHATBYP2P_PROTOCOL_H

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <ctime>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

// ============================================================================
// PART 1: THE PROTOCOL
// ============================================================================

// Short names for what nearly every line uses. Only the files of this program include this one: a
// library's header should not do this to its users.
using std::nullopt;
using std::optional;
using std::string;
using std::string_view;
using std::to_string;
using std::vector;
using namespace std::chrono_literals;

// ---- Constants and limits [2] ----------------------------------------------

inline constexpr string_view kMagic = "ChatByP2P/1";  // protocol and version

inline constexpr uint16_t kDiscoveryPort = 25252;  // UDP, shared by all instances of a host
inline constexpr uint16_t kFirstPort = 25253;      // an instance's own port: the first free one
inline constexpr uint16_t kLastPort = 25508;       // from here to here

inline constexpr std::chrono::seconds kHeartbeat{5};  // a peer says HERE so often, or
inline constexpr uint64_t kMaxEvery = 60;             // less often in a large class [4.2]

inline constexpr size_t kMaxDatagram = 512;  // bytes
inline constexpr size_t kMaxLine = 4096;     // bytes, the LF not counted
inline constexpr size_t kMaxText = 4000;     // bytes of a message: it fits a line
inline constexpr size_t kMaxName = 32;       // characters (code points) of a user or group name
inline constexpr size_t kMaxFileName = 255;  // bytes: NAME_MAX of the usual file systems
inline constexpr size_t kMaxPath = 4000;     // bytes of an entry's path within a folder

// ---- Text [3.1] --------------------------------------------------------------

// UTF-8 without control characters; TAB is the one exception.
inline bool is_text(string_view text);

// A user or group name: 1 to kMaxName characters, none of them blank or control, and not all of
// them invisible.
inline bool is_name(string_view text);

// `text`, safe to show: whatever could steer the terminal, or is not UTF-8, becomes \xHH.
// Everything that comes from outside passes through here on its way to the screen.
inline string printable(string_view text);

// `text`, or as much of its beginning as fits into `most` bytes, with a "…" behind it.
inline string shortened(string text, size_t most);

// The whole of `text` as a decimal number of at most `most`; nothing for anything else, "+1", "1 "
// and "" included.
inline optional<uint64_t> parse_number(string_view text, uint64_t most = UINT64_MAX);

inline bool begins_with(string_view text, string_view beginning) {
  return text.substr(0, beginning.size()) == beginning;
}

// Takes the next word off `text`, and the blank behind it.
inline string_view take_word(string_view& text);

// ---- Addresses [3.2] ---------------------------------------------------------

// IPv4, in host byte order. Only to_sockaddr() and from_sockaddr() know about network byte order:
// forget one htons() elsewhere, and 25253 silently becomes port 42338.
struct Address {
  uint32_t ip = 0;
  uint16_t port = 0;

  bool operator==(const Address& o) const {
    return ip == o.ip && port == o.port;
  }
  bool operator!=(const Address& o) const {
    return !(*this == o);
  }
  bool operator<(const Address& o) const {
    return std::tie(ip, port) < std::tie(o.ip, o.port);
  }

  sockaddr_in to_sockaddr() const {
    sockaddr_in raw{};
    raw.sin_family = AF_INET;
    raw.sin_addr.s_addr = htonl(ip);
    raw.sin_port = htons(port);
    return raw;
  }
  static Address from_sockaddr(const sockaddr_in& raw) {
    return {ntohl(raw.sin_addr.s_addr), ntohs(raw.sin_port)};
  }

  string ip_text() const {  // "10.0.0.7"
    const in_addr raw{htonl(ip)};
    std::array<char, INET_ADDRSTRLEN> text{};
    return ::inet_ntop(AF_INET, &raw, text.data(), text.size());
  }
  string text() const {  // "10.0.0.7:25253"
    return ip_text() + ":" + to_string(port);
  }
};

// "10.0.0.7": four decimal parts, nothing else.
inline optional<uint32_t> parse_ip(string_view text);

// A port is 1 to 65535.
inline optional<uint16_t> parse_port(string_view text);

// "10.0.0.7:25253"
inline optional<Address> parse_address(string_view text);

// ---- Lines [3.2] -------------------------------------------------------------

// Every line is  VERB key=value key=value ... :text  with single blanks between them; there may be
// no keys, and no text. A reader picks the keys it knows and skips the others: that is how version
// 1 can grow without breaking those who speak it.
struct Line {
  string_view verb;
  std::map<string_view, string_view> fields;
  optional<string_view> text;  // what follows " :", blanks and all

  // Views into `line`, which must outlive the result. Nothing for a word without "=", and for a key
  // that is given twice.
  static optional<Line> parse(string_view line) {
    Line result;
    const size_t colon = line.find(" :");
    if (colon != string_view::npos) {
      result.text = line.substr(colon + 2);
      line = line.substr(0, colon);
    }
    result.verb = take_word(line);
    while (!line.empty()) {
      const string_view word = take_word(line);
      const size_t equals = word.find('=');
      if (equals == string_view::npos || equals == 0)
        return nullopt;
      const string_view key = word.substr(0, equals);
      const string_view value = word.substr(equals + 1);
      const bool is_new = result.fields.emplace(key, value).second;
      if (!is_new) return nullopt;
    }
    return result;
  }

  string_view field(string_view key) const {  // empty if it is missing
    const auto found = fields.find(key);
    return found == fields.end() ? string_view() : found->second;
  }
  // The sizes of files are numbers, too, so no number is larger than an off_t can hold.
  optional<uint64_t> number(string_view key, uint64_t most = INT64_MAX) const {
    return parse_number(field(key), most);
  }
  optional<uint32_t> checksum() const;  // the number behind crc=
};

// " size=4096", to be put behind a verb.
inline string key_value(string_view key, string_view value) {
  return " " + string(key) + "=" + string(value);
}
inline string key_value(string_view key, uint64_t value) {
  return key_value(key, to_string(value));
}

// ---- Announcements [4.1]: who I am --------------------------------------------

// Who a peer is. The id, drawn at start, is the peer. Its name is only what it is called, and two
// peers may have the same one.
struct Identity {
  string id;  // 16 hexadecimal digits; empty: whoever is at the address
  string name;
  string group;
  Address address;       // where it can be reached, over UDP and TCP
  uint32_t said_ip = 0;  // the IP address that it believes it has, which may be another one

  // "ann@10.0.0.7:25253", which is never ambiguous.
  string label() const {
    return (name.empty() ? "" : name + "@") + address.text();
  }

  // Whether a user sees the two as one: "ann@10.0.0.7:25253 lab".
  bool looks_like(const Identity& o) const {
    return label() == o.label() && group == o.group;
  }

  static bool is_id(string_view text);
};

enum class Verb { hello, here, bye };

inline constexpr string_view kVerbs[] = {"HELLO", "HERE", "BYE"};  // in the order of Verb

inline optional<Verb> parse_verb(string_view word) {
  for (const Verb verb : {Verb::hello, Verb::here, Verb::bye})
    if (word == kVerbs[static_cast<size_t>(verb)])
      return verb;
  return nullopt;
}

// The one message of discovery, and the introduction on a TCP connection:
//   ChatByP2P/1 HELLO id=5f0c61aa97d2b3e4 ip=10.0.0.7 port=25253 name=ann group=lab
struct Announcement {
  Verb verb = Verb::hello;
  Identity who;
  string to = {};    // HERE only: the id of the peer it answers, "I hear you"; else empty
  bool ask_host = false;  // HELLO only: "name the other instances of your host, too" [4.3]
  std::chrono::seconds every = kHeartbeat;  // between its heartbeats; more in a large class [4.2]

  string format() const {
    string line(kMagic);
    line += " ";
    line += kVerbs[static_cast<size_t>(verb)];
    line += key_value("id", who.id);
    line += key_value("ip", Address{who.said_ip, 0}.ip_text());
    line += key_value("port", who.address.port);
    line += key_value("name", who.name);
    line += key_value("group", who.group);
    if (!to.empty())
      line += key_value("to", to);
    if (ask_host)
      line += key_value("ask", "host");
    if (every > kHeartbeat)
      line += key_value("every", static_cast<uint64_t>(every.count()));
    return line;
  }

  // Nothing for another protocol, version or verb, or if a field is missing or wrong.
  static optional<Announcement> parse(string_view text) {
    if (!is_text(text)) return nullopt;
    const string_view magic = take_word(text);
    if (magic != kMagic) return nullopt;
    const auto line = Line::parse(text);
    if (!line) return nullopt;
    const auto verb = parse_verb(line->verb);
    const auto ip = parse_ip(line->field("ip"));
    const auto port = parse_port(line->field("port"));
    if (!verb || !ip || !port)
      return nullopt;
    Announcement said;
    said.verb = *verb;
    said.who.id = line->field("id");
    said.who.name = line->field("name");
    said.who.group = line->field("group");
    said.who.address = {*ip, *port};
    said.who.said_ip = *ip;
    said.to = line->field("to");
    said.ask_host = line->field("ask") == "host";
    const std::chrono::seconds every(line->number("every", kMaxEvery).value_or(0));
    if (every > kHeartbeat) said.every = every;  // a shorter one is ignored
    const bool has_id = Identity::is_id(said.who.id);
    const bool has_names = is_name(said.who.name) && is_name(said.who.group);
    const bool is_to_somebody = said.to.empty() || Identity::is_id(said.to);
    if (!has_id || !has_names || !is_to_somebody)
      return nullopt;
    return said;
  }
};

// ---- Requests [5], [6] ---------------------------------------------------------

// Each parse() is the inverse of its format(): nothing for another verb, or if a field is missing
// or wrong. Their bodies are in the second reading.

// MSG number=7 scope=private :See you at nine.
struct Message {
  uint64_t number = 0;  // grows with every message of this sender
  string scope;    // private, group or all
  string text;     // 1 to kMaxText bytes

  string format() const {
    return "MSG" + key_value("number", number) + key_value("scope", scope) + " :" + text;
  }
  static optional<Message> parse(const Line& line);
};

// OFFER size=10485760 files=1 :report.pdf, or, of a folder,  OFFER size=10485760 files=213 :photos/
// With mode=x, a file by itself can be executed.
struct Offer {
  uint64_t size = 0;   // bytes of all files; less than 2^63, as off_t is
  uint64_t files = 1;  // entries of the folder, its subfolders included
  string name;    // as sent: safe_file_name() decides what becomes of it; a folder's ends in /
  bool executable = false;

  bool is_folder() const {
    return !name.empty() && name.back() == '/';
  }
  string format() const {
    string line = "OFFER" + key_value("size", size) + key_value("files", files);
    if (executable) line += key_value("mode", "x");
    return line + " :" + name;
  }
  static optional<Offer> parse(const Line& line);
};

// DATA offset=0 size=65536, and then that many bytes as they are, at least one. Of a folder, the
// offset goes through all its files.
struct Data {
  uint64_t offset = 0;
  uint64_t size = 0;

  string format() const {
    return "DATA" + key_value("offset", offset) + key_value("size", size);
  }
  static optional<Data> parse(const Line& line);
};

// END size=10485760 crc=930766865: all that was sent; of a file, as `cksum` prints it [6.4].
struct End {
  uint64_t size = 0;
  uint32_t crc = 0;

  bool operator==(const End& o) const {
    return size == o.size && crc == o.crc;
  }
  string format() const {
    return "END" + key_value("size", size) + key_value("crc", crc);
  }
  static optional<End> parse(const Line& line);
};

// ---- Replies [5.1]: "OK", "OK text", or "NO word sentence" ---------------------

struct Reply {
  bool ok = false;
  string text;  // what follows "OK " or "NO "

  // Of a NO, for people.
  string sentence() const {
    if (text.empty()) return "no reason was given";
    return text.substr(text.find(' ') + 1);  // npos + 1 is 0: a word alone is all of it
  }
  string format() const {
    const string word = ok ? "OK" : "NO";
    if (text.empty()) return word;
    return word + " " + shortened(text, kMaxLine - 3);  // there may be a path in it
  }
  static optional<Reply> parse(string_view line) {
    const string_view word = take_word(line);
    if (word != "OK" && word != "NO")
      return nullopt;
    return Reply{word == "OK", string(line)};
  }
};

// ---- The buffer of a connection ------------------------------------------------

enum class LineStatus { whole, incomplete, too_long };

// TCP is a stream of bytes: one recv() may bring half a line, or three lines and the beginning of a
// file. So we keep what comes in a buffer. This takes the next line off it, without its LF or
// CR LF. too_long: more than kMaxLine bytes, whether or not an end is in sight.
inline LineStatus take_line(string_view& bytes, string& line) {
  const string_view in_sight = bytes.substr(0, kMaxLine + 2);  // a line, its CR and its LF
  const size_t found = in_sight.find('\n');
  const bool has_end = found != string_view::npos;
  const size_t end = has_end ? found : bytes.size();
  const bool has_cr = end > 0 && bytes[end - 1] == '\r';
  const size_t size = has_cr ? end - 1 : end;
  if (size > kMaxLine) return LineStatus::too_long;
  if (!has_end) return LineStatus::incomplete;
  line = bytes.substr(0, size);
  bytes.remove_prefix(end + 1);
  return LineStatus::whole;
}

// ---- The name of a file [6.1] -----------------------------------------------------

// Where the last component of a path begins.
inline size_t begin_of_name(string_view path);

// The name under which a file offered as `path` may be stored: its last component. Nothing if that
// is not a name, or could lead out of the folder.
inline optional<string> safe_file_name(string_view path);

// ============================================================================
// PART 2: THE PROGRAM
// ============================================================================

// Every timer runs on the monotonic clock: somebody who sets the date must not empty the list of
// users. A test sets this one forward: it cannot wait for 300 s.
struct Clock : std::chrono::steady_clock {
  static inline std::atomic<duration> ahead{duration(0)};
  static time_point now() {
    return steady_clock::now() + ahead.load();
  }
};

using Time = Clock::time_point;
using Duration = Clock::duration;

// ---- Tools around POSIX calls ------------------------------------------------

// "Connection refused", for ECONNREFUSED.
inline string error_text(int error) {
  return std::generic_category().message(error);
}

// `result`; or, if it is -1, an exception that says what was tried and why it failed: "bind UDP
// port 25253: Address already in use". It returns a descriptor or a flag, which fits an int; code
// that counts bytes uses the call's own result.
inline int check(ssize_t result, const string& what) {
  if (result == -1)
    throw std::system_error(errno, std::generic_category(), what);
  return static_cast<int>(result);
}

// EINTR, once for the whole program (except select(), in wait() of peer.cpp): if a signal arrives
// while a call waits, the call fails although nothing is wrong. If you take that -1 for an error,
// you lose a message when somebody types Ctrl-Z and fg. SA_RESTART spares other calls that, but not
// a recv() with a time limit: signal(7).
template <class Call>
auto uninterrupted(Call call) {
  auto result = call();
  while (result == -1 && errno == EINTR)
    result = call();
  return result;
}

// bind() and its kin take every kind of address as a sockaddr; the cast is how C says so.
inline sockaddr* generic(sockaddr_in& raw) {
  return reinterpret_cast<sockaddr*>(&raw);
}

// Our end of a socket that is bound or connected.
inline Address local_address(int fd);

// Owns a file descriptor and closes it. Move-only: two owners would close it twice, and the second
// close() may hit a descriptor that another thread got in between.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);  // what we had is closed with `other`
    return *this;
  }
  ~Descriptor() {
    if (fd_ != -1) ::close(fd_);
  }
  int get() const { return fd_; }
  int release() {  // gives it away, open
    return std::exchange(fd_, -1);
  }

 private:
  int fd_;
};

inline void set_non_blocking(int fd);
inline void set_blocking(int fd);

// ---- The X-ray: --trace ----------------------------------------------------------

// Both are set before the first thread starts.
inline bool tracing = false;
inline Descriptor trace_file;  // of --trace=FILE; without one, it goes to the screen

// Shows what passes between us and another peer, and when:
//   20:53:12.033187 TCP 10.0.0.7:41234 -> 10.0.0.9:25253  MSG number=1 scope=private :hello
// `arrow` is -> for what we send, <- for what we receive, -- for a connection that opens or ends.
// Does nothing without --trace. Any thread may call it.
void trace(const char* protocol, Address ours, const char* arrow, Address other,
           string_view what);

// ---- Events: what the main thread is told ---------------------------------------

// Each kind of event is a struct of its own, which says what it carries. An Event is one of them;
// handle() in peer.cpp has an overload for each.

// From discovery.
struct UserJoined {
  Identity who;
};
struct UserLeft {
  Identity who;
  string why;
};
struct UserChanged {  // its name, its group or its address
  Identity who;
  Identity before;
};
struct Told {
  string line;  // for the user
};

// From trace().
struct Traced {
  string line;
};

// From connections. An Introduced peer has only said who it is.
struct Introduced {
  Identity who;
};

struct Failure {
  string reason;
  bool in_doubt = false;  // all was sent, and no answer came: it may have arrived
};

// Messages. `post` is what peer.cpp gave to transfer::send_message().
struct MessageReceived {
  Identity from;
  Message message;
};
struct MessageDelivered {
  uint64_t post = 0;
  Identity to;
};
struct MessageFailed {
  uint64_t post = 0;
  Identity to;
  Failure failure;
};

// Files and folders, sent or received. `ticket` is the one that transfer::send_file() returned, or,
// of what is received, the one that came with the offer.
struct FileOffered {
  uint64_t ticket = 0;
  Identity other;  // who offers it, or is offered it
  Offer offer;
};
struct FileStarted {  // its bytes begin to pass
  uint64_t ticket = 0;
  Time when;
  uint64_t resumed_at = 0;  // bytes that the receiver already has, from an earlier try
};
struct FileStored {  // it is whole, at the receiver
  uint64_t ticket = 0;
  string name;     // its name there; a folder's ends in /
  uint64_t size = 0;    // bytes
  uint64_t files = 0;   // of a folder, entries that arrived
  uint32_t crc = 0;
  string missing;  // entries that did not: ", not sent: x (Permission denied)"
};
struct FileFailed {
  uint64_t ticket = 0;
  Failure failure;
};

using Event = std::variant<UserJoined, UserLeft, UserChanged, Told, Traced, Introduced,
                           MessageReceived, MessageDelivered, MessageFailed, FileOffered,
                           FileStarted, FileStored, FileFailed>;

// Any thread pushes; the main thread takes. A byte in a pipe says that something is there (the
// "self-pipe trick"), so that select() waits for events and sockets alike. It could not wait for a
// condition variable.
class EventQueue {
 public:
  // Not a constructor: that would run before main() has opened descriptors 0 to 2, if they are
  // missing.
  void open();

  int descriptor() const { return reader_.get(); }  // readable when something is there

  void push(Event event) {
    const std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
    wake();
  }

  // Makes descriptor() readable; async-signal-safe. A full pipe refuses the byte, but is readable
  // already. We restore errno: a signal handler may run between a system call and the line that
  // reads its errno.
  void wake() const {
    const int saved = errno;
    if (::write(writer_.get(), "", 1) == -1)
      errno = saved;
  }

  std::deque<Event> take_all() {
    // Before the events: a later push wakes us again.
    std::array<char, 256> bytes;
    ssize_t got = 1;
    while (got > 0)
      got = ::read(reader_.get(), bytes.data(), bytes.size());
    const std::lock_guard lock(mutex_);
    room_.notify_all();
    return std::exchange(events_, {});
  }

  // A connection's thread calls this before it reads on. Then TCP slows down a peer that floods us,
  // instead of our memory filling up: this is called backpressure. False if there was no room in
  // that time.
  bool wait_for_room(Duration time);

 private:
  std::mutex mutex_;
  std::condition_variable room_;
  std::deque<Event> events_;
  Descriptor reader_, writer_;
};

inline EventQueue events;

// Who we are. Written by the main thread alone; the thread of a connection is given a copy.
inline Identity myself;

// What the user has chosen. Set before the first thread starts, only read from then on.
enum class Accept { ask, always, never };
inline Accept accept_policy = Accept::ask;              // for files that are offered
inline string download_folder = "downloads";
inline vector<string> chosen_interfaces;      // by name; empty: all
inline bool sweeps_allowed = true;                      // not with --scan=off

// Call this once a socket is bound, or about to connect: if the user has chosen one interface,
// everything that the socket sends and receives passes there.
inline void keep_to_chosen_interface(int fd);

// ---- discovery.cpp: who is here, over UDP ------------------------------------------

namespace discovery {

// Opens the shared port and our own, myself.address.port; std::system_error if one is taken.
void open();
// For the select() loop: adds its sockets; reads what came in.
void watch(fd_set& readable);
void receive(const fd_set& readable);
// Does what is due: heartbeats, questions, probes, expiry. pause() says how long the next tick()
// may wait.
void tick();
Duration pause();

// myself.name or myself.group has changed: tells everyone.
void rename();
// Says BYE.
void leave();
// A peer has introduced itself over TCP: asks it once, over UDP, unless it is listed.
void introduced(const Identity& who);

// Who is listed, sorted by name and address.
vector<Identity> users();

// Our own address as others on the first network see it; and towards `ip`: nothing if no route
// leads there, or only through an interface that is not ours.
uint32_t own_ip();
optional<uint32_t> source_for(uint32_t ip);
// Whether this is our own address.
bool is_own(Address address);

}  // namespace discovery

// ---- transfer.cpp: messages and files, over TCP ----------------------------------------

namespace transfer {

// Listens on myself.address.port; std::system_error if it is taken. `has_route` is a function that
// says whether an interface that we may use leads to an IP address; discovery has one.
void open(bool (*has_route)(uint32_t ip));
// For the select() loop: adds its listening socket; accepts one connection.
void watch(fd_set& readable);
void accept_connection(const fd_set& readable);

// Returns at once. An event with this `post` will say what became of the message.
void send_message(const Identity& to, const string& scope, const string& text,
                  uint64_t post);
// A file or a folder. Returns its ticket, which the events about it will carry; throws if it cannot
// be read.
uint64_t send_file(const Identity& to, const string& path);
// What the user says to an offer; `open`: nothing yet. `store_as` is the name that the user wants
// for it, or empty.
enum class Consent { open, given, refused };
void decide(uint64_t ticket, Consent consent, const string& store_as);
// Ends a file transfer, in either direction.
void cancel(uint64_t ticket);
// Our user leaves: ends everything under way, and says so to the others.
void cancel_all();
// Remembers that this message has come. False if it had come before: it was sent again [5.3].
bool remember_message(const Identity& from, uint64_t number);

bool is_sending();  // messages or files of ours are on their way
bool is_open();     // there are connections
void reap();        // joins the threads that have ended
void close();       // ends them all, now

}  // namespace transfer

// ============================================================================
// SECOND READING: characters, folders and resumed files on the wire, the checksum, --trace
// ============================================================================

// ---- Words, numbers and addresses [3.1], [3.2] --------------------------------

inline optional<uint64_t> parse_number(string_view text, uint64_t most) {
  const char* const last = text.data() + text.size();
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), last, value);
  if (error != std::errc() || end != last || value > most)
    return nullopt;
  return value;
}

// Takes off what comes before the next `separator`, and the separator; all of it, if there is none.
inline string_view take_until(string_view& text, char separator) {
  const string_view piece = text.substr(0, text.find(separator));
  const size_t taken = piece.size() + 1;
  text.remove_prefix(std::min(taken, text.size()));
  return piece;
}

inline string_view take_word(string_view& text) {
  return take_until(text, ' ');
}

inline optional<uint32_t> parse_ip(string_view text) {
  if (!is_text(text)) return nullopt;  // a NUL would end the text for inet_pton()
  in_addr raw{};
  const string terminated(text);
  if (::inet_pton(AF_INET, terminated.c_str(), &raw) != 1)
    return nullopt;
  return ntohl(raw.s_addr);
}

inline optional<uint16_t> parse_port(string_view text) {
  const auto port = parse_number(text, UINT16_MAX);
  if (!port || *port == 0)
    return nullopt;
  return static_cast<uint16_t>(*port);
}

inline optional<Address> parse_address(string_view text) {
  const size_t colon = text.find(':');
  if (colon == string_view::npos)
    return nullopt;
  const auto ip = parse_ip(text.substr(0, colon));
  const auto port = parse_port(text.substr(colon + 1));
  if (!ip || !port) return nullopt;
  return Address{*ip, *port};
}

inline bool Identity::is_id(string_view text) {
  const bool is_hex = text.find_first_not_of("0123456789abcdef") == string_view::npos;
  return text.size() == 16 && is_hex;
}

inline optional<uint32_t> Line::checksum() const {
  const auto crc = number("crc", UINT32_MAX);
  if (!crc) return nullopt;
  return static_cast<uint32_t>(*crc);
}

// ---- Requests, read [5], [6] ----------------------------------------------------

inline optional<Message> Message::parse(const Line& line) {
  const auto number = line.number("number");
  if (line.verb != "MSG" || !number || !line.text)
    return nullopt;
  if (line.text->empty() || line.text->size() > kMaxText)
    return nullopt;
  Message message;
  message.number = *number;
  message.scope = line.field("scope");
  message.text = *line.text;
  const bool is_known = message.scope == "group" || message.scope == "all";
  if (!is_known) message.scope = "private";
  return message;
}

inline optional<Offer> Offer::parse(const Line& line) {
  const auto size = line.number("size");
  const auto files = line.number("files");
  if (line.verb != "OFFER" || !size || !files || !line.text)
    return nullopt;
  Offer offer;
  offer.size = *size;
  offer.files = *files;
  offer.name = *line.text;
  offer.executable = line.field("mode") == "x" && !offer.is_folder();
  return offer;
}

inline optional<Data> Data::parse(const Line& line) {
  const auto offset = line.number("offset");
  const auto size = line.number("size");
  if (line.verb != "DATA" || !offset || size.value_or(0) == 0)
    return nullopt;
  return Data{*offset, *size};
}

inline optional<End> End::parse(const Line& line) {
  const auto size = line.number("size");
  const auto crc = line.checksum();
  if (line.verb != "END" || !size || !crc)
    return nullopt;
  return End{*size, *crc};
}

// ---- Characters [3.1] --------------------------------------------------------

inline constexpr char32_t kNotUtf8 = 0xFFFFFFFF;

// How many bytes a UTF-8 character has that begins with this one; 0 if none can.
constexpr size_t character_length(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xC2) return 0;  // a continuation byte, or an overlong form
  if (lead < 0xE0) return 2;
  if (lead < 0xF0) return 3;
  if (lead < 0xF5) return 4;
  return 0;
}

constexpr bool is_continuation(char byte) {
  return (byte & 0xC0) == 0x80;
}

// The character of `length` bytes at the beginning of `text`, or kNotUtf8.
constexpr char32_t decoded(string_view text, size_t length) {
  const auto lead = static_cast<unsigned char>(text[0]);
  if (length == 1) return lead;
  char32_t code = lead & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if (!is_continuation(text[i])) return kNotUtf8;
    code = code << 6 | static_cast<char32_t>(text[i] & 0x3F);
  }
  // An overlong form is a second spelling of a character: whoever looks for '/' or NUL by its byte
  // would miss it.
  const bool fits_two_bytes = length == 3 && code < 0x800;
  const bool fits_three_bytes = length == 4 && code < 0x10000;
  const bool is_surrogate = code >= 0xD800 && code < 0xE000;
  if (fits_two_bytes || fits_three_bytes) return kNotUtf8;
  if (is_surrogate || code > 0x10FFFF) return kNotUtf8;
  return code;
}

// Takes the first character off `text`, which must not be empty. Returns kNotUtf8, and takes one
// byte, if no UTF-8 character (RFC 3629) begins there.
inline char32_t take_character(string_view& text) {
  const size_t length = character_length(static_cast<unsigned char>(text[0]));
  const bool is_whole = length > 0 && text.size() >= length;
  const char32_t character = is_whole ? decoded(text, length) : kNotUtf8;
  text.remove_prefix(character == kNotUtf8 ? 1 : length);
  return character;
}

// Takes the last character off `text`, which must not be empty. In UTF-8, the tail bytes go with
// their head.
inline void drop_last_character(string& text) {
  while (text.size() > 1 && is_continuation(text.back()))
    text.pop_back();
  text.pop_back();
}

inline string shortened(string text, size_t most) {
  constexpr string_view kMore = "…";
  if (text.size() <= most) return text;
  while (text.size() + kMore.size() > most)
    drop_last_character(text);
  return text.append(kMore);
}

struct CharacterRange {
  char32_t first, last;  // inclusive
};

// Characters that act on a terminal, or on the order of the text around them, instead of being
// read.
inline constexpr CharacterRange kControls[] = {
    {0x0000, 0x001F}, {0x007F, 0x009F},
    {0x061C, 0x061C}, {0x200E, 0x200F},
    {0x2028, 0x202E}, {0x2066, 0x2069},
    {kNotUtf8, kNotUtf8},
};

// Characters that show as an empty place: spaces, fillers, and signs that are blank by design.
inline constexpr CharacterRange kBlanks[] = {
    {0x0020, 0x0020}, {0x00A0, 0x00A0},
    {0x115F, 0x1160}, {0x1680, 0x1680},
    {0x2000, 0x200B}, {0x202F, 0x202F},
    {0x205F, 0x205F}, {0x2800, 0x2800},
    {0x3000, 0x3000}, {0x3164, 0x3164},
    {0xFEFF, 0xFEFF}, {0xFFA0, 0xFFA0},
    {0x13441, 0x13442}, {0x1D159, 0x1D159},
};

// Characters that do not show at all: Unicode's Default_Ignorable_Code_Point without the two kinds
// above. Emoji and some scripts need them (U+200D joins a family, U+200C divides Persian words), so
// a name may have them.
inline constexpr CharacterRange kInvisibles[] = {
    {0x00AD, 0x00AD}, {0x034F, 0x034F},
    {0x17B4, 0x17B5}, {0x180B, 0x180F},
    {0x200C, 0x200D}, {0x2060, 0x2065},
    {0x206A, 0x206F}, {0xFE00, 0xFE0F},
    {0xFFF0, 0xFFF8}, {0x1BCA0, 0x1BCA3},
    {0x1D173, 0x1D17A}, {0xE0000, 0xE0FFF},
};

// What a reader may take for the '@' or the ':' of NAME@IP:PORT: these signs, and others that look
// like them.
inline constexpr CharacterRange kLabelSigns[] = {
    // At signs: the sign itself, small, fullwidth.
    {'@', '@'}, {0xFE6B, 0xFE6B},
    {0xFF20, 0xFF20},
    // Colons: the sign itself, small, fullwidth, and two for vertical lines.
    {':', ':'}, {0xFE55, 0xFE55},
    {0xFF1A, 0xFF1A}, {0xFE13, 0xFE13},
    {0xFE30, 0xFE30},
    // Letters that look like one: modifiers, and the mark of a long sound.
    {0xA789, 0xA789}, {0x02D0, 0x02D0},
    {0x02F8, 0x02F8},
    // Armenian, Hebrew; Syriac, Devanagari; Gujarati, Ethiopic; runes; Mongolian.
    {0x0589, 0x0589}, {0x05C3, 0x05C3},
    {0x0703, 0x0704}, {0x0903, 0x0903},
    {0x0A83, 0x0A83}, {0x1361, 0x1361},
    {0x16EC, 0x16EC}, {0x1803, 0x1803},
    {0x1809, 0x1809},
    // Two dots; a ratio; Lisu.
    {0x205A, 0x205A}, {0x2236, 0x2236},
    {0xA4FD, 0xA4FD},
};

template <size_t kCount>
constexpr bool is_among(const CharacterRange (&ranges)[kCount], char32_t c) {
  for (const CharacterRange& range : ranges)
    if (range.first <= c && c <= range.last)
      return true;
  return false;
}

constexpr bool is_control(char32_t c) {
  return is_among(kControls, c);
}
constexpr bool is_blank(char32_t c) {
  return is_among(kBlanks, c);
}
constexpr bool is_invisible(char32_t c) {
  return is_among(kInvisibles, c);
}

inline bool is_text(string_view text) {
  while (!text.empty()) {
    const char32_t c = take_character(text);
    if (is_control(c) && c != '\t') return false;
  }
  return true;
}

inline bool is_name(string_view text) {
  size_t length = 0;
  bool is_visible = false;
  while (!text.empty()) {
    const char32_t c = take_character(text);
    if (is_control(c) || is_blank(c))
      return false;
    if (!is_invisible(c)) is_visible = true;
    ++length;
  }
  return is_visible && length <= kMaxName;
}

// What we compare of a name: everything but invisible characters, because two names that differ in
// nothing else look the same.
inline string comparable(string_view name) {
  string visible;
  while (!name.empty()) {
    const string_view before = name;
    const char32_t c = take_character(name);
    if (!is_invisible(c))
      visible += before.substr(0, before.size() - name.size());
  }
  return visible;
}

// Whether a name could be taken for somebody's NAME@IP:PORT, or for one with a word behind it.
inline bool resembles_label(string_view name) {
  while (!name.empty())
    if (is_among(kLabelSigns, take_character(name)))
      return true;
  return false;
}

// "\x1b"
inline string escaped(char byte) {
  constexpr char kHex[] = "0123456789abcdef";
  const auto value = static_cast<unsigned char>(byte);
  return {'\\', 'x', kHex[value >> 4], kHex[value & 15]};
}

inline string printable(string_view text) {
  string shown;
  while (!text.empty()) {
    const string_view before = text;
    const char32_t c = take_character(text);
    const string_view bytes = before.substr(0, before.size() - text.size());
    if (!is_control(c) || c == '\t') {
      shown += bytes;
    } else {
      for (const char byte : bytes)
        shown += escaped(byte);
    }
  }
  return shown;
}

// ---- Folders on the wire [6.5] -------------------------------------------------

// FILE mode=x :bin/run.sh
// The bytes that follow are this entry's. A path that ends in a slash is a folder, and has none.
struct Entry {
  bool executable = false;
  string path;  // within the folder that was offered; is_safe_path()

  string format() const {
    string line = "FILE";
    if (executable) line += key_value("mode", "x");
    return line + " :" + path;
  }
  static optional<Entry> parse(const Line& line) {
    if (line.verb != "FILE" || !line.text)
      return nullopt;
    return Entry{line.field("mode") == "x", string(*line.text)};
  }
};

// Whether an entry of a folder may be stored under this path: each component must be a safe name.
inline bool is_safe_path(string_view path) {
  if (path.empty() || path.size() > kMaxPath)
    return false;
  while (!path.empty()) {
    const string_view component = take_until(path, '/');
    if (!safe_file_name(component)) return false;
  }
  return true;
}

// ---- What the receiver has stored [6.4], [6.5] ------------------------------------

// OK :photos/, the reply to END. If entries of the folder could not be stored, it has their number,
// and after the name and a TAB some of them, for people: OK missing=1 :photos/<TAB>x (too long)
struct Stored {
  string name;  // the final one; a folder's ends in a slash
  uint64_t missing = 0;
  string which;

  string format() const {  // what follows the OK
    string text = ":" + name;
    if (missing > 0)
      text = "missing=" + to_string(missing) + " " + text;
    return which.empty() ? text : text + "\t" + which;
  }
  static Stored parse(string_view text) {  // in another form, all of it is the name
    const string reply = "OK " + string(text);
    const auto line = Line::parse(reply);
    const bool has_form = line && line->text;
    string_view named = has_form ? *line->text : text;
    Stored stored;
    stored.name = take_until(named, '\t');
    stored.which = named;
    if (has_form)
      stored.missing = line->number("missing").value_or(0);
    return stored;
  }
};

// ---- Resumed files on the wire [6.6] --------------------------------------------

// OK entries=1 offset=4096 crc=930766865: the reply to an offer if the receiver has the beginning
// of that file from an earlier try: how many bytes, and their checksum. It is a plain OK if there
// is no beginning, and always for a folder.
struct Prefix {
  uint64_t entries = 0;
  uint64_t offset = 0;
  uint32_t crc = 0;

  bool operator==(const Prefix& o) const {
    return entries == o.entries && offset == o.offset && crc == o.crc;
  }
  string format() const {  // what follows the OK; empty if there is no beginning
    if (offset == 0) return "";
    string fields = key_value("entries", entries);
    fields += key_value("offset", offset);
    fields += key_value("crc", crc);
    return fields.substr(1);  // without the blank in front
  }
  static Prefix parse(string_view text) {  // no beginning at all for anything else
    const string reply = "OK " + string(text);
    const auto line = Line::parse(reply);
    if (!line) return {};
    const auto entries = line->number("entries");
    const auto offset = line->number("offset");
    const auto crc = line->checksum();
    if (!entries || !offset || !crc)
      return {};
    return {*entries, *offset, *crc};
  }
};

// ---- Names of files ---------------------------------------------------------------

inline size_t begin_of_name(string_view path) {
  return path.rfind('/') + 1;  // npos + 1 is 0
}

inline optional<string> safe_file_name(string_view path) {
  const string_view name = path.substr(begin_of_name(path));
  if (name.empty() || name == "." || name == "..")
    return nullopt;
  if (name.size() > kMaxFileName || !is_text(name))
    return nullopt;
  if (name.find('\t') != string_view::npos)
    return nullopt;
  return string(name);
}

// The `n`th name to try for a file called `name`: "report.pdf", "report (1).pdf", "report (2).pdf",
// followed by `suffix`. If a name is too long, it loses the last characters before its ending.
inline string numbered_name(const string& name, unsigned n,
                                 const string& suffix = "") {
  constexpr size_t kLongestEnding = 32;
  size_t dot = std::min(name.rfind('.'), name.size());
  if (dot == 0 || name.size() - dot > kLongestEnding)
    dot = name.size();
  string stem = name.substr(0, dot);
  string ending = name.substr(dot) + suffix;
  if (n > 0)
    ending = " (" + to_string(n) + ")" + ending;
  while (stem.size() + ending.size() > kMaxFileName)
    drop_last_character(stem);
  return stem + ending;
}

// ---- The checksum [6.4] -----------------------------------------------------------

// As POSIX cksum has it: CRC-32 with polynomial 0x04C11DB7, most significant bit first, the length
// fed in after the data, inverted at the end (POSIX.1-2017, utility cksum).
//
// Byte by byte it does 0.4 GB/s on our machine, eight bytes a step 2.1, sixteen 4.8. What matters
// is how little must wait for the previous step: the four look-ups of the first word.
class Cksum {
 public:
  void add(const char* data, size_t size) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(data);
    size_ += size;
    while (size >= kStep) {
      const uint32_t second = effect(word(bytes + 4), 8);
      const uint32_t third = effect(word(bytes + 8), 4);
      const uint32_t fourth = effect(word(bytes + 12), 0);
      crc_ = effect(crc_ ^ word(bytes), 12) ^ second ^ third ^ fourth;
      bytes += kStep;
      size -= kStep;
    }
    for (size_t i = 0; i < size; ++i)
      crc_ = next(crc_, bytes[i]);
  }

  uint64_t size() const { return size_; }

  uint32_t value() const {
    uint32_t crc = crc_;
    for (uint64_t rest = size_; rest != 0; rest >>= 8)
      crc = next(crc, static_cast<unsigned char>(rest));
    return ~crc;
  }

 private:
  // kTables[k][b] is what byte b does to the CRC when k more bytes follow it within the step.
  static constexpr size_t kStep = 16;
  using Tables = std::array<std::array<uint32_t, 256>, kStep>;

  static constexpr uint32_t effect_of_byte(uint32_t byte) {
    uint32_t crc = byte << 24;
    for (int bit = 0; bit < 8; ++bit) {
      const bool is_carried = crc >> 31 != 0;
      crc <<= 1;
      if (is_carried) crc ^= 0x04C11DB7u;
    }
    return crc;
  }

  static constexpr Tables make_tables() {
    Tables tables{};
    for (uint32_t byte = 0; byte < 256; ++byte)
      tables[0][byte] = effect_of_byte(byte);
    for (size_t k = 1; k < kStep; ++k) {
      for (size_t byte = 0; byte < 256; ++byte) {
        const uint32_t before = tables[k - 1][byte];
        tables[k][byte] = before << 8 ^ tables[0][before >> 24];
      }
    }
    return tables;
  }

  static const Tables kTables;

  static uint32_t next(uint32_t crc, unsigned char byte) {
    return crc << 8 ^ kTables[0][crc >> 24 ^ byte];
  }

  static uint32_t word(const unsigned char* bytes) {
    const uint32_t high = uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16;
    const uint32_t low = uint32_t{bytes[2]} << 8 | bytes[3];
    return high | low;
  }

  // What these four bytes do to the CRC if `after` more follow them within the step.
  static uint32_t effect(uint32_t word, size_t after) {
    return kTables[after + 3][word >> 24] ^
           kTables[after + 2][word >> 16 & 255] ^
           kTables[after + 1][word >> 8 & 255] ^
           kTables[after][word & 255];
  }

  uint32_t crc_ = 0;
  uint64_t size_ = 0;
};

inline constexpr Cksum::Tables Cksum::kTables = Cksum::make_tables();

// ---- Descriptors and sockets -----------------------------------------------------

// pipe2() and SOCK_NONBLOCK would save these calls, but macOS has neither.
inline void set_non_blocking(int fd) {
  const int flags = check(::fcntl(fd, F_GETFL), "fcntl");
  check(::fcntl(fd, F_SETFL, flags | O_NONBLOCK), "fcntl");
}
inline void set_blocking(int fd) {
  const int flags = check(::fcntl(fd, F_GETFL), "fcntl");
  check(::fcntl(fd, F_SETFL, flags & ~O_NONBLOCK), "fcntl");
}

inline Address local_address(int fd) {
  sockaddr_in raw{};
  socklen_t length = sizeof raw;
  check(::getsockname(fd, generic(raw), &length), "getsockname");
  return Address::from_sockaddr(raw);
}

// "eth0", of "eth0:1": getifaddrs() returns an address's label, if it has one.
inline string device_of(const string& label) {
  return label.substr(0, label.find(':'));
}

// Even if the host's routes prefer another one, such as a cable to Wi-Fi. The routes decide on a
// BSD, on Linux before 5.7 unless you are root, and among several chosen interfaces. Call it after
// bind(): before, sockets of two interfaces could bind the same port, which must belong to one
// instance.
inline void keep_to_chosen_interface(int fd) {
  if (chosen_interfaces.size() != 1) return;
  const string name = device_of(chosen_interfaces[0]);
#if defined(SO_BINDTODEVICE)
  const auto size = static_cast<socklen_t>(name.size());
  ::setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name.c_str(), size);
#elif defined(IP_BOUND_IF)
  const unsigned index = ::if_nametoindex(name.c_str());
  ::setsockopt(fd, IPPROTO_IP, IP_BOUND_IF, &index, sizeof index);
#else
  (void)fd;
#endif
}

// ---- The queue of events ---------------------------------------------------------

inline void EventQueue::open() {
  int ends[2];
  check(::pipe(ends), "pipe");
  reader_ = Descriptor(ends[0]);
  writer_ = Descriptor(ends[1]);
  set_non_blocking(ends[0]);
  set_non_blocking(ends[1]);
}

inline bool EventQueue::wait_for_room(Duration time) {
  constexpr size_t kMaxEvents = 1000;
  std::unique_lock lock(mutex_);
  return room_.wait_for(lock, time, [this] { return events_.size() < kMaxEvents; });
}

// ---- What /scan, /diag and the progress bar ask for --------------------------------

namespace discovery {

// Looks for peers again, by broadcast and sweep; or asks every address of network/bits, the nearest
// first, at `port` (0: at both ports where a peer can be found). Reports its progress, and its end.
void scan();
void scan(uint32_t network, int bits, uint16_t port);

// For /diag, a line each: our interfaces, what has passed, and who does not hear us.
vector<string> diagnosis();

}  // namespace discovery

namespace transfer {

// For /diag: connects, and tells the user what happened.
void diagnose(const Identity& to);
// Of a file transfer, so far. A resumed one begins with what was already there.
uint64_t bytes_done(uint64_t ticket);

}  // namespace transfer

// ---- The X-ray: --trace ----------------------------------------------------------

// The local time, as strftime() writes it.
inline string local_time(std::time_t when, const char* format) {
  std::tm parts{};
  std::array<char, 16> text{};
  ::localtime_r(&when, &parts);
  std::strftime(text.data(), text.size(), format, &parts);
  return text.data();
}

// "20:53:12.033187"
inline string precise_time() {
  using std::chrono::system_clock;
  const auto now = system_clock::now();
  const std::time_t second = system_clock::to_time_t(now);
  const auto passed = now - system_clock::from_time_t(second);
  const auto micros = passed / 1us;
  const string digits = to_string(1'000'000 + micros).substr(1);
  return local_time(second, "%H:%M:%S") + "." + digits;
}

// Into a file we write each line by one write(), or the threads' lines would mix. To the screen it
// goes through the queue, because the screen belongs to the main thread.
inline void trace(const char* protocol, Address ours, const char* arrow, Address other,
                  string_view what) {
  if (!tracing) return;
  string line = precise_time() + " " + protocol;
  line += " " + ours.text() + " " + arrow;
  line += " " + other.text() + "  " + printable(what);
  if (trace_file.get() == -1) {
    events.push(Traced{line});
    return;
  }
  line += "\n";
  const ssize_t written = ::write(trace_file.get(), line.data(), line.size());
  if (written == -1) return;  // a full disk: the trace has a hole, and the program goes on
}

#endif
