// docs/pictures and docs/zh/pictures: each SVG shows what its source makes, and nothing that a page may not have.

#include <algorithm>
#include <filesystem>
#include <regex>
#include <set>

#include "support/testing.h"

namespace fs = std::filesystem;

namespace {

std::vector<fs::path> pictures(const std::string& folder, const std::string& extension) {
  std::vector<fs::path> all;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == extension) all.push_back(entry.path());
  return all;
}

// Its words, and which box leads to which. Where the boxes are depends on the version of dot.
std::vector<std::string> words_of(const std::string& svg) {
  std::vector<std::string> all;
  for (const auto& match : matches(svg, "<(text|title|tspan)[^>]*>([^<]*)<")) all.push_back(match[2]);
  std::sort(all.begin(), all.end());
  return all;
}

// Drops what differs between runs: times, ids, the ports that the kernel chose.
std::string comparable(std::string word) {
  for (const auto& [pattern, name] : std::vector<std::pair<std::string, std::string>>{
           {"^ *\\d+\\.\\d{4}$", "TIME"},
           {"(id|to)=[0-9a-f]{16}", "$1=ID"},
           {"\\b(3[2-9]|[45]\\d|60)\\d{3}\\b", "PORT"}})
    word = std::regex_replace(word, std::regex(pattern), name);
  return word;
}

}  // namespace

class Pictures : public OneHost {
 protected:
  // Each source in docs/pictures makes, with that program, the picture that is kept beside it.
  void expect_what_they_make(const std::vector<fs::path>& sources, const std::string& program) {
    const Folder scratch;
    for (const fs::path& source : sources) {
      const std::string made = scratch.path(source.stem().string() + ".svg");
      network->run(0, program + " " + source.string() + " >" + made);
      const std::string kept = read_file(fs::path(source).replace_extension(".svg"));
      EXPECT_GT(words_of(kept).size(), 10u) << source;
      EXPECT_EQ(words_of(kept), words_of(read_file(made))) << source << ": make pictures";
    }
  }
};

TEST_F(Pictures, AreWhatTheirSourcesMake) {
  NEEDS_PROGRAM("dot", "graphviz");
  const auto sources = pictures("docs/pictures", ".dot");
  expect_what_they_make(sources, "dot -Tsvg");
  EXPECT_GE(sources.size(), 6u);
}

// Each value is a word as well, so a curve of other numbers has other words.
TEST_F(Pictures, OfTheCurvesAreWhatTheMeasurementsMake) {
  NEEDS_PROGRAM("gnuplot", "gnuplot-nox");
  const auto sources = pictures("docs/pictures", ".gp");
  expect_what_they_make(sources, "gnuplot");
  EXPECT_EQ(sources.size(), 2u);
}

// The tables in performance.md are those from which the curves are drawn.
TEST_F(Pictures, OfTheCurvesHaveTheirNumbersInTheDocument) {
  const std::string document = read_file("docs/performance.md");
  size_t lines = 0;
  for (const fs::path& table : pictures("docs/pictures", ".txt")) {
    std::istringstream text(read_file(table));
    for (std::string line; std::getline(text, line); ++lines)
      EXPECT_NE(document.find("    " + line + "\n"), std::string::npos) << table << ": " << line;
  }
  EXPECT_GT(lines, 10u);
}

// Without the blanks that keep a label away from its arrow.
std::string squeezed(std::string label) {
  label = std::regex_replace(label, std::regex("^ +| +$"), "");
  return std::regex_replace(label, std::regex(R"(\\n +)"), R"(\n)");
}

TEST_F(Pictures, InChineseAreWhatTheSameSourcesAndTheTableMake) {
  NEEDS_PROGRAM("dot", "graphviz");
  const Folder scratch;
  std::set<std::string> labels;
  for (const fs::path& source : pictures("docs/pictures", ".dot")) {
    const std::string name = source.stem().string();
    network->run(0, "awk -f docs/zh/pictures/translate.awk docs/zh/pictures/labels.txt " + source.string() + " >" + scratch.path("dot"));
    network->run(0, "dot -Tsvg " + scratch.path("dot") + " >" + scratch.path("svg"));
    const std::string kept = read_file("docs/zh/pictures/" + name + ".svg");
    EXPECT_EQ(words_of(kept), words_of(read_file(scratch.path("svg")))) << name << ": make pictures";
    EXPECT_NE(words_of(kept), words_of(read_file(fs::path(source).replace_extension(".svg")))) << name << " is in English";
    const std::string text = read_file(source);
    for (const auto& label : matches(text, "label=\"([^\"]*)\"")) labels.insert(squeezed(label[1]));
  }
  for (const std::string& line : lines_of(read_file("docs/zh/pictures/labels.txt"))) {
    if (line.empty() || line[0] == '#') continue;
    EXPECT_EQ(labels.count(line.substr(0, line.find(" = "))), 1u) << "no picture has: " << line;
  }
}

TEST_F(Pictures, OfTheFirstContactIsFromARunLikeThis) {
  const Folder scratch;
  network->run(0, "tests/first-contact.sh trace --svg >" + scratch.path("made.svg"));
  std::vector<std::string> made;
  for (const std::string& word : words_of(read_file(scratch.path("made.svg"))))
    made.push_back(comparable(word));
  const std::string kept = read_file("docs/pictures/first-contact.svg");
  EXPECT_GT(words_of(kept).size(), 50u);
  for (const std::string& word : words_of(kept))
    EXPECT_GE(std::count(made.begin(), made.end(), comparable(word)), 1) << word;
}

// What README.md shows first. Only the time of day differs between runs.
TEST_F(Pictures, OfASessionIsFromARunLikeThis) {
  NEEDS_PROGRAM("tmux", "tmux");
  const Folder scratch;
  network->run(0, "PEER=" + peer_program() + " tests/session.sh >" + scratch.path("made.svg"));
  std::vector<std::string> made, kept;
  for (const auto& [file, lines] : {std::pair(scratch.path("made.svg"), &made), {"docs/pictures/session.svg", &kept}})
    for (const std::string& word : words_of(read_file(file)))
      lines->push_back(std::regex_replace(word, std::regex("^\\d\\d:\\d\\d"), "X"));
  std::sort(made.begin(), made.end());
  std::sort(kept.begin(), kept.end());
  EXPECT_GT(kept.size(), 25u);
  EXPECT_EQ(kept, made) << "make pictures";
  for (const std::string& line : kept) EXPECT_LE(line.size(), 80u + 10) << line;  // an entity, a character of three bytes
}

// make pictures leaves no change behind where nothing has changed.
TEST_F(Pictures, OfARunStayIfAnotherRunShowsTheSame) {
  Folder scratch;
  const std::string first = read_file("docs/pictures/session.svg");
  const std::string file = scratch.write("kept.svg", first);
  const std::string later = std::regex_replace(first, std::regex("\\d\\d:\\d\\d (delivered|bob|ann)"), "03:07 $1");
  ASSERT_NE(later, first);
  network->run(0, "tests/picture.sh " + file + " cat " + scratch.write("later.svg", later));
  EXPECT_EQ(read_file(file), first);
  network->run(0, "! tests/picture.sh " + file + " false");
  EXPECT_EQ(read_file(file), first);
  const std::string other = std::regex_replace(later, std::regex("yes please"), "no thanks");
  network->run(0, "tests/picture.sh " + file + " cat " + scratch.write("other.svg", other));
  EXPECT_EQ(read_file(file), other);
}

TEST_F(Pictures, NeedNothingElse) {
  NEEDS_PROGRAM("xmllint", "libxml2-utils");
  std::vector<fs::path> all = pictures("docs/pictures", ".svg");
  for (const fs::path& picture : pictures("docs/zh/pictures", ".svg")) all.push_back(picture);
  EXPECT_GE(all.size(), 14u);
  for (const fs::path& picture : all) {
    const std::string svg = read_file(picture);
    EXPECT_NO_THROW(network->run(0, "xmllint --noout --nonet " + picture.string())) << picture;
    for (const std::string word : {"<script", "href=\"http", "url(", "@import", "<image"})
      EXPECT_EQ(svg.find(word), std::string::npos) << picture << " has " << word;
    const bool has_background = svg.find("fill=\"white\"") != std::string::npos ||
                                svg.find(".page { fill: #ffffff;") != std::string::npos;
    EXPECT_TRUE(has_background) << picture << " is not legible on every page";
    // A reader's machine may have none of the fonts that are named, but a generic family it has.
    const bool has_generic_font = svg.find("sans-serif\"") != std::string::npos || svg.find("monospace") != std::string::npos;
    EXPECT_TRUE(has_generic_font) << picture << " needs a font of its own";
  }
}
