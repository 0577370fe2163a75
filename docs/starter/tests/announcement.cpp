// parse() reads what format() writes, and rejects everything else.

#include "announcement.h"

#include <gtest/gtest.h>

static Announcement anns_hello() {
  Announcement hello;
  hello.verb = "HELLO";
  hello.id = "5f0c61aa97d2b3e4";
  hello.ip = "10.77.0.1";
  hello.port = 25253;
  hello.name = "ann";
  hello.group = "lab";
  return hello;
}

TEST(Announcement, IsTheLineOfTheSpecification) {
  EXPECT_EQ(format(anns_hello()),
            "ChatByP2P/1 HELLO id=5f0c61aa97d2b3e4 ip=10.77.0.1 port=25253 name=ann group=lab");
}

TEST(Announcement, IsReadAsItWasWritten) {
  const auto read = parse(format(anns_hello()));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->verb, "HELLO");
  EXPECT_EQ(read->id, "5f0c61aa97d2b3e4");
  EXPECT_EQ(read->ip, "10.77.0.1");
  EXPECT_EQ(read->port, 25253);
  EXPECT_EQ(read->name, "ann");
  EXPECT_EQ(read->group, "lab");
  EXPECT_EQ(read->to, "");
}

TEST(Announcement, MayHaveItsFieldsInAnyOrder) {
  const auto read = parse(
      "ChatByP2P/1 HERE group=lab colour=blue name=ann port=25253 ip=10.77.0.1 "
      "to=0123456789abcdef id=5f0c61aa97d2b3e4");
  ASSERT_TRUE(read);
  EXPECT_EQ(read->to, "0123456789abcdef");
}

TEST(Announcement, IsNothingElse) {
  EXPECT_FALSE(parse(""));
  EXPECT_FALSE(parse("hello"));
  EXPECT_FALSE(parse("ChatByP2P/2 HELLO id=5f0c61aa97d2b3e4 ip=10.77.0.1 port=25253 name=ann group=lab"));
  EXPECT_FALSE(parse("ChatByP2P/1 WAVE id=5f0c61aa97d2b3e4 ip=10.77.0.1 port=25253 name=ann group=lab"));
  EXPECT_FALSE(parse("ChatByP2P/1 HELLO id=5f0c61aa97d2b3e4 ip=10.77.0.1 port=25253 name=ann"));
}
