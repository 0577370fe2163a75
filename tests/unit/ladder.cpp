// tests/support/ladder.h: what a ladder looks like as text, and that its SVG is one.

#include "support/ladder.h"

#include <gtest/gtest.h>

#include "support/testing.h"

namespace {

// Without the heads, and without the times.
std::string rows(const Ladder& ladder) {
  std::string all;
  for (const std::string& line : lines_of(ladder.text())) {
    const bool is_row = line.size() > 11 && line[8] != ' ' && line[8] != 's';
    if (is_row) all += line.substr(11) + "\n";
  }
  return all;
}

Ladder two() {
  Ladder ladder;
  ladder.add_column("ann", "10.77.0.1");
  ladder.add_column("bob", "10.77.0.2");
  return ladder;
}

// "word0 word1 word2 ..."
std::string text_of_words(int words) {
  std::string text = "word0";
  for (int i = 1; i < words; ++i) text += " word" + std::to_string(i);
  return text;
}

size_t count(const std::string& text, const std::string& part) {
  return matches(text, part).size();
}

}  // namespace

TEST(Ladders, HaveAColumnForEachHostAndAnArrowForEachMessage) {
  Ladder ladder = two();
  ladder.message(0.5, "ann", "bob", "HELLO");
  ladder.message(0.75, "bob", "ann", "HERE");
  EXPECT_EQ(ladder.text(),
            "  seconds  ann                                                               bob\n"
            "           10.77.0.1                                                   10.77.0.2\n"
            "           |                                                                   |\n"
            "   0.5000  |-- HELLO --------------------------------------------------------->|\n"
            "   0.7500  |<- HERE -----------------------------------------------------------|\n");
}

TEST(Ladders, MarkWhatWasExpectedWhereItShouldHaveBeen) {
  Ladder ladder = two();
  ladder.message(0, "ann", "bob", "HELLO");
  ladder.missing(8, "bob", "ann", "HERE");
  ladder.missing_note(9, "ann", "joined bob");
  ladder.message(10, "ann", "bob", "BYE");
  const auto lines = lines_of(ladder.text());
  ASSERT_EQ(lines.size(), 7u);
  EXPECT_NE(lines[4].find("8.0000  |<. MISSING: HERE ........"), std::string::npos) << lines[4];
  EXPECT_NE(lines[5].find("9.0000  X MISSING: joined bob "), std::string::npos) << lines[5];
}

TEST(Ladders, MarkWhatMustNotHaveComeWhereItCame) {
  Ladder ladder = two();
  ladder.wrong(1, "bob", "ann", "BYE");
  ladder.wrong(2, "ann", "ann", "left bob");
  const auto lines = lines_of(ladder.text());
  ASSERT_EQ(lines.size(), 5u);
  EXPECT_NE(lines[3].find("1.0000  |<= WRONG: BYE ========="), std::string::npos) << lines[3];
  EXPECT_NE(lines[4].find("2.0000  X WRONG: left bob "), std::string::npos) << lines[4];
  EXPECT_EQ(count(ladder.svg("two"), "class=\"wrong\""), 1u);
  EXPECT_EQ(count(ladder.svg("two"), "<text [^>]*class=\"fault\">WRONG: "), 2u);
}

TEST(Ladders, ShowThatSomethingWasLost) {
  Ladder ladder = two();
  ladder.lost(0, "ann", "bob", "HELLO");
  ladder.lost(1, "bob", "ann", "HELLO");
  const auto lines = lines_of(ladder.text());
  ASSERT_EQ(lines.size(), 5u);
  EXPECT_NE(lines[3].find("---x    |"), std::string::npos) << lines[3];
  EXPECT_NE(lines[4].find("|    x- HELLO ---"), std::string::npos) << lines[4];
}

TEST(Ladders, NeverAreWiderThan80Columns) {
  for (int columns = 1; columns <= 11; ++columns) {
    Ladder ladder;
    for (int i = 0; i < columns; ++i) ladder.add_column("u" + std::to_string(i), "10.77.0.100");
    const std::string last = "u" + std::to_string(columns - 1);
    const std::string text = text_of_words(40);
    for (int i = 0; i < columns; ++i) {
      const std::string name = "u" + std::to_string(i);
      ladder.message(i, "u0", name, text);
      ladder.message(i, last, name, text);
      ladder.lost(i, name, last, text);
      ladder.missing(i, name, "u0", text);
      ladder.wrong(i, name, "u0", text);
      ladder.note(i, name, text);
      ladder.note(i, name, std::string(200, 'x'));
    }
    for (const std::string& line : lines_of(ladder.text())) EXPECT_LE(line.size(), 80u) << line;
    EXPECT_EQ(count(ladder.text(), "word39"), size_t(6 * columns)) << ladder.text();
  }
}

TEST(Ladders, WrapALongTextBetweenTheirLifelines) {
  Ladder ladder = two();
  ladder.message(0, "ann", "bob", "first line\n" + text_of_words(20));
  const auto lines = lines_of(ladder.text());
  for (size_t i = 2; i < lines.size(); ++i) {
    ASSERT_EQ(lines[i].size(), 80u) << lines[i];
    EXPECT_EQ(lines[i][11], '|') << lines[i];
    EXPECT_EQ(lines[i].back(), '|') << lines[i];
  }
  EXPECT_GT(lines.size(), 5u);
}

TEST(Ladders, CountWideCharactersAsTwoAndEscapeWhatSteersATerminal) {
  Ladder ladder = two();
  ladder.message(0, "ann", "bob", "图书馆");
  ladder.message(1, "ann", "bob", "\x1b[2J \xff \xe2\x80\xae \xc0\x80");
  ladder.message(2, "ann", "bob", std::string("a\0b", 3));
  EXPECT_EQ(rows(ladder),
            "|-- 图书馆 -------------------------------------------------------->|\n"
            "|-- \\x1b[2J \\xff \\xe2\\x80\\xae \\xc0\\x80 ---------------------------->|\n"
            "|-- a\\x00b -------------------------------------------------------->|\n");
}

TEST(Ladders, DrawOnceWhatComesAgainAndAgain) {
  Ladder ladder = two();
  for (int i = 0; i < 1000; ++i) ladder.message(i, "ann", "bob", "HELLO");
  for (int i = 0; i < 3; ++i) ladder.message(1000 + i, "ann", "bob", "BYE");
  const std::string text = ladder.text();
  EXPECT_EQ(count(text, "HELLO"), 1u) << text;
  EXPECT_EQ(count(text, "1000 times, until 999.0000 s"), 1u) << text;
  EXPECT_EQ(count(text, "BYE"), 3u) << text;
}

TEST(Ladders, ShowTheLastRowsAndHowManyWereLeftOut) {
  Ladder ladder = two();
  for (int i = 0; i < 10; ++i) ladder.message(i, "ann", "bob", "number " + std::to_string(i));
  const std::string text = ladder.text(3);
  EXPECT_EQ(count(text, "number [789]"), 3u) << text;
  EXPECT_EQ(count(text, "number"), 3u) << text;
  EXPECT_EQ(count(text, "\\(7 earlier rows are left out\\)"), 1u) << text;
  EXPECT_EQ(count(ladder.svg("", 3), "number"), 3u);
  EXPECT_EQ(count(ladder.svg("", 3), "7 earlier rows are left out"), 1u);
}

TEST(Ladders, ShowTheFaultHoweverMuchCameAfterIt) {
  Ladder ladder = two();
  for (int i = 0; i < 20; ++i) {
    if (i == 5) ladder.wrong(i, "ann", "bob", "number 5");
    else ladder.message(i, "ann", "bob", "number " + std::to_string(i));
  }
  const std::string text = ladder.text(6);
  EXPECT_EQ(count(text, "number"), 6u) << text;
  EXPECT_EQ(count(text, "number [2-7]"), 6u) << text;
  EXPECT_EQ(count(text, "WRONG: number 5"), 1u) << text;
  EXPECT_EQ(count(text, "\\(2 earlier rows are left out\\)"), 1u) << text;
  EXPECT_EQ(count(text, "\\(12 later rows are left out\\)"), 1u) << text;
  EXPECT_EQ(count(ladder.svg("", 6), "WRONG: number 5"), 1u);
}

TEST(Ladders, AddAColumnForWhomeverARowNames) {
  Ladder ladder;
  ladder.message(0, "zoe", "ann", "HELLO");
  ladder.note(1, "zoe", "waits");
  EXPECT_NE(ladder.text().find("seconds  zoe"), std::string::npos) << ladder.text();
  ladder.message(2, "zoe", "zoe", "HELLO");
  EXPECT_NE(ladder.text().find("* to itself: HELLO"), std::string::npos) << ladder.text();
}

TEST(Ladders, AreDocumentsOfTheirOwnAsSvg) {
  NEEDS_PROGRAM("xmllint", "libxml2-utils");
  Ladder ladder = two();
  ladder.message(0, "ann", "bob", "<script>&amp; \"]]> \x1b \xff");
  ladder.lost(1, "bob", "ann", "lost");
  ladder.missing(2, "bob", "ann", "HERE");
  ladder.note(3, "bob", "a note");
  ladder.missing_note(4, "ann", "another");
  const std::string svg = ladder.svg("R3 <of> \x01 ann");
  const Folder folder;
  const std::string file = folder.write("ladder.svg", svg);
  EXPECT_EQ(std::system(("xmllint --noout --nonet " + file).c_str()), 0) << svg;
  EXPECT_EQ(svg.find("<script"), std::string::npos);
  EXPECT_EQ(count(svg, "(href|src|url|@import)"), 0u) << "it needs nothing else";
  EXPECT_EQ(count(svg, "class=\"missing\""), 1u);
  EXPECT_EQ(count(svg, "MISSING: "), 2u);
}

TEST(Ladders, AreAsWideAsTheirTitle) {
  const std::string title(120, 'x');
  const std::string svg = two().svg(title);
  const auto found = matches(svg, "width=\"([0-9]+)\"");
  ASSERT_FALSE(found.empty()) << svg;
  EXPECT_GT(std::stoul(found[0][1]), 120 * 8u);
}
