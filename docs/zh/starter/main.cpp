// 你的对等方从这里开始。它接受选项，打开两个 UDP 套接字，输出 ready，广播一个 HELLO，然后在
// select() 中等待，直到用户离开。这就是里程碑 0。
//
// 还没有的：它不回答任何人，不列出任何人，收到的也不读，也没有 TCP 端口。请查找“从这里继续”。

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

const uint16_t kSharedPort = 25252;  // docs/zh/protocol.md 2.1
const uint16_t kFirstPort = 25253;
const uint16_t kLastPort = 25508;

// 输出一句话。选项有错时退出状态为 2，系统拒绝了什么时为 1。
[[noreturn]] void give_up(const std::string& sentence, int status) {
  std::cerr << "error: " << sentence << std::endl;
  std::exit(status);
}

// --name ann 或 --name=ann
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
    // 从这里继续：size() 数的是字节，而规范数的是字符。
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

// 端口已被占用时返回 -1。绑定到 0.0.0.0：若绑定到自己的地址，套接字就听不到广播。
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
  self.ip = "127.0.0.1";  // 从这里继续：getifaddrs() 说明本机有哪些地址。
  self.name = options["--name"];
  self.group = options["--group"];
  self.port = kFirstPort;
  int own_socket = open_udp(self.port);
  while (own_socket == -1 && self.port < kLastPort) {
    ++self.port;
    own_socket = open_udp(self.port);
  }
  if (shared_socket == -1 || own_socket == -1) give_up("no port is free", 1);
  // 用 endl，不用 "\n"：在刷新缓冲区之前，什么也不会写入管道。
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
    // 从这里继续：也监视 shared_socket 和 own_socket，并用 HERE 回答每个 HELLO。
    // 还有这里：一次 read() 读到的可能是半行，也可能是三行；离开之前要先发出 BYE。
    char typed[4096];
    const ssize_t got = ::read(STDIN_FILENO, typed, sizeof typed);
    if (got <= 0 || std::string(typed, static_cast<size_t>(got)) == "/quit\n") return 0;
  }
}
