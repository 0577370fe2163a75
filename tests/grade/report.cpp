// The implementation of report.h.

#include "report.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <map>
#include <set>
#include <sstream>

#include "milestones.h"
#include "support/ladder.h"
#include "support/system.h"

namespace fs = std::filesystem;

namespace grade {

namespace {

constexpr size_t kRowsInText = 18, kRowsInDrawing = 40, kFirstThings = 3, kColumns = 80;

std::string one_decimal(double value) {
  std::ostringstream text;
  text << std::fixed << std::setprecision(1) << value;
  return text.str();
}

// For a file whose shares have to add up: 0.37.
std::string three_decimals(double value) {
  std::ostringstream text;
  text << std::fixed << std::setprecision(3) << value;
  return text.str();
}

std::string indented(const std::string& text, const std::string& by) {
  std::string all;
  for (const std::string& line : lines_of(text)) all += by + line + "\n";
  return all;
}

// As wide as a terminal, but where a word is wider; each line but the first begins with so many blanks.
std::string wrapped(const std::string& text, size_t indentation) {
  std::string all, rest = text;
  while (rest.size() > kColumns) {
    const size_t blank = rest.rfind(' ', kColumns);
    if (blank == std::string::npos || blank <= indentation) break;
    all += rest.substr(0, blank) + "\n";
    rest = std::string(indentation, ' ') + rest.substr(blank + 1);
  }
  return all + rest + "\n";
}

// ---- A ladder of what passed --------------------------------------------------------------------

// A row has six parts, with TABs between them: its kind, when, from, to, how often, what.
std::vector<std::string> parts_of(const std::string& line) {
  std::vector<std::string> parts;
  size_t from = 0;
  for (size_t tab; parts.size() < 5 && (tab = line.find('\t', from)) != std::string::npos; from = tab + 1)
    parts.push_back(line.substr(from, tab - from));
  parts.push_back(line.substr(from));
  return parts;
}

// Several lines in one piece are told apart: each "\\n" that something follows ends a line of the picture, too.
std::string line_by_line(std::string text) {
  for (size_t at = 0; (at = text.find("\\n", at)) != std::string::npos;) {
    at += 2;
    if (at < text.size()) text.insert(at++, "\n");
  }
  return text;
}

struct Row {
  std::string kind, from, to, text;
  double at = 0;
};

std::vector<Row> rows_of(const std::string& steps) {
  std::vector<Row> rows;
  for (const std::string& line : lines_of(steps)) {
    const auto parts = parts_of(line);
    if (parts.size() < 6) continue;
    Row row;
    row.kind = parts[0];
    row.at = std::atof(parts[1].c_str());
    row.from = parts[2];
    row.to = parts[3];
    row.text = line_by_line(parts[5]);
    if (!parts[4].empty()) row.text += " (" + parts[4] + ")";
    rows.push_back(row);
  }
  return rows;
}

// A user has no column: what he does, and reads, stands in that of his program.
void add_step(Ladder& ladder, const Row& row) {
  if (row.from.empty()) ladder.note(row.at, row.to, row.text);
  else if (row.to.empty()) ladder.note(row.at, row.from, "prints: " + row.text);
  else ladder.message(row.at, row.from, row.to, row.text);
}

void add_wrong(Ladder& ladder, const Row& row, const std::string& expected) {
  const std::string text = row.text + "\nEXPECTED: " + expected;
  if (row.to.empty()) ladder.wrong(row.at, row.from, row.from, "prints: " + text);
  else ladder.wrong(row.at, row.from, row.to, text);
}

void add_missing(Ladder& ladder, const Row& row) {
  if (row.to.empty()) ladder.missing_note(row.at, row.from, row.text);
  else ladder.missing(row.at, row.from, row.to, row.text);
}

// The program comes first. Whose column has nothing in it is left out.
Ladder ladder_of(const std::string& steps) {
  const std::vector<Row> rows = rows_of(steps);
  Ladder ladder;
  std::set<std::string> names;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    if (row.kind == "program") ladder.add_column(row.from);
    if (row.kind == "step") add_step(ladder, row);
    if (row.kind == "wrong") add_wrong(ladder, row, rows[i + 1].text);
    if (row.kind == "missing") add_missing(ladder, row);
    if (row.kind == "came") ladder.wrong(row.at, row.from, row.from, row.text);
    if (row.kind == "address" && names.count(row.from) > 0) ladder.add_column(row.from, row.text);
    names.insert({row.from, row.to});
  }
  return ladder;
}

// ---- JSON and XML -------------------------------------------------------------------------------

std::string json(const std::string& text) {
  std::string all = "\"";
  for (const char c : text) {
    char code[8];
    std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned char>(c));
    if (c == '"' || c == '\\') all += std::string("\\") + c;
    else if (c == '\n') all += "\\n";
    else all += static_cast<unsigned char>(c) < 0x20 ? std::string(code) : std::string(1, c);
  }
  return all + "\"";
}

std::string xml(const std::string& text) {
  std::string all;
  for (const char c : text) {
    if (c == '&') all += "&amp;";
    else if (c == '<') all += "&lt;";
    else if (c == '>') all += "&gt;";
    else if (c == '"') all += "&quot;";
    else if (static_cast<unsigned char>(c) >= 0x20 || c == '\n') all += c;
  }
  return all;
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  return text;
}

}  // namespace

const std::vector<Requirement>& requirements() {
  static const std::vector<Requirement> all = {
      {"R1", "starts, and refuses wrong options", 8},
      {"R2", "looks for others", 12},
      {"R3", "answers others, and lists who hears it", 10},
      {"R4", "lists all who answered", 10},
      {"R5", "keeps the list true", 10},
      {"R6", "sends messages, and says if they arrived", 15},
      {"R7", "treats a stream as a stream", 15},
      {"R8", "offers, accepts, checks and stores files", 12},
      {"R9", "is not harmed by strangers", 8},
      {"R10", "sends folders, and resumes files (extra)", 10}};
  return all;
}

void read_outcome(const std::string& folder, Outcome& outcome) {
  outcome.expected = read_file(folder + "/expected");
  outcome.came = read_file(folder + "/came");
  outcome.alike = read_file(folder + "/alike");
  outcome.was_cut = fs::exists(folder + "/cut");
  const Ladder ladder = ladder_of(read_file(folder + "/steps"));
  outcome.picture = ladder.text(kRowsInText);
  outcome.drawing = ladder.svg(outcome.of->id() + ": " + outcome.of->title, kRowsInDrawing);
}

// "One recv() is one line" is one mistake, though it shows in many ways: who does not understand even a HELLO in pieces
// has to mend that, whatever else he does not understand in pieces.
static std::vector<Outcome> with_one_mistake_as_one(std::vector<Outcome> outcomes) {
  const auto is_simplest = [](const Outcome& outcome) {
    return outcome.was_cut && outcome.of->id() == "R7.HelloInPieces";
  };
  const auto simplest = std::find_if(outcomes.begin(), outcomes.end(), is_simplest);
  if (simplest == outcomes.end()) return outcomes;
  const std::string likeness = simplest->alike;
  for (Outcome& outcome : outcomes)
    if (outcome.was_cut) outcome.alike = likeness;
  return outcomes;
}

// ---- Points -------------------------------------------------------------------------------------

Report::Report(std::string program, std::string seed, std::vector<const Case*> counted,
               std::vector<Outcome> outcomes)
    : program_(std::move(program)),
      seed_(std::move(seed)),
      counted_(std::move(counted)),
      outcomes_(with_one_mistake_as_one(std::move(outcomes))) {}

Report::Share Report::share(const Requirement& requirement) const {
  Share share;
  for (const Case* each : counted_)
    if (each->requirement == requirement.id) share.all += each->weight;
  for (const Outcome& outcome : outcomes_) {
    if (outcome.of->requirement != requirement.id) continue;
    share.tried += outcome.of->weight;
    if (outcome.passed) share.got += outcome.of->weight;
  }
  return share;
}

double Report::points(const Requirement& requirement) const {
  const Share its = share(requirement);
  return its.all == 0 ? 0 : requirement.points * double(its.got) / its.all;
}

double Report::points(const Outcome& outcome) const {
  for (const Requirement& requirement : requirements())
    if (outcome.of->requirement == requirement.id)
      return requirement.points * double(outcome.of->weight) / share(requirement).all;
  return 0;
}

bool Report::is_whole() const { return outcomes_.size() == counted_.size(); }

bool Report::has_passed() const {
  const bool is_all = is_whole();
  return std::all_of(outcomes_.begin(), outcomes_.end(), [&](const Outcome& outcome) {
    return outcome.passed || (is_all && outcome.of->requirement == "R10");
  });
}

// All but one of many cases may round to 100, and would hide the one.
int Report::rounded(bool is_extra) const {
  double sum = 0;
  int most = 0;
  bool is_all = true;
  for (const Requirement& requirement : requirements()) {
    if (requirement.is_extra() != is_extra) continue;
    const Share its = share(requirement);
    is_all = is_all && its.got == its.all;
    sum += points(requirement);
    most += requirement.points;
  }
  return is_all ? most : std::min(most - 1, int(std::lround(sum)));
}

// ---- The report ---------------------------------------------------------------------------------

std::string Report::again(const Case& its) const {
  return "FILTER=" + its.id() + " SEED=" + seed_;
}

std::string Report::facts(const Outcome& outcome) const {
  std::ostringstream out;
  out << "expected  " << outcome.expected << "\n"
      << "got       " << outcome.came << "\n"
      << "again     make grade " << again(*outcome.of) << "\n";
  return out.str();
}

std::string Report::details(const Outcome& outcome) const {
  return facts(outcome) + (outcome.picture.empty() ? "" : "\n" + outcome.picture);
}

// The cases that failed, those alike together, those that cost most first; but what is extra comes last.
std::vector<Report::Kind> Report::kinds() const {
  std::vector<Kind> all;
  std::map<std::string, size_t> places;
  for (const Outcome& outcome : outcomes_) {
    if (outcome.passed) continue;
    const auto [place, is_new] = places.emplace(outcome.alike, all.size());
    if (is_new) all.emplace_back();
    Kind& kind = all[place->second];
    kind.points += points(outcome);
    kind.outcomes.push_back(&outcome);
  }
  const auto is_extra = [](const Kind& kind) { return kind.outcomes.front()->of->requirement == "R10"; };
  const auto comes_first = [&](const Kind& one, const Kind& other) {
    return is_extra(one) == is_extra(other) ? one.points > other.points : is_extra(other);
  };
  std::stable_sort(all.begin(), all.end(), comes_first);
  return all;
}

void Report::print_first_things(std::ostream& out) const {
  const std::vector<Kind> all = kinds();
  if (all.empty()) return;
  out << "Worth mending first:\n";
  for (size_t i = 0; i < std::min(kFirstThings, all.size()); ++i) {
    const Outcome& first = *all[i].outcomes.front();
    const size_t others = all[i].outcomes.size() - 1;
    const std::string number = "  " + std::to_string(i + 1) + ". ";
    out << wrapped(number + one_decimal(all[i].points) + " points: " + first.of->title, number.size())
        << "     expected  " << first.expected << "\n"
        << "     got       " << first.came << "\n"
        << "     in        " << first.of->id();
    if (others > 0) out << " and " << others << " more";
    out << " (" << first.of->clauses << ")\n";
  }
  out << "\n";
}

// At the end, where the eye is once all the rest has scrolled by.
void Report::print_first_one(std::ostream& out) const {
  const std::vector<Kind> all = kinds();
  if (all.empty()) return;
  out << "Mend first what this shows: make grade " << again(*all.front().outcomes.front()->of)
      << "\nThe beginning of this report says why, and what comes next.\n";
}

bool Report::was_tried(const Requirement& requirement) const {
  return std::any_of(outcomes_.begin(), outcomes_.end(), [&](const Outcome& outcome) {
    return outcome.of->requirement == requirement.id && outcome.was_tried;
  });
}

void Report::print_requirement(std::ostream& out, const Requirement& requirement) const {
  std::vector<std::string> passed, second_try;
  std::map<std::string, std::vector<const Outcome*>> failed;
  std::vector<std::string> order;
  for (const Outcome& outcome : outcomes_) {
    if (outcome.of->requirement != requirement.id) continue;
    if (outcome.passed) {
      passed.push_back(outcome.of->name);
      if (outcome.is_second_try) second_try.push_back(outcome.of->name);
      continue;
    }
    if (failed[outcome.alike].empty()) order.push_back(outcome.alike);
    failed[outcome.alike].push_back(&outcome);
  }
  if (!second_try.empty())
    out << "\n" << wrapped(std::string(requirement.id) + ", second try: " + joined(second_try, " "), 4)
        << "    failed among the others and passed alone: a busy machine, or something left to chance\n";
  if (order.empty()) return;
  if (!was_tried(requirement)) {
    out << "\n" << requirement.id << " was not tried: " << kinds().front().outcomes.front()->of->id() << " comes first\n";
    return;
  }
  const std::string names_passed = passed.empty() ? "none" : joined(passed, " ");
  out << "\n" << wrapped(std::string(requirement.id) + ", passed: " + names_passed, 4);
  for (const std::string& likeness : order) {
    const auto& outcomes = failed[likeness];
    const Outcome& first = *outcomes.front();
    out << "\n" << wrapped(first.of->id() + " (" + first.of->clauses + "): " + first.of->title, 4)
        << indented(facts(first), "    ");
    if (!first.picture.empty()) out << "\n" << first.picture;  // as wide as a terminal, so it is not indented
    std::vector<std::string> names;
    size_t not_tried = 0;
    for (const Outcome* other : outcomes) {
      if (other == &first) continue;
      if (other->was_tried) names.push_back(other->of->name);
      else ++not_tried;
    }
    if (not_tried > 0) names.push_back(std::to_string(not_tried) + " that were not tried");
    if (!names.empty()) out << wrapped("    alike     " + joined(names, ", "), 14);
  }
}

// Of those that have passed or failed only: who asks for milestone 1 sees 0 and 1.
void Report::print_milestones(std::ostream& out) const {
  struct Row { int passed = 0, tried = 0; double got = 0, most = 0; };
  std::map<int, Row> rows;
  for (const Outcome& outcome : outcomes_) {
    Row& row = rows[milestone(*outcome.of)];
    const double worth = points(outcome);
    ++row.tried;
    row.most += worth;
    if (!outcome.passed) continue;
    ++row.passed;
    row.got += worth;
  }
  out << "\n";
  for (const auto& [number, row] : rows)
    out << std::left << std::setw(11) << milestone_name(number) << std::right << std::setw(5) << one_decimal(row.got)
        << " of " << std::setw(4) << one_decimal(row.most) << " points, " << std::setw(2) << row.passed << " of "
        << std::setw(2) << row.tried << " cases\n";
}

void Report::print_cases(std::ostream& out) const {
  for (const Case* its : counted_) {
    Outcome outcome;
    outcome.of = its;
    out << milestone(*its) << "\t" << its->id() << "\t" << three_decimals(points(outcome)) << "\t" << its->clauses
        << "\t" << its->title << "\n";
  }
}

void Report::print(std::ostream& out, double seconds) const {
  out << program_ << "\n\n";
  print_first_things(out);
  for (const Requirement& requirement : requirements()) {
    const Share its = share(requirement);
    if (its.tried == 0) continue;
    const auto is_its = [&](const Outcome& outcome) { return outcome.of->requirement == requirement.id; };
    const auto has_passed = [&](const Outcome& outcome) { return is_its(outcome) && outcome.passed; };
    out << std::left << std::setw(4) << requirement.id << std::right << std::setw(5)
        << one_decimal(points(requirement)) << " of " << std::setw(2) << requirement.points << " points, "
        << std::setw(2) << std::count_if(outcomes_.begin(), outcomes_.end(), has_passed) << " of " << std::setw(2)
        << std::count_if(outcomes_.begin(), outcomes_.end(), is_its) << " cases: " << requirement.says << "\n";
  }
  print_milestones(out);
  if (!kinds().empty())
    out << "\nIn each picture the left column is the program. The grader plays the others, and\n"
           "draws new names, ids, ports and texts for each case, unless SEED says which.\n";
  for (const Requirement& requirement : requirements()) print_requirement(out, requirement);
  out << "\n";
  if (is_whole()) out << "score " << rounded(false) << " of 100, and " << rounded(true) << " of 10 extra ";
  out << "(" << std::lround(seconds) << " s, SEED=" << seed_ << ")\n";
  print_first_one(out);
}

void Report::print_points(std::ostream& out) const {
  double sum = 0;
  out << program_;
  for (const Requirement& requirement : requirements()) {
    out << " " << one_decimal(points(requirement));
    sum += points(requirement);
  }
  out << " " << one_decimal(sum) << "\n";
}

// ---- For machines -------------------------------------------------------------------------------

void Report::write_junit(const std::string& file) const {
  std::ofstream out(file);
  out << "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n";
  for (const Requirement& requirement : requirements()) {
    std::ostringstream cases;
    int tests = 0, failures = 0;
    for (const Outcome& outcome : outcomes_) {
      if (outcome.of->requirement != requirement.id) continue;
      ++tests;
      cases << "    <testcase classname=\"" << requirement.id << "\" name=\"" << outcome.of->name << "\" time=\""
            << three_decimals(outcome.seconds) << "\"";
      if (outcome.passed) {
        cases << "/>\n";
        continue;
      }
      ++failures;
      cases << ">\n      <failure message=\"" << xml("expected " + outcome.expected + "; got " + outcome.came)
            << "\">" << xml(outcome.of->title + "\n" + details(outcome)) << "</failure>\n    </testcase>\n";
    }
    if (tests == 0) continue;
    out << "  <testsuite name=\"" << requirement.id << "\" tests=\"" << tests << "\" failures=\"" << failures
        << "\" errors=\"0\">\n" << cases.str() << "  </testsuite>\n";
  }
  out << "</testsuites>\n";
}

// What is extra has a max_score of 0, and so raises the score above the sum of the others.
void Report::write_gradescope(const std::string& file, double seconds) const {
  double score = 0;
  std::vector<std::string> tests;
  for (size_t i = 0; i < requirements().size(); ++i) {
    const Requirement& requirement = requirements()[i];
    score += points(requirement);
    int number = 0;
    for (const Outcome& outcome : outcomes_) {
      if (outcome.of->requirement != requirement.id) continue;
      const double worth = points(outcome);
      const std::string second = outcome.is_second_try ? "Passed at the second try.\n" : "";
      std::ostringstream test;
      test << "    {\"name\": " << json(outcome.of->id() + ": " + outcome.of->title) << ", \"number\": \"" << i + 1
           << "." << ++number << "\", \"score\": " << three_decimals(outcome.passed ? worth : 0)
           << ", \"max_score\": " << three_decimals(requirement.is_extra() ? 0 : worth) << ", \"status\": \""
           << (outcome.passed ? "passed" : "failed") << "\", \"output\": "
           << json(outcome.passed ? second : "(" + outcome.of->clauses + ")\n" + details(outcome)) << "}";
      tests.push_back(test.str());
    }
  }
  std::ostringstream report;
  print(report, seconds);
  std::ofstream(file) << "{\n  \"score\": " << three_decimals(score) << ",\n  \"execution_time\": "
                      << std::lround(seconds) << ",\n  \"output\": " << json(report.str())
                      << ",\n  \"output_format\": \"text\",\n  \"tests\": [\n" << joined(tests, ",\n") << "\n  ]\n}\n";
}

// It takes whole numbers only, so each point is ten; and no score above its most, in all either. So the extra points
// fill up what is missing in the others, and no more. Its runner says whose it is.
void Report::write_classroom50(const std::string& file) const {
  constexpr int kScale = 10;
  std::vector<std::string> tests;
  int score = 0, most = 0;
  for (const Requirement& requirement : requirements()) {
    const Share its = share(requirement);
    const int worth = requirement.points * kScale;
    const int got = int(std::floor(points(requirement) * kScale + 1e-9));
    score += got;
    if (!requirement.is_extra()) most += worth;
    tests.push_back("    {\"test-name\": " + json(std::string(requirement.id) + ": " + requirement.says) +
                    ", \"passed\": " + (its.got == its.all ? "true" : "false") + ", \"score\": " +
                    std::to_string(got) + ", \"max-score\": " + std::to_string(worth) + "}");
  }
  std::ofstream out(file);
  out << "{\n  \"schema\": \"classroom50/result/v1\",\n";
  const std::string commit = setting("COMMIT_URL"), review = setting("REVIEW_URL");
  const std::vector<std::pair<std::string, std::string>> given = {{"classroom", setting("CLASSROOM")},
                                                                  {"assignment", setting("ASSIGNMENT")},
                                                                  {"assignment_type", setting("MODE", "individual")},
                                                                  {"owner", setting("USERNAME")},
                                                                  {"submission", setting("SUBMISSION_TAG")},
                                                                  {"commit", commit},
                                                                  {"release", setting("RELEASE_URL")},
                                                                  {"review", review.empty() ? commit : review},
                                                                  {"datetime", utc_now()}};
  for (const auto& [key, value] : given) out << "  \"" << key << "\": " << json(value) << ",\n";
  out << "  \"score\": " << std::min(score, most) << ",\n  \"max-score\": " << most << ",\n  \"tests\": [\n" << joined(tests, ",\n")
      << "\n  ]\n}\n";
}

void Report::write_drawings(const std::string& folder) const {
  for (const Outcome& outcome : outcomes_) {
    if (outcome.passed || outcome.drawing.empty()) continue;
    fs::create_directories(folder);
    std::ofstream(folder + "/" + outcome.of->id() + ".svg") << outcome.drawing;
  }
}

}  // namespace grade
