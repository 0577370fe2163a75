// Your peer begins here. It reads its options, opens its two UDP sockets, says that it is ready,
// broadcasts one HELLO, and waits in select() until its user leaves. That is milestone 0.
//
// What is missing: it answers nobody, lists nobody, never reads what arrives, and has no TCP port.
// Look for "You go on here".

#include <arpa/inet.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <random>

#include "announcement.h"

const uint16_t kSharedPort = 25252;  // docs/protocol.md, 2.1
const uint16_t kFirstPort = 25253;
const uint16_t kLastPort = 25508;

// One sentence. The status is 2 for a wrong option, and 1 if the system refuses something.
[[noreturn]] void give_up(const std::string& sentence, int status) {
  std::cerr << "error: " << sentence << std::endl;
  std::exit(status);
}

// --name ann, or --name=ann
std::map<std::string, std::string> read_options(int argc, char** argv) {
  std::map<std::string, std::string> options;
  const char* user = std::getenv("USER");
  options["--name"] = user ? user : "user";
  options["--group"] = "lab";
  for (int i = 1; i < argc; ++i) {
    std::string key = argv[i];
    std::string value;
    const size_t equals = key.find('=');
    if (equals != std::string::npos) {
      value = key.substr(equals + 1);
      key = key.substr(0, equals);
    } else if (i + 1 < argc) {
      value = argv[++i];
    }
    if (key != "--name" && key != "--group") give_up(key + " is not an option", 2);
    // You go on here: size() counts bytes, and the specification counts characters.
    if (value.empty() || value.size() > 32) give_up("a name or group has 1 to 32 characters", 2);
    options[key] = value;
  }
  return options;
}

sockaddr_in address(in_addr_t ip, uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = ip;
  address.sin_port = htons(port);
  return address;
}

// Returns -1 if the port is taken. Binds to 0.0.0.0: bound to its own address, a socket hears no
// broadcast.
int open_udp(uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
  if (fd == -1) give_up("no socket can be made", 1);
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on);
  if (port == kSharedPort) ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const sockaddr_in here = address(INADDR_ANY, port);
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&here), sizeof here) == 0) return fd;
  ::close(fd);
  return -1;
}

std::string random_id() {
  std::random_device random;
  char id[17];
  std::snprintf(id, sizeof id, "%08x%08x", random(), random());
  return id;
}

int main(int argc, char** argv) {
  auto options = read_options(argc, argv);
  const int shared_socket = open_udp(kSharedPort);
  Announcement self;
  self.id = random_id();
  self.ip = "127.0.0.1";  // You go on here: getifaddrs() lists this host's addresses.
  self.name = options["--name"];
  self.group = options["--group"];
  self.port = kFirstPort;
  int own_socket = open_udp(self.port);
  while (own_socket == -1 && self.port < kLastPort) {
    ++self.port;
    own_socket = open_udp(self.port);
  }
  if (shared_socket == -1 || own_socket == -1) give_up("no port is free", 1);
  // endl, not "\n": nothing goes into a pipe before you flush.
  std::cout << "ready " << self.name << "@" << self.ip << ":" << self.port << " " << self.group
            << std::endl;

  self.verb = "HELLO";
  const std::string hello = format(self);
  const sockaddr_in everybody = address(inet_addr("127.255.255.255"), kSharedPort);
  ::sendto(own_socket, hello.data(), hello.size(), 0,
           reinterpret_cast<const sockaddr*>(&everybody), sizeof everybody);

  while (true) {
    fd_set readable;
    FD_ZERO(&readable);
    FD_SET(STDIN_FILENO, &readable);
    if (::select(own_socket + 1, &readable, nullptr, nullptr, nullptr) == -1) continue;
    // You go on here: watch shared_socket and own_socket, too, and answer each HELLO with a HERE.
    // And here: one read() may bring half a line, or three; and whoever leaves says BYE first.
    char typed[4096];
    const ssize_t got = ::read(STDIN_FILENO, typed, sizeof typed);
    if (got <= 0 || std::string(typed, static_cast<size_t>(got)) == "/quit\n") return 0;
  }
}
