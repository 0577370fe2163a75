// The implementation of ladder.h: first what both drawings have in common, then one class each.

#include "ladder.h"

#include <algorithm>
#include <cstdio>

namespace {

// ============================================================================
// Characters: what is drawn takes a known number of cells
// ============================================================================

struct Character {
  std::string bytes;
  size_t cells = 1;
};

struct Range {
  uint32_t first;
  uint32_t last;
};

bool is_in(const Range* ranges, size_t count, uint32_t code) {
  return std::any_of(ranges, ranges + count, [code](const Range& range) {
    return code >= range.first && code <= range.last;
  });
}

// Chinese, Japanese, Korean, full-width forms, emoji: a terminal draws them two cells wide.
bool is_wide(uint32_t code) {
  constexpr Range kWide[] = {{0x1100, 0x115F},   {0x2E80, 0xA4CF},   {0xAC00, 0xD7A3},
                             {0xF900, 0xFAFF},   {0xFE30, 0xFE6F},   {0xFF00, 0xFF60},
                             {0x1F300, 0x1FAFF}, {0x20000, 0x3FFFD}};
  return is_in(kWide, std::size(kWide), code);
}

// Controls, and what acts on lines or on the direction of writing: a stranger sent these.
bool is_control(uint32_t code) {
  constexpr Range kControls[] = {{0x00, 0x1F},     {0x7F, 0x9F},     {0x61C, 0x61C},
                                 {0x200B, 0x200F}, {0x2028, 0x202E}, {0x2060, 0x206F},
                                 {0xFEFF, 0xFEFF}, {0xFFFE, 0xFFFF}};
  return is_in(kControls, std::size(kControls), code);
}

// How many bytes a UTF-8 character has that begins with this one; 0 where none does.
size_t size_from(unsigned char first) {
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first < 0xE0) return 2;
  if (first >= 0xE0 && first < 0xF0) return 3;
  if (first >= 0xF0 && first < 0xF5) return 4;
  return 0;
}

// The character at `at`, and 0 where there is none (or its size does not fit its code).
uint32_t decode(const std::string& text, size_t at, size_t size) {
  if (size == 0 || at + size > text.size()) return 0;
  constexpr uint32_t kFirstBits[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  uint32_t code = static_cast<unsigned char>(text[at]) & kFirstBits[size];
  for (size_t i = 1; i < size; ++i) {
    const auto byte = static_cast<unsigned char>(text[at + i]);
    if ((byte & 0xC0) != 0x80) return 0;
    code = code << 6 | (byte & 0x3F);
  }
  const bool is_surrogate = code >= 0xD800 && code <= 0xDFFF;
  const bool is_code = code >= kLeast[size] && code <= 0x10FFFF && !is_surrogate;
  return is_code ? code : 0;
}

void append_escaped(std::vector<Character>& all, unsigned char byte) {
  char hex[8];
  std::snprintf(hex, sizeof hex, "\\x%02x", byte);
  for (const char* digit = hex; *digit != '\0'; ++digit) all.push_back({std::string(1, *digit)});
}

std::vector<Character> characters(const std::string& text) {
  std::vector<Character> all;
  for (size_t at = 0; at < text.size();) {
    const auto first = static_cast<unsigned char>(text[at]);
    const size_t size = size_from(first);
    const uint32_t code = decode(text, at, size);
    if (code == 0 || is_control(code)) {
      const size_t end = at + std::max<size_t>(code == 0 ? 1 : size, 1);
      for (; at < end; ++at) append_escaped(all, static_cast<unsigned char>(text[at]));
      continue;
    }
    all.push_back({text.substr(at, size), is_wide(code) ? size_t{2} : size_t{1}});
    at += size;
  }
  return all;
}

size_t cells_of(const std::vector<Character>& line) {
  size_t cells = 0;
  for (const Character& character : line) cells += character.cells;
  return cells;
}

// ============================================================================
// Wrapping
// ============================================================================

// How many of the characters from `from` on fit into `width` cells.
size_t fitting(const std::vector<Character>& line, size_t from, size_t width) {
  size_t cells = 0;
  size_t count = 0;
  while (from + count < line.size()) {
    cells += line[from + count].cells;
    if (cells > width) break;
    ++count;
  }
  return std::max<size_t>(count, 1);
}

// Where to break a line of which `count` characters fit: behind the last blank, if there is one.
size_t before_blank(const std::vector<Character>& line, size_t from, size_t count) {
  if (from + count >= line.size()) return count;
  for (size_t i = count; i > 0; --i)
    if (line[from + i].bytes == " ") return i;
  return count;
}

void wrap_line(std::vector<std::vector<Character>>& lines, const std::string& text, size_t width) {
  const std::vector<Character> all = characters(text);
  size_t from = 0;
  do {
    const size_t count = before_blank(all, from, fitting(all, from, width));
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(from);
    const size_t taken = std::min(count, all.size() - from);
    lines.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(taken));
    from += count;
    if (from < all.size() && all[from].bytes == " ") ++from;
  } while (from < all.size());
}

std::vector<std::vector<Character>> wrap(const std::string& text, size_t width) {
  std::vector<std::vector<Character>> lines;
  size_t from = 0;
  while (true) {
    const size_t end = text.find('\n', from);
    if (end == std::string::npos) break;
    wrap_line(lines, text.substr(from, end - from), width);
    from = end + 1;
  }
  wrap_line(lines, text.substr(from), width);
  return lines;
}

size_t widest(const std::vector<std::vector<Character>>& lines) {
  size_t cells = 0;
  for (const auto& line : lines) cells = std::max(cells, cells_of(line));
  return cells;
}

// "1 later row is left out"
std::string rows_left_out(size_t count, const std::string& which) {
  return std::to_string(count) + " " + which + (count == 1 ? " row is left out" : " rows are left out");
}

std::string time_text(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%9.4f", seconds);
  return text;
}

}  // namespace

std::string without_controls(const std::string& text) {
  std::string all;
  for (const Character& character : characters(text)) all += character.bytes;
  return all;
}

// ============================================================================
// The rows
// ============================================================================

void Ladder::add_column(const std::string& name, const std::string& caption) {
  columns_[column(name)].caption = caption;
}

size_t Ladder::column(const std::string& name) {
  for (size_t i = 0; i < columns_.size(); ++i)
    if (columns_[i].name == name) return i;
  columns_.push_back({name, ""});
  return columns_.size() - 1;
}

void Ladder::add(Kind kind, double seconds, const std::string& from, const std::string& to,
                 const std::string& text) {
  Row row;
  row.kind = kind;
  row.seconds = seconds;
  row.from = column(from);
  row.to = column(to);
  row.text = text;
  rows_.push_back(row);
}

// Who sends to himself has no arrow to draw.
void Ladder::message(double seconds, const std::string& from, const std::string& to,
                     const std::string& text) {
  if (from == to) return note(seconds, from, "to itself: " + text);
  add(Kind::message, seconds, from, to, text);
}

void Ladder::lost(double seconds, const std::string& from, const std::string& to,
                  const std::string& text) {
  if (from == to) return note(seconds, from, "to itself, lost: " + text);
  add(Kind::lost, seconds, from, to, text);
}

void Ladder::missing(double seconds, const std::string& from, const std::string& to,
                     const std::string& text) {
  if (from == to) return missing_note(seconds, from, "to itself: " + text);
  add(Kind::missing, seconds, from, to, "MISSING: " + text);
}

void Ladder::wrong(double seconds, const std::string& from, const std::string& to,
                   const std::string& text) {
  add(from == to ? Kind::wrong_note : Kind::wrong, seconds, from, to, "WRONG: " + text);
}

void Ladder::note(double seconds, const std::string& at, const std::string& text) {
  add(Kind::note, seconds, at, at, text);
}

void Ladder::missing_note(double seconds, const std::string& at, const std::string& text) {
  add(Kind::missing_note, seconds, at, at, "MISSING: " + text);
}

bool Ladder::Row::is_like(const Row& other) const {
  if (kind != other.kind) return false;
  if (from != other.from) return false;
  if (to != other.to) return false;
  return text == other.text;
}

// Where the equal rows end that begin at `first`.
size_t Ladder::end_of_run(size_t first) const {
  size_t end = first + 1;
  while (end < rows_.size() && rows_[end].is_like(rows_[first])) ++end;
  return end;
}

Ladder::Row Ladder::summary(size_t first, size_t end) const {
  Row row = rows_[first];
  const std::string until = time_text(rows_[end - 1].seconds);
  row.text += " (" + std::to_string(end - first) + " times, until ";
  row.text += until.substr(until.find_first_not_of(' '));
  row.text += " s)";
  return row;
}

Ladder::Selection Ladder::select(size_t most) const {
  constexpr size_t kRepeats = 3;
  Selection selection;
  std::vector<Row>& rows = selection.rows;
  for (size_t first = 0; first < rows_.size();) {
    const size_t end = end_of_run(first);
    const bool is_short = end - first <= kRepeats;
    if (is_short) {
      for (size_t i = first; i < end; ++i) rows.push_back(rows_[i]);
    } else {
      rows.push_back(summary(first, end));
    }
    first = end;
  }
  if (rows.size() <= most) return selection;
  const size_t end = end_of_window(rows, most);
  selection.earlier = end - most;
  selection.later = rows.size() - end;
  rows.resize(end);
  rows.erase(rows.begin(), rows.end() - static_cast<std::ptrdiff_t>(most));
  return selection;
}

// Where `most` rows end that are worth showing: behind the last, or, where the first fault would be
// out of sight, some rows behind that.
size_t Ladder::end_of_window(const std::vector<Row>& rows, size_t most) {
  const auto is_fault = [](const Row& row) { return row.is_fault(); };
  const auto found = std::find_if(rows.begin(), rows.end(), is_fault);
  const auto fault = static_cast<size_t>(found - rows.begin());
  return std::clamp(fault + 1 + most / 3, most, rows.size());
}

// ============================================================================
// As text
// ============================================================================

class Ladder::Text {
 public:
  explicit Text(const std::vector<Column>& columns) : columns_(columns) {}

  std::string draw(const Selection& selection) {
    draw_heads();
    draw_left_out(selection.earlier, "earlier");
    for (const Row& row : selection.rows) draw(row);
    draw_left_out(selection.later, "later");
    return all_;
  }

 private:
  using Line = std::vector<std::string>;  // a cell each; the second one of a wide character is ""

  static constexpr size_t kWidth = 80;
  static constexpr size_t kFirst = 11;    // where the first lifeline stands, behind the time
  static constexpr size_t kEdge = 4;      // from a lifeline to the text within an arrow
  static constexpr size_t kLostEdge = 8;  // and where the arrow stops before it
  static constexpr size_t kRoomy = 30;    // so wide an arrow has its text within

  struct Place {
    size_t column;
    size_t width;
  };

  size_t lifeline(size_t i) const {
    if (columns_.size() < 2) return kFirst;
    return kFirst + i * (kWidth - 1 - kFirst) / (columns_.size() - 1);
  }

  Line lifelines() const {
    Line line(kWidth, " ");
    for (size_t i = 0; i < columns_.size(); ++i) line[lifeline(i)] = "|";
    return line;
  }

  static void put(Line& line, size_t column, const std::vector<Character>& text) {
    for (const Character& character : text) {
      if (column + character.cells > line.size()) return;
      line[column] = character.bytes;
      if (character.cells == 2) line[column + 1].clear();
      column += character.cells;
    }
  }

  // With a blank before and behind it.
  static void put_apart(Line& line, size_t column, const std::vector<Character>& text) {
    const size_t end = std::min(column + cells_of(text), line.size() - 1);
    line[column - 1] = " ";
    line[end] = " ";
    put(line, column, text);
  }

  void add(const Line& line) {
    std::string row;
    for (const std::string& cell : line) row += cell;
    row.erase(row.find_last_not_of(' ') + 1);
    all_ += row + "\n";
  }

  // ---- Heads ------------------------------------------------------------------------------

  // Each begins at its lifeline, but for the last, which ends there.
  void draw_heads() {
    Line names(kWidth, " ");
    Line captions(kWidth, " ");
    put(names, 2, characters("seconds"));
    bool has_captions = false;
    for (size_t i = 0; i < columns_.size(); ++i) {
      put_head(names, i, columns_[i].name);
      put_head(captions, i, columns_[i].caption);
      if (!columns_[i].caption.empty()) has_captions = true;
    }
    add(names);
    if (has_captions) add(captions);
    add(lifelines());
  }

  void put_head(Line& line, size_t i, const std::string& text) const {
    std::vector<Character> head = characters(text);
    const bool is_last = i > 0 && i + 1 == columns_.size();
    const size_t start = i > 0 ? lifeline(i - 1) : 0;
    const size_t end = i + 1 < columns_.size() ? lifeline(i + 1) : kWidth;
    const size_t room = is_last ? lifeline(i) - start : end - lifeline(i) - 1;
    if (cells_of(head) > room) head.resize(fitting(head, 0, room));
    put(line, is_last ? lifeline(i) + 1 - cells_of(head) : lifeline(i), head);
  }

  void draw_left_out(size_t count, const std::string& which) {
    if (count == 0) return;
    Line line(kWidth, " ");
    put(line, kFirst, characters("(" + rows_left_out(count, which) + ")"));
    add(line);
  }

  // ---- Rows -------------------------------------------------------------------------------

  void draw(const Row& row) {
    if (row.is_note()) draw_note(row);
    else draw_arrow(row);
  }

  // Where the text of an arrow stands: within it, or else on the wider side of it.
  Place place_of(const Row& row) const {
    const size_t left = lifeline(std::min(row.from, row.to));
    const size_t right = lifeline(std::max(row.from, row.to));
    const size_t edge = row.kind == Kind::lost ? kLostEdge : kEdge;
    const size_t needed = widest(wrap(row.text, kWidth));
    const size_t span = right - left;
    const size_t within = span > 2 * edge ? span - 2 * edge : 0;
    if (within >= std::min(needed, kRoomy)) return {left + edge, within};
    return beside(left, right, needed);
  }

  static Place beside(size_t left, size_t right, size_t needed) {
    const size_t on_the_right = kWidth - right;
    const size_t on_the_left = left - kFirst;
    if (on_the_right >= on_the_left) return {right + 2, kWidth - right - 2};
    const size_t width = std::min(needed, on_the_left - 3);
    return {left - 1 - width, width};
  }

  void draw_arrow(const Row& row) {
    const Place place = place_of(row);
    bool is_first = true;
    for (const auto& text : wrap(row.text, place.width)) {
      Line line = lifelines();
      if (is_first) {
        put(line, 0, characters(time_text(row.seconds)));
        draw_shaft(line, row);
        is_first = false;
      }
      put_apart(line, place.column, text);
      add(line);
    }
  }

  static const char* shaft(Kind kind) {
    if (kind == Kind::missing) return ".";
    return kind == Kind::wrong ? "=" : "-";
  }

  void draw_shaft(Line& line, const Row& row) const {
    const bool is_to_the_right = row.from < row.to;
    size_t first = lifeline(std::min(row.from, row.to)) + 1;
    size_t last = lifeline(std::max(row.from, row.to)) - 1;
    if (row.kind == Kind::lost) {
      if (is_to_the_right) last = std::max(first, last - kLostEdge / 2);
      else first = std::min(last, first + kLostEdge / 2);
    }
    for (size_t i = first; i <= last; ++i) line[i] = shaft(row.kind);
    const std::string head = row.kind == Kind::lost ? "x" : is_to_the_right ? ">" : "<";
    line[is_to_the_right ? last : first] = head;
  }

  // Behind its lifeline, or before it where there is more room.
  void draw_note(const Row& row) {
    const size_t at = lifeline(row.from);
    const Place place = beside(at, at, widest(wrap(row.text, kWidth)));
    const bool is_before = place.column < at;
    bool is_first = true;
    for (const auto& text : wrap(row.text, place.width)) {
      Line line = lifelines();
      if (is_first) {
        put(line, 0, characters(time_text(row.seconds)));
        line[at] = row.is_fault() ? "X" : "*";
        is_first = false;
      }
      put_apart(line, is_before ? at - 1 - cells_of(text) : place.column, text);
      add(line);
    }
  }

  const std::vector<Column>& columns_;
  std::string all_;
};

std::string Ladder::text(size_t most) const { return Text(columns_).draw(select(most)); }

// ============================================================================
// As SVG
// ============================================================================

constexpr char kStyle[] = R"(<style>
  .page { fill: #ffffff; stroke: #8c959f; }
  text {
    font: 13px monospace; white-space: pre; fill: #1f2328;
    stroke: #ffffff; stroke-width: 4px; paint-order: stroke;
  }
  .head { font-weight: bold; font-size: 15px; text-anchor: middle; }
  .caption { fill: #59636e; text-anchor: middle; }
  .time { fill: #59636e; }
  .before { text-anchor: end; }
  .life { stroke: #8c959f; }
  .arrow { stroke: #0550ae; stroke-width: 1.5; }
  .tip { fill: #0550ae; }
  .lost { stroke: #9a6700; stroke-width: 1.5; }
  .cross { stroke: #9a6700; stroke-width: 2.5; }
  .missing { stroke: #cf222e; stroke-width: 2; stroke-dasharray: 7 5; }
  .wrong { stroke: #cf222e; stroke-width: 3; }
  .fault { fill: #cf222e; }
  text.fault { font-weight: bold; }
  .dot { fill: #1f2328; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; stroke: #6e7681; }
    text { fill: #e6edf3; stroke: #0d1117; }
    .caption, .time { fill: #9da7b3; }
    .life { stroke: #6e7681; }
    .arrow { stroke: #79c0ff; }
    .tip { fill: #79c0ff; }
    .lost, .cross { stroke: #e3b341; }
    .missing, .wrong { stroke: #ff7b72; }
    .fault { fill: #ff7b72; }
    .dot { fill: #e6edf3; }
  }
</style>
)";

class Ladder::Svg {
 public:
  explicit Svg(const std::vector<Column>& columns) : columns_(columns) {
    if (columns_.size() > 2) distance_ = kDistance;
  }

  std::string draw(const std::string& title, const Selection& selection) {
    top_ = kHead;
    draw_left_out(selection.earlier, "earlier");
    for (const Row& row : selection.rows) draw(row);
    draw_left_out(selection.later, "later");
    return head(title) + lifelines() + body_ + "</svg>\n";
  }

 private:
  using Lines = std::vector<std::vector<Character>>;

  static constexpr size_t kHead = 78;       // pixels, as all that follow
  static constexpr size_t kTitle = 16;      // where the title begins
  static constexpr size_t kFirst = 100;     // the first lifeline, behind the time
  static constexpr size_t kDistance = 200;  // between two of several lifelines
  static constexpr size_t kMargin = 100;    // behind the last one
  static constexpr size_t kLine = 16;       // from one line of text to the next
  static constexpr size_t kCell = 8;        // at most, of a character of the font
  static constexpr size_t kEdge = 12;       // from a lifeline to the text
  static constexpr size_t kNote = 60;       // the cells of a note, at most

  size_t lifeline(size_t i) const { return kFirst + i * distance_; }
  size_t width(const std::string& title) const {
    const size_t last = columns_.empty() ? 0 : columns_.size() - 1;
    const size_t of_title = kTitle + title.size() * kCell + kEdge;
    return std::max({lifeline(last) + kMargin, lifeline(0) + kNote * kCell + kEdge, of_title});
  }
  size_t height() const { return top_ + 20; }

  // ---- Parts of the document --------------------------------------------------------------

  struct Point {
    size_t x;
    size_t y;
  };

  static std::string xml(const std::vector<Character>& line) {
    std::string all;
    for (const Character& character : line) {
      if (character.bytes == "&") all += "&amp;";
      else if (character.bytes == "<") all += "&lt;";
      else if (character.bytes == ">") all += "&gt;";
      else all += character.bytes;
    }
    return all;
  }

  static std::string attribute(const std::string& name, const std::string& value) {
    return " " + name + "=\"" + value + "\"";
  }

  static std::string attribute(const std::string& name, size_t value) {
    return attribute(name, std::to_string(value));
  }

  static std::string label(Point at, const std::string& look, const std::string& text) {
    std::string all = "<text";
    all += attribute("x", at.x);
    all += attribute("y", at.y);
    all += attribute("class", look);
    return all + ">" + text + "</text>\n";
  }

  static std::string line(Point from, Point to, const std::string& look) {
    std::string all = "<line";
    all += attribute("x1", from.x);
    all += attribute("y1", from.y);
    all += attribute("x2", to.x);
    all += attribute("y2", to.y);
    all += attribute("class", look);
    return all + "/>\n";
  }

  static std::string dot(Point at, const std::string& look) {
    std::string all = "<circle r=\"4\"";
    all += attribute("cx", at.x);
    all += attribute("cy", at.y);
    all += attribute("class", look);
    return all + "/>\n";
  }

  static std::string text_of(Point point) {
    return std::to_string(point.x) + "," + std::to_string(point.y);
  }

  static std::string tip(Point at, size_t back, const std::string& look) {
    std::string all = "<polygon points=\"";
    all += text_of(at);
    all += " " + text_of({back, at.y - 4});
    all += " " + text_of({back, at.y + 4});
    all += "\"" + attribute("class", look);
    return all + "/>\n";
  }

  std::string head(const std::string& title) const {
    const std::string name = xml(characters(title));
    std::string all = "<svg xmlns=\"http://www.w3.org/2000/svg\"";
    all += attribute("width", width(title));
    all += attribute("height", height());
    all += ">\n<title>" + name + "</title>\n" + kStyle;
    all += "<rect rx=\"6\" class=\"page\"";
    all += attribute("width", width(title));
    all += attribute("height", height());
    all += "/>\n";
    return all + label({kTitle, 24}, "time", name);
  }

  std::string lifelines() const {
    std::string all;
    for (size_t i = 0; i < columns_.size(); ++i) {
      const size_t x = lifeline(i);
      all += label({x, 46}, "head", xml(characters(columns_[i].name)));
      all += label({x, 62}, "caption", xml(characters(columns_[i].caption)));
      all += line({x, kHead - 8}, {x, height() - 10}, "life");
    }
    return all;
  }

  void draw_left_out(size_t count, const std::string& which) {
    if (count == 0) return;
    top_ += kLine;
    body_ += label({kFirst + kEdge, top_}, "time", rows_left_out(count, which));
    top_ += kLine / 2;
  }

  // ---- Rows -------------------------------------------------------------------------------

  void draw(const Row& row) {
    body_ += label({8, top_ + kLine}, "time", time_text(row.seconds));
    if (row.is_note()) draw_note(row);
    else draw_arrow(row);
  }

  void draw_lines(const Lines& lines, size_t x, const std::string& look) {
    for (const auto& text : lines) {
      top_ += kLine;
      body_ += label({x, top_}, look, xml(text));
    }
  }

  // Its text stands above it.
  void draw_arrow(const Row& row) {
    const size_t left = lifeline(std::min(row.from, row.to));
    const size_t right = lifeline(std::max(row.from, row.to));
    const size_t cells = (right - left - 2 * kEdge) / kCell;
    const std::string look = row.is_fault() ? "fault" : "said";
    draw_lines(wrap(row.text, cells), left + kEdge, look);
    top_ += 8;
    const bool is_to_the_right = row.from < row.to;
    const Point start{is_to_the_right ? left : right, top_};
    const Point end{is_to_the_right ? right : left, top_};
    if (row.kind == Kind::message) draw_whole(start, end, "arrow", "tip");
    if (row.kind == Kind::missing) draw_whole(start, end, "missing", "fault");
    if (row.kind == Kind::wrong) draw_whole(start, end, "wrong", "fault");
    if (row.kind == Kind::lost) draw_lost(start, end);
    top_ += 5;
  }

  void draw_whole(Point start, Point end, const std::string& look, const std::string& tip_look) {
    const size_t back = start.x < end.x ? end.x - 9 : end.x + 9;
    body_ += line(start, end, look);
    body_ += tip(end, back, tip_look);
  }

  void draw_lost(Point start, Point end) {
    const size_t x = start.x < end.x ? end.x - 40 : end.x + 40;
    const size_t y = end.y;
    body_ += line(start, {x, y}, "lost");
    body_ += line({x - 5, y - 5}, {x + 5, y + 5}, "cross");
    body_ += line({x - 5, y + 5}, {x + 5, y - 5}, "cross");
  }

  // Behind its lifeline, but before it in the right half.
  void draw_note(const Row& row) {
    const size_t x = lifeline(row.from);
    const bool is_before = row.from > 0 && 2 * row.from >= columns_.size();
    std::string look = row.is_fault() ? "fault" : "said";
    if (is_before) look += " before";
    body_ += dot({x, top_ + kLine - 4}, row.is_fault() ? "fault" : "dot");
    draw_lines(wrap(row.text, kNote), is_before ? x - kEdge : x + kEdge, look);
    top_ += 6;
  }

  const std::vector<Column>& columns_;
  size_t distance_ = 600;  // between two lifelines
  size_t top_ = 0;         // where the next row begins
  std::string body_;
};

std::string Ladder::svg(const std::string& title, size_t most) const {
  return Svg(columns_).draw(title, select(most));
}
