// 对等方用来介绍自己的一行：docs/zh/protocol.md 4.1。
//
// 它不涉及套接字，所以 tests/announcement.cpp 一毫秒就能试完。请保持这样：对等方之间交换的每一种行，
// 都放进这样的结构，带有 format() 和 parse()。

#ifndef ANNOUNCEMENT_H
#define ANNOUNCEMENT_H

#include <cstdint>
#include <optional>
#include <string>

struct Announcement {
  std::string verb;  // HELLO、HERE 或 BYE
  std::string id;
  std::string ip;
  uint16_t port = 0;
  std::string name;
  std::string group;
  std::string to;    // 这个 HERE 回答谁的 HELLO；否则为空
};

std::string format(const Announcement& said);

// 如果这一行不是通告，就什么也不返回。它没有检查规范要求的全部内容：什么样的名字、标识、地址才有效？
// 这由你来做。
std::optional<Announcement> parse(const std::string& line);

#endif
