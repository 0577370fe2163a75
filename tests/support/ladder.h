// A ladder diagram: who said what to whom, and when. Each host is a column, and time runs down.
// The same ladder is drawn as text, 80 columns wide, and as an SVG that needs nothing else.
//
//   Ladder ladder;
//   ladder.add_column("zoe", "10.77.0.2");
//   ladder.message(0.5, "zoe", "ann", "HELLO");
//   ladder.missing(8.5, "ann", "zoe", "HERE to=zoe");   // was expected, and never came
//   std::cout << ladder.text();
//
// It knows nothing of the protocol and nothing of this program, for the grader uses it, too.
// Used by tests/grade (a case that failed), tests/simulation (a seed that failed), and
// tests/ladder (what peers traced). Rows stand in the order in which they were added.

#ifndef CHATBYP2P_LADDER_H
#define CHATBYP2P_LADDER_H

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

// Each byte that is no UTF-8, or belongs to a character that would steer a terminal, as \x1b.
std::string without_controls(const std::string& text);

class Ladder {
 public:
  // Columns stand from left to right in the order in which they were added. A row adds the
  // columns that it names if they are not there yet. The caption may be an address, or "".
  void add_column(const std::string& name, const std::string& caption = "");

  // An arrow. Its text may have several lines, and long ones are wrapped. What is no UTF-8 and
  // no printable character is shown escaped: \x1b.
  void message(double seconds, const std::string& from, const std::string& to,
               const std::string& text);

  // An arrow that does not reach the other side.
  void lost(double seconds, const std::string& from, const std::string& to,
            const std::string& text);

  // An arrow that was expected, at this place, and never came.
  void missing(double seconds, const std::string& from, const std::string& to,
               const std::string& text);

  // One that came and must not have, or not so. From a column to itself it is a note.
  void wrong(double seconds, const std::string& from, const std::string& to,
             const std::string& text);

  // What happened in one column, and what was expected to happen and did not.
  void note(double seconds, const std::string& at, const std::string& text);
  void missing_note(double seconds, const std::string& at, const std::string& text);

  // The last `most` rows, and how many were left out; but the first fault is always among them. More
  // than three equal rows one after another are drawn once, with their number.
  std::string text(size_t most = SIZE_MAX) const;

  // A whole SVG document. It brings its own background, so it is legible on any page; it is dark
  // where the viewer prefers that.
  std::string svg(const std::string& title, size_t most = SIZE_MAX) const;

 private:
  enum class Kind { message, lost, missing, wrong, note, missing_note, wrong_note };

  struct Column {
    std::string name;
    std::string caption;
  };

  struct Row {
    Kind kind;
    double seconds;
    size_t from;
    size_t to;  // of a note, the same as `from`
    std::string text;

    bool is_note() const { return kind >= Kind::note; }
    bool is_fault() const {
      return kind != Kind::message && kind != Kind::lost && kind != Kind::note;
    }
    bool is_like(const Row& other) const;
  };

  struct Selection {
    std::vector<Row> rows;
    size_t earlier = 0;  // that were left out
    size_t later = 0;
  };

  class Text;
  class Svg;

  size_t column(const std::string& name);
  void add(Kind kind, double seconds, const std::string& from, const std::string& to,
           const std::string& text);
  size_t end_of_run(size_t first) const;
  Row summary(size_t first, size_t end) const;
  Selection select(size_t most) const;
  static size_t end_of_window(const std::vector<Row>& rows, size_t most);

  std::vector<Column> columns_;
  std::vector<Row> rows_;
};

#endif
