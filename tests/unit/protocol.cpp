// The pure functions of protocol.h, each at its limits: one less, the limit, one more. No socket and no process, except
// the cksum command, whose result ours must match.

#include "protocol.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <regex>
#include <set>
#include <sstream>

using namespace std::string_literals;

namespace {

std::string repeat(const std::string& piece, size_t times) {
  std::string all;
  while (times-- > 0) all += piece;
  return all;
}

std::string replace(std::string text, const std::string& what, const std::string& with) {
  const size_t at = text.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  return text.replace(at, what.size(), with);
}

// The announcement or request in `text`, once through parse() and format().
std::string again(const std::string& text) {
  if (const auto announcement = Announcement::parse(text)) return announcement->format();
  const auto line = Line::parse(text);
  if (!line) return "refused";
  if (const auto message = Message::parse(*line)) return message->format();
  if (const auto offer = Offer::parse(*line)) return offer->format();
  if (const auto entry = Entry::parse(*line)) return entry->format();
  if (const auto data = Data::parse(*line)) return data->format();
  if (const auto end = End::parse(*line)) return end->format();
  return "refused";
}

// What clause 3.1 has as "U+2028 to U+202E" or "U+061C": a set for each paragraph that names any.
std::vector<std::set<char32_t>> characters_listed_in(const std::string& path) {
  std::ifstream document(path);
  std::vector<std::set<char32_t>> paragraphs(1);
  bool is_there = false;
  const std::regex range("U\\+([0-9A-F]+)(?: (?:to|到) U\\+([0-9A-F]+))?");
  std::string text;
  for (std::string line; std::getline(document, line);) {
    if (line.rfind("### 3.1", 0) == 0) is_there = true;
    if (line.rfind("### 3.2", 0) == 0) is_there = false;
    if (!is_there) continue;
    text += line + (line.empty() ? "\n" : " ");  // a range may go on in the next line
  }
  std::istringstream all(text);
  for (std::string paragraph; std::getline(all, paragraph);) {
    for (std::sregex_iterator at(paragraph.begin(), paragraph.end(), range), end; at != end; ++at) {
      const auto first = static_cast<char32_t>(std::stoul((*at)[1], nullptr, 16));
      const auto last = (*at)[2].matched ? static_cast<char32_t>(std::stoul((*at)[2], nullptr, 16)) : first;
      for (char32_t c = first; c <= last; ++c) paragraphs.back().insert(c);
    }
    if (!paragraphs.back().empty()) paragraphs.emplace_back();
  }
  paragraphs.pop_back();
  return paragraphs;
}

const std::string kFace = "😀", kFamily = "👩‍👩‍👧";  // 4 bytes; 5 characters, two of them U+200D
const std::string kHello = "ChatByP2P/1 HELLO id=5f0c61aa97d2b3e4 ip=10.0.0.7 port=25253 name=ann group=lab";
const std::string kMost = "9223372036854775807", kOneMore = "9223372036854775808", kWrapped = "18446744073709551616";

}  // namespace

TEST(Text, IsReadCharacterByCharacter) {
  const std::pair<std::string, char32_t> characters[] = {  // first and last of each length, around the surrogates
      {"\0"s, 0}, {"\x7F", 0x7F}, {"\xC2\x80", 0x80}, {"\xDF\xBF", 0x7FF}, {"\xE0\xA0\x80", 0x800},
      {"\xED\x9F\xBF", 0xD7FF}, {"\xEE\x80\x80", 0xE000}, {"\xEF\xBF\xBF", 0xFFFF}, {"\xF0\x90\x80\x80", 0x10000},
      {"\xF4\x8F\xBF\xBF", 0x10FFFF}, {"é", 0xE9}, {"你", 0x4F60}, {kFace, 0x1F600}};
  for (const auto& [bytes, code] : characters) {
    const std::string text = bytes + "\x80";
    std::string_view rest = text;
    EXPECT_EQ(take_character(rest), code) << bytes;
    EXPECT_EQ(rest, "\x80") << bytes;
  }
}

TEST(Text, ThatIsNotUtf8IsRefusedAndShownByteByByte) {
  for (const std::string bytes : {
           "\x80", "\xBF", "\x80\x80", "\xC3", "\xE4", "\xE4\xBD", "\xF0", "\xF0\x9F", "\xF0\x9F\x98",  // stray, cut
           "\xC3\xC0", "\xE4\xBD\xC0", "\xF0\x9F\x98\xFF",  // a byte that looks almost like a continuation
           "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xE0\x9F\xBF", "\xF0\x80\x80\x80", "\xF0\x8F\xBF\xBF",  // overlong
           "\xC0\xAF", "\xE0\x80\xAF", "\xF0\x80\x80\xAF",  // overlong spellings of a slash
           "\xED\xA0\x80", "\xED\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xF8\x88\x80\x80\x80", "\xFF"}) {
    std::string_view rest = bytes;
    EXPECT_EQ(take_character(rest), kNotUtf8) << printable(bytes);
    EXPECT_EQ(rest, bytes.substr(1)) << printable(bytes);
    std::string escaped;
    for (const char byte : bytes) escaped += printable({&byte, 1});
    EXPECT_EQ(printable("a" + bytes + "b"), "a" + escaped + "b");
    EXPECT_FALSE(is_text(bytes) || is_text("a" + bytes + "b") || is_name("a" + bytes + "b")) << escaped;
  }
}

TEST(Text, KnowsTheCharactersThatTheSpecificationListsAndNoOthers) {
  for (const std::string path : {"docs/protocol.md", "docs/zh/protocol.md"}) {
    const std::vector<std::set<char32_t>> listed = characters_listed_in(path);  // a set for each paragraph of 3.1
    ASSERT_EQ(listed.size(), 3u) << path;
    for (char32_t c = 0; c <= 0x10FFFF; ++c) {
      ASSERT_EQ(is_control(c), listed[0].count(c) == 1) << path << ", " << std::hex << static_cast<uint32_t>(c);
      ASSERT_EQ(is_blank(c), listed[1].count(c) == 1) << path << ", " << std::hex << static_cast<uint32_t>(c);
      ASSERT_EQ(is_invisible(c), listed[2].count(c) == 1) << path << ", " << std::hex << static_cast<uint32_t>(c);
    }
  }
  EXPECT_TRUE(is_control(kNotUtf8));
}

TEST(Text, MayHaveBlanksTabsAndEveryScriptButNoControlCharacters) {
  for (const std::string& good : {""s, " "s, "a\tb"s, "你好，\u3000世界"s, kFamily, "שלום"s, "\\x1b"s})
    EXPECT_TRUE(is_text(good) && printable(good) == good) << good;
  for (const std::string& bad : {"a\0b"s, "\x1B[2J"s, "\n"s, "\r"s, "\x7F"s, "\u009B2J"s, "\u202Egpj.exe"s, "\u2066"s})
    EXPECT_FALSE(is_text(bad)) << printable(bad);
  EXPECT_EQ(printable("a\0\n\r\x1B[2J\t\x7F"s), "a\\x00\\x0a\\x0d\\x1b[2J\t\\x7f");
  EXPECT_EQ(printable("\u009B\u202E\u2066\xFF\x80!"), "\\xc2\\x9b\\xe2\\x80\\xae\\xe2\\x81\\xa6\\xff\\x80!");
}

TEST(Text, OfAStrangerIsShownWithoutControlCharactersWhateverItsBytes) {
  std::mt19937 random(1);
  const std::string pieces[] = {"\xC2", "\xE2", "\x80", "\xAE", "\xED\xA0", "\xF0\x9F", kFace, "\x1B", "\t", "\\"};
  for (int round = 0; round < 20000; ++round) {
    std::string bytes;
    for (auto length = random() % 12; length > 0; --length)
      bytes += random() % 2 ? std::string(1, static_cast<char>(random())) : pieces[random() % std::size(pieces)];
    const std::string shown = printable(bytes);
    ASSERT_TRUE(is_text(shown)) << shown;
    ASSERT_EQ(printable(shown), shown);
    ASSERT_EQ(shown == bytes, is_text(bytes)) << shown;
  }
}

TEST(Names, HaveOneTo32CharactersWithoutBlanksOrControlCharacters) {
  for (const std::string& good : {"a"s, "王小明"s, kFamily, "e\u0301"s, "a@b:c=d"s, repeat("a", 31), repeat("a", 32),
                                  repeat("名", 32), repeat(kFace, 31), repeat(kFace, 32), repeat(kFamily, 6) + "ab"})
    EXPECT_TRUE(is_name(good)) << good;
  for (const std::string& bad : {""s, " "s, "a b"s, " a"s, "a "s, "a\tb"s, "a\0"s, "\0"s, "\x1B"s, "a\n"s, "a\u009Bb"s,
                                 "a\u202Eb"s, "a\u2067b"s, "a\u3000b"s, "\u00A0"s, "a\u200Bb"s, "\xFF"s, "a\xC3"s,
                                 repeat("a", 33), repeat("名", 33), repeat(kFace, 33), repeat(kFamily, 6) + "abc"})
    EXPECT_FALSE(is_name(bad)) << printable(bad);
}

TEST(Names, MayHaveInvisibleCharactersWhichDoNotCountWhenTheyAreCompared) {
  const std::string mark = "\U000E0062";  // one of the tags that make the flags of regions
  for (const std::string& bob : {"bob"s, "b\u200Dob"s, "\u2060bob"s, "bob\uFE0F"s, "bo\u00ADb"s, "bob" + mark}) {
    EXPECT_TRUE(is_name(bob)) << bob;
    EXPECT_EQ(comparable(bob), "bob");
  }
  EXPECT_EQ(comparable(kFamily), "👩👩👧");
  EXPECT_EQ(comparable("Zoë"), "Zoë");
  for (const std::string& nobody : {"\u200D"s, "\uFE0F"s, "\u2060\u2060"s, mark, "\u00AD\u034F"s}) {
    EXPECT_FALSE(is_name(nobody)) << comparable(nobody);
    EXPECT_EQ(comparable(nobody), "");
  }
  for (const char* blank : {"\u2800", "\u3164", "\u115F", "\u1160", "\uFFA0", "\uFEFF", "\U0001D159"})
    EXPECT_FALSE(is_name("bob"s + blank)) << blank;
}

TEST(Names, ThatCouldBeTakenForALabelAreKnown) {
  for (const std::string& name : {"bob"s, "Zoë"s, "王小明"s, kFamily, "b.o-b_7"s}) EXPECT_FALSE(resembles_label(name)) << name;
  for (const char* sign : {"@", "＠", "﹫", ":", "：", "﹕", "꞉", "∶", "˸", "ː", "։", "׃", "︰", "⁚"}) {
    EXPECT_TRUE(resembles_label("bob"s + sign)) << sign;
    EXPECT_TRUE(resembles_label(sign + "7"s)) << sign;
  }
}

TEST(Numbers, AreDigitsAndNothingElseUpToTheirLimit) {
  EXPECT_EQ(parse_number("0042"), 42u);
  EXPECT_EQ(parse_number("18446744073709551614"), UINT64_MAX - 1);
  EXPECT_EQ(parse_number("18446744073709551615"), UINT64_MAX);
  EXPECT_TRUE(parse_number("99", 100) == 99u && parse_number("100", 100) == 100u && parse_number("0", 0) == 0u);
  EXPECT_FALSE(parse_number("101", 100) || parse_number("1", 0) || parse_number(std::string_view()));
  for (const std::string& bad : {""s, "+1"s, "-1"s, "-0"s, " 1"s, "1 "s, "1\0"s, "1.0"s, "0x1"s, "a"s, "１"s, kWrapped})
    EXPECT_FALSE(parse_number(bad)) << bad;
}

TEST(Addresses, AreFourDecimalPartsAndAPort) {
  EXPECT_EQ(parse_ip("10.0.0.7"), 0x0A000007u);
  EXPECT_TRUE(parse_ip("0.0.0.0") == 0u && parse_ip("255.255.255.255") == 0xFFFFFFFFu);
  for (const std::string bad : {"", "1.2.3", "1.2.3.", ".1.2.3", "1..2.3", "1.2.3.4.5", "1.2.3.4.", "256.0.0.1",
                                "1.2.3.256", "010.0.0.1", "10.0.0.01", "1.2.3.4x", "1.2.3.4 ", " 1.2.3.4", "1.2.3.-4",
                                "0xA.0.0.1", "167772167", "1.2.3.4/24", "1.2.3.4\n", "::1", "localhost"})
    EXPECT_FALSE(parse_ip(bad) || parse_address(bad + ":25253")) << bad;
  EXPECT_FALSE(parse_ip("1.2.3.4\0"s) || parse_ip("1.2.3.4\0x"s) || parse_address("1.2.3.4\0x:25253"s));
  EXPECT_EQ(parse_address("10.0.0.7:1"), (Address{0x0A000007, 1}));
  EXPECT_EQ(parse_address("10.0.0.7:65535"), (Address{0x0A000007, 65535}));
  for (const std::string bad : {"", ":", ":0", ":65536", ":-1", ":+1", ": 1", ":1 ", ":1:2", "::1", ":x", " 1"})
    EXPECT_FALSE(parse_address("10.0.0.7" + bad)) << bad;
}

TEST(Addresses, AreInNetworkByteOrderForTheSystemOnly) {
  const Address ann{0x0A000007, 25253};
  const sockaddr_in raw = ann.to_sockaddr();
  EXPECT_EQ(std::memcmp(&raw.sin_addr, "\x0A\x00\x00\x07", 4), 0);
  const unsigned char port[] = {25253 / 256, 25253 % 256};
  EXPECT_EQ(std::memcmp(&raw.sin_port, port, 2), 0);
  EXPECT_EQ(ann.text(), "10.0.0.7:25253");
  EXPECT_EQ(Address::from_sockaddr(raw), ann);
}

TEST(Lines, AreWhatTheExamplesOfTheSpecificationSay) {
  std::ifstream specification("docs/protocol.md");
  int examples = 0;
  for (std::string line; std::getline(specification, line);) {
    std::smatch match;
    if (!std::regex_match(line, match, std::regex("    ([+-]) (announcement|request|reply) +(.*)"))) continue;
    const std::string kind = match[2], text = match[3];
    const bool is_read = kind == "announcement" ? Announcement::parse(text).has_value()
                         : kind == "reply"      ? Reply::parse(text).has_value()
                                                : again(text) != "refused";
    EXPECT_EQ(is_read, match[1] == "+") << line;
    ++examples;
  }
  EXPECT_GT(examples, 30);
}

TEST(Lines, AreAVerbFieldsInAnyOrderAndText) {
  const auto line = Line::parse("VERB b=2 new=x=y empty= a=1 : two  blanks :and a=3 ");
  ASSERT_TRUE(line);
  EXPECT_EQ(line->verb, "VERB");
  EXPECT_EQ(line->fields.size(), 4u);  // those that nobody asks for do no harm
  EXPECT_EQ(line->field("new"), "x=y");
  EXPECT_EQ(line->field("missing"), "");
  EXPECT_EQ(line->text, " two  blanks :and a=3 ");
  EXPECT_EQ(line->number("b", 2), 2u);
  EXPECT_FALSE(line->number("b", 1) || line->number("missing") || line->number("empty") || line->number("new"));
  EXPECT_EQ(Line::parse("VERB :")->text, "");
  EXPECT_FALSE(Line::parse("VERB")->text || Line::parse("VERB a=:b")->text);  // only a colon behind a blank begins it
}

TEST(Lines, AreRefusedForWhatIsNoFieldOrGivenTwice) {
  for (const std::string bad : {"V a", "V a b=1", "V a=1 b", "V =", "V =x", "V a=1 =x", "V  a=1", "V a=1  b=2",
                                "V a=1 a=1", "V a=1 b=2 a=3", "V a= a=", "V a :a=1"})
    EXPECT_FALSE(Line::parse(bad)) << bad;
}

TEST(Announcements, OfEveryKindAreReadAsTheyAreWritten) {
  const Identity ann{"5f0c61aa97d2b3e4", "ann", "lab", {0x7F000001, 25253}, 0x0A000007};
  EXPECT_EQ((Announcement{Verb::hello, ann}.format()), kHello);  // with the address that it believes it has
  for (const std::string verb : {"HELLO", "HERE", "BYE"})
    for (const std::string more : {"", " to=00000000000000aa", " ask=host", " to=00000000000000aa ask=host"}) {
      const std::string text = replace(kHello, "HELLO", verb) + more;
      EXPECT_EQ(again(text), text);
    }
  const auto heard = Announcement::parse(replace(kHello, "HELLO", "HERE") + " to=00000000000000aa ask=host");
  ASSERT_TRUE(heard && heard->verb == Verb::here && heard->to == "00000000000000aa" && heard->ask_host);
  EXPECT_TRUE(heard->who.label() == "ann@10.0.0.7:25253" && heard->who.said_ip == 0x0A000007);
}

TEST(Announcements, MayHaveTheirFieldsInAnyOrderAndUnknownOnesAmongThem) {
  std::string fields[] = {" group=lab", " id=5f0c61aa97d2b3e4", " ip=10.0.0.7", " name=ann", " port=25253"};
  do {
    std::string text = "ChatByP2P/1 HELLO mood=good";
    for (const std::string& field : fields) text += field;
    EXPECT_EQ(again(text + " x= ask=everybody"), kHello) << text;
  } while (std::next_permutation(std::begin(fields), std::end(fields)));
}

TEST(Announcements, AreDroppedForAFieldThatIsMissingOrWrong) {
  for (const std::string field : {" id=5f0c61aa97d2b3e4", " ip=10.0.0.7", " port=25253", " name=ann", " group=lab"}) {
    const std::string key = field.substr(0, field.find('=') + 1);
    for (const std::string& wrong : {""s, key, field + "\0"s, field + "\t", field + "\xFF", field + field})
      EXPECT_EQ(again(replace(kHello, field, wrong)), "refused") << printable(wrong);
  }
  const std::pair<std::string, std::string> wrong[] = {
      {"97d2b3e4", "97d2b3e"}, {"97d2b3e4", "97d2b3e4a"}, {"5f0c61aa", "5F0C61AA"}, {"5f0c61aa", "5g0c61aa"},
      {"10.0.0.7", "10.0.0.256"}, {"10.0.0.7", "10.0.0.7:1"}, {"25253", "0"}, {"25253", "65536"}, {"25253", "+1"},
      {"ann", repeat("a", 33)}, {"ann", "a\u3000b"}, {"lab", repeat(kFace, 33)}, {"lab", "a\u202Eb"},
      {"lab", "lab to=aa"}, {"lab", "lab to=00000000000000AA"}, {"lab", "lab mood"}, {"lab", "lab mood=\x1B"},
      {"lab", "lab\n"}, {"HELLO", "hello"}, {"HELLO", "HELLOS"}, {"HELLO", "HI"}, {"HELLO", ""}, {"HELLO ", ""}};
  for (const auto& [what, with] : wrong) EXPECT_EQ(again(replace(kHello, what, with)), "refused") << printable(with);
  for (const std::string port : {"1", "65535"}) EXPECT_NE(again(replace(kHello, "25253", port)), "refused");
}

TEST(Announcements, OfOtherProtocolsAndVersionsAreDropped) {
  for (const std::string other : {"ChatByP2P/2", "ChatByP2P/10", "ChatByP2P/1.1", "ChatByP2P/", "ChatByP2P", "Chat/1",
                                  "chatbyp2p/1", " ChatByP2P/1", "ChatByP2P/1 ", "ChatByP2P/1\t", "OK ChatByP2P/1", ""})
    EXPECT_EQ(again(replace(kHello, "ChatByP2P/1", other)), "refused") << other;
  for (const std::string other : {"", "ChatByP2P/1", "ChatByP2P/1 ", "ChatByP2P/1 HELLO", "GET / HTTP/1.1"})
    EXPECT_FALSE(Announcement::parse(other)) << other;
}

TEST(Announcements, OfTheLongestNamesFitADatagram) {
  const std::string id(16, 'f'), name = repeat(kFace, kMaxName);
  const std::string longest = Announcement{Verb::hello, {id, name, name, {0, 65535}, 0xFFFFFFFF}, id, true}.format();
  EXPECT_LE(longest.size(), kMaxDatagram);
  EXPECT_EQ(again(longest), longest);
}

TEST(Requests, AreWrittenAsTheSpecificationSays) {
  EXPECT_EQ((Message{7, "private", "See you at nine."}.format()), "MSG number=7 scope=private :See you at nine.");
  EXPECT_EQ((Offer{10485760, 1, "report.pdf"}.format()), "OFFER size=10485760 files=1 :report.pdf");
  EXPECT_EQ((Offer{12, 1, "run.sh", true}.format()), "OFFER size=12 files=1 mode=x :run.sh");
  EXPECT_EQ((Entry{false, "a b.txt"}.format()), "FILE :a b.txt");
  EXPECT_EQ((Entry{true, "bin/run.sh"}.format()), "FILE mode=x :bin/run.sh");
  EXPECT_EQ((Prefix{1, 4096, 930766865}.format()), "entries=1 offset=4096 crc=930766865");
  EXPECT_EQ((Data{0, 65536}.format()), "DATA offset=0 size=65536");
  EXPECT_EQ((End{10485760, 930766865}.format()), "END size=10485760 crc=930766865");
}

TEST(Requests, NeedEachOfTheirNumbersAndTakeItUpToItsLimit) {
  for (const std::string line :
       {"MSG number=# scope=all :x", "OFFER size=# files=1 :x", "OFFER size=1 files=# :x", "DATA offset=# size=1",
        "DATA offset=1 size=#", "END size=# crc=1", "END size=1 crc=#"}) {
    const auto with = [&line](const std::string& value) { return replace(line, "=#", value); };
    const bool may_be_none = line != "DATA offset=1 size=#";
    EXPECT_EQ(again(with("=0")), may_be_none ? with("=0") : "refused");
    for (const std::string value : {"=7", "=4294967295"}) EXPECT_EQ(again(with(value)), with(value));
    const bool is_crc = line == "END size=1 crc=#";
    for (const std::string& value : {"=4294967296"s, "=9223372036854775806"s, "=" + kMost})
      EXPECT_EQ(again(with(value)), is_crc ? "refused" : with(value));
    for (const std::string& value : {"2=1"s, "="s, "=-1"s, "=+1"s, "= 1"s, "=1x"s, "=" + kOneMore, "=" + kWrapped})
      EXPECT_EQ(again(with(value)), "refused") << with(value);
    for (const std::string verb : {"", "msg", "MSGS", "HELLO", "OK"})
      EXPECT_EQ(again(verb + with("=1").substr(line.find(' '))), "refused") << verb;
    EXPECT_EQ(again(replace(with("=7"), " ", " new=x ")), with("=7"));  // version 1 can grow
  }
}

TEST(Requests, CarryAnyTextUpToItsLimit) {
  for (const std::string& text : {"x"s, " : a=b  "s, "你好 " + kFamily, "a\tb"s, repeat("x", 3999), repeat("x", 4000)})
    for (const std::string& start : {"MSG number=" + kMost + " scope=private :", "OFFER size=1 files=1 :"s}) {
      EXPECT_EQ(again(start + text), start + text);
      EXPECT_LE(start.size() + text.size(), kMaxLine);
    }
  for (const std::string& text : {""s, " :"s, " :" + repeat("x", 4001), " :" + repeat("名", 1334)})
    EXPECT_EQ(again("MSG number=1 scope=private" + text), "refused") << text.size();
  EXPECT_EQ(again("OFFER size=1 files=1"), "refused");
}

TEST(Requests, OfDataCarryAtLeastOneByte) {
  EXPECT_EQ(again("DATA offset=0 size=1"), "DATA offset=0 size=1");
  EXPECT_EQ(again("DATA offset=0 size=0"), "refused");
}

TEST(Requests, OfAFolderEndInASlash) {
  for (const auto& [name, is_folder] : std::vector<std::pair<std::string, bool>>{{"a/", true}, {"a", false}, {"", false}}) {
    const std::string text = "OFFER size=1 files=1 :" + name;
    EXPECT_EQ(Offer::parse(*Line::parse(text))->is_folder(), is_folder) << name;
  }
}

TEST(Requests, NameAnEntryOfAFolderAndWhetherItCanBeRun) {
  for (const std::string line : {"FILE :a", "FILE mode=x :b c/d: e", "FILE :sub/"}) EXPECT_EQ(again(line), line);
  EXPECT_EQ(again("FILE mode=rw :a"), "FILE :a");
  for (const std::string line : {"FILE", "FILE mode=x", "file :a"}) EXPECT_EQ(again(line), "refused") << line;
}

TEST(Replies, ToAnOfferMayNameABeginningThatIsThere) {
  const Prefix prefix{3, 4096, 4294967295};
  EXPECT_EQ(Prefix::parse(prefix.format()), prefix);
  EXPECT_EQ(Prefix::parse("new=1 " + prefix.format()), prefix);
  for (const std::string none : {"", "entries=3 offset=4096", "entries=3 offset=-1 crc=1", "offset=1 crc=1 entries=",
                                 "entries=3 offset=1 crc=4294967296", "entries=3 offset=1 offset=1 crc=1", "thank you"})
    EXPECT_EQ(Prefix::parse(none), Prefix{}) << none;
}

TEST(Replies, ToAnEndNameWhatIsStoredAndWhatIsNot) {
  Stored stored;
  stored.name = "photos/";
  EXPECT_EQ(stored.format(), ":photos/");
  stored.missing = 2;
  stored.which = "a :b (too long), c (too long)";
  EXPECT_EQ(stored.format(), "missing=2 :photos/\ta :b (too long), c (too long)");
  const Stored again = Stored::parse("new=1 " + stored.format());
  EXPECT_EQ(again.name, "photos/");
  EXPECT_EQ(again.missing, 2u);
  EXPECT_EQ(again.which, stored.which);
  for (const std::string text : {"", ":a", "a", "a :b", "missing=x :a"}) EXPECT_EQ(Stored::parse(text).missing, 0u) << text;
  EXPECT_EQ(Stored::parse("").name, "");
  EXPECT_EQ(Stored::parse(":a :b").name, "a :b");
  EXPECT_EQ(Stored::parse("a b").name, "a b");  // as a peer may write it that takes the colon for decoration
}

TEST(Requests, OfAScopeThatIsNotKnownAreReadAsPrivate) {
  EXPECT_EQ(again("MSG number=1 scope=group :x"), "MSG number=1 scope=group :x");
  for (const std::string scope : {" scope=private", " scope=", "", " scope=GROUP", " scope=everybody", " scope=al"})
    EXPECT_EQ(again("MSG number=1" + scope + " :x"), "MSG number=1 scope=private :x") << scope;
}

TEST(Replies, AreOkOrNoAWordAndASentence) {
  for (const std::string& line : {"OK"s, "OK two words"s, "OK " + kHello, "NO busy"s, "NO space is low"s}) {
    const auto reply = Reply::parse(line);
    ASSERT_TRUE(reply) << line;
    EXPECT_EQ(reply->format(), line);
    EXPECT_EQ(reply->ok, line[0] == 'O') << line;
  }
  EXPECT_EQ((Reply{false, "space is low"}.format()), "NO space is low");
  EXPECT_EQ((Reply{false, "failed " + repeat("名", 2000)}.format().size()), 4096u);
  EXPECT_EQ((Reply{false, repeat("x", 4093)}.format()), "NO " + repeat("x", 4093));
  EXPECT_EQ(Reply::parse("NO space is low")->sentence(), "is low");
  EXPECT_EQ(Reply::parse("NO busy")->sentence(), "busy");
  for (const std::string bad : {"", " ", "ok", "OKAY", "NOT", "NOPE x", " OK", "OK\tx", "YES", "MSG number=1 :OK"})
    EXPECT_FALSE(Reply::parse(bad)) << bad;
}

static LineStatus take(std::string& buffer, std::string& line) {
  std::string_view left = buffer;
  const LineStatus status = take_line(left, line);
  buffer = std::string(left);
  return status;
}

TEST(Buffer, GivesTheSameLinesHoweverTheStreamIsCut) {
  const std::string stream = "MSG number=1 :你好\n\na\rb\r\n\r\n\r\r\nDATA offset=0 size=8\n\0\r\n\xFF\nOK"s;
  const std::vector<std::string> right = {"MSG number=1 :你好", "", "a\rb", "", "\r", "DATA offset=0 size=8",
                                          "\0\r\n\xFF\nOK"s};  // the last: bytes of a file, which only look like lines
  for (size_t cut = 0; cut < stream.size(); ++cut) {  // into two; 0: into its bytes
    std::vector<std::string> taken;
    std::string buffer, line;
    for (size_t at = 1; at <= stream.size(); ++at) {
      buffer += stream[at - 1];
      if (cut != 0 && at != cut && at != stream.size()) continue;
      while (taken.size() < right.size() - 1 && take(buffer, line) == LineStatus::whole) taken.push_back(line);
    }
    taken.push_back(buffer);
    EXPECT_EQ(taken, right) << cut;
  }
}

TEST(Buffer, TakesLinesOfAtMost4096Bytes) {
  for (const size_t size : {0u, 1u, 4095u, 4096u, 4097u, 10000u})
    for (const std::string end : {"", "\r", "\n", "\r\n", "\r\nnext\n"}) {
      const std::string content(size, 'x');
      std::string buffer = content + end, line = "as before";
      const bool ends = end.find('\n') != std::string::npos;
      const LineStatus right = size > 4096 ? LineStatus::too_long : ends ? LineStatus::whole : LineStatus::incomplete;
      EXPECT_EQ(take(buffer, line), right) << size << printable(end);
      EXPECT_EQ(line, right == LineStatus::whole ? content : "as before") << size << printable(end);
      EXPECT_TRUE(right != LineStatus::incomplete || buffer == content + end) << size << printable(end);
    }
}

TEST(FileNames, FromTheNetworkNeverLeadOutOfTheFolder) {
  const std::string longest(255, 'a');
  const std::pair<std::string, std::string> kept[] = {
      {"report.pdf", "report.pdf"}, {"../x", "x"}, {"/etc/passwd", "passwd"}, {"../../a/b", "b"}, {"//x", "x"},
      {"...", "..."}, {"-rf", "-rf"}, {" a  b ", " a  b "}, {".bashrc", ".bashrc"}, {"课件/第一章.pdf", "第一章.pdf"},
      {"a\tb/c", "c"}, {longest, longest}, {repeat("x", 300) + "/" + longest, longest}};
  for (const auto& [path, name] : kept) EXPECT_EQ(safe_file_name(path), name) << path;
  for (const std::string& bad : {""s, "."s, ".."s, "/"s, "a/"s, "a/."s, "a/.."s, "/.."s, "../"s, "\0"s, "x/a\0b"s,
                                 "a\nb"s, "a\tb"s, "\x1B[2J"s, "a\u202Egpj.exe"s, "a\x7F"s, "a\u0085"s, "a\xFF"s,
                                 "\xC0\xAF"s, longest + "a", repeat("é", 128), "x/" + longest + "a"})
    EXPECT_FALSE(safe_file_name(bad)) << printable(bad);
}

TEST(FileNames, InAFolderAreSafeInEachComponent) {
  for (const std::string& path : {"a"s, "a/"s, "a/b/c.txt"s, "文件/第一章"s, ".a/..b/-c"s, repeat("ab/", 1333)})
    EXPECT_TRUE(is_safe_path(path)) << path;
  for (const std::string& path : {""s, "/"s, "/a"s, "a//b"s, "a//"s, "."s, ".."s, "../a"s, "a/../b"s, "a/./b"s, "a/.."s,
                                  "a\0b"s, "a/b\tc"s, "a/\x1B"s, "a/\xFF"s, repeat("a", 256) + "/b", repeat("ab/", 1334)})
    EXPECT_FALSE(is_safe_path(path)) << printable(path);
}

TEST(FileNames, AreNumberedBeforeTheirEnding) {
  const std::tuple<std::string, unsigned, std::string, std::string> names[] = {
      {"report.pdf", 0, "", "report.pdf"}, {"report.pdf", 1, "", "report (1).pdf"},
      {"report.pdf", 0, ".part", "report.pdf.part"}, {"report.pdf", 12, ".part", "report (12).pdf.part"},
      {"report", 1, "", "report (1)"}, {"a.b.c", 1, "", "a.b (1).c"}, {".bashrc", 1, "", ".bashrc (1)"},
      {"a (1).txt", 1, "", "a (1) (1).txt"}, {"第一章.课件", 3, "", "第一章 (3).课件"},
      {"a." + repeat("x", 31), 1, "", "a (1)." + repeat("x", 31)},  // what is longer is no ending
      {"a." + repeat("x", 32), 1, "", "a." + repeat("x", 32) + " (1)"}};
  for (const auto& [plain, n, suffix, expected] : names) EXPECT_EQ(numbered_name(plain, n, suffix), expected);
}

TEST(FileNames, ThatAreTooLongLoseWholeCharactersAndKeepTheirEnding) {
  EXPECT_EQ(numbered_name(repeat("a", 251) + ".pdf", 0), repeat("a", 251) + ".pdf");
  EXPECT_EQ(numbered_name(repeat("a", 251), 0, ".part"), repeat("a", 250) + ".part");
  EXPECT_EQ(numbered_name(repeat("a", 247) + ".pdf", 1), repeat("a", 247) + " (1).pdf");
  EXPECT_EQ(numbered_name(repeat("a", 248) + ".pdf", 1), repeat("a", 247) + " (1).pdf");
  for (const std::string character : {"a", "é", "名", "😀"})
    for (size_t shift = 0; shift < 4; ++shift)
      for (const unsigned n : {1u, 10u, 4294967295u})
        for (const std::string ending : {"", ".txt"}) {
          const std::string stem = std::string(shift, '-') + repeat(character, (251 - shift) / character.size());
          const std::string tail = " (" + std::to_string(n) + ")" + ending + ".part";
          const std::string name = numbered_name(stem + ending, n, ".part");
          ASSERT_TRUE(name.size() <= 255 && name.size() + character.size() > 255) << name;
          EXPECT_EQ(name, stem.substr(0, name.size() - tail.size()) + tail);
          EXPECT_TRUE(is_text(name)) << printable(name);
        }
}

TEST(Checksum, IsThatOfTheCksumCommandHoweverTheBytesAreFed) {
  std::mt19937 random(2);
  std::string bytes(1000003, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  char path[] = "/tmp/chatbyp2p.XXXXXX";
  const Descriptor file(::mkstemp(path));
  ASSERT_EQ(::write(file.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  for (size_t size = 0; size <= bytes.size(); size += size < 40 ? 1 : size + random() % 100) {
    FILE* const command = ::popen(("head -c " + std::to_string(size) + " " + path + " | cksum").c_str(), "r");
    char printed[100] = "";
    ASSERT_TRUE(command && std::fgets(printed, sizeof printed, command));
    ::pclose(command);
    for (const size_t most : {size_t{20}, size_t{5000}, bytes.size()}) {
      Cksum sum;
      for (size_t done = 0, next; done < size; done += next) {
        next = most > size ? size : std::min<size_t>(random() % most, size - done);
        sum.add(bytes.data() + done, next);
      }
      EXPECT_EQ(std::to_string(sum.value()) + " " + std::to_string(sum.size()) + "\n", printed) << most;
    }
  }
  ::unlink(path);
}
