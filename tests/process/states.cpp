// Clause 7 of docs/protocol.md, tried on the program: these tests read its tables, and send each example in the state
// that it belongs to. So the document always says what the program does.
//
// Two peers answer: ann asks her user about a file, and bea takes every one. Each example comes from an IP address of
// its own, and so meets nothing that another one has left.

#include <filesystem>

#include "support/testing.h"

namespace fs = std::filesystem;

namespace {

using Lines = std::vector<std::string>;

// A row: what is sent, what comes, and in which state the connection is then.
struct Row {
  std::vector<Lines> examples;  // each of them is the lines to send, one after the other
  std::string reply;            // "none", or how the reply begins
  std::string then;             // a state, or "ends"
};

struct Table {
  std::string heading;  // "7.2 STRANGER: until there is an introduction"
  std::vector<Row> rows;
};

std::vector<std::string> cells_of(const std::string& line) {
  std::vector<std::string> cells;
  for (const auto& match : matches(line, R"(\| ([^|]*) (?=\|))")) cells.push_back(match[1]);
  return cells;
}

// "`FILE :a` `MISSING :a` or `DANCE`"
std::vector<Lines> examples_in(const std::string& cell) {
  std::vector<Lines> examples;
  bool is_next = true;
  for (const auto& match : matches(cell, "`([^`]+)`| or ")) {
    const bool is_line = match[1].matched;
    if (is_line && is_next) examples.emplace_back();
    if (is_line) examples.back().push_back(match[1]);
    is_next = !is_line;
  }
  return examples;
}

// "`NO syntax …`" is "NO syntax "; "none" is none.
std::string reply_in(const std::string& cell) {
  const auto replies = matches(cell, "`([^`]+)`");
  const std::string reply = replies.empty() ? "none" : replies[0][1].str();
  return reply.substr(0, reply.find("…"));
}

std::vector<Table> tables_of_clause_7() {
  const std::string text = read_file("docs/protocol.md");
  const size_t begin = text.find("\n### 7.1");
  const size_t end = text.find("\n## 8");
  std::vector<Table> tables;
  bool has_examples = false;
  for (const std::string& line : lines_of(text.substr(begin, end - begin))) {
    if (line.rfind("### ", 0) == 0) tables.push_back({line.substr(4), {}});
    const auto cells = cells_of(line);
    const bool is_row = cells.size() == 4;
    if (line.empty()) has_examples = false;
    if (is_row && has_examples) tables.back().rows.push_back({examples_in(cells[1]), reply_in(cells[2]), cells[3]});
    if (is_row && cells[1] == "such as") has_examples = true;
  }
  return tables;
}

// The bytes that follow "DATA offset=3 size=3": "lo" and an LF.
std::string bytes_after(const std::string& line) {
  std::smatch match;
  if (!std::regex_match(line, match, std::regex("DATA offset=(\\d+) size=(\\d+)"))) return "";
  const size_t offset = std::stoul(match[1]);
  std::string stream;
  while (stream.size() < 100) stream += "hello\n";
  return stream.substr(offset % 6, std::stoul(match[2]));
}

bool begins_with(const std::string& text, const std::string& beginning) {
  return text.compare(0, beginning.size(), beginning) == 0;
}

const std::string kStop = "STOP :enough";

}  // namespace

class States : public OneHost {
 protected:
  void SetUp() override {
    OneHost::SetUp();
    if (IsSkipped()) return;
    network->peer(0, "ann").wait_for("ready .*:25253 .*");
    network->peer(0, "bea", {"--accept", "always"}).wait_for("ready .*:25254 .*");
    Socket any = connect(25253);
    any.send(filled("ChatByP2P/1 HELLO ZOE") + "\n");
    const std::string here = any.line();
    own_id = matches(here, " id=([0-9a-f]{16})")[0][1];
  }

  Socket connect(int port) {
    ++connections;
    address = "127.0." + std::to_string(1 + connections / 200) + "." + std::to_string(2 + connections % 200);
    return Socket::tcp(*network, 0, "127.0.0.1", port, address);
  }

  std::string filled(std::string line) const {
    const std::string text = read_file("docs/protocol.md");
    const std::string zoe = matches(text, "`ZOE` stands for\\s+`([^`]+)`")[0][1];
    const std::string zoes_id = zoe.substr(0, zoe.find(' '));
    const size_t at = line.find_last_of(' ') + 1;
    const std::string who = line.substr(at);
    line.resize(at);
    if (who == "ZOE") return line + zoe;
    if (who == "YAN") return line + std::regex_replace(zoe, std::regex(zoes_id), "id=00000000000000aa");
    if (who == "ANN") return line + std::regex_replace(zoe, std::regex(zoes_id), "id=" + own_id);
    return line + who;
  }

  void send(const Socket& socket, const std::string& line) const {
    socket.send(filled(line) + "\n" + bytes_after(line));
  }

  std::string part() const { return "downloads/hello.txt." + address + ".part"; }

  // A connection in a state, as the tables call it.
  Socket in_state(const std::string& heading) {
    const bool is_folder = heading.find("a folder") != std::string::npos;
    const bool is_stranger = heading.find("STRANGER") != std::string::npos;
    const bool is_ready = heading.find("READY") != std::string::npos;
    const bool is_asking = heading.find("ASKING") != std::string::npos;
    const bool is_beginning = heading.find("BEGINNING") != std::string::npos;
    Socket socket = connect(is_stranger || is_ready || is_asking ? 25253 : 25254);
    if (is_stranger) return socket;
    send(socket, "ChatByP2P/1 HELLO ZOE");
    EXPECT_TRUE(begins_with(reply_of(socket), "OK ChatByP2P/1 HERE "));
    if (is_ready) return socket;
    if (is_beginning) network->folder("bea").write(part(), beginning);
    send(socket, is_folder ? "OFFER size=12 files=3 :photos/" : "OFFER size=6 files=1 :hello.txt");
    if (is_asking) return socket;
    const std::string reply = socket.line();
    EXPECT_EQ(begins_with(reply, "OK entries=1 offset=3 crc="), is_beginning) << reply;
    EXPECT_TRUE(is_beginning || reply == "OK") << reply;
    return socket;
  }

  // What comes, or, where nothing does, a word about that.
  static std::string reply_of(Socket& socket) {
    try {
      return socket.line();
    } catch (const std::exception& silence) {
      return silence.what();
    }
  }

  // That the connection is in that state, by what it answers to another line.
  void expect_state(Socket& socket, const std::string& state, const Lines& sent) {
    if (state == "ends") {
      EXPECT_TRUE(socket.is_closed());
    } else if (state == "STRANGER") {
      send(socket, "DANCE");
      EXPECT_TRUE(begins_with(reply_of(socket), "NO stranger "));
    } else if (state == "READY") {
      send(socket, "DANCE");
      EXPECT_TRUE(begins_with(reply_of(socket), "NO unknown "));
    } else if (sent[0] == "RESUME") {
      send(socket, "DATA offset=3 size=3");
      send(socket, "END size=6 crc=3015617425");
      EXPECT_EQ(reply_of(socket), "OK :hello.txt");
    } else {
      EXPECT_TRUE(state == "ASKING" || state == "RECEIVING") << state;
      send(socket, kStop);
      EXPECT_TRUE(begins_with(reply_of(socket), "NO stopped "));
    }
  }

  void try_example(const std::string& heading, const Lines& lines, const Row& row) {
    ++tried;
    SCOPED_TRACE(heading + ", " + testing::PrintToString(lines));
    fs::remove(network->folder("bea").path("downloads/hello.txt"));
    fs::remove_all(network->folder("bea").path("downloads/photos"));
    Socket socket = in_state(heading);
    for (const std::string& line : lines) send(socket, line);
    if (row.reply != "none") {
      const std::string reply = reply_of(socket);
      EXPECT_TRUE(begins_with(reply, row.reply)) << reply << ", and not " << row.reply;
    }
    expect_state(socket, row.then.substr(0, row.then.find(',')), lines);
  }

  void try_table(const Table& table) {
    for (const Row& row : table.rows)
      for (const Lines& lines : row.examples) try_example(table.heading, lines, row);
  }

  std::string own_id;  // ann's
  std::string address;  // from which the last connection came
  std::string beginning = "hel";  // what an earlier try has left of hello.txt
  int connections = 0;
  int tried = 0;
};

TEST_F(States, AnswerEachLineAsTheTablesOfTheProtocolSay) {
  for (const Table& table : tables_of_clause_7()) {
    const int before = tried;
    try_table(table);
    const bool is_of_a_state = !matches(table.heading, "^7\\.[2-7] ").empty();
    EXPECT_EQ(tried > before, is_of_a_state) << table.heading;
  }
  EXPECT_GE(tried, 100);
}

// "Anything else: the beginning is thrown away, except at a right STOP", and it is as for a file that begins.
TEST_F(States, ThatBeginThrowAwayWhatAnEarlierTryHasLeftButForResumeAndStop) {
  beginning = "jel";
  for (const Table& table : tables_of_clause_7()) {
    if (table.heading.find("RECEIVING: a file") == std::string::npos) continue;
    for (const Row& row : table.rows)
      for (const Lines& lines : row.examples) {
        try_example("BEGINNING", lines, row);
        const std::string path = network->folder("bea").path(part());
        const std::string left = fs::exists(path) ? read_file(path) : "";
        EXPECT_EQ(left == beginning, lines[0] == kStop) << testing::PrintToString(lines);
      }
  }
  EXPECT_GE(tried, 20);
}

// "Asks no user": so what comes in one piece with the offer is not too early.
TEST_F(States, OfAReceiverThatAsksNoUserDoNotIncludeAsking) {
  Socket socket = connect(25254);
  socket.send(filled("ChatByP2P/1 HELLO ZOE") + "\nOFFER size=6 files=1 :hello.txt\n" +
              "DATA offset=0 size=6\nhello\nEND size=6 crc=3015617425\n");
  EXPECT_TRUE(begins_with(reply_of(socket), "OK ChatByP2P/1 HERE "));
  EXPECT_EQ(reply_of(socket), "OK");
  EXPECT_EQ(reply_of(socket), "OK :hello.txt");
}

// What is looked at before anything else, whatever the state.
TEST_F(States, AreNotAskedAboutWhatIsNoLine) {
  const std::vector<std::pair<std::string, std::string>> bytes = {
      {"NO long ", std::string(4097, 'x')}, {"NO failed ", "MSG number=1"}, {"NO text ", "MSG number=1 :\xff\n"}};
  const auto tables = tables_of_clause_7();
  const std::string text = read_file("docs/protocol.md");
  const std::string general = text.substr(text.find("\n### 7.1"), text.find("\n### 7.2") - text.find("\n### 7.1"));
  EXPECT_EQ(matches(general, "\\| `NO \\w+ …` \\| ends \\|").size(), bytes.size());
  for (const auto& [reply, sent] : bytes) {
    EXPECT_NE(general.find("`" + reply + "…`"), std::string::npos);
    for (const Table& table : tables) {
      if (matches(table.heading, "^7\\.[2-7] ").empty()) continue;
      Socket socket = in_state(table.heading);
      socket.send(sent);
      socket.end_output();
      EXPECT_TRUE(begins_with(reply_of(socket), reply)) << table.heading << ", " << reply;
      EXPECT_TRUE(socket.is_closed());
    }
  }
}

// 7.8: the end of the connection between two lines.
TEST_F(States, AnswerTheEndOfAConnectionOnlyDuringAnOfferOrATransfer) {
  for (const Table& table : tables_of_clause_7()) {
    if (matches(table.heading, "^7\\.[2-7] ").empty()) continue;
    SCOPED_TRACE(table.heading);
    const bool is_transfer = matches(table.heading, "STRANGER|READY").empty();
    Socket socket = in_state(table.heading);
    socket.end_output();
    if (is_transfer) {
      EXPECT_TRUE(begins_with(reply_of(socket), "NO failed "));
    }
    EXPECT_TRUE(socket.is_closed());
  }
}
