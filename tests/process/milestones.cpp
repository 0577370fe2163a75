// docs/assignment.md and the grader's cases agree on the points of each milestone and on its clauses.
// tests/grade/unfinished.sh checks that no case needs anything from a later milestone; tests/grade/smallest.sh, the
// smallest peer's points.

#include <cmath>
#include <map>
#include <regex>
#include <set>

#include "support/testing.h"

namespace {

struct GraderCase {
  std::string milestone, id, requirement;
  double points = 0;
  std::vector<std::string> clauses;
};

std::vector<std::string> parts_of(const std::string& text, const std::string& between) {
  return lines_of(std::regex_replace(text, std::regex(between), "\n"));
}

// As `grade --cases` prints them; the points of those that take long are shared otherwise, and not counted here.
std::vector<GraderCase> cases(const std::string& setting = "") {
  const Folder scratch;
  const std::string list = scratch.path("cases");
  EXPECT_EQ(std::system((setting + " .build/grade --cases >" + list).c_str()), 0);
  std::vector<GraderCase> all;
  for (const std::string& line : lines_of(read_file(list))) {
    const auto columns = parts_of(line, "\t");
    GraderCase one;
    one.milestone = columns.at(0) == "5" ? "extra" : columns.at(0);
    one.id = columns.at(1);
    one.requirement = one.id.substr(0, one.id.find('.'));
    one.points = std::stod(columns.at(2));
    one.clauses = parts_of(columns.at(3), ", ");
    all.push_back(one);
  }
  EXPECT_GT(all.size(), 200u);
  return all;
}

// "P1, P4.1 to P4.3; I2": all of them.
std::set<std::string> clauses_in(const std::string& text) {
  std::set<std::string> all;
  for (const auto& match : matches(text, R"(([PI](?:\d+\.)?)(\d+)(?: to \1(\d+))?)")) {
    const int first = std::stoi(match[2]), last = match[3].matched ? std::stoi(match[3]) : first;
    for (int number = first; number <= last; ++number) all.insert(match[1].str() + std::to_string(number));
  }
  return all;
}

std::string handout() { return read_file("docs/assignment.md"); }

// "P6" is about P6.2, and P6.2 has to do with P6.
bool covers(const std::string& one, const std::string& other) {
  return one == other || one.find(other + ".") == 0 || other.find(one + ".") == 0;
}

bool are_covered(const std::vector<std::string>& clauses, const std::set<std::string>& by) {
  for (const std::string& clause : clauses) {
    bool is_covered = false;
    for (const std::string& one : by) is_covered = is_covered || covers(one, clause);
    if (!is_covered) return false;
  }
  return true;
}

}  // namespace

TEST(Milestones, AreWorthInTheHandoutWhatTheGraderGives) {
  std::map<std::string, double> worth;
  for (const GraderCase& one : cases()) worth[one.milestone] += one.points;
  const std::string text = handout();
  const std::string points = text.substr(text.find("\n## 6. Points"), text.find("\n## 7.") - text.find("\n## 6. Points"));
  int sum = 0;
  for (const auto& row : matches(points, R"(\| milestone (\d) \| (\d+) \|)")) {
    EXPECT_NEAR(std::stod(row[2]), worth[row[1]], 1) << row[0] << ": write what it is now";
    sum += std::stoi(row[2]);
  }
  EXPECT_EQ(sum, 100);
  EXPECT_NEAR(worth["extra"], 10, 0.1);
}

TEST(Milestones, HaveTheClausesOfTheirCasesInTheHandout) {
  const std::string text = handout();
  std::set<std::string> read;
  std::map<std::string, std::set<std::string>> known;  // by the end of each milestone
  for (const auto& row : matches(text, R"(\n\| (\d|extra), [^|]*\| ([PI][^|]*)\| \d+ \|)")) {
    for (const std::string& clause : clauses_in(row[2])) EXPECT_TRUE(read.insert(clause).second) << clause << " twice";
    known[row[1]] = read;
  }
  ASSERT_EQ(known.size(), 6u);
  std::map<std::string, std::set<std::string>> of_requirement;
  for (const auto& paragraph : matches(text, R"(\*\*(R\d+)\. [^(]*(?:\([^PI][^(]*)*\(([PI][^)]*)\))"))
    of_requirement[paragraph[1]] = clauses_in(paragraph[2]);
  ASSERT_EQ(of_requirement.size(), 10u);

  std::map<std::string, std::set<std::string>> asked;
  for (const GraderCase& one : cases("LONG=1")) {
    EXPECT_TRUE(are_covered(one.clauses, known[one.milestone])) << one.id << ": read it by milestone " << one.milestone;
    EXPECT_TRUE(are_covered(one.clauses, of_requirement[one.requirement])) << one.id << ": name it in section 4";
    asked[one.requirement].insert(one.clauses.begin(), one.clauses.end());
  }
  for (const auto& [requirement, clauses] : of_requirement)
    for (const std::string& clause : clauses)
      EXPECT_TRUE(are_covered({clause}, asked[requirement])) << requirement << " names " << clause << ", and no case does";
}

TEST(Milestones, TakeNoMoreHoursThanACourseHas) {
  int hours = 0;
  const std::string text = handout();
  for (const auto& row : matches(text, R"(\n\| (?:\d|extra), [^|]*\| [PI][^|]*\| (\d+) \|)")) hours += std::stoi(row[1]);
  EXPECT_GT(hours, 20);
  EXPECT_LE(hours, 45);
  EXPECT_NE(text.find(std::to_string(hours) + " in all"), std::string::npos);
}
