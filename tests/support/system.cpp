// The implementation of system.h.

#include "system.h"

#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <stdexcept>

namespace fs = std::filesystem;

void must(bool good, const std::string& what) {
  if (!good) throw std::runtime_error(what + ": " + std::strerror(errno));
}

// ---- Sockets -------------------------------------------------------------------------------------------------------

sockaddr_in socket_address(const std::string& ip, int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  must(::inet_pton(AF_INET, ip.c_str(), &address.sin_addr) == 1, "inet_pton " + ip);
  return address;
}

const sockaddr* raw(const sockaddr_in& address) { return reinterpret_cast<const sockaddr*>(&address); }

// A port that was just closed may still be in TIME_WAIT, or open in a child that has not come to its exec() yet. Where
// the kernel chooses, it must not choose one of those.
void bind_to(int fd, const std::string& ip, int port) {
  const int is_shared = port == 0 ? 0 : 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &is_shared, sizeof is_shared);
  const sockaddr_in address = socket_address(ip, port);
  must(::bind(fd, raw(address), sizeof address) == 0, "bind to " + ip + ":" + std::to_string(port));
}

void listen_on(int fd, int port) {
  constexpr int kWaiting = 100;  // connections, until they are accepted
  bind_to(fd, "0.0.0.0", port);
  must(::listen(fd, kWaiting) == 0, "listen on port " + std::to_string(port));
}

void send_datagram(int fd, const std::string& ip, int port, const std::string& bytes) {
  const sockaddr_in address = socket_address(ip, port);
  ::sendto(fd, bytes.data(), bytes.size(), 0, raw(address), sizeof address);
}

void allow_broadcasts(int fd) {
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on);
}

void close_by_reset(int fd) {
  const linger at_once{1, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  ::close(fd);
}

// ---- Programs ------------------------------------------------------------------------------------------------------

// Ignored signals stay ignored in a new program: nohup ignores SIGHUP, and a shell SIGINT in what "&" follows.
void reset_signals() {
  for (int number = 1; number < NSIG; ++number) ::signal(number, SIG_DFL);
}

void become(const std::vector<std::string>& command) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  ::execvp(arguments[0], arguments.data());
  ::_exit(127);
}

int shell_status(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

// ---- Files ---------------------------------------------------------------------------------------------------------

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder, none)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}
