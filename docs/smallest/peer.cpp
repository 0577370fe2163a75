// The smallest peer: it finds the other peers on its network segment, lists
// them, sends and receives messages, and receives files. It works with ./peer,
// and with every program that follows docs/protocol.md. The numbers in square
// brackets are clauses of that document.
//
//     make smallest && .build/smallest --name zoe --group lab
//
// It has one loop, in main(), which waits in select() for the keyboard and for
// three sockets. Each TCP connection has a thread of its own. These threads
// work on copies, so none of them needs a lock.
//
// Read it from top to bottom, in the order in which things happen; or begin
// with main(), the last function. It is for a first hour: docs/tour.md says
// what it leaves out, and where ./peer has that.

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <thread>

using std::string;
using std::to_string;

// ---- Lines: what peers say to each other [3.2] ------------------------------

// "MSG number=7 scope=all :See you" has the fields number and scope. Its text
// begins after " :". We keep it as one more field, under the key ":".
using Fields = std::map<string, string>;

Fields fields_of(string line) {
  Fields fields;
  size_t colon = line.find(" :");
  if (colon != string::npos)
    fields[":"] = line.substr(colon + 2);
  std::istringstream words(line.substr(0, colon));
  string word;
  while (words >> word) {
    size_t equals = word.find('=');
    if (equals == string::npos) continue;
    string key = word.substr(0, equals);
    fields[key] = word.substr(equals + 1);
  }
  return fields;
}

bool begins_with(string line, string beginning) {
  return line.substr(0, beginning.size()) == beginning;
}

size_t number(string digits) {
  return strtoull(digits.c_str(), nullptr, 10);
}

// ---- The screen -------------------------------------------------------------

// Much of what we print came from outside. It must not steer the terminal, so
// we take out each ESC. One puts() prints a whole line, so the lines of two
// threads never mix.
void say(string line) {
  for (char& c : line)
    if (c == '\033') c = '?';
  puts(line.c_str());
  fflush(stdout);  // now, even into a pipe
}

void give_up(string why) {
  fprintf(stderr, "smallest: %s\n", why.c_str());
  exit(2);
}

// ---- Who we are -------------------------------------------------------------

// A peer is what it says of itself: the fields id, ip, port, name and group.
Fields self;  // set before the first thread starts, and only read after that

string address_text(Fields peer) {
  return peer["ip"] + ":" + peer["port"];
}

string label(Fields peer) {
  return peer["name"] + "@" + address_text(peer);
}

// Two users may have one name. So a peer is known by its id, which is random.
string random_id() {
  std::random_device random;
  char id[17];
  snprintf(id, sizeof id, "%08x%08x", random(), random());
  return id;
}

// The verb is HELLO (who is there?), HERE (I am), or BYE [4.1].
string announcement(string verb) {
  string line = "ChatByP2P/1 " + verb;
  for (auto [key, value] : self)
    line += " " + key + "=" + value;
  return line;
}

// ---- Sockets, and a network -------------------------------------------------

// The shared port is the same for all peers [2.1]: broadcasts come there. A
// peer also has a port number of its own, for UDP and TCP. All that it says
// over UDP leaves from there, so the answers come there, too.
const int kSharedPort = 25252;
int shared_socket;
int own_socket;
int listener;           // TCP, at our own port: accepts connections
sockaddr_in everybody;  // the broadcast address of our network

sockaddr_in address_of(string ip, int port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);  // without htons(), 25252 is port 42082
  inet_pton(AF_INET, ip.c_str(), &address.sin_addr);
  return address;
}

string ip_of(sockaddr_in address) {
  char text[INET_ADDRSTRLEN];
  inet_ntop(AF_INET, &address.sin_addr, text, sizeof text);
  return text;
}

// Returns -1 if another program has that port. Bound to our own address instead
// of 0.0.0.0, the socket would hear no broadcast.
int open_socket(int type, int port) {
  int fd = socket(AF_INET, type, 0);
  int on = 1;
  // The peers of a host share the shared port.
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  // Without this, sendto() refuses to broadcast.
  setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on);
  sockaddr_in address = address_of("0.0.0.0", port);
  int result = bind(fd, (sockaddr*)&address, sizeof address);
  if (result == 0) return fd;
  close(fd);
  return -1;
}

// Takes the first number that is free. Only one program of a host can listen at
// a TCP port; that decides who has the UDP port of the same number, too.
void open_own_port() {
  for (int port = 25253; port <= 25508; ++port) {
    self["port"] = to_string(port);
    own_socket = open_socket(SOCK_DGRAM, port);
    listener = open_socket(SOCK_STREAM, port);
    int result = listen(listener, SOMAXCONN);
    if (own_socket != -1 && result == 0) return;
    close(own_socket);
    close(listener);
  }
  give_up("no port from 25253 to 25508 is free");
}

// Takes the network of the interface of that name. Without a name, it takes the
// first one but lo, where no other machine hears us; or lo, if that is all.
// The broadcast address of 10.0.0.7/24 is 10.0.0.255: its last 8 bits are set.
void choose_network(string name) {
  ifaddrs* first = nullptr;
  getifaddrs(&first);
  for (ifaddrs* one = first; one; one = one->ifa_next) {
    if (!one->ifa_addr) continue;
    if (one->ifa_addr->sa_family != AF_INET) continue;
    if (!name.empty() && name != one->ifa_name) continue;
    auto mask = (sockaddr_in*)one->ifa_netmask;
    everybody = *(sockaddr_in*)one->ifa_addr;
    self["ip"] = ip_of(everybody);
    everybody.sin_addr.s_addr |= ~mask->sin_addr.s_addr;
    everybody.sin_port = htons(kSharedPort);
    if (one->ifa_name != string("lo")) break;
  }
  freeifaddrs(first);
  if (self["ip"].empty())
    give_up("no such network is up");
}

// ---- UDP: the list of peers [4] ---------------------------------------------

std::map<string, Fields> peers;  // by id; only the main thread touches it

// A datagram may be lost anywhere on its way, so we do not even ask whether it
// left. The cast: the system calls know addresses of many families, and take a
// pointer to what they have in common.
void announce(string verb, sockaddr_in to) {
  string line = announcement(verb);
  sendto(own_socket, line.data(), line.size(), 0,
         (sockaddr*)&to, sizeof to);
}

void add_peer(string id, Fields peer) {
  bool is_new = peers.count(id) == 0;
  peer["heard"] = to_string(time(nullptr));
  peers[id] = peer;
  if (is_new)
    say("joined " + label(peer) + " " + peer["group"]);
}

void remove_peer(string id, string reason) {
  if (peers.count(id) == 0) return;
  say("left " + label(peers[id]) + ": " + reason);
  peers.erase(id);
}

// We list a peer when it has answered us: to hear it does not mean that it
// hears us. Until then, we ask it whenever we hear it.
void hear(string line, sockaddr_in from) {
  if (!begins_with(line, "ChatByP2P/1 ")) return;
  Fields said = fields_of(line);
  string id = said["id"];
  // Our own broadcast comes back to us.
  if (id.empty() || id == self["id"]) return;
  // Its datagrams come from where it is, whatever it says itself.
  said["ip"] = ip_of(from);
  if (begins_with(line, "ChatByP2P/1 HELLO "))
    announce("HERE to=" + id, from);
  bool is_listed = peers.count(id) > 0;
  bool hears_us = said["to"] == self["id"];
  if (begins_with(line, "ChatByP2P/1 BYE "))
    remove_peer(id, "said bye");
  else if (is_listed || hears_us)
    add_peer(id, said);
  else
    announce("HELLO", from);
}

void receive_datagram(int fd) {
  char buffer[513];  // one more than allowed [2.2], to see what is too long
  sockaddr_in from;
  socklen_t length = sizeof from;
  ssize_t got = recvfrom(fd, buffer, sizeof buffer, MSG_DONTWAIT,
                         (sockaddr*)&from, &length);
  if (got == -1 || got == sizeof buffer) return;
  hear(string(buffer, got), from);
}

// A peer that was killed, or whose cable is out, says no BYE. It is gone after
// 15 s of silence [2.3].
void remove_silent_peer() {
  size_t now = time(nullptr);
  for (auto [id, peer] : peers) {
    if (now <= number(peer["heard"]) + 15) continue;
    remove_peer(id, "silent for 15 s");
    return;  // a loop must not go on in a map that has changed
  }
}

// ---- TCP: lines and bytes, out of a stream [5.1] ----------------------------

// Without this, a thread would wait for ever for a peer whose cable is out.
void limit_silence(int fd) {
  timeval limit = {10, 0};  // seconds
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
}

// Returns the next line, without its end. If there will be none, it is empty:
// the other side has closed (recv() returns 0), or is silent (-1).
// One recv() is not one line: it may bring half of one, or three and the
// beginning of a file. So we take one byte at a time. That is slow; ./peer
// takes what there is, and keeps what it has not asked for yet.
string read_line(int fd) {
  string line;
  while (line.size() < 4096) {  // bytes [2.2]
    char byte;
    ssize_t got = recv(fd, &byte, 1, 0);
    if (got <= 0) return "";
    if (byte == '\n') return line;
    if (byte != '\r') line += byte;  // some programs end a line by both
  }
  return "";
}

// One recv() may bring fewer bytes than we ask for. Returns whether all came.
bool read_bytes(int fd, char* into, size_t count) {
  while (count > 0) {
    ssize_t got = recv(fd, into, count, 0);
    if (got <= 0) return false;
    into += got;
    count -= got;
  }
  return true;
}

// send() may take fewer bytes than we give it. If the other side has closed, it
// fails; without MSG_NOSIGNAL, a signal would end our program.
void write_line(int fd, string line) {
  line += "\n";
  while (!line.empty()) {
    ssize_t sent = send(fd, line.data(), line.size(), MSG_NOSIGNAL);
    if (sent == -1) return;  // the reply that does not come will show it
    line.erase(0, sent);
  }
}

// ---- TCP: whoever opens a connection asks [5] -------------------------------

// The thread of one message. `to` is a copy: the list is the main thread's.
void send_message(Fields to, int serial, string text) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  limit_silence(fd);
  sockaddr_in address = address_of(to["ip"], number(to["port"]));
  connect(fd, (sockaddr*)&address, sizeof address);  // or no reply comes
  write_line(fd, announcement("HELLO"));
  string reply = read_line(fd);
  // By now, another peer may be at this address.
  if (fields_of(reply)["id"] == to["id"]) {
    string request = "MSG number=" + to_string(serial);
    write_line(fd, request + " scope=private :" + text);
    reply = read_line(fd);
  }
  close(fd);
  // It is delivered when the other side says so, not when send() has taken it.
  if (reply == "OK")
    say("delivered " + label(to) + ": " + text);
  else
    say("failed " + label(to) + ": its last reply is \"" + reply +
        "\"; not delivered: " + text);
}

// ---- TCP: a file comes [6] --------------------------------------------------

// What POSIX `cksum` prints: the CRC of the bytes, followed by their number,
// its lowest byte first [6.4].
uint32_t cksum(string bytes) {
  for (size_t size = bytes.size(); size > 0; size /= 256)
    bytes += char(size % 256);
  uint32_t crc = 0;
  for (uint8_t byte : bytes) {
    crc ^= uint32_t{byte} << 24;
    for (int bit = 0; bit < 8; ++bit) {
      bool carry = crc >> 31;
      crc = crc << 1;
      if (carry) crc ^= 0x04C11DB7;
    }
  }
  return ~crc;
}

// Returns whether the whole file is on the disk. It replaces none: with an x,
// fopen() fails if there is one already.
bool store(string path, string bytes) {
  FILE* file = fopen(path.c_str(), "wx");
  if (!file) return false;
  size_t written = fwrite(bytes.data(), 1, bytes.size(), file);
  int result = fclose(file);
  if (written == bytes.size() && result == 0) return true;
  unlink(path.c_str());
  return false;
}

// Reads DATA and its bytes, again and again, until the file is whole; then END.
// Returns the reply to that, or a NO as soon as something is wrong.
string receive_bytes(int fd, string& bytes, size_t size) {
  while (bytes.size() < size) {
    Fields data = fields_of(read_line(fd));
    size_t count = number(data["size"]);
    size_t have = bytes.size();
    if (count == 0 || count > size - have)
      return "NO syntax no DATA that was offered";
    bytes.resize(have + count);
    if (!read_bytes(fd, &bytes[have], count))
      return "NO failed the connection was lost";
  }
  Fields end = fields_of(read_line(fd));
  if (number(end["crc"]) == cksum(bytes)) return "OK";
  return "NO checksum the file was changed on its way";
}

// Returns the reply: OK only when the whole file is on the disk. Of the name,
// we take what is behind the last '/': it could be "../../.bashrc".
string receive_file(int fd, Fields offer, string who) {
  string path = offer[":"];
  string name = path.substr(path.rfind('/') + 1);
  if (name.empty() || name[0] == '.')
    return "NO name I take files only";
  size_t size = number(offer["size"]);
  if (size > 100'000'000)
    return "NO space I keep a file in memory";
  write_line(fd, "OK");
  string bytes;
  string reply = receive_bytes(fd, bytes, size);
  if (reply != "OK") return reply;
  mkdir("downloads", 0777);
  path = "downloads/" + name;
  if (!store(path, bytes))
    return "NO failed I cannot store " + path;
  say("receive 1 stored " + who + " " + offer["size"] + " bytes: " + path);
  return "OK :" + name;
}

// ---- TCP: whoever accepts a connection answers [5] --------------------------

// The thread of an accepted connection: one reply to each request. It ends
// after a NO: what comes then may be bytes of a file that was refused.
void serve(int fd, string ip) {
  limit_silence(fd);
  string who = ip;  // until there is an introduction
  string reply = "OK";
  while (begins_with(reply, "OK")) {
    string request = read_line(fd);
    if (request.empty()) break;
    Fields fields = fields_of(request);
    reply = "NO unknown no such request";
    if (begins_with(request, "ChatByP2P/1 HELLO ")) {
      who = fields["name"] + "@" + ip + ":" + fields["port"];
      reply = "OK " + announcement("HERE to=" + fields["id"]);
    }
    if (begins_with(request, "MSG ")) {
      string scope = fields["scope"];
      if (scope.empty()) scope = "private";
      say("message " + who + " " + scope + ": " + fields[":"]);
      reply = "OK";
    }
    if (begins_with(request, "OFFER "))
      reply = receive_file(fd, fields, who);
    write_line(fd, reply);
  }
  close(fd);
}

void accept_connection() {
  sockaddr_in from;
  socklen_t length = sizeof from;
  int fd = accept(listener, (sockaddr*)&from, &length);
  if (fd == -1) return;
  std::thread(serve, fd, ip_of(from)).detach();  // nobody waits for its end
}

// ---- The user ---------------------------------------------------------------

bool is_running = true;
int messages = 0;  // that we have sent

string entry(Fields peer) {
  return peer["name"] + " " + peer["group"] + " " + address_text(peer);
}

void list_users() {
  int count = 1;
  say("user 1 * " + entry(self));
  for (auto [id, peer] : peers) {
    ++count;
    say("user " + to_string(count) + " - " + entry(peer));
  }
  say("users " + to_string(count));
}

void message(string name, string text) {
  ++messages;
  for (auto [id, peer] : peers) {
    if (peer["name"] != name) continue;
    std::thread(send_message, peer, messages, text).detach();
    return;
  }
  say("error: no user is called " + name);
}

// "/msg bob See you at nine." A terminal hands over whole lines only, so
// getline() does not wait. It fails after Ctrl-D.
void read_keyboard() {
  string line, command, name, text;
  getline(std::cin, line);
  std::istringstream words(line);
  words >> command >> name >> std::ws;
  getline(words, text);
  if (command == "/quit" || !std::cin)
    is_running = false;
  else if (command == "/list")
    list_users();
  else if (command == "/msg")
    message(name, text);
  else
    say("error: type /list, /msg NAME TEXT, or /quit");
}

// ---- The program ------------------------------------------------------------

void read_options(int argc, char** argv) {
  Fields options;
  options["--name"] = "user";
  options["--group"] = "lab";
  for (int i = 1; i + 1 < argc; i += 2)
    options[argv[i]] = argv[i + 1];
  self["id"] = random_id();
  self["name"] = options["--name"];
  self["group"] = options["--group"];
  if (fields_of(announcement("HELLO")) != self)
    give_up("a name or a group is one word");
  choose_network(options["--interface"]);
}

// Waits until something can be read, but no longer than a second: then a
// heartbeat may be due.
fd_set wait() {
  fd_set readable;
  FD_ZERO(&readable);
  FD_SET(STDIN_FILENO, &readable);
  FD_SET(shared_socket, &readable);
  FD_SET(own_socket, &readable);
  FD_SET(listener, &readable);
  timeval second = {1, 0};
  int count = select(FD_SETSIZE, &readable, nullptr, nullptr, &second);
  if (count == -1) FD_ZERO(&readable);
  return readable;
}

int main(int argc, char** argv) {
  setvbuf(stdin, nullptr, _IONBF, 0);  // select() cannot see into a buffer
  read_options(argc, argv);
  shared_socket = open_socket(SOCK_DGRAM, kSharedPort);
  if (shared_socket == -1)
    give_up("another program has UDP port 25252");
  open_own_port();
  say("ready " + label(self) + " " + self["group"]);
  announce("HELLO", everybody);

  time_t last_beat = time(nullptr);
  while (is_running) {
    fd_set readable = wait();
    if (FD_ISSET(STDIN_FILENO, &readable))
      read_keyboard();
    if (FD_ISSET(shared_socket, &readable))
      receive_datagram(shared_socket);
    if (FD_ISSET(own_socket, &readable))
      receive_datagram(own_socket);
    if (FD_ISSET(listener, &readable))
      accept_connection();
    remove_silent_peer();
    if (time(nullptr) < last_beat + 5) continue;  // seconds
    announce("HERE", everybody);
    last_beat = time(nullptr);
  }
  announce("BYE", everybody);
  _exit(0);  // threads may still run: destroy nothing under them
}

// The points that `make grade` gives it for each requirement of
// docs/assignment.md, which a test checks, tests/grade/smallest.sh:
// Points: R1 2.0 R2 3.1 R3 6.8 R4 8.5 R5 1.9 R6 1.1 R7 6.5 R8 1.7 R9 2.3 R10 0.0
