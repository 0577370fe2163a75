// Which milestone of docs/assignment.md, 5, each case belongs to. `make grade MILESTONE=1` runs the cases of milestones
// 0 and 1. No case needs anything from a later milestone; the project tests that (unfinished.sh).

#ifndef CHATBYP2P_MILESTONES_H
#define CHATBYP2P_MILESTONES_H

#include <ostream>

#include "grade.h"

namespace grade {

constexpr int kLastMilestone = 4, kExtra = 5;  // folders and resuming earn extra points

int milestone(const Case& its);
std::string milestone_name(int number);  // "milestone 1", or "extra"

// False, with a sentence on standard error, if the table names a case that does not exist.
bool milestones_are_valid();

}  // namespace grade

#endif
