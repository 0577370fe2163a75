// The smallest peer: it finds the other peers on its network segment, lists them, sends and
// receives messages, and receives files. It works with ./peer, and with every program that follows
// docs/protocol.md. The numbers in square brackets are clauses of that document.
//
//     make smallest && .build/smallest --name zoe --group lab
//
// On a machine with several networks, say which one: --interface eth0.
//
// Read it from top to bottom: what peers say, the list, a connection, a file. At the end stands
// main(), the whole program on one page. The main thread waits in select() for the keyboard and
// three sockets. Each TCP connection has a thread of its own. These threads share nothing with it
// but the screen: each is given what it needs when it starts.
//
// What it leaves out is your assignment: more than one network [4.2], and those without broadcast
// [4.3]; ids that move or are forged [4.4]; a last line that must not be lost [5.1]; the order of
// two messages, and a second try for one [5.3]; a user who may say no [6.2]; sending files [6.3];
// folders, and going on after a break [6.5, 6.6].
//
// The program `make grade` judges any peer by the requirements R1 to R10 of docs/assignment.md.
// It gives this one so many points for each, which a test, tests/grade/smallest.sh, checks:
// Points: R1 2.5 R2 3.1 R3 6.8 R4 9.2 R5 1.9 R6 1.1 R7 6.8 R8 2.3 R9 2.6 R10 0.0

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
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

// ---- What peers say to each other: lines of text [3.2] -----------------------------------------

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
  return line.compare(0, beginning.size(), beginning) == 0;
}

uint64_t number(const string& digits) {
  return strtoull(digits.c_str(), nullptr, 10);
}

// ---- The screen --------------------------------------------------------------------------------

// Much of what we print came from outside, and must not steer the terminal. One call prints the
// whole line, so the lines of two threads never mix.
void say(string line) {
  for (char& c : line)
    if (iscntrl(static_cast<unsigned char>(c))) c = '?';
  puts(line.c_str());
}

[[noreturn]] void give_up(const string& why) {
  fprintf(stderr, "smallest: %s\n", why.c_str());
  exit(2);
}

// ---- Addresses ---------------------------------------------------------------------------------

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

// ---- Peers, and who we are ---------------------------------------------------------------------

struct Peer {
  string id;  // random: a peer is its id, for two users may have one name
  string name;
  string group;
  sockaddr_in address;
  time_t last_heard;
};

string label(const Peer& peer) {
  return peer.name + "@" + address_text(peer.address);
}

// These are set before the first thread starts, and only read after that.
Peer self;
string folder;          // for the files that come
sockaddr_in everybody;  // of our network: of 10.0.0.7/24, 10.0.0.255

string random_id() {
  std::random_device random;
  char id[17];
  snprintf(id, sizeof id, "%08x%08x", random(), random());
  return id;
}

// Takes the interface of that name; or else, of those that run, the last: the first is usually
// loopback, where no other machine reaches us.
void find_network(const string& name) {
  ifaddrs* first = nullptr;
  getifaddrs(&first);
  for (ifaddrs* one = first; one; one = one->ifa_next) {
    bool is_running = one->ifa_flags & IFF_RUNNING;
    bool is_chosen = name.empty() || name == one->ifa_name;
    if (!is_running || !is_chosen || !one->ifa_addr) continue;
    if (one->ifa_addr->sa_family != AF_INET) continue;
    in_addr_t ip = ((sockaddr_in*)one->ifa_addr)->sin_addr.s_addr;
    in_addr_t mask = ((sockaddr_in*)one->ifa_netmask)->sin_addr.s_addr;
    self.address.sin_addr.s_addr = ip;
    everybody = address_of(ip | ~mask, kSharedPort);
  }
  freeifaddrs(first);
  if (everybody.sin_port == 0) give_up("no such network is up");
}

// What we say of ourselves [4.1].
string announcement(const string& verb) {
  string line = "ChatByP2P/1 " + verb;
  line += " id=" + self.id;
  line += " ip=" + ip_text(self.address);
  line += " port=" + port_text(self.address);
  line += " name=" + self.name;
  line += " group=" + self.group;
  return line;
}

// ---- UDP: the list of peers [4] ----------------------------------------------------------------

// Only the main thread touches these.
map<string, Peer> peers;  // those on the list, by id
int shared_socket;        // broadcasts come here
int own_socket;           // all that we say leaves here, so the answers come here

// A datagram may be lost anywhere on its way, so we do not even ask whether it left. The cast: the
// system calls know addresses of many families, and take a pointer to what they have in common.
void send_datagram(const string& line, const sockaddr_in& to) {
  sendto(own_socket, line.data(), line.size(), 0, (const sockaddr*)&to, sizeof to);
}

void remove_peer(const string& id, const string& reason) {
  string who = label(peers[id]);
  peers.erase(id);
  say("left " + who + ": " + reason);
}

// A peer says that it is here. We list it once it has shown that it hears us, by a HERE with our
// id: a HELLO alone may come from somebody whom we cannot answer. Until then we ask it.
void hear_of(map<string, string> said, const sockaddr_in& from) {
  string id = said["id"];
  bool is_listed = peers.count(id) > 0;
  bool hears_us = said["to"] == self.id;
  if (!is_listed && !hears_us) {
    send_datagram(announcement("HELLO"), from);
    return;
  }
  Peer& peer = peers[id];
  peer.id = id;
  peer.name = said["name"];
  peer.group = said["group"];
  peer.address = from;
  peer.last_heard = time(nullptr);
  if (!is_listed) say("joined " + label(peer) + " " + peer.group);
}

void hear(const string& line, const sockaddr_in& from) {
  map<string, string> said = fields_of(line);
  string id = said["id"];
  if (!begins_with(line, "ChatByP2P/1 ")) return;
  if (id.empty() || said["name"].empty() || said["group"].empty()) return;
  if (id == self.id) return;  // our own broadcast comes back
  if (begins_with(line, "ChatByP2P/1 HELLO "))
    send_datagram(announcement("HERE") + " to=" + id, from);
  // Somebody else may speak for a peer. Believe only what it says itself, from its own port.
  if (said["port"] != port_text(from)) return;
  if (!begins_with(line, "ChatByP2P/1 BYE "))
    hear_of(said, from);
  else if (peers.count(id) > 0)
    remove_peer(id, "said bye");
}

void receive_datagram(int fd) {
  char buffer[kMaxDatagram + 1];  // one more, to see when a datagram is too long
  sockaddr_in from;
  socklen_t size = sizeof from;
  ssize_t got = recvfrom(fd, buffer, sizeof buffer, MSG_DONTWAIT, (sockaddr*)&from, &size);
  if (got == -1) return;
  string line(buffer, got);
  if (line.size() <= kMaxDatagram) hear(line, from);
}

// Every 5 s: say that we are here, and see who is not.
void beat() {
  send_datagram(announcement("HERE"), everybody);
  vector<string> gone;
  for (auto& [id, peer] : peers) {
    time_t silence = time(nullptr) - peer.last_heard;
    if (silence > kGone) gone.push_back(id);
  }
  for (const string& id : gone)
    remove_peer(id, "silent for 15 s");
}

// ---- TCP: lines and bytes of a connection [5.1] ------------------------------------------------

// Without these, a thread would wait for ever for a peer whose cable was pulled out.
void limit_silence(int fd) {
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &kSilence, sizeof kSilence);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &kSilence, sizeof kSilence);
}

// The next line, without its end. False when there will be none.
// One recv() is not one line: it may bring half of one, or three and the beginning of a file. So we
// take one byte at a time. That is slow; ./peer takes more, and keeps what is not yet asked for.
bool read_line(int fd, string& line) {
  line.clear();
  while (line.size() <= kMaxLine) {
    char byte;
    ssize_t got = recv(fd, &byte, 1, 0);
    if (got <= 0) return false;  // 0: the other side has closed
    if (byte == '\n') return true;
    if (byte != '\r') line += byte;  // some programs end a line by both
  }
  return false;
}

// send() may take a part only: the rest has to be sent again. MSG_NOSIGNAL: if the other side has
// closed, send() fails, and no SIGPIPE ends our program.
void write_line(int fd, string line) {
  line += "\n";
  while (!line.empty()) {
    ssize_t sent = send(fd, line.data(), line.size(), MSG_NOSIGNAL);
    if (sent == -1) return;  // whoever waits for the reply will see it
    line.erase(0, sent);
  }
}

// ---- TCP: a file comes [6] ---------------------------------------------------------------------

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
uint32_t cksum(uint32_t crc, uint64_t size) {
  for (; size > 0; size /= 256)
    crc = crc_with(crc, size % 256);
  return ~crc;
}

// Reads DATA and its bytes, again and again, and then END. Returns the reply to that; or a NO, as
// soon as something is wrong.
string receive_data(int fd, int file, uint64_t size) {
  uint64_t have = 0;  // bytes
  uint32_t crc = 0;   // of these
  string line;
  while (read_line(fd, line)) {
    map<string, string> fields = fields_of(line);
    if (begins_with(line, "END ")) {
      bool is_right = number(fields["crc"]) == cksum(crc, have);
      if (have == size && is_right) return "OK";
      return "NO checksum the file did not arrive as it was sent";
    }
    uint64_t left = number(fields["size"]);
    bool is_more = left > size - have;
    if (!begins_with(line, "DATA ") || is_more) return "NO syntax no DATA that was offered";
    while (left > 0) {
      char bytes[65536];
      ssize_t got = recv(fd, bytes, std::min(left, sizeof bytes), 0);
      if (got <= 0) return "NO failed the connection was lost";
      if (write(file, bytes, got) != got) return "NO failed the disk is full";
      for (int i = 0; i < got; ++i)
        crc = crc_with(crc, bytes[i]);
      have += got;
      left -= got;
    }
  }
  return "NO failed the connection was lost";
}

string failure() { return string("NO failed ") + strerror(errno); }

// Returns the reply: OK only when the whole file stands under its name.
string receive_file(int fd, const string& offer, const string& who) {
  string their_path = text_of(offer);
  string name = their_path.substr(their_path.rfind('/') + 1);  // without a '/': from 0
  if (name.empty() || name[0] == '.') return "NO name that is no name for a file";

  // Until it is whole it has another name. O_EXCL: if a file has that name already, open() fails.
  string path = folder + "/" + name;
  string part = path + ".part";
  mkdir(folder.c_str(), 0777);
  int file = open(part.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0666);
  if (file == -1) return failure();
  write_line(fd, "OK");
  string size = fields_of(offer)["size"];
  string reply = receive_data(fd, file, number(size));
  close(file);
  // rename() would replace a file of that name; link() fails.
  if (reply == "OK") {
    int result = link(part.c_str(), path.c_str());
    if (result == -1) reply = failure();
  }
  unlink(part.c_str());
  if (reply != "OK") return reply;
  string what = who + " " + size + " bytes: " + path;
  say("receive 1 stored " + what);  // ./peer counts its transfers; we call each the first
  return "OK :" + name;
}

// ---- TCP: whoever accepts a connection answers [5] ---------------------------------------------

// The thread of an accepted connection: one reply for each request.
void serve(int fd, sockaddr_in from) {
  limit_silence(fd);
  string who;  // nobody, until it has introduced itself
  string line;
  while (read_line(fd, line)) {
    map<string, string> fields = fields_of(line);
    string reply = "NO unknown no such request";
    if (begins_with(line, "ChatByP2P/1 HELLO ")) {
      who = fields["name"] + "@" + ip_text(from) + ":" + fields["port"];
      reply = "OK " + announcement("HERE") + " to=" + fields["id"];
    } else if (who.empty()) {
      reply = "NO stranger introduce yourself first";
    } else if (begins_with(line, "MSG ")) {
      string scope = fields["scope"];
      if (scope.empty()) scope = "private";
      say("message " + who + " " + scope + ": " + text_of(line));
      reply = "OK";
    } else if (begins_with(line, "OFFER ")) {
      reply = receive_file(fd, line, who);
    }
    write_line(fd, reply);
    // After a NO to a file, what still comes are its bytes, and no requests.
    bool is_refused = begins_with(reply, "NO ");
    if (is_refused && begins_with(line, "OFFER ")) break;
  }
  close(fd);
}

// ---- TCP: whoever opens a connection asks [5] --------------------------------------------------

// Returns the reply to the message, or what went wrong before it.
string deliver(int fd, const Peer& to, const string& message) {
  limit_silence(fd);
  int result = connect(fd, (const sockaddr*)&to.address, sizeof to.address);
  if (result == -1) return failure();
  string reply;
  write_line(fd, announcement("HELLO"));
  if (!read_line(fd, reply)) return "no reply";
  if (!begins_with(reply, "OK ")) return reply;
  if (fields_of(reply)["id"] != to.id) return "somebody else is at this address by now";
  write_line(fd, message);
  if (!read_line(fd, reply)) return "no reply";
  return reply;
}

// The thread of one message. `to` is a copy, for the list belongs to the main thread.
void send_message(Peer to, size_t number, string text) {
  string request = "MSG number=" + to_string(number) + " scope=private :" + text;
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  string reply = deliver(fd, to, request);
  close(fd);
  // It is delivered when the other side says so, not when send() has taken it.
  if (reply == "OK")
    say("delivered " + label(to) + ": " + text);
  else
    say("failed " + label(to) + ": " + reply + "; not delivered: " + text);
}

// ---- The user ----------------------------------------------------------------------------------

vector<thread> messages;  // the thread of each that we have sent

string entry(const Peer& peer) {
  return peer.name + " " + peer.group + " " + address_text(peer.address);
}

void list_users() {
  int count = 1;
  say("user 1 * " + entry(self));
  for (auto& [id, peer] : peers) {
    ++count;
    say("user " + to_string(count) + " - " + entry(peer));
  }
  say("users " + to_string(count));
}

// "bob See you at nine."
void message(const string& rest) {
  size_t blank = rest.find(' ');
  string name = rest.substr(0, blank);
  if (blank == string::npos) return say("error: write /msg NAME TEXT");
  string text = rest.substr(blank + 1);
  for (auto& [id, peer] : peers) {
    if (peer.name != name) continue;
    messages.emplace_back(send_message, peer, messages.size() + 1, text);
    return;
  }
  say("error: no user is called " + name + "; /list shows who is here");
}

// Does what was typed. False when that is to leave.
bool obey(const string& line) {
  if (line == "/quit") return false;
  if (line == "/list")
    list_users();
  else if (begins_with(line, "/msg "))
    message(line.substr(5));
  else
    say("error: type /list, /msg NAME TEXT, or /quit");
  return true;
}

// ---- The program -------------------------------------------------------------------------------

// -1 when the port is taken.
int open_socket(int type, uint16_t port) {
  int fd = socket(AF_INET, type, 0);
  int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on);
  // UDP: all peers of a host may have the shared port. TCP: the port of a peer that was killed is
  // free at once. But no two peers may have the same own port.
  if (port == kSharedPort || type == SOCK_STREAM)
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  // At 0.0.0.0: a socket that is bound to our own address hears no broadcast.
  sockaddr_in address = address_of(INADDR_ANY, port);
  int result = bind(fd, (const sockaddr*)&address, sizeof address);
  if (result == 0) return fd;
  close(fd);
  return -1;
}

// Takes the first port that is free for UDP and TCP. Returns the listening socket.
int open_own_port() {
  for (uint16_t port = kFirstPort; port <= kLastPort; ++port) {
    self.address = address_of(INADDR_ANY, port);
    own_socket = open_socket(SOCK_DGRAM, port);
    if (own_socket == -1) continue;
    int listener = open_socket(SOCK_STREAM, port);
    if (listener != -1 && listen(listener, SOMAXCONN) == 0) return listener;
    close(listener);
    close(own_socket);
  }
  give_up("no port from 25253 to 25508 is free");
}

void accept_connection(int listener) {
  sockaddr_in from;
  socklen_t size = sizeof from;
  int fd = accept(listener, (sockaddr*)&from, &size);
  if (fd == -1) return;
  thread(serve, fd, from).detach();  // nobody waits for it: it ends when the program does
}

// False when the user leaves. fgets() waits for a whole line; a terminal hands over nothing less.
bool read_keyboard() {
  char typed[4000];
  if (!fgets(typed, sizeof typed, stdin)) return false;  // Ctrl-D
  string line = typed;
  if (line.back() == '\n') line.pop_back();
  return obey(line);
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
  self.id = random_id();
  self.name = options["--name"];
  self.group = options["--group"];
  folder = options["--dir"];
  string labels = self.name + self.group;
  if (labels.find(' ') != string::npos) give_up("a name or group has no blanks");

  shared_socket = open_socket(SOCK_DGRAM, kSharedPort);
  if (shared_socket == -1) give_up("another program has UDP port 25252");
  int listener = open_own_port();
  find_network(options["--interface"]);
  say("ready " + label(self) + " " + self.group);
  send_datagram(announcement("HELLO"), everybody);

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
    if (FD_ISSET(STDIN_FILENO, &readable)) goes_on = read_keyboard();
    if (time(nullptr) < next_beat) continue;
    beat();
    next_beat = time(nullptr) + kHeartbeat;
  }
  for (thread& one : messages) one.join();
  send_datagram(announcement("BYE"), everybody);
  fflush(stdout);
  _exit(0);  // threads of accepted connections may still run: destroy nothing under them
}
