// peer.cpp: the program: the options, the commands, what is printed, the one select() loop, and main().
//
// Read protocol.h, discovery.cpp and transfer.cpp first. This file brings together what those two do not know of each
// other: whom discovery has found, transfer can talk to. It is built up to main(), at its end, which names the parts.
//
// Only the main thread runs here, but for trace(), and only it touches the list of users and the screen. What the
// threads of connections have to say comes out of the event queue, one event at a time, in handle(). docs/interface.md
// has every line printed.
//
// Left out on purpose: a thread for the screen. A terminal that stands still stops the program with it.

#include <net/if.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <termios.h>
#include <wchar.h>

#include <atomic>
#include <clocale>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <iostream>
#include <random>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "protocol.h"

using namespace std::chrono_literals;

namespace {

// ============================================================================
// Options
// ============================================================================

constexpr std::string_view kVersion = "1.0.0";  // of the program; kMagic has the protocol's

using UsageError = std::invalid_argument;  // what is wrong with the command line, in one sentence: exit status 2

struct Option {
  const char *name, *value, *meaning;     // the value may be left out if it begins with [
  bool (*set)(const std::string& value);  // false where that is no good value
};

Descriptor trace_file;  // of --trace=FILE

constexpr std::string_view kHomeVariable = "$HOME";

bool is_variable_home(std::string_view text) {
  const std::string_view next = text.substr(std::min(kHomeVariable.size(), text.size()), 1);
  if (text.substr(0, kHomeVariable.size()) != kHomeVariable) return false;
  if (next.empty()) return true;
  return next[0] != '_' && !std::isalnum(static_cast<unsigned char>(next[0]));
}

// Whether a backslash in front of it goes: `quote` is the quotation mark that it stands in, or 0.
bool can_be_escaped(std::string_view next, char quote) {
  if (next.empty() || quote == '\'') return false;
  return quote == 0 || std::string_view("\"\\$`").find(next) != std::string_view::npos;
}

bool ends_in_blank(std::string_view text) {
  const bool is_escaped = text.size() > 1 && text[text.size() - 2] == '\\';
  return !text.empty() && text.back() == ' ' && !is_escaped;
}

// What a shell makes of a path: quotes and backslashes go, a leading ~ and $HOME are the home
// folder, and a blank at the end is none. `typed` itself where a quote does not end. wordexp()
// would not do: it may start a shell, and OpenBSD has none.
std::string as_a_shell_reads(std::string_view typed, const std::string& home) {
  std::string_view rest = typed;
  std::string path;
  char quote = 0;  // that has begun, and not ended
  while (ends_in_blank(rest)) rest.remove_suffix(1);
  if (rest.substr(0, 2) == "~/" || rest == "~") {
    path = home;
    rest.remove_prefix(1);
  }
  while (!rest.empty()) {
    const char c = rest[0];
    const bool is_home = quote != '\'' && is_variable_home(rest);
    const bool is_escape = c == '\\' && can_be_escaped(rest.substr(1, 1), quote);
    if (c == quote) quote = 0;
    else if (quote == 0 && (c == '"' || c == '\'')) quote = c;
    else if (is_home) path += home;
    else if (is_escape) path += rest[1];
    else path += c;
    if (is_home) rest.remove_prefix(kHomeVariable.size());
    else if (is_escape) rest.remove_prefix(2);
    else rest.remove_prefix(1);
  }
  return quote == 0 ? path : std::string(typed);
}

// The path that is meant: what exists as it is typed, or else what a shell would make of it.
std::string path_meant_by(const std::string& typed) {
  struct stat there{};
  const char* const home = std::getenv("HOME");
  if (::lstat(typed.c_str(), &there) == 0) return typed;
  return as_a_shell_reads(typed, home ? home : "~");
}

// For ourselves we take less than is_name() takes from others: "/quit" is a command that went to
// the wrong place.
bool is_own_name(const std::string& text) { return is_name(text) && text[0] != '/'; }

std::string interface_names() {
  std::string names;
  struct if_nameindex* const all = ::if_nameindex();
  if (!all) return "none";
  for (const struct if_nameindex* i = all; i->if_index != 0; ++i) {
    if (!names.empty()) names += ", ";
    names += i->if_name;
  }
  ::if_freenameindex(all);
  return names;
}

const Option kOptions[] = {
    {"--name", "NAME", "1 to 32 characters without blanks, no / first: who you are",
     [](const std::string& value) {
       myself.name = value;
       return is_own_name(value);
     }},
    {"--group", "GROUP", "1 to 32 characters without blanks, no / first: your group (lab)",
     [](const std::string& value) {
       myself.group = value;
       return is_own_name(value);
     }},
    {"--port", "N", "1024 to 65535, not 25252: our own port (first free from 25253)",
     [](const std::string& value) {
       myself.address.port = static_cast<uint16_t>(parse_number(value, UINT16_MAX).value_or(0));
       return myself.address.port >= 1024 && myself.address.port != kDiscoveryPort;
     }},
    {"--interface", "NAME", "a network interface, to use it alone; may be repeated (all)",
     [](const std::string& value) {
       chosen_interfaces.push_back(value);
       if (::if_nametoindex(value.c_str()) != 0) return true;
       throw UsageError("there is no network interface '" + value + "'; there are " + interface_names());
     }},
    {"--dir", "DIR", "a folder: where received files go (downloads)",
     [](const std::string& value) {
       download_folder = path_meant_by(value);
       return !download_folder.empty();
     }},
    {"--accept", "HOW", "ask, always or never: what to do with offered files (ask)",
     [](const std::string& value) {
       accept_policy = value == "always" ? Accept::always : value == "never" ? Accept::never : Accept::ask;
       return value == "ask" || accept_policy != Accept::ask;
     }},
    {"--trace", "[=FILE]", "a file: show, or add to FILE, all that passes through the sockets (off)",
     [](const std::string& value) {
       tracing = true;
       const std::string path = path_meant_by(value);
       if (value.empty()) return true;
       trace_file = Descriptor(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0666));
       if (trace_file.get() != -1) return true;
       throw UsageError("cannot write " + path + ": " + error_text(errno));
     }}};

std::string fault_of_name(const std::string& wanted, const std::string& answer) {
  if (answer[0] == '/') return "A " + wanted + " does not begin with /; Ctrl-D leaves.";
  if (!is_text(answer))
    return "A " + wanted + " is UTF-8 without control characters; is your terminal set to UTF-8?";
  return "A " + wanted + " is 1 to 32 characters without blanks.";
}

// `wanted` of a new user: asked for on a terminal, with `offered` for an empty answer. Where the
// output goes into a file, the question must not.
std::string ask_for(const std::string& wanted, const std::string& offered) {
  if (!::isatty(STDIN_FILENO)) return offered;
  std::ostream& screen = ::isatty(STDOUT_FILENO) ? std::cout : std::cerr;
  while (true) {
    screen << "Your " << wanted << " [" << offered << "]: " << std::flush;
    std::string answer;
    if (!std::getline(std::cin, answer)) {  // Ctrl-D
      screen << std::endl;
      std::exit(0);
    }
    if (answer.empty()) return offered;
    if (is_own_name(answer)) return answer;
    screen << fault_of_name(wanted, answer) << "\n";
  }
}

void ask_who_we_are() {
  const char* const user = std::getenv("USER");
  if (myself.name.empty()) myself.name = ask_for("name", user && is_own_name(user) ? user : "user");
  if (myself.group.empty()) myself.group = ask_for("group", "lab");
}

void print_options() {
  std::cout << "usage: peer [OPTION VALUE]...\n";
  for (const Option& o : kOptions) {
    const char* const gap = o.value[0] == '[' ? "" : " ";
    std::cout << "  " << o.name << gap << o.value << "  " << o.meaning << "\n";
  }
  std::cout << "  --version  which version this is\n"
            << "  --help, -h  this list\n";
}

void parse_options(const std::vector<std::string>& arguments) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    const size_t equals = arguments[i].find('=');
    const std::string name = arguments[i].substr(0, equals);
    const auto option = std::find_if(std::begin(kOptions), std::end(kOptions), [&](auto& o) { return o.name == name; });
    if (name == "--help" || name == "-h") {
      print_options();
      std::exit(0);
    }
    if (name == "--version") {
      std::cout << "ChatByP2P " << kVersion << ", protocol " << kMagic << "\n";
      std::exit(0);
    }
    if (option == std::end(kOptions)) throw UsageError("unknown option '" + name + "'; --help lists them");
    const bool is_alone = equals == std::string::npos, may_be_alone = option->value[0] == '[';
    if (is_alone && !may_be_alone && i + 1 == arguments.size()) throw UsageError(name + " needs a value; see --help");
    const std::string value = !is_alone ? arguments[i].substr(equals + 1) : may_be_alone ? "" : arguments[++i];
    if (!option->set(value)) throw UsageError(name + " takes " + option->meaning + "; not '" + value + "'");
  }
}

// ============================================================================
// The line that is being typed
// ============================================================================

size_t columns(char32_t c) {
  if (c == '\n') return 1;  // shown as in_one_row() has it
  return static_cast<size_t>(std::max(0, ::wcwidth(static_cast<wchar_t>(c))));
}

// How wide it is on a terminal: a letter takes one column, a character of Chinese two, an accent that combines none.
size_t columns(std::string_view text) {
  size_t sum = 0;
  while (!text.empty()) sum += columns(take_character(text));
  return sum;
}

// As much of its beginning as fits.
std::string clipped(std::string text, size_t width) {
  while (columns(text) > width) drop_last_character(text);
  return text;
}

// As it is shown in one row.
std::string in_one_row(std::string_view text) {
  std::string shown;
  for (const char c : text) {
    if (c == '\n') shown += "↵";
    else shown += c;
  }
  return shown;
}

// A key is a character, or one of these: they have numbers that no character has.
enum Key : char32_t {
  kNoKey = 0x110000,  // one that means nothing here
  kEnter, kTab, kArrowLeft, kArrowRight, kArrowUp, kArrowDown, kWordLeft, kWordRight, kHome, kEnd,
  kBackspace, kDelete, kDeleteWord, kDeleteToStart, kDeleteToEnd, kDeleteOrLeave, kClearScreen,
  kPasteBegins, kPasteEnds  // "bracketed paste": the terminal sends them around what is pasted
};

// Ctrl and this character. Emacs had most of them first.
constexpr std::pair<char, Key> kControlKeys[] = {
    {'A', kHome},
    {'B', kArrowLeft},
    {'D', kDeleteOrLeave},
    {'E', kEnd},
    {'F', kArrowRight},
    {'H', kBackspace},
    {'I', kTab},
    {'J', kEnter},
    {'K', kDeleteToEnd},
    {'L', kClearScreen},
    {'M', kEnter},
    {'N', kArrowDown},
    {'P', kArrowUp},
    {'U', kDeleteToStart},
    {'W', kDeleteWord},
    {'?', kBackspace}};  // DEL, as Ctrl-? is called

// How the sequences of the other keys end, behind ESC [ or ESC O.
constexpr std::pair<std::string_view, Key> kSequences[] = {
    {"A", kArrowUp},
    {"B", kArrowDown},
    {"C", kArrowRight},
    {"D", kArrowLeft},
    {"H", kHome},
    {"F", kEnd},
    {"1~", kHome},
    {"7~", kHome},
    {"4~", kEnd},
    {"8~", kEnd},
    {"3~", kDelete},
    {"200~", kPasteBegins},
    {"201~", kPasteEnds}};

// What Enter has ended. Several lines, where it has LF in it: they were pasted.
struct TypedLine {
  std::string text;
  bool begins_pasted = false;  // then a "/" at its beginning was not typed for a command
};

// A terminal can edit a line by itself, but not take a half-typed one away and put it back when
// something else has to be printed. So we have the keys given to us as they are pressed, and do it
// here: keys in, text and cursor out, and no terminal. From the keys to the screen:
//
//   type()        the bytes that came
//   press_keys()  take_key() makes keys of them; press() changes the text, the cursor, or which
//                 earlier line is shown
//   row()         as much of the text as fits, around the cursor
class LineEditor {
 public:
  explicit LineEditor(std::string (*complete)(const std::string& before)) : complete_(complete) {}

  // A sequence comes at once. Esc with another key behind it, pressed by hand, does not: `now`
  // tells them apart.
  void type(std::string_view bytes, Clock::time_point now) {
    const bool is_waiting = !keys_.empty() && keys_[0] == '\033' && !is_pasting_;
    if (is_waiting && now - typed_at_ > 50ms) keys_.erase(0, 1);
    typed_at_ = now;
    keys_ += bytes;
  }

  // Presses what was typed, up to a key that asks for something that is not ours to do; to be
  // called until there is none.
  enum class Request { none, line, leave, clear_screen };
  Request press_keys() {
    while (const auto key = take_key()) {
      const Request request = is_pasting_ ? Request::none : request_of(*key);
      if (request != Request::none) return request;
      press(*key);
    }
    return Request::none;
  }

  // After Request::line.
  TypedLine take_line() {
    // A line that was copied with its end is one line.
    while (!text_.empty() && text_.back() == '\n') text_.pop_back();
    const bool is_last_again = !history_.empty() && history_.back() == text_;
    if (!text_.empty() && !is_last_again) history_.push_back(text_);
    const TypedLine line{text_, begins_pasted_};
    clear();
    return line;
  }

  // What was typed and is not UTF-8: the text has none of it.
  std::string take_rejected() { return std::exchange(rejected_, ""); }

  bool is_empty() const { return text_.empty(); }

  void clear() {
    text_.clear();
    cursor_ = 0;
    shown_ = history_.size();
    begins_pasted_ = false;
  }

  // What is pressed, and not yet looked at. It may end in the middle of a paste.
  void forget_keys() {
    is_pasting_ = false;
    keys_.clear();
  }

  // To be written at the beginning of an empty row, which is so wide; leaves the cursor where it belongs. Of a text
  // that is too wide for it, the part that ends at the cursor.
  std::string row(const std::string& prompt, size_t width) {
    const size_t used = columns(prompt), room = width > used + 3 ? width - used - 1 : 2;
    size_t first = cursor_, end = cursor_;
    while (first > 0 && columns(part(previous(first), cursor_)) <= room) first = previous(first);
    while (end < text_.size() && columns(part(first, next(end))) <= room) end = next(end);
    cursor_column_ = std::min(used + columns(part(first, cursor_)), width - 1);
    return prompt + in_one_row(part(first, end)) + "\r\033[" + to_string(cursor_column_) + "C";
  }
  size_t cursor_column() const { return cursor_column_; }

 private:
  // ---- From bytes to keys

  // The next key. Nothing where the rest of its bytes has yet to come.
  std::optional<char32_t> take_key() {
    const size_t size = size_of_key(keys_);
    if (size == 0) return std::nullopt;
    key_bytes_ = keys_.substr(0, size);
    keys_.erase(0, size);
    return key_of(key_bytes_);
  }

  // How many of the bytes are the first key; 0 where it is not whole.
  static size_t size_of_key(std::string_view bytes) {
    if (bytes.empty()) return 0;
    if (bytes[0] == '\033') return size_of_sequence(bytes);
    if (bytes.substr(0, 2) == "\r\n") return 2;  // one Enter: pasted from Windows
    std::string_view rest = bytes;
    const bool is_bad = take_character(rest) == kNotUtf8;
    if (is_bad && can_be_cut(bytes)) return 0;
    return bytes.size() - rest.size();
  }

  static bool can_be_cut(std::string_view bytes) {
    const auto is_tail = [](char byte) { return (byte & 0xC0) == 0x80; };
    const auto lead = static_cast<unsigned char>(bytes[0]);
    const bool is_head = lead >= 0xC2 && lead <= 0xF4;
    return is_head && bytes.size() < 4 && std::all_of(bytes.begin() + 1, bytes.end(), is_tail);
  }

  static size_t size_of_sequence(std::string_view bytes) {
    if (bytes.size() == 1) return 0;
    if (bytes[1] == '\x7F' || bytes[1] == '\b') return 2;  // Alt and Backspace
    if (bytes[1] != '[' && bytes[1] != 'O') return 1;      // Esc; the next key is one of its own
    const size_t from = bytes[1] == '[' ? bytes.find_first_not_of("0123456789;?<=>", 2) : 2;
    if (from >= bytes.size()) return 0;
    const bool is_whole = bytes[from] >= '@' && bytes[from] <= '~';  // else another key begins
    return is_whole ? from + 1 : from;
  }

  static char32_t key_of(std::string_view bytes) {
    if (bytes[0] == '\033') return key_of_sequence(bytes);
    const char32_t c = take_character(bytes);
    if (c >= 0x20 && c != 0x7F) return c;
    for (const auto& [letter, key] : kControlKeys)
      if (c == (static_cast<unsigned char>(letter) ^ 0x40u)) return key;
    return kNoKey;
  }

  // Of ESC [ 3 ~, ESC [ A or ESC O A; and of ESC [ 1 ; 5 A, which is the same key with Ctrl held
  // down.
  static Key key_of_sequence(std::string_view bytes) {
    if (bytes == "\033\x7F" || bytes == "\033\b") return kDeleteWord;
    if (bytes.size() < 3) return kNoKey;
    const std::string_view parameters = bytes.substr(2, bytes.size() - 3);
    const size_t semicolon = std::min(parameters.find(';'), parameters.size());
    const std::string number(parameters.substr(0, semicolon));
    const std::string end = (bytes.back() == '~' ? number : "") + bytes.back();
    for (const auto& [name, key] : kSequences) {
      if (name != end) continue;
      return has_alt_or_ctrl(parameters.substr(semicolon)) ? by_words(key) : key;
    }
    return kNoKey;
  }

  // ";5": what is held down, as a number one above the sum of Shift 1, Alt 2 and Ctrl 4.
  static bool has_alt_or_ctrl(std::string_view modifiers) {
    if (modifiers.empty()) return false;
    const uint64_t held = parse_number(modifiers.substr(1)).value_or(1) - 1;
    return (held & 6) != 0;
  }

  static Key by_words(Key key) {
    if (key == kArrowLeft) return kWordLeft;
    if (key == kArrowRight) return kWordRight;
    return key;
  }

  // ---- From keys to the text

  Request request_of(char32_t key) const {
    if (key == kEnter) return Request::line;
    if (key == kClearScreen) return Request::clear_screen;
    if (key == kDeleteOrLeave && text_.empty()) return Request::leave;
    return Request::none;
  }

  void press(char32_t key) {
    const bool is_character = key < kNoKey && !is_control(key);
    if (key == kPasteEnds) is_pasting_ = false;
    else if (key == kNotUtf8) rejected_ += key_bytes_;
    else if (is_character) insert(key_bytes_);
    else if (is_pasting_) insert(key == kEnter ? "\n" : " ");  // nobody has pressed it
    else edit(key);
  }

  void edit(char32_t key) {
    switch (key) {
      case kPasteBegins: is_pasting_ = true; break;
      case kArrowLeft: cursor_ = previous(cursor_); break;
      case kArrowRight: cursor_ = next(cursor_); break;
      case kWordLeft: cursor_ = word_before(cursor_); break;
      case kWordRight: cursor_ = word_after(cursor_); break;
      case kHome: cursor_ = 0; break;
      case kEnd: cursor_ = text_.size(); break;
      case kArrowUp: show_history(shown_ - 1); break;
      case kArrowDown: show_history(shown_ + 1); break;
      case kBackspace: erase(previous(cursor_), cursor_); break;
      case kDelete: case kDeleteOrLeave: erase(cursor_, next(cursor_)); break;
      case kDeleteWord: erase(word_before(cursor_), cursor_); break;
      case kDeleteToStart: erase(0, cursor_); break;
      case kDeleteToEnd: erase(cursor_, text_.size()); break;
      case kTab: if (cursor_ > 0) replace(0, cursor_, complete_(text_.substr(0, cursor_))); break;
      default: break;
    }
  }

  void replace(size_t from, size_t to, const std::string& with) {
    text_.replace(from, to - from, with);
    cursor_ = from + with.size();
    if (from == 0) begins_pasted_ = is_pasting_;
  }
  void insert(const std::string& text) { replace(cursor_, cursor_, text); }
  void erase(size_t from, size_t to) { replace(from, to, ""); }

  void show_history(size_t which) {
    if (which > history_.size()) return;  // SIZE_MAX, too: there is nothing before the first
    if (shown_ == history_.size()) new_text_ = text_;
    shown_ = which;
    text_ = which == history_.size() ? new_text_ : history_[which];
    cursor_ = text_.size();
    begins_pasted_ = false;
  }

  std::string_view part(size_t from, size_t to) const { return std::string_view(text_).substr(from, to - from); }

  // Where the character before begins, and where the one after ends, with the accents that belong to it.
  size_t previous(size_t at) const {
    while (at > 0) {
      --at;
      const bool is_tail = (text_[at] & 0xC0) == 0x80;
      if (!is_tail && columns(part(at, character_after(at))) > 0) break;
    }
    return at;
  }
  size_t next(size_t at) const {
    at = character_after(at);
    while (at < text_.size() && columns(part(at, character_after(at))) == 0) at = character_after(at);
    return at;
  }
  size_t character_after(size_t at) const {
    std::string_view rest = part(at, text_.size());
    if (!rest.empty()) take_character(rest);
    return text_.size() - rest.size();
  }

  bool is_gap(size_t at) const { return text_[at] == ' ' || text_[at] == '\n'; }
  size_t word_before(size_t at) const {
    while (at > 0 && is_gap(at - 1)) --at;
    while (at > 0 && !is_gap(at - 1)) --at;
    return at;
  }
  size_t word_after(size_t at) const {
    while (at < text_.size() && is_gap(at)) ++at;
    while (at < text_.size() && !is_gap(at)) ++at;
    return at;
  }

  std::string (*complete_)(const std::string& before);
  bool is_pasting_ = false;
  Clock::time_point typed_at_;
  std::string keys_, key_bytes_;       // pressed, and not yet looked at; those of the key that is looked at
  std::string rejected_;
  std::string text_, new_text_;        // what is shown; the new line, while one of the history is shown
  bool begins_pasted_ = false;
  size_t cursor_ = 0;                  // bytes of the text that are before it
  size_t cursor_column_ = 0;
  std::vector<std::string> history_;
  size_t shown_ = 0;                   // which line of it; its size: the new one
};

// The modes of the terminal, which outlive the program: they have to be as they were when it ends,
// or is stopped.
class TerminalModes {
 public:
  ~TerminalModes() { release(); }

  // No echo, and no waiting for Enter; Ctrl-C and Ctrl-Z remain signals.
  void seize() {
    if (!is_seized_ && ::tcgetattr(STDIN_FILENO, &original_) == -1) return;
    termios raw = original_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | IEXTEN);
    // Ctrl-C would take away keys that were pressed before it and not yet read. Ctrl-S would stop
    // the output, and the program with it. CR LF, in a pasted text, would be two ends of a line.
    raw.c_lflag |= NOFLSH;
    raw.c_iflag &= ~static_cast<tcflag_t>(IXON | ICRNL);
    raw.c_cc[VMIN] = 1;  // read() gives what is there, as soon as there is something
    raw.c_cc[VTIME] = 0;
    if (set(raw) == 0) is_seized_ = true;
    std::cout << kPasteOn << std::flush;
  }

  void release() {
    if (!is_seized_) return;
    is_seized_ = false;
    std::cout << kPasteOff << std::flush;
    set(original_);
  }

  // For a signal handler: waits for nothing. What the terminal has not shown yet is lost.
  void release_at_once() const {
    if (!is_seized_) return;
    ::tcflush(STDOUT_FILENO, TCOFLUSH);
    ::tcsetattr(STDIN_FILENO, TCSANOW, &original_);
    if (::write(STDOUT_FILENO, kPasteOff.data(), kPasteOff.size()) == -1) return;
  }

 private:
  static int set(const termios& modes) {
    return uninterrupted([&] { return ::tcsetattr(STDIN_FILENO, TCSADRAIN, &modes); });
  }

  // Bracketed paste: see kPasteBegins.
  static constexpr std::string_view kPasteOn = "\033[?2004h", kPasteOff = "\033[?2004l";
  termios original_{};
  std::atomic<bool> is_seized_{false};
};

// ============================================================================
// State, and the screen
// ============================================================================

struct Post {  // what the user said or sent once, to one or to many
  std::string text, scope;
  size_t total, open, reached = 0;
  std::string got = {}, missed = {}, unsure = {};  // who has it, who has not, and who may have it
  std::map<std::string, Identity> awaited = {};  // who has not answered yet, by address
};

// Whom the user has named, by /to or by a number of /list: an id at its address, for as long as it
// stays listed. Who comes with that id later may be somebody else.
struct Addressee {
  Identity who;
  std::string gone = {};  // what became of it: "has left"; empty while it is listed
};

struct File {  // an offer or a transfer
  uint64_t ticket;
  std::string direction;
  Identity who;      // at the other end
  Offer offer = {};
  uint64_t post = 0;  // that it is part of
  std::string state = "offered";
  Clock::time_point started = {};
  uint64_t resumed_at = 0;
};

std::string complete(const std::string& before);  // a line, as far as the cursor: with what TAB adds to it
std::string progress();                           // of the transfer that runs, if one does

// Whether a terminal of that TERM does not know escape sequences, as in an editor's window.
bool is_dumb(const char* term) {
  const std::string name = term ? term : "";
  return name.empty() || name == "dumb";
}

const bool terminal = ::isatty(STDIN_FILENO) && ::isatty(STDOUT_FILENO);
const char* const no_color = std::getenv("NO_COLOR");  // no-color.org: present, and not empty
// Else the terminal edits the line by itself.
const bool moves_cursor = terminal && !is_dumb(std::getenv("TERM"));
const bool coloured = moves_cursor && !(no_color && *no_color);
const Clock::time_point start_time = Clock::now();
Clock::time_point last_joined;
TerminalModes terminal_modes;
LineEditor editor(complete);
std::string piped;                   // read from a pipe, and not yet a line
bool input_ended, leaving, leave_now, undelivered;
std::vector<Addressee> numbered;     // as the last /list had them: numbers must not shift meanwhile
std::optional<Addressee> chosen;     // by /to
std::optional<Identity> last_writer; // of a private message
std::map<uint64_t, Post> posts;      // by ticket
std::map<uint64_t, File> files;      // by the number that the user sees
uint64_t next_post = 1, next_file = 1;

// What moves on a terminal is the last row or two: the line that is being typed, and above it the progress of a
// transfer. To print something, they are erased; before we wait, they are drawn again.
bool is_erased = true;
size_t drawn_width, progress_width;  // progress_width: of its row; 0: there is none
Clock::time_point progress_due;

size_t screen_width() {
  winsize size{};
  return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

void erase_prompt() {
  if (!terminal || is_erased) return;
  is_erased = true;
  if (!moves_cursor) {
    std::cout << '\n';
    return;
  }
  // Most terminals break a row in two when they become too narrow for it: then ours begins further up.
  const size_t width = screen_width(), narrow = std::min(width, drawn_width);
  const size_t rows = (progress_width + narrow - 1) / narrow + editor.cursor_column() / width;
  std::cout << '\r' << (rows > 0 ? "\033[" + to_string(rows) + "A" : "") << "\033[J";
}

std::string prompt(size_t width);  // who we are, and whom we are talking to

void draw_rows() {
  drawn_width = screen_width();
  const std::string now = clipped(printable(progress()), drawn_width);
  progress_width = columns(now);
  progress_due = Clock::now() + 250ms;
  // Without wrapping around where the row ends (ESC [?7l), should the window have become narrower
  // just now: the rest of it would stay in the next one.
  std::cout << "\033[?7l" << now << (now.empty() ? "" : "\n");
  std::cout << editor.row(prompt(drawn_width), drawn_width) << "\033[?7h";
}

void draw_prompt() {
  if (progress_width > 0 && Clock::now() >= progress_due) erase_prompt();  // it has moved on
  if (terminal && is_erased) {
    is_erased = false;
    if (moves_cursor) draw_rows();
    else std::cout << prompt(screen_width());
  }
  if (!std::cout.flush()) leave_now = true;  // nobody reads us any more
}

// `text` in colour, so that it stands out, or does not. Whatever strangers wrote, it cannot steer the terminal.
std::string painted(const std::string& text, const char* colour) {
  return coloured ? std::string("\033[") + colour + "m" + printable(text) + "\033[m" : printable(text);
}

// A line of text as rows of the screen. It is broken at blanks, and beside wide characters, for
// Chinese has no blanks. A word that is longer than a row is left to the terminal, which breaks it,
// and copies it as one.
class Rows {
 public:
  explicit Rows(size_t width) : width_(width) {}

  // A character, or a sequence that colours, which takes no columns.
  void add(std::string_view bytes, size_t wide) {
    const bool is_gap = bytes == " " || bytes == "\t";
    const bool stands_alone = wide > 1;
    if (is_gap || stands_alone) end_word();
    if (is_gap) {
      gap_ += bytes;
      gap_width_ += bytes == " " ? 1 : kTabWidth;
      return;
    }
    word_ += bytes;
    word_width_ += wide;
    if (stands_alone) end_word();
  }

  std::string text() {
    end_word();
    return text_;
  }

 private:
  static constexpr size_t kTabWidth = 8;  // at most
  // Of each row but the first: what another user wrote can then not look like a line of its own.
  static constexpr size_t kIndentation = 2;

  void end_word() {
    if (word_.empty()) return;
    const bool fits = column_ + gap_width_ + word_width_ <= width_;
    if (fits || column_ == 0) {
      text_ += gap_;
      column_ += gap_width_;
    } else {
      text_ += '\n' + std::string(kIndentation, ' ');
      column_ = kIndentation;
    }
    text_ += word_;
    column_ += word_width_;
    if (column_ > width_) column_ = (column_ - 1) % width_ + 1;
    gap_.clear();
    gap_width_ = 0;
    word_.clear();
    word_width_ = 0;
  }

  const size_t width_;
  std::string text_;        // what is laid out
  std::string gap_, word_;  // what is not yet: blanks, and the word behind them
  size_t column_ = 0, gap_width_ = 0, word_width_ = 0;
};

// `line`, which may be painted, as it is shown.
std::string wrapped(std::string_view line) {
  constexpr size_t kNarrow = 10;  // nothing is won by rows of two words
  const size_t width = screen_width();
  if (width < kNarrow) return std::string(line);
  Rows rows(width);
  while (!line.empty()) {
    std::string_view rest = line;
    const bool is_sequence = line[0] == '\033';
    if (is_sequence) rest.remove_prefix(std::min(rest.find('m'), rest.size() - 1) + 1);
    else take_character(rest);
    const std::string_view taken = line.substr(0, line.size() - rest.size());
    rows.add(taken, is_sequence ? 0 : columns(taken));
    line = rest;
  }
  return rows.text();
}

// The one way to the screen: painted, or printable.
void write_line(const std::string& line) {
  erase_prompt();
  std::cout << (terminal ? wrapped(line) : line) << '\n';
}
void print(const std::string& line) { write_line(printable(line)); }
void print_quietly(const std::string& line) { write_line(painted(line, "2")); }

// As strftime() has it.
std::string time_text(const char* format, std::time_t time) {
  std::tm parts{};
  std::array<char, 16> text;
  return {text.data(), std::strftime(text.data(), text.size(), format, ::localtime_r(&time, &parts))};
}

std::string time_of_day() { return terminal ? time_text("%H:%M ", std::time(nullptr)) : ""; }

// Who is listed, as the events of discovery tell it, and how many have each name. It is kept, and
// not counted anew, so that a line with a name costs the same in a class of 1,000 as in one of 10.
class Directory {
 public:
  void enter(const Identity& who) {  // who has joined, or has changed
    remove(who.id);
    users_[who.id] = who;
    ++bearers_[comparable(who.name)];
  }

  void remove(const std::string& id) {
    const auto user = users_.find(id);
    if (user == users_.end()) return;
    const auto bearers = bearers_.find(comparable(user->second.name));
    --bearers->second;
    if (bearers->second == 0) bearers_.erase(bearers);
    users_.erase(user);
  }

  // Who has this id.
  std::optional<Identity> listed(const std::string& id) const {
    const auto user = users_.find(id);
    if (user == users_.end()) return std::nullopt;
    return user->second;
  }

  // Who has this id and this address. Null where nobody is listed with both: anyone can claim an id
  // or a name, but not be reached at another's address.
  const Identity* find(const Identity& who) const {
    const auto user = users_.find(who.id);
    const bool is_there = user != users_.end() && user->second.address == who.address;
    return is_there ? &user->second : nullptr;
  }

  // Whether this name, of somebody who is listed, can mean nobody else.
  bool is_clear(const std::string& name) const {
    const std::string seen = comparable(name);
    const auto bearers = bearers_.find(seen);
    const bool is_shared = bearers != bearers_.end() && bearers->second > 1;
    return !is_shared && seen != comparable(myself.name) && !resembles_label(name);
  }

 private:
  std::map<std::string, Identity> users_;   // by id
  std::map<std::string, size_t> bearers_;   // how many have a name, by what is seen of it
};

Directory directory;

// Somebody under the name that the list has: a conversation may have begun under an older one.
std::string label(const Identity& who) {
  const Identity* user = directory.find(who);
  return user ? user->label() : who.label();
}

// What a user is called where there is little room: by the name alone, if it can mean nobody else.
std::string short_label(const Identity& who) {
  const Identity* user = directory.find(who);
  return user && directory.is_clear(user->name) ? user->name : label(who);
}

// Who it is, in a line about a message or a file.
std::string name_of(const Identity& who) { return terminal ? short_label(who) : label(who); }

// Always the same for the same peer.
const char* colour_of(const Identity& who) {
  static const char* const kColours[] = {"31", "32", "33", "34", "35", "36"};
  return kColours[std::hash<std::string>()(who.id) % std::size(kColours)];
}

// Whether a plain line goes to somebody.
bool is_talking() { return chosen && chosen->gone.empty(); }

// In a narrow window a long one is cut, for half of the row belongs to what is typed.
std::string prompt(size_t width) {
  const std::string to = is_talking() ? " to " + printable(short_label(chosen->who)) : "";
  return clipped(printable(myself.name) + to, std::max<size_t>(width / 2, 2) - 2) + "> ";
}

bool has_our_name(const Identity& who) {
  return comparable(who.name) == comparable(myself.name);
}

// One line, however many they are.
void warn_of_clashes(std::vector<Identity> users) {
  const auto has_another = [](const Identity& user) { return !has_our_name(user); };
  users.erase(std::remove_if(users.begin(), users.end(), has_another), users.end());
  if (users.empty()) return;
  const bool is_one = users.size() == 1;
  const std::string who =
      is_one ? users[0].label() + " has" : to_string(users.size()) + " users have";
  print("note: " + who + " the same name as you; /name NEW gives you another");
}

Identity own_entry() {
  Identity own = myself;
  own.said_ip = own.address.ip = discovery::own_ip();
  return own;
}

// ============================================================================
// Commands: what cannot be done is thrown, as one sentence
// ============================================================================

[[noreturn]] void fail(const std::string& sentence) { throw std::runtime_error(sentence); }

// Takes the next word off `rest`, and the blanks behind it.
std::string next_word(std::string& rest) {
  std::string_view left = rest;
  const std::string word(take_word(left));
  rest = left.substr(std::min(left.find_first_not_of(' '), left.size()));
  return word;
}

bool begins_with(std::string_view text, std::string_view beginning) {
  return text.substr(0, beginning.size()) == beginning;
}

// And drops those that cannot be typed: a file's name may have any bytes.
void keep_those_that_begin_with(const std::string& beginning, std::vector<std::string>& words) {
  const auto is_other = [&](const std::string& word) {
    return !begins_with(word, beginning) || !is_text(word) || word.find('\t') != std::string::npos;
  };
  words.erase(std::remove_if(words.begin(), words.end(), is_other), words.end());
}

// " (did you mean ann or anna?)": the first three of `words` that begin with what was typed.
std::string suggestion(const std::string& typed, const std::vector<std::string>& words) {
  if (typed == "/") return "";
  std::string fits;
  size_t count = 0;
  for (const std::string& word : words) {
    if (!begins_with(word, typed)) continue;
    ++count;
    if (count <= 3) fits += (fits.empty() ? "" : " or ") + word;
  }
  return fits.empty() ? "" : " (did you mean " + fits + "?)";
}

// Of all who are listed.
std::vector<std::string> short_labels() {
  std::vector<std::string> labels;
  for (const Identity& user : discovery::users()) labels.push_back(short_label(user));
  return labels;
}

// What can be typed for him. Who is not listed is nobody but his address.
std::string typed_label(const Identity& who) {
  return directory.find(who) ? short_label(who) : who.address.text();
}

// The one we talk to is not there any more.
void tell_departure(const Addressee& partner, const Event& event) {
  if (!terminal) return;
  const bool has_left = event.kind == Event::Kind::left;
  const std::string there = "/to " + short_label(event.who) + " talks to him there";
  const std::string next = has_left ? "/to WHO chooses another" : there;
  print("note: " + partner.who.label() + " " + partner.gone + "; " + next);
}

// Keeps what /to and the numbers of /list mean, when a user has left or has changed.
void follow(const Event& event) {
  std::vector<Addressee*> all;
  for (Addressee& one : numbered) all.push_back(&one);
  if (chosen) all.push_back(&*chosen);
  for (Addressee* one : all) {
    if (one->who.id != event.who.id || !one->gone.empty()) continue;
    const bool moved = !(one->who.address == event.who.address);
    if (event.kind == Event::Kind::left) one->gone = "has left";
    else if (moved) one->gone = "is at another address now";
    else one->who = event.who;
  }
}

// The address in IP:PORT or NAME@IP:PORT.
std::optional<Address> address_in(std::string_view who) {
  return parse_address(who.substr(who.rfind('@') + 1));  // npos + 1 is 0
}

// The number of the last /list that WHO may be; 0 where it is none.
size_t number_of_list(const std::string& who) {
  return static_cast<size_t>(parse_number(who, numbered.size()).value_or(0));
}

// All whom WHO can mean.
std::vector<Identity> those_called(const std::string& who) {
  const size_t number = number_of_list(who);
  const Addressee by_number = number > 0 ? numbered[number - 1] : Addressee{};
  const std::string& id = by_number.who.id;
  if (!by_number.gone.empty()) {
    const std::string was = by_number.who.label() + ", who " + by_number.gone;
    fail("number " + who + " was " + was + "; /list numbers anew");
  }
  const auto address = address_in(who);
  const std::string seen = comparable(who);
  std::vector<Identity> fits;
  for (const Identity& user : discovery::users()) {
    const bool is_named = seen == comparable(user.name) || id == user.id;
    const bool is_labelled = seen == comparable(user.label()) || who == user.address.text();
    // With an address in it, it is no name: one that looks like an address shall mislead nobody.
    if (address ? is_labelled : is_named) fits.push_back(user);
  }
  return fits;
}

// By our name, our number in the last /list, or an address where what is sent comes to ourselves.
bool is_oneself(const std::string& who) {
  const size_t number = number_of_list(who);
  const bool is_own_number = number > 0 && numbered[number - 1].who.id == myself.id;
  const auto address = address_in(who);
  const bool is_own_address = address && discovery::is_own(*address);
  const std::string name = is_own_address ? who.substr(0, who.rfind('@')) : who;
  const bool is_bare = is_own_address && who == address->text();
  return is_own_number || is_bare || comparable(name) == comparable(myself.name);
}

// Whether a word is meant for WHO, be he online or not. It throws nothing, for Tab asks it, too.
bool names_somebody(const std::string& word) {
  const bool is_number = parse_number(word, numbered.size()).value_or(0) > 0;
  if (is_number || address_in(word) || is_oneself(word)) return true;
  return !those_called(word).empty();
}

std::string nobody_called(const std::string& who) {
  return "nobody called " + who + " is online" + suggestion(who, short_labels());
}

// Whom WHO means. A word can be one user's name and another's number: then it is refused, never guessed.
Identity find(const std::string& who) {
  if (who.empty()) fail("to whom? a name, a number of /list, NAME@IP:PORT or IP:PORT");
  const std::vector<Identity> fits = those_called(who);
  if (fits.size() == 1) return fits[0];
  std::string candidates;
  for (const Identity& user : fits) candidates += (candidates.empty() ? "" : " or ") + user.label();
  if (!fits.empty()) fail(who + " can mean more than one user; write " + candidates);
  const auto address = address_in(who);
  if (is_oneself(who)) fail(who + " is you");
  if (address && who == address->text()) return {"", "", "", *address, 0};
  fail(nobody_called(who) + "; /list shows who is");
}

// With the blanks that bring it to that width, but for what is wider.
std::string padded(const std::string& text, size_t width) {
  return text + std::string(width - std::min(width, columns(text)), ' ');
}

// How wide the columns of /list are: on a terminal as wide as what is in them, up to a limit.
struct ListWidths {
  size_t number = 0, name = 0, group = 0;

  explicit ListWidths(const std::vector<Identity>& users) {
    constexpr size_t kMostName = 20, kMostGroup = 12;
    if (!terminal) return;
    number = to_string(users.size()).size();
    for (const Identity& user : users) {
      name = std::max(name, std::min(columns(user.name), kMostName));
      group = std::max(group, std::min(columns(user.group), kMostGroup));
    }
  }
};

void list(std::string) {
  std::vector<Identity> all = discovery::users();
  const Identity own = own_entry();
  all.insert(std::find_if(all.begin(), all.end(), [&](auto& user) { return user.label() > own.label(); }), own);
  numbered.clear();
  const ListWidths widths(all);
  for (const Identity& user : all) {
    numbered.push_back({user});
    const std::string number = padded(to_string(numbered.size()), widths.number);
    const std::string mark = user.id == myself.id ? " * " : " - ";
    const std::string who = padded(user.name, widths.name) + " " + padded(user.group, widths.group);
    const bool is_there = user.said_ip == user.address.ip;
    const std::string said = is_there ? "" : " says " + Address{user.said_ip}.ip_text();
    print("user " + number + mark + who + " " + user.address.text() + said);
  }
  print("users " + to_string(all.size()));
}

// The only beginning of a name is enough here, where we say whom it means. With /msg it would be too late: when ann has
// left, the next line for her must not go to anna.
void choose(std::string rest) {
  chosen.reset();  // where this fails, the next line must not go to the one before
  const std::string who = next_word(rest);
  if (!rest.empty()) fail("/to takes one user; /msg " + who + " TEXT sends one message");
  std::vector<Identity> fits = those_called(who);
  if (fits.empty() && !who.empty())
    for (const Identity& user : discovery::users())
      if (begins_with(comparable(user.label()), comparable(who))) fits.push_back(user);
  chosen = Addressee{fits.size() == 1 ? fits[0] : find(who)};
  print("to " + chosen->who.label());
}

void introduce_as(const std::string& name, const std::string& group) {
  if (!is_own_name(name) || !is_own_name(group))
    fail("a name or group is 1 to 32 characters without blanks, no / first");
  myself.name = name;
  myself.group = group;
  discovery::rename();
  print("you " + own_entry().label() + " " + group);
  warn_of_clashes(discovery::users());
}

void scan(std::string where) {
  if (where.empty()) return discovery::scan();
  const size_t slash = where.find('/');
  const auto bits = slash == std::string::npos ? 32 : parse_number(where.substr(slash + 1), 32);
  const auto address = parse_address(where);
  const auto ip = address ? address->ip : parse_ip(where.substr(0, slash));
  if (!ip || !bits) fail("/scan takes nothing, ADDRESS, ADDRESS:PORT or NETWORK/BITS");
  if (!discovery::source_for(*ip)) fail("no usable route leads to " + where);
  discovery::scan(*ip, static_cast<int>(*bits), address ? address->port : kDiscoveryPort);
}

// The second part comes when the connection has been made, or has failed: diagnosed().
void diagnose(std::string who) {
  if (who.empty()) return discovery::diagnose();
  const auto ip = parse_ip(who);
  const Identity other = ip ? Identity{"", "", "", {*ip, kFirstPort}, 0} : find(who);
  if (discovery::diagnose(other.address)) transfer::diagnose(other);
}

void diagnosed(const Event& event) {
  static const std::pair<std::string, const char*> kRemedies[] = {
      {"no answer in time", "it is stopped, or hangs; is its terminal waiting for fg?"},
      {error_text(ECONNREFUSED), "no peer listens there; does it run, with the port of its ready line?"},
      {error_text(ETIMEDOUT), "a firewall drops it; both machines must let in TCP 25253 to 25508"},
      {error_text(EHOSTUNREACH),
       "nobody has that address; a typing error, a cable, or a Wi-Fi that keeps clients apart"}};
  discovery::diagnose_answer(event.who.address);
  const auto tell = [](const std::string& line) { events.push({Event::Kind::told, {}, line}); };  // after the answer
  if (event.text.empty()) return tell("diag ok: TCP: " + event.who.label() + " answers");
  std::string remedy;
  for (const auto& [why, what_to_do] : kRemedies)
    if (event.text.find(why) != std::string::npos) remedy = what_to_do;
  tell("diag failed: TCP: " + event.text + (remedy.empty() ? "" : ": " + remedy));
}

// What is on its way, and to whom: "bob (message), cleo@10.0.0.7:25253 (send 2, offered)".
std::string under_way() {
  std::vector<std::string> all;
  for (const auto& [ticket, post] : posts)
    for (const auto& [address, who] : post.awaited) all.push_back(short_label(who) + " (message)");
  for (const auto& [number, file] : files)
    if (file.direction == "send")
      all.push_back(name_of(file.who) + " (send " + to_string(number) + ", " + file.state + ")");
  std::sort(all.begin(), all.end());
  constexpr size_t kShown = 5;
  std::string text;
  for (size_t i = 0; i < all.size() && i < kShown; ++i) text += (i == 0 ? "" : ", ") + all[i];
  if (all.size() > kShown) text += " and " + to_string(all.size() - kShown) + " more";
  return text;
}

void quit(std::string) {
  leave_now = leaving;
  leaving = true;
  if (terminal && !leave_now && transfer::is_sending())
    print("note: waiting for " + under_way() + "; /quit again leaves now");
}

// ---- Messages ---------------------------------------------------------------

void add_to_list(std::string& list, const std::string& who) {
  if (!list.empty()) list += ", ";
  list += who;
}

std::string summary(const Post& post) {
  const bool is_file = post.scope == "files";
  std::string line = is_file ? "sent to " : "delivered ";
  line += to_string(post.reached) + " of " + to_string(post.total);
  if (is_file && !post.got.empty()) line += ", " + post.got;
  if (!post.missed.empty()) line += "; not reached: " + post.missed;
  if (!post.unsure.empty()) line += "; may have reached: " + post.unsure;
  if (is_file) line += ": " + post.text;
  return line;
}

// One copy of a post was delivered, or was not. The last one sums it up.
void settle(const Event& event) {
  Post& post = posts[event.ticket];
  const bool missed = event.kind == Event::Kind::undelivered, is_file = post.scope == "files";
  const std::string who = name_of(event.who);
  const std::string outcome = event.in_doubt ? "; it may have arrived: " : "; not delivered: ";
  if (missed) {
    undelivered = true;
    if (!is_file) print(time_of_day() + "failed " + who + ": " + event.text + outcome + post.text);
    std::string& list = event.in_doubt ? post.unsure : post.missed;
    add_to_list(list, is_file ? who + " (" + event.text + ")" : who);
  } else {
    ++post.reached;
    const std::string text = terminal ? "" : ": " + post.text;  // which stands a few rows above
    if (post.scope == "private") print_quietly(time_of_day() + "delivered " + who + text);
    add_to_list(post.got, who);
  }
  post.awaited.erase(event.who.address.text());
  --post.open;
  if (post.open > 0) return;
  if (post.scope != "private") print(summary(post));
  posts.erase(event.ticket);
}

void expect_message(const std::string& text) {
  if (text.empty()) fail("there is no text to send");
  if (text.size() > kMaxText) fail("a message has at most 4000 bytes; this one has " + to_string(text.size()));
  if (!is_text(text)) fail("a message is UTF-8 without control characters");
}

void send(const std::string& scope, const std::string& text, const std::vector<Identity>& to) {
  expect_message(text);
  const uint64_t ticket = next_post++;
  posts[ticket] = {text, scope, to.size(), to.size()};
  for (const Identity& one : to) posts[ticket].awaited[one.address.text()] = one;
  for (const Identity& one : to) try {
      transfer::send_message(one, scope, text, ticket);
    } catch (const std::exception& error) {
      settle({Event::Kind::undelivered, one, error.what(), ticket});
    }
}

// Everyone else, or everyone else in our group.
std::vector<Identity> audience(const std::string& scope) {
  std::vector<Identity> all;
  for (const Identity& user : discovery::users())
    if (scope == "all" || user.group == myself.group) all.push_back(user);
  if (all.empty()) fail("nobody else is " + (scope == "all" ? "online" : "in group " + myself.group));
  return all;
}

void send_to_many(const std::string& scope, const std::string& text) { send(scope, text, audience(scope)); }

// Whether it is, with another id, whom /to had chosen: his name and his IP address are what is left.
bool is_partner_again(const Identity& user) {
  const bool same_name = comparable(user.name) == comparable(chosen->who.name);
  return same_name && user.address.ip == chosen->who.address.ip;
}

// That whom /to has chosen is still there.
void expect_partner() {
  if (is_talking()) return;
  std::string next = "/to WHO chooses another";
  for (const Identity& user : discovery::users())
    if (is_partner_again(user)) next = "he is back, and /to " + short_label(user) + " talks to him again";
  fail(chosen->who.label() + " " + chosen->gone + "; " + next);
}

void say(const std::string& text) {
  const bool can_answer = last_writer && directory.find(*last_writer);
  const std::string who = can_answer ? short_label(*last_writer) : "WHO";
  if (!chosen) fail("to whom? choose with /to " + who + ", or write /msg " + who + " TEXT");
  expect_partner();
  send("private", text, {chosen->who});
}

void message(std::string rest) {
  const Identity to = find(next_word(rest));
  send("private", rest, {to});
}

// ---- Files --------------------------------------------------------------------

// As people read it: "37 bytes", "1.5 GB", "38 MB".
std::string amount(double bytes) {
  static const char* const kUnits[] = {"bytes", "kB", "MB", "GB", "TB", "PB", "EB"};
  size_t unit = 0;
  while (bytes >= 999.5) {
    bytes /= 1000;
    ++unit;
  }
  const long long tenths = std::llround(bytes * 10);
  const bool has_tenths = unit > 0 && tenths < 100;
  const std::string number = has_tenths ? to_string(tenths / 10) + "." + to_string(tenths % 10)
                                        : to_string(std::llround(bytes));
  return number + " " + (number == "1" ? "byte" : kUnits[unit]);
}

std::string size_text(uint64_t bytes) {
  return terminal ? amount(static_cast<double>(bytes)) : to_string(bytes) + " bytes";
}

std::string rate_text(double bytes) {
  return (terminal ? amount(bytes) : to_string(std::llround(bytes / 1e6)) + " MB") + "/s";
}

void print_file(uint64_t number, const File& file, const std::string& remark = "") {
  const Offer& offer = file.offer;
  std::string size = size_text(offer.size);
  if (offer.is_folder()) size += " in " + to_string(offer.files) + " files and folders";
  const std::string what = file.direction + " " + to_string(number) + " " + file.state;
  print(what + " " + name_of(file.who) + " " + size + remark + ": " + offer.name);
}

// To each of them on a connection and a thread of its own: who is slow, or says no, holds up nobody.
void send_files(const std::string& path, const std::vector<Identity>& to) {
  const uint64_t post = to.size() > 1 ? next_post++ : 0;
  if (post != 0) posts[post] = {path, "files", to.size(), to.size()};
  for (const Identity& one : to) try {
      files[next_file++] = {transfer::send_file(one, path), "send", one, {0, 1, path}, post};
    } catch (const std::exception& error) {
      if (post == 0) throw;
      settle({Event::Kind::undelivered, one, error.what(), post});
    }
  const std::string asked = to_string(to.size()) + " users are asked";
  if (terminal && post != 0) print("note: " + asked + "; /transfers shows who has not answered");
}

std::string readable_path(const std::string& typed, const std::string& command) {
  const std::string path = path_meant_by(typed);
  if (path.empty()) fail("which file? " + command + " PATH");
  if (::access(path.c_str(), R_OK) == -1) fail("cannot read " + path + ": " + error_text(errno));
  return path;
}

// Without WHO: to whom /to has chosen.
void send_to_chosen(const std::string& typed) {
  const std::string path = path_meant_by(typed);
  std::string rest = typed;
  const std::string word = next_word(rest);
  const bool is_there = ::access(path.c_str(), F_OK) == 0;
  if (!is_there && !chosen) find(word);  // says that there is no such user
  if (!is_there) fail(nobody_called(word) + ", and there is no file " + path);
  if (!chosen) fail("to whom? /send WHO " + path);
  expect_partner();
  send_files(readable_path(typed, "/send"), {chosen->who});
}

void send_file(std::string rest) {
  const std::string line = rest;
  const std::string who = next_word(rest);
  if (!who.empty() && !names_somebody(who)) return send_to_chosen(line);
  const Identity to = find(who);
  send_files(readable_path(rest, "/send WHO"), {to});
}

void send_file_to_many(const std::string& scope, const std::string& path) {
  send_files(readable_path(path, "/send" + scope), audience(scope));
}

using FileTest = bool (*)(const File&);

bool is_any(const File&) { return true; }
bool is_waiting_offer(const File& file) {
  return file.direction == "receive" && file.state == "offered";
}

// The only one that the command can mean.
File& only_file(const std::string& command, FileTest can_be_meant) {
  constexpr size_t kMostNamed = 3;
  std::vector<File*> fits;
  std::string candidates;
  for (auto& [number, file] : files) {
    if (!can_be_meant(file)) continue;
    fits.push_back(&file);
    if (fits.size() > kMostNamed) continue;
    candidates += (candidates.empty() ? "" : " or ") + to_string(number);
    candidates += " (" + file.offer.name + ", " + name_of(file.who) + ")";
  }
  const std::string verb = command.substr(1);
  if (fits.empty()) fail("there is nothing to " + verb + "; /transfers lists what is under way");
  if (fits.size() > 1) fail("which one? write " + command + " and its number: " + candidates);
  return *fits[0];
}

// The entry whose number `rest` begins with. What stands there is always a number: a name to store
// a file under comes second.
File& take_file(std::string& rest, const std::string& command, FileTest can_be_meant) {
  const std::string word = next_word(rest);
  if (word.empty()) return only_file(command, can_be_meant);
  const auto found = files.find(parse_number(word).value_or(0));
  if (found == files.end()) fail("there is no transfer '" + word + "'; /transfers lists them");
  return found->second;
}

// The same, where that is all that may be given.
File& take_file_alone(std::string rest, const std::string& command, FileTest can_be_meant) {
  File& file = take_file(rest, command, can_be_meant);
  if (!rest.empty()) fail("'" + rest + "' is too much; the number of a transfer is enough");
  return file;
}

void answer(File& file, Accept consent, const std::string& rest = "") {
  if (!is_waiting_offer(file)) fail("that is not an offer that waits for an answer");
  if (!rest.empty() && safe_file_name(rest) != rest) fail("'" + rest + "' is not a file name; give one without a path");
  file.state = "answered";
  transfer::answer(file.ticket, consent, rest);
}

void accept(std::string rest) {
  File& file = take_file(rest, "/accept", is_waiting_offer);
  answer(file, Accept::always, rest);
}

void reject(std::string rest) {
  answer(take_file_alone(rest, "/reject", is_waiting_offer), Accept::never);
}

void cancel(std::string rest) { transfer::cancel(take_file_alone(rest, "/cancel", is_any).ticket); }

// Bytes a second since it started, not counting what an earlier try has left.
double speed(const File& file, uint64_t done) {
  const std::chrono::duration<double> time = Clock::now() - file.started + 1ms;
  return static_cast<double>(done - std::min(done, file.resumed_at)) / time.count();
}

void list_transfers(std::string) {
  for (const auto& [number, file] : files) {
    const uint64_t done = transfer::bytes_done(file.ticket);
    const std::string so_far = terminal ? amount(static_cast<double>(done)) : to_string(done);
    const std::string progress = ", " + so_far + " done, " + rate_text(speed(file, done));
    print_file(number, file, file.state == "started" ? progress : "");
  }
  print("transfers " + to_string(files.size()));
}

// For the line above the prompt: how far the first transfer that runs has come. What matters most comes first, for the
// line is cut where the screen ends.
std::string progress() {
  const auto is_running = [](const auto& f) { return f.second.state == "started"; };
  const auto found = std::find_if(files.begin(), files.end(), is_running);
  if (found == files.end()) return "";
  const File& file = found->second;
  const uint64_t done = transfer::bytes_done(file.ticket), size = std::max<uint64_t>(file.offer.size, 1);
  const double rate = speed(file, done);
  std::string bar(10, ' ');
  std::fill_n(bar.begin(), std::min<uint64_t>(done * 10 / size, 10), '=');
  const auto left = std::llround(static_cast<double>(size - std::min(size, done)) / std::max(rate, 1.0));
  return "[" + bar + "] " + to_string(done * 100 / size) + " %, " + rate_text(rate) + ", " +
         (rate > 0 ? to_string(left) + " s left, " : "") + file.direction + " " + to_string(found->first) + " " +
         name_of(file.who) + ": " + file.offer.name;
}

std::string free_space() {
  struct statvfs disk{};
  if (::statvfs(download_folder.c_str(), &disk) == -1) return "";
  const double bytes = static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize);
  return "; " + amount(bytes) + " are free";
}

// What a line about a file says besides its state and its size.
std::string remark(const Event& event) {
  const std::string doubt = event.in_doubt ? "; it may have arrived" : "";
  const std::string sum = terminal ? "" : ", cksum " + to_string(event.crc);
  if (event.kind == Event::Kind::stored) return sum + event.text;
  if (event.kind == Event::Kind::failed) return ", " + event.text + doubt;
  const bool is_resumed = event.kind == Event::Kind::started && event.resumed_at > 0;
  if (terminal && is_resumed) return ", resumed at " + size_text(event.resumed_at);
  return event.text;
}

// What the user can do about an offer, or is being done about his own.
void explain_offer(uint64_t number, const File& file) {
  if (!terminal) return;
  const std::string n = to_string(number);
  if (file.direction == "send" && file.post == 0)
    print("note: " + name_of(file.who) + " is asked; /cancel " + n + " takes the offer back");
  if (file.direction == "receive" && accept_policy == Accept::ask)
    print("note: /accept " + n + " takes it, /reject " + n + " does not" + free_space());
}

// An offer, or a transfer that has begun, or has ended, well or badly.
void update_file(const Event& event) {
  using Kind = Event::Kind;
  const auto is_meant = [&](const auto& f) { return f.second.ticket == event.ticket; };
  if (event.kind == Kind::offered && std::none_of(files.begin(), files.end(), is_meant))
    files[next_file++] = {event.ticket, "receive", event.who};
  const auto found = std::find_if(files.begin(), files.end(), is_meant);
  if (found == files.end()) return;
  auto& [number, file] = *found;
  const bool sends = file.direction == "send", failed = event.kind == Kind::failed, stored = event.kind == Kind::stored;
  undelivered |= sends && (failed || (stored && event.file.files < file.offer.files));
  if (event.kind == Kind::started) {
    file.state = "started";
    file.started = event.since;
    file.resumed_at = event.resumed_at;
  }
  if (failed || stored) file.state = failed ? "failed" : sends ? "delivered" : "stored";
  if (!failed) file.offer = event.file;
  print_file(number, file, remark(event));
  if (event.kind == Kind::offered) explain_offer(number, file);
  if (!failed && !stored) return;
  Event end{failed ? Kind::undelivered : Kind::delivered, event.who, event.text, file.post};
  end.in_doubt = event.in_doubt;
  files.erase(found);
  if (end.ticket != 0) settle(end);
}

// ---- The table -----------------------------------------------------------------

void help(std::string name);

const struct Command {
  const char *name, *arguments, *meaning, *example;
  void (*run)(std::string rest);
  const char* advice = "";
} kCommands[] = {
    {"/list", "", "who is online", "", list},
    {"/to", " WHO", "talk to WHO: a name, a number of /list, NAME@IP:PORT or IP:PORT", " bob", choose},
    {"/msg", " WHO TEXT", "one message", " bob See you at nine", message},
    {"/group", " TEXT", "a message to everyone in your group", " Where do we meet?",
     [](std::string text) { send_to_many("group", text); }},
    {"/all", " TEXT", "a message to everyone", " Lunch?", [](std::string text) { send_to_many("all", text); }},
    {"/send", " [WHO] PATH", "offer a file or a folder; without WHO: to whom /to chose",
     " bob Documents/my report.pdf", send_file,
     "send a large folder as a tar archive: only a file goes on after a break"},
    {"/sendgroup", " PATH", "to everyone in your group", " photos/",
     [](std::string path) { send_file_to_many("group", path); }},
    {"/sendall", " PATH", "to everyone", " task.pdf", [](std::string path) { send_file_to_many("all", path); }},
    {"/accept", " [N [AS]]", "take the file of offer N, as AS; without N: the only one",
     " 1 bobs report.pdf", accept},
    {"/reject", " [N]", "do not take it", " 1", reject},
    {"/cancel", " [N]", "end transfer N; without N: the only one", " 1", cancel},
    {"/transfers", "", "offers and transfers under way", "", list_transfers},
    {"/name", " NEW", "change your name", " ann2", [](std::string name) { introduce_as(name, myself.group); }},
    {"/join", " GROUP", "change your group", " chess", [](std::string group) { introduce_as(myself.name, group); }},
    {"/scan", " [TARGET]", "look again; TARGET: ADDRESS, ADDRESS:PORT or NETWORK/BITS", " 10.0.0.0/24", scan},
    {"/diag", " [WHO]", "what is wrong when somebody is missing; WHO may be an ADDRESS", " 10.0.0.7", diagnose},
    {"/help", " [COMMAND]", "this list; or one command, with an example", " /send", help},
    {"/quit", "", "finish what is being sent, and leave; twice: leave now", "", quit},
};

const Command& command_called(const std::string& name) {
  std::vector<std::string> names;
  for (const Command& c : kCommands)
    if (c.name == name) return c;
    else names.push_back(c.name);
  fail("there is no command " + name + suggestion(name, names) + "; /help lists them");
}

void help(std::string name) {
  const auto line = [](const Command& c) { print(std::string("help: ") + c.name + c.arguments + ": " + c.meaning); };
  if (name.empty()) {
    for (const Command& c : kCommands) line(c);
    return print("help: any other line is a message to whom /to chose; a first // sends one /");
  }
  if (name[0] != '/') name = "/" + name;
  const Command& c = command_called(name);
  line(c);
  print(std::string("help: for example  ") + c.name + c.example);
  if (*c.advice != '\0') print(std::string("help: ") + c.advice);
}

// ---- What TAB adds ---------------------------------------------------------------

// The files and folders whose path begins with that.
std::vector<std::string> paths(const std::string& beginning) {
  const std::string folder = beginning.substr(0, beginning.rfind('/') + 1);  // npos + 1 is 0
  std::vector<std::string> found;
  std::error_code error;
  std::filesystem::directory_iterator entry(folder.empty() ? "." : path_meant_by(folder), error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error))
    found.push_back(folder + entry->path().filename().string() + (entry->is_directory(error) ? "/" : ""));
  return found;
}

std::vector<std::string> command_names() {
  std::vector<std::string> names;
  for (const Command& c : kCommands) names.push_back(c.name);
  return names;
}

std::string arguments_of(const std::string& name) {
  for (const Command& c : kCommands)
    if (c.name == name) return c.arguments;
  return "";
}

// What the end of a line can be, and which part of the line that is.
struct Guess {
  std::string typed;
  std::vector<std::string> words, paths;
};

// Behind the name of a command. What is expected there, the table of commands says.
Guess guess_arguments(const std::string& name, std::string typed) {
  std::string kinds = arguments_of(name);
  next_word(kinds);  // the blank in front of them
  std::string kind = next_word(kinds);
  const std::string first = typed.substr(0, typed.find(' '));
  const bool has_first_word = first.size() < typed.size();
  const bool is_who = kind == "WHO" || kind == "[WHO]";
  // "/send PATH" goes to whom /to has chosen: what stands first may be a path.
  const bool is_optional = kind == "[WHO]" && kinds == "PATH" && is_talking();
  const bool is_who_given = is_who && has_first_word && (!is_optional || names_somebody(first));
  if (is_who_given) {
    next_word(typed);
    kind = next_word(kinds);
  }
  const bool may_be_who = is_who && !has_first_word;
  const bool may_be_path = kind == "PATH" || is_optional;
  Guess guess{typed, {}, {}};
  if (may_be_who) guess.words = short_labels();
  if (may_be_path) guess.paths = paths(typed);
  return guess;
}

Guess guess_end(const std::string& line) {
  std::string rest = line;
  const std::string name = next_word(rest);
  return name == line ? Guess{line, command_names(), {}} : guess_arguments(name, rest);
}

// A line as far as the cursor: with what its end can only be.
std::string complete(const std::string& before) {
  Guess guess = guess_end(before);
  const std::string& word = guess.typed;
  keep_those_that_begin_with(word, guess.words);
  keep_those_that_begin_with(word, guess.paths);
  std::vector<std::string> fits = guess.words;
  fits.insert(fits.end(), guess.paths.begin(), guess.paths.end());
  if (fits.empty()) return before;
  std::sort(fits.begin(), fits.end());
  const size_t folder = guess.paths.empty() ? 0 : word.rfind('/') + 1;  // npos + 1 is 0
  std::string common = fits[0], all;
  for (const std::string& fit : fits) {
    common.erase(std::mismatch(common.begin(), common.end(), fit.begin(), fit.end()).first, common.end());
    all += (all.empty() ? " " : ", ") + fit.substr(folder);
  }
  while (!is_text(common)) common.pop_back();  // half a character
  if (fits.size() > 1 && common == word) print_quietly("help:" + all);
  // A blank behind a path would belong to it.
  const bool is_whole = fits.size() == 1 && guess.paths.empty();
  return before.substr(0, before.size() - word.size()) + common + (is_whole ? " " : "");
}

// One line of input.
void obey(std::string line) {
  if (!line.empty() && line.back() == '\r') line.pop_back();  // a script written on Windows
  const size_t first = line.find_first_not_of(" \t");
  if (first == std::string::npos) return;
  if (line[first] == '/') line.erase(0, first);  // pasted out of a text, where it was indented
  const bool is_text = line[0] != '/' || line.substr(0, 2) == "//";
  std::string rest = line;
  const std::string name = is_text ? "" : next_word(rest);
  try {
    if (leaving && name != "/quit") fail("leaving; /quit again does not wait");
    if (is_text) return say(line.substr(line[0] == '/' ? 1 : 0));
    const Command& command = command_called(name);
    if (!*command.arguments && !rest.empty()) fail(name + " takes nothing behind it; /help " + name);
    command.run(rest);
  } catch (const std::exception& error) {
    print(std::string("error: ") + error.what());
    for (const char* sends : {"", "/msg", "/group", "/all", "/send", "/sendgroup", "/sendall"})
      undelivered |= name == sends;
  }
}

std::vector<std::string> lines_with_text(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);)
    if (line.find_first_not_of(' ') != std::string::npos) lines.push_back(line);
  return lines;
}

// Several lines that were pasted: each is a message, to whom /to chose, and none a command,
// whatever it begins with.
void say_lines(const TypedLine& typed) {
  try {
    if (leaving) fail("leaving; /quit again does not wait");
    const bool is_command = typed.text[0] == '/' && !typed.begins_pasted;
    if (is_command)
      fail("several lines go to whom /to chose; paste them without a command in front");
    const std::vector<std::string> lines = lines_with_text(typed.text);
    // All of them first: half a text helps nobody.
    for (const std::string& line : lines) expect_message(line);
    for (const std::string& line : lines) say(line);
  } catch (const std::exception& error) {
    print(std::string("error: ") + error.what());
  }
}

// ============================================================================
// Events: what the other parts report
// ============================================================================

// What has become of one user since something was last said of him.
struct Change {
  std::optional<Identity> before, now;  // nothing: not listed
  std::string reason;                   // why he has left

  // He has come and gone again, or has his old name back.
  bool is_undone() const {
    if (!before || !now) return !before && !now;
    return before->label() == now->label() && before->group == now->group;
  }
  std::string verb() const {
    if (!before) return "joined";
    return now ? "changed" : "left";
  }
  std::string line() const {
    if (!now) return "left " + before->label() + ": " + reason;
    const std::string is_now = verb() + " " + now->label() + " " + now->group;
    return before ? is_now + ": was " + before->label() + " " + before->group : is_now;
  }
};

// The changes that wait to be shown: one for each user, however often he comes, goes and is renamed
// meanwhile. Anyone can cause them by UDP, so many that they would bury what people say, or fill a
// pipe that nobody reads; a write to that one would stop the program.
class News {
 public:
  void add(const std::string& id, const Change& latest) {
    constexpr size_t kMaxWaiting = 1024;
    const auto found = numbers_.find(id);
    const bool is_new = found == numbers_.end();
    if (is_new && waiting_.size() >= kMaxWaiting) {
      ++dropped;
      return;
    }
    if (waiting_.empty()) since = Clock::now();
    const uint64_t number = is_new ? next_number_++ : found->second;
    numbers_[id] = number;
    Change& change = waiting_[number];
    if (is_new) change.before = latest.before;
    change.now = latest.now;
    change.reason = latest.reason;
    if (change.is_undone()) take(id);
  }

  std::optional<Change> take(const std::string& id) {
    const auto number = numbers_.find(id);
    if (number == numbers_.end()) return std::nullopt;
    Change change = waiting_[number->second];
    waiting_.erase(number->second);
    numbers_.erase(number);
    return change;
  }

  Change take_first() {
    const Change& first = waiting_.begin()->second;
    const std::string id = first.now ? first.now->id : first.before->id;
    return *take(id);
  }

  std::vector<Change> take_all() {
    std::vector<Change> all;
    while (size() > 0) all.push_back(take_first());
    return all;
  }

  size_t size() const { return waiting_.size(); }
  Clock::time_point since;  // the first of those that wait came
  size_t dropped = 0;       // there were too many

 private:
  std::map<uint64_t, Change> waiting_;        // in the order in which they came
  std::map<std::string, uint64_t> numbers_;   // by id
  uint64_t next_number_ = 0;
};

News news;

// Whether standard output takes a line at once, and does not make us wait until somebody reads.
bool output_has_room() {
  std::cout.flush();
  fd_set writable;
  FD_ZERO(&writable);
  FD_SET(STDOUT_FILENO, &writable);
  timeval at_once{};
  return ::select(STDOUT_FILENO + 1, nullptr, &writable, nullptr, &at_once) == 1;
}

// "27 joined, 3 left; /list shows who is online"
std::string sum_of(const std::vector<Change>& changes) {
  std::string sum;
  for (const std::string verb : {"joined", "left", "changed"}) {
    const auto is_meant = [&](const Change& change) { return change.verb() == verb; };
    const auto count = std::count_if(changes.begin(), changes.end(), is_meant);
    if (count > 0) sum += (sum.empty() ? "" : ", ") + to_string(count) + " " + verb;
  }
  return sum + "; /list shows who is online";
}

void tell_return(const Identity& who) {
  print("note: " + who.name + " is back; /to " + short_label(who) + " talks to him again");
}

// Whether we talked to him. With another id he is known by his name and his IP address alone.
bool is_return(const Change& change) {
  if (!terminal || !chosen || is_talking() || change.before) return false;
  return is_partner_again(*change.now);
}

// Who of them was called something else before, or was not there.
std::vector<Identity> newly_named(const std::vector<Change>& changes) {
  std::vector<Identity> users;
  for (const Change& change : changes) {
    if (!change.now) continue;
    const std::string name = comparable(change.now->name);
    const bool had_it = change.before && comparable(change.before->name) == name;
    if (!had_it) users.push_back(*change.now);
  }
  return users;
}

void show_changes(const std::vector<Change>& changes) {
  constexpr size_t kMostOneByOne = 3;
  if (terminal && changes.size() > kMostOneByOne) {
    print_quietly(sum_of(changes));
  } else {
    for (const Change& change : changes) print_quietly(change.line());
  }
  warn_of_clashes(newly_named(changes));
  const auto returned = std::find_if(changes.begin(), changes.end(), is_return);
  if (returned != changes.end()) tell_return(*returned->now);
}

// On a terminal twice a second at most, all together: a class that starts is one line. Elsewhere as
// long as somebody reads.
void show_news() {
  if (terminal && Clock::now() - news.since < 500ms) return;
  if (terminal) show_changes(news.take_all());
  while (news.size() > 0 && output_has_room()) show_changes({news.take_first()});
  if (news.size() > 0 || news.dropped == 0) return;
  const std::string count = to_string(news.dropped);
  print("note: " + count + " more changes were not shown; /list shows who is online");
  news.dropped = 0;
}

// Nobody says anything before he has joined, nor after he has left.
void show_news_of(const Identity& who) {
  if (const auto change = news.take(who.id)) show_changes({*change});
}

void note_presence(const Event& event) {
  const bool has_left = event.kind == Event::Kind::left;
  if (event.kind == Event::Kind::joined) last_joined = Clock::now();
  const auto before = directory.listed(event.who.id);
  if (has_left) directory.remove(event.who.id);
  else directory.enter(event.who);
  news.add(event.who.id, {before, directory.listed(event.who.id), has_left ? event.text : ""});
  const bool was_talking = is_talking();
  if (before) follow(event);
  if (!was_talking || is_talking()) return;
  show_news_of(event.who);  // that of the one we talk to does not wait
  tell_departure(*chosen, event);
}

// Once is enough: who has answered one knows how.
void tell_how_to_answer(const Identity& from) {
  static bool is_told = false;
  if (!terminal || is_talking() || is_told) return;
  is_told = true;
  const std::string who = typed_label(from);
  print("note: to answer, type /to " + who + "; what you type then goes to " + who);
}

void show_message(const Identity& from, const Message& message) {
  if (!terminal) return print("message " + label(from) + " " + message.scope + ": " + message.text);
  const std::string scope = message.scope == "private" ? "" : " [" + message.scope + "]";
  const std::string name = short_label(from);
  const bool is_listed = directory.find(from) != nullptr;  // the colour of a user is his alone, too
  const std::string shown = is_listed ? painted(name, colour_of(from)) : printable(name);
  write_line(time_of_day() + shown + scope + ": " + printable(message.text));
}

void handle(const Event& event) {
  using Kind = Event::Kind;
  switch (event.kind) {
    case Kind::joined:
    case Kind::left:
    case Kind::changed: return note_presence(event);
    case Kind::told: return print(event.text);
    case Kind::introduced: return discovery::introduced(event.who);
    case Kind::diagnosed: return diagnosed(event);
    case Kind::traced: return print_quietly(event.text);
    case Kind::message:
      if (transfer::is_repeat(event)) return;
      show_news_of(event.who);
      show_message(event.who, event.message);
      if (event.message.scope != "private") return;
      last_writer = event.who;
      return tell_how_to_answer(event.who);
    case Kind::delivered:
    case Kind::undelivered:
      show_news_of(event.who);
      return settle(event);
    case Kind::offered:
    case Kind::started:
    case Kind::stored:
    case Kind::failed:
      show_news_of(event.who);
      return update_file(event);
  }
}

void handle_events() {
  transfer::reap();  // first: what an ended thread has pushed is in the queue by then
  for (const Event& event : events.take_all()) handle(event);
}

// ============================================================================
// Starting, the loop, and main()
// ============================================================================

// To end the program, and not yet obeyed. A handler may run on any thread.
std::atomic<int> signal_caught{0};
std::atomic<Clock::time_point> caught_at{};
std::atomic<bool> stop_is_asked{false}, screen_has_changed{false};

// Whoever sends a second signal has seen that the first is not obeyed: a disk hangs, or nobody
// reads what we print. But timeout(1) sends two at once, and a terminal that closes more than one
// SIGHUP: those are one.
bool is_second_signal(int number) {
  return signal_caught != 0 && number != SIGHUP && Clock::now() - caught_at.load() > 100ms;
}

void note_signal(int number) {
  if (is_second_signal(number)) {
    terminal_modes.release_at_once();
    ::_exit(128 + number);  // as a shell names it; exit() would wait for who hangs
  }
  if (signal_caught == 0) caught_at = Clock::now();
  signal_caught = number;
}

// All a handler may do: note it, and make select() return. A flag alone could be set just before select() begins to
// wait, and be seen when that wait is over.
extern "C" void on_signal(int number) {
  if (number == SIGTSTP) stop_is_asked = true;
  else if (number == SIGCONT || number == SIGWINCH) screen_has_changed = true;
  else note_signal(number);
  events.wake();
}

void catch_signals() {
  struct sigaction action{};
  action.sa_handler = on_signal;
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH}) {
    struct sigaction before{};
    check(::sigaction(number, nullptr, &before), "sigaction");
    if (before.sa_handler == SIG_IGN) continue;  // nohup wants SIGHUP to be ignored; a shell without fg, SIGTSTP
    check(::sigaction(number, &action, nullptr), "sigaction");
  }
  // A write to a connection that the other side has closed raises SIGPIPE and ends the program: an error will do.
  action.sa_handler = SIG_IGN;
  check(::sigaction(SIGPIPE, &action, nullptr), "sigaction");
  // So does SIGXFSZ, where `ulimit -f` allows no file of that size: here, too, an error will do, EFBIG.
  check(::sigaction(SIGXFSZ, &action, nullptr), "sigaction");
}

// A program may be started with standard input, output or error closed (<&- >&-). The next thing
// that it opens gets that number: it would read its own output as commands, or print into a socket.
// /dev/null keeps the place.
void fill_standard_descriptors() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) != -1) continue;
    check(::open("/dev/null", O_RDWR), "open /dev/null");  // gets the lowest free number: fd
  }
}

// From now on the kernel gives no number of `most` or more. If that fails, all stays as it was.
void allow_descriptors(rlim_t most) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == -1) return;
  limit.rlim_cur = std::min(limit.rlim_max, most);
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// A folder that the user names must be good; without the default one, all but receiving files still works.
void prepare_folder() {
  const int error = ::mkdir(download_folder.c_str(), 0777) == -1 && errno != EEXIST ? errno : 0;
  if (::access((download_folder + "/.").c_str(), W_OK | X_OK) == 0) return;  // "/." of a file is ENOTDIR
  const std::string why =
      "files cannot be stored in " + download_folder + ": " + error_text(error != 0 ? error : errno);
  if (download_folder != "downloads") throw UsageError(why);
  print("note: " + why + "; choose another folder with --dir");
}

// Opens all sockets with the port that we have chosen. What was wrong, where another program has it; else nothing.
std::string open_port() {
  try {
    transfer::open([](uint32_t ip) { return discovery::source_for(ip).has_value(); });
    discovery::open();
  } catch (const std::system_error& error) {
    if (error.code() != std::errc::address_in_use) throw;
    return error.what();
  }
  return "";
}

// Who we are: the id is drawn, and the port is the one that was named, or else the first free one.
void open_ports() {
  std::random_device random;
  while (myself.id.size() < 16) myself.id += "0123456789abcdef"[random() % 16];
  uint16_t& port = myself.address.port;
  const bool is_named = port != 0;
  if (!is_named) port = kFirstPort;
  for (;; ++port) {
    const std::string trouble = open_port();
    if (trouble.empty()) return;
    if (is_named) throw UsageError(trouble + "; --port chooses another");
    if (port == kLastPort)
      throw std::runtime_error("ports 25253 to 25508 are all taken, for TCP or UDP; end a program that has one, or "
                               "choose another port with --port N");
  }
}

// The first command of a pipe waits until the first scan was answered: somebody was found and nobody new came for a
// moment, or 1 s has passed.
bool reads_commands() {
  const auto now = Clock::now();
  const bool found = last_joined > start_time && now - last_joined > 200ms;
  return !input_ended && (terminal || found || now - start_time > 1s);
}

void report_rejected(const std::string& bytes) {
  constexpr size_t kShown = 8;
  if (bytes.empty()) return;
  const std::string some = bytes.substr(0, kShown);
  print("note: left out, for it is not UTF-8: " + some + "; is your terminal set to UTF-8?");
}

void obey_typed(const TypedLine& line) {
  // It stays on the screen, above what comes of it.
  write_line(prompt(SIZE_MAX) + printable(in_one_row(line.text)));
  if (line.text.find('\n') == std::string::npos) obey(line.text);
  else say_lines(line);
}

void read_keys(std::string_view keys) {
  using Request = LineEditor::Request;
  erase_prompt();
  editor.type(keys, Clock::now());
  while (true) {
    const Request request = editor.press_keys();
    report_rejected(editor.take_rejected());
    if (request == Request::none) return;
    if (request == Request::line) obey_typed(editor.take_line());
    if (request == Request::leave) quit("");
    if (request == Request::clear_screen) std::cout << "\033[H\033[2J";
  }
}

void read_lines(std::string_view input) {
  piped += input;
  // The terminal has shown that end of a line, too.
  if (!input.empty() && input.back() == '\n') is_erased = true;
  if (input_ended && !piped.empty()) piped += '\n';
  while (true) {
    const size_t end = piped.find('\n');
    if (end == std::string::npos) return;
    const std::string line = piped.substr(0, end);
    piped.erase(0, end + 1);
    obey(line);
  }
}

void read_input() {
  std::array<char, 4096> bytes;
  const ssize_t got = uninterrupted([&] { return ::read(STDIN_FILENO, bytes.data(), bytes.size()); });
  input_ended = got <= 0;
  const std::string_view input(bytes.data(), static_cast<size_t>(std::max<ssize_t>(got, 0)));
  if (moves_cursor) read_keys(input);
  else read_lines(input);
  leaving |= input_ended;  // after its last line, which is obeyed, too
}

// Ctrl-Z and fg; and a window that has another size by now.
void follow_terminal() {
  if (stop_is_asked.exchange(false)) {
    erase_prompt();
    std::cout.flush();
    terminal_modes.release();
    ::signal(SIGTSTP, SIG_DFL);
    ::raise(SIGTSTP);  // not SIGSTOP: that one stops us even where no shell is left that could say fg
    ::signal(SIGTSTP, on_signal);
    screen_has_changed = true;  // the shell may have changed what it likes
  }
  if (!screen_has_changed.exchange(false)) return;
  if (!moves_cursor) return;
  erase_prompt();
  editor.forget_keys();  // Ctrl-Z may have come in the middle of a paste
  terminal_modes.seize();
}

// Until there is something to do: which descriptors can be read. select() overwrites its set and, on Linux, its timeout:
// both are made anew each time.
fd_set wait() {
  fd_set readable;
  FD_ZERO(&readable);
  FD_SET(events.descriptor(), &readable);
  discovery::watch(readable);
  transfer::watch(readable);
  if (reads_commands()) FD_SET(STDIN_FILENO, &readable);
  const auto pause = std::chrono::duration_cast<std::chrono::microseconds>(discovery::pause());
  timeval timeout{};
  timeout.tv_usec = static_cast<suseconds_t>(pause.count());
  if (signal_caught != 0) timeout = {};  // it is waiting to be obeyed
  if (::select(FD_SETSIZE, &readable, nullptr, nullptr, &timeout) != -1) return readable;
  if (errno != EINTR) check(-1, "select");
  FD_ZERO(&readable);  // after an error the set means nothing
  return readable;
}

// Ctrl-C takes away what is typed, if anything is. Else, and for all others: the end.
void obey_signal(int number) {
  if (number == 0) return;
  if (number != SIGINT || editor.is_empty()) {
    leave_now = true;
    return;
  }
  erase_prompt();
  editor.forget_keys();
  editor.clear();
  signal_caught = 0;
}

bool is_over() { return leave_now || (leaving && !transfer::is_sending()); }

// A thread waits for something that has no bound, and close() for that thread. No loop obeys a signal
// any more, so the next one counts as the second.
void admit_to_hang() {
  if (signal_caught == 0) signal_caught = SIGHUP;
  if (!terminal) return;
  print("note: something hangs, perhaps a disk; Ctrl-C ends the program at once");
  std::cout.flush();
}

void say_goodbye() {
  discovery::leave();
  transfer::cancel();  // some connections have last words to say
  const auto end = Clock::now() + 1s;
  while (transfer::is_open() && Clock::now() < end) {
    handle_events();
    std::this_thread::sleep_for(1ms);
  }
  if (transfer::is_open()) admit_to_hang();
  transfer::close();
  handle_events();
  show_news();
  erase_prompt();
  std::cout.flush();
}

}  // namespace

// ============================================================================
// The X-ray: --trace
// ============================================================================

std::string ends_of(int fd, const char* arrow, Address other) {
  int type = 0;
  socklen_t length = sizeof type;
  ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length);
  Address ours = local_address(fd);
  // Our UDP sockets are bound to every address we have; shown is the one by which the other end is reached. They are
  // the main thread's, so it is the one that is here, and may ask discovery.
  if (type == SOCK_DGRAM && other.ip != 0) ours.ip = discovery::source_for(other.ip).value_or(ours.ip);
  const auto column = [](Address end) {
    const std::string text = end == Address{} ? "*" : end.text();
    return text + std::string(15 - std::min<size_t>(15, text.size()), ' ');
  };
  return std::string(type == SOCK_DGRAM ? "UDP " : "TCP ") + column(ours) + " " + arrow + " " + column(other);
}

// Into a file, each line by one write(), or the threads' lines would be mixed. To the screen by way of the queue, for
// the screen is the main thread's.
void trace(const std::string& ends, std::string_view what) {
  const auto now = std::chrono::system_clock::now();
  const std::string micros = to_string(1'000'000 + now.time_since_epoch() / 1us % 1'000'000).substr(1);
  const std::string time = time_text("%H:%M:%S.", std::chrono::system_clock::to_time_t(now)) + micros;
  const std::string line = time + " " + ends + "  " + printable(what);
  if (trace_file.get() == -1) return events.push({Event::Kind::traced, {}, line});
  if (::write(trace_file.get(), (line + "\n").data(), line.size() + 1) == -1) return;  // a full disk: so be it
}

// ============================================================================

int main(int argc, char** argv) try {
  fill_standard_descriptors();
  events.open();
  std::ios::sync_with_stdio(false);  // what is written is kept until flush(), and the screen does not flicker
  if (!std::setlocale(LC_CTYPE, "C.UTF-8")) std::setlocale(LC_CTYPE, "");  // for wcwidth()
  parse_options({argv + 1, argv + argc});
  prepare_folder();
  ask_who_we_are();
  catch_signals();  // before anyone can see us: who is found may be told to leave
  // FD_SET() of a number from FD_SETSIZE (1,024) on writes outside its array, without a word: whoever started us may have
  // left us as many open files. What select() watches gets a smaller one, or is refused.
  allow_descriptors(FD_SETSIZE);
  open_ports();
  allow_descriptors(RLIM_INFINITY);  // 512 connections, each with a folder and a file of it open, need more
  if (moves_cursor) terminal_modes.seize();
  print("ready " + own_entry().label() + " " + myself.group);
  if (terminal) print("/help lists the commands");
  while (!is_over()) {
    draw_prompt();
    const int signal_to_obey = signal_caught;  // when the keys that were pressed before it are read
    const fd_set readable = wait();
    if (FD_ISSET(STDIN_FILENO, &readable)) read_input();
    discovery::receive(readable);
    transfer::accept_connection(readable);
    discovery::tick();
    handle_events();
    show_news();
    follow_terminal();
    obey_signal(signal_to_obey);
  }
  say_goodbye();
  return !std::cout || (undelivered && !::isatty(STDIN_FILENO)) ? 1 : 0;
} catch (const UsageError& error) {
  std::cerr << "peer: " << printable(error.what()) << '\n';
  return 2;
} catch (const std::exception& error) {
  std::cerr << "peer: " << error.what() << '\n';
  return 1;
}
