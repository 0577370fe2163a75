// The line in which a peer says who it is: docs/protocol.md, 4.1.
//
// It uses no socket, so tests/announcement.cpp can test it in a millisecond. Keep it that way:
// write such a struct, with format() and parse(), for every line that peers exchange.

#ifndef ANNOUNCEMENT_H
#define ANNOUNCEMENT_H

#include <cstdint>
#include <optional>
#include <string>

struct Announcement {
  std::string verb;  // HELLO, HERE or BYE
  std::string id;
  std::string ip;
  uint16_t port = 0;
  std::string name;
  std::string group;
  std::string to;    // whose HELLO this HERE answers; else empty
};

std::string format(const Announcement& said);

// Returns nothing if the line is not an announcement. It does not check everything that the
// specification asks for: what is a valid name, id, address? That is for you to add.
std::optional<Announcement> parse(const std::string& line);

#endif
