// What peer.cpp makes of what is typed: pure functions and the line editor, without a terminal and without a process.
// They are no one else's business, so they stand in no header: the whole file is included here.

#define main peer_main
#include "peer.cpp"
#undef main

#include <gtest/gtest.h>

TEST(Paths, MeanWhatTheyWouldInAShell) {
  const std::pair<const char*, const char*> paths[] = {
      {"my file", "my file"},  // the blank needs no quotes here
      {"'my file'", "my file"},
      {"\"my file\"", "my file"},
      {"my\\ file", "my file"},
      {"my file  ", "my file"},
      {"my\\ ", "my "},
      {"'my '", "my "},
      {"'my' ' '", "my  "},
      {"'a\\b'", "a\\b"},
      {"\"a\\b\"", "a\\b"},
      {"\"a\\\"b\\\\c\\$d\"", "a\"b\\c$d"},
      {"it\\'s", "it's"},
      {"\"it's\"", "it's"},
      {"it's", "it's"},  // no quote ends it: as it is typed
      {"a\\", "a\\"},
      {"~", "/home/ann"},
      {"~/my file", "/home/ann/my file"},
      {"'~/x'", "~/x"},
      {"~bob/x", "~bob/x"},
      {"a~/x", "a~/x"},
      {"$HOME", "/home/ann"},
      {"$HOME/x", "/home/ann/x"},
      {"\"$HOME/my file\"", "/home/ann/my file"},
      {"'$HOME/x'", "$HOME/x"},
      {"\\$HOME/x", "$HOME/x"},
      {"$HOMER", "$HOMER"},
      {"  ", ""},
      {"", ""}};
  for (const auto& [typed, meant] : paths) EXPECT_EQ(as_a_shell_reads(typed, "/home/ann"), meant) << typed;
}
