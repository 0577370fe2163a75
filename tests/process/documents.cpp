// The documents say what the program does: these tests replay their sessions, and compare their tables with the
// program.

#include <algorithm>
#include <filesystem>
#include <map>
#include <regex>
#include <set>

#include "support/testing.h"

namespace fs = std::filesystem;

namespace {

// A program draws a new id each time: `id` stands for it in what we expect and in what came.
std::string with_id(const std::string& line, const std::string& id) {
  const std::string documented = "5f0c61aa97d2b3e4";
  const size_t at = line.find(documented);
  return at == std::string::npos ? line : line.substr(0, at) + id + line.substr(at + documented.size());
}

// Not docs/handout: it is laid out for another folder, where the suite Pack reads it.
std::vector<std::string> documents() {
  std::vector<std::string> all{"README.md"};
  for (const auto& entry : fs::recursive_directory_iterator("docs"))
    if (entry.path().extension() == ".md" && entry.path().parent_path() != "docs/handout")
      all.push_back(entry.path());
  return all;
}

// "#3-somebody-is-missing" for "## 3. Somebody is missing": as the usual viewers make it.
std::set<std::string> anchors(const std::string& document) {
  std::set<std::string> all;
  for (const std::string& line : lines_of(read_file(document))) {
    if (line.empty() || line[0] != '#') continue;
    std::string anchor = "#";
    for (const char c : line.substr(line.find(' ') + 1)) {
      if (c == ' ') anchor += '-';
      else if (std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c < 0)
        anchor += static_cast<char>(c < 0 ? c : std::tolower(c));
    }
    all.insert(anchor);
  }
  return all;
}

// All tests of all suites, as gtest lists them: "Suite.Name".
bool is_test(const std::string& name) {
  const auto* all = testing::UnitTest::GetInstance();
  for (int s = 0; s < all->total_test_suite_count(); ++s)
    for (int t = 0; t < all->GetTestSuite(s)->total_test_count(); ++t) {
      const auto* test = all->GetTestSuite(s)->GetTestInfo(t);
      if (std::string(test->test_suite_name()) + "." + test->name() == name) return true;
    }
  return false;
}

// What a document and its translation have in common: "## 3." of each heading, text in `backticks`, indented blocks.
struct Skeleton {
  std::vector<std::string> headings, blocks;
  std::map<std::string, int> spans;
};

Skeleton skeleton(const std::string& document) {
  Skeleton found;
  std::string prose;
  bool in_block = false;
  for (const std::string& line : lines_of(read_file(document))) {
    const bool indented = line.substr(0, 4) == "    ";
    if (indented && in_block) found.blocks.back() += "\n" + line;
    else if (indented) found.blocks.push_back(line);
    else prose += line + "\n";
    in_block = indented;
    if (line.empty() || line[0] != '#') continue;
    std::string heading = line.substr(0, line.find(' '));
    for (const auto& match : matches(line, "[0-9.]*[0-9]")) heading += " " + match[0].str();
    found.headings.push_back(heading);
  }
  for (const auto& match : matches(prose, "`([^`]+)`")) ++found.spans[match[1].str()];
  return found;
}

// Of a diagram, what is the same in every language: states, verbs, numbers, and who says what.
std::multiset<std::string> fixed_words(const std::string& block) {
  std::multiset<std::string> words;
  for (const auto& match : matches(block, "[A-Z]{2,}|[0-9.]*[0-9]|\\w+=|[<>] ")) words.insert(match[0]);
  return words;
}

bool is_translated(const std::string& block) {
  const auto is_of_another_script = [](char c) { return c < 0; };
  return std::any_of(block.begin(), block.end(), is_of_another_script);
}

}  // namespace

// What documents show as typed: of `code spans` and of indented blocks, without comments, each command that one of
// `words` begins; variables may stand before it.
std::set<std::string> commands(const std::string& words) {
  const std::string command = R"(^ *((?:[A-Z]+=\S+ +)*(?:)" + words + R"()(?: .*?)?)(?: {3,}.*| *# .*| *&)?$)";
  const std::regex pattern(command);
  std::set<std::string> found;
  for (const std::string& document : documents()) {
    std::string typed, prose;
    for (const std::string& line : lines_of(read_file(document))) {
      if (line.find("    ") == 0) typed += line + "\n";
      else prose += line + "\n";
    }
    for (const auto& match : matches(prose, "`([^`\n]+)`")) typed += match[1].str() + "\n";
    for (const auto& piece : lines_of(std::regex_replace(typed, std::regex("&& |; |\\| "), "\n"))) {
      std::smatch match;
      if (std::regex_match(piece, match, pattern)) found.insert(match[1]);
    }
  }
  return found;
}

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

// With a clean environment: this may be a run of make itself.
TEST_F(Documents, TheMakeCommandsNameTargetsThatExist) {
  const auto all = commands("make");
  for (const std::string& command : all) {
    std::string dry = command;
    dry.insert(dry.find("make") + 4, " -n");
    EXPECT_NO_THROW(network->run(0, "unset MAKEFLAGS MAKELEVEL PEER; COURSE=$PWD; " + dry + " >/dev/null")) << command;
  }
  EXPECT_THROW(network->run(0, "unset MAKEFLAGS; make -n nonsense 2>/dev/null"), std::runtime_error);
  EXPECT_GE(all.size(), 25u);
}

TEST_F(Documents, TheOptionsOfThePeerAreTakenAsTheyAreShown) {
  network = std::make_unique<Network>(1);
  const Folder scratch;
  fs::create_symlink(peer_program(), scratch.path("peer"));
  int tried = 0;
  for (const std::string& command : commands("\\./peer")) {
    if (command.find("⏎") != std::string::npos) continue;  // keys: Terminals has them
    EXPECT_NO_THROW(network->run(1, "cd " + scratch.path() + " && USER=ann " + command + " </dev/null >/dev/null"))
        << command;
    ++tried;
  }
  EXPECT_GE(tried, 5);
}

// As instructor.md has it, last year's solutions are made useless, and the year after those of this one.
TEST_F(Documents, TheProtocolIsAnotherOneEachYear) {
  NEEDS_PROGRAM("git", "git");
  ASSERT_NE(read_file("docs/instructor.md").find("\n    tests/yearly.sh 2027\n"), std::string::npos);
  const Folder scratch;
  network->run(0, "tar -c --exclude=./.git --exclude=./.build . | tar -xC " + scratch.path());
  const std::string here = "cd " + scratch.path() + " && ";
  const std::string commit = "git add -A && git -c user.name=ann -c user.email=ann@example.org commit -qm year";
  network->run(0, here + "git init -q . && " + commit);
  const std::string packets = read_file("docs/first-contact.md");  // the section about the .pcap keeps its first values
  const bool has_first = packets.find("25252", packets.find("\n## 2")) != std::string::npos;
  std::string old_word = "ChatByP2P";
  int old_port = 25252;
  for (const auto& [year, word, port] : {std::tuple(2098, "ChatByP98", 31283), {2099, "ChatByP99", 25546}}) {
    network->run(0, here + "tests/yearly.sh " + std::to_string(year) + " >.git/said");
    // The script itself counts from the first port of all.
    const std::string ports = "$(seq -s'|' " + std::to_string(old_port) + " " + std::to_string(old_port + 256) + ")";
    network->run(0, here + "git grep -nIE \"" + old_word + "/|\\b(" + ports + ")\\b\" -- . ':!tests/yearly.sh' >.git/left || true");
    const auto left = lines_of(read_file(scratch.path(".git/left")));
    EXPECT_EQ(left.size() > 10, year == 2098 && has_first);
    for (const std::string& line : left) {
      std::smatch match;
      ASSERT_TRUE(std::regex_search(line, match, std::regex("^docs/first-contact.md:(\\d+):"))) << line;
      network->run(0, here + "sed -n '1,/^## 2/p' docs/first-contact.md | test $(wc -l) -lt " + match[1].str());
    }
    const std::string constants = read_file(scratch.path("protocol.h"));
    EXPECT_NE(constants.find(std::string("kMagic = \"") + word + "/1\";"), std::string::npos);
    EXPECT_NE(constants.find("kDiscoveryPort = " + std::to_string(port) + ";"), std::string::npos);
    network->run(0, here + commit);
    network->run(0, here + "tests/yearly.sh " + std::to_string(year) + " >.git/said && git diff --exit-code");
    old_word = word;
    old_port = port;
  }
  network->run(0, here + "unset MAKEFLAGS MAKELEVEL; make CXXFLAGS=-O0 peer >/dev/null");
  Socket shared = Socket::udp(*network, 0, old_port);
  network->run(0, here + "./peer --name ann --interface lo </dev/null >/dev/null");
  EXPECT_EQ(shared.datagram().find("ChatByP99/1 HELLO id="), 0u);
}

TEST(References, LeadToFilesAndHeadingsThatExist) {
  int links = 0;
  for (const std::string& document : documents()) {
    const std::string text = read_file(document);
    for (const auto& match : matches(text, R"(\btests/[\w./-]*\w)"))
      EXPECT_TRUE(fs::exists(match[0].str())) << document << " names " << match[0];
    for (const auto& match : matches(text, R"(\]\(([^)#\s]*)(#[^)\s]*)?\))")) {
      const std::string target = match[1], anchor = match[2];
      if (target.find("://") != std::string::npos) continue;
      const auto file = target.empty() ? fs::path(document)
                                       : fs::path(document).parent_path() / target;
      EXPECT_TRUE(fs::exists(file)) << document << " links to " << target;
      EXPECT_TRUE(anchor.empty() || anchors(file).count(anchor) == 1) << document << " links to " << target << anchor;
      ++links;
    }
  }
  EXPECT_GT(links, 30);
}

// `transfer.cpp` `accept_connection()`, and in docs/pitfalls.md also a fragment that stands there: `::accept(`.
TEST(References, OfTheDocumentsToTheProgramNameFunctionsFragmentsAndTestsThatExist) {
  for (const std::string& document : documents()) {
    const std::string text = read_file(document);
    for (const auto& match : matches(text, R"(`([a-z]+\.(?:cpp|h))`[*,: ]* `(?:[A-Za-z]+::)*~?(\w+)\(\)`)")) {
      const std::string source = read_file(match[1]);
      EXPECT_TRUE(std::regex_search(source, std::regex("\\b" + match[2].str() + "\\("))) << document << ": " << match[0];
    }
    for (const auto& match : matches(text, R"(`([A-Z][A-Za-z]+\.[A-Z][A-Za-z0-9]{9,})`)"))
      EXPECT_TRUE(is_test(match[1])) << document << " names the test " << match[1];
  }
}

// `accept_connection()`, wherever it is.
TEST(References, OfTheTourAndTheExercisesNameFunctionsThatExist) {
  std::string sources = read_file("tests/support/testing.h");
  for (const char* file : {"protocol.h", "discovery.cpp", "transfer.cpp", "peer.cpp"}) sources += read_file(file);
  for (const char* document : {"docs/tour.md", "docs/exercises.md"}) {
    const std::string text = read_file(document);
    size_t named = 0;
    for (const auto& match : matches(text, R"(`(?:\w+::)*~?(\w+)\(\)`)")) {
      EXPECT_TRUE(std::regex_search(sources, std::regex("\\b" + match[1].str() + "\\("))) << document << ": " << match[0];
      ++named;
    }
    EXPECT_GT(named, 30u) << document;
  }
}

// A function: one line, or from its first line up to the bracket that stands below its beginning.
std::string body_of(const std::string& source, const std::smatch& head) {
  const std::string line = head[0], indent = head[1];
  if (line.back() != '{') return line;
  const auto begin = static_cast<size_t>(head.position());
  return source.substr(begin, source.find("\n" + indent + "}", begin) - begin);
}

// README.md: pattern, function, and what to look for there.
TEST(References, OfThePatternsLeadToTheirLines) {
  const std::string readme = read_file("README.md");
  size_t patterns = 0;
  for (const auto& row : matches(readme, R"(\| `([a-z]+\.(?:cpp|h))` `~?(\w+)\(\)` \| `([^`]+)` \|)")) {
    const std::string source = read_file(row[1]), fragment = row[3];
    bool is_there = false;
    for (const auto& head : matches(source, "\n( *)[^ \n][^\n;]*\\b" + row[2].str() + "\\([^\n]*"))
      is_there = is_there || body_of(source, head).find(fragment) != std::string::npos;
    EXPECT_TRUE(is_there) << row[1] << " has no " << fragment << " in " << row[2] << "()";
    ++patterns;
  }
  EXPECT_GE(patterns, 18u);
}

// docs/pitfalls.md lists each of its sections once under a milestone.
TEST(References, OfThePitfallsHaveAMilestone) {
  const std::string text = read_file("docs/pitfalls.md");
  std::multiset<int> listed, sections;
  for (const auto& row : matches(text, R"(\n\| \d, [^|]*\|([^|]*)\|([^|]*)\|)")) {
    const std::string cells = row[1].str() + "," + row[2].str();
    for (const auto& number : matches(cells, "\\d+")) listed.insert(std::stoi(number[0]));
  }
  for (const auto& section : matches(text, R"(\n### (\d+)\. )")) sections.insert(std::stoi(section[1]));
  EXPECT_GT(sections.size(), 50u);
  EXPECT_EQ(listed, sections);
}

// What pitfalls.md quotes, and what its changes replace, stands in the program as it is quoted.
TEST(References, OfThePitfallsQuoteTheProgram) {
  const std::string text = read_file("docs/pitfalls.md");
  size_t quoted = 0;
  for (const auto& match : matches(text, R"(\*\*Here\*\*: `([a-z]+\.(?:cpp|h))` `[^`]*`:\s+`([^`]+)`)")) {
    EXPECT_NE(read_file(match[1]).find(match[2]), std::string::npos) << match[0];
    ++quoted;
  }
  EXPECT_GE(quoted, 25u);
  std::string file;
  for (const std::string& line : lines_of(text)) {
    if (line.find("mutant: ") == 0) file = read_file(line.substr(8));
    if (line == "```") file.clear();
    if (file.empty() || line.find("- ") != 0) continue;
    EXPECT_NE(file.find(line.substr(2) + "\n"), std::string::npos) << line;
  }
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
  EXPECT_EQ(found, 10 + 18);
}

// The table at its top is a reader's map of the tests.
TEST(References, OfTheTestingPageNameEverySuite) {
  const std::string text = read_file("docs/testing.md");
  const auto* all = testing::UnitTest::GetInstance();
  for (int i = 0; i < all->total_test_suite_count(); ++i) {
    std::string name = all->GetTestSuite(i)->name();
    name = name.substr(name.rfind('/') + 1);  // without the prefix of an instance
    EXPECT_FALSE(matches(text, "[ ;,]" + name + "[ ;,]").empty()) << name << " is not in docs/testing.md";
  }
}

// A translation is written by hand, and the English text goes on changing: what must not differ is compared.
TEST(References, InChineseNameTheSameCommandsOptionsAndFormats) {
  const std::map<std::string, std::string> translations{{"README.md", "docs/zh/README.md"},
                                                        {"docs/lab.md", "docs/zh/lab.md"},
                                                        {"docs/interface.md", "docs/zh/interface.md"},
                                                        {"docs/assignment.md", "docs/zh/assignment.md"},
                                                        {"docs/protocol.md", "docs/zh/protocol.md"}};
  for (const auto& [document, translation] : translations) {
    const Skeleton english = skeleton(document), chinese = skeleton(translation);
    EXPECT_EQ(english.headings, chinese.headings) << translation;
    EXPECT_GT(english.spans.size(), 30u) << document;
    std::map<std::string, int> missing = english.spans;
    for (const auto& [span, times] : chinese.spans) missing[span] -= times;
    for (const auto& [span, times] : missing)
      EXPECT_EQ(times, 0) << translation << (times > 0 ? " lacks `" : " has too often `") << span << "`";
    // Elsewhere the comments in them are translated.
    if (document != "docs/protocol.md") continue;
    ASSERT_EQ(english.blocks.size(), chinese.blocks.size()) << translation;
    for (size_t i = 0; i < english.blocks.size(); ++i) {
      if (english.blocks[i] == chinese.blocks[i]) continue;
      EXPECT_TRUE(is_translated(chinese.blocks[i])) << chinese.blocks[i];
      EXPECT_EQ(fixed_words(english.blocks[i]), fixed_words(chinese.blocks[i])) << chinese.blocks[i];
    }
  }
}

// The starter for those who read Chinese differs in its comments, and in nothing else.
TEST(References, InChineseTheStarterIsTheSameProgram) {
  const auto without_comments = [](const std::string& file) {
    const std::string text = std::regex_replace(read_file(file), std::regex(" *(//[^\n]*|(^|\n)# [^\n]*|(^|\n)#(?=\n))"), "");
    return std::regex_replace(text, std::regex("\n+"), "\n");
  };
  for (const std::string name : {"Makefile", "main.cpp", "announcement.h", "announcement.cpp", "tests/announcement.cpp"}) {
    const std::string english = without_comments("docs/starter/" + name);
    EXPECT_GT(english.size(), 200u);
    EXPECT_EQ(english, without_comments("docs/zh/starter/" + name)) << name;
  }
}
