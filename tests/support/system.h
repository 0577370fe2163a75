// The calls of the system that tests make by hand, each made here once, with its trap. They serve two kinds of tools
// that are different things and stay so: Process and Socket (testing.h), which wait for one thing at a time, and the
// grader's Program, Ear, Talk and Stranger (tests/grade/grade.h), which one loop serves all at once.
//
// A socket of a host of the virtual classroom is opened by Network::socket() in testing.h. An IP address is IPv4, in
// dotted decimals.

#ifndef CHATBYP2P_SYSTEM_H
#define CHATBYP2P_SYSTEM_H

#include <netinet/in.h>

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

// Throws `what`, and the reason that errno has, unless it is good.
void must(bool good, const std::string& what);

// A setting from the environment; one that is empty counts as none.
inline std::string setting(const char* name, const std::string& otherwise = "") {
  const char* const value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : otherwise;
}

// The same for a whole number; anything else ends the program with a sentence and status 2.
inline uint32_t number_setting(const char* name, uint32_t otherwise) {
  const std::string text = setting(name, std::to_string(otherwise));
  const bool is_number = text.find_first_not_of("0123456789") == std::string::npos;
  if (!is_number || text.size() > 9) {
    std::cerr << name << '=' << text << ": " << name << " takes a whole number\n";
    std::exit(2);
  }
  return static_cast<uint32_t>(std::stoul(text));
}

// ---- Sockets -------------------------------------------------------------------------------------------------------

sockaddr_in socket_address(const std::string& ip, int port);
const sockaddr* raw(const sockaddr_in& address);  // as the calls want it
void bind_to(int fd, const std::string& ip, int port);  // port 0: the kernel chooses one
void listen_on(int fd, int port);                       // of every address of its host
void send_datagram(int fd, const std::string& ip, int port, const std::string& bytes);
void allow_broadcasts(int fd);
void close_by_reset(int fd);  // the other side sees ECONNRESET, and no orderly end

// ---- Programs ------------------------------------------------------------------------------------------------------

// In a child process: every signal does again what it does by default.
void reset_signals();
// In a child process: becomes that program, which is looked for in the PATH; ends with status 127 if it cannot.
[[noreturn]] void become(const std::vector<std::string>& command);
// What waitpid() said about a process that has ended, as a shell says it: 128 + N if signal N ended it.
int shell_status(int status);

// ---- Files ---------------------------------------------------------------------------------------------------------

std::vector<std::string> names_in(const std::string& folder);  // sorted; none if there is no such folder

#endif
