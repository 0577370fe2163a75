// transfer.cpp: everything that goes over TCP: conversations and files.
//
// Read protocol.h first, then discovery.cpp; peer.cpp is next. There is one thread per connection:
//
//   a conversation   we opened it, to send messages; kept while it is used      converse()
//   a file           we opened it, to send one file or folder                   send_file()
//   an accepted one  someone else opened it, and we answer what it asks         serve()
//
// In order of reading: Connection, bytes and lines with a bound to every wait; Source, a file or folder on its way out;
// Incoming, one on its way in; Session, what a connection's thread does, asking or answering; and at the end, what the
// main thread calls.
//
// A thread ends by itself: at the end of its dialogue, at an error, or soon after cancel(), for while it waits it looks
// at the flag every quarter of a second. At the end of the program, shutdown() of the socket wakes whoever still waits;
// close() would not: a recv() goes on waiting, and meanwhile another connection may be given the descriptor's number.
//
// Left out on purpose: links, owners, times and permissions of files, but for "executable"; rsync sends those.

#include <dirent.h>
#include <fnmatch.h>
#include <netinet/tcp.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <thread>

#include "protocol.h"

using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

// ---- Timers and limits [2.2], [2.3] ------------------------------------------------------

constexpr auto kConnectTime = 4s;
constexpr auto kSilence = 10s;         // in the middle of a line, a file, a reply
constexpr auto kIdle = 30s;            // a conversation unused for so long is closed by its opener
constexpr auto kForsaken = 60s;        // and, should the opener have vanished, by who accepted it
constexpr auto kOfferTime = 120s;      // to accept or reject a file
constexpr auto kStoreTime = 300s;      // to bring it to a slow disk
constexpr auto kPrefixTime = 120s;     // to read again what an earlier try has left; the other side waits longer
constexpr auto kSlice = 250ms;         // the poll interval: between two looks at `cancelled`
constexpr size_t kMaxAccepted = 512;
constexpr size_t kMaxAcceptedFromOne = 128;
// Bytes of a file in one DATA, and in one read(), send(), recv() and write(). By measurement, between two namespaces:
// 64 KiB 950 MB/s, 256 KiB 1,050, 512 KiB 1,250, 1 MiB 1,400, 4 MiB 1,150. Each wait that ends costs a switch to the
// other thread; and what does not fit the processor's cache has to be fetched again for the checksum.
constexpr size_t kChunk = 1024 * 1024;
// Small files are taken in by so many bytes at once: some sixty of 4 KiB. With one recv() for each, ten thousand take
// 0.40 s instead of 0.22; with much more, a slow disk would keep us from reading for longer than the sender waits.
constexpr size_t kBatch = 256 * 1024;

const Reply kCancelled{false, "cancelled the other user has cancelled it"};
const Reply kLeft{false, "cancelled the other user has left"};
const Reply kNotALine{false, "syntax a line is VERB key=value ... :text"};

// ---- State: set before the first thread starts, or the main thread's own, but for the two flags ---

bool (*can_reach)(uint32_t ip);
Descriptor listening_socket;
Clock::time_point accept_after;               // the listening socket is not looked at before
std::atomic<bool> is_leaving{false};          // everything is cancelled because our user leaves
std::atomic<bool> is_closing{false};          // the program ends: for any thread that is still tidying up
uint64_t next_number = 1, next_ticket = 1;    // of a message; of a session
// The last numbers of messages, by the id that sent them and its address.
std::map<std::pair<std::string, Address>, std::deque<uint64_t>> messages_seen;

// What the other side is told when we are to end.
const Reply& cancellation() { return is_leaving ? kLeft : kCancelled; }

// A refusal by our user himself: what the other side is told of him is not what he is told.
struct Decision {
  Reply reply;
  std::string to_our_user;
};

// ============================================================================
// A connection: bytes and lines, every wait with a bound
// ============================================================================

// A thread may block: that is what it is for. SO_RCVTIMEO and SO_SNDTIMEO see to it that no send() or recv() blocks for
// longer than kSlice, so that between two tries it can look at the clock and at `cancelled`.
//
// What fails is thrown: an exception where the connection is of no more use, a Reply (a NO) where the other side can
// and should be told why we end it.
class Connection {
 public:
  // `silence` is what to say when nothing comes in time: who has opened a connection waits for answers, who has accepted
  // it for requests.
  Connection(Descriptor fd, Address other, const char* silence, const std::atomic<bool>& cancelled)
      : socket_(std::move(fd)), other_(other), silence_(silence), cancelled_(cancelled) {
    // Nagle's algorithm holds a small segment back until the one before is acknowledged, and the other side delays
    // that acknowledgement: 44 ms for a reply instead of 0.06.
    const int on = 1;
    check(::setsockopt(socket_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), "setsockopt TCP_NODELAY");
    limit(SO_RCVTIMEO, kSlice);
    limit(SO_SNDTIMEO, kSlice);
  }
  ~Connection() {
    const std::string ends = tracing ? ends_of(socket_.get(), "--", other_) : "";  // now: a closed socket has none
    const int result = socket_.close();
    if (tracing) ::trace(ends, "close = " + to_string(result));
  }

  void shut_down(int how = SHUT_RDWR) const { traced("shutdown", ::shutdown(socket_.get(), how)); }

  // What has not got across yet never will. After a mere close() the kernel goes on sending it, for a minute or more:
  // it would come late, when the receiver has forgotten the number of what was sent in its place.
  void abandon() const {
    const linger at_once{1, 0};
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  }

  uint32_t local_ip() const { return local_address(socket_.get()).ip; }

  // Left to itself, the kernel tries for two minutes. On Linux SO_SNDTIMEO holds for connect() as well: socket(7). It is
  // then still under way, and another connect() waits for the same one.
  void connect() const {
    sockaddr_in raw = other_.to_sockaddr();
    const auto deadline = Clock::now() + kConnectTime;
    for (;;) {
      const int result = uninterrupted([&] { return ::connect(socket_.get(), generic(raw), sizeof raw); });
      const bool is_under_way = result == -1 && (errno == EINPROGRESS || errno == EALREADY);
      if (is_under_way && cancelled_) throw cancellation();
      if (is_under_way && Clock::now() < deadline) continue;
      if (is_under_way) errno = ETIMEDOUT;
      check(traced("connect", result), "cannot connect to " + other_.text());
      return;
    }
  }

  // All of it: send() may take only a part. A line is given to it in one call; in two, it would travel in two segments.
  // SIGPIPE is ignored by main(), so a peer that is gone shows as EPIPE here instead of ending the program.
  void send(std::string_view bytes) const {
    for (auto deadline = Clock::now() + kSilence; !bytes.empty();) {
      const ssize_t sent = uninterrupted([&] { return ::send(socket_.get(), bytes.data(), bytes.size(), 0); });
      if (sent >= 0) {
        bytes.remove_prefix(static_cast<size_t>(sent));
        deadline = Clock::now() + kSilence;
      } else if (errno != EAGAIN && errno != EWOULDBLOCK) {
        check(traced("send", sent), "connection lost");
      }
      const bool is_given_up = cancelled_ || Clock::now() > deadline;
      if (is_given_up && !bytes.empty()) throw std::runtime_error("the other side stopped reading");
    }
  }
  void send_line(const std::string& line) const {
    trace("->", line);
    send(line + "\n");
  }

  // Waits until something can be read. False where the other side has closed the connection.
  bool await(Clock::duration patience) const {
    char byte;
    return !unread_.empty() || receive(&byte, 1, MSG_PEEK, Clock::now() + patience) > 0;
  }

  // Whether there is something to read at once; the end of the connection, and an error, are that, too.
  bool has_input() const {
    char byte;
    const ssize_t got = ::recv(socket_.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return !unread_.empty() || got >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
  }

  // The next line. It has kSilence to end, however slowly its bytes trickle in.
  std::string read_line() {
    while (!events.wait_for_room(kSlice) && !cancelled_) {}  // whatever this line will make us say
    std::string line;
    for (const auto deadline = Clock::now() + kSilence;;) {
      const LineStatus status = take_line(unread_, line);
      if (status == LineStatus::too_long) throw Reply{false, "long a line has at most 4096 bytes"};
      if (status == LineStatus::whole) trace("<-", line);
      if (status == LineStatus::whole && is_text(line)) return line;
      if (status == LineStatus::whole) throw Reply{false, "text a line is UTF-8 without control characters"};
      if (!read_more(batch_, 0, deadline))
        throw std::runtime_error("the connection ended in the middle of a line");
    }
  }

  // Bytes as they are, at least one: those that came along with the last line, or else all that are asked for, unless
  // they are long in coming (MSG_WAITALL: to be woken for every few of them costs most). Good until the next read.
  std::string_view read(uint64_t most) {
    const auto wanted = static_cast<size_t>(std::min<uint64_t>(most, kChunk));  // size_t may have 32 bits
    batch_ = kBatch;
    if (unread_.empty() && !read_more(wanted, MSG_WAITALL, Clock::now() + kSilence))
      throw std::runtime_error("the connection ended in the middle of the file");
    const std::string_view bytes = unread_.substr(0, wanted);
    unread_.remove_prefix(bytes.size());
    return bytes;
  }

  // Our last line. A socket that is closed with unread data in it sends a reset, which may overtake what we sent last.
  // So: half-close it, that is, say that we have finished, and read on until the other side has, too.
  void finish(const std::string& line) const {
    say_last(line);
    drain();
  }
  void say_last(const std::string& line) const {
    send_line(line);
    shut_down(SHUT_WR);
  }
  void drain() const {
    std::array<char, kMaxLine> bytes;
    for (const auto deadline = Clock::now() + kSilence; receive(bytes.data(), bytes.size(), 0, deadline) > 0;) {}
  }

  void trace(const char* arrow, std::string_view what) const {
    if (tracing) ::trace(ends_of(socket_.get(), arrow, other_), what);
  }

 private:
  ssize_t traced(const char* call, ssize_t result) const { return ::traced(socket_.get(), call, result, other_); }

  void limit(int option, std::chrono::milliseconds time) const {
    timeval limit{};
    limit.tv_sec = static_cast<time_t>(time.count() / 1000);
    limit.tv_usec = static_cast<suseconds_t>(time.count() % 1000 * 1000);
    check(::setsockopt(socket_.get(), SOL_SOCKET, option, &limit, sizeof limit), "setsockopt of a time limit");
  }

  // Up to `most` bytes more, behind those that are there already. False at the end of the connection.
  bool read_more(size_t most, int flags, Clock::time_point deadline) {
    const size_t kept = unread_.size();
    if (kept > 0) std::memmove(storage_.data(), unread_.data(), kept);
    if (storage_.size() < kept + most) storage_.resize(kept + most);
    unread_ = {storage_.data(), kept};  // before receive(), which may throw: the storage may be another one by now
    const size_t got = receive(storage_.data() + kept, most, flags, deadline);
    unread_ = {storage_.data(), kept + got};
    return got > 0;
  }

  // What has arrived, at least one byte; 0 at the end of the connection.
  size_t receive(char* into, size_t most, int flags, Clock::time_point deadline) const {
    while (Clock::now() < deadline) {
      const ssize_t got = uninterrupted([&] { return ::recv(socket_.get(), into, most, flags); });
      if (got > 0) return static_cast<size_t>(got);
      if (got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK))
        return static_cast<size_t>(check(traced("recv", got), "connection lost"));
      if (cancelled_) throw cancellation();
    }
    throw std::runtime_error(silence_);
  }

  Descriptor socket_;
  const Address other_;
  const char* const silence_;
  const std::atomic<bool>& cancelled_;
  std::vector<char> storage_;
  std::string_view unread_;  // the part of it that was received, and not yet taken
  size_t batch_ = kMaxLine;  // what read_line() asks for: little, until the bytes of a file have come
};

// ============================================================================
// A file or folder on its way out
// ============================================================================

struct FileError { std::string why; };  // about one file: the others of its folder can still be sent

// Entries of a folder that do not arrive. Only a few of them by name: their number, paths and reasons are the sender's.
class Missed {
 public:
  void add(const std::string& path, const std::string& why) {
    constexpr size_t kMostNamed = 8, kMostOfPath = 200, kMostOfReason = 100;
    ++count_;
    if (named_.size() < kMostNamed)
      named_.push_back(shortened(path, kMostOfPath) + " (" + shortened(why, kMostOfReason) + ")");
  }

  // "link (a link or a special file), x (Permission denied) and 7 more"; empty where there are none.
  std::string text() const {
    std::string text;
    for (const std::string& one : named_) text += (text.empty() ? "" : ", ") + one;
    const uint64_t others = count_ - named_.size();
    return others == 0 ? text : text + " and " + to_string(others) + " more";
  }
  uint64_t count() const { return count_; }

  // The one that was added last is none of them.
  void take_back() {
    if (count_ == named_.size()) named_.pop_back();
    --count_;
  }

 private:
  uint64_t count_ = 0;
  std::vector<std::string> named_;
};

// As it stands in a line for the user.
std::string remark(const std::string& what, const std::string& which) {
  return which.empty() ? "" : ", " + what + ": " + which;
}

// How far a transfer has come: so many entries have begun, so many bytes of their files have passed.
struct Position {
  uint64_t entries = 0, offset = 0;
  std::string path;  // of the last entry; empty if that is a file by itself
  Cksum sum;         // of the bytes; in a folder, of each entry's path and an LF before its bytes, too [6.5]

  void enter(const std::string& next) {
    ++entries;
    path = next;
    if (!path.empty()) sum.add((path + "\n").data(), path.size() + 1);
  }
  void pass(std::string_view bytes) {
    offset += bytes.size();
    sum.add(bytes.data(), bytes.size());
  }
  Prefix prefix() const { return {entries, offset, sum.value()}; }
};

struct CloseFolder {
  void operator()(DIR* folder) const { ::closedir(folder); }
};

// A file, or the entries of a folder one after the other, as one stream of bytes.
//
// All that it begins with is the descriptor of what the user named. Below it no link is followed, at
// no moment: each component of a path is opened by itself, within the folder that is open already.
// Given a whole path, the kernel would follow what stands there then; and somebody who may write
// there, and lets our offer wait, has two minutes to put a link to what we did not offer in the
// place of a folder that we did.
class Source {
 public:
  // Lists what is there.
  Source(Descriptor root, const std::atomic<bool>& cancelled)
      : root_(std::move(root)), cancelled_(cancelled) {
    struct stat info{};
    check(::fstat(root_.get(), &info), "cannot read it");
    is_executable = S_ISREG(info.st_mode) && (info.st_mode & S_IXUSR) != 0;
    if (S_ISDIR(info.st_mode)) list();
    else add("", static_cast<uint64_t>(info.st_size));
    std::sort(entries_.begin(), entries_.end());  // by the bytes of their paths: "a/" comes before "a/b"
  }

  uint64_t count = 0;  // entries that should be sent,
  uint64_t total = 0;  // and the bytes of those that can be
  Missed missed;       // what is not sent, or could not be
  bool is_executable;  // of a file by itself; of those in a folder, entry() tells
  Position at;

  // Goes on to the next entry, and opens it. False after the last one.
  bool next() {
    if (cancelled_) throw cancellation();
    while (next_ < entries_.size() && is_lost(entries_[next_].path)) ++next_;
    if (next_ == entries_.size()) return false;
    const Listed& entry = entries_[next_];
    ++next_;
    at.enter(entry.path);
    size_ = left_ = entry.size;  // as offered: what has changed since then is found out
    trouble_ = entry.trouble;
    try {
      if (trouble_.empty()) open_entry();
    } catch (const FileError& error) {
      trouble_ = error.why;
    }
    if (trouble_.empty()) return true;
    left_ = 0;
    if (is_folder()) lost_ = path();
    return true;
  }

  // Of the present entry.
  const std::string& path() const { return at.path; }  // empty if it is not in a folder
  bool is_folder() const { return !path().empty() && path().back() == '/'; }
  Entry entry() const { return {!is_folder() && (info_.st_mode & S_IXUSR) != 0, path()}; }
  uint64_t left() const { return left_; }  // bytes still to be read

  void read(char* into, size_t size) {
    if (cancelled_) throw cancellation();
    for (size_t got = 0; got < size;) {
      const ssize_t n = uninterrupted([&] { return ::read(descriptor(), into + got, size - got); });
      if (n == -1) throw FileError{error_text(errno)};
      if (n == 0) throw FileError{wrong_size("shorter")};
      got += static_cast<size_t>(n);
    }
    left_ -= size;
    at.pass({into, size});
  }

  void expect_end() const {
    if (!trouble_.empty()) throw FileError{trouble_};
    if (is_folder()) return;
    char more;
    const bool has_more = ::read(descriptor(), &more, 1) == 1;
    if (has_more) throw FileError{wrong_size("longer")};
    struct stat now{};
    const bool is_known = ::fstat(descriptor(), &now) == 0;
    const timespec &then = info_.st_mtim, &last = now.st_mtim;
    // Else it may be half of one version and half of the next, of one length.
    const bool is_the_same = then.tv_sec == last.tv_sec && then.tv_nsec == last.tv_nsec;
    if (!is_known || !is_the_same) throw FileError{"was changed while it was sent"};
  }

  // Whether the file begins with the bytes that the receiver has from an earlier try. If so, we stand
  // behind them; else at its beginning. False also where they cannot be read, or not in time: then it
  // is sent anew.
  bool begins_with(const Prefix& theirs) {
    const auto deadline = Clock::now() + kPrefixTime;
    bool may_be = next() && trouble_.empty() && theirs.offset <= left_;
    std::vector<char> bytes(may_be ? kChunk : 0);
    try {
      while (may_be && at.offset < theirs.offset) {
        const uint64_t wanted = theirs.offset - at.offset;
        read(bytes.data(), static_cast<size_t>(std::min<uint64_t>(wanted, bytes.size())));
        may_be = Clock::now() < deadline;
      }
    } catch (const FileError&) {
      may_be = false;
    }
    if (may_be && at.prefix() == theirs) return true;
    next_ = 0;
    at = {};
    return false;
  }

 private:
  struct Listed {
    std::string path;  // within the folder; of a subfolder, with a slash behind it
    uint64_t size;
    std::string trouble = {};  // why it could not be listed
    bool operator<(const Listed& o) const { return path < o.path; }
  };

  void list() {
    std::vector<std::string> folders{""};
    while (!folders.empty()) {
      const std::string folder = folders.back();
      folders.pop_back();
      try {
        list_folder(folder, folders);
      } catch (const FileError& error) {
        if (folder.empty()) throw std::runtime_error("cannot read the folder: " + error.why);
        const auto is_it = [&](const Listed& entry) { return entry.path == folder; };
        std::find_if(entries_.begin(), entries_.end(), is_it)->trouble = error.why;
      }
    }
  }

  void list_folder(const std::string& folder, std::vector<std::string>& folders) {
    go_to(folder);
    Descriptor here = open_here(".", O_DIRECTORY);  // one more, for closedir() closes it
    const std::unique_ptr<DIR, CloseFolder> names(::fdopendir(here.get()));
    if (!names) throw FileError{error_text(errno)};
    here.release();
    for (;;) {
      errno = 0;  // at the end readdir() leaves it as it is
      const dirent* found = ::readdir(names.get());
      if (!found) break;
      list_entry(folder, found->d_name, folders);
    }
    if (errno != 0) throw FileError{error_text(errno)};
  }

  void list_entry(const std::string& folder, const std::string& name,
                  std::vector<std::string>& folders) {
    if (cancelled_) throw cancellation();
    if (name == "." || name == "..") return;
    struct stat info{};
    const int result = ::fstatat(present_folder(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW);
    const std::string why = result == -1 ? error_text(errno) : "";
    const bool is_subfolder = S_ISDIR(info.st_mode);
    const std::string path = folder + name + (is_subfolder ? "/" : "");
    if (!why.empty()) {
      leave_out(path, why);
    } else if (path.size() > kMaxPath) {
      leave_out(path, "its path is too long");
    } else if (!is_safe_path(path)) {
      leave_out(path, "its name cannot be sent");
    } else if (is_subfolder) {
      folders.push_back(path);
      add(path, 0);
    } else if (S_ISREG(info.st_mode)) {
      add(path, static_cast<uint64_t>(info.st_size));
    } else {
      missed.add(path, "a link or a special file");
    }
  }

  void add(const std::string& path, uint64_t bytes) {
    entries_.push_back({path, bytes});
    ++count;
    total += bytes;
  }

  void leave_out(const std::string& path, const std::string& why) {
    missed.add(path, why);
    ++count;
  }

  // What is in a subfolder that could not be opened.
  bool is_lost(const std::string& path) const {
    return !lost_.empty() && path.compare(0, lost_.size(), lost_) == 0;
  }

  void open_entry() {
    if (path().empty()) {
      ::lseek(root_.get(), 0, SEEK_SET);  // begins_with() may have read it already
    } else if (is_folder()) {
      go_to(path());
    } else {
      const size_t name = path().rfind('/') + 1;  // npos + 1 is 0
      go_to(path().substr(0, name));
      file_ = open_here(path().substr(name), 0);
    }
    const int fd = is_folder() ? present_folder() : descriptor();
    if (::fstat(fd, &info_) == -1) throw FileError{error_text(errno)};
    if (!is_folder() && !S_ISREG(info_.st_mode)) throw FileError{"not a file any more"};
  }

  // From the root, or from the present folder where that is on the way. To hold each level open would
  // be simpler, and run out of descriptors in a deep tree.
  void go_to(const std::string& folder) {
    const bool is_on_the_way = folder.compare(0, folder_path_.size(), folder_path_) == 0;
    if (!is_on_the_way) folder_path_.clear();
    while (folder_path_.size() < folder.size()) {
      const size_t name = folder_path_.size(), end = folder.find('/', name);
      folder_ = open_here(folder.substr(name, end - name), O_DIRECTORY);
      folder_path_.append(folder, name, end + 1 - name);
    }
  }

  // What has that name in the present folder. O_NONBLOCK: it may be a FIFO by now, and block us.
  Descriptor open_here(const std::string& name, int flags) const {
    const int folder = present_folder();
    const int all_flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | flags;
    Descriptor found(::openat(folder, name.c_str(), all_flags));
    if (found.get() != -1) return found;
    const std::string why = error_text(errno);
    struct stat info{};  // which error says that it is a link, systems do not agree on
    const bool is_there = ::fstatat(folder, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0;
    throw FileError{is_there && S_ISLNK(info.st_mode) ? "became a link" : why};
  }

  int present_folder() const { return folder_path_.empty() ? root_.get() : folder_.get(); }
  // Of the present file.
  int descriptor() const { return path().empty() ? root_.get() : file_.get(); }

  // Of a file that is "longer" or "shorter" than was offered. Those of /proc and /sys are so from the
  // beginning.
  std::string wrong_size(const std::string& how) const {
    struct stat now{};
    const bool is_known = ::fstat(descriptor(), &now) == 0;
    const bool is_as_offered = is_known && static_cast<uint64_t>(now.st_size) == size_;
    if (is_as_offered) return "is " + how + " than its size says";
    return "became " + how + " while it was sent";
  }

  const Descriptor root_;
  const std::atomic<bool>& cancelled_;
  std::vector<Listed> entries_;
  size_t next_ = 0;
  std::string folder_path_;  // of the present folder; empty: it is the root
  Descriptor folder_;
  std::string lost_;         // the last subfolder that could not be opened
  // The present entry.
  std::string trouble_;      // why it cannot be read
  uint64_t size_ = 0, left_ = 0;
  Descriptor file_;
  struct stat info_{};
};

// ============================================================================
// A file or folder on its way in
// ============================================================================

// The room on the disk for one transfer. What it was promised, and has not filled yet, no other one gets: of this peer,
// that is. Who else fills the disk meanwhile shows as ENOSPC.
class Room {
 public:
  ~Room() { fill(left_); }

  // Throws a Reply where less is free.
  static void expect(uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    expect_locked(bytes);
  }

  // In place of what was set aside before.
  void set_aside(uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    promised_ -= std::exchange(left_, 0);
    expect_locked(bytes);
    promised_ += bytes;
    left_ = bytes;
  }

  // So much of it is on the disk by now.
  void fill(uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    const uint64_t filled = std::min(bytes, left_);
    promised_ -= filled;
    left_ -= filled;
  }

 private:
  static void expect_locked(uint64_t bytes) {
    struct statvfs disk{};
    const bool is_known = ::statvfs(download_folder.c_str(), &disk) == 0;
    const uint64_t free = uint64_t{disk.f_bavail} * disk.f_frsize;
    const uint64_t room = free - std::min(free, promised_);
    const std::string others = promised_ > 0 ? ", less what other transfers still need" : "";
    if (is_known && bytes > room) throw Reply{false, "space only " + to_string(room) + " bytes are free" + others};
  }

  static inline std::mutex mutex_;         // guards the next one
  static inline uint64_t promised_ = 0;    // bytes, to all transfers
  uint64_t left_ = 0;                      // to this one
};

// Removes what is in `folder`, but for its subfolders. The path of one of those, or nothing where there is none.
std::string remove_files(const std::string& folder, const std::atomic<bool>& stopped) {
  std::error_code error;
  fs::directory_iterator entry(folder, error);
  for (; !error && !stopped && entry != fs::directory_iterator(); entry.increment(error)) {
    const std::string path = entry->path().string();
    if (entry->symlink_status(error).type() == fs::file_type::directory) return path;
    ::unlink(path.c_str());
  }
  return "";
}

// Removes all that is in `root`, until `stopped`. Without recursion: its sender has decided how deep it is, and the
// stack of a thread is small. What cannot be removed stays, with the folders around it.
void empty_folder(const std::string& root, const std::atomic<bool>& stopped) {
  std::string folder = root;
  while (!stopped) {
    const std::string subfolder = remove_files(folder, stopped);
    if (!subfolder.empty()) {
      folder = subfolder;
      continue;
    }
    if (folder == root) return;
    const bool is_removed = ::rmdir(folder.c_str()) == 0;
    if (!is_removed) return;
    folder.resize(folder.rfind('/'));
  }
}

// Until it is whole it has a name of its own, "report.pdf.10.0.0.7.part": the sender's address is in it, so that nobody
// else's report.pdf, let alone a file of the user's, is taken for the beginning of this one. Of a file it stays when
// the transfer fails, and the next try goes on from there: Session::receive_bytes(). Of a folder it is removed.
class Incoming {
 public:
  Incoming(const std::string& name, bool is_folder, uint32_t from) : name_(name), is_folder_(is_folder) {
    ::mkdir(download_folder.c_str(), 0777);  // should it have gone missing; if that fails, open() says why
    for (unsigned n = 0; !take(part_path(name, n, from)); ++n) {}
  }
  ~Incoming() {
    if (!is_ours(path_)) return;  // published: by now the name may be another transfer's
    if (is_folder_) {
      empty_folder(path_, is_closing);
      ::rmdir(path_.c_str());
    } else if (!is_kept()) {
      ::unlink(path_.c_str());
    }
  }
  Incoming(const Incoming&) = delete;

  // The `n`th path to try.
  static std::string part_path(const std::string& name, unsigned n, uint32_t from) {
    return download_folder + "/" + numbered_name(name, n, "." + Address{from}.ip_text() + ".part");
  }
  // Whether it could be one of these. A stranger could make bytes with any checksum, and store them where they are
  // taken for the beginning of what somebody else sends next.
  static bool is_part_name(const std::string& name) {
    return ::fnmatch("*.[0-9]*.[0-9]*.[0-9]*.[0-9]*.part", name.c_str(), FNM_CASEFOLD) == 0;
  }

  Missed missed;    // what its sender could not read
  Missed left_out;  // what we cannot store
  Room room;

  bool is_folder() const { return is_folder_; }

  // Whether something stays for the next try, if this one fails.
  bool is_kept() const {
    struct stat info{};
    return !is_folder_ && is_ours(path_) && ::fstat(root_.get(), &info) == 0 && info.st_size > 0;
  }

  // What an earlier try has left of a file. Nothing where that cannot be read, or not in time.
  Position beginning(const std::atomic<bool>& cancelled) const {
    const auto deadline = Clock::now() + kPrefixTime;
    std::vector<char> bytes(kChunk);
    Position at;
    at.enter("");
    for (;;) {
      if (cancelled) throw cancellation();
      const auto offset = static_cast<off_t>(at.offset);
      const ssize_t got = uninterrupted([&] { return ::pread(root_.get(), bytes.data(), bytes.size(), offset); });
      if (got == 0) return at;
      if (got == -1 || Clock::now() > deadline) return {};
      at.pass({bytes.data(), static_cast<size_t>(got)});
    }
  }

  // Removes what a peer that was killed has left of a folder.
  void empty(const std::atomic<bool>& cancelled) const {
    empty_folder(path_, cancelled);
    if (cancelled) throw cancellation();
    if (!fs::is_empty(path_)) throw std::runtime_error(what() + ": " + path_ + " is in the way; remove it");
  }

  void start_over() const { check(::ftruncate(root_.get(), 0), what()); }

  // What is written from now on is this entry's. One that cannot be stored because of its path is left out, with what
  // is in it, and no reason for the others not to arrive.
  void enter(const Entry& entry) {
    inside_ = entry.path;
    file_ = Descriptor();
    const bool is_lost = !lost_.empty() && entry.path.compare(0, lost_.size(), lost_) == 0;
    const int error = is_lost ? 0 : create(entry);
    is_left_out_ = is_lost || is_about_the_path(error);
    if (is_left_out_) {
      left_out.add(inside_, is_lost ? "its folder could not be stored" : error_text(error));
      if (inside_.back() == '/') lost_ = inside_;
    } else if (error != 0) {
      throw std::system_error(error, std::generic_category(), what());
    }
  }

  bool is_within() const { return !inside_.empty(); }  // an entry of the folder, and it is not dropped
  bool takes_bytes() const {
    const bool is_ignored = is_left_out_ && inside_.back() != '/';
    return !is_folder_ || file_.get() != -1 || is_ignored;
  }

  void write(std::string_view bytes) {
    if (is_left_out_) {
      room.fill(bytes.size());  // it will not be needed
      return;
    }
    const int fd = is_folder_ ? file_.get() : root_.get();
    while (!bytes.empty()) {
      const ssize_t written = uninterrupted([&] { return ::write(fd, bytes.data(), bytes.size()); });
      check(written, what());
      bytes.remove_prefix(static_cast<size_t>(written));
      room.fill(static_cast<uint64_t>(written));
    }
  }

  // Of a file by itself. What may be read may be run then, as open() with 0777 would have had it. On a disk that has no
  // such permissions it fails, and the file is there all the same.
  void make_executable() const {
    struct stat info{};
    const bool is_known = ::fstat(root_.get(), &info) == 0;
    const mode_t may_run = (info.st_mode & 0444) >> 2;
    if (is_known) ::fchmod(root_.get(), info.st_mode | may_run);
  }

  // The present entry did not come whole.
  void drop(const std::string& why) {
    missed.add(inside_, why);
    file_ = Descriptor();
    std::error_code error;
    if (is_left_out_) left_out.take_back();  // and what has its path is another entry
    else fs::remove(entry_path(), error);
    is_left_out_ = false;
    inside_.clear();
  }

  // Onto the disk, and then, unless it was cancelled meanwhile, under the first name that is free.
  std::string publish(const std::atomic<bool>& cancelled) {
    // One file is brought to the disk by fsync(). Ten thousand of them would be ten thousand waits for the disk;
    // syncfs(), which Linux has, is one.
    check(is_folder_ ? ::syncfs(root_.get()) : ::fsync(root_.get()), what());
    if (cancelled) throw cancellation();
    const Descriptor folder(check(::open(download_folder.c_str(), O_RDONLY | O_DIRECTORY), what()));
    if (!is_ours(path_)) throw std::runtime_error(what() + ": its .part was taken away");
    for (unsigned n = 0;; ++n) {
      const std::string final_name = numbered_name(name_, n), final_path = download_folder + "/" + final_name;
      if (give_name(final_path)) {
        // The name is in the folder, and has to get to the disk, too. Not all file systems can be asked for that; and
        // the file is there, whatever comes of it.
        ::fsync(folder.get());
        return final_name;
      }
      if (errno != EEXIST) check(-1, "cannot store " + final_name);
    }
  }

 private:
  // Whether `path` is ours from now on. Not if something else has that name: a link, which O_NOFOLLOW does not go
  // through, or another transfer, perhaps one of another peer with the same download folder.
  bool take(const std::string& path) {
    if (is_folder_ && ::mkdir(path.c_str(), 0777) == -1 && errno != EEXIST) check(-1, what());
    const int flags = is_folder_ ? O_RDONLY | O_DIRECTORY : O_RDWR | O_CREAT | O_APPEND;
    root_ = Descriptor(::open(path.c_str(), flags | O_NOFOLLOW | O_NONBLOCK, 0666));
    const int error = errno;
    struct stat named{};
    const bool is_there = ::lstat(path.c_str(), &named) == 0;
    if (is_there && (named.st_mode & S_IFMT) != (is_folder_ ? S_IFDIR : S_IFREG)) return false;
    errno = error;
    check(root_.get(), what());
    // The lock goes with the descriptor, and so with its owner, even if that is killed. On a disk that knows no locks,
    // the checksum would tell of two writers.
    if (::flock(root_.get(), LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK) return false;
    path_ = path;
    // Between our open() and flock() its owner may have finished: then what we hold is a finished file.
    if (!is_ours(path)) return false;
    if (is_folder_ || named.st_nlink == 1) return true;
    // Who was killed in publish(), just after link(), has left a finished file with this as its second name. To write
    // to it would be to change that file.
    ::unlink(path.c_str());
    return take(path);
  }

  // False with EEXIST where something has that name. rename() alone would replace it; so a file is given its name by
  // link(), and where rename() is needed, it replaces a placeholder that was made here, exclusively.
  bool give_name(const std::string& final_path) const {
    if (is_folder_) {
      if (::mkdir(final_path.c_str(), 0777) == -1) return false;
    } else {
      const int result = ::link(path_.c_str(), final_path.c_str());
      if (result == 0) {
        ::unlink(path_.c_str());
        return true;
      }
      if (errno == EEXIST) return false;
      // FAT, exFAT, some shares and FUSE have no links, and say so by EPERM, ENOTSUP, ENOSYS... What is wrong with
      // more than links will show here as well.
      const Descriptor placeholder(::open(final_path.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0666));
      if (placeholder.get() == -1) return false;
    }
    const int result = ::rename(path_.c_str(), final_path.c_str());
    const int error = errno;
    if (result == -1) ::remove(final_path.c_str());  // the placeholder
    errno = error;
    return result == 0;
  }

  // Whether `path` still names what we hold: a name can be taken away and given to another.
  bool is_ours(const std::string& path) const {
    struct stat named{}, held{};
    return ::lstat(path.c_str(), &named) == 0 && ::fstat(root_.get(), &held) == 0 && named.st_dev == held.st_dev &&
           named.st_ino == held.st_ino;
  }

  // The present entry. What errno says where that fails; else 0. O_EXCL: on a disk that takes "A" and "a" for the same
  // name, the second would replace the first.
  int create(const Entry& entry) {
    const std::string full = entry_path();
    const int flags = O_WRONLY | O_CREAT | O_EXCL;
    const bool is_subfolder = full.back() == '/';
    if (!is_subfolder) file_ = Descriptor(::open(full.c_str(), flags, entry.executable ? 0777 : 0666));
    const int result = is_subfolder ? ::mkdir(full.c_str(), 0777) : file_.get();
    return result == -1 ? errno : 0;
  }

  // Whether a disk says so where it takes other paths. EINVAL, EILSEQ: FAT has no ":", other disks nothing but UTF-8.
  static bool is_about_the_path(int error) {
    return error == ENAMETOOLONG || error == ELOOP || error == EEXIST || error == EINVAL || error == EILSEQ;
  }

  std::string entry_path() const { return path_ + "/" + inside_; }
  std::string what() const {
    return "cannot store " + name_ + (inside_.empty() ? "" : "/" + shortened(inside_, 200));
  }

  const std::string name_;
  const bool is_folder_;
  std::string path_, inside_;  // the .part; the present entry's path within it
  bool is_left_out_ = false;   // the present entry,
  std::string lost_;           // and the last subfolder that was; what is in it comes next, by the order of paths
  Descriptor root_, file_;     // the .part, locked; the present entry, if it is a file in a folder
};

// ============================================================================
// A session: a connection and its thread
// ============================================================================

enum class Role { serve, converse, send_file, diagnose };  // the last: open it, introduce us, close it

// What the main thread gives to a conversation.
struct Order {
  uint64_t ticket;   // of the message
  Identity to;       // whom it is for; without an id: whoever is there
  std::string line;  // the request
};

struct Session {
  Session(Role its_role, const Identity& its_target) : role(its_role), target(its_target), peer(its_target) {}
  ~Session() {
    cancel();
    shut_down();
    if (thread.joinable()) thread.join();
  }

  // ---- What both threads know ----------------------------------------------------------

  // Set before the thread starts, only read from then on.
  const Role role;
  const Identity target;               // of serve: the address that the connection comes from
  const Identity self = myself;
  const uint64_t ticket = next_ticket++;
  Descriptor source_root;              // of send_file: what to send, and
  std::string source_name;             // what it is called; a folder, with a slash behind it
  std::thread thread;

  std::atomic<bool> cancelled{false};  // set by the main thread
  std::atomic<uint64_t> bytes_done{0};  // set by the thread, of a file
  std::atomic<bool> done{false};       // set by the thread as its last act: join() will not wait

  std::mutex mutex;                    // guards the next five, and `changed` tells of a change
  std::condition_variable changed;
  std::optional<Connection> connection;  // the thread's; replaced, and shut down from outside, under the lock
  std::deque<Order> orders;            // of converse: the front one is under way until it is acknowledged
  bool closing = false;                // the thread takes no more orders
  Accept consent = Accept::ask;        // of serve: what to do with the file that is offered,
  std::string store_as;                // and under which name, if not its own

  // The thread's own.
  Identity peer;                       // who is at the other end, as it says itself
  bool is_introduced = false;          // we to it, on the present connection
  bool in_doubt = false;               // the front order, or the END of a file, was sent, and no answer has come
  bool is_told = false;                // of send_file: how it has ended
  std::optional<Incoming> incoming;    // of serve: the file that comes, or the last one

  // ---- For the main thread ----------------------------------------------------------------

  // Under the lock, or the thread could look at the flag just before, and begin to wait just after: a lost wake-up.
  void cancel() {
    const std::lock_guard lock(mutex);
    cancelled = true;
    changed.notify_one();
  }

  void shut_down() {
    const std::lock_guard lock(mutex);
    if (connection) connection->shut_down();
  }

  bool take(const Order& order) {
    const std::lock_guard lock(mutex);
    if (!closing) orders.push_back(order);
    changed.notify_one();
    return !closing;
  }

  // ---- The thread --------------------------------------------------------------------------

  void report(Event::Kind kind, uint64_t about, const std::string& text = "", const Offer& file = {},
              uint32_t crc = 0) {
    events.push({kind, peer, text, about, file, crc, {}});
  }

  // With the time: the main thread may be late to hear of it, and would find too high a speed.
  void report_start(const std::string& remark, uint64_t resumed_at, const Offer& file) {
    Event started{Event::Kind::started, peer, remark, ticket, file};
    started.resumed_at = resumed_at;
    started.since = Clock::now();
    events.push(std::move(started));
  }

  void report_failure(const std::string& reason) {
    Event failed{Event::Kind::failed, peer, reason, ticket};
    failed.in_doubt = in_doubt;
    events.push(std::move(failed));
    is_told = true;
  }

  // Under the name of whom it was for, who may not be who is there now. Then nothing is in doubt any
  // more.
  void settle(const Order& order, Event::Kind kind, const std::string& text) {
    Event settled{kind, order.to.id.empty() ? peer : order.to, text, order.ticket};
    settled.in_doubt = in_doubt;
    events.push(std::move(settled));
    in_doubt = false;
  }

  void run() {
    std::string failure;
    try {
      if (role == Role::serve) serve();
      else if (role == Role::converse) converse();
      else if (role == Role::send_file) send_file();
      else diagnose();
    } catch (const Reply& no) {
      failure = no.sentence();
    } catch (const std::exception& error) {
      failure = error.what();
    }
    incoming.reset();
    if (cancelled) failure = "cancelled";
    if (role == Role::diagnose) report(Event::Kind::diagnosed, 0, failure);
    if (role == Role::send_file && !failure.empty() && !is_told) report_failure(failure);
    const std::lock_guard lock(mutex);
    closing = true;
    for (; !orders.empty(); orders.pop_front()) settle(orders.front(), Event::Kind::undelivered, failure);
    done = true;
    events.wake();
  }

  // ---- Asking: we open the connection ------------------------------------------------------

  // One request, one reply.
  Reply request(const std::string& line, Clock::duration patience = kSilence) {
    connection->send_line(line);
    return read_reply(patience);
  }

  Reply read_reply(Clock::duration patience) {
    if (!connection->await(patience)) throw std::runtime_error("the other side closed the connection");
    std::string answer;
    try {
      answer = connection->read_line();
    } catch (const Reply& no_line) {  // a connection that brings such is of no more use [5.3]
      if (cancelled) throw;
      answer = no_line.sentence();
    }
    if (const auto reply = Reply::parse(answer)) return *reply;
    throw std::runtime_error("what came is not a reply: " + answer);
  }

  // One request that nothing works without: the text after OK.
  std::string demand(const std::string& line, Clock::duration patience = kSilence) {
    const Reply reply = request(line, patience);
    if (!reply.ok) throw std::runtime_error(reply.sentence());
    return reply.text;
  }

  // A new connection; says who we are, and learns who they are.
  void open() {
    is_introduced = false;
    {
      const std::lock_guard lock(mutex);
      Descriptor fd(check(::socket(AF_INET, SOCK_STREAM, 0), "socket"));
      keep_to_chosen_interface(fd.get());
      connection.emplace(std::move(fd), target.address, "no answer in time", cancelled);
    }
    connection->connect();
    const auto here = Announcement::parse(demand(introduction(Verb::hello)));
    if (!here || here->verb != Verb::here) throw std::runtime_error("what answers there is not a peer");
    peer = here->who;
    peer.address = target.address;
    is_introduced = true;
    report(Event::Kind::introduced, 0);
  }

  void diagnose() {
    std::unique_lock lock(mutex);
    // So that a datagram is answered first.
    if (changed.wait_for(lock, 1s, [this] { return cancelled.load(); })) return;
    lock.unlock();
    open();
  }

  std::string introduction(Verb verb, const std::string& to = "") const {
    Identity us = self;
    us.said_ip = connection->local_ip();
    return Announcement{verb, us, to}.format();
  }

  // Whether it is the peer we look for, or another one that has its address by now. An empty id is
  // anyone's.
  bool is_peer(const std::string& id) const { return id.empty() || id == peer.id; }
  std::string not_the_peer() const { return "another user is at " + target.address.text() + " now"; }

  void converse() {
    std::unique_lock lock(mutex);
    for (;;) {
      changed.wait_for(lock, kIdle, [this] { return !orders.empty() || cancelled; });
      // Decided under the lock: an order given from now on finds `closing` and opens a new conversation.
      closing = orders.empty() || cancelled;
      if (closing) return;
      const Order& next = orders.front();  // a deque moves no element when others join it
      lock.unlock();                       // or the main thread would have to wait for the network, too
      deliver(next);
      lock.lock();
      orders.pop_front();
    }
  }

  // A kept connection may have gone stale unnoticed: then once more, on a new one. A new one that cannot be had is the
  // truth; TCP itself has tried more than once. The receiver can tell by the number, should it get the message twice.
  void deliver(const Order& order) {
    const bool is_done = try_to_deliver(order, Attempt::first);
    if (!is_done) try_to_deliver(order, Attempt::second);
  }

  enum class Attempt { first, second };

  // False where the first attempt has failed, and a second one makes sense.
  bool try_to_deliver(const Order& order, Attempt attempt) {
    try {
      ask_and_settle(order, attempt);
      return true;
    } catch (const std::runtime_error&) {
      if (connection) connection->abandon();
      if (attempt == Attempt::second || cancelled || !in_doubt) throw;
    }
    is_introduced = false;
    return false;
  }

  void ask_and_settle(const Order& order, Attempt attempt) {
    if (!is_peer(order.to.id)) is_introduced = false;  // it was for another one that we connected
    if (!is_introduced || connection->has_input()) open();  // what nobody asked for is the end of it
    // The orders behind this one may be for whoever is there.
    if (!is_peer(order.to.id)) return settle(order, Event::Kind::undelivered, not_the_peer());
    in_doubt = true;
    const Reply reply = request(order.line);
    in_doubt = !reply.ok && attempt == Attempt::second;  // a NO to the second try says nothing of the first
    const auto kind = reply.ok ? Event::Kind::delivered : Event::Kind::undelivered;
    settle(order, kind, reply.sentence());
  }

  void send_file() {
    Source source(std::move(source_root), cancelled);
    const Offer offer{source.total, source.count, source_name, source.is_executable};
    report(Event::Kind::offered, ticket, "", offer);
    open();
    if (!is_peer(target.id)) throw std::runtime_error(not_the_peer());
    try {
      const bool is_resumed = begin_file(source, offer);
      send_bytes(source, is_resumed);
      end_file(source, offer);
    } catch (const Reply& ours) {
      // The user first: that the other side understands may take its time, or fail for a reason of its
      // own.
      report_failure(cancelled ? "cancelled" : ours.sentence());
      connection->finish("STOP :" + ours.sentence());
    }
  }

  // From the offer to where its bytes begin. Whether that is behind those that the receiver has from an
  // earlier try.
  bool begin_file(Source& source, const Offer& offer) {
    const std::string answer = demand(offer.format(), kOfferTime + kPrefixTime + kSilence);
    const Prefix theirs = offer.is_folder() ? Prefix{} : Prefix::parse(answer);
    const bool is_resumed = theirs.offset > 0 && source.begins_with(theirs);
    if (is_resumed) connection->send_line("RESUME");
    bytes_done = source.at.offset;
    report_start(beginning(theirs.offset, is_resumed), bytes_done, offer);
    return is_resumed;
  }

  void end_file(const Source& source, Offer offer) {
    const Prefix sent = source.at.prefix();
    in_doubt = true;
    const Reply stored = request(End{sent.offset, sent.crc}.format(), kStoreTime);
    in_doubt = false;
    if (!stored.ok) throw std::runtime_error(stored.sentence());
    const Stored there = Stored::parse(stored.text);
    if (!there.name.empty()) offer.name = there.name;
    offer.size = sent.offset;
    offer.files = sent.entries - std::min(sent.entries, there.missing);
    const std::string some = there.which.empty() ? to_string(there.missing) + " entries" : there.which;
    const std::string left_out = there.missing > 0 ? some : "";
    const std::string remarks = remark("not sent", source.missed.text()) + remark("not stored", left_out);
    report(Event::Kind::stored, ticket, remarks, offer, sent.crc);
    is_told = true;
  }

  static std::string beginning(uint64_t offset, bool resumed) {
    if (offset == 0) return "";
    return resumed ? ", resumed at " + to_string(offset) : ", anew, for its beginning has changed";
  }

  // What is to be sent of a transfer, gathered: a folder of many small files costs no system call for
  // each of its lines, and no reply is waited for.
  struct Piece {
    std::vector<char> bytes = std::vector<char>(kChunk + 2 * kMaxLine);
    size_t used = 0;
    Clock::time_point sent = Clock::now();
  };

  // From where `source` stands to its end.
  void send_bytes(Source& source, bool within_entry) {
    Piece piece;
    if (within_entry) send_content(piece, source);
    while (source.next()) {
      if (!source.path().empty()) put_line(piece, source, source.entry().format());
      send_content(piece, source);
    }
    send_piece(piece, source);
  }

  // Of the present entry.
  void send_content(Piece& piece, Source& source) {
    try {
      while (source.left() > 0) put_data(piece, source);
      source.expect_end();
    } catch (const FileError& error) {
      if (source.path().empty()) throw Reply{false, "changed the file " + error.why};
      source.missed.add(source.path(), error.why);
      --source.at.entries;
      put_line(piece, source, "MISSING :" + error.why);
    }
  }

  void put_line(Piece& piece, const Source& source, const std::string& line) {
    make_room(piece, source, line.size() + 1);
    connection->trace("->", line);
    (line + "\n").copy(&piece.bytes[piece.used], line.size() + 1);
    piece.used += line.size() + 1;
  }

  // The line counts only when its bytes are there: what cannot be read is not announced.
  void put_data(Piece& piece, Source& source) {
    const auto size = static_cast<size_t>(std::min<uint64_t>(kChunk, source.left()));
    const std::string line = Data{source.at.offset, size}.format();
    const size_t header = line.size() + 1;
    make_room(piece, source, header + size);
    (line + "\n").copy(&piece.bytes[piece.used], header);
    source.read(&piece.bytes[piece.used + header], size);
    piece.used += header + size;
    connection->trace("->", line);
    if (tracing) connection->trace("->", "(" + to_string(size) + " bytes)");
  }

  // A slow disk must not keep the receiver waiting for what has been gathered.
  void make_room(Piece& piece, const Source& source, size_t size) {
    const bool is_full = piece.used + size > piece.bytes.size();
    const bool is_old = Clock::now() - piece.sent > 1s;
    if (is_full || is_old) send_piece(piece, source);
  }

  void send_piece(Piece& piece, const Source& source) {
    bytes_done = source.at.offset;
    if (connection->has_input()) {
      const Reply early = read_reply(kSilence);
      throw std::runtime_error(early.ok ? "it was acknowledged before its end" : early.sentence());
    }
    connection->send({piece.bytes.data(), piece.used});
    piece.used = 0;
    piece.sent = Clock::now();
  }

  // ---- Answering: the connection was opened to us --------------------------------------------

  void serve() {
    while (connection->await(peer.id.empty() ? kSilence : kForsaken)) try {
        connection->send_line(answer(connection->read_line()).format());
      } catch (const Decision& ours) {
        return refuse(ours.reply, ours.to_our_user);
      } catch (const Reply& no) {
        return refuse(no, no.sentence());
      } catch (const std::exception& error) {
        return refuse({false, std::string("failed ") + error.what()}, error.what());
      }
  }

  // The last reply of a connection. It ends a transfer, too, if there was one.
  void refuse(const Reply& no, const std::string& reason) {
    const bool is_kept = incoming && incoming->is_kept();
    const std::string kept = is_kept ? "; what has come is kept, for when it is sent again" : "";
    const bool is_folder = incoming && incoming->is_folder();
    if (!is_folder) incoming.reset();  // before it is told: who sends it again at once must not find it locked
    report(Event::Kind::failed, ticket, (cancelled ? "cancelled" : reason) + kept);
    connection->say_last(no.format());
    incoming.reset();  // now that both are told: to remove a folder takes a while
    connection->drain();
  }

  Reply answer(const std::string& line) {
    if (const auto hello = Announcement::parse(line); hello && hello->verb == Verb::hello) return greet(hello->who);
    if (peer.id.empty()) return {false, "stranger introduce yourself first, with a HELLO of " + std::string(kMagic)};
    const auto parsed = Line::parse(line);
    if (!parsed) return kNotALine;
    if (const auto offered = Offer::parse(*parsed)) return receive_file(*offered);
    if (const auto message = Message::parse(*parsed)) {
      events.push({Event::Kind::message, peer, "", 0, {}, 0, *message});
      return {true, ""};
    }
    const bool known = parsed->verb == "MSG" || parsed->verb == "OFFER";
    return {false, known ? "syntax a field is missing or wrong" : "unknown no such request"};
  }

  Reply greet(const Identity& caller) {
    if (caller.id == self.id) return {false, "self you are talking to yourself"};
    if (!peer.id.empty() && caller.id != peer.id) throw Reply{false, "other a connection has one user"};
    peer = caller;
    peer.address.ip = target.address.ip;
    report(Event::Kind::introduced, 0);
    return {true, introduction(Verb::here, peer.id)};
  }

  // From the offer to the reply for its last byte. What goes wrong is thrown; serve() tells both users. Of the name
  // only the last component counts: it is what the user sees from the beginning, for the rest may hide it.
  Reply receive_file(Offer offered) {
    const std::string whole = offered.name.substr(0, offered.name.size() - (offered.is_folder() ? 1 : 0));
    const auto name = safe_file_name(whole);
    offered.name.erase(0, whole.rfind('/') + 1);  // npos + 1 is 0
    {
      const std::lock_guard lock(mutex);
      consent = accept_policy;  // anew for each file, and before the user hears of it, lest the answer come first
    }
    bytes_done = 0;
    report(Event::Kind::offered, ticket, "", offered);
    if (!name || Incoming::is_part_name(*name)) throw Reply{false, "name a file cannot be stored under that name"};
    const uint32_t from = target.address.ip;
    const bool has_beginning = ::access(Incoming::part_path(*name, 0, from).c_str(), F_OK) == 0;
    if (!has_beginning) Room::expect(offered.size);  // else not all of it may be needed
    incoming.emplace(await_consent(*name), offered.is_folder(), from);
    const Position end = receive_bytes(offered);
    if (offered.executable) incoming->make_executable();
    Stored stored;
    stored.name = incoming->publish(cancelled) + (offered.is_folder() ? "/" : "");
    stored.missing = incoming->left_out.count();
    stored.which = incoming->left_out.text();
    const Offer file{end.offset, end.entries - stored.missing, download_folder + "/" + stored.name};
    const std::string remarks = remark("not sent", incoming->missed.text()) + remark("not stored", stored.which);
    report(Event::Kind::stored, ticket, remarks, file, end.sum.value());
    incoming.reset();
    return {true, stored.format()};
  }

  // The name under which the user wants it.
  std::string await_consent(const std::string& name) {
    const Decision never{{false, "declined this user accepts no files"}, "you accept no files"};
    const Decision timeout{{false, "timeout nobody answered the offer within 120 s"},
                           "you did not answer within 120 s"};
    const Decision declined{{false, "declined the user does not want it"}, "you have rejected it"};
    if (accept_policy == Accept::never) throw never;
    const auto deadline = Clock::now() + kOfferTime;
    std::unique_lock lock(mutex);
    // A thread can wait for a condition variable or for a socket, not for both: so it looks at the socket in turn.
    while (!changed.wait_for(lock, kSlice, [this] { return consent != Accept::ask; })) {
      if (cancelled) throw cancellation();
      if (Clock::now() > deadline) throw timeout;
      if (!connection->has_input()) continue;
      lock.unlock();  // a lock held while the network is waited for would make the main thread wait, too
      read_part();    // a STOP, perhaps
      throw Reply{false, "early an offer has to be answered before anything else comes"};
    }
    if (consent == Accept::never) throw declined;
    return store_as.empty() ? name : store_as;
  }

  // The next line of a sender, who may have no more to say than STOP.
  std::string read_part(Clock::duration patience = kSilence) {
    if (cancelled) throw cancellation();  // while lines come without a pause, nothing below waits, and looks at the flag
    if (!connection->await(patience)) throw std::runtime_error("the sender has gone");
    const std::string line = connection->read_line();
    std::string_view rest = line;
    if (take_word(rest) != "STOP") return line;  // which the caller will parse
    if (const auto parsed = Line::parse(line))
      throw Reply{false, "stopped " + printable(parsed->text.value_or("by the sender").substr(0, 999))};
    return line;
  }

  // What an earlier try has left of a file is offered to the sender, who compares it with the beginning of what it has
  // now. What is left of a folder, by a peer that was killed, is no beginning: it is removed.
  Position receive_bytes(const Offer& offered) {
    Position had;
    if (offered.is_folder()) incoming->empty(cancelled);
    else had = incoming->beginning(cancelled);
    if (had.offset > offered.size) {
      incoming->start_over();
      had = {};
    }
    incoming->room.set_aside(offered.size - had.offset);
    const std::string prefix = had.prefix().format();
    connection->send_line("OK" + (prefix.empty() ? "" : " " + prefix));
    const std::string line = read_part(kPrefixTime + kSilence);
    const auto first = Line::parse(line);
    const bool resumed = !prefix.empty() && first && first->verb == "RESUME";
    bytes_done = resumed ? had.offset : 0;
    report_start(beginning(had.offset, resumed), bytes_done, offered);
    if (resumed) return receive_parts(offered, had, read_part());
    Position at;
    if (!offered.is_folder()) {
      incoming->start_over();
      incoming->room.set_aside(offered.size);
      at.enter("");
    }
    return receive_parts(offered, at, line);
  }

  // From `line`, the first one, to END.
  Position receive_parts(const Offer& offered, Position at, std::string line) {
    for (;; line = read_part()) {
      const auto parsed = Line::parse(line);
      if (!parsed) throw kNotALine;
      if (const auto end = End::parse(*parsed)) {
        const bool may_end = offered.is_folder() || at.offset == offered.size;
        if (may_end && *end == End{at.offset, at.sum.value()}) return at;
        if (!offered.is_folder()) incoming->start_over();
        throw Reply{false, "checksum the file did not arrive as it was sent"};
      }
      if (const auto data = Data::parse(*parsed)) {
        if (data->offset != at.offset || data->size > offered.size - at.offset)
          throw Reply{false, "syntax expected was offset=" + to_string(at.offset) + ", and no more than was offered"};
        if (!incoming->takes_bytes()) throw Reply{false, "syntax DATA follows the FILE that it belongs to"};
        receive_data(data->size, at);
      } else if (const auto entry = Entry::parse(*parsed)) {
        if (!offered.is_folder() || at.entries == offered.files)
          throw Reply{false, "syntax no more entries were offered"};
        if (!is_safe_path(entry->path) || entry->path <= at.path)
          throw Reply{false, "syntax this path is not allowed, or not in its order"};
        incoming->enter(*entry);
        at.enter(entry->path);
      } else if (parsed->verb == "MISSING" && incoming->is_within()) {
        incoming->drop(std::string(parsed->text.value_or("no reason was given")));
        --at.entries;
      } else {
        throw Reply{false, "syntax FILE, DATA, MISSING or END was expected, each in its place"};
      }
    }
  }

  void receive_data(uint64_t size, Position& at) {
    if (tracing) connection->trace("<-", "(" + to_string(size) + " bytes)");
    for (; size > 0 && !cancelled; bytes_done = at.offset) {
      const std::string_view bytes = connection->read(size);
      incoming->write(bytes);
      at.pass(bytes);
      size -= bytes.size();
    }
    if (cancelled) throw cancellation();
  }
};

// What the other side is to call it: the last component of the path that the user wrote, "photos/"
// perhaps.
std::string name_to_send(const std::string& path) {
  const std::string whole = path.substr(0, path.find_last_not_of('/') + 1);
  const std::string name = whole.substr(whole.rfind('/') + 1);  // npos + 1 is 0
  if (name.empty()) throw std::runtime_error(path + " has no name; send a folder that is in it");
  if (name == "." || name == "..")
    throw std::runtime_error(path + " has no name of its own; write its full path");
  if (!safe_file_name(name))
    throw std::runtime_error("the name of " + path +
                             " has a character that cannot be sent; rename it");
  return name;
}

std::vector<std::unique_ptr<Session>> sessions;

uint64_t start(std::unique_ptr<Session> session) {
  Session& s = *session;
  s.thread = std::thread([&s] { s.run(); });
  sessions.push_back(std::move(session));
  return s.ticket;
}

std::unique_ptr<Session> session_to(const Identity& to, Role role) {
  if (!can_reach(to.address.ip)) throw std::runtime_error("no usable route leads to " + to.address.text());
  return std::make_unique<Session>(role, to);
}

// To the conversation with that address, or to a new one. By the address alone: the messages to one peer must not
// overtake each other on two connections, or the receiver would take the slower one's numbers for repeats.
void give(const Identity& to, const Order& order) {
  for (const auto& s : sessions)
    if (s->role == Role::converse && s->target.address == to.address && s->take(order)) return;
  auto session = session_to(to, Role::converse);
  session->take(order);
  start(std::move(session));
}

}  // namespace

// ============================================================================
// The main thread's side
// ============================================================================

void transfer::open(bool (*is_reached)(uint32_t ip)) {
  can_reach = is_reached;
  const int on = 1;
  const std::string port = to_string(myself.address.port);
  // A client that gives up between select() and accept() would leave a blocking accept() waiting for the next one.
  listening_socket = Descriptor(check(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), "socket"));
  const int fd = listening_socket.get();
  // Without SO_REUSEADDR the port of a peer that ended stays taken while its old connections are in TIME_WAIT.
  check(::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), "setsockopt SO_REUSEADDR");
  sockaddr_in raw = Address{INADDR_ANY, myself.address.port}.to_sockaddr();
  check(traced(fd, "bind", ::bind(fd, generic(raw), sizeof raw)), "bind TCP port " + port);
  keep_to_chosen_interface(fd);
  // With SO_REUSEADDR two may bind one port as long as neither listens: here at the latest the second one fails.
  check(traced(fd, "listen", ::listen(fd, SOMAXCONN)), "listen on TCP port " + port);
}

void transfer::watch(fd_set& readable) {
  if (Clock::now() >= accept_after) FD_SET(listening_socket.get(), &readable);
}

void transfer::accept_connection(const fd_set& readable) try {
  if (!FD_ISSET(listening_socket.get(), &readable)) return;
  sockaddr_in raw{};
  socklen_t length = sizeof raw;
  const int listening = listening_socket.get();
  const int result = uninterrupted([&] { return ::accept(listening, generic(raw), &length); });
  const Identity from{"", "", "", Address::from_sockaddr(raw), 0};
  Descriptor fd(check(traced(listening, "accept", result, from.address), "accept"));
  if (!can_reach(from.address.ip)) return;
  size_t accepted = 0;
  size_t from_one = 0;
  for (const auto& s : sessions) {
    if (s->role != Role::serve) continue;
    ++accepted;
    if (s->target.address.ip == from.address.ip) ++from_one;
  }
  if (accepted >= kMaxAccepted || from_one >= kMaxAcceptedFromOne) {
    constexpr std::string_view kBusy = "NO busy too many connections, try again later\n";
    if (tracing) trace(ends_of(fd.get(), "->", from.address), kBusy.substr(0, kBusy.size() - 1));
    ::send(fd.get(), kBusy.data(), kBusy.size(), MSG_DONTWAIT);
    return;
  }
  auto session = std::make_unique<Session>(Role::serve, from);
  session->connection.emplace(std::move(fd), from.address, "the sender fell silent",
                              session->cancelled);
  start(std::move(session));
} catch (const std::system_error&) {
  // Out of descriptors: the connection stays in the queue and the listener readable, and select() would return at once,
  // again and again. So look away for a moment. Out of threads, the connection is closed.
  accept_after = Clock::now() + kSlice;
}

void transfer::send_message(const Identity& to, const std::string& scope, const std::string& text, uint64_t ticket) {
  give(to, {ticket, to, Message{next_number++, scope, text}.format()});
}

void transfer::diagnose(const Identity& to) { start(session_to(to, Role::diagnose)); }

uint64_t transfer::send_file(const Identity& to, const std::string& path) {
  auto session = session_to(to, Role::send_file);
  // What the path names now is what is sent, whatever it names later. O_NONBLOCK: to open a FIFO would
  // wait until somebody writes to it.
  const int fd = ::open(path.c_str(), O_RDONLY | O_NONBLOCK);
  session->source_root = Descriptor(check(fd, "cannot read " + path));
  struct stat info{};
  check(::fstat(session->source_root.get(), &info), "cannot read " + path);
  const bool is_file = S_ISREG(info.st_mode), is_folder = S_ISDIR(info.st_mode);
  if (!is_file && !is_folder) throw std::runtime_error(path + " is not a file or a folder");
  session->source_name = name_to_send(path) + (is_folder ? "/" : "");
  return start(std::move(session));
}

void transfer::answer(uint64_t ticket, Accept consent, const std::string& store_as) {
  for (const auto& s : sessions) {
    if (s->ticket != ticket) continue;
    const std::lock_guard lock(s->mutex);
    s->consent = consent;
    s->store_as = store_as;
    s->changed.notify_one();
  }
}

void transfer::cancel(uint64_t ticket) {
  if (ticket == 0) is_leaving = true;  // before a thread is told, and says why
  for (const auto& s : sessions)
    if (ticket == 0 || s->ticket == ticket) s->cancel();
}

uint64_t transfer::bytes_done(uint64_t ticket) {
  const auto is_meant = [&](const auto& s) { return s->ticket == ticket; };
  const auto found = std::find_if(sessions.begin(), sessions.end(), is_meant);
  return found == sessions.end() ? 0 : (*found)->bytes_done.load();
}

bool transfer::is_sending() {
  return std::any_of(sessions.begin(), sessions.end(), [](const auto& s) {
    const std::lock_guard lock(s->mutex);
    return s->role == Role::send_file || !s->orders.empty();
  });
}

// A message that is tried again on a new connection may have arrived over the old one. By the id
// alone, somebody could use up another's numbers by claiming that; so the address counts, too. A
// sender whose own address changes between the two tries may be shown twice [5.3].
bool transfer::is_repeat(const Event& event) {
  constexpr size_t kMaxSenders = 3072, kRemembered = 32;
  const std::pair sender(event.who.id, event.who.address);
  const uint64_t number = event.message.number;
  const bool is_full = messages_seen.size() >= kMaxSenders && messages_seen.count(sender) == 0;
  if (is_full) messages_seen.erase(messages_seen.begin());
  std::deque<uint64_t>& seen = messages_seen[sender];
  if (std::find(seen.begin(), seen.end(), number) != seen.end()) return true;
  seen.push_back(number);
  if (seen.size() > kRemembered) seen.pop_front();
  return false;
}

bool transfer::is_open() { return !sessions.empty(); }

void transfer::close() {
  is_closing = true;
  sessions.clear();
}

void transfer::reap() {
  const auto ended = [](const auto& s) { return s->done.load(); };
  sessions.erase(std::remove_if(sessions.begin(), sessions.end(), ended), sessions.end());
}
