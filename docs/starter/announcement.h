// The line with which a peer speaks of itself: docs/protocol.md, 4.1.
//
// It knows no socket, so tests/announcement.cpp can try it in a millisecond. Keep it that way: put
// every line that peers exchange into such a struct, with format() and parse().

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

// Nothing where the line is no announcement. It does not check all that the specification asks:
// what is a name, an id, an address? You will.
std::optional<Announcement> parse(const std::string& line);

#endif
