// make fuzz: the functions of protocol.h keep their promises, whatever bytes come from the network. libFuzzer invents
// the bytes, guided by which lines of protocol.h they reach; AddressSanitizer and UndefinedBehaviorSanitizer watch.
//
// Each input goes through every property below, so a file of the corpus is simply something that a peer might send.
// tests/fuzz/corpus has inputs written by hand; its folder "found" has those that runs have found, minimized (-merge=1
// -use_counters=0). New findings go to .build/fuzz, and `.build/fuzz/fuzz FILE` repeats one; once the fault is fixed,
// the file joins the corpus.

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <limits>
#include <tuple>

#include "protocol.h"

namespace fs = std::filesystem;

namespace {

void require(bool holds, const char* what) {
  if (holds) return;
  std::cerr << "does not hold: " << what << std::endl;
  std::abort();
}

// A different number for every input, for choices that should not depend on its first bytes alone (FNV-1a).
size_t chance(std::string_view input) {
  uint64_t hash = 14695981039346656037u;
  for (const char byte : input) hash = (hash ^ static_cast<unsigned char>(byte)) * 1099511628211u;
  return hash;
}

// ---- Text ------------------------------------------------------------------------------------

// The one spelling that RFC 3629 gives a character.
std::string utf8(char32_t c) {
  const auto tail = [c](int shift) { return static_cast<char>(0x80 | (c >> shift & 0x3F)); };
  if (c < 0x80) return {static_cast<char>(c)};
  if (c < 0x800) return {static_cast<char>(0xC0 | c >> 6), tail(0)};
  if (c < 0x10000) return {static_cast<char>(0xE0 | c >> 12), tail(6), tail(0)};
  return {static_cast<char>(0xF0 | c >> 18), tail(12), tail(6), tail(0)};
}

void text_is_utf8_and_steers_nothing(std::string_view input) {
  bool all_good = true;
  for (std::string_view rest = input; !rest.empty();) {
    const std::string_view before = rest;
    const char32_t c = take_character(rest);
    const std::string_view taken = before.substr(0, before.size() - rest.size());
    require(rest.size() < before.size() && rest.data() == before.data() + taken.size(), "a character is taken off");
    require(c == kNotUtf8 ? taken.size() == 1 : taken == utf8(c), "a character has one spelling");
    require(c == kNotUtf8 || (c <= 0x10FFFF && !(c >= 0xD800 && c < 0xE000)), "a character is one of Unicode");
    all_good = all_good && (!is_control(c) || c == '\t');
  }
  require(is_text(input) == all_good, "text is characters that steer nothing");
  const std::string shown = printable(input);
  require(is_text(shown) && printable(shown) == shown, "what is shown steers nothing");
  require((shown == input) == all_good, "text is shown as it is");
}

void every_character_is_read(std::string_view input) {
  const auto c = static_cast<char32_t>(chance(input) % 0x110000);
  const std::string spelt = utf8(c), followed = spelt + std::string(input);
  std::string_view rest = followed;
  if (c >= 0xD800 && c < 0xE000) require(take_character(rest) == kNotUtf8, "a surrogate is no character");
  else require(take_character(rest) == c && rest == input, "a character is read as it is spelt");
}

void names_can_be_announced(std::string_view input) {
  if (!is_name(input)) return;
  const std::string id = "0123456789abcdef", name(input);
  const Announcement here{Verb::here, {id, name, name, {0x0A000007, 65535}, 0x0A000007}, id, true};
  const std::string text = here.format();
  const auto heard = Announcement::parse(text);
  require(heard && heard->who.name == name && heard->who.group == name, "a name is heard as it was announced");
  require(text.size() <= kMaxDatagram, "an announcement fits its datagram");
}

void names_are_compared_by_what_is_seen(std::string_view input) {
  const std::string seen = comparable(input);
  // Of bytes that are no text, a character can come to be where an invisible one is taken out.
  const bool is_same = comparable(seen) == seen;
  if (is_text(input)) require(is_same, "what is compared has nothing more to leave out");
  const bool can_be = is_text(input) && input.find('\t') == std::string_view::npos;
  if (can_be && seen.empty()) require(!is_name(input), "a name has something that is seen");
  if (!is_name(input)) return;
  require(is_name(seen), "what is seen of a name is one");
  require(resembles_label(seen) == resembles_label(input), "the invisible hides no sign of a label");
}

// ---- Numbers and addresses ---------------------------------------------------------------------

void numbers_are_digits(std::string_view input) {
  const std::string text(input);
  errno = 0;
  const uint64_t value = std::strtoull(text.c_str(), nullptr, 10);
  const bool is_number = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos && errno == 0;
  require(parse_number(input) == (is_number ? std::optional(value) : std::nullopt),
          "a number is what strtoull() reads");
  require(parse_number(input, 1000).has_value() == (is_number && value <= 1000), "a number keeps its limit");
}

void addresses_are_written_as_they_are_read(std::string_view input) {
  if (const auto ip = parse_ip(input)) require(Address{*ip}.ip_text() == input, "an IP address has one spelling");
  const auto address = parse_address(input);
  if (!address) return;
  require(address->port != 0 && parse_address(address->text()) == address, "an address is read as it was written");
  require(Address::from_sockaddr(address->to_sockaddr()) == *address, "an address survives the network's byte order");
}

// ---- Messages: format() after parse() changes nothing ----------------------------------------------

auto fields(const Announcement& a) {
  const Identity& w = a.who;
  return std::tie(a.verb, w.id, w.name, w.group, w.address, w.said_ip, a.to, a.ask_host);
}
auto fields(const Message& m) { return std::tie(m.number, m.scope, m.text); }
auto fields(const Offer& o) { return std::tie(o.size, o.files, o.name, o.executable); }
auto fields(const Entry& e) { return std::tie(e.executable, e.path); }
auto fields(const Data& d) { return std::tie(d.offset, d.size); }
auto fields(const End& e) { return std::tie(e.size, e.crc); }
auto fields(const Reply& r) { return std::tie(r.ok, r.text); }

// The first form that format() gives is canonical: fields in their order, without unknown ones or needless zeros. It
// says the same, field by field, and is not changed any more. It is text, and no longer than a line, if that was.
template <class What, class Read>
void survives(std::string_view input, Read read) {
  const std::optional<What> first = read(input);
  if (!first) return;
  const std::string canonical = first->format();
  const std::optional<What> again = read(canonical);
  require(again && fields(*again) == fields(*first), "what is formatted says what was parsed");
  require(again->format() == canonical, "what is formatted stays as it is");
  require(!is_text(input) || is_text(canonical), "a message that is text is written as text");
  require(input.size() > kMaxLine || canonical.size() <= kMaxLine, "a message that fits a line is written into one");
}

template <class Request>
void request_survives(std::string_view input) {
  survives<Request>(input, [](std::string_view text) {
    const auto line = Line::parse(text);
    return line ? Request::parse(*line) : std::nullopt;
  });
}

void messages_survive(std::string_view input) {
  survives<Announcement>(input, [](std::string_view text) { return Announcement::parse(text); });
  if (input.size() <= kMaxLine) survives<Reply>(input, [](std::string_view text) { return Reply::parse(text); });
  request_survives<Message>(input);
  request_survives<Offer>(input);
  request_survives<Entry>(input);
  request_survives<Data>(input);
  request_survives<End>(input);
  const auto line = Line::parse(input);
  if (!line) return;
  const auto message = Message::parse(*line);
  require(!message || (!message->text.empty() && message->text.size() <= kMaxText), "a message keeps its limit");
  const auto end = End::parse(*line);
  require(!end || end->crc == line->number("crc"), "a checksum is what was sent");
}

// Without a byte there is no beginning to resume: it is written as none, whatever else was said. Any other survives.
void prefixes_survive(std::string_view input) {
  const Prefix first = Prefix::parse(input);
  const std::string canonical = first.format();
  const Prefix again = Prefix::parse(canonical);
  require(again == (first.offset == 0 ? Prefix{} : first), "what is formatted says what was parsed");
  require(again.format() == canonical, "what is formatted stays as it is");
  require(first == Prefix{} || first.crc == Line::parse("OK " + std::string(input))->number("crc"),
          "a checksum is what was sent");
}

void what_is_stored_survives(std::string_view input) {
  const Stored first = Stored::parse(input);
  const Stored again = Stored::parse(first.format());
  const auto all = [](const Stored& s) { return std::tie(s.name, s.missing, s.which); };
  require(all(again) == all(first), "what is formatted says what was parsed");
}

void lines_are_verb_fields_and_text(std::string_view input) {
  const auto line = Line::parse(input);
  if (!line) return;
  std::string canonical(line->verb);
  for (const auto& [key, value] : line->fields) {
    require(!key.empty() && key.find(' ') == key.npos && value.find(' ') == value.npos,
            "a field has a key, and no blank");
    canonical += " " + std::string(key) + "=" + std::string(value);
  }
  if (line->text) canonical += " :" + std::string(*line->text);
  const auto again = Line::parse(canonical);
  require(again && again->verb == line->verb && again->fields == line->fields && again->text == line->text,
          "a line is its verb, its fields and its text");
}

// ---- The stream --------------------------------------------------------------------------------

struct Taken {
  std::vector<std::string> lines;
  bool too_long;    // the reader gives up there
  std::string rest;  // after the last line, if not
  bool operator==(const Taken& o) const { return lines == o.lines && too_long == o.too_long && rest == o.rest; }
};

// All lines of a stream that comes in pieces of `size`.
Taken take_lines(std::string_view stream, size_t size) {
  Taken taken{};
  for (; !stream.empty(); stream.remove_prefix(std::min(size, stream.size()))) {
    taken.rest += stream.substr(0, size);
    std::string_view bytes = taken.rest;
    std::string line;
    LineStatus status;
    while ((status = take_line(bytes, line)) == LineStatus::whole) taken.lines.push_back(line);
    taken.rest = bytes;
    if (status == LineStatus::too_long) return {taken.lines, true, ""};
  }
  return taken;
}

// The same, of a stream that is all there: what stands before each end.
Taken split_lines(std::string_view stream) {
  for (Taken taken{};;) {
    const size_t end = stream.find('\n');
    std::string_view line = stream.substr(0, end);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.size() > kMaxLine) return {taken.lines, true, ""};
    if (end == std::string_view::npos) return {taken.lines, false, std::string(stream)};
    taken.lines.emplace_back(line);
    stream.remove_prefix(end + 1);
  }
}

void lines_do_not_depend_on_the_cuts(std::string_view input) {
  const Taken right = split_lines(input);
  for (const size_t piece : {input.size() + 1, size_t{1}, chance(input) % (input.size() + 1) + 1})
    require(take_lines(input, piece) == right, "a stream gives the same lines, wherever it is cut");
}

// ---- Files -------------------------------------------------------------------------------------

bool stays_below(const fs::path& folder, std::string_view path) {
  const fs::path led_to = (folder / path).lexically_normal();
  return led_to.string() == folder.string() + "/" + std::string(path);
}

void file_names_lead_nowhere(std::string_view input) {
  const auto name = safe_file_name(input);
  if (!name) return;
  require(safe_file_name(*name) == name, "a file name is one of its own");
  require(stays_below("/downloads", *name) && fs::path(*name).filename() == *name, "a file stays in its folder");
  const auto n = static_cast<unsigned>(chance(input));
  for (const std::string suffix : {"", ".255.255.255.255.part"})
    for (const unsigned number : {0u, 1u, n, std::numeric_limits<unsigned>::max()})
      require(safe_file_name(numbered_name(*name, number, suffix)) == numbered_name(*name, number, suffix),
              "a numbered name is a file name");
  require(numbered_name(*name, 0) == *name, "the first name that is tried is the file's own");
  require(n < 2 || numbered_name(*name, n) != numbered_name(*name, n - 1), "the next name that is tried is another");
}

void paths_stay_in_their_folder(std::string_view input) {
  if (!is_safe_path(input)) return;
  require(is_text(input) && input.size() <= kMaxPath && stays_below("/photos", input), "an entry stays in its folder");
  for (const fs::path& component : fs::path(input))
    require(component.string().size() <= kMaxFileName, "each component of a path is a name");
}

// As POSIX defines it: bit by bit, the length behind the bytes.
uint32_t posix_cksum(std::string_view bytes) {
  std::string all(bytes);
  for (size_t length = bytes.size(); length != 0; length >>= 8) all += static_cast<char>(length & 255);
  uint32_t crc = 0;
  for (const char byte : all) {
    crc ^= uint32_t{static_cast<unsigned char>(byte)} << 24;
    for (int bit = 0; bit < 8; ++bit) crc = crc << 1 ^ (crc >> 31) * 0x04C11DB7u;
  }
  return ~crc;
}

void checksums_do_not_depend_on_the_cuts(std::string_view input) {
  const uint32_t right = posix_cksum(input);
  for (const size_t piece : {input.size() + 1, size_t{1}, chance(input) % (input.size() + 1) + 1}) {
    Cksum sum;
    for (size_t at = 0; at < input.size(); at += piece) {
      const std::string_view bytes = input.substr(at, piece);
      sum.add(bytes.data(), bytes.size());
    }
    require(sum.value() == right && sum.size() == input.size(), "a checksum is that of POSIX, however it is fed");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  for (const auto& property :
       {text_is_utf8_and_steers_nothing, every_character_is_read, names_can_be_announced,
        names_are_compared_by_what_is_seen, numbers_are_digits,
        addresses_are_written_as_they_are_read, messages_survive, prefixes_survive,
        what_is_stored_survives, lines_are_verb_fields_and_text,
        lines_do_not_depend_on_the_cuts, file_names_lead_nowhere, paths_stay_in_their_folder,
        checksums_do_not_depend_on_the_cuts})
    property(input);
  return 0;
}
