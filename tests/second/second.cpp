// second: a second, independent implementation of the LAN messenger ChatByP2P, protocol version 1.
// Written from docs/protocol.md and docs/interface.md alone; it shares no code with the program,
// and its author has not seen any. Its purpose is to show that the specification is complete: what
// is here was found there.
// Design: one thread for UDP and the timers, one that accepts, one for each connection in either
// direction; the main thread reads the commands. One mutex guards all that is shared; a thread
// holds it only while nothing waits.
// Left out on purpose: what interface.md says of terminals (section 4), --trace and /diag, the done
// bytes and the speed in /transfers; as a receiver, the offer of a beginning (protocol.md 6.6,
// where it is a "may"): what was cut short is thrown away.
// Build: g++ -std=c++17 -O1 -pthread second.cpp -o second. Linux, for renameat2 (a rename that
// never replaces).
// The numbers in the comments are the clauses of protocol.md; with an "i" in front, those of
// interface.md.

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cmath>
#include <condition_variable>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <deque>
#include <fcntl.h>
#include <filesystem>
#include <functional>
#include <ifaddrs.h>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <optional>
#include <poll.h>
#include <random>
#include <set>
#include <string>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace {
using std::size_t;
using std::string;
namespace fs = std::filesystem;
using Lock = std::unique_lock<std::recursive_mutex>;

// ---- what all threads share ---------------------------------------------------------------------

struct Addr {
    std::uint32_t ip = 0;  // in the host's byte order
    std::uint16_t port = 0;
    bool operator==(const Addr& o) const { return ip == o.ip && port == o.port; }
    bool operator!=(const Addr& o) const { return !(*this == o); }
    bool operator<(const Addr& o) const { return ip != o.ip ? ip < o.ip : port < o.port; }
};
struct Peer {
    string id, name, group;
    Addr at;
    std::uint32_t says = 0;  // the address that it believes it has
    bool listed = false, asking = false;
    int asked = 0;             // questions in a row
    double every = 5;          // seconds between its heartbeats
    bool byBroadcast = false;  // heard so
    double heard = 0, shown = -99, lastAsked = -99, nextAsk = 0;
};
struct Net {  // what one of our addresses is on
    std::uint32_t ip = 0, mask = 0, broadcast = 0;
    std::uint32_t farEnd = 0;  // of a point-to-point link; else 0
    bool loopback = false;
    string name;

    bool canBroadcast() const {  // 4.2: neither a /31, a /32, nor a point-to-point link can
        return loopback || (farEnd == 0 && ~mask > 1);
    }
    bool has(std::uint32_t other) const {  // whether that address is on it
        if (farEnd != 0) return other == farEnd || other == ip;
        return (other & mask) == (ip & mask);
    }
};
struct Round {  // of a /all, a /sendall and the like
    string what;
    size_t total = 0;
    std::vector<string> reached, missed, unsure;
};
struct Mail {
    string id, who, scope, text;
    std::int64_t number;
    std::shared_ptr<Round> round;
};
struct Target {
    string id;
    Addr at;
    string who;
};
struct Transfer {
    int n;
    bool sending;
    Target peer;
    string name;
    std::int64_t size, files;
    string state = "offered", as;
    int answer = 0;  // 1 accept, 2 reject
    std::atomic<bool> cancelled{false};
    bool isAsking() const { return !sending && state == "offered" && answer == 0; }
    string line(const string& what, const string& extra = "") const {
        return (sending ? "send " : "receive ") + std::to_string(n) + " " + what + " " + peer.who +
               " " + std::to_string(size) + " bytes" +
               (name.back() == '/' ? " in " + std::to_string(files) + " files and folders" : "") +
               extra + ": " + name;
    }
};

const string version = "ChatByP2P/1";
constexpr std::uint16_t sharedPort = 25252;
constexpr std::int64_t maxNumber = INT64_MAX;
std::recursive_mutex mu;
std::condition_variable_any cv;
std::atomic<bool> leaving{false};
struct {
    string id, name, group;
    Addr at;
} me;
std::set<string> onlyInterfaces;
bool maySweep = true;  // i1: --scan
string downloads = "downloads", acceptMode = "ask";
std::map<string, Peer> peers;            // by id, listed or not
std::map<string, double> banned;         // ids that are not listed before that time
std::vector<Net> nets;                   // those we speak on
std::set<std::uint32_t> localAddresses;  // all of the host
std::map<Addr, std::deque<Mail>> mail;   // an entry, if empty, means that its thread is there
struct Had {
    std::set<std::int64_t> numbers;
    double wrote = 0;
};
// 5.3: the 32 highest numbers of an id at an address
std::map<std::pair<string, string>, Had> recent;
std::map<int, std::shared_ptr<Transfer>> transfers;
std::map<std::uint32_t, int> accepted;  // connections by IP address
int acceptedTotal = 0, lastTransfer = 0, undelivered = 0;
std::int64_t lastNumber = 0;
bool lost = false;  // something given to us was not delivered
int udp = -1, shared = -1, wake[2];
double lastJoin = -1;
int burst = 0;  // HELLOs still to broadcast
struct Probe {  // a question of a sweep
    Addr to;
    double from = 0;  // it is not asked earlier
};
struct Sweep {
    std::vector<Probe> left;  // the first `done` of them have been asked
    size_t done = 0;
    size_t count = 0;  // addresses
    double end = 0;    // when the last answer may have come
};
Sweep sweep;                       // ours
Sweep scanned;                     // what the user has asked for
double nextSweep = 0;              // when the next question of either is due
bool scanning = false;             // and its end is to be told
std::set<std::uint32_t> askedIps;  // by a HELLO of their own
// 4.3: until when broadcast works, by the number of the network
std::map<std::uint32_t, double> works;
struct Answer {
    string id;
    double at;
};
std::map<Addr, Answer> answers;  // 4.2: to broadcasts; each waits a random time

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}
double dice() {
    static thread_local std::mt19937 r{std::random_device{}()};
    return std::uniform_real_distribution<>(0, 1)(r);
}

// ---- 3: text, lines, and values -----------------------------------------------------------------

// the length of the character at i, or 0
size_t decode(const string& s, size_t i, std::uint32_t& c) {
    auto b = [&](size_t k) {
        return static_cast<unsigned char>(s[k]);
    };
    const size_t n = b(i) < 0x80   ? 1
                     : b(i) < 0xC2 ? 0
                     : b(i) < 0xE0 ? 2
                     : b(i) < 0xF0 ? 3
                     : b(i) < 0xF5 ? 4
                                   : 0;
    if (n == 0 || i + n > s.size()) return 0;
    c = n == 1 ? b(i) : b(i) & (0xFFu >> (n + 1));
    for (size_t k = 1; k < n; ++k) {
        if ((b(i + k) & 0xC0) != 0x80) return 0;
        c = (c << 6) | (b(i + k) & 0x3Fu);
    }
    const bool bad = (n == 3 && c < 0x800) || (n == 4 && (c < 0x10000 || c > 0x10FFFF)) ||
                     (c >= 0xD800 && c <= 0xDFFF);
    return bad ? 0 : n;
}
bool isControl(std::uint32_t c) {
    return (c < 0x20 && c != '\t') || (c >= 0x7F && c <= 0x9F) || c == 0x61C || c == 0x200E ||
           c == 0x200F || (c >= 0x2028 && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069);
}
bool isText(const string& s) {
    std::uint32_t c = 0;
    for (size_t i = 0, n; i < s.size(); i += n)
        if ((n = decode(s, i, c)) == 0 || isControl(c)) return false;
    return true;
}
bool isBlank(std::uint32_t c) {
    return c == '\t' || c == ' ' || c == 0xA0 || c == 0x115F || c == 0x1160 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200B) || c == 0x202F || c == 0x205F || c == 0x2800 ||
           c == 0x3000 || c == 0x3164 || c == 0xFEFF || c == 0xFFA0 || c == 0x13441 ||
           c == 0x13442 || c == 0x1D159;
}
bool isInvisible(std::uint32_t c) {
    return c == 0xAD || c == 0x34F || c == 0x17B4 || c == 0x17B5 || (c >= 0x180B && c <= 0x180F) ||
           c == 0x200C || c == 0x200D || (c >= 0x2060 && c <= 0x2065) ||
           (c >= 0x206A && c <= 0x206F) || (c >= 0xFE00 && c <= 0xFE0F) ||
           (c >= 0xFFF0 && c <= 0xFFF8) || (c >= 0x1BCA0 && c <= 0x1BCA3) ||
           (c >= 0x1D173 && c <= 0x1D17A) || (c >= 0xE0000 && c <= 0xE0FFF);
}
string visible(const string& s) {  // of a name: what is compared
    string out;
    std::uint32_t c = 0;
    for (size_t i = 0, n; i < s.size(); i += n) {
        n = std::max<size_t>(decode(s, i, c), 1);
        if (!isInvisible(c)) out += s.substr(i, n);
    }
    return out;
}
bool isName(const string& s) {  // of a user or a group
    std::uint32_t c = 0;
    size_t count = 0;
    for (size_t i = 0, n; i < s.size(); i += n, ++count)
        if ((n = decode(s, i, c)) == 0 || isControl(c) || isBlank(c)) return false;
    return count >= 1 && count <= 32 && !visible(s).empty();
}
void say(const string& s) {  // i3: one line of output
    string out;
    std::uint32_t c = 0;
    for (size_t i = 0; i < s.size();) {
        const size_t n = decode(s, i, c), step = std::max<size_t>(n, 1);
        for (size_t k = i; k < i + step; ++k) {
            char hex[8];
            std::snprintf(hex, sizeof hex, "\\x%02x", static_cast<unsigned char>(s[k]));
            out += n == 0 || isControl(c) ? string(hex) : s.substr(k, 1);
        }
        i += step;
    }
    Lock lock(mu);
    if (std::fputs((out + "\n").c_str(), stdout) < 0 || std::fflush(stdout) != 0) {
        lost = true;
        if (write(wake[1], "x", 1) < 0) {
        }
    }
}
std::optional<std::int64_t> number(const string& s, std::int64_t max) {
    std::int64_t v = 0;
    if (s.empty()) return {};
    for (char ch : s) {
        if (ch < '0' || ch > '9' || v > (max - (ch - '0')) / 10) return {};
        v = v * 10 + (ch - '0');
    }
    return v;
}
string ipText(std::uint32_t ip) {
    string s;
    for (int i = 24; i >= 0; i -= 8)
        s += std::to_string((ip >> i) & 255) + (i ? "." : "");
    return s;
}
string text(Addr a) {
    return ipText(a.ip) + ":" + std::to_string(a.port);
}
std::optional<std::uint32_t> parseIp(const string& s) {
    in_addr a{};
    if (inet_pton(AF_INET, s.c_str(), &a) != 1 || ipText(ntohl(a.s_addr)) != s) return {};
    return ntohl(a.s_addr);
}
std::optional<Addr> parseAddr(const string& s) {  // IP:PORT
    const size_t colon = s.find(':');
    if (colon == string::npos) return {};
    const auto ip = parseIp(s.substr(0, colon));
    const auto port = number(s.substr(colon + 1), 65535);
    if (!ip || !port || *port == 0) return {};
    return Addr{*ip, static_cast<std::uint16_t>(*port)};
}

struct Request {  // request = verb *field [SP ":" *any]
    string verb;
    std::map<string, string> fields;
    std::optional<string> text;
    bool wrong = false;
    explicit Request(const string& line) {
        const size_t colon = line.find(" :");
        if (colon != string::npos) text = line.substr(colon + 2);
        const string head = line.substr(0, colon);
        if (head.find('\t') != string::npos || head.empty() || head[0] == ' ') wrong = true;
        for (size_t i = 0, end; i <= head.size(); i = end + 1) {
            end = std::min(head.find(' ', i), head.size());
            const string word = head.substr(i, end - i);
            const size_t eq = word.find('=');
            if (i == 0)
                verb = word;
            else if (word.empty())
                continue;
            else if (eq == string::npos || eq == 0 ||
                     !fields.emplace(word.substr(0, eq), word.substr(eq + 1)).second)
                wrong = true;
        }
    }
    string get(const string& key) const {
        auto f = fields.find(key);
        return f == fields.end() ? "" : f->second;
    }
    std::optional<std::int64_t> num(const string& key) const { return number(get(key), maxNumber); }
};
struct Announcement {
    string verb, id, name, group, to;
    std::uint32_t ip = 0;
    std::uint16_t port = 0;
    bool askHost = false;
    double every = 5;
};
bool isId(const string& s) {
    return s.size() == 16 && s.find_first_not_of("0123456789abcdef") == string::npos;
}
std::optional<Announcement> parseAnnouncement(const string& line) {
    if (!isText(line) || line.compare(0, version.size() + 1, version + " ") != 0) return {};
    const Request r(line.substr(version.size() + 1));
    const auto ip = parseIp(r.get("ip"));
    const auto port = number(r.get("port"), 65535);
    Announcement a{r.verb, r.get("id"), r.get("name"),         r.get("group"), r.get("to"),
                   0,      0,           r.get("ask") == "host"};
    if (r.wrong || !isId(a.id) || !ip || !port || *port == 0 || !isName(a.name) ||
        !isName(a.group) || (!a.to.empty() && !isId(a.to)) ||
        (a.verb != "HELLO" && a.verb != "HERE" && a.verb != "BYE"))
        return {};
    a.ip = *ip;
    a.port = static_cast<std::uint16_t>(*port);
    if (const auto every = number(r.get("every"), 60); every && *every > 5)
        a.every = static_cast<double>(*every);
    return a;
}

// ---- networks and sockets -----------------------------------------------------------------------

sockaddr_in native(Addr a) {
    sockaddr_in s{};
    s.sin_family = AF_INET;
    s.sin_addr.s_addr = htonl(a.ip);
    s.sin_port = htons(a.port);
    return s;
}
Addr fromNative(const sockaddr_in& s) {
    return {ntohl(s.sin_addr.s_addr), ntohs(s.sin_port)};
}
const sockaddr* generic(const sockaddr_in& s) {
    return reinterpret_cast<const sockaddr*>(&s);
}

std::uint32_t myIpTowards(std::uint32_t ip) {  // the source address that the routes choose; 0: none
    const int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_in to = native({ip, 9}), mine{};
    socklen_t size = sizeof mine;
    const bool ok = s >= 0 && connect(s, generic(to), sizeof to) == 0 &&
                    getsockname(s, reinterpret_cast<sockaddr*>(&mine), &size) == 0;
    if (s >= 0) close(s);
    return !ok ? 0 : (ip >> 24) == 127 ? 0x7F000001 : fromNative(mine).ip;
}
bool allowed(std::uint32_t ip) {  // i1, --interface
    if (onlyInterfaces.empty()) return true;
    const std::uint32_t mine = myIpTowards(ip);
    Lock lock(mu);
    return std::any_of(nets.begin(), nets.end(), [&](const Net& n) { return n.ip == mine; });
}
bool isLocal(std::uint32_t ip) {
    return (ip >> 24) == 127 || localAddresses.count(ip) != 0;
}

bool readInterfaces() {  // true: an address is new
    ifaddrs* list = nullptr;
    if (getifaddrs(&list) != 0) return false;
    std::vector<Net> found;
    std::set<std::uint32_t> all;
    auto ip = [](const sockaddr* a) {
        sockaddr_in s{};
        std::memcpy(&s, a, sizeof s);
        return fromNative(s).ip;
    };
    for (const ifaddrs* i = list; i; i = i->ifa_next) {
        const bool isUp = (i->ifa_flags & IFF_UP) && (i->ifa_flags & IFF_RUNNING);
        if (!isUp || !i->ifa_addr || i->ifa_addr->sa_family != AF_INET || !i->ifa_netmask) continue;
        Net n;
        n.ip = ip(i->ifa_addr);
        n.mask = ip(i->ifa_netmask);
        n.loopback = (i->ifa_flags & IFF_LOOPBACK) != 0;
        n.broadcast = n.loopback ? 0x7FFFFFFF : n.ip | ~n.mask;
        const bool isPointToPoint = (i->ifa_flags & IFF_POINTOPOINT) && i->ifa_dstaddr;
        if (isPointToPoint) n.farEnd = ip(i->ifa_dstaddr);
        if (n.farEnd == n.ip) n.farEnd = 0;  // then the system does not know it
        all.insert(n.ip);
        n.name = i->ifa_name;
        n.name = n.name.substr(0, n.name.find(':'));
        if (onlyInterfaces.empty() || onlyInterfaces.count(n.name)) found.push_back(n);
    }
    freeifaddrs(list);
    Lock lock(mu);
    const bool isNew = std::any_of(found.begin(), found.end(), [](const Net& f) {
        return std::none_of(nets.begin(), nets.end(), [&](const Net& n) {
            return n.ip == f.ip && n.mask == f.mask && n.farEnd == f.farEnd;
        });
    });
    nets = found;
    localAddresses = all;
    me.at.ip = 0x7F000001;
    for (const Net& n : nets)
        if (!n.loopback) {
            me.at.ip = n.ip;
            break;
        }
    return isNew;
}
long users() {
    return 1 + std::count_if(peers.begin(), peers.end(), [](auto& i) { return i.second.listed; });
}
long interval() {
    return std::max(5L, (users() + 19) / 20);
}  // 4.2: of our heartbeats, in seconds
string announce(const string& verb, std::uint32_t ip, const string& extra = "") {
    Lock lock(mu);
    return version + " " + verb + " id=" + me.id + " ip=" + ipText(ip ? ip : me.at.ip) +
           " port=" + std::to_string(me.at.port) + " name=" + me.name + " group=" + me.group +
           (interval() > 5 ? " every=" + std::to_string(interval()) : "") + extra;
}
void sendTo(Addr to, const string& line) {
    const sockaddr_in s = native(to);
    if (allowed(to.ip)) sendto(udp, line.data(), line.size(), MSG_DONTWAIT, generic(s), sizeof s);
}
void sayTo(Addr to, const string& verb, const string& extra = "") {
    if (verb == "HELLO") {
        Lock lock(mu);
        askedIps.insert(to.ip);
    }
    sendTo(to, announce(verb, myIpTowards(to.ip), extra));
}
void broadcast(const string& verb) {
    for (const Net& n : nets) {
        if (!n.canBroadcast()) continue;
        const sockaddr_in s = native({n.broadcast, sharedPort});
        const string line = announce(verb, n.ip);
        sendto(udp, line.data(), line.size(), MSG_DONTWAIT, generic(s), sizeof s);
    }
}

struct No {  // a reply that ends the connection
    string word, sentence;
    string told;  // to our user
};

class Conn {  // one TCP connection, in either direction
public:
    enum Got { ok, closed, timeout, cut, tooLong, stopped };
    std::function<bool()> stop = [] {
        return leaving.load();
    };
    string peerId, peerWho, spoken;  // set by introduce()
    explicit Conn(int socket) : fd(socket) {
        const int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        fcntl(fd, F_SETFL, O_NONBLOCK);
    }
    Conn(const Conn&) = delete;
    Conn& operator=(const Conn&) = delete;
    ~Conn() { close(fd); }

    static std::unique_ptr<Conn> open(Addr to, string& error) {
        if (!allowed(to.ip)) {
            error = "not reached through the chosen interface";
            return nullptr;
        }
        auto c = std::make_unique<Conn>(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        const sockaddr_in s = native(to);
        if (connect(c->fd, generic(s), sizeof s) == 0) return c;
        int problem = errno;
        if (problem == EINPROGRESS) {
            pollfd p{c->fd, POLLOUT, 0};
            socklen_t size = sizeof problem;
            if (poll(&p, 1, 4000) != 1)
                problem = ETIMEDOUT;
            else
                getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &problem, &size);
        }
        if (problem == 0) return c;
        error = "cannot connect to " + text(to) + ": " + std::strerror(problem);
        return nullptr;
    }
    bool put(const string& data) {  // 10 s without progress: false
        double end = now() + 10;
        for (size_t done = 0; done < data.size();) {
            const ssize_t n = ::send(fd, data.data() + done, data.size() - done, MSG_NOSIGNAL);
            if (n > 0) {
                done += static_cast<size_t>(n);
                end = now() + 10;
                continue;
            }
            if (n < 0 && errno != EAGAIN && errno != EINTR) return false;
            if (stop()) end = std::min(end, now() + 1);
            pollfd p{fd, POLLOUT, 0};
            poll(&p, 1, 100);
            if (now() > end) return false;
        }
        return true;
    }
    bool line(const string& s) { return put(s + "\n"); }
    bool pending() {
        pollfd p{fd, POLLIN, 0};
        return !buffer.empty() || poll(&p, 1, 0) == 1;
    }
    Got read(string& out, double wait) {  // one line; wait is for its first byte
        bool begun = !buffer.empty();
        double end = now() + (begun ? 10 : wait);
        for (;;) {
            const size_t lf = buffer.find('\n');
            if (lf != string::npos) {
                out = buffer.substr(0, lf);
                buffer.erase(0, lf + 1);
                if (!out.empty() && out.back() == '\r') out.pop_back();
                return out.size() > 4096 ? tooLong : ok;
            }
            if (buffer.size() > 4097 || (buffer.size() == 4097 && buffer.back() != '\r'))
                return tooLong;
            const Got g = fill(end);
            if (g != ok) return begun && g != stopped ? cut : g;
            if (!begun) {
                begun = true;
                end = now() + 10;
            }
        }
    }
    Got request(string& out, double wait) {  // as read(), with the replies that any line may get
        const Got g = read(out, wait);
        if (g == tooLong) throw No{"long", "a line has at most 4096 bytes", ""};
        if ((g == ok && !isText(out)) || (g == cut && !isText(buffer)))
            throw No{"text", "not UTF-8, or a control character", ""};
        if (g == cut) throw No{"failed", "the line did not end", ""};
        return g;
    }
    Got data(string& out, size_t want) {  // 1 to want bytes
        if (buffer.empty()) {
            const Got g = fill(now() + 10);
            if (g != ok) return g;
        }
        out = buffer.substr(0, want);
        buffer.erase(0, want);
        return ok;
    }
    bool introduce(Addr to, const string& wanted, string& error);  // 5.2, as the opener
    void end(const string& last) {  // a last line, and so that it arrives
        if (!last.empty()) line(last);
        shutdown(fd, SHUT_WR);
        for (double until = now() + (leaving ? 0.3 : 10); now() < until;) {
            char waste[4096];
            pollfd p{fd, POLLIN, 0};
            if (poll(&p, 1, 100) > 0 && recv(fd, waste, sizeof waste, 0) <= 0) return;
        }
    }
    void reset() {
        const linger l{1, 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    }

private:
    int fd;
    string buffer;
    Got fill(double until) {
        for (;;) {
            if (stop()) return stopped;
            char bytes[65536];
            const ssize_t n = recv(fd, bytes, sizeof bytes, 0);
            if (n > 0) {
                buffer.append(bytes, static_cast<size_t>(n));
                return ok;
            }
            if (n == 0 || (errno != EAGAIN && errno != EINTR)) return closed;
            const double left = until - now();
            if (left <= 0) return timeout;
            pollfd p{fd, POLLIN, 0};
            poll(&p, 1, static_cast<int>(std::min(left, 0.1) * 1000) + 1);
        }
    }
};
const char* reason(Conn::Got g) {
    return g == Conn::timeout   ? "no answer in time"
           : g == Conn::stopped ? "cancelled"
           : g == Conn::tooLong ? "the answer is too long"
                                : "the connection was closed";
}
bool isOk(const string& reply) {
    return reply == "OK" || reply.compare(0, 3, "OK ") == 0;
}
bool isNo(const string& reply) {
    return reply.compare(0, 3, "NO ") == 0;
}
string sentence(const string& reply) {
    const size_t b = reply.find(' ', 3);
    return reply.substr(b == string::npos ? 3 : b + 1);
}

// ---- 4: discovery; mu is held here --------------------------------------------------------------

string who(const Peer& p) {
    return p.name + "@" + text(p.at);
}
string myself() {
    return me.name + "@" + text(me.at);
}

void drop(const string& id, const char* why) {
    const Peer p = peers[id];
    peers.erase(id);
    if (p.listed) say("left " + who(p) + ": " + why);
}
void ask(Peer& p) {
    p.asking = true;
    p.asked = 0;
    p.nextAsk = now();
}

void shown(Peer& p) {  // it has shown that it hears us: 4.4
    p.asking = false;
    p.shown = now();
    if (p.listed) return;
    int total = 0, sameIp = 0;
    for (const auto& [id, o] : peers)
        if (o.listed) {
            ++total;
            sameIp += o.at.ip == p.at.ip;
        }
    if (sameIp >= 128 || total >= 1024) {
        p.asking = true;
        p.asked = 24;
        p.nextAsk = now() + 5;
        return;
    }
    for (auto i = peers.begin(); i != peers.end();) {  // who was there before has been started anew
        const auto& [id, o] = *i++;
        if (id == p.id || o.at != p.at) continue;
        banned[id] = now() + 5;
        drop(string(id), "replaced");
    }
    p.listed = true;
    lastJoin = now();
    say("joined " + who(p) + " " + p.group);
    cv.notify_all();
}
// What an announcement from an address says of a peer: its entry, which is made if need be; or
// none.
Peer* note(const Announcement& a, Addr at) {
    const double t = now();
    if (auto b = banned.find(a.id); b != banned.end() && b->second > t) return nullptr;
    auto found = peers.find(a.id);
    if (found != peers.end() && found->second.at != at &&
        t - found->second.heard < 2 * found->second.every)
        return nullptr;
    if (found != peers.end() && found->second.at != at)  // nor to where another is listed
        for (const auto& [id, o] : peers)
            if (id != a.id && o.listed && o.at == at) return nullptr;
    if (found == peers.end()) {
        if (peers.size() >= 1280) {
            auto oldest = peers.end();
            for (auto i = peers.begin(); i != peers.end(); ++i)
                if (!i->second.listed &&
                    (oldest == peers.end() || i->second.heard < oldest->second.heard))
                    oldest = i;
            if (oldest == peers.end()) return nullptr;
            peers.erase(oldest);
        }
        Peer p;
        p.id = a.id;
        p.name = a.name;
        p.group = a.group;
        p.at = at;
        p.says = a.ip;
        p.heard = t;
        p.every = a.every;
        found = peers.emplace(a.id, p).first;
        ask(found->second);
        return &found->second;
    }
    Peer& p = found->second;
    const Peer old = p;
    p.at = at;
    p.name = a.name;
    p.group = a.group;
    p.says = a.ip;
    p.every = a.every;
    if (p.listed && (who(p) != who(old) || p.group != old.group))
        say("changed " + who(p) + " " + p.group + ": was " + who(old) + " " + old.group);
    if (p.at != old.at) ask(p);
    p.heard = t;
    return &p;
}
void introduced(const Announcement& a, Addr at) {  // 5.2: asked once; only its answer lists it
    const auto known = peers.find(a.id);
    if (known == peers.end() || !known->second.listed || known->second.at != at) sayTo(at, "HELLO");
}

bool isHost(Addr a) {  // 9: one host can be there
    const bool odd = a.port == 0 || a.ip == 0 || a.ip == 0xFFFFFFFF || a.ip >> 28 == 0xE;
    return !odd && std::none_of(nets.begin(), nets.end(), [&](const Net& n) {
        return n.canBroadcast() && (a.ip == n.broadcast || a.ip == (n.ip & n.mask));
    });
}
long instances() {  // 4.3: of this host share one pace
    return 1 + std::count_if(peers.begin(), peers.end(),
                             [](auto& i) { return i.second.listed && isLocal(i.second.at.ip); });
}
bool isSwept(const Net& n) {
    const auto until = works.find(n.ip & n.mask);
    const bool canBeHeard = n.canBroadcast() && until != works.end() && until->second > now();
    return maySweep && !n.loopback && !canBeHeard;
}
// 4.3: where this one is; so there is nothing to sweep
void broadcastWorks(std::uint32_t ip, double seconds) {
    for (const Net& n : nets) {
        if (!n.canBroadcast() || !n.has(ip)) continue;
        double& until = works[n.ip & n.mask];
        until = std::max(until, now() + seconds);
        const auto isThere = [&](const Probe& p) {
            return n.has(p.to.ip);
        };
        const auto waiting = sweep.left.begin() + static_cast<long>(sweep.done);
        sweep.left.erase(std::remove_if(waiting, sweep.left.end(), isThere), sweep.left.end());
    }
}
void onDatagram(string line, Addr from, bool onShared) {
    if (line.size() > 512) return;
    if (!line.empty() && line.back() == '\n') line.pop_back();
    if (!line.empty() && line.back() == '\r') line.pop_back();
    const auto a = parseAnnouncement(line);
    if (!a || a->id == me.id || !allowed(from.ip) || !isHost(from)) return;
    const Addr at{from.ip, a->port};
    const auto known = peers.find(a->id);
    if (a->verb == "BYE") {
        if (known != peers.end() && known->second.at == from && from == at) {
            banned[a->id] = now() + 15;
            drop(a->id, "said bye");
        }
        return;
    }
    const bool isBroadcast = onShared && !a->askHost;
    if (!isLocal(from.ip) &&
        (isBroadcast || (a->verb == "HERE" && a->to == me.id && !askedIps.count(from.ip))))
        broadcastWorks(from.ip, isBroadcast ? 60 : 15);
    const bool waits = isBroadcast && a->verb == "HELLO";
    const double when = now() + (waits ? dice() * static_cast<double>(users()) * 0.0005 : 0);
    // one for each source, to the id that asked last
    if (waits) answers.emplace(from, Answer{a->id, when}).first->second.id = a->id;
    if (a->verb == "HELLO") {
        if (!waits) sayTo(from, "HERE", " to=" + a->id);
        if (a->askHost)
            for (const auto& [id, p] : peers)
                if (p.listed && id != a->id && isLocal(p.at.ip))
                    sendTo(from, version + " HERE id=" + id + " ip=" + ipText(p.says) +
                                     " port=" + std::to_string(p.at.port) + " name=" + p.name +
                                     " group=" + p.group);
    }
    if (from != at) {  // 4.3: hearsay lists nobody
        if (a->verb == "HERE" && (known == peers.end() || known->second.at != at))
            sayTo(at, "HELLO");
        return;
    }
    Peer* p = note(*a, at);
    if (!p) return;
    if (isBroadcast) p->byBroadcast = true;
    if (a->verb == "HERE" && a->to == me.id)
        shown(*p);
    else if (a->verb == "HELLO" && p->listed && !p->asking &&
             now() - std::max(p->lastAsked, p->shown) >= 5)
        ask(*p);
    // the question goes with the answer
    if (waits && p->asking && p->asked == 0) p->nextAsk = when;
}
void answerBroadcasts() {
    for (auto i = answers.begin(); i != answers.end();) {
        if (i->second.at > now()) {
            ++i;
            continue;
        }
        sayTo(i->first, "HERE", " to=" + i->second.id);
        i = answers.erase(i);
    }
}
void question(Peer& p) {
    p.lastAsked = now();
    ++p.asked;
    p.nextAsk = now() + (p.asked >= 24 ? 5 : 0.5 + dice() / 4);
    sayTo(p.at, "HELLO", isLocal(p.at.ip) ? "" : " ask=host");
}
void joinSweep(Sweep& s, const std::vector<Addr>& add, double wait) {
    // 4.3: at the first own port, then at the shared one
    for (const std::uint16_t port : {std::uint16_t(25253), sharedPort}) {
        for (const Addr& a : add) {
            const Addr to{a.ip, a.port ? a.port : port};
            s.left.push_back({to, now() + wait});
        }
    }
    s.count += add.size();
}
void startSweep(Sweep& s, const std::vector<Addr>& add, double wait) {
    s = Sweep{};
    joinSweep(s, add, wait);
}
void startScan(const std::vector<Addr>& add) {  // takes the place of another
    startSweep(scanned, add, 0);
    scanning = true;
    if (add.size() <= 10) return;
    // the last answer has one
    const size_t seconds = add.size() * static_cast<size_t>(instances()) / 2 + 1;
    say("note: scanning " + std::to_string(add.size()) + " addresses, " + std::to_string(seconds) +
        " s to go");
}
// the host addresses of a network, at most a /22, nearest first
std::vector<Addr> hosts(std::uint32_t ip, std::uint32_t mask) {
    if (~mask + 1u > 1024 || mask == 0) mask = 0xFFFFFC00;
    std::vector<Addr> all;
    for (std::uint32_t k = 0; k <= ~mask; ++k) {
        const std::uint32_t host = (k % 2 ? ip + (k + 1) / 2 : ip - k / 2) & ~mask;
        if (~mask > 1 && (host == 0 || host == ~mask)) continue;
        all.push_back({(ip & mask) + host, 0});
    }
    return all;
}
void addHosts(const Net& n, std::vector<Addr>& all) {  // 4.3: whom a sweep of it asks
    if (n.farEnd != 0) {
        all.push_back({n.farEnd, 0});
        return;
    }
    const auto its = hosts(n.ip, n.mask);
    all.insert(all.end(), its.begin(), its.end());
}
void startBurst() {
    burst = 3;
}
void sweepAll() {
    startBurst();
    std::vector<Addr> atOnce, all;
    for (const Net& n : nets)
        if (isSwept(n)) addHosts(n, n.canBroadcast() ? all : atOnce);
    startSweep(sweep, atOnce, 0);
    joinSweep(sweep, all, 3);  // broadcast first
}
void sweepWhereBroadcastHasEnded() {  // 4.3: at once
    for (const Net& n : nets) {
        const auto until = works.find(n.ip & n.mask);
        if (until == works.end() || until->second > now()) continue;
        works.erase(until);
        std::vector<Addr> all;
        if (isSwept(n)) addHosts(n, all);
        joinSweep(sweep, all, 0);
    }
}
void scanAll() {  // as the user has asked
    startBurst();
    std::vector<Addr> all;
    for (const Net& n : nets)
        if (!n.loopback) addHosts(n, all);
    startScan(all);
}
void sweepAgain(bool& first) {  // at the full five minutes: 4.3
    std::vector<Addr> all;
    for (const Net& n : nets) {
        const auto isOnIt = [&](auto& i) {
            const Peer& p = i.second;
            return p.listed && !isLocal(p.at.ip) && n.has(p.at.ip);
        };
        const bool isWorthIt = first || std::any_of(peers.begin(), peers.end(), isOnIt);
        if (isSwept(n) && isWorthIt) addHosts(n, all);
    }
    long period = 1;  // of five minutes, until a sweep fits in
    while (300 * period < static_cast<long>(all.size()) * instances() / 2)
        period *= 2;
    if (std::time(nullptr) / 300 % period != 0) return;
    first = false;
    startSweep(sweep, all, 0);
}
void askNext(double t) {  // one pace for all sweeps
    Sweep& s = scanned.done < scanned.left.size() ? scanned : sweep;
    if (s.done == s.left.size() || t < nextSweep || t < s.left[s.done].from) return;
    sayTo(s.left[s.done].to, "HELLO", " ask=host");
    ++s.done;
    nextSweep = t + 0.25 * static_cast<double>(instances());
    s.end = t + 1;
}
void endScan(double t) {
    if (!scanning || scanned.done < scanned.left.size() || t < scanned.end) return;
    scanning = false;
    say("scanned " + std::to_string(scanned.count) + " addresses; " + std::to_string(users() - 1) +
        " users online");
}
void udpLoop() {
    int beats = 1;  // sent, or planned
    double nextBeat = now() + 2, nextBurst = 0, nextLook = now() + 2;
    std::time_t part = std::time(nullptr) / 300;  // which five minutes of the clock on the wall
    bool first = true;
    while (!leaving) {
        pollfd p[2] = {{udp, POLLIN, 0}, {shared, POLLIN, 0}};
        poll(p, 2, answers.empty() ? 20 : 1);
        for (const pollfd& q : p) {
            char bytes[2048];
            sockaddr_in from{};
            socklen_t size = sizeof from;
            for (ssize_t n; (n = recvfrom(q.fd, bytes, sizeof bytes, MSG_DONTWAIT,
                                          reinterpret_cast<sockaddr*>(&from), &size)) >= 0;
                 size = sizeof from) {
                Lock lock(mu);
                onDatagram(string(bytes, static_cast<size_t>(n)), fromNative(from), q.fd == shared);
            }
        }
        const double t = now();
        {
            Lock lock(mu);
            answerBroadcasts();
        }
        if (t > nextLook) {
            nextLook = t + 2;
            if (readInterfaces()) {
                Lock lock(mu);
                sweepAll();
            }
        }
        Lock lock(mu);
        if (burst > 0 && t >= nextBurst) {
            broadcast("HELLO");
            --burst;
            nextBurst = t + 0.25;
        }
        if (t >= nextBeat) {
            broadcast("HERE");
            ++beats;
            nextBeat = t + static_cast<double>(beats <= 3 ? 2 : interval()) *
                               (beats == 4 ? dice() : 0.9 + dice() / 5);
        }
        if (std::time(nullptr) / 300 != part) {
            part = std::time(nullptr) / 300;
            sweepAgain(first);
        }
        sweepWhereBroadcastHasEnded();
        askNext(t);
        endScan(t);
        for (auto i = peers.begin(); i != peers.end();) {
            Peer& q = (i++)->second;
            if (t - q.heard >= 3 * q.every) {
                drop(string(q.id),
                     ("silent for " + std::to_string(std::lround(3 * q.every)) + " s").c_str());
                continue;
            }
            if (!q.asking && t - q.heard >= 1.2 * q.every) ask(q);
            const bool isHeard = t - q.heard < 1.2 * q.every;
            if (q.listed && q.asked >= 24 && isHeard && t - q.lastAsked >= 0.5) {
                say("left " + who(q) + ": does not hear us");
                q.listed = false;
            }
            if (q.asking && t >= q.nextAsk) question(q);
        }
        for (auto i = banned.begin(); i != banned.end();)
            i = i->second < t ? banned.erase(i) : std::next(i);
    }
}

// ---- 5: messages, as sender ---------------------------------------------------------------------

bool Conn::introduce(Addr to, const string& wanted, string& error) {
    const string hello = announce("HELLO", myIpTowards(to.ip));
    string reply;
    if (!line(hello)) {
        error = "the connection was closed";
        return false;
    }
    const Got g = read(reply, 10);
    if (g != ok) {
        error = reason(g);
        return false;
    }
    const auto a = isOk(reply) ? parseAnnouncement(reply.substr(std::min<size_t>(3, reply.size())))
                               : std::nullopt;
    if (isNo(reply))
        error = sentence(reply);
    else if (!a || a->verb != "HERE")
        error = "what answers there is no peer";
    else if (!wanted.empty() && a->id != wanted)
        error = "another peer is at that address by now";
    else {
        spoken = hello;
        peerId = a->id;
        peerWho = a->name + "@" + text(to);
        Lock lock(mu);
        introduced(*a, to);
        return true;
    }
    return false;
}
string deliver(std::unique_ptr<Conn>& c, Addr to, Mail& m) {  // "" or why not
    // closed meanwhile, or another peer
    if (c && (c->pending() || (!m.id.empty() && c->peerId != m.id))) c.reset();
    bool sent = false;
    string error, reply;
    for (int attempt = 0; attempt < 2 && !leaving; ++attempt) {
        if (!c && !(c = Conn::open(to, error))) break;
        // new, or our name is
        if (c->spoken != announce("HELLO", myIpTowards(to.ip)) && !c->introduce(to, m.id, error)) {
            const bool old = !c->spoken.empty();
            c.reset();
            if (old) continue;
            break;
        }
        m.who = c->peerWho;
        sent = true;
        Conn::Got g = Conn::closed;
        if (c->line("MSG number=" + std::to_string(m.number) + " scope=" + m.scope + " :" + m.text))
            g = c->read(reply, 10);
        if (g == Conn::ok && isOk(reply)) return "";
        if (g == Conn::ok && isNo(reply)) return sentence(reply) + "; not delivered";
        error = g == Conn::ok ? "what came is no reply" : reason(g);
        c->reset();
        c.reset();
    }
    if (error.empty()) error = "leaving";
    return error + (sent ? "; it may have arrived" : "; not delivered");
}
string unreached(const Round& r) {  // i3
    string list;
    for (size_t i = 0; i < r.missed.size(); ++i)
        list += (i ? ", " : "; not reached: ") + r.missed[i];
    for (size_t i = 0; i < r.unsure.size(); ++i)
        list += (i ? ", " : "; may have reached: ") + r.unsure[i];
    return list;
}
void mailman(Addr to) {  // one conversation per address
    std::unique_ptr<Conn> c;
    Lock lock(mu);
    while (cv.wait_for(lock, std::chrono::seconds(30), [&] { return !mail[to].empty(); })) {
        Mail m = mail[to].front();
        lock.unlock();
        const string error = deliver(c, to, m);
        lock.lock();
        mail[to].pop_front();
        --undelivered;
        lost = lost || !error.empty();
        if (!m.round)
            say(error.empty() ? "delivered " + m.who + ": " + m.text
                              : "failed " + m.who + ": " + error + ": " + m.text);
        else {
            Round& r = *m.round;
            const bool arrived = error.empty(),
                       unsure = error.find("; it may have arrived") != string::npos;
            (arrived ? r.reached : unsure ? r.unsure : r.missed).push_back(m.who);
            if (r.reached.size() + r.missed.size() + r.unsure.size() < r.total) continue;
            const string all = unreached(r);
            say("delivered " + std::to_string(r.reached.size()) + " of " + std::to_string(r.total) +
                all);
        }
    }
    mail.erase(to);
}
void post(const Target& to, const string& scope, const string& words,
          const std::shared_ptr<Round>& round) {
    const bool begun = mail.count(to.at) != 0;
    mail[to.at].push_back({to.id, to.who, scope, words, ++lastNumber, round});
    ++undelivered;
    if (!begun) std::thread(mailman, to.at).detach();
    cv.notify_all();
}

// ---- 6: files -----------------------------------------------------------------------------------

class Cksum {  // of the POSIX utility
public:
    void add(const string& s) {
        for (char c : s)
            byte(static_cast<unsigned char>(c));
        length += s.size();
    }
    std::uint32_t value() const {
        Cksum end = *this;
        for (std::uint64_t n = length; n != 0; n >>= 8)
            end.byte(static_cast<unsigned char>(n & 255));
        return ~end.crc;
    }

private:
    void byte(unsigned char b) {
        static const auto table = [] {
            std::array<std::uint32_t, 256> t{};
            for (std::uint32_t i = 0; i < 256; ++i) {
                t[i] = i << 24;
                for (int k = 0; k < 8; ++k)
                    t[i] = (t[i] << 1) ^ (t[i] >> 31 ? 0x04C11DB7u : 0u);
            }
            return t;
        }();
        crc = (crc << 8) ^ table[(crc >> 24) ^ b];
    }
    std::uint32_t crc = 0;
    std::uint64_t length = 0;
};
bool ourPart(const string& s) {
    return s.compare(0, 8, ".second-") == 0 && s.size() > 13 && s.substr(s.size() - 5) == ".part";
}
bool isFileName(const string& s) {  // 6.1
    return !s.empty() && s != "." && s != ".." && s.size() <= 255 && isText(s) &&
           s.find_first_of(string("/\t\0", 3)) == string::npos && !ourPart(s);
}
std::shared_ptr<Transfer> begin(bool sending, const Target& peer, const string& name,
                                std::int64_t size, std::int64_t files) {
    Lock lock(mu);
    auto t = std::make_shared<Transfer>();
    t->n = ++lastTransfer;
    t->sending = sending;
    t->peer = peer;
    t->name = name;
    t->size = size;
    t->files = files;
    return transfers[t->n] = t;
}
void report(Transfer& t, const string& state, const string& extra = "", const string& name = "",
            bool ended = false) {
    Lock lock(mu);
    t.state = state;
    if (!name.empty()) t.name = name;
    say(t.line(state, extra));
    if (ended) transfers.erase(t.n);
}
string number(std::uint32_t v) {
    return std::to_string(v);
}

struct Entry {
    string path;
    bool folder, executable;
    std::int64_t size;
    string missing;
};

class LeftOut {  // i3: of a folder; eight are named, the others counted
public:
    void add(const string& path, const string& why) {
        ++count;
        if (count > 8) return;
        if (count > 1) names += ", ";
        names += cut(path) + " (" + cut(why) + ")";
    }
    string text() const {
        return count > 8 ? names + " and " + std::to_string(count - 8) + " more" : names;
    }
    string after(const string& words) const { return count == 0 ? "" : words + text(); }

private:
    static string cut(string s) {
        if (s.size() <= 200) return s;
        s.resize(200);
        while (!isText(s))
            s.pop_back();
        return s + "…";
    }
    string names;
    size_t count = 0;
};

void collect(const fs::path& top, const string& below, std::vector<Entry>& all, LeftOut& notSent,
             bool& incomplete) {
    std::error_code e;
    fs::directory_iterator i(top / below, e), end;
    if (e) {
        if (!below.empty())
            all.back().missing = e.message();
        else
            throw e.message();
        return;
    }
    for (; i != end && !e; i.increment(e)) {
        const string name = i->path().filename().string(), path = below + name;
        struct stat s {};
        const bool known = lstat(i->path().c_str(), &s) == 0, folder = known && S_ISDIR(s.st_mode);
        if (!known || !isFileName(name) || path.size() > 3999) {
            notSent.add(path, "its name cannot be sent");
            incomplete = true;
        } else if (!folder && !S_ISREG(s.st_mode)) {
            notSent.add(path, "a link or a special file");
        } else {
            all.push_back({path + (folder ? "/" : ""), folder, (s.st_mode & 0100) != 0,
                           folder ? 0 : static_cast<std::int64_t>(s.st_size), ""});
            if (folder) collect(top, path + "/", all, notSent, incomplete);
        }
    }
}
// 9: below what the user named no link is followed, whatever stands there by now. -1, and errno,
// where it cannot be opened.
int openBelow(int root, const string& path) {
    int at = dup(root);
    for (size_t from = 0; at >= 0 && from < path.size();) {
        const size_t slash = std::min(path.find('/', from), path.size());
        const int next = openat(at, path.substr(from, slash - from).c_str(),
                                O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
        const int why = errno;
        close(at);
        errno = why;
        at = next;
        from = slash + 1;
    }
    return at;
}
// Sends one file in DATAs; what is wrong with it, or "".
string sendBytes(Conn& c, int in, std::int64_t size, std::int64_t& offset, Cksum& sum) {
    if (in < 0) return std::strerror(errno);
    std::unique_ptr<const int, void (*)(const int*)> closer(&in, [](const int* f) { close(*f); });
    for (std::int64_t left = size;;) {
        if (c.stop()) throw string("cancelled");
        if (c.pending()) throw string("");  // a NO
        string bytes(static_cast<size_t>(std::min<std::int64_t>(left + 1, 65536)), '\0');
        const ssize_t n = ::read(in, bytes.data(), bytes.size());
        if (n < 0) return std::strerror(errno);
        if (n > left) return "it became longer while it was sent";
        if (n == 0) return left ? "it became shorter while it was sent" : "";
        bytes.resize(static_cast<size_t>(n));
        sum.add(bytes);
        if (!c.put("DATA offset=" + std::to_string(offset) + " size=" + std::to_string(n) + "\n" +
                   bytes))
            throw string("");
        offset += n;
        left -= n;
    }
}
// 6.6: the checksum of a file's first bytes; none if they cannot be read in time.
std::optional<Cksum> sumOfBeginning(int file, std::int64_t size,
                                    const std::function<bool()>& stop) {
    Cksum sum;
    const double until = now() + 120;
    std::int64_t done = 0;
    while (done < size) {
        if (stop() || now() > until) return {};
        string bytes(static_cast<size_t>(std::min<std::int64_t>(size - done, 65536)), '\0');
        const ssize_t n = pread(file, bytes.data(), bytes.size(), done);
        if (n <= 0) return {};
        bytes.resize(static_cast<size_t>(n));
        sum.add(bytes);
        done += n;
    }
    return sum;
}
// What of the file that we offered is there already, by the OK of its receiver.
struct Beginning {
    std::int64_t size = 0;  // 0: nothing, or nothing of use
    Cksum sum;
    string told;  // to our user, with the "started"
};
Beginning beginningBy(const string& ok, int file, std::int64_t size,
                      const std::function<bool()>& stop) {
    Beginning result;
    const Request r(ok);
    const auto theirs = r.num("offset"), crc = number(r.get("crc"), UINT32_MAX + 0LL);
    if (!theirs || *theirs == 0 || *theirs > size || !crc) return result;
    const auto sum = sumOfBeginning(file, *theirs, stop);
    if (!sum || sum->value() != *crc) return result;
    result.size = *theirs;
    result.sum = *sum;
    result.told = ", resumed at " + std::to_string(*theirs);
    return result;
}
// i2: what our user hears of an end before the end, and what the other one does.
string toldToTheOther(const string& why) {
    if (why != "cancelled") return why;
    return leaving ? "the other user has left" : "the other user has cancelled it";
}
void sendTransfer(const std::shared_ptr<Transfer>& t, const string& path, bool folder,
                  const std::shared_ptr<Round>& round) {
    std::unique_ptr<Conn> c;
    // after all has been said
    struct Ending {
        std::unique_ptr<Conn>& c;
        ~Ending() {
            if (c) c->end("");
        }
    } last{c};
    string error, reply, newName;
    LeftOut notSent;
    bool ended = false, talking = false;
    bool incomplete = false;  // of the folder; a link does not count
    auto stop = [&] {
        return t->cancelled || leaving;
    };
    auto answer = [&](double wait) {  // to OFFER and END; throws what is no OK
        const Conn::Got g = c->read(reply, wait);
        if (g != Conn::ok) throw string(reason(g));
        if (!isOk(reply)) {
            talking = false;
            throw isNo(reply) ? sentence(reply) : string("what came is no reply");
        }
    };
    // what is offered, whatever its name means later
    const int root = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    std::unique_ptr<const int, void (*)(const int*)> closer(&root, [](const int* f) {
        if (*f >= 0) close(*f);
    });
    try {
        std::vector<Entry> all;
        std::int64_t lacking = 0;  // entries that got a MISSING
        if (folder) {
            collect(path, "", all, notSent, incomplete);
            std::sort(all.begin(), all.end(), [](auto& a, auto& b) { return a.path < b.path; });
        }
        std::int64_t size = t->size, offset = 0;
        for (const Entry& e : all)
            size += e.size;
        struct stat info {};
        const bool executable = !folder && fstat(root, &info) == 0 && (info.st_mode & 0100);
        {
            Lock lock(mu);
            t->size = size;
            t->files = folder ? static_cast<std::int64_t>(all.size()) : 1;
        }
        report(*t, "offered");
        if (!(c = Conn::open(t->peer.at, error))) throw error;
        c->stop = stop;
        if (!c->introduce(t->peer.at, t->peer.id, error)) throw error;
        {
            Lock lock(mu);
            t->peer.who = c->peerWho;
        }
        talking =
            c->line("OFFER size=" + std::to_string(t->size) + " files=" + std::to_string(t->files) +
                    (executable ? " mode=x :" : " :") + t->name);
        answer(250);
        const Beginning there = folder ? Beginning{} : beginningBy(reply, root, t->size, stop);
        report(*t, "started", there.told);
        Cksum sum = there.sum;
        try {
            if (there.size > 0) {
                c->line("RESUME");
                offset = lseek(root, there.size, SEEK_SET);
            }
            if (!folder &&
                !(error = sendBytes(*c, dup(root), t->size - offset, offset, sum)).empty())
                throw error;
            for (const Entry& e : all) {
                c->line(string("FILE ") + (!e.folder && e.executable ? "mode=x :" : ":") + e.path);
                sum.add(e.path + "\n");
                const string bad =
                    e.folder ? e.missing
                             : sendBytes(*c, openBelow(root, e.path), e.size, offset, sum);
                if (bad.empty()) continue;
                c->line("MISSING :" + bad);
                ++lacking;
                notSent.add(e.path, bad);
                incomplete = true;
            }
            if (stop()) throw string("cancelled");
            c->line("END size=" + std::to_string(offset) + " crc=" + number(sum.value()));
        } catch (const string& why) {
            if (!why.empty()) throw;
            answer(c->pending() ? 10 : 0.1);  // a NO may be why; who just stopped reading says none
            throw string("what came is no reply");  // an OK before the END
        }
        ended = true;
        answer(300);
        talking = false;
        newName = Request(reply).text.value_or("");
        const std::int64_t notStored = Request(reply).num("missing").value_or(0);
        const size_t tab = std::min(newName.find('\t'), newName.size());
        string extra = notSent.after(", not sent: ");
        if (notStored > 0)
            extra += ", not stored: " + newName.substr(std::min(tab + 1, newName.size()));
        newName.resize(tab);
        {
            Lock lock(mu);
            t->size = offset;  // i3: the bytes of its END
            t->files -= notStored + lacking;
            lost = lost || notStored > 0;
        }
        report(*t, "delivered", ", cksum " + number(sum.value()) + extra, newName, true);
        Lock lock(mu);
        lost = lost || incomplete;
        if (round) round->reached.push_back(t->peer.who);
    } catch (const string& why) {
        error = why + (ended && talking ? "; it may have arrived" : "");
        if (c)
            c->stop = [] {
                return true;
            };  // who does not read gets 1 s for it
        if (c && talking && !ended && c->line("STOP :" + toldToTheOther(why))) {
            c->stop = [] {
                return false;
            };
            c->read(reply, 1);
        }
        Lock lock(mu);
        lost = true;
        report(*t, "failed", ", " + error, "", true);
        if (round)
            (ended && talking ? round->unsure : round->missed)
                .push_back(t->peer.who + " (" + error + ")");
    }
    Lock lock(mu);
    --undelivered;
    if (!round ||
        round->reached.size() + round->missed.size() + round->unsure.size() < round->total)
        return;
    string list;
    for (const string& w : round->reached)
        list += ", " + w;
    say("sent to " + std::to_string(round->reached.size()) + " of " + std::to_string(round->total) +
        list + unreached(*round) + ": " + round->what);
}

// ---- 5 to 7: who accepted answers ---------------------------------------------------------------

void check(bool good, const char* sentence) {
    if (!good) throw No{"syntax", sentence, ""};
}
void check(bool good) {
    if (!good) throw No{"failed", std::strerror(errno), ""};
}

class Store {  // where a file or a folder arrives
public:
    Store(const string& tmp, bool isFolder, bool executable) : top(tmp), folder(isFolder) {
        std::error_code e;
        fs::remove_all(top, e);
        if (folder)
            check(mkdir(top.c_str(), 0777) == 0);
        else
            open(top, executable ? 0777 : 0666);
    }
    ~Store() {
        if (fd >= 0) close(fd);
        std::error_code e;
        fs::remove_all(top, e);
    }
    Store(const Store&) = delete;
    Store& operator=(const Store&) = delete;
    bool entry(const string& path, bool executable) {  // false: this path cannot be stored here
        sync();
        current = top + "/" + path;
        const bool isLost = !lost.empty() && path.compare(0, lost.size(), lost) == 0;
        if (isLost)
            errno = ENAMETOOLONG;
        else if (path.back() == '/')
            errno = mkdir(current.c_str(), 0777) == 0 ? 0 : errno;
        else
            errno =
                (fd = ::open(current.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                             executable ? 0777 : 0666)) >= 0
                    ? 0
                    : errno;
        isFolderEntry = path.back() == '/';
        skips = errno == ENAMETOOLONG || errno == ELOOP || errno == EEXIST || errno == EINVAL ||
                errno == EILSEQ;
        if (skips && isFolderEntry) lost = path;
        if (!skips) check(errno == 0);
        return !skips;
    }
    void add(const string& bytes) {
        if (skips) return;
        for (size_t done = 0; done < bytes.size();) {
            const ssize_t n = write(fd, bytes.data() + done, bytes.size() - done);
            check(n > 0);
            done += static_cast<size_t>(n);
        }
    }
    void discard() {
        if (fd >= 0) close(fd);
        fd = -1;
        check(skips || remove(current.c_str()) == 0);
        skips = false;
    }
    bool isFile() const { return fd >= 0 || (skips && !isFolderEntry); }
    bool isSkipping() const { return skips; }
    string finish(const string& name) {  // returns the name that was free
        sync();
        const size_t dot = folder ? string::npos : name.rfind('.');
        string stem = name.substr(0, dot && dot != string::npos ? dot : name.size()),
               end = name.substr(stem.size());
        for (int k = 0;; ++k) {
            const string more = k ? " (" + std::to_string(k) + ")" + end : end;
            while (stem.size() + more.size() > 255 || !isText(stem))
                stem.pop_back();
            if (renameat2(AT_FDCWD, top.c_str(), AT_FDCWD, (downloads + "/" + stem + more).c_str(),
                          RENAME_NOREPLACE) == 0) {
                const int d = ::open(downloads.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                if (d >= 0) {
                    fsync(d);
                    close(d);
                }
                return stem + more;
            }
            check(errno == EEXIST);
        }
    }

private:
    string top, current, lost;  // lost: the last subfolder that could not be stored
    bool folder, skips = false, isFolderEntry = false;
    int fd = -1;
    void open(const string& path, mode_t mode) {
        fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
        check(fd >= 0);
    }
    void sync() {
        if (fd < 0) return;
        const int r = fsync(fd);
        close(fd);
        fd = -1;
        check(r == 0);
    }
};
No cancelled() {
    return No{"cancelled", toldToTheOther("cancelled"), "cancelled"};
}

void receiveBytes(Conn& c, Transfer& t, const string& name, std::uint32_t ip, bool executable) {
    const bool folder = t.name.back() == '/';
    Store store(downloads + "/.second-" + ipText(ip) + "-" + std::to_string(getpid()) + "-" +
                    std::to_string(t.n) + ".part",
                folder, executable);
    c.line("OK");
    report(t, "started");
    Cksum sum;
    std::int64_t done = 0, count = 0, lacking = 0, leftOut = 0;
    LeftOut notSent, notStored;
    string line, last;
    bool missing = true;  // of the entry begun last: no more may come
    auto got = [&](Conn::Got g) {
        if (g == Conn::stopped) throw cancelled();
        if (g != Conn::ok)
            throw No{"failed",
                     g == Conn::timeout ? "nothing came for too long" : "the connection was closed",
                     ""};
    };
    for (double wait = 130;; wait = 10) {
        got(c.request(line, wait));
        const Request r(line);
        check(!r.wrong, "not of the form of a request");
        if (r.verb == "STOP")
            throw No{"stopped", "understood", r.text.value_or("the sender has stopped")};
        if (r.verb == "FILE") {
            check(folder && r.text && !r.text->empty() && r.text->size() <= 4000 &&
                      ++count <= t.files && *r.text > last,
                  "this entry is not allowed here");
            last = *r.text;
            for (size_t i = 0, end; i < last.size(); i = end + 1) {
                end = std::min(last.find('/', i), last.size());
                check(isFileName(last.substr(i, end - i)), "a name in this path is not allowed");
            }
            if (!store.entry(last, r.get("mode") == "x")) {
                notStored.add(last, std::strerror(errno));
                ++leftOut;
            }
            sum.add(last + "\n");
            missing = false;
        } else if (r.verb == "DATA") {
            const auto offset = r.num("offset"), size = r.num("size");
            check(offset && size && *size > 0 && *offset == done && *size <= t.size - done &&
                      store.isFile(),
                  "these bytes do not fit here");
            string bytes;
            for (std::int64_t left = *size; left > 0;
                 left -= static_cast<std::int64_t>(bytes.size())) {
                got(c.data(bytes, static_cast<size_t>(std::min<std::int64_t>(left, 65536))));
                store.add(bytes);
                sum.add(bytes);
            }
            done += *size;
        } else if (r.verb == "MISSING") {
            check(!missing, "there is no entry that could be missing");
            leftOut -= store.isSkipping();  // it counts once; its name may stay
            store.discard();
            missing = true;
            ++lacking;
            notSent.add(last, r.text.value_or(""));
        } else if (r.verb == "END") {
            const auto size = r.num("size"), crc = number(r.get("crc"), UINT32_MAX);
            check(size && crc, "a field is missing or wrong");
            if (*size != done || (!folder && done != t.size) || *crc != sum.value())
                throw No{"checksum", "it did not arrive as it was sent", ""};
            const string stored = store.finish(name) + (folder ? "/" : "");
            const string which = leftOut > 0 ? notStored.text() : "";
            {
                Lock lock(mu);
                t.size = done;
                t.files = count - lacking - leftOut;
            }
            string extra = ", cksum " + number(sum.value()) + notSent.after(", not sent: ");
            if (leftOut > 0) extra += ", not stored: " + which;
            report(t, "stored", extra, downloads + "/" + stored, true);
            if (leftOut > 0)
                c.line("OK missing=" + std::to_string(leftOut) + " :" + stored + "\t" + which);
            else
                c.line("OK :" + stored);
            return;
        } else
            check(false, "not a line of a transfer");
    }
}
void receive(Conn& c, const Request& r, const Target& from) {
    const bool folder = !r.text->empty() && r.text->back() == '/';
    string name = r.text->substr(0, r.text->size() - folder);
    name = name.substr(name.rfind('/') + 1);  // npos + 1 is 0
    if (!isFileName(name)) throw No{"name", "that name cannot be stored", ""};
    struct statvfs disk {};
    check(statvfs(downloads.c_str(), &disk) == 0);
    if (static_cast<std::uint64_t>(*r.num("size")) >
        static_cast<std::uint64_t>(disk.f_bavail) * disk.f_frsize)
        throw No{"space", "not enough room", ""};
    auto t = begin(false, from, name + (folder ? "/" : ""), *r.num("size"), *r.num("files"));
    c.stop = [t] {
        return t->cancelled || leaving;
    };
    try {
        report(*t, "offered");
        string line;
        int answer = acceptMode == "always" ? 1 : acceptMode == "never" ? 2 : 0;
        for (const double end = now() + 120; answer == 0;) {
            if (now() > end) throw No{"timeout", "nobody has answered", ""};
            const Conn::Got g = c.request(line, 0.1);
            if (g == Conn::stopped) throw cancelled();
            if (g == Conn::closed) throw No{"failed", "the connection was closed", ""};
            const Request q(line);
            if (g == Conn::ok && q.verb == "STOP" && !q.wrong)
                throw No{"stopped", "understood", q.text.value_or("the sender has stopped")};
            if (g == Conn::ok) throw No{"early", "nothing may come before the answer", ""};
            Lock lock(mu);
            answer = t->answer;
        }
        if (acceptMode == "never")
            throw No{"declined", "the other user takes no files", "you take no files"};
        if (answer == 2)
            throw No{"declined", "the other user does not want it", "you did not want it"};
        {
            Lock lock(mu);
            if (!t->as.empty()) name = t->as;
            t->as.clear();
        }
        receiveBytes(c, *t, name, from.at.ip, r.get("mode") == "x");  // 6.1
        c.stop = [] {
            return leaving.load();
        };
    } catch (const No& no) {
        report(*t, "failed", ", " + (no.told.empty() ? no.sentence : no.told), "", true);
        throw;
    }
}
void serve(int fd, Addr from) {
    Conn c(fd);
    string id, line;
    Target guest;
    try {
        if (!allowed(from.ip)) throw No{"busy", "not through this interface", ""};
        for (double wait = 10; c.request(line, wait) == Conn::ok; wait = id.empty() ? 10 : 60) {
            const auto a = parseAnnouncement(line);
            if (a && a->verb == "HELLO") {
                if (a->id == me.id) {
                    c.line("NO self that is my own id");
                    continue;
                }
                if (!id.empty() && id != a->id)
                    throw No{"other", "another id than before on this connection", ""};
                id = a->id;
                guest = {id, {from.ip, a->port}, a->name + "@" + text({from.ip, a->port})};
                {
                    Lock lock(mu);
                    introduced(*a, guest.at);
                }
                c.line("OK " + announce("HERE", myIpTowards(from.ip), " to=" + id));
                continue;
            }
            if (id.empty()) {
                c.line("NO stranger introduce yourself first, with a HELLO of " + version);
                continue;
            }
            const Request r(line);
            Target sender = guest;
            {  // 5.2: under the listed name, if at the same address
                Lock lock(mu);
                const auto p = peers.find(id);
                if (p != peers.end() && p->second.listed && p->second.at == guest.at)
                    sender = {id, p->second.at, who(p->second)};
            }
            if (r.wrong)
                c.line("NO syntax not of the form of a request");
            else if (r.verb == "MSG") {
                const auto n = r.num("number");
                if (!n || !r.text || r.text->empty() || r.text->size() > 4000) {
                    c.line("NO syntax a field is missing or wrong");
                    continue;
                }
                const string scope = r.get("scope");
                const std::pair key(id, text(guest.at));
                Lock lock(mu);
                if (recent.size() > 2048 && !recent.count(key))
                    recent.erase(std::min_element(
                        recent.begin(), recent.end(),
                        [](auto& x, auto& y) { return x.second.wrote < y.second.wrote; }));
                recent[key].wrote = now();
                auto& had = recent[key].numbers;
                const bool late = had.size() == 32 && std::int64_t(*n) < *had.begin();
                if (!late && had.insert(*n).second) {
                    if (had.size() > 32) had.erase(had.begin());
                    say("message " + sender.who + " " +
                        (scope == "group" || scope == "all" ? scope : "private") + ": " + *r.text);
                }
                lock.unlock();
                c.line("OK");
            } else if (r.verb == "OFFER") {
                if (r.num("size") && r.num("files") && r.text)
                    receive(c, r, sender);
                else
                    c.line("NO syntax a field is missing or wrong");
            } else
                c.line("NO unknown no such request");
        }
        c.end("");
    } catch (const No& no) {
        c.end("NO " + no.word + " " + no.sentence);
    }
    Lock lock(mu);
    --acceptedTotal;
    if (--accepted[from.ip] == 0) accepted.erase(from.ip);
}
void acceptLoop(int listener) {
    for (;;) {
        sockaddr_in from{};
        socklen_t size = sizeof from;
        const int fd = accept4(listener, reinterpret_cast<sockaddr*>(&from), &size, SOCK_CLOEXEC);
        if (fd < 0) {
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
            continue;
        }
        const Addr at = fromNative(from);
        Lock lock(mu);
        const int same = accepted.count(at.ip) ? accepted[at.ip] : 0;
        if (same >= 128 || acceptedTotal >= 512) {  // a thread of its own would be what is too many
            static const string busy = "NO busy too many connections\n";
            ::send(fd, busy.data(), busy.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
            shutdown(fd, SHUT_WR);
            close(fd);
            continue;
        }
        ++acceptedTotal;
        ++accepted[at.ip];
        std::thread(serve, fd, at).detach();
    }
}

// ---- i2: the command line -----------------------------------------------------------------------

std::optional<Target> currentTarget;
std::vector<Target> lastList;
struct Error {
    string sentence;
};

// i2: whoever was chosen, or had a number, is meant at that address only. A later peer with its id
// may be somebody else.
bool isThere(const Target& t) {
    if (t.id.empty() || t.id == me.id) return true;
    const auto p = peers.find(t.id);
    return p != peers.end() && p->second.listed && p->second.at == t.at;
}
std::optional<Target> numbered(const string& word) {  // in the last list
    const auto n = number(word, 9999);
    if (!n || *n < 1 || static_cast<size_t>(*n) > lastList.size()) return {};
    return lastList[static_cast<size_t>(*n) - 1];
}
// Everyone whom a word can mean.
std::vector<Target> candidates(const string& word) {
    std::vector<Target> all;
    for (const auto& [id, p] : peers) {
        if (!p.listed) continue;
        const Target t{id, p.at, who(p)};
        if (visible(p.name) == visible(word) || t.who == word || text(p.at) == word)
            all.push_back(t);
    }
    // one's name, and another's number: both are meant
    if (const auto t = numbered(word); t && isThere(*t)) {
        const auto isSame = [&](const Target& other) {
            return other.id == t->id;
        };
        if (std::none_of(all.begin(), all.end(), isSame)) all.push_back(*t);
    }
    const auto address = parseAddr(word);
    if (all.empty() && address) all.push_back({"", *address, word});
    return all;
}
std::vector<Target> whoseNameBegins(const string& word) {
    std::vector<Target> all;
    for (const auto& [id, p] : peers)
        if (p.listed && p.name.compare(0, word.size(), word) == 0)
            all.push_back({id, p.at, who(p)});
    return all;
}
Target theOnly(const string& word, const std::vector<Target>& all) {
    if (all.empty()) {
        if (const auto t = numbered(word))
            throw Error{"number " + word + " was " + t->who + ", who has left; /list numbers anew"};
        throw Error{"nobody called " + word + " is online; /list shows who is"};
    }
    if (all.size() > 1) {
        string names;
        for (const Target& t : all)
            names += " " + t.who;
        throw Error{word + " may be" + names + "; say which"};
    }
    if (all[0].id == me.id) throw Error{"that is you"};
    return all[0];
}
Target find(const string& word) {
    return theOnly(word, candidates(word));
}
Target findByBeginning(const string& word) {  // for /to
    if (word.empty()) throw Error{"to whom? say /to WHO"};
    const auto all = candidates(word);
    return theOnly(word, all.empty() ? whoseNameBegins(word) : all);
}
Target chosen() {
    if (!currentTarget) throw Error{"to whom? choose with /to, or use /msg, /group or /all"};
    if (!isThere(*currentTarget))
        throw Error{currentTarget->who + " has left; choose with /to again"};
    return *currentTarget;
}
std::vector<Target> everyone(bool group) {
    std::vector<Target> all;
    for (const auto& [id, p] : peers)
        if (p.listed && (!group || p.group == me.group)) all.push_back({id, p.at, who(p)});
    return all;
}
void write(const std::vector<Target>& to, const string& scope, const string& words) {
    if (words.empty() || words.size() > 4000) throw Error{"a message has 1 to 4000 bytes"};
    if (!isText(words)) throw Error{"that is not UTF-8, or has control characters"};
    if (to.empty()) throw Error{"nobody is online; the message was not sent"};
    auto round = scope == "private" ? nullptr : std::make_shared<Round>();
    if (round) round->total = to.size();
    for (const Target& t : to)
        post(t, scope, words, round);
}
// i2: a path that is not there as it was typed means what it would mean in a shell.
string asInAShell(const string& typed) {
    struct stat s {};
    if (stat(typed.c_str(), &s) == 0) return typed;
    const size_t end = typed.find_last_not_of(' ') + 1;  // npos + 1 is 0
    string path;
    char quote = 0;          // within these
    bool isEscaped = false;  // by the character before
    for (size_t i = 0; i < end; ++i) {
        const char c = typed[i];
        const bool isQuote = c == '\'' || c == '"';
        if (isEscaped) {
            path += c;
            isEscaped = false;
        } else if (c == '\\' && quote != '\'')
            isEscaped = true;
        else if (c == quote)
            quote = 0;
        else if (isQuote && quote == 0)
            quote = c;
        else
            path += c;
    }
    const char* home = std::getenv("HOME");
    const bool isAtHome = typed == "~" || typed.compare(0, 2, "~/") == 0;
    return home && isAtHome ? home + path.substr(1) : path;
}
void sendPath(const std::vector<Target>& to, const string& typed) {
    struct stat s {};
    string path = asInAShell(typed);
    const string given = path;
    if (path.empty() || stat(path.c_str(), &s) != 0)
        throw Error{"cannot read " + path + ": " + std::strerror(path.empty() ? EINVAL : errno)};
    const bool folder = S_ISDIR(s.st_mode);
    if (!folder && !S_ISREG(s.st_mode)) throw Error{path + " is neither a file nor a folder"};
    if (access(path.c_str(), R_OK) != 0)
        throw Error{"cannot read " + path + ": " + std::strerror(errno)};
    while (path.size() > 1 && path.back() == '/')
        path.pop_back();
    string name = path.substr(path.rfind('/') + 1);
    if (name == "." || name == "..") name = fs::canonical(path).filename().string();
    if (!isFileName(name)) throw Error{"the name of " + path + " cannot be sent"};
    if (to.empty()) throw Error{"nobody is online; nothing was sent"};
    if (!folder) path = fs::canonical(path).string();
    auto round = to.size() > 1 ? std::make_shared<Round>() : nullptr;
    if (round) {
        round->what = given;
        round->total = to.size();
    }
    for (const Target& t : to) {
        ++undelivered;
        std::thread(sendTransfer,
                    begin(true, t, name + (folder ? "/" : ""),
                          folder ? 0 : static_cast<std::int64_t>(s.st_size), 1),
                    path, folder, round)
            .detach();
    }
}
// i2: /send [WHO] PATH: if the first word names nobody, it is to whom /to chose, and a part of the
// path.
void sendCommand(const string& words, const string& first, const string& rest) {
    if (candidates(first).empty() && numbered(first) == std::nullopt)
        sendPath({chosen()}, words);
    else
        sendPath({find(first)}, rest);
}
// i2: N may be left out where only one transfer can be meant.
std::shared_ptr<Transfer> transferMeant(const string& verb, const string& n) {
    if (!n.empty()) {
        const auto given = number(n, INT_MAX);
        const auto t = given ? transfers.find(static_cast<int>(*given)) : transfers.end();
        if (t == transfers.end())
            throw Error{"there is no transfer " + n + "; /transfers lists them"};
        return t->second;
    }
    std::vector<std::shared_ptr<Transfer>> all;
    for (const auto& [its, t] : transfers)
        if (verb == "/cancel" || t->isAsking()) all.push_back(t);
    if (all.empty()) throw Error{"there is nothing to " + verb.substr(1)};
    if (all.size() == 1) return all[0];
    string some;
    for (size_t i = 0; i < std::min<size_t>(all.size(), 3); ++i)
        some += " " + std::to_string(all[i]->n) + " (" + all[i]->name + ")";
    throw Error{"which one? say its number:" + some};
}
void list() {
    struct Row {
        string name;
        Addr at;
        string mark, group;
        std::uint32_t says;
        string id;
    };
    std::vector<Row> rows{{me.name, me.at, "*", me.group, me.at.ip, me.id}};
    for (const auto& [id, p] : peers)
        if (p.listed) rows.push_back({p.name, p.at, "-", p.group, p.says, id});
    std::sort(rows.begin(), rows.end(),
              [](auto& a, auto& b) { return a.name != b.name ? a.name < b.name : a.at < b.at; });
    lastList.clear();
    for (const Row& r : rows) {
        lastList.push_back({r.id, r.at, r.name + "@" + text(r.at)});
        say("user " + std::to_string(lastList.size()) + " " + r.mark + " " + r.name + " " +
            r.group + " " + text(r.at) + (r.says != r.at.ip ? " says " + ipText(r.says) : ""));
    }
    say("users " + std::to_string(rows.size()));
}
void scan(const string& what) {
    if (what.empty()) return scanAll();
    const size_t slash = what.find('/');
    const auto ip = parseIp(what.substr(0, std::min(slash, what.find(':'))));
    const std::int64_t bits =
        slash == string::npos ? 32 : number(what.substr(slash + 1), 32).value_or(-1);
    const auto port = parseAddr(what);
    if (!ip || bits < 0 || (what.find(':') != string::npos && !port))
        throw Error{"give ADDRESS, ADDRESS:PORT or NETWORK/BITS"};
    startScan(port        ? std::vector<Addr>{*port}
              : bits < 32 ? hosts(*ip, bits > 0 ? ~0u << (32 - bits) : 0)
                          : std::vector<Addr>{{*ip, 0}});
}
const std::map<string, string> help = {
    {"list", "/list: who is online"},
    {"to", "/to WHO: plain lines go to WHO"},
    {"msg", "/msg WHO TEXT: one message"},
    {"group", "/group TEXT: to your group"},
    {"all", "/all TEXT: to everyone"},
    {"send", "/send WHO PATH: offer a file or a folder"},
    {"sendgroup", "/sendgroup PATH: to your group"},
    {"sendall", "/sendall PATH: to everyone"},
    {"accept", "/accept N [AS]: take what is offered"},
    {"reject", "/reject N: do not take it"},
    {"cancel", "/cancel N: end a transfer"},
    {"transfers", "/transfers: what is under way"},
    {"name", "/name NEW: change your name"},
    {"join", "/join GROUP: change your group"},
    {"scan", "/scan [ADDRESS[:PORT] or NETWORK/BITS]: look for users"},
    {"quit", "/quit: leave when all is sent"}};

void command(const string& given) {
    const auto cut = [](const string& s) {
        const size_t b = s.find(' ');
        return std::make_pair(
            s.substr(0, b),
            b == string::npos ? "" : s.substr(std::min(s.find_first_not_of(' ', b), s.size())));
    };
    const size_t blanks = std::min(given.find_first_not_of(' '), given.size());
    // i2: none counts before a command
    const string line = given.substr(blanks < given.size() && given[blanks] == '/' ? blanks : 0);
    if (line.empty()) return;
    if (line[0] != '/' || line.compare(0, 2, "//") == 0)
        return write({chosen()}, "private", line[0] == '/' ? line.substr(1) : line);
    const auto [verb, rest] = cut(line);
    const auto [first, second] = cut(rest);
    if (verb == "/list")
        list();
    else if (verb == "/to") {
        currentTarget.reset();
        currentTarget = findByBeginning(rest);
        say("to " + currentTarget->who);
    } else if (verb == "/msg")
        write({find(first)}, "private", second);
    else if (verb == "/group")
        write(everyone(true), "group", rest);
    else if (verb == "/all")
        write(everyone(false), "all", rest);
    else if (verb == "/send")
        sendCommand(rest, first, second);
    else if (verb == "/sendgroup")
        sendPath(everyone(true), rest);
    else if (verb == "/sendall")
        sendPath(everyone(false), rest);
    else if (verb == "/accept" || verb == "/reject" || verb == "/cancel") {
        const auto t = transferMeant(verb, first);
        if (verb == "/cancel") {
            t->cancelled = true;
            return;
        }
        if (!t->isAsking()) throw Error{"that is not an offer that waits for an answer"};
        string as = verb == "/accept" ? second : "";
        if (!as.empty() && as.back() == '/' && t->name.back() == '/') as.pop_back();
        if (!as.empty() && !isFileName(as)) throw Error{"it cannot be stored under that name"};
        t->as = as;
        t->answer = verb == "/accept" ? 1 : 2;
        t->state = "answered";
    } else if (verb == "/transfers") {
        for (const auto& [n, t] : transfers)
            say(t->line(t->state));
        say("transfers " + std::to_string(transfers.size()));
    } else if (verb == "/name" || verb == "/join") {
        if (!isName(rest)) throw Error{"1 to 32 characters, without blanks"};
        (verb == "/name" ? me.name : me.group) = rest;
        for (const auto& [id, p] : peers)
            sayTo(p.at, "HERE");
        say("you " + myself() + " " + me.group);
    } else if (verb == "/scan")
        scan(rest);
    else if (verb == "/help") {
        for (const auto& [name, words] : help)
            if (rest.empty() || rest == name || rest == "/" + name) say("help: " + words);
    } else
        throw Error{"there is no command " + verb + "; /help lists them"};
}
[[noreturn]] void usage(const string& sentence) {
    std::cerr << sentence << "\n";
    std::exit(2);
}
void onSignal(int) {
    if (::write(wake[1], "x", 1) < 0) {
    }
}

bool bindTo(int s, std::uint16_t port) {
    const sockaddr_in a = native({0, port});
    return bind(s, generic(a), sizeof a) == 0;
}

int openPort(std::uint16_t port) {  // both sockets; returns the listener, or -1
    const int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    setsockopt(udp, SOL_SOCKET, SO_BROADCAST, &on, sizeof on);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bindTo(udp, port) && bindTo(listener, port) && listen(listener, 128) == 0) return listener;
    close(listener);
    close(udp);
    return -1;
}
}  // namespace

int main(int argc, char** argv) {
    const char* user = std::getenv("USER");
    me.name = user && isName(user) ? user : "user";
    me.group = "lab";
    for (int i = 1; i < argc; ++i) {
        string option = argv[i], value;
        const size_t eq = option.find('=');
        if (option == "--help" || option == "-h") {
            std::puts(
                "--name NAME --group GROUP --port N --interface NAME --dir DIR --accept "
                "ask|always|never --scan on|off");
            return 0;
        }
        if (option == "--version") {
            std::cout << "second, " << version << "\n";
            return 0;
        }
        if (eq != string::npos) {
            value = option.substr(eq + 1);
            option.resize(eq);
        } else if (i + 1 < argc)
            value = argv[++i];
        else
            usage(option + " is no option, or needs a value");
        if (option == "--name" && isName(value))
            me.name = value;
        else if (option == "--group" && isName(value))
            me.group = value;
        else if (option == "--port" && number(value, 65535) && *number(value, 65535) >= 1024 &&
                 *number(value, 65535) != sharedPort)
            me.at.port = static_cast<std::uint16_t>(*number(value, 65535));
        else if (option == "--interface" && if_nametoindex(value.c_str()))
            onlyInterfaces.insert(value);
        else if (option == "--dir" && !value.empty())
            downloads = asInAShell(value);
        else if (option == "--scan" && (value == "on" || value == "off"))
            maySweep = value == "on";
        else if (option == "--accept" && (value == "ask" || value == "always" || value == "never"))
            acceptMode = value;
        else
            usage("no such option, or not with this value: " + option + " " + value);
    }
    if (mkdir(downloads.c_str(), 0777) != 0 && errno != EEXIST)
        usage("cannot make the folder " + downloads + ": " + std::strerror(errno));
    if (!fs::is_directory(downloads) || access(downloads.c_str(), W_OK | X_OK) != 0)
        usage(downloads + " is no folder that can be written");
    for (int i = 0; i < 16; ++i)
        me.id += "0123456789abcdef"[std::random_device{}() % 16];
    int listener = -1;
    if (me.at.port) {
        if ((listener = openPort(me.at.port)) < 0)
            usage("the port " + std::to_string(me.at.port) + " is taken");
    } else
        for (std::uint16_t p = 25253; p <= 25508 && listener < 0; ++p) {
            me.at.port = p;
            listener = openPort(p);
        }
    const int on = 1;
    shared = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    setsockopt(shared, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (listener < 0 || !bindTo(shared, sharedPort) || pipe(wake) != 0) {
        std::cerr << "cannot use the ports: " << std::strerror(errno) << "\n";
        return 1;
    }
    std::signal(SIGPIPE, SIG_IGN);
    for (int s : {SIGINT, SIGTERM, SIGHUP})
        std::signal(s, onSignal);
    readInterfaces();
    sweepAll();
    say("ready " + myself() + " " + me.group);
    std::thread(udpLoop).detach();
    std::thread(acceptLoop, listener).detach();

    const double started = now();
    const bool terminal = isatty(0) != 0;
    bool end = false, quitting = false;  // of input; and /quit was given
    string input;
    while (true) {
        {
            Lock lock(mu);
            if ((end || quitting) && undelivered == 0 && input.find('\n') == string::npos) break;
        }
        const bool early =
            !terminal && now() < started + 1 && (lastJoin < 0 || now() < lastJoin + 0.2);
        pollfd p[2] = {{wake[0], POLLIN, 0}, {end || early ? -1 : 0, POLLIN, 0}};
        poll(p, 2, end || early || quitting ? 20 : -1);
        if (p[0].revents) break;
        if (p[1].revents) {
            char bytes[4096];
            const ssize_t n = read(0, bytes, sizeof bytes);
            if (n > 0)
                input.append(bytes, static_cast<size_t>(n));
            else {
                end = true;
                if (!input.empty() && input.back() != '\n') input += '\n';
            }
        }
        bool now2 = false;
        for (size_t lf; (lf = input.find('\n')) != string::npos && !now2;) {
            string line = input.substr(0, lf);
            input.erase(0, lf + 1);
            if (!line.empty() && line.back() == '\r') line.pop_back();
            Lock lock(mu);
            if (line == "/quit") {
                now2 = quitting;
                quitting = true;
                continue;
            }
            try {
                if (quitting) throw Error{"leaving; /quit once more does not wait"};
                command(line);
            } catch (const Error& e) {
                const string verb = line.substr(0, line.find(' '));
                if (line[0] != '/' || line[1] == '/' || verb == "/msg" || verb == "/group" ||
                    verb == "/all" || verb.compare(0, 5, "/send") == 0)
                    lost = true;
                say("error: " + e.sentence);
            }
        }
        if (now2) break;
    }
    leaving = true;  // each connection now says its last line
    for (double until = now() + 1; now() < until;
         std::this_thread::sleep_for(std::chrono::milliseconds(20))) {
        Lock lock(mu);
        if (transfers.empty() && undelivered == 0) break;
    }
    Lock lock(mu);
    broadcast("BYE");
    for (const auto& [id, p] : peers)
        if (users() <= 50 || !p.byBroadcast) sayTo(p.at, "BYE");
    std::fflush(stdout);
    _exit(lost && !terminal ? 1 : 0);
}
