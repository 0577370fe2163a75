#include "announcement.h"

#include <cstdlib>
#include <map>
#include <sstream>

std::string format(const Announcement& said) {
  std::string line = "ChatByP2P/1 " + said.verb;
  line += " id=" + said.id;
  line += " ip=" + said.ip;
  line += " port=" + std::to_string(said.port);
  line += " name=" + said.name;
  line += " group=" + said.group;
  if (!said.to.empty()) line += " to=" + said.to;
  return line;
}

std::optional<Announcement> parse(const std::string& line) {
  std::istringstream words(line);
  std::string magic;
  Announcement said;
  words >> magic >> said.verb;
  if (magic != "ChatByP2P/1") return std::nullopt;
  if (said.verb != "HELLO" && said.verb != "HERE" && said.verb != "BYE") return std::nullopt;

  // The fields may come in any order, with others in between.
  std::map<std::string, std::string> fields;
  std::string word;
  while (words >> word) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos) continue;
    fields[word.substr(0, equals)] = word.substr(equals + 1);
  }
  for (const std::string key : {"id", "ip", "port", "name", "group"})
    if (fields[key].empty()) return std::nullopt;
  said.id = fields["id"];
  said.ip = fields["ip"];
  said.port = static_cast<uint16_t>(std::strtoul(fields["port"].c_str(), nullptr, 10));
  said.name = fields["name"];
  said.group = fields["group"];
  said.to = fields["to"];
  return said;
}
