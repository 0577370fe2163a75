// transfer.cpp: everything that goes over TCP: messages and files.
//
// Read protocol.h first, then discovery.cpp; peer.cpp is next. Each connection has a thread of its
// own, and a worker that knows what the thread has to do:
//
//   Conversation  we opened it, to send messages; kept while it is used
//   Upload        we opened it, to send one file or folder
//   Service       somebody else opened it, and we answer what it asks; an offer is a Download
//
// In order of reading: Connection, bytes and lines with a bound to every wait; the workers, with
// the dialogue of each; and what the main thread calls. For a second reading: Incoming, the file on
// the disk; folders; resuming; and all that may go wrong on the way.
//
// A thread ends at the end of its dialogue, at an error, or soon after cancel(): while it waits, it
// checks the flag every quarter of a second. At the end of the program, shutdown() of the socket
// wakes threads that still wait. close() would not: a recv() goes on waiting, and meanwhile another
// connection may get the descriptor's number.
//
// Left out on purpose: links, owners, times and permissions of files, except "executable"; rsync
// sends those.

#include <dirent.h>
#include <fnmatch.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <list>
#include <memory>
#include <set>
#include <stdexcept>
#include <thread>

#include "protocol.h"

using transfer::Consent;
namespace fs = std::filesystem;

namespace {

// ---- Timers and limits [2.2], [2.3] -------------------------------------------------

constexpr auto kConnectTime = 4s;
constexpr auto kSilence = 10s;      // in the middle of a line, a file, a reply
constexpr auto kIdle = 30s;         // a conversation unused for so long is closed by its opener
constexpr auto kForsaken = 60s;     // and, if the opener has gone, by the side that accepted it
constexpr auto kOfferTime = 120s;   // to accept or reject a file
constexpr auto kStoreTime = 300s;   // to bring it to a slow disk
constexpr auto kPrefixTime = 120s;  // to read again what an earlier try left
constexpr auto kSlice = 250ms;      // the poll interval: how often a waiting thread checks the flag
// Bytes of a file in one DATA, and in one read(), send(), recv() and write(). Measured between two
// namespaces: 64 KiB 950 MB/s, 256 KiB 1,050, 512 KiB 1,250, 1 MiB 1,400, 4 MiB 1,150. With small
// pieces, each costs a switch to the other thread; large ones do not fit into the processor's
// cache, and the checksum must fetch them again.
constexpr size_t kChunk = 1024 * 1024;

// ---- State: set before the first thread starts, or the main thread's own, except the flags ----

using Flag = std::atomic<bool>;

bool (*can_reach)(uint32_t ip);
Descriptor listening_socket;
Time accept_after;  // until then we do not watch the listening socket
Flag is_leaving{false};          // everything ends because our user leaves
Flag is_closing{false};          // the program ends: threads that are still tidying up must stop
uint64_t next_number = 1;        // of a message
uint64_t next_ticket = 1;        // of a worker

// ---- What is thrown -------------------------------------------------------------------

// The connection is of no further use. what() says why, for our user.
struct Broken : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// We end it, and the other side can and should be told why. This one
//   Refusal("timeout nobody answered the offer within 120 s", "you did not answer within 120 s")
// sends  NO timeout nobody answered the offer within 120 s  and shows the second text to our user.
// With only one text, he sees it without its first word, which is for programs.
struct Refusal : std::runtime_error {
  explicit Refusal(const string& why)
      : Refusal(why, Reply{false, why}.sentence()) {}
  Refusal(const string& why, const string& for_our_user)
      : std::runtime_error(for_our_user), no{false, why} {}
  Reply no;
};

// Whoever talks to the other side catches the Refusal, and sends its first text. Elsewhere it only
// ends the thread.
void stop_if(const Flag& cancelled) {
  if (!cancelled) return;
  const string what = is_leaving ? "left" : "cancelled it";
  throw Refusal("cancelled the other user has " + what);
}

// ============================================================================
// A connection: bytes and lines, every wait with a bound
// ============================================================================

// What errno says about an attempt to connect, and what to do about it.
string meaning_of(int error, const Identity& other);

// A thread may block: that is what it is for. But SO_RCVTIMEO and SO_SNDTIMEO end each send() and
// recv() after kSlice, so the thread can check the clock and the flag between two tries.
class Connection {
 public:
  enum class Side { asks, answers };  // whoever has opened a connection asks

  Connection(Descriptor fd, Address other, Side side, const Flag& cancelled)
      : socket_(std::move(fd)),
        other_(other),
        side_(side),
        cancelled_(cancelled) {
    if (side == Side::answers) note_open("accepted");
    // Nagle's algorithm holds a small segment back until the one before is acknowledged, and the
    // other side delays that acknowledgement: 44 ms for a reply instead of 0.06. If this fails, we
    // are only slower.
    const int on = 1;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    timeval slice{};
    slice.tv_usec = static_cast<suseconds_t>(std::chrono::microseconds(kSlice).count());
    for (const int limit : {SO_RCVTIMEO, SO_SNDTIMEO})
      check(::setsockopt(fd_, SOL_SOCKET, limit, &slice, sizeof slice), "setsockopt");
  }
  ~Connection() {
    const bool was_open = ours_ != Address{};
    if (was_open) trace("--", "closed");
  }

  uint32_t local_ip() const { return ours_.ip; }
  void shut_down() const { ::shutdown(fd_, SHUT_RDWR); }  // wakes a thread that waits for it
  void abandon() const;  // when it is closed, what has not arrived yet is thrown away
  void trace(const char* arrow, string_view what) const {
    ::trace("TCP", ours_, arrow, other_, what);
  }

  // A blocking connect() tries for a minute or two, and only on Linux does SO_SNDTIMEO limit it. So
  // the socket does not block until it is connected.
  void connect(const Identity& other) {
    sockaddr_in raw = other_.to_sockaddr();
    set_non_blocking(fd_);
    const int result = ::connect(fd_, generic(raw), sizeof raw);
    int error = result == -1 ? errno : 0;
    if (error == EINPROGRESS || error == EINTR) error = await_connection();
    if (error != 0)
      throw Broken("cannot connect to " + other_.text() + ": " + meaning_of(error, other));
    set_blocking(fd_);
    note_open("connected");
  }

  // send() may take only a part, so we repeat it until all is sent. Whatever it takes gives the
  // other side kSilence once more. main() ignores SIGPIPE, so a peer that is gone shows as EPIPE
  // here instead of ending the program.
  void send(string_view bytes) const {
    auto deadline = Clock::now() + kSilence;
    while (!bytes.empty()) {
      const ssize_t sent = uninterrupted([&] {
        return ::send(fd_, bytes.data(), bytes.size(), 0);
      });
      if (sent >= 0) {
        bytes.remove_prefix(static_cast<size_t>(sent));
        deadline = Clock::now() + kSilence;
      } else if (!would_block()) {
        throw lost();
      }
      // If we are cancelled in the middle of a piece, we can say nothing more: a last line would be
      // taken for part of it.
      const bool is_given_up = cancelled_ || Clock::now() > deadline;
      if (is_given_up && !bytes.empty())
        throw Broken("the other side stopped reading");
    }
  }

  // In one call: with two, it would travel in two segments.
  void send_line(const string& line) const {
    trace("->", line);
    send(line + "\n");
  }

  // Waits until something can be read. False if the other side has closed the connection.
  bool await(Duration patience) const {
    if (!unread_.empty()) return true;
    const auto deadline = Clock::now() + patience;
    char byte;  // MSG_PEEK: it stays there, for read_line() or read()
    return receive(&byte, 1, MSG_PEEK, deadline) > 0;
  }
  // Whether there is something to read, without waiting. The end of the connection counts as well,
  // and so does an error.
  bool has_input() const;

  // The next line. It must end within kSilence, however slowly its bytes trickle in.
  string read_line() {
    // A line may become an event. While the queue is full we read nothing: TCP slows the sender.
    bool has_room = false;
    while (!has_room && !cancelled_) has_room = events.wait_for_room(kSlice);
    string line;
    const auto deadline = Clock::now() + kSilence;
    LineStatus status = take_line(unread_, line);
    while (status == LineStatus::incomplete) {
      if (!read_more(batch_, 0, deadline))
        throw Broken("the connection ended in the middle of a line");
      status = take_line(unread_, line);
    }
    if (status == LineStatus::too_long)
      reject("long a line has at most " + to_string(kMaxLine) + " bytes");
    trace("<-", line);
    if (!is_text(line)) reject("text a line is UTF-8 without control characters");
    return line;
  }

  // Bytes of a file, at least one and at most so many. Valid until the next read.
  string_view read(uint64_t most);

  // Our last line. A socket that is closed with unread data in it sends a reset, which may overtake
  // what we sent last. So: half-close it, that is, say that we have finished, and read on until the
  // other side has, too.
  void finish(const string& line) const {
    say_last(line);
    drain();
  }
  void say_last(const string& line) const {
    send_line(line);
    ::shutdown(fd_, SHUT_WR);
  }
  void drain() const {
    std::array<char, kMaxLine> bytes;
    const auto deadline = Clock::now() + kSilence;
    size_t got = 1;
    while (got > 0)
      got = receive(bytes.data(), bytes.size(), 0, deadline);
  }

 private:
  // Whatever has arrived, at least one byte; 0 at the end of the connection.
  size_t receive(char* into, size_t most, int flags, Time deadline) const {
    while (Clock::now() < deadline) {
      const ssize_t got = uninterrupted([&] {
        return ::recv(fd_, into, most, flags);
      });
      if (got > 0) return static_cast<size_t>(got);
      if (got == 0) return 0;  // the end, and not "nothing yet"
      if (!would_block()) throw lost();
      stop_if(cancelled_);
    }
    throw Broken(side_ == Side::asks ? "no answer in time" : "the sender fell silent");
  }

  static bool would_block() { return errno == EAGAIN || errno == EWOULDBLOCK; }
  static Broken lost() { return Broken("connection lost: " + error_text(errno)); }
  void reject(const string& why) const;                       // throws: it is not a line
  void note_open(const char* how) {
    ours_ = local_address(fd_);
    trace("--", how);
  }
  int await_connection() const;    // how the attempt to connect ended: 0, or an errno
  bool read_more(size_t most, int flags, Time deadline);  // false: it has ended

  Descriptor socket_;             // closes it at the end
  const int fd_ = socket_.get();  // its number, for the system calls
  Address ours_;                  // once it is open
  const Address other_;
  const Side side_;
  const Flag& cancelled_;
  vector<char> storage_;
  string_view unread_;       // what was received and not yet taken
  size_t batch_ = kMaxLine;  // how much read_line() asks for; more, once a file has begun
};

// ============================================================================
// What every connection's thread has
// ============================================================================

class Worker {
 public:
  explicit Worker(const Identity& other)
      : ticket(next_ticket),
        target(other),
        peer_(other) {
    ++next_ticket;
  }
  // Call end() first: this destructor runs after those of the derived classes, whose members the
  // thread still uses.
  virtual ~Worker() = default;
  Worker(const Worker&) = delete;

  const uint64_t ticket;
  const Identity target;  // whom we call; or only the address from which somebody called us

  // Set by the thread, for the main thread.
  std::atomic<uint64_t> bytes_done{0};  // of a file
  Flag is_done{false};                  // its last act: join() will not wait

  // For the main thread.
  void start() {
    thread_ = std::thread([this] { run(); });
  }
  // Under the lock. Otherwise the thread could look at the flag just before we set it, and begin to
  // wait just after we notify it: a lost wake-up.
  void cancel() {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
    changed_.notify_one();
  }
  void end() {
    cancel();
    shut_down();
    if (thread_.joinable()) thread_.join();
  }

  virtual void decide(Consent, const string&) {}  // what our user says to an offer
  virtual bool is_sending() { return false; }
  virtual bool is_accepted() const { return false; }  // the connection was opened to us

 protected:
  virtual void work() = 0;                           // throws what goes wrong
  virtual void conclude(const string& failure) = 0;  // empty: it did its work

  void report_start() const;  // of a file: from now on its bytes pass

  string introduction(Verb verb) const {
    Announcement said;
    said.verb = verb;
    said.who = self_;
    said.who.said_ip = connection_->local_ip();
    if (verb == Verb::here)
      said.to = peer_.id;
    return said.format();
  }

  // This connection replaces the one before.
  void use(Descriptor fd, Connection::Side side) {
    const std::lock_guard lock(mutex_);
    connection_.emplace(std::move(fd), target.address, side, cancelled_);
  }

  const Identity self_ = myself;  // a copy: the main thread may change `myself` meanwhile
  Flag cancelled_{false};  // set by the main thread

  // Guards the members that are called guarded, here and in the classes below. changed_ wakes the
  // thread when one of them, or cancelled_, has changed.
  std::mutex mutex_;
  std::condition_variable changed_;
  optional<Connection> connection_;  // guarded when it is replaced, and outside the thread

  Identity peer_;  // the thread's own: who the other side says it is

 private:
  void shut_down() {
    const std::lock_guard lock(mutex_);
    if (connection_) connection_->shut_down();
  }

  void run() {
    string failure;
    try {
      work();
    } catch (const std::exception& error) {
      failure = error.what();
    }
    conclude(cancelled_ ? "cancelled" : failure);
    is_done = true;
    events.wake();
  }

  std::thread thread_;
};

// ============================================================================
// Asking: we open the connection
// ============================================================================

//   we                                            the other side
//   ChatByP2P/1 HELLO id=... name=ann ...
//                                                 OK ChatByP2P/1 HERE id=... name=bob ... to=...
//   MSG number=7 scope=private :Hi
//                                                 OK  (or NO and a reason)
class Caller : public Worker {
 protected:
  using Worker::Worker;

  // Makes a new connection, says who we are, and learns who they are.
  void call() {
    Descriptor fd(check(::socket(AF_INET, SOCK_STREAM, 0), "socket"));
    keep_to_chosen_interface(fd.get());
    use(std::move(fd), Connection::Side::asks);
    connection_->connect(target);
    const auto here = Announcement::parse(demand(introduction(Verb::hello)));
    if (!here || here->verb != Verb::here)
      throw Broken("what answers there is not a peer");
    peer_ = here->who;
    peer_.address = target.address;
    events.push(Introduced{peer_});
  }

  // Whether this is the peer that we want, or another one that now has its address. An empty id
  // fits anyone.
  bool is_peer(const string& id) const {
    return id.empty() || id == peer_.id;
  }
  string not_the_peer() const {
    return "another user is at " + target.address.text() + " now";
  }

  // One request, one reply.
  Reply request(const string& line, Duration patience = kSilence) {
    connection_->send_line(line);
    return read_reply(patience);
  }

  Reply read_reply(Duration patience) {
    if (!connection_->await(patience))
      throw Broken("the other side closed the connection");
    const string line = connection_->read_line();
    const auto reply = Reply::parse(line);
    if (!reply) throw Broken("what came is not a reply: " + line);
    return *reply;
  }

  // A request that must succeed: the text after its OK.
  string demand(const string& line, Duration patience = kSilence) {
    const Reply reply = request(line, patience);
    if (!reply.ok)
      throw Broken(reply.sentence());
    return reply.text;
  }
};

// ---- Sending messages -------------------------------------------------------------------

// What the main thread gives to a conversation.
struct Order {
  uint64_t post;     // which message it is, in the events about it
  Identity to;       // whom it is for; without an id: whoever is there
  string line;       // the request
};

class Conversation : public Caller {
 public:
  using Caller::Caller;

  // False if it is about to end: a new one is needed.
  bool take(const Order& order) {
    const std::lock_guard lock(mutex_);
    if (is_closed_to_orders_) return false;
    orders_.push_back(order);
    changed_.notify_one();
    return true;
  }

  bool is_sending() override {
    const std::lock_guard lock(mutex_);
    return !orders_.empty();
  }

 private:
  // How far the front order has come, and what it means if the connection breaks then.
  enum class Progress {
    waiting,    // nothing of it was sent, or its reply has come: nothing is in doubt
    sent,       // on a first connection, which may break: then we send it once more
    broken,     // the first connection has broken, and the second try has not begun
    sent_again  // on a second connection: if that breaks, it may have arrived, nobody knows
  };

  void work() override {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait_for(lock, kIdle, [this] { return !orders_.empty() || cancelled_; });
      // Decided under the lock: an order given from now on opens a new conversation.
      is_closed_to_orders_ = orders_.empty() || cancelled_;
      if (is_closed_to_orders_) return;
      const Order next = orders_.front();
      lock.unlock();  // or the main thread would have to wait for the network, too
      deliver(next);
      lock.lock();
      orders_.pop_front();
    }
  }

  // What has not been delivered never will be; that includes the order that deliver() threw out of.
  void conclude(const string& failure) override {
    const std::lock_guard lock(mutex_);
    is_closed_to_orders_ = true;
    for (const Order& order : orders_) report_failure(order, failure);
    orders_.clear();
  }

  // A kept connection may have gone stale unnoticed: then we try once more, on a new one. If we get
  // no new one, that is final: TCP itself has tried more than once. A receiver who gets the message
  // twice can tell by its number.
  void deliver(const Order& order) {
    try_to_deliver(order);
    if (progress_ == Progress::broken) try_to_deliver(order);
  }

  void try_to_deliver(const Order& order) {
    try {
      ask(order);
    } catch (const Broken&) {
      if (connection_) connection_->abandon();
      if (progress_ != Progress::sent || cancelled_) throw;
      progress_ = Progress::broken;
    }
  }

  void ask(const Order& order) {
    const bool is_kept = connection_ && is_peer(order.to.id) && progress_ != Progress::broken;
    // Input that nobody asked for means that the connection has ended.
    if (!is_kept || connection_->has_input()) call();
    if (!is_peer(order.to.id)) {  // the next orders may be for whoever is there
      report_failure(order, not_the_peer());
      return;
    }
    const bool is_first = progress_ == Progress::waiting;
    progress_ = is_first ? Progress::sent : Progress::sent_again;
    const Reply reply = request(order.line);
    if (reply.ok) {
      progress_ = Progress::waiting;
      events.push(MessageDelivered{order.post, receiver_of(order)});
      return;
    }
    // A NO to the second try says nothing about the first.
    if (is_first) progress_ = Progress::waiting;
    report_failure(order, reply.sentence());
  }

  void report_failure(const Order& order, const string& reason);
  Identity receiver_of(const Order& order) const;

  // Guarded.
  std::deque<Order> orders_;  // the front one is under way until it is acknowledged
  bool is_closed_to_orders_ = false;
  // The thread's own.
  Progress progress_ = Progress::waiting;
};

// ============================================================================
// Sending a file
// ============================================================================

//   sender                                   receiver
//   OFFER size=5 files=1 :a.txt
//                                            OK         (when the user has agreed)
//   DATA offset=0 size=5, and 5 bytes
//   END size=5 crc=...
//                                            OK :a.txt  (it is whole, and stored under that name)
//
// Either side may end it early: the receiver by NO, at any time, the sender by STOP :reason. From
// the second reading of protocol.h: an Entry is a file or subfolder of a folder; a Prefix is what
// the receiver already has; Stored is its last reply; a Cksum is a checksum that grows.

struct FileError {  // about one file: the others of its folder can still be sent
  string why;
};

// Entries of a folder that do not arrive. Only a few are named, because the sender chooses how many
// there are, and their paths and reasons.
class Missed {
 public:
  void add(const string& path, const string& why);
  void take_back();          // the last one that was added
  string text() const;       // for the user; empty if there are none
  uint64_t count() const { return count_; }

 private:
  uint64_t count_ = 0;
  vector<string> named_;
};

// How far a transfer has come: how many entries have begun, and how many bytes of their files have
// passed.
struct Position {
  uint64_t entries = 0;
  uint64_t offset = 0;
  string path;       // of the last entry; empty if that is a file by itself
  // The checksum so far. In a folder, each entry's path and an LF come before its bytes [6.5].
  Cksum sum;

  void enter(const string& next) {
    ++entries;
    path = next;
    if (path.empty()) return;
    const string line = path + "\n";
    sum.add(line.data(), line.size());
  }
  void pass(string_view bytes) {
    offset += bytes.size();
    sum.add(bytes.data(), bytes.size());
  }
  Prefix prefix() const { return {entries, offset, sum.value()}; }
  End end() const { return {offset, sum.value()}; }
};

// A file on its way out, as a stream of bytes. A Folder is one, too, entry after entry; a file by
// itself is one entry without a path. If something goes wrong with an entry, that is a FileError.
class Source {
 public:
  Source(Descriptor root, const string& name, const Flag& cancelled)
      : root_(std::move(root)), cancelled_(cancelled) {
    offer.name = name;
  }
  virtual ~Source() = default;

  Offer offer;    // complete after list()
  Missed missed;  // what was not, or could not be, sent
  Position at;
  Entry entry;    // the present one

  virtual void list();
  virtual bool next();      // goes on to the next entry; false after the last one
  virtual void open() {}    // the present entry
  void read(char* into, size_t size);
  void expect_end() const;  // the whole entry was read, and has not changed meanwhile
  uint64_t left() const { return left_; }  // bytes of the entry, still to be read

  // Whether the file begins with the bytes that the receiver has from an earlier try. If so, we are
  // now behind them, else at the beginning. Also false if they cannot be read, or not in time.
  bool begins_with(const Prefix& theirs);

 protected:
  void begin(uint64_t size);
  void hold(int fd);

  const Descriptor root_;  // what the user has named
  const Flag& cancelled_;

 private:
  bool read_until(uint64_t offset);
  string wrong_size(const string& how) const;

  // Of the present entry.
  int fd_ = -1;        // -1: it has no bytes
  fs::file_time_type written_;  // last, before we opened it
  uint64_t size_ = 0;  // as offered
  uint64_t left_ = 0;
};

std::unique_ptr<Source> source_of(Descriptor root, const string& name, const Flag& cancelled);

class Upload : public Caller {
 public:
  Upload(const Identity& to, Descriptor root, const string& name)
      : Caller(to),
        source_(source_of(std::move(root), name, cancelled_)) {}

  bool is_sending() override { return true; }

 private:
  enum class State {
    under_way,
    in_doubt,  // END was sent, and is not answered yet
    told       // our user knows how it has ended
  };

  void work() override {
    source_->list();
    events.push(FileOffered{ticket, target, source_->offer});
    call();
    if (!is_peer(target.id))
      throw Broken(not_the_peer());
    try {
      offer_and_send();
    } catch (const Refusal& ours) {
      say_stop(ours);
    }
  }

  void conclude(const string& failure) override {
    if (!failure.empty() && state_ != State::told)
      report_failure(failure);
  }

  void report_failure(const string& reason) {
    const bool in_doubt = state_ == State::in_doubt;
    events.push(FileFailed{ticket, {reason, in_doubt}});
    state_ = State::told;
  }

  void offer_and_send() {
    const auto patience = kOfferTime + kPrefixTime + kSilence;
    const string answer = demand(source_->offer.format(), patience);
    piece_.resize(kChunk + 2 * kMaxLine);  // the bytes of one DATA, and two lines
    bool has_more = resume(answer);
    if (!has_more) has_more = source_->next();
    while (has_more) {
      send_entry();
      has_more = source_->next();
    }
    send_piece();
    end_file();
  }

  void send_entry() {
    const bool is_in_folder = !source_->entry.path.empty();
    if (is_in_folder) put_line(source_->entry.format());
    try {
      source_->open();
      while (source_->left() > 0) put_data();
      source_->expect_end();
    } catch (const FileError& error) {
      if (!is_in_folder) throw Refusal("changed the file " + error.why);
      miss(error.why);
    }
  }

  // Reads bytes of the file into piece_, behind the line that announces them. We announce nothing
  // that we could not read. A piece is sent when it is full, or 1 s old: otherwise a folder of many
  // small files would cost a system call for each line. No DATA is answered, so we do not wait.
  void put_data() {
    const uint64_t most = std::min<uint64_t>(kChunk, source_->left());
    const auto size = static_cast<size_t>(most);
    const string line = Data{source_->at.offset, size}.format();
    const size_t header = line.size() + 1;
    make_room(header + size);
    source_->read(&piece_[used_ + header], size);
    gather(line + "\n");
    used_ += size;
    connection_->trace("->", line);
    connection_->trace("->", "(" + to_string(size) + " bytes)");
  }

  void end_file() {
    state_ = State::in_doubt;
    const Reply reply = request(source_->at.end().format(), kStoreTime);
    state_ = State::under_way;
    if (!reply.ok)
      throw Broken(reply.sentence());
    report_stored(Stored::parse(reply.text));
    state_ = State::told;
  }

  bool resume(const string& answer);  // false if it must be sent from its beginning
  void miss(const string& why);       // the present entry is not sent
  void say_stop(const Refusal& ours);
  void put_line(const string& line);
  void make_room(size_t size);             // in piece_; sends its contents first, if need be
  void send_piece();                       // throws if a reply came early: it is a NO
  void gather(const string& bytes);
  void report_stored(const Stored& there) const;

  State state_ = State::under_way;
  const std::unique_ptr<Source> source_;
  vector<char> piece_;  // what is to be sent next
  size_t used_ = 0;     // how many bytes of it we have gathered
  Time sent_at_ = Clock::now();  // when the last piece was sent
};

// ============================================================================
// Receiving a file
// ============================================================================

// Where the bytes go: a .part until all are there. In the second reading.
class Incoming;

constexpr const char* kNotALine = "syntax a line is VERB key=value ... :text";

// Throws what goes wrong; Service tells both users.
class Download : public Worker {
 public:
  void decide(Consent consent, const string& store_as) override {
    const std::lock_guard lock(mutex_);
    consent_ = consent;
    store_as_ = store_as;
    changed_.notify_one();
  }

 protected:
  using Worker::Worker;

  // From the offer to the reply for its last byte.
  Reply receive_file(const Offer& offered) {
    // Before the user hears of the offer: the answer may come at once.
    decide(accept_policy == Accept::always ? Consent::given : Consent::open, "");
    begin(offered);
    events.push(FileOffered{ticket, peer_, offer_});
    const string name = await_consent(name_to_store());
    bool is_whole = take_part(resume(name));
    while (!is_whole) is_whole = take_part(read_part());
    return publish();
  }

  Offer offer_;
  // Its end removes or keeps the .part. (Shared with nobody: a unique_ptr would have to know here
  // what an Incoming is.)
  std::shared_ptr<Incoming> incoming_;

 private:
  // The name under which the user wants it.
  string await_consent(const string& name) {
    if (accept_policy == Accept::never)
      throw Refusal("declined this user accepts no files", "you accept no files");
    const string limit = to_string(kOfferTime.count()) + " s";
    const auto deadline = Clock::now() + kOfferTime;
    std::unique_lock lock(mutex_);
    // A thread can wait for a condition variable or for a socket, but not for both. So in between
    // it looks at the socket.
    const auto is_answered = [this] { return consent_ != Consent::open; };
    while (!changed_.wait_for(lock, kSlice, is_answered)) {
      stop_if(cancelled_);
      if (Clock::now() > deadline)
        throw Refusal("timeout nobody answered the offer within " + limit,
                      "you did not answer within " + limit);
      if (!connection_->has_input()) continue;
      lock.unlock();  // as in Conversation::work()
      read_part();    // a STOP, perhaps
      throw Refusal("early an offer has to be answered before anything else comes");
    }
    if (consent_ == Consent::refused)
      throw Refusal("declined the user does not want it", "you have rejected it");
    return store_as_.empty() ? name : store_as_;
  }

  // The next line of a sender, which may be only a STOP.
  string read_part(Duration patience = kSilence) {
    stop_if(cancelled_);  // await() looks only while it waits, and the next line may be here
    if (!connection_->await(patience))
      throw Broken("the sender has gone");
    const string line = connection_->read_line();
    expect_no_stop(line);
    return line;
  }

  // Does what this line asks for. True if it was the END.
  bool take_part(const string& line) {
    const auto parsed = Line::parse(line);
    if (!parsed) throw Refusal(kNotALine);
    const auto end = End::parse(*parsed);
    const auto data = Data::parse(*parsed);
    if (end) check_end(*end);
    else if (data) receive_data(*data);
    else take_entry(*parsed);
    return end.has_value();
  }

  void receive_data(const Data& data) {
    if (data.offset != at_.offset || data.size > offer_.size - at_.offset)
      throw Refusal("syntax expected offset=" + to_string(at_.offset) +
                    ", and no more than was offered");
    expect_entry();
    connection_->trace("<-", "(" + to_string(data.size) + " bytes)");
    uint64_t size = data.size;
    while (size > 0 && !cancelled_) {
      const string_view bytes = connection_->read(size);
      store(bytes);
      size -= bytes.size();
      bytes_done = at_.offset;
    }
    stop_if(cancelled_);
  }

  void begin(const Offer& offered);
  string name_to_store() const;       // throws if there is none, or the disk is too full
  string resume(const string& name);  // says OK, and what is there; returns the next line
  void expect_entry() const;          // to which the bytes belong
  void store(string_view bytes);
  Reply publish();                    // gives it its final name, and says so
  void expect_no_stop(const string& line) const;
  void take_entry(const Line& line);  // of a folder
  void check_end(const End& end) const;
  void report_stored(const Stored& stored) const;

  Position at_;
  // Guarded.
  Consent consent_ = Consent::open;
  string store_as_;  // a name of the user's choice, if not its own
};

// ============================================================================
// Answering: the connection was opened to us
// ============================================================================

// One thread serves the whole connection, offers included. So a Service is a Download that also
// answers everything else.
class Service : public Download {
 public:
  Service(const Identity& from, Descriptor fd) : Download(from) {
    use(std::move(fd), Connection::Side::answers);
  }

  bool is_accepted() const override { return true; }

 private:
  void work() override {
    bool goes_on = true;
    while (goes_on && connection_->await(patience()))
      goes_on = serve_request();
  }

  // A caller who has not introduced himself may not be silent for long.
  Duration patience() const { return peer_.id.empty() ? kSilence : kForsaken; }

  bool serve_request() {
    try {
      const string line = connection_->read_line();
      connection_->send_line(reply_to(line).format());
      return true;
    } catch (const Refusal& refusal) {
      refuse(refusal.no, refusal.what());
    } catch (const std::exception& error) {
      const Reply failed{false, string("failed ") + error.what()};
      refuse(failed, error.what());
    }
    return false;
  }

  void conclude(const string&) override { incoming_.reset(); }
  void refuse(const Reply& no, const string& reason);  // the last reply of a connection

  Reply reply_to(const string& line) {
    const auto hello = Announcement::parse(line);
    if (hello && hello->verb == Verb::hello)
      return greet(hello->who);
    if (peer_.id.empty())
      return {false, "stranger introduce yourself first, with a HELLO of " + string(kMagic)};
    const auto parsed = Line::parse(line);
    if (!parsed) return {false, kNotALine};
    const auto offered = Offer::parse(*parsed);
    if (offered) return receive_file(*offered);
    const auto message = Message::parse(*parsed);
    if (message) {
      events.push(MessageReceived{peer_, *message});
      return {true, ""};  // it is in our hands now
    }
    const bool is_known = parsed->verb == "MSG" || parsed->verb == "OFFER";
    if (is_known) return {false, "syntax a field is missing or wrong"};
    return {false, "unknown no such request"};
  }

  Reply greet(const Identity& caller) {
    if (caller.id == self_.id)
      return {false, "self you are talking to yourself"};
    const bool is_another = !peer_.id.empty() && caller.id != peer_.id;
    if (is_another) throw Refusal("other a connection has one user");
    peer_ = caller;
    peer_.address.ip = target.address.ip;
    events.push(Introduced{peer_});
    return {true, introduction(Verb::here)};
  }
};

// ---- The workers ------------------------------------------------------------------------

// From here on, all that stands before the second reading is the main thread's.

vector<std::shared_ptr<Worker>> workers;
std::map<Address, std::weak_ptr<Conversation>> conversations;  // the last one with each address

// A shared_ptr calls this instead of `delete`: ~Worker() would be too late to end the thread. (That
// is why start_worker() is given a pointer from `new`: make_shared() takes no such function.)
void end_worker(Worker* worker) {
  worker->end();
  delete worker;
}

template <class Kind>
std::shared_ptr<Kind> start_worker(Kind* worker) {
  const std::shared_ptr<Kind> owned(worker, end_worker);
  owned->start();
  workers.push_back(owned);
  return owned;
}

void check_route(const Identity& to) {
  if (!can_reach(to.address.ip))
    throw std::runtime_error("no usable route leads to " + to.address.text());
}

// To the conversation with that address, or to a new one. By the address alone: the messages to one
// peer must not overtake each other on two connections, or the receiver would take the slower one's
// numbers for repeats. For each address, a small entry stays.
void give(const Order& order) {
  const auto current = conversations[order.to.address].lock();
  if (current && current->take(order)) return;
  check_route(order.to);
  const auto fresh = start_worker(new Conversation(order.to));
  conversations[order.to.address] = fresh;
  fresh->take(order);
}

bool is_shortage(int error);  // whether the system lacks something
bool is_too_many(uint32_t ip);
void turn_away(const Descriptor& fd, Address from);

void accept_one() {
  sockaddr_in raw{};
  socklen_t length = sizeof raw;
  const int listening = listening_socket.get();
  const int result = uninterrupted([&] {
    return ::accept(listening, generic(raw), &length);
  });
  const bool has_given_up = result == -1 && (errno == EAGAIN || errno == ECONNABORTED);
  if (has_given_up) return;  // the caller
  Descriptor fd(check(result, "accept"));
  // macOS and the BSDs hand on the listener's O_NONBLOCK: recv() would never wait, and the thread
  // would spin.
  set_blocking(fd.get());
  Identity from;
  from.address = Address::from_sockaddr(raw);
  if (!can_reach(from.address.ip)) return;
  if (is_too_many(from.address.ip))
    turn_away(fd, from.address);
  else
    start_worker(new Service(from, std::move(fd)));
}

string name_to_send(const string& path);  // throws if it has none
struct stat file_status(int fd);          // all 0 if it fails

}  // namespace

// ============================================================================
// The main thread's side
// ============================================================================

void transfer::open(bool (*has_route)(uint32_t ip)) {
  can_reach = has_route;
  const int on = 1;
  const string port = to_string(myself.address.port);
  const int fd = check(::socket(AF_INET, SOCK_STREAM, 0), "socket");
  listening_socket = Descriptor(fd);
  // A client that gives up between select() and accept() would leave a blocking accept() waiting
  // for the next one.
  set_non_blocking(fd);
  // Without SO_REUSEADDR the port of a peer that ended stays taken while its old connections are in
  // TIME_WAIT.
  check(::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), "setsockopt SO_REUSEADDR");
  sockaddr_in raw = Address{INADDR_ANY, myself.address.port}.to_sockaddr();
  check(::bind(fd, generic(raw), sizeof raw), "bind TCP port " + port);
  keep_to_chosen_interface(fd);
  // With SO_REUSEADDR two may bind one port as long as neither listens. Here, at the latest,
  // the second one fails.
  check(::listen(fd, SOMAXCONN), "listen on TCP port " + port);
}

void transfer::watch(fd_set& readable) {
  if (Clock::now() >= accept_after)
    FD_SET(listening_socket.get(), &readable);
}

void transfer::accept_connection(const fd_set& readable) {
  if (!FD_ISSET(listening_socket.get(), &readable))
    return;
  try {
    accept_one();
  } catch (const std::system_error& error) {
    // Out of descriptors: the connection stays in the queue and the listener readable, and select()
    // would return at once, again and again. So look away for a moment. Out of threads, the
    // connection is closed.
    if (!is_shortage(error.code().value())) return;
    accept_after = Clock::now() + kSlice;
  }
}

void transfer::send_message(const Identity& to, const string& scope, const string& text,
                            uint64_t post) {
  Message message;
  message.number = next_number;
  message.scope = scope;
  message.text = text;
  ++next_number;
  give({post, to, message.format()});
}

uint64_t transfer::send_file(const Identity& to, const string& path) {
  check_route(to);
  // We send what the path names now, whatever it names later. O_NONBLOCK: opening a FIFO would wait
  // until somebody writes to it.
  const int fd = ::open(path.c_str(), O_RDONLY | O_NONBLOCK);
  Descriptor root(check(fd, "cannot read " + path));
  const mode_t mode = file_status(fd).st_mode;
  const bool is_folder = S_ISDIR(mode);
  if (!S_ISREG(mode) && !is_folder)
    throw std::runtime_error(path + " is not a file or a folder");
  const string name = name_to_send(path) + (is_folder ? "/" : "");
  return start_worker(new Upload(to, std::move(root), name))->ticket;
}

void transfer::decide(uint64_t ticket, Consent consent, const string& store_as) {
  for (const auto& worker : workers)
    if (worker->ticket == ticket)
      worker->decide(consent, store_as);
}

void transfer::cancel(uint64_t ticket) {
  for (const auto& worker : workers)
    if (worker->ticket == ticket)
      worker->cancel();
}

void transfer::cancel_all() {
  is_leaving = true;  // before a thread is told, and says why
  for (const auto& worker : workers) worker->cancel();
}

bool transfer::is_open() { return !workers.empty(); }

void transfer::close() {
  is_closing = true;
  workers.clear();
}

void transfer::reap() {
  const auto is_done = [](const auto& worker) { return worker->is_done.load(); };
  const auto ended = std::remove_if(workers.begin(), workers.end(), is_done);
  workers.erase(ended, workers.end());
}

namespace {

// ============================================================================
// SECOND READING: resuming, folders, the disk
// ============================================================================

// ---- What else a connection does ---------------------------------------------------------

// We receive that many bytes of small files at once: some sixty files of 4 KiB. With one recv() for
// each, ten thousand take 0.40 s instead of 0.22. With a much larger batch, a slow disk would keep
// us from reading for longer than the sender waits.
constexpr size_t kBatch = 256 * 1024;

// After a plain close() the kernel goes on sending what is left for a minute or more. A message
// could arrive so late that the receiver has forgotten the number of its second copy. macOS
// answers EINVAL if the other side has reset the connection: then there is nothing left to send.
void Connection::abandon() const {
  const linger at_once{1, 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

int Connection::await_connection() const {
  const auto deadline = Clock::now() + kConnectTime;
  constexpr int slice = std::chrono::milliseconds(kSlice).count();
  pollfd attempt{fd_, POLLOUT, 0};
  int ready = 0;
  while (ready != 1) {
    stop_if(cancelled_);
    if (Clock::now() > deadline) return ETIMEDOUT;
    ready = ::poll(&attempt, 1, slice);
  }
  int error = 0;
  socklen_t length = sizeof error;
  check(::getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &length), "getsockopt");
  return error;
}

// A firewall drops the packets, or rejects them with one of the other two errors. If nobody has the
// address, ARP gives up after 3 s, which is less than kConnectTime.
string meaning_of(int error, const Identity& other) {
  // Its datagrams come from an address that is not the one it has: a router translates.
  const bool is_hidden = other.said_ip != 0 && other.said_ip != other.address.ip;
  if (is_hidden)
    return error_text(error) + "; a router (NAT) hides it (it says " +
           Address{other.said_ip}.ip_text() + "): it can write to you, but you can reach it " +
           "only if that router forwards TCP " + to_string(other.address.port) + " to it";
  const string ports = to_string(kFirstPort) + " to " + to_string(kLastPort);
  const string remedy = "open TCP " + ports + " on that machine";
  string cause;
  if (error == ETIMEDOUT)
    cause = "most likely a firewall there lets nothing in";
  if (error == ECONNREFUSED)
    cause = "no peer runs at that port, or a firewall or router there turns you away";
  if (error == EHOSTUNREACH || error == EHOSTDOWN)  // the second on macOS and the BSDs
    cause = "nobody has that address, the access point keeps you apart, "
            "or a firewall there turns you away";
  if (cause.empty()) return error_text(error);
  return error_text(error) + "; " + cause + ": " + remedy;
}

bool Connection::has_input() const {
  char byte;
  const ssize_t got = ::recv(fd_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return !unread_.empty() || got >= 0 || !would_block();
}

// What came along with the last line, if anything did. Otherwise we wait for all that we ask for,
// unless that takes long: MSG_WAITALL, because waking up for every few bytes would cost most.
string_view Connection::read(uint64_t most) {
  // size_t may have 32 bits.
  const auto wanted = static_cast<size_t>(std::min<uint64_t>(most, kChunk));
  const auto deadline = Clock::now() + kSilence;
  batch_ = kBatch;
  bool has_more = !unread_.empty();
  if (!has_more) has_more = read_more(wanted, MSG_WAITALL, deadline);
  if (!has_more) throw Broken("the connection ended in the middle of the file");
  const string_view bytes = unread_.substr(0, wanted);
  unread_.remove_prefix(bytes.size());
  return bytes;
}

// Up to `most` more bytes, behind those that are there already.
bool Connection::read_more(size_t most, int flags, Time deadline) {
  const size_t kept = unread_.size();
  if (kept > 0)
    std::memmove(storage_.data(), unread_.data(), kept);
  if (storage_.size() < kept + most)
    storage_.resize(kept + most);
  // Before receive(), which may throw: resize() may have moved the storage.
  unread_ = {storage_.data(), kept};
  const size_t got = receive(storage_.data() + kept, most, flags, deadline);
  unread_ = {storage_.data(), kept + got};
  return got > 0;
}

// The answering side can send a NO; the asking side cannot.
void Connection::reject(const string& why) const {
  const Refusal refusal(why);
  if (side_ == Side::answers) throw refusal;
  throw Broken("what came is not a reply: " + refusal.no.sentence());
}

// ---- Too many connections ---------------------------------------------------------------

// Any other error on a connection that we have just accepted concerns that one only: the caller has
// gone. On macOS, setsockopt() says so by EINVAL.
bool is_shortage(int error) {
  for (const int one : {EMFILE, ENFILE, ENOBUFS, ENOMEM, EAGAIN})
    if (error == one) return true;
  return false;
}

constexpr size_t kMaxAccepted = 512;
constexpr size_t kMaxAcceptedFromOne = 128;

bool is_too_many(uint32_t ip) {
  size_t accepted = 0;
  size_t from_one = 0;
  for (const auto& worker : workers) {
    if (!worker->is_accepted()) continue;
    ++accepted;
    if (worker->target.address.ip == ip) ++from_one;
  }
  return accepted >= kMaxAccepted || from_one >= kMaxAcceptedFromOne;
}

// We close right after that line, so a reset may overtake it if the caller's HELLO is unread. To
// wait for the HELLO we would need a thread, and we have none to spare.
void turn_away(const Descriptor& fd, Address from) {
  const string busy = "NO busy too many connections, try again later";
  trace("TCP", local_address(fd.get()), "->", from, busy);
  const string line = busy + "\n";
  ::send(fd.get(), line.data(), line.size(), MSG_DONTWAIT);  // if that fails, the caller has gone
}

// ---- What becomes of a message ------------------------------------------------------------

void Conversation::report_failure(const Order& order, const string& reason) {
  const bool in_doubt = progress_ != Progress::waiting;
  events.push(MessageFailed{order.post, receiver_of(order), {reason, in_doubt}});
  progress_ = Progress::waiting;
}

// Whom it was for: somebody else may be there by now.
Identity Conversation::receiver_of(const Order& order) const {
  return order.to.id.empty() ? peer_ : order.to;
}

// ---- Where files are stored ---------------------------------------------------------------

// The room on the disk for one transfer. No other transfer of this peer gets what this one was
// promised and has not filled yet. If another program fills the disk, write() fails with ENOSPC.
class Room {
 public:
  ~Room() { fill(left_); }  // gives back what was not used

  // Throws a Refusal if less is free; promises nothing.
  static void expect(uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    demand(bytes);
  }

  // Replaces the earlier promise; throws like expect(). All under one lock: otherwise another
  // transfer could get the same room between our check and our promise.
  void set_aside(uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    take_off(left_);
    demand(bytes);
    promised_ += bytes;
    left_ = bytes;
  }

  // That much of it is now on the disk.
  void fill(uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    take_off(bytes);
  }

 private:
  // These three while the lock is held.
  static void demand(uint64_t bytes) {
    const uint64_t free = free_bytes();
    if (bytes <= free) return;
    const string others = promised_ > 0 ? ", less what other transfers still need" : "";
    throw Refusal("space only " + to_string(free) + " bytes are free" + others);
  }

  // Less what running transfers still need.
  static uint64_t free_bytes() {
    struct statvfs disk{};
    const int result = ::statvfs(download_folder.c_str(), &disk);
    if (result == -1) return UINT64_MAX;  // unknown: let us try
    const uint64_t free = uint64_t{disk.f_bavail} * disk.f_frsize;
    return free - std::min(free, promised_);
  }

  void take_off(uint64_t bytes) {
    const uint64_t filled = std::min(bytes, left_);
    promised_ -= filled;
    left_ -= filled;
  }

  static inline std::mutex mutex_;       // guards the next one
  static inline uint64_t promised_ = 0;  // bytes, to all transfers
  uint64_t left_ = 0;                    // to this one
};

// We write into a file or folder with another name, "report.pdf.10.0.0.7.part". It contains the
// sender's address, so we never mistake somebody else's report.pdf, or a file of the user's, for
// the beginning of this one. When it is complete, publish() gives it the name that was offered. If
// the transfer fails, we remove the .part of a folder, and an empty one. The .part of a file stays,
// and the next try goes on from there: Download::resume().
class Incoming {
 public:
  Incoming(const Offer& offer, const string& name, uint32_t from);
  ~Incoming();
  Incoming(const Incoming&) = delete;

  // The `n`th path to try, if another transfer has the one before.
  static string part_path(const string& name, unsigned n, uint32_t from);
  static bool is_part_name(const string& name);  // whether it looks like one of these

  Missed missed;    // what its sender could not read
  Missed left_out;  // what we cannot store
  Room room;

  Position beginning(const Flag& cancelled) const;  // what an earlier try left of a file
  bool is_kept() const;                             // something stays, for the next try
  void start_over() const;                          // deletes what was left of a file
  void empty(const Flag& cancelled) const;          // deletes what was left of a folder

  // An entry of a folder: whatever we write from now on is part of it. It may be dropped again.
  void enter(const Entry& entry);
  void drop(const string& why);  // it did not arrive complete
  bool is_within() const;        // inside an entry that is not dropped
  bool takes_bytes() const;      // the entry is a file, stored or left out
  void write(string_view bytes);

  // Flushes it to the disk. Then, unless it was cancelled meanwhile, gives it the first free name,
  // and returns that: "report.pdf", or "report (1).pdf" if that is taken.
  string publish(const Flag& cancelled);

 private:
  void take(const string& path);
  bool open_part(const string& path);
  int give_name(const string& final_path) const;
  bool is_ours(const string& path) const;
  void leave_out(const string& why);
  void make_executable() const;
  string entry_path() const;
  string what() const;

  const Offer offer_;
  const string name_;
  string path_;      // of the .part
  Descriptor root_;  // the .part, locked
  string inside_;    // the present entry's path within it
  Descriptor file_;  // the present entry, if it is a file in a folder
  bool is_left_out_ = false;  // whether the present entry is left out
  string lost_;               // the last subfolder that was left out
};

// ---- Names ------------------------------------------------------------------------------

// The name for the other side: the last component of the path that the user typed, "photos/"
// perhaps.
string name_to_send(const string& path) {
  const string whole = path.substr(0, path.find_last_not_of('/') + 1);
  const string name = whole.substr(begin_of_name(whole));
  if (name.empty())
    throw std::runtime_error(path + " has no name; send a folder that is in it");
  if (name == "." || name == "..")
    throw std::runtime_error(path + " has no name of its own; write its full path");
  if (!safe_file_name(name))
    throw std::runtime_error("the name of " + path +
                             " has a character that cannot be sent; rename it");
  return name;
}

// We ignore the sender's folders above it, and do not show them: they may be long enough to hide
// the name. A folder keeps the slash at its end.
void Download::begin(const Offer& offered) {
  offer_ = offered;
  if (offer_.is_folder()) offer_.name.pop_back();
  offer_.name.erase(0, begin_of_name(offer_.name));
  if (offered.is_folder()) offer_.name += "/";
  at_ = {};
  bytes_done = 0;
}

string Download::name_to_store() const {
  const string shown = offer_.name.substr(0, offer_.name.find('/'));
  const auto name = safe_file_name(shown);
  if (!name || Incoming::is_part_name(*name))
    throw Refusal("name a file cannot be stored under that name");
  const string part = Incoming::part_path(*name, 0, target.address.ip);
  const bool has_beginning = ::access(part.c_str(), F_OK) == 0;
  if (!has_beginning) Room::expect(offer_.size);  // otherwise we may not need all of it
  return *name;
}

// ---- Storing it --------------------------------------------------------------------------

void Download::expect_entry() const {
  if (!incoming_->takes_bytes())
    throw Refusal("syntax DATA must follow the FILE that it belongs to");
}

void Download::store(string_view bytes) {
  incoming_->write(bytes);
  at_.pass(bytes);
}

Reply Download::publish() {
  Stored stored;
  stored.name = incoming_->publish(cancelled_);
  if (offer_.is_folder()) stored.name += "/";
  stored.missing = incoming_->left_out.count();
  stored.which = incoming_->left_out.text();
  report_stored(stored);
  incoming_.reset();
  return {true, stored.format()};
}

// This also ends the transfer, if there is one.
void Service::refuse(const Reply& no, const string& reason) {
  string text = cancelled_ ? "cancelled" : reason;
  if (incoming_ && incoming_->is_kept())
    text += "; what has arrived is kept, and resumes when it is sent again";
  // If the file is sent again at once, it must not still be locked. Removing a folder takes a
  // while, so we tell both users before that.
  if (!offer_.is_folder()) incoming_.reset();
  events.push(FileFailed{ticket, {text}});
  connection_->say_last(no.format());
  incoming_.reset();
  connection_->drain();
}

// ---- Resuming a file [6.6] --------------------------------------------------------------

// `answer` names the beginning that the receiver has, if it has one.
bool Upload::resume(const string& answer) {
  const Offer& offer = source_->offer;
  Prefix theirs;
  if (!offer.is_folder()) theirs = Prefix::parse(answer);
  const bool is_resumed = theirs.offset > 0 && source_->begins_with(theirs);
  if (is_resumed) connection_->send_line("RESUME");
  bytes_done = source_->at.offset;
  report_start();
  return is_resumed;
}

bool Source::begins_with(const Prefix& theirs) {
  next();
  bool is_read = false;
  try {
    is_read = read_until(theirs.offset);
  } catch (const FileError&) {
    is_read = false;  // when we send it, we will see what is wrong
  }
  if (is_read && at.prefix() == theirs) return true;
  ::lseek(root_.get(), 0, SEEK_SET);
  at = {};
  return false;
}

// False if there are fewer, or if it takes too long.
bool Source::read_until(uint64_t offset) {
  if (offset > left_) return false;
  const auto deadline = Clock::now() + kPrefixTime;
  vector<char> bytes(kChunk);
  while (at.offset < offset) {
    const uint64_t wanted = offset - at.offset;
    const uint64_t most = std::min<uint64_t>(wanted, bytes.size());
    read(bytes.data(), static_cast<size_t>(most));
    if (Clock::now() >= deadline) return false;
  }
  return true;
}

// We tell the sender what an earlier try left of a file, and it compares that with the beginning of
// what it has now. If a killed peer left part of a folder, we do not resume it, but remove it.
string Download::resume(const string& name) {
  Position had;
  incoming_ = std::make_shared<Incoming>(offer_, name, target.address.ip);
  if (offer_.is_folder()) incoming_->empty(cancelled_);
  else had = incoming_->beginning(cancelled_);
  if (had.offset > offer_.size) {
    incoming_->start_over();
    had = {};
  }
  incoming_->room.set_aside(offer_.size - had.offset);
  const string prefix = had.prefix().format();
  connection_->send_line(Reply{true, prefix}.format());
  const string line = read_part(kPrefixTime + kSilence);
  const auto first = Line::parse(line);
  const bool is_resumed = !prefix.empty() && first && first->verb == "RESUME";
  if (is_resumed) at_ = had;
  bytes_done = at_.offset;
  report_start();
  if (is_resumed) return read_part();
  if (offer_.is_folder()) return line;
  incoming_->start_over();
  incoming_->room.set_aside(offer_.size);
  at_.enter("");
  return line;
}

void Incoming::start_over() const {
  check(::ftruncate(root_.get(), 0), what());
}

// Nothing if it cannot be read, or not in time.
Position Incoming::beginning(const Flag& cancelled) const {
  const auto deadline = Clock::now() + kPrefixTime;
  vector<char> bytes(kChunk);
  Position at;
  at.enter("");
  for (;;) {
    stop_if(cancelled);
    const auto offset = static_cast<off_t>(at.offset);
    const ssize_t got = uninterrupted([&] {
      return ::pread(root_.get(), bytes.data(), bytes.size(), offset);
    });
    if (got == 0) return at;
    if (got == -1 || Clock::now() > deadline)
      return {};
    at.pass({bytes.data(), static_cast<size_t>(got)});
  }
}

// ---- What both sides of a transfer do ----------------------------------------------------

// With the time, because the main thread may hear of it late, and would then compute too high a
// speed.
void Worker::report_start() const {
  FileStarted started;
  started.ticket = ticket;
  started.when = Clock::now();
  started.resumed_at = bytes_done;
  events.push(started);
}

struct stat file_status(int fd) {
  struct stat info{};
  ::fstat(fd, &info);
  return info;
}

// ---- Sending a file ----------------------------------------------------------------------

void Source::list() {
  const struct stat info = file_status(root_.get());
  offer.size = static_cast<uint64_t>(info.st_size);
  offer.executable = (info.st_mode & S_IXUSR) != 0;
}

bool Source::next() {
  if (at.entries > 0) return false;
  begin(offer.size);
  hold(root_.get());
  return true;
}

void Source::begin(uint64_t size) {
  at.enter(entry.path);
  size_ = size;
  left_ = size;
}

// With fractions of a second: struct stat has them, too, but each system names the member
// differently.
fs::file_time_type last_written(int fd) {
  std::error_code unknown;
  return fs::last_write_time("/dev/fd/" + to_string(fd), unknown);
}

void Source::hold(int fd) {
  fd_ = fd;
  written_ = last_written(fd);
}

void Source::read(char* into, size_t size) {
  stop_if(cancelled_);
  for (size_t got = 0; got < size;) {
    const ssize_t n = uninterrupted([&] {
      return ::read(fd_, into + got, size - got);
    });
    if (n == -1) throw FileError{error_text(errno)};
    if (n == 0) throw FileError{wrong_size("shorter")};
    got += static_cast<size_t>(n);
  }
  left_ -= size;
  at.pass({into, size});
}

void Upload::put_line(const string& line) {
  make_room(line.size() + 1);
  connection_->trace("->", line);
  gather(line + "\n");
}

void Upload::gather(const string& bytes) {
  bytes.copy(&piece_[used_], bytes.size());
  used_ += bytes.size();
}

// A slow disk must not keep the receiver waiting for what we have gathered.
void Upload::make_room(size_t size) {
  const bool is_full = used_ + size > piece_.size();
  const bool is_old = Clock::now() - sent_at_ > 1s;
  if (is_full || is_old) send_piece();
}

void Upload::send_piece() {
  bytes_done = source_->at.offset;
  if (connection_->has_input()) {
    const Reply early = read_reply(kSilence);
    throw Broken(early.ok ? "it was acknowledged before it was complete" : early.sentence());
  }
  connection_->send({piece_.data(), used_});
  used_ = 0;
  sent_at_ = Clock::now();
}

// We tell our user first: telling the other side may take a while, or fail for another reason.
// After END we say nothing more [6.7].
void Upload::say_stop(const Refusal& ours) {
  const bool has_ended = state_ == State::in_doubt;
  report_failure(cancelled_ ? "cancelled" : ours.what());
  if (!has_ended) connection_->finish("STOP :" + ours.no.sentence());
}

// ", not sent: x (Permission denied)"; empty if there are none.
string remark(const string& what, const string& which) {
  if (which.empty()) return "";
  return ", " + what + ": " + which;
}

string not_stored(const Stored& there) {
  if (there.missing == 0) return "";
  const string number = to_string(there.missing) + " entries";
  return remark("not stored", there.which.empty() ? number : there.which);
}

void Upload::report_stored(const Stored& there) const {
  const End end = source_->at.end();
  const uint64_t entries = source_->at.entries;
  FileStored stored;
  stored.ticket = ticket;
  stored.name = there.name.empty() ? source_->offer.name : there.name;
  stored.size = end.size;
  stored.files = entries - std::min(entries, there.missing);
  stored.crc = end.crc;
  stored.missing = remark("not sent", source_->missed.text()) + not_stored(there);
  events.push(stored);
}

// ---- Receiving a file --------------------------------------------------------------------

void Download::expect_no_stop(const string& line) const {
  string_view rest = line;
  const string_view verb = take_word(rest);
  const auto parsed = Line::parse(line);
  if (verb != "STOP" || !parsed) return;  // if it is malformed, whoever parses it will say so
  const string reason(parsed->text.value_or("the sender has stopped it"));
  throw Refusal("stopped " + shortened(reason, 999));
}

void Download::check_end(const End& end) const {
  const bool is_all = offer_.is_folder() || at_.offset == offer_.size;
  if (is_all && end == at_.end()) return;
  // These bytes are wrong, so the next try must not resume from them.
  if (!offer_.is_folder()) incoming_->start_over();
  throw Refusal("checksum the file did not arrive as it was sent");
}

void Download::report_stored(const Stored& stored) const {
  FileStored report;
  report.ticket = ticket;
  report.name = stored.name;
  report.size = at_.offset;
  report.files = at_.entries - incoming_->missed.count() - stored.missing;
  report.crc = at_.sum.value();
  report.missing = remark("not sent", incoming_->missed.text()) + not_stored(stored);
  events.push(report);
}

void Incoming::write(string_view bytes) {
  if (is_left_out_) {
    room.fill(bytes.size());  // we will not need that room
    return;
  }
  const int fd = offer_.is_folder() ? file_.get() : root_.get();
  while (!bytes.empty()) {
    const ssize_t written = uninterrupted([&] {
      return ::write(fd, bytes.data(), bytes.size());
    });
    check(written, what());
    bytes.remove_prefix(static_cast<size_t>(written));
    room.fill(static_cast<uint64_t>(written));
  }
}

string Incoming::what() const {
  if (inside_.empty()) return "cannot store " + name_;
  return "cannot store " + name_ + "/" + shortened(inside_, 200);
}

// ---- What does not arrive ---------------------------------------------------------------

void Missed::add(const string& path, const string& why) {
  constexpr size_t kMostNamed = 8;
  constexpr size_t kMostOfPath = 200;
  constexpr size_t kMostOfReason = 100;
  ++count_;
  if (named_.size() == kMostNamed) return;
  const string reason = " (" + shortened(why, kMostOfReason) + ")";
  named_.push_back(shortened(path, kMostOfPath) + reason);
}

void Missed::take_back() {
  if (count_ == named_.size()) named_.pop_back();
  --count_;
}

// "link (a link or a special file), x (Permission denied) and 7 more"
string Missed::text() const {
  string text;
  for (const string& one : named_)
    text += (text.empty() ? "" : ", ") + one;
  const uint64_t others = count_ - named_.size();
  if (others > 0) text += " and " + to_string(others) + " more";
  return text;
}

// ---- Sending a folder [6.5] -------------------------------------------------------------

bool is_below(const string& path, const string& folder) {
  return !folder.empty() && begins_with(path, folder);
}

struct CloseFolder {
  void operator()(DIR* folder) const {
    ::closedir(folder);
  }
};

// It starts from the descriptor of what the user named. Below that we never follow a link: we open
// each component of a path separately, within the folder that is already open. Given a whole path,
// the kernel would follow whatever is there by then. Somebody who can write there lets our offer
// wait, and has two minutes to replace a folder that we offered by a link to one that we did not.
class Folder : public Source {
 public:
  using Source::Source;

  void list() override {
    offer.files = 0;
    const string trouble = try_to_list("");
    if (!trouble.empty())
      throw std::runtime_error("cannot read the folder: " + trouble);
    // By number, and with a copy of the path: the list grows meanwhile, and may move.
    for (size_t i = 0; i < entries_.size(); ++i) {
      const string path = entries_[i].path;
      if (path.back() != '/') continue;
      const string why = try_to_list(path);
      entries_[i].trouble = why;
    }
    // We compare the bytes of their paths: "a/" comes before "a/b".
    std::sort(entries_.begin(), entries_.end());
  }

  bool next() override {
    stop_if(cancelled_);
    while (is_lost(next_)) ++next_;
    if (next_ == entries_.size()) return false;
    const Listed& listed = entries_[next_];
    ++next_;
    trouble_ = listed.trouble;
    entry.path = listed.path;
    entry.executable = listed.is_executable;
    begin(listed.size);
    return true;
  }

  void open() override {
    const size_t name = begin_of_name(entry.path);
    const bool is_subfolder = name == entry.path.size();
    if (is_subfolder) lost_ = entry.path;  // until it is open
    if (!trouble_.empty()) throw FileError{trouble_};
    go_to(entry.path.substr(0, name));
    if (is_subfolder) {
      lost_.clear();
      hold(-1);
      return;
    }
    file_ = open_here(entry.path.substr(name), 0);
    hold(file_.get());
    const mode_t mode = file_status(file_.get()).st_mode;
    if (!S_ISREG(mode)) throw FileError{"not a file any more"};
  }

 private:
  struct Listed {
    string path;  // within the folder; a subfolder's ends in a slash
    uint64_t size = 0;
    bool is_executable = false;
    string trouble = {};  // why it could not be listed
    bool operator<(const Listed& o) const { return path < o.path; }
  };

  // Whether it is in a subfolder that could not be opened.
  bool is_lost(size_t number) const {
    return number < entries_.size() && is_below(entries_[number].path, lost_);
  }

  // Adds its contents to the entries. Returns why it could not.
  string try_to_list(const string& folder) {
    try {
      list_folder(folder);
    } catch (const FileError& error) {
      return error.why;
    }
    return "";
  }

  void list_folder(const string& folder) {
    go_to(folder);
    Descriptor here = open_here(".", O_DIRECTORY);  // a second one, because closedir() closes it
    const std::unique_ptr<DIR, CloseFolder> names(::fdopendir(here.get()));
    if (!names) throw FileError{error_text(errno)};
    here.release();
    for (;;) {
      errno = 0;  // at the end of the folder, readdir() leaves it alone
      // NOLINTNEXTLINE(concurrency-mt-unsafe): each thread reads a stream of its own
      const dirent* found = ::readdir(names.get());
      if (!found) break;
      list_entry(folder, found->d_name);
    }
    if (errno != 0) throw FileError{error_text(errno)};
  }

  void list_entry(const string& folder, const string& name) {
    stop_if(cancelled_);
    if (name == "." || name == "..") return;
    struct stat info{};
    const int result =
        ::fstatat(present_folder(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW);
    const string why = result == -1 ? error_text(errno) : "";
    const bool is_subfolder = S_ISDIR(info.st_mode);
    const string path = folder + name + (is_subfolder ? "/" : "");
    if (!why.empty()) {
      leave_out(path, why);
    } else if (path.size() > kMaxPath) {
      leave_out(path, "its path is too long");
    } else if (!is_safe_path(path)) {
      leave_out(path, "its name cannot be sent");
    } else if (is_subfolder || S_ISREG(info.st_mode)) {
      add(path, info);
    } else {
      missed.add(path, "a link or a special file");
    }
  }

  void add(const string& path, const struct stat& info) {
    Listed listed;
    listed.path = path;
    if (S_ISREG(info.st_mode)) {
      listed.size = static_cast<uint64_t>(info.st_size);
      listed.is_executable = (info.st_mode & S_IXUSR) != 0;
    }
    ++offer.files;
    offer.size += listed.size;
    entries_.push_back(listed);
  }

  // It counts as an entry to send all the same.
  void leave_out(const string& path, const string& why) {
    missed.add(path, why);
    ++offer.files;
  }

  // From the root, or from the present folder if that is on the way. It would be simpler to keep
  // each level open, but a deep tree would use up the descriptors.
  void go_to(const string& folder) {
    const bool is_on_the_way = is_below(folder, folder_path_);
    if (!is_on_the_way) folder_path_.clear();
    while (folder_path_.size() < folder.size()) {
      const size_t name = folder_path_.size();
      const size_t end = folder.find('/', name);
      folder_ = open_here(folder.substr(name, end - name), O_DIRECTORY);
      folder_path_.append(folder, name, end + 1 - name);
    }
  }

  // What has that name in the present folder. O_NONBLOCK: it may be a FIFO by now, and block us.
  Descriptor open_here(const string& name, int flags) const {
    const int folder = present_folder();
    const int all_flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | flags;
    Descriptor found(::openat(folder, name.c_str(), all_flags));
    if (found.get() != -1) return found;
    const string why = error_text(errno);
    struct stat info{};  // systems do not agree which error means "it is a link"
    const bool is_there =
        ::fstatat(folder, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0;
    const bool is_link = is_there && S_ISLNK(info.st_mode);
    throw FileError{is_link ? "became a link" : why};
  }

  int present_folder() const {
    if (folder_path_.empty()) return root_.get();
    return folder_.get();
  }

  vector<Listed> entries_;
  size_t next_ = 0;
  string trouble_;       // why the present entry could not be listed
  Descriptor file_;      // the present entry, if it is a file
  string folder_path_;   // of the present folder; empty: it is the root
  Descriptor folder_;
  string lost_;          // the last subfolder that could not be opened
};

std::unique_ptr<Source> source_of(Descriptor root, const string& name,
                                  const Flag& cancelled) {
  if (name.back() == '/')
    return std::make_unique<Folder>(std::move(root), name, cancelled);
  return std::make_unique<Source>(std::move(root), name, cancelled);
}

void Source::expect_end() const {
  if (fd_ == -1) return;
  char more;
  const bool has_more = ::read(fd_, &more, 1) == 1;
  if (has_more) throw FileError{wrong_size("longer")};
  // Otherwise we might send half of one version and half of the next, if both have one length.
  if (last_written(fd_) != written_) throw FileError{"was changed while it was sent"};
}

// For a file that is "longer" or "shorter" than offered. Files in /proc and /sys always are.
string Source::wrong_size(const string& how) const {
  const auto size = static_cast<uint64_t>(file_status(fd_).st_size);
  if (size == size_) return "is " + how + " than its size says";
  return "became " + how + " while it was sent";
}

void Upload::miss(const string& why) {
  source_->missed.add(source_->entry.path, why);
  --source_->at.entries;
  put_line("MISSING :" + why);
}

// ---- Receiving a folder [6.5] -----------------------------------------------------------

void Download::take_entry(const Line& line) {
  const auto entry = Entry::parse(line);
  if (entry) {
    if (!offer_.is_folder() || at_.entries == offer_.files)
      throw Refusal("syntax more entries than were offered");
    if (!is_safe_path(entry->path) || entry->path <= at_.path)
      throw Refusal("syntax this path is not allowed, or out of order");
    incoming_->enter(*entry);
    at_.enter(entry->path);
  } else if (line.verb == "MISSING" && incoming_->is_within()) {
    incoming_->drop(string(line.text.value_or("no reason was given")));
  } else {
    throw Refusal("syntax FILE, DATA, MISSING or END was expected, each in its place");
  }
}

bool Incoming::is_within() const {
  return !inside_.empty();
}

// We read the bytes of a file that we leave out, and drop them; a folder has none.
bool Incoming::takes_bytes() const {
  const bool is_ignored = is_left_out_ && inside_.back() != '/';
  return !offer_.is_folder() || file_.get() != -1 || is_ignored;
}

string Incoming::entry_path() const {
  return path_ + "/" + inside_;
}

// Whether the disk rejects this path, but would take others. EINVAL, EILSEQ: FAT has no ":", and
// some disks take only UTF-8.
bool is_about_the_path(int error) {
  for (const int one : {ENAMETOOLONG, ELOOP, EEXIST, EINVAL, EILSEQ})
    if (error == one) return true;
  return false;
}

// Makes a file, which is then open, or a folder if the path ends in a slash. Returns 0, or an
// errno: EEXIST if there is one already. O_EXCL: on a disk that treats "A" and "a" as the same
// name, the second would replace the first.
int make_new(const string& path, mode_t mode, Descriptor& file) {
  if (path.back() == '/') {
    const int result = ::mkdir(path.c_str(), 0777);
    return result == -1 ? errno : 0;
  }
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL, mode);
  if (fd == -1) return errno;
  file = Descriptor(fd);
  return 0;
}

// If an entry cannot be stored because of its path, we leave it out, with everything in it. The
// others still arrive.
void Incoming::enter(const Entry& entry) {
  inside_ = entry.path;
  file_ = Descriptor();
  is_left_out_ = false;
  if (is_below(inside_, lost_)) {
    leave_out("its folder could not be stored");
    return;
  }
  const mode_t mode = entry.executable ? 0777 : 0666;
  const int error = make_new(entry_path(), mode, file_);
  if (error == 0) return;
  if (!is_about_the_path(error))
    throw std::system_error(error, std::generic_category(), what());
  leave_out(error_text(error));
}

// The contents of a subfolder come next, in the order of paths.
void Incoming::leave_out(const string& why) {
  is_left_out_ = true;
  left_out.add(inside_, why);
  if (inside_.back() == '/') lost_ = inside_;
}

void Incoming::drop(const string& why) {
  missed.add(inside_, why);
  file_ = Descriptor();
  std::error_code error;
  if (is_left_out_) left_out.take_back();  // its path belongs to another entry
  else fs::remove(entry_path(), error);
  is_left_out_ = false;
  inside_.clear();
}

// Removes everything in `folder` except its subfolders. Returns the path of one of those, or
// nothing if there is none.
string remove_files(const string& folder, const Flag& stopped) {
  std::error_code error;
  const fs::directory_iterator end;
  fs::directory_iterator entry(folder, error);
  while (!error && !stopped && entry != end) {
    const string path = entry->path().string();
    const fs::file_type kind = entry->symlink_status(error).type();
    if (kind == fs::file_type::directory) return path;
    ::unlink(path.c_str());
    entry.increment(error);
  }
  return "";
}

// Removes everything in `root`, until `stopped`. It does not recurse: the sender decides how deep
// the folder is, and a thread's stack is small. What cannot be removed stays, with the folders
// around it.
void empty_folder(const string& root, const Flag& stopped) {
  string folder = root;
  while (!stopped) {
    const string subfolder = remove_files(folder, stopped);
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

void Incoming::empty(const Flag& cancelled) const {
  empty_folder(path_, cancelled);
  stop_if(cancelled);
  if (fs::is_empty(path_)) return;
  throw std::runtime_error(what() + ": " + path_ + " is in the way; remove it");
}

// ---- The .part, and its lock ------------------------------------------------------------

string Incoming::part_path(const string& name, unsigned n, uint32_t from) {
  const string suffix = "." + Address{from, 0}.ip_text() + ".part";
  return download_folder + "/" + numbered_name(name, n, suffix);
}

// A stranger can make bytes with any checksum. Under such a name, we would take them for the
// beginning of what somebody else sends next.
bool Incoming::is_part_name(const string& name) {
  return ::fnmatch("*.[0-9]*.[0-9]*.[0-9]*.[0-9]*.part", name.c_str(), FNM_CASEFOLD) == 0;
}

Incoming::Incoming(const Offer& offer, const string& name, uint32_t from)
    : offer_(offer), name_(name) {
  // In case it has gone missing. If that fails, open() says why.
  ::mkdir(download_folder.c_str(), 0777);
  unsigned n = 0;
  while (path_.empty()) {
    take(part_path(name, n, from));
    ++n;
  }
}

Incoming::~Incoming() {
  if (!is_ours(path_)) return;  // published: another transfer may have the name by now
  if (offer_.is_folder()) {
    empty_folder(path_, is_closing);
    ::rmdir(path_.c_str());
  } else if (!is_kept()) {
    ::unlink(path_.c_str());
  }
}

bool Incoming::is_kept() const {
  if (offer_.is_folder() || !is_ours(path_)) return false;
  return file_status(root_.get()).st_size > 0;
}

// Sets path_, unless something else has that name, perhaps another transfer, of this peer or of
// another one with the same download folder.
void Incoming::take(const string& path) {
  if (!open_part(path)) return;
  // The lock belongs to the descriptor, so it goes when its owner ends, even if killed. On a disk
  // without locks, the checksum would reveal two writers.
  const int result = ::flock(root_.get(), LOCK_EX | LOCK_NB);
  const bool is_taken = result == -1 && errno == EWOULDBLOCK;
  // Its owner may have finished between our open() and flock(): then we hold a finished file.
  if (is_taken || !is_ours(path)) return;
  if (offer_.is_folder() || file_status(root_.get()).st_nlink == 1) {
    path_ = path;
    return;
  }
  // If a peer was killed in publish(), just after link(), this is a second name of a finished file.
  // Writing to it would change that file.
  check(::unlink(path.c_str()), what());
  take(path);
}

// False if something else is there: a link, which O_NOFOLLOW refuses, or a folder instead of a
// file.
bool Incoming::open_part(const string& path) {
  if (offer_.is_folder()) {
    const int result = ::mkdir(path.c_str(), 0777);
    const bool is_there = result == -1 && errno == EEXIST;
    if (!is_there) check(result, what());
  }
  const int flags = offer_.is_folder() ? O_RDONLY | O_DIRECTORY : O_RDWR | O_CREAT | O_APPEND;
  const int fd = ::open(path.c_str(), flags | O_NOFOLLOW | O_NONBLOCK, 0666);
  const int error = errno;  // closing an earlier one may change it
  root_ = Descriptor(fd);
  struct stat named{};
  const bool has_name = ::lstat(path.c_str(), &named) == 0;
  const mode_t kind = offer_.is_folder() ? S_IFDIR : S_IFREG;
  if (has_name && (named.st_mode & S_IFMT) != kind)
    return false;
  if (fd == -1)
    throw std::system_error(error, std::generic_category(), what());
  return true;
}

// Whether `path` still names what we hold: somebody may have given the name to another file.
bool Incoming::is_ours(const string& path) const {
  const struct stat held = file_status(root_.get());
  struct stat named{};
  const bool is_there = ::lstat(path.c_str(), &named) == 0;
  return is_there && named.st_dev == held.st_dev && named.st_ino == held.st_ino;
}

// ---- Publishing -------------------------------------------------------------------------

// Whoever may read it may then run it, as after open() with 0777. On a disk without such
// permissions this fails, and the file is there all the same.
void Incoming::make_executable() const {
  const mode_t mode = file_status(root_.get()).st_mode;
  const mode_t may_run = (mode & 0444) >> 2;
  ::fchmod(root_.get(), mode | may_run);
}

string Incoming::publish(const Flag& cancelled) {
  if (offer_.executable) make_executable();
  // fsync() brings one file to the disk. For ten thousand files that would be ten thousand waits.
  // sync(), for everything that any program has written, is one.
  if (offer_.is_folder()) ::sync();
  else check(::fsync(root_.get()), what());
  stop_if(cancelled);
  const int fd = ::open(download_folder.c_str(), O_RDONLY | O_DIRECTORY);
  const Descriptor folder(check(fd, what()));
  if (!is_ours(path_))
    throw std::runtime_error(what() + ": its .part file is gone");
  string final_name = name_;
  int error = give_name(download_folder + "/" + final_name);
  for (unsigned n = 1; error == EEXIST; ++n) {
    final_name = numbered_name(name_, n);
    error = give_name(download_folder + "/" + final_name);
  }
  if (error != 0)
    throw std::system_error(error, std::generic_category(), "cannot store " + final_name);
  // The name is in the folder, which must get to the disk, too. Not all file systems can do that,
  // and the file is there in any case.
  ::fsync(folder.get());
  return final_name;
}

// Returns 0, or an errno: EEXIST if the name is taken. rename() alone would replace that. So a file
// gets its name by link(); if we need rename(), it replaces a placeholder that we made here,
// exclusively.
int Incoming::give_name(const string& final_path) const {
  if (!offer_.is_folder()) {
    const int result = ::link(path_.c_str(), final_path.c_str());
    const int error = result == -1 ? errno : 0;
    if (error == 0) ::unlink(path_.c_str());
    if (error == 0 || error == EEXIST) return error;
    // FAT, exFAT, some shares and FUSE have no links, and say so by EPERM, ENOTSUP, ENOSYS... If
    // more is wrong than links, it will show below as well.
  }
  const string ending = offer_.is_folder() ? "/" : "";
  Descriptor placeholder;
  const int trouble = make_new(final_path + ending, 0666, placeholder);
  if (trouble != 0) return trouble;
  placeholder = Descriptor();  // closed: some disks do not replace a file that is open
  const int result = ::rename(path_.c_str(), final_path.c_str());
  const int error = result == -1 ? errno : 0;
  if (error != 0) ::remove(final_path.c_str());  // the placeholder
  return error;
}

// ---- /diag ------------------------------------------------------------------------------

struct Diagnosis : Caller {
  using Caller::Caller;

  void work() override { call(); }
  void conclude(const string& failure) override {
    const string connected = "connected to " + target.address.text();
    const string result = failure.empty() ? connected : failure;
    if (!cancelled_) events.push(Told{"diag: TCP: " + result});
  }
};

}  // namespace

void transfer::diagnose(const Identity& to) {
  check_route(to);
  start_worker(new Diagnosis(to));
}

// ---- Messages that come twice [5.3] ------------------------------------------------------

namespace {

// Someone who has written to us, and the highest numbers of his messages.
struct Writer {
  string id;
  Address address;
  std::set<uint64_t> numbers;

  bool is(const Identity& who) const {
    return id == who.id && address == who.address;
  }
};

std::list<Writer> writers;  // the most recent writer is last

// The address counts as well as the id: otherwise somebody could use up another's numbers by
// claiming the id. If a sender's address changes between two tries, its message may be shown twice
// [5.3].
Writer& writer_called(const Identity& who) {
  constexpr size_t kMaxWriters = 3072;
  auto one = writers.begin();
  while (one != writers.end() && !one->is(who))
    ++one;
  if (one == writers.end()) {
    writers.push_back({who.id, who.address, {}});
    if (writers.size() > kMaxWriters) writers.pop_front();
  } else {
    writers.splice(writers.end(), writers, one);  // moves it to the end
  }
  return writers.back();
}

}  // namespace

// A message that is tried again on a new connection may have arrived over the old one.
bool transfer::remember_message(const Identity& from, uint64_t number) {
  constexpr size_t kRemembered = 32;
  std::set<uint64_t>& numbers = writer_called(from).numbers;
  // Numbers grow. A number below all that we remember is an old one that comes late: we showed the
  // message from its second try, and have since forgotten the number.
  const bool is_late = numbers.size() == kRemembered && number < *numbers.begin();
  const bool is_known = numbers.count(number) > 0;
  if (is_late || is_known) return false;
  numbers.insert(number);
  if (numbers.size() > kRemembered)
    numbers.erase(numbers.begin());
  return true;
}

// ---- Progress ---------------------------------------------------------------------------

uint64_t transfer::bytes_done(uint64_t ticket) {
  for (const auto& worker : workers)
    if (worker->ticket == ticket)
      return worker->bytes_done;
  return 0;
}

bool transfer::is_sending() {
  const auto sends = [](const auto& worker) { return worker->is_sending(); };
  return std::any_of(workers.begin(), workers.end(), sends);
}
