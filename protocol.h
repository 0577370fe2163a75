// protocol.h: what peers say to each other, and what the parts of one peer say to each other.
//
// READ THIS FIRST. Then discovery.cpp (UDP: who is here), transfer.cpp (TCP: messages and files), and
// peer.cpp (main, the select() loop, the commands), which puts the parts together.
//
//   Part 1  the protocol: limits, text, addresses, every message with its parse() and format().
//           Pure functions: no socket, no file, no clock. docs/protocol.md is the specification;
//           "[3.2]" in a comment means its clause 3.2.
//   Part 2  the program: four small tools around POSIX calls, the events, and the two classes
//           Discovery and Transfer, which do not know each other.
//
// Threads: Part 1 may be called from any. Discovery and Transfer belong to the main thread; all that a
// connection's thread shares with it is the EventQueue.
//
// Left out on purpose: IPv6 (it has no broadcast), encryption, and any library beyond C++17 and POSIX.

#ifndef CHATBYP2P_PROTOCOL_H
#define CHATBYP2P_PROTOCOL_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

// ============================================================================
// PART 1: THE PROTOCOL
// ============================================================================

// ---- Constants and limits [2] ----------------------------------------------

inline constexpr std::string_view kMagic = "ChatByP2P/1";  // protocol and version; begins every announcement
inline constexpr uint16_t kDiscoveryPort = 25252;          // UDP, shared by all instances of a host
inline constexpr uint16_t kFirstPort = 25253;              // an instance's own port: the first free one
inline constexpr uint16_t kLastPort = 25508;

inline constexpr size_t kMaxDatagram = 512;   // bytes
inline constexpr size_t kMaxLine = 4096;      // bytes, the LF not counted
inline constexpr size_t kMaxText = 4000;      // bytes of a message: with the words around it, it fits a line
inline constexpr size_t kMaxName = 32;        // characters (code points) of a user or group name
inline constexpr size_t kMaxFileName = 255;   // bytes: NAME_MAX of the usual file systems

// ---- Text [2.3] -------------------------------------------------------------

// Takes the first code point off `text`. Empty where the bytes are not UTF-8 (RFC 3629): a stray or
// missing continuation byte, an overlong form, a surrogate, a value past U+10FFFF.
inline std::optional<char32_t> take_code_point(std::string_view& text) {
  const unsigned char lead = static_cast<unsigned char>(text[0]);
  const size_t length = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
  if (length == 0 || text.size() < length) return std::nullopt;
  char32_t code = length == 1 ? lead : lead & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((text[i] & 0xC0) != 0x80) return std::nullopt;
    code = code << 6 | static_cast<char32_t>(text[i] & 0x3F);
  }
  // An overlong form is a second spelling of the same character: a check for '/' or NUL would miss it.
  const bool overlong = (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
  if (overlong || (code >= 0xD800 && code < 0xE000) || code > 0x10FFFF) return std::nullopt;
  text.remove_prefix(length);
  return code;
}

// Characters that act on a terminal or on the order of the text around them, instead of being read.
inline bool is_control(char32_t c) {
  return c < 0x20 || (c >= 0x7F && c < 0xA0) || (c >= 0x2028 && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069);
}

inline bool is_blank(char32_t c) {
  return c == 0x20 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

// UTF-8 without control characters; TAB is the one exception.
inline bool is_text(std::string_view text) {
  while (!text.empty()) {
    const auto code = take_code_point(text);
    if (!code || (is_control(*code) && *code != '\t')) return false;
  }
  return true;
}

// A user or group name: 1 to kMaxName characters, no blanks, no control characters.
inline bool is_name(std::string_view text) {
  size_t length = 0;
  while (!text.empty()) {
    const auto code = take_code_point(text);
    if (!code || is_control(*code) || is_blank(*code) || ++length > kMaxName) return false;
  }
  return length > 0;
}

// `text` as it may be shown: whatever could steer the terminal, or is not UTF-8, becomes \xHH.
// Everything that comes from outside passes through here on its way to the screen.
inline std::string printable(std::string_view text) {
  std::string shown;
  while (!text.empty()) {
    const std::string_view before = text;
    const auto code = take_code_point(text);
    if (!code) text.remove_prefix(1);
    const std::string_view bytes = before.substr(0, before.size() - text.size());
    constexpr char kHex[] = "0123456789abcdef";
    if (code && (!is_control(*code) || *code == '\t')) shown += bytes;
    else for (const char c : bytes) shown += {'\\', 'x', kHex[static_cast<unsigned char>(c) >> 4], kHex[c & 15]};
  }
  return shown;
}

// The whole of `text` as a decimal number of at most `most`; empty for anything else, "+1", "1 " and "" included.
inline std::optional<uint64_t> parse_number(std::string_view text, uint64_t most = UINT64_MAX) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > most) return std::nullopt;
  return value;
}

// ---- Addresses --------------------------------------------------------------

// An IPv4 address and a port, both in host byte order. Only the two sockaddr functions know of
// network byte order: forget one htons() elsewhere and 25253 silently becomes port 42338.
struct Address {
  uint32_t ip = 0;
  uint16_t port = 0;

  bool operator==(const Address& o) const { return ip == o.ip && port == o.port; }
  bool operator!=(const Address& o) const { return !(*this == o); }
  bool operator<(const Address& o) const { return std::pair(ip, port) < std::pair(o.ip, o.port); }

  sockaddr_in to_sockaddr() const {
    sockaddr_in raw{};
    raw.sin_family = AF_INET;
    raw.sin_addr.s_addr = htonl(ip);
    raw.sin_port = htons(port);
    return raw;
  }
  static Address from_sockaddr(const sockaddr_in& raw) { return {ntohl(raw.sin_addr.s_addr), ntohs(raw.sin_port)}; }

  std::string ip_text() const {
    const in_addr raw{htonl(ip)};
    std::array<char, INET_ADDRSTRLEN> text{};
    return ::inet_ntop(AF_INET, &raw, text.data(), text.size());
  }
  std::string text() const { return ip_text() + ":" + std::to_string(port); }
};

// "10.0.0.7": four decimal parts, nothing else.
inline std::optional<uint32_t> parse_ip(std::string_view text) {
  in_addr raw{};
  if (::inet_pton(AF_INET, std::string(text).c_str(), &raw) != 1) return std::nullopt;
  return ntohl(raw.s_addr);
}

// "10.0.0.7:25253"
inline std::optional<Address> parse_address(std::string_view text) {
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) return std::nullopt;
  const auto ip = parse_ip(text.substr(0, colon));
  const auto port = parse_number(text.substr(colon + 1), UINT16_MAX);
  if (!ip || !port || *port == 0) return std::nullopt;
  return Address{*ip, static_cast<uint16_t>(*port)};
}

// ---- Lines [3] --------------------------------------------------------------

// Every line is  VERB *( SP key "=" value ) [ SP ":" text ] . A reader picks the keys it knows and skips
// the others: that is how version 1 can grow without breaking those who speak it.
struct Line {
  std::string_view verb;
  std::map<std::string_view, std::string_view> fields;
  std::optional<std::string_view> text;  // what follows " :", blanks and all

  // Views into `line`, which must outlive the result. Empty for a field without "=", and for a key given twice.
  static std::optional<Line> parse(std::string_view line) {
    Line result;
    result.verb = line.substr(0, line.find(' '));
    line.remove_prefix(result.verb.size());
    while (!line.empty()) {
      line.remove_prefix(1);  // the blank that ended the word before
      if (!line.empty() && line.front() == ':') {
        result.text = line.substr(1);
        break;
      }
      const std::string_view word = line.substr(0, line.find(' '));
      const size_t equals = word.find('=');
      if (equals == std::string_view::npos || equals == 0) return std::nullopt;
      if (!result.fields.emplace(word.substr(0, equals), word.substr(equals + 1)).second) return std::nullopt;
      line.remove_prefix(word.size());
    }
    return result;
  }

  std::string_view field(std::string_view key) const {
    const auto found = fields.find(key);
    return found == fields.end() ? std::string_view() : found->second;
  }
  std::optional<uint64_t> number(std::string_view key, uint64_t most = UINT64_MAX) const {
    return parse_number(field(key), most);
  }
};

// ---- Announcements [4]: who I am --------------------------------------------

enum class Verb { hello, here, bye };
inline constexpr const char* kVerbs[] = {"HELLO", "HERE", "BYE"};  // in the order of Verb

// The one message of discovery, and the introduction on a TCP connection:
//   ChatByP2P/1 HELLO id=5f0c61aa97d2b3e4 ip=10.0.0.7 port=25253 name=ann group=lab
struct Announcement {
  Verb verb = Verb::hello;
  std::string id;             // 16 hexadecimal digits, drawn at start: this, not the name, is the peer
  uint32_t ip = 0;            // the address the sender believes it has
  uint16_t port = 0;          // its own port, UDP and TCP
  std::string name, group;
  std::string to;             // HERE only: the id of the peer it answers, "I hear you"; else empty
  bool ask_host = false;      // HELLO only: "answer for every instance of your host" [4.4]

  std::string format() const {
    return std::string(kMagic) + " " + kVerbs[static_cast<int>(verb)] + " id=" + id +
           " ip=" + Address{ip, port}.ip_text() + " port=" + std::to_string(port) + " name=" + name +
           " group=" + group + (to.empty() ? "" : " to=" + to) + (ask_host ? " ask=host" : "");
  }

  // Empty for another protocol, another version, another verb, or a field that is missing or wrong.
  static std::optional<Announcement> parse(std::string_view text) {
    if (text.substr(0, kMagic.size() + 1) != std::string(kMagic) + " " || !is_text(text)) return std::nullopt;
    const auto line = Line::parse(text.substr(kMagic.size() + 1));
    if (!line) return std::nullopt;
    const auto verb = std::find(std::begin(kVerbs), std::end(kVerbs), line->verb);
    const auto ip = parse_ip(line->field("ip"));
    const auto port = line->number("port", UINT16_MAX);
    const std::string_view id = line->field("id"), name = line->field("name"), group = line->field("group");
    const std::string_view to = line->field("to");
    const bool is_whole = verb != std::end(kVerbs) && ip && port && *port != 0 && is_id(id);
    if (!is_whole || !is_name(name) || !is_name(group) || !(to.empty() || is_id(to))) return std::nullopt;
    return Announcement{static_cast<Verb>(verb - kVerbs), std::string(id), *ip, static_cast<uint16_t>(*port),
                        std::string(name), std::string(group), std::string(to), line->field("ask") == "host"};
  }

  static bool is_id(std::string_view text) {
    return text.size() == 16 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
  }
};

// ---- Requests [5] -----------------------------------------------------------

enum class Scope { to_one, to_group, to_all };
inline constexpr std::string_view kScopes[] = {"private", "group", "all"};  // in the order of Scope

// MSG number=7 scope=private :See you at nine.
struct Message {
  uint64_t number = 0;  // grows with every message of this sender: the receiver drops what it has seen
  Scope scope = Scope::to_one;
  std::string text;     // 1 to kMaxText bytes

  std::string format() const {
    const std::string word(kScopes[static_cast<int>(scope)]);
    return "MSG number=" + std::to_string(number) + " scope=" + word + " :" + text;
  }
  static std::optional<Message> parse(const Line& line) {
    const auto number = line.number("number");
    const size_t size = line.text.value_or("").size();
    if (line.verb != "MSG" || !number || size == 0 || size > kMaxText) return std::nullopt;
    const std::string_view word = line.field("scope");
    const Scope scope = word == kScopes[1] ? Scope::to_group : word == kScopes[2] ? Scope::to_all : Scope::to_one;
    return Message{*number, scope, std::string(*line.text)};
  }
};

// OFFER size=10485760 files=1 :report.pdf
struct Offer {
  uint64_t size = 0;   // bytes; less than 2^63, as off_t is
  uint64_t files = 1;
  std::string name;    // as sent: safe_file_name() decides what becomes of it

  std::string format() const {
    return "OFFER size=" + std::to_string(size) + " files=" + std::to_string(files) + " :" + name;
  }
  static std::optional<Offer> parse(const Line& line) {
    const auto size = line.number("size", INT64_MAX), files = line.number("files");
    if (line.verb != "OFFER" || !size || !files || !line.text) return std::nullopt;
    return Offer{*size, *files, std::string(*line.text)};
  }
};

// DATA offset=0 size=262144, and then that many bytes as they are.
struct Data {
  uint64_t offset = 0, size = 0;

  std::string format() const { return "DATA offset=" + std::to_string(offset) + " size=" + std::to_string(size); }
  static std::optional<Data> parse(const Line& line) {
    const auto offset = line.number("offset", INT64_MAX), size = line.number("size", INT64_MAX);
    return line.verb == "DATA" && offset && size ? std::optional(Data{*offset, *size}) : std::nullopt;
  }
};

// END size=10485760 crc=930766865: the whole file, as `cksum` prints it.
struct End {
  uint64_t size = 0;
  uint32_t crc = 0;

  std::string format() const { return "END size=" + std::to_string(size) + " crc=" + std::to_string(crc); }
  static std::optional<End> parse(const Line& line) {
    const auto size = line.number("size"), crc = line.number("crc", UINT32_MAX);
    return line.verb == "END" && size && crc ? std::optional(End{*size, static_cast<uint32_t>(*crc)}) : std::nullopt;
  }
};

// ---- Replies [6]: OK …, or NO word sentence --------------------------------

struct Reply {
  bool ok = false;
  std::string text;  // what follows "OK " or "NO "

  std::string format() const { return (ok ? "OK" : "NO") + (text.empty() ? "" : " " + text); }
  static std::optional<Reply> parse(std::string_view line) {
    const std::string_view word = line.substr(0, 2);
    if ((word != "OK" && word != "NO") || (line.size() > 2 && line[2] != ' ')) return std::nullopt;
    return Reply{word == "OK", std::string(line.size() > 3 ? line.substr(3) : "")};
  }
};

// ---- Framing [3.1] ----------------------------------------------------------

// TCP delivers a stream of bytes: one recv() may bring half a line, or three lines and the start of a file.
// Bytes go in as they come; lines, or counts of raw bytes, come out as they are asked for.
class LineBuffer {
 public:
  enum class Status { line, incomplete, too_long };

  void append(std::string_view bytes) { bytes_ += bytes; }

  // The next line without its LF or CR LF. `too_long`: more than kMaxLine bytes and no end in sight.
  Status next_line(std::string& line) {
    const size_t end = bytes_.find('\n');
    if (std::min(end, bytes_.size()) > kMaxLine + 1) return Status::too_long;
    if (end == std::string::npos) return Status::incomplete;
    line = bytes_.substr(0, end);
    bytes_.erase(0, end + 1);
    if (!line.empty() && line.back() == '\r') line.pop_back();
    return line.size() > kMaxLine ? Status::too_long : Status::line;
  }

  // Up to `most` raw bytes of what is here already; how many.
  size_t take(char* into, size_t most) {
    const size_t taken = bytes_.copy(into, most);
    bytes_.erase(0, taken);
    return taken;
  }

  bool empty() const { return bytes_.empty(); }

 private:
  std::string bytes_;
};

// ---- Files [7] --------------------------------------------------------------

// The name under which a file offered as `path` may be stored: its last component. Empty where that is no
// name at all, could lead out of the folder, or ends in ".part", which is kept for files still incomplete.
inline std::optional<std::string> safe_file_name(std::string_view path) {
  const std::string_view name = path.substr(path.rfind('/') + 1);  // npos + 1 is 0
  const bool is_part = name.size() >= 5 && name.substr(name.size() - 5) == ".part";
  if (name.empty() || name == "." || name == ".." || name.size() > kMaxFileName || is_part || !is_text(name) ||
      name.find('\t') != std::string_view::npos)
    return std::nullopt;
  return std::string(name);
}

// `stem` cut to as many whole characters as leave room for `ending` within kMaxFileName bytes, and `ending`.
inline std::string name_with_ending(std::string stem, const std::string& ending) {
  while (stem.size() + ending.size() > kMaxFileName) {
    while ((stem.back() & 0xC0) == 0x80) stem.pop_back();  // the tail bytes of a UTF-8 character go with its head
    stem.pop_back();
  }
  return stem + ending;
}

// "report.pdf", "report (1).pdf", "report (2).pdf": the `n`th name to try when those before it are taken.
inline std::string numbered_name(const std::string& name, unsigned n) {
  if (n == 0) return name;
  size_t dot = name.rfind('.');
  if (dot == std::string::npos || dot == 0 || name.size() - dot > 32) dot = name.size();
  return name_with_ending(name.substr(0, dot), " (" + std::to_string(n) + ")" + name.substr(dot));
}

// The checksum of POSIX cksum: CRC-32 with polynomial 0x04C11DB7, most significant bit first, the length fed in
// after the data, inverted at the end. (POSIX.1-2017, utility cksum.) Eight bytes a step, by eight tables:
// kTables[k][b] is what byte b does to the CRC when k more bytes follow it within the step.
class Cksum {
 public:
  void add(const char* data, size_t size) {
    const auto* p = reinterpret_cast<const unsigned char*>(data);
    size_ += size;
    for (; size >= 8; p += 8, size -= 8) {
      const auto& t = kTables;
      crc_ = t[7][p[0] ^ crc_ >> 24] ^ t[6][p[1] ^ (crc_ >> 16 & 255)] ^ t[5][p[2] ^ (crc_ >> 8 & 255)] ^
             t[4][p[3] ^ (crc_ & 255)] ^ t[3][p[4]] ^ t[2][p[5]] ^ t[1][p[6]] ^ t[0][p[7]];
    }
    for (; size > 0; --size) crc_ = step(crc_, *p++);
  }

  uint64_t size() const { return size_; }

  uint32_t value() const {
    uint32_t crc = crc_;
    for (uint64_t rest = size_; rest != 0; rest >>= 8) crc = step(crc, static_cast<unsigned char>(rest));
    return ~crc;
  }

 private:
  using Tables = std::array<std::array<uint32_t, 256>, 8>;

  static constexpr Tables make_tables() {
    Tables t{};
    for (uint32_t byte = 0; byte < 256; ++byte) {
      uint32_t crc = byte << 24;
      for (int bit = 0; bit < 8; ++bit) crc = crc << 1 ^ (crc >> 31 ? 0x04C11DB7u : 0u);
      t[0][byte] = crc;
    }
    for (size_t k = 1; k < 8; ++k)
      for (size_t byte = 0; byte < 256; ++byte) t[k][byte] = t[k - 1][byte] << 8 ^ t[0][t[k - 1][byte] >> 24];
    return t;
  }

  static uint32_t step(uint32_t crc, unsigned char byte) { return crc << 8 ^ kTables[0][crc >> 24 ^ byte]; }

  static const Tables kTables;
  uint32_t crc_ = 0;
  uint64_t size_ = 0;
};

inline constexpr Cksum::Tables Cksum::kTables = Cksum::make_tables();

// ============================================================================
// PART 2: THE PROGRAM
// ============================================================================

// Every timer of the program runs on the monotonic clock: somebody who sets the date must not empty the list.
using Clock = std::chrono::steady_clock;

// ---- Tools around POSIX calls ------------------------------------------------

// `result`, or, where it is -1, an exception that says what was tried and why it failed:
// "bind port 25253: Address already in use".
inline int check(ssize_t result, const std::string& what) {
  if (result == -1) throw std::system_error(errno, std::generic_category(), what);
  return static_cast<int>(result);
}

// EINTR, once for the whole program: a signal that arrives while a call waits makes the call fail although nothing
// is wrong. Whoever takes that -1 for an error loses a connection whenever a window is resized.
template <class Call>
auto uninterrupted(Call call) {
  auto result = call();
  while (result == -1 && errno == EINTR) result = call();
  return result;
}

// bind() and its kin take every kind of address as a sockaddr; the cast is how C says so.
inline sockaddr* generic(sockaddr_in& raw) { return reinterpret_cast<sockaddr*>(&raw); }

// The address at our end of a socket that is bound or connected.
inline Address local_address(int fd) {
  sockaddr_in raw{};
  socklen_t length = sizeof raw;
  check(::getsockname(fd, generic(raw), &length), "getsockname");
  return Address::from_sockaddr(raw);
}

// Owns a file descriptor and closes it. Move-only: two owners would close it twice, and the second close()
// may hit a descriptor that another thread was given in between.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept { return std::swap(fd_, other.fd_), *this; }
  ~Descriptor() { if (fd_ != -1) ::close(fd_); }
  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

// ---- Events: what the main thread is told -------------------------------------

struct Event {
  enum class Kind {
    // From Discovery.
    joined, left, changed,   // who, address; text: why it left, or what it was before
    unheard,                 // who, address: it may not hear our datagrams; let Transfer knock()
    scanned,                 // size: how many addresses a /scan has asked
    note,                    // text: a sentence for the user
    // From connections; who and address are those at the other end.
    introduced,              // somebody said over TCP who it is
    message,                 // message
    delivered, undelivered,  // ticket; text: the reason
    offered, started,        // ticket, size, text: the name; a file is offered to us; its bytes begin
    stored, failed,          // ticket, size, crc, text: the final name; it is whole, at the receiver; text: the reason
  };
  Kind kind = Kind::note;
  std::string text;
  Announcement who = {};
  Address address = {};
  uint64_t ticket = 0, size = 0;  // the ticket of the message or file it is about
  uint32_t crc = 0;
  Message message = {};
};

// Any thread pushes; the main thread takes. Its descriptor becomes readable when something is there, so that
// select() waits for events and for sockets alike: a condition variable could not be waited for beside a socket.
class EventQueue {
 public:
  EventQueue();
  void push(Event event);
  std::deque<Event> take_all();
  void wake() const;               // makes descriptor() readable; async-signal-safe
  int descriptor() const { return reader_.get(); }

  // Waits while more than kMaxEvents are queued. A connection's thread calls it before it reads on, so that a
  // peer that floods us is slowed down by TCP instead of filling our memory. Returns at once after close().
  void wait_for_room();
  void close();

 private:
  static constexpr size_t kMaxEvents = 1000;
  std::mutex mutex_;
  std::condition_variable room_;
  std::deque<Event> events_;
  bool closed_ = false;
  Descriptor reader_, writer_;     // the pipe
};

// ---- Discovery (discovery.cpp): who is here -----------------------------------

struct User {
  Announcement card;                // id, name, group, and the IP address it gave
  Address address;                  // where its datagrams come from, and the port it announced
  bool listed = true;               // shown to the user
  bool left = false;                // said BYE: a HERE of its that was overtaken must not bring it back
  bool unsure = true;               // we have no sign yet that it hears us
  int asks = 0;                     // unanswered so far
  Clock::time_point heard, heard_us, asked;
};

class Discovery {
 public:
  // Opens the shared port and our own, self.port. Throws std::system_error where the latter is taken.
  // `only`: names of the interfaces to use; empty: all.
  Discovery(const Announcement& self, std::vector<std::string> only, EventQueue& events);

  void watch(fd_set& readable, int& highest) const;  // adds its sockets
  void receive(const fd_set& readable);              // reads what came in
  void tick();                                       // does what is due: heartbeats, questions, probes, expiry
  Clock::time_point due() const { return due_; }     // when to call tick() at the latest

  void scan();                                       // burst and sweep, again
  void scan(uint32_t network, int bits, uint16_t port);  // asks every address of network/bits; reports `scanned`
  void introduce_as(const std::string& name, const std::string& group);
  void leave();                                      // says BYE to all
  void heard_over_tcp(const Announcement& who, Address address);

  // The address of ours from which the kernel would send to `to`; empty where no route leads there, or where it
  // leaves through an interface that was not chosen.
  std::optional<uint32_t> source_for(Address to) const;

  const std::map<std::string, User>& users() const { return users_; }  // by id; `listed` ones are online
  size_t count() const;                              // of the users listed
  Address self_address() const;                      // as others on the first network see us

 private:
  struct Interface {
    std::string name;
    uint32_t ip, netmask;
    bool operator==(const Interface& o) const { return name == o.name && ip == o.ip && netmask == o.netmask; }
  };

  void read_interfaces();
  void sweep(uint32_t network, int bits, uint16_t port);
  void probe();
  void broadcast(Verb verb);
  void send_to_all(Verb verb);
  bool send(Verb verb, Address to, const std::string& heard = "", bool ask_host = false);
  bool send_text(const std::string& text, Address to);
  void hear_datagram(std::string_view text, Address from);
  void answer(const Announcement& hello, Address from);
  User* hear(const Announcement& who, Address address);
  void look_after(User& user);
  void ask(User& user);
  void confirm(User& user);
  void unlist(User& user, const std::string& reason);
  bool is_ours(uint32_t ip) const;

  Announcement self_;
  const std::vector<std::string> only_;
  EventQueue& events_;
  Descriptor shared_socket_, own_socket_;
  std::vector<Interface> interfaces_;
  std::map<std::string, User> users_;
  std::deque<Address> probes_;          // still to be sent
  std::optional<uint64_t> scanned_;     // addresses of the /scan under way, if there is one
  int hellos_left_ = 0;                 // of the burst
  Clock::time_point due_, next_hello_, next_heartbeat_, next_look_, next_probe_, scan_ends_;
};

// ---- Transfer (transfer.cpp): messages and files -------------------------------

enum class Accept { ask, always, never };

struct Target {
  std::string id;          // whom we expect there; empty: whoever it is
  Address address = {};
  std::string name = {};   // for events, until it introduces itself
};

class Transfer {
 public:
  // Listens on self.port. Throws std::system_error where it is taken. `may_talk_to` says whether an address is
  // reached through the chosen interfaces.
  Transfer(const Announcement& self, std::string folder, Accept accept, EventQueue& events,
           std::function<bool(Address)> may_talk_to);
  ~Transfer();                                       // ends every connection and joins every thread

  int listener() const { return listener_.get(); }
  bool can_accept() const { return Clock::now() >= accept_after_; }
  void accept_connection();                          // call it when listener() is readable

  void introduce_as(const std::string& name, const std::string& group);
  void send_message(uint64_t ticket, const Target& to, Scope scope, const std::string& text);
  void knock(const Target& to);                      // introduces us over TCP, where it can be reached
  Event send_file(const Target& to, const std::string& path);  // as `offered`; throws where it cannot be read
  void answer(uint64_t ticket, Accept consent, const std::string& store_as);   // to an offer; ask is no answer
  void cancel(uint64_t ticket);                      // a file transfer, in either direction

  bool is_repeat(const Event& message);              // a number that this sender has used before
  bool sending() const;                              // messages or files of ours are on their way
  void reap();                                       // joins the threads that are done; retries and reports
  void stop();                                       // ends every connection, now

 private:
  struct Order;                                      // what the main thread gives to a connection's
  struct Session;                                    // a connection and its thread
  std::unique_ptr<Session> opened(const Target& to) const;
  uint64_t start(std::unique_ptr<Session> session);
  Session* session(uint64_t ticket);
  void give(const Target& to, Order order);
  void finish_conversation(Session& ended);

  Announcement self_;
  std::string folder_;
  Accept accept_;
  EventQueue& events_;
  std::function<bool(Address)> may_talk_to_;
  Descriptor listener_;
  Clock::time_point accept_after_;
  std::vector<std::unique_ptr<Session>> sessions_;
  uint64_t next_number_ = 1;                         // of a message
  uint64_t next_session_ = 1;
  std::map<std::pair<std::string, uint32_t>, uint64_t> last_number_;  // by sender's id and IP address
};

#endif
