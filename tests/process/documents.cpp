// The documents say what the program does: their sessions are played again, their tables compared with the program.

#include <regex>
#include <sstream>

#include "support/testing.h"

namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

// A program's own id is drawn anew each time: `id` stands for it in what is expected and in what came.
std::string with_id(const std::string& line, const std::string& id) {
  const std::string documented = "5f0c61aa97d2b3e4";
  const size_t at = line.find(documented);
  return at == std::string::npos ? line : line.substr(0, at) + id + line.substr(at + documented.size());
}

std::string id_in(const std::string& line) {
  std::smatch match;
  return std::regex_search(line, match, std::regex(" id=([0-9a-f]{16})")) ? match[1].str() : "";
}

}  // namespace

class Documents : public OneHost {};

TEST_F(Documents, TheSessionsOfTheProtocolArePlayedAgain) {
  const std::string text = read_file("docs/protocol.md");
  int sessions = 0;
  std::unique_ptr<Socket> socket;
  bool over_udp = false;
  std::string id;
  for (const std::string& line : lines_of(text.substr(text.find("\n## 10.")))) {
    if (line.find("(TCP, port 25253):") != std::string::npos || line.find("(UDP, port 25253):") != std::string::npos) {
      socket.reset();
      network = std::make_unique<Network>(0);
      network->peer(0, "ann", {"--accept", "always"}).wait_for("ready ann@127.0.0.1:25253 lab");
      network->folder("ann").write("downloads/broken.txt.127.0.0.1.part", "hel");
      over_udp = line.find("UDP") != std::string::npos;
      socket = std::make_unique<Socket>(over_udp ? Socket::udp(*network, 0, 40000) : Socket::tcp(*network, 0, "127.0.0.1", 25253));
      ++sessions;
    } else if (line.substr(0, 6) == "    > ") {
      const std::string said = with_id(line.substr(6), id);
      if (over_udp) socket->send_to("127.0.0.1", 25253, said);
      else socket->send(said + "\n");
    } else if (line.substr(0, 6) == "    < ") {
      const std::string came = over_udp ? socket->datagram() : socket->line();
      if (line.find("id=5f0c61aa97d2b3e4") != std::string::npos) id = id_in(came);
      EXPECT_EQ(came, with_id(line.substr(6), id));
    }
  }
  EXPECT_EQ(sessions, 6);
}

TEST_F(Documents, TheSessionOfTheReadmeIsWhatTheDemoPrints) {
  const Folder scratch;
  network->run(0, "tests/demo.sh > " + scratch.path("demo"));
  const std::string readme = read_file("README.md");
  std::string block;
  int compared = 0;
  for (const std::string& line : lines_of(read_file(scratch.path("demo")) + "---\n")) {
    if (line.substr(0, 3) != "---") {
      block += "    " + line + "\n";
    } else {
      if (block.find("ready ann@") == 4 || block.find("ready bob@") == 4) {
        EXPECT_NE(readme.find("\n\n" + block + "\n"), std::string::npos) << "README.md does not show:\n" << block;
        ++compared;
      }
      block.clear();
    }
  }
  EXPECT_EQ(compared, 2);
}

TEST_F(Documents, TheTablesOfTheInterfaceNameEveryOptionAndCommand) {
  const std::string interface = read_file("docs/interface.md"), readme = read_file("README.md");
  Process& options = network->peer(0, "x", {"--help"});
  EXPECT_EQ(options.exit_status(), 0);
  Process& commands = network->peer(0, "x");
  commands.say("/help");
  commands.say("/quit");
  EXPECT_EQ(commands.exit_status(), 0);
  std::smatch match;
  int found = 0;
  for (const std::string& line : lines_of(options.output() + commands.output())) {
    if (!std::regex_match(line, match, std::regex("(?:help: (/\\w+).*|  (--\\w+).*)"))) continue;
    const std::string name = match[1].str() + match[2].str();
    EXPECT_NE(interface.find("`" + name), std::string::npos) << name << " is not in docs/interface.md";
    EXPECT_TRUE(name[0] == '-' || readme.find("`" + name) != std::string::npos) << name << " is not in README.md";
    ++found;
  }
  EXPECT_EQ(found, 7 + 18);
}
