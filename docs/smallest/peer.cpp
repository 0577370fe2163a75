// The smallest peer: it finds the other peers on its network segment, lists them, sends and
// receives messages, and receives files. It works with ./peer, and with every program that follows
// docs/protocol.md; the clause for each step stands in brackets.
//
//     make smallest && .build/smallest --name zoe --group lab
//
// Read it from top to bottom: what peers say, the list, a connection, a file. At the end stands
// main(), the whole program on one page. The main thread waits in select() for the keyboard and
// three sockets. Each TCP connection has a thread of its own. The threads share nothing but the
// screen: each is given what it needs when it starts.
//
// What it leaves out is your assignment: networks without broadcast [4.3], ids that move or are
// forged [4.4], a last line that must not be lost [5.1], a second try for a message [5.3], a user
// who may say no [6.2], sending files [6.3], folders, and going on after a break [6.5, 6.6].
//
// The points that the grader gives it for each requirement of docs/assignment.md; a test,
// tests/grade/smallest.sh, checks them:
// Points: R1 2.5 R2 3.1 R3 6.8 R4 9.2 R5 2.3 R6 1.1 R7 5.7 R8 2.3 R9 0.9 R10 0.0

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

using std::map;
using std::string;
using std::thread;
using std::to_string;
using std::vector;

const uint16_t kSharedPort = 25252;  // every peer of a host hears what comes here [2.1]
const uint16_t kFirstPort = 25253;   // each has one number of its own, for UDP and TCP
const uint16_t kLastPort = 25508;
const size_t kMaxDatagram = 512;     // bytes [2.2]
const size_t kMaxLine = 4096;
const int kHeartbeat = 5;            // seconds [2.3]
const int kGone = 15;                // seconds; not heard for so long: off the list
const timeval kSilence = {10, 0};    // seconds; then a connection is given up

// ---- What peers say to each other: lines of text [3.2] -------------------------------------

// "MSG number=7 scope=all :See you" has two fields; the text begins after " :".
map<string, string> fields_of(const string& line) {
  map<string, string> fields;
  std::istringstream words(line.substr(0, line.find(" :")));
  string word;
  while (words >> word) {
    size_t equals = word.find('=');
    if (equals == string::npos) continue;
    string key = word.substr(0, equals);
    fields[key] = word.substr(equals + 1);
  }
  return fields;
}

string text_of(const string& line) {
  size_t colon = line.find(" :");
  if (colon == string::npos) return "";
  return line.substr(colon + 2);
}

bool begins_with(const string& line, const string& beginning) {
  return line.substr(0, beginning.size()) == beginning;
}

uint64_t number(const string& digits) {
  return strtoull(digits.c_str(), nullptr, 10);
}

// ---- The screen ----------------------------------------------------------------------------

// Much of what we print came from outside, and must not steer the terminal. One call prints the
// whole line, so the lines of two threads never mix.
void say(string line) {
  for (char& c : line)
    if (iscntrl(static_cast<unsigned char>(c))) c = '?';
  puts(line.c_str());
}

[[noreturn]] void give_up(const char* what) {
  perror(what);
  exit(2);
}

// ---- Addresses -----------------------------------------------------------------------------

sockaddr_in address_of(in_addr_t ip, uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = ip;
  address.sin_port = htons(port);  // without htons(), 25252 is port 42082
  return address;
}

string ip_text(const sockaddr_in& address) {
  char text[INET_ADDRSTRLEN];
  inet_ntop(AF_INET, &address.sin_addr, text, sizeof text);
  return text;
}

string port_text(const sockaddr_in& address) {
  return to_string(ntohs(address.sin_port));
}

string address_text(const sockaddr_in& address) {
  return ip_text(address) + ":" + port_text(address);
}

// The system calls know addresses of many families, and take a pointer to any of them.
const sockaddr* any(const sockaddr_in& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

sockaddr* any(sockaddr_in& address) {
  return reinterpret_cast<sockaddr*>(&address);
}

// ---- Who we are, and on which networks -----------------------------------------------------

struct Network {
  string own_ip;
  sockaddr_in everybody;  // of 10.0.0.7/24: 10.0.0.255
};

// All this is set before the first thread starts, and only read after that.
string own_id;  // random: a peer is its id, for two users may have one name
string own_name;
string own_group;
uint16_t own_port;
string folder;
vector<Network> networks;

string random_id() {
  std::random_device random;
  char id[17];
  snprintf(id, sizeof id, "%08x%08x", random(), random());
  return id;
}

// `chosen` is the name of an interface, or empty for all.
void find_networks(const string& chosen) {
  ifaddrs* first = nullptr;
  if (getifaddrs(&first) == -1) give_up("getifaddrs");
  for (ifaddrs* one = first; one; one = one->ifa_next) {
    bool is_ipv4 = one->ifa_addr && one->ifa_addr->sa_family == AF_INET;
    bool is_up = one->ifa_flags & IFF_UP;
    bool is_chosen = chosen.empty() || chosen == one->ifa_name;
    if (!is_ipv4 || !is_up || !is_chosen) continue;
    sockaddr_in own;
    sockaddr_in mask;
    memcpy(&own, one->ifa_addr, sizeof own);
    memcpy(&mask, one->ifa_netmask, sizeof mask);
    in_addr_t everybody = own.sin_addr.s_addr | ~mask.sin_addr.s_addr;
    Network network = {ip_text(own), address_of(everybody, kSharedPort)};
    networks.push_back(network);
  }
  freeifaddrs(first);
  if (networks.empty()) give_up("no network is up");
}

// Of several networks the last: the first is usually loopback, where no other machine reaches us.
string own_address() {
  return networks.back().own_ip + ":" + to_string(own_port);
}

// What we say of ourselves [4.1].
string announcement(const string& verb, const Network& network) {
  string line = "ChatByP2P/1 " + verb;
  line += " id=" + own_id;
  line += " ip=" + network.own_ip;
  line += " port=" + to_string(own_port);
  line += " name=" + own_name;
  line += " group=" + own_group;
  return line;
}

string announcement(const string& verb) {
  return announcement(verb, networks.back());
}

// ---- UDP: the list of peers [4] --------------------------------------------------------------

struct Peer {
  string id;
  string name;
  string group;
  sockaddr_in address;
  time_t last_heard = 0;
  bool is_listed = false;  // it has shown that it hears us

  string label() const { return name + "@" + address_text(address); }
};

// Only the main thread touches these.
map<string, Peer> peers;  // by id
int shared_socket;        // broadcasts come here
int own_socket;           // all that we say leaves here, so the answers come here

// A datagram may be lost anywhere on its way, so we do not even ask whether it left.
void send_datagram(const string& line, const sockaddr_in& to) {
  sendto(own_socket, line.data(), line.size(), 0, any(to), sizeof to);
}

void broadcast(const string& verb) {
  for (const Network& network : networks)
    send_datagram(announcement(verb, network), network.everybody);
}

void remove_peer(const string& id, const string& reason) {
  Peer peer = peers[id];
  peers.erase(id);
  if (peer.is_listed) say("left " + peer.label() + ": " + reason);
}

// A peer speaks of itself. It is listed once it says that it hears us, by a HERE with our id: a
// HELLO alone may come from somebody whom we cannot answer.
void hear_of(map<string, string> said, const sockaddr_in& from) {
  string id = said["id"];
  bool is_new = peers.count(id) == 0;
  Peer& peer = peers[id];
  peer.id = id;
  peer.name = said["name"];
  peer.group = said["group"];
  peer.address = from;
  peer.last_heard = time(nullptr);
  if (is_new) send_datagram(announcement("HELLO"), from);
  if (peer.is_listed || said["to"] != own_id) return;
  peer.is_listed = true;
  say("joined " + peer.label() + " " + peer.group);
}

void hear(const string& line, const sockaddr_in& from) {
  map<string, string> said = fields_of(line);
  string id = said["id"];
  if (!begins_with(line, "ChatByP2P/1 ")) return;
  if (id.empty() || said["name"].empty() || said["group"].empty()) return;
  if (id == own_id) return;  // our own broadcast comes back
  if (begins_with(line, "ChatByP2P/1 HELLO "))
    send_datagram(announcement("HERE") + " to=" + id, from);
  // Somebody else may speak for a peer. Believe only what it says itself, from its own port.
  if (said["port"] != port_text(from)) return;
  if (begins_with(line, "ChatByP2P/1 BYE "))
    remove_peer(id, "said bye");
  else
    hear_of(said, from);
}

void receive_datagram(int fd) {
  char buffer[kMaxDatagram + 1];  // one more, to see when a datagram is too long
  sockaddr_in from;
  socklen_t size = sizeof from;
  ssize_t got = recvfrom(fd, buffer, sizeof buffer, MSG_DONTWAIT, any(from), &size);
  if (got == -1) return;
  string line(buffer, got);
  if (line.size() <= kMaxDatagram) hear(line, from);
}

// Every 5 s: say that we are here, and see who is not. Whoever has not shown yet that it hears us
// is asked again.
void beat() {
  broadcast("HERE");
  vector<string> gone;
  for (auto& [id, peer] : peers) {
    time_t silence = time(nullptr) - peer.last_heard;
    if (silence > kGone) gone.push_back(id);
    if (!peer.is_listed) send_datagram(announcement("HELLO"), peer.address);
  }
  for (const string& id : gone)
    remove_peer(id, "silent for 15 s");
}

// ---- TCP: lines and bytes of a connection [5.1] ------------------------------------------------

// One recv() is not one line. It may bring half of one, or three and the beginning of a file. So
// what has come stays in buffer_ until somebody asks for it.
class Connection {
 public:
  explicit Connection(int fd) : fd_(fd) {
    // Without these, our thread would wait for ever for a peer whose cable was pulled out.
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &kSilence, sizeof kSilence);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &kSilence, sizeof kSilence);
  }
  ~Connection() { close(fd_); }

  // The next line, without its end. False when there will be none.
  bool read_line(string& line) {
    while (buffer_.find('\n') == string::npos) {
      if (buffer_.size() > kMaxLine) return false;
      if (!receive()) return false;
    }
    size_t end = buffer_.find('\n');
    line = buffer_.substr(0, end);
    buffer_.erase(0, end + 1);
    if (!line.empty() && line.back() == '\r') line.pop_back();  // nc -C sends CR LF
    return true;
  }

  // From 1 to `most` bytes; none when there will be no more.
  string read_bytes(size_t most) {
    if (buffer_.empty()) receive();
    string bytes = buffer_.substr(0, most);
    buffer_.erase(0, bytes.size());
    return bytes;
  }

  // send() may take a part only: the rest has to be sent again.
  void write_line(string line) {
    line += "\n";
    while (!line.empty()) {
      ssize_t sent = send(fd_, line.data(), line.size(), MSG_NOSIGNAL);
      if (sent == -1) return;  // whoever waits for the reply will see it
      line.erase(0, sent);
    }
  }

 private:
  bool receive() {
    char piece[65536];
    ssize_t got = recv(fd_, piece, sizeof piece, 0);
    if (got <= 0) return false;  // 0: the other side has closed
    buffer_.append(piece, got);
    return true;
  }

  int fd_;
  string buffer_;
};

// ---- TCP: a file comes [6] -------------------------------------------------------------------

struct Incoming {
  int fd = -1;
  uint64_t have = 0;  // bytes
  uint32_t crc = 0;   // of these
};

uint32_t crc_with(uint32_t crc, uint8_t byte) {
  crc ^= uint32_t{byte} << 24;
  for (int bit = 0; bit < 8; ++bit) {
    bool carry = crc >> 31;
    crc = crc << 1;
    if (carry) crc ^= 0x04C11DB7;
  }
  return crc;
}

// What POSIX `cksum` prints: the CRC of the bytes, and then of their number [6.4].
uint32_t cksum(const Incoming& file) {
  uint32_t crc = file.crc;
  for (uint64_t rest = file.have; rest > 0; rest /= 256)
    crc = crc_with(crc, rest % 256);
  return ~crc;
}

// Stores the bytes behind a DATA line. False when they do not all come, or the disk is full.
bool store(Connection& connection, Incoming& file, uint64_t left) {
  while (left > 0) {
    string bytes = connection.read_bytes(left);
    if (bytes.empty()) return false;
    ssize_t stored = write(file.fd, bytes.data(), bytes.size());
    if (stored != static_cast<ssize_t>(bytes.size())) return false;
    for (char byte : bytes)
      file.crc = crc_with(file.crc, byte);
    file.have += bytes.size();
    left -= bytes.size();
  }
  return true;
}

// DATA and its bytes, again and again, and then END. Returns the reply to that.
string receive_data(Connection& connection, Incoming& file, uint64_t size) {
  string line;
  while (connection.read_line(line)) {
    map<string, string> fields = fields_of(line);
    if (begins_with(line, "END ")) {
      bool is_right = number(fields["crc"]) == cksum(file);
      if (file.have == size && is_right) return "OK";
      return "NO checksum the file did not arrive as it was sent";
    }
    uint64_t piece = number(fields["size"]);
    bool is_more = piece > size - file.have;
    if (!begins_with(line, "DATA ") || is_more) return "NO syntax no DATA that was offered";
    if (!store(connection, file, piece)) return "NO failed not all was stored";
  }
  return "NO failed the connection was lost";
}

string failure() { return string("NO failed ") + strerror(errno); }

// Returns the reply: OK only when the whole file stands under its name.
string receive_file(Connection& connection, const string& offer, const string& who) {
  string their_path = text_of(offer);
  string name = their_path.substr(their_path.rfind('/') + 1);  // without a '/': from 0
  if (name.empty() || name[0] == '.') return "NO name that is no name for a file";

  // Until it is whole it has another name. O_EXCL: if a file has that name already, open() fails.
  string path = folder + "/" + name;
  string part = path + ".part";
  mkdir(folder.c_str(), 0777);
  Incoming file;
  file.fd = open(part.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0666);
  if (file.fd == -1) return failure();
  connection.write_line("OK");
  uint64_t size = number(fields_of(offer)["size"]);
  string reply = receive_data(connection, file, size);
  close(file.fd);
  if (reply == "OK") {
    // rename() would replace a file of that name; link() fails.
    int result = link(part.c_str(), path.c_str());
    if (result == -1) reply = failure();
  }
  unlink(part.c_str());
  if (reply != "OK") return reply;
  string bytes = to_string(size) + " bytes";
  say("receive 1 stored " + who + " " + bytes + ": " + path);
  return "OK :" + name;
}

// ---- TCP: whoever accepts a connection answers [5] -------------------------------------------

// The thread of an accepted connection: one reply for each request.
void serve(int fd, sockaddr_in from) {
  Connection connection(fd);
  string who;  // nobody, until it has introduced itself
  string line;
  while (connection.read_line(line)) {
    map<string, string> fields = fields_of(line);
    string reply = "NO unknown no such request";
    if (begins_with(line, "ChatByP2P/1 HELLO ")) {
      who = fields["name"] + "@" + ip_text(from) + ":" + fields["port"];
      reply = "OK " + announcement("HERE") + " to=" + fields["id"];
    } else if (who.empty()) {
      reply = "NO stranger introduce yourself first";
    } else if (begins_with(line, "MSG ")) {
      say("message " + who + " " + fields["scope"] + ": " + text_of(line));
      reply = "OK";
    } else if (begins_with(line, "OFFER ")) {
      reply = receive_file(connection, line, who);
    }
    connection.write_line(reply);
  }
}

// ---- TCP: whoever opens a connection asks [5] --------------------------------------------------

// Returns the reply to the message, or what went wrong before it.
string deliver(const Peer& to, const string& message) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd == -1) return failure();
  Connection connection(fd);
  int result = connect(fd, any(to.address), sizeof to.address);
  if (result == -1) return failure();
  string reply = "no reply";
  connection.write_line(announcement("HELLO"));
  connection.read_line(reply);
  // Another peer may be at this address by now.
  if (fields_of(reply)["id"] != to.id) return "somebody else is there";
  connection.write_line(message);
  if (!connection.read_line(reply)) return "no reply";
  return reply;
}

// The thread of one message. `to` is a copy, for the list belongs to the main thread.
void send_message(Peer to, size_t number, string text) {
  string request = "MSG number=" + to_string(number) + " scope=private :" + text;
  string reply = deliver(to, request);
  // It is delivered when the other side says so, not when send() has taken it.
  if (reply == "OK")
    say("delivered " + to.label() + ": " + text);
  else
    say("failed " + to.label() + ": " + reply + "; not delivered: " + text);
}

// ---- The user --------------------------------------------------------------------------------

vector<thread> messages;  // their threads

void list_users() {
  int count = 1;
  say("user 1 * " + own_name + " " + own_group + " " + own_address());
  for (auto& [id, peer] : peers) {
    if (!peer.is_listed) continue;
    ++count;
    string number = to_string(count);
    string address = address_text(peer.address);
    say("user " + number + " - " + peer.name + " " + peer.group + " " + address);
  }
  say("users " + to_string(count));
}

// "bob See you at nine."
void message(const string& rest) {
  std::istringstream words(rest);
  string name;
  string text;
  words >> name >> std::ws;
  getline(words, text);
  if (text.empty()) return say("error: write /msg NAME TEXT");
  for (auto& [id, peer] : peers) {
    if (!peer.is_listed || peer.name != name) continue;
    messages.emplace_back(send_message, peer, messages.size() + 1, text);
    return;
  }
  say("error: no user is called " + name + "; /list shows who is here");
}

// Does what was typed. False when that is to leave.
bool obey(string line) {
  line.erase(line.find_last_not_of("\n") + 1);
  if (line == "/quit") return false;
  if (line == "/list")
    list_users();
  else if (begins_with(line, "/msg "))
    message(line.substr(5));
  else
    say("error: type /list, /msg NAME TEXT, or /quit");
  return true;
}

// ---- The program -----------------------------------------------------------------------------

// -1 when the port is taken.
int open_socket(int type, uint16_t port) {
  int fd = socket(AF_INET, type, 0);
  if (fd == -1) give_up("socket");
  int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on);
  // UDP: all peers of a host may have the shared port. TCP: the port of a peer that was killed is
  // free at once. But no two peers may have the same own port.
  if (port == kSharedPort || type == SOCK_STREAM)
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  // At 0.0.0.0: a socket that is bound to our own address hears no broadcast.
  sockaddr_in address = address_of(INADDR_ANY, port);
  int result = bind(fd, any(address), sizeof address);
  if (result == 0) return fd;
  close(fd);
  return -1;
}

// Takes the first port that is free for UDP and TCP. Returns the listening socket.
int open_own_port() {
  for (own_port = kFirstPort; own_port <= kLastPort; ++own_port) {
    own_socket = open_socket(SOCK_DGRAM, own_port);
    if (own_socket == -1) continue;
    int listener = open_socket(SOCK_STREAM, own_port);
    if (listener != -1 && listen(listener, SOMAXCONN) == 0) return listener;
    close(own_socket);
  }
  give_up("no port is free");
}

void accept_connection(int listener) {
  sockaddr_in from;
  socklen_t size = sizeof from;
  int fd = accept(listener, any(from), &size);
  if (fd == -1) return;
  thread(serve, fd, from).detach();  // nobody waits for it: it ends when the program does
}

int main(int argc, char** argv) {
  setvbuf(stdout, nullptr, _IOLBF, 0);  // a line at a time, even into a pipe
  setvbuf(stdin, nullptr, _IONBF, 0);   // select() knows nothing of what a buffer holds
  map<string, string> options;
  options["--name"] = "user";
  options["--group"] = "lab";
  options["--dir"] = "downloads";
  for (int i = 1; i + 1 < argc; i += 2)
    options[argv[i]] = argv[i + 1];
  own_id = random_id();
  own_name = options["--name"];
  own_group = options["--group"];
  folder = options["--dir"];

  shared_socket = open_socket(SOCK_DGRAM, kSharedPort);
  int listener = open_own_port();
  find_networks(options["--interface"]);
  say("ready " + own_name + "@" + own_address() + " " + own_group);
  broadcast("HELLO");

  time_t next_beat = time(nullptr) + kHeartbeat;
  bool goes_on = true;
  while (goes_on) {
    fd_set readable;
    FD_ZERO(&readable);
    FD_SET(STDIN_FILENO, &readable);
    FD_SET(shared_socket, &readable);
    FD_SET(own_socket, &readable);
    FD_SET(listener, &readable);
    timeval second = {1, 0};  // then see whether a heartbeat is due
    if (select(FD_SETSIZE, &readable, nullptr, nullptr, &second) == -1) continue;
    if (FD_ISSET(shared_socket, &readable)) receive_datagram(shared_socket);
    if (FD_ISSET(own_socket, &readable)) receive_datagram(own_socket);
    if (FD_ISSET(listener, &readable)) accept_connection(listener);
    if (FD_ISSET(STDIN_FILENO, &readable)) {
      char typed[4096];
      goes_on = fgets(typed, sizeof typed, stdin) && obey(typed);
    }
    if (time(nullptr) < next_beat) continue;
    beat();
    next_beat = time(nullptr) + kHeartbeat;
  }
  for (thread& one : messages) one.join();
  broadcast("BYE");
  fflush(stdout);
  _exit(0);  // threads of accepted connections may still run: destroy nothing under them
}
