// The results of the cases, and all the ways to show them: the report that a student reads, a line of points for a
// table, and files for machines (JUnit, Gradescope, Classroom 50). main.cpp fills it.

#ifndef CHATBYP2P_REPORT_H
#define CHATBYP2P_REPORT_H

#include <ostream>
#include <string>
#include <vector>

#include "grade.h"

namespace grade {

struct Requirement {
  const char *id, *says;
  int points;
  bool is_extra() const { return std::string(id) == "R10"; }
};
const std::vector<Requirement>& requirements();

struct Outcome {
  const Case* of = nullptr;
  bool passed = false;
  bool is_second_try = false;
  bool was_tried = true;
  double seconds = 0;
  std::string expected, came;
  std::string alike;    // the same in all cases that failed alike
  bool was_cut = false;  // the program had got lines in pieces when it failed
  std::string picture;  // of all that passed, as text
  std::string drawing;  // and as SVG
};

// Reads what fail() has written into the folder of a case.
void read_outcome(const std::string& folder, Outcome& outcome);

class Report {
 public:
  // `counted` are the cases that a requirement's points are shared among, whether or not they were chosen this time.
  Report(std::string program, std::string seed, std::vector<const Case*> counted, std::vector<Outcome> outcomes);

  void print(std::ostream& out, double seconds) const;
  void print_points(std::ostream& out) const;  // the program, the points of each requirement, their sum
  void print_cases(std::ostream& out) const;   // each with its milestone, points, clauses and title; TABs between them
  void write_junit(const std::string& file) const;
  void write_gradescope(const std::string& file, double seconds) const;
  void write_classroom50(const std::string& file) const;
  void write_drawings(const std::string& folder) const;
  bool was_tried(const Requirement& requirement) const;
  bool is_whole() const;   // no case was left out
  bool has_passed() const;  // all that counts: of a whole run, the extra ones do not

 private:
  struct Share { int got = 0, tried = 0, all = 0; };  // weights
  struct Kind { double points = 0; std::vector<const Outcome*> outcomes; };  // cases that failed alike
  Share share(const Requirement& requirement) const;
  double points(const Requirement& requirement) const;
  double points(const Outcome& outcome) const;  // what it is worth
  int rounded(bool is_extra) const;
  std::vector<Kind> kinds() const;
  void print_first_things(std::ostream& out) const;
  void print_first_one(std::ostream& out) const;
  void print_requirement(std::ostream& out, const Requirement& requirement) const;
  void print_milestones(std::ostream& out) const;
  std::string again(const Case& its) const;
  std::string facts(const Outcome& outcome) const;
  std::string details(const Outcome& outcome) const;  // with the picture

  const std::string program_, seed_;
  const std::vector<const Case*> counted_;
  const std::vector<Outcome> outcomes_;
};

}  // namespace grade

#endif
