// transfer.cpp: everything that goes over TCP: conversations and files.
//
// Read protocol.h first, then discovery.cpp; peer.cpp is next. There is one thread per connection:
//
//   a conversation   we opened it, to send messages; kept while it is used      converse()
//   a file           we opened it, to send one file                             send_file()
//   an accepted one  someone else opened it, and we answer what it asks         serve()
//
// The main thread calls the functions of Transfer, at the end of this file. A connection's thread runs one of the three
// functions above and talks back by events only. A Session is what both know of the connection.
//
// Every wait has a bound: it is a select() with a deadline, or a wait for an order with one; and shutdown() of the socket
// by the main thread ends it at once. (close() would not: a recv() that waits goes on waiting, and meanwhile the number
// of the descriptor may be given to another connection.)
//
// Left out on purpose, for now: folders and resuming. The protocol has room for both [7.4].

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <atomic>
#include <stdexcept>
#include <thread>

#include "protocol.h"

using namespace std::chrono_literals;

namespace {

// ---- Timers and limits [2.2] --------------------------------------------------------

constexpr auto kConnectTime = 4s;
constexpr auto kSilence = 10s;         // in the middle of a line, a file, a reply
constexpr auto kIdle = 30s;            // a conversation unused for so long is closed by its opener
constexpr auto kForsaken = 60s;        // and, should the opener have vanished, by who accepted it
constexpr auto kOfferTime = 120s;      // to accept or reject a file
constexpr auto kStoreTime = 120s;      // to bring a large file to a slow disk
constexpr auto kLinger = 1s;           // for the other side to read our last words
constexpr size_t kMaxAccepted = 512;
constexpr size_t kMaxAcceptedFromOne = 128;
constexpr size_t kChunk = 256 * 1024;  // bytes of a file between two looks for an early reply

enum class Role { serve, converse, send_file };

// Thrown where a NO ends the connection, sent or received: a word for programs and a sentence for people.
struct Refusal {
  std::string text;
  std::string sentence() const { return text.substr(text.find(' ') + 1); }
};

enum : int { kReadable = 1, kWritable = 2 };

void set_nonblocking(int fd) { check(::fcntl(fd, F_SETFL, O_NONBLOCK), "fcntl O_NONBLOCK"); }

// ============================================================================
// A file on its way in
// ============================================================================

// It has a name that ends in .part until it is whole. The lock keeps other transfers off it, of this process or of
// another one that shares the folder; the size in the name, other files of the same name.
class PartFile {
 public:
  PartFile(const std::string& folder, const std::string& name, uint64_t size) : folder_(folder), name_(name) {
    ::mkdir(folder_.c_str(), 0777);  // should it have gone missing; if that fails, open() says why
    struct stat info{};
    for (int n = 0; info.st_nlink == 0; ++n) {
      const std::string ending = "." + std::to_string(size) + (n ? "." + std::to_string(n) : "") + ".part";
      path_ = folder_ + "/" + name_with_ending(name_, ending);
      // O_NOFOLLOW: a symbolic link that lies there under this name must not lead our bytes out of the folder.
      fd_ = Descriptor(check(::open(path_.c_str(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0666), what()));
      if (::flock(fd_.get(), LOCK_EX | LOCK_NB) == -1) continue;
      // No links left means: between our open() and flock() its owner has finished it and taken it away.
      check(::fstat(fd_.get(), &info), what());
      if (!S_ISREG(info.st_mode)) throw std::runtime_error(path_ + " is in the way");
    }
    check(::ftruncate(fd_.get(), 0), what());
  }
  ~PartFile() { ::unlink(path_.c_str()); }
  PartFile(const PartFile&) = delete;

  void write(std::string_view bytes) {
    while (!bytes.empty())
      bytes.remove_prefix(static_cast<size_t>(
          check(uninterrupted([&] { return ::write(fd_.get(), bytes.data(), bytes.size()); }), what())));
  }

  // Onto the disk, and then under the first name that is free. Not by rename(): it would replace a file of that name.
  std::string publish() {
    check(::fsync(fd_.get()), what());
    for (unsigned n = 0;; ++n) {
      const std::string final_name = numbered_name(name_, n);
      if (::link(path_.c_str(), (folder_ + "/" + final_name).c_str()) == 0) return final_name;
      if (errno != EEXIST) check(-1, "cannot store " + final_name);
    }
  }

 private:
  std::string what() const { return "cannot write to " + path_; }
  std::string folder_, name_, path_;
  Descriptor fd_;
};

}  // namespace

// ============================================================================
// A connection and its thread
// ============================================================================

struct Transfer::Order {
  uint64_t ticket = 0;                 // to a conversation: which message, 0 for a mere introduction,
  std::string line = {};               // the request to send,
  int attempts = 0;                    // and how often it was tried
  Accept consent = Accept::ask;        // to a receiver: what to do with the file,
  std::string store_as = {};           // and under which name, if not its own
};

struct Transfer::Session {
  // ---- What both threads know ----------------------------------------------------------

  // Set before the thread starts, only read from then on.
  Role role = Role::serve;
  uint64_t ticket = 0;
  Target target;                       // of serve: the address that the connection comes from
  Announcement self;
  Descriptor socket;                   // closed by the destructor, which runs after join()
  EventQueue* events = nullptr;
  Descriptor file;                     // of send_file
  Offer offer;                         // of send_file
  std::string folder;                  // of serve
  Accept accept = Accept::ask;         // of serve
  std::thread thread;

  std::atomic<bool> done{false};       // set by the thread as its last act: join() will not wait
  std::atomic<bool> cancelled{false};  // set by the main thread, which then calls shutdown()

  std::mutex mutex;                    // guards the next three
  std::condition_variable ordered;
  std::deque<Order> orders;            // of converse: the front one is under way until it is acknowledged
  bool closing = false;                // the thread takes no more orders

  // The thread's own. The main thread looks at the first two after join().
  std::string failure;                 // why it ended, if it failed
  Announcement peer;                   // who is at the other end, as it says itself
  LineBuffer lines;

  void order(Order order) {
    const std::lock_guard lock(mutex);
    orders.push_back(std::move(order));
    ordered.notify_one();
  }

  // With SHUT_RD the thread wakes up and still has a way to say why.
  void cancel(int how) {
    cancelled = true;
    ::shutdown(socket.get(), how);
    const std::lock_guard lock(mutex);
    ordered.notify_one();
  }

  Address peer_address() const { return role == Role::serve ? Address{target.address.ip, peer.port} : target.address; }

  void report(Event::Kind kind, uint64_t about, const std::string& text, uint64_t size = 0, uint32_t crc = 0) {
    events->push({kind, text, peer, peer_address(), about, size, crc});
  }

  void run() {
    try {
      if (role == Role::serve) serve();
      else if (role == Role::converse) converse();
      else send_file();
    } catch (const Refusal& refusal) {
      failure = refusal.sentence();
    } catch (const std::exception& error) {
      failure = error.what();
    }
    if (cancelled) failure = "cancelled";
    {
      const std::lock_guard lock(mutex);
      closing = true;
    }
    done = true;
    events->wake();
  }

  // ---- Asking: we opened the connection ----------------------------------------------------

  // The socket does not block: connect() returns at once, select() says when it has succeeded or failed, and which of
  // the two only SO_ERROR tells.
  void connect() {
    sockaddr_in raw = target.address.to_sockaddr();
    const std::string what = "cannot connect to " + target.address.text();
    if (::connect(socket.get(), generic(raw), sizeof raw) == 0) return;
    if (errno != EINPROGRESS) check(-1, what);
    if (!wait(kWritable, Clock::now() + kConnectTime)) throw std::runtime_error(what + ": no answer");
    int error = 0;
    socklen_t length = sizeof error;
    check(::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &length), "getsockopt SO_ERROR");
    errno = error;
    if (error != 0) check(-1, what);
  }

  // One request, one reply: the text after OK. A NO is thrown.
  std::string request(const std::string& line, Clock::duration patience) {
    send_all(line + "\n");
    std::string answer;
    if (!read_line(answer, patience)) throw std::runtime_error("the other side closed the connection");
    const auto reply = Reply::parse(answer);
    if (!reply) throw std::runtime_error("what came is not a reply: " + answer);
    if (!reply->ok) throw Refusal{reply->text};
    return reply->text;
  }

  // Says who we are. The reply says who they are: the peer we look for, or another one that has its address by now.
  void introduce() {
    Announcement hello = self;
    hello.ip = local_address(socket.get()).ip;
    const auto here = Announcement::parse(request(hello.format(), kSilence));
    if (!here || here->verb != Verb::here) throw std::runtime_error("what answers there is not a peer");
    if (!target.id.empty() && here->id != target.id)
      throw std::runtime_error("another user is at " + target.address.text() + " now");
    peer = *here;
    report(Event::Kind::introduced, 0, "");
  }

  void converse() {
    connect();
    introduce();
    std::unique_lock lock(mutex);
    for (;;) {
      ordered.wait_for(lock, kIdle, [this] { return !orders.empty() || cancelled; });
      // Decided under the lock: an order given from now on finds `closing` and opens a new conversation.
      closing = orders.empty() || cancelled;
      if (closing) return;
      Order& next = orders.front();  // stays there until acknowledged; a deque moves no element when others join it
      ++next.attempts;
      lock.unlock();                 // a lock held across I/O would make the main thread wait for the network
      if (next.ticket == 0) introduce();
      else deliver(next);
      lock.lock();
      orders.pop_front();
    }
  }

  void deliver(const Order& order) {
    try {
      request(order.line, kSilence);
      report(Event::Kind::delivered, order.ticket, "");
    } catch (const Refusal& refusal) {
      report(Event::Kind::undelivered, order.ticket, refusal.sentence());
    }
  }

  void send_file() {
    connect();
    introduce();
    try {
      request(offer.format(), kOfferTime + kSilence);
      report(Event::Kind::started, ticket, offer.name, offer.size);
      send_bytes();
    } catch (...) {
      if (cancelled) abandon("the sender cancelled it");
      throw;
    }
  }

  void send_bytes() {
    Cksum sum;
    std::string chunk;
    while (sum.size() < offer.size && !input_waits()) {  // an early reply is a refusal: request() will read it
      chunk.resize(static_cast<size_t>(std::min<uint64_t>(kChunk, offer.size - sum.size())));
      const ssize_t got = uninterrupted([&] { return ::read(file.get(), chunk.data(), chunk.size()); });
      if (got == -1) return abandon("the file cannot be read: " + std::generic_category().message(errno));
      if (got == 0) return abandon("the file became shorter while it was sent");
      chunk.resize(static_cast<size_t>(got));
      const std::string header = Data{sum.size(), chunk.size()}.format() + "\n";
      sum.add(chunk.data(), chunk.size());
      send_all(header + chunk);
    }
    char more;
    if (sum.size() == offer.size && ::read(file.get(), &more, 1) == 1)
      return abandon("the file grew while it was sent");
    const std::string stored = request(End{sum.size(), sum.value()}.format(), kStoreTime);
    report(Event::Kind::stored, ticket, stored.empty() ? offer.name : stored.substr(1), sum.size(), sum.value());
  }

  // Tells the receiver why there will be no more, between two chunks, where it expects a line.
  void abandon(const std::string& why) {
    send_all("STOP :" + why + "\n");
    linger();
    throw std::runtime_error(why);
  }

  // ---- Answering: the connection was opened to us --------------------------------------------

  void serve() {
    try {
      std::string line;
      while (read_line(line, peer.id.empty() ? kSilence : kForsaken)) {
        events->wait_for_room();
        send_all(answer(line).format() + "\n");
      }
    } catch (const Refusal& refusal) {
      send_all(Reply{false, refusal.text}.format() + "\n");
      linger();
    }
  }

  Reply answer(const std::string& line) {
    if (const auto hello = Announcement::parse(line); hello && hello->verb == Verb::hello) return greet(*hello);
    if (line.substr(0, 10) == kMagic.substr(0, 10)) return {false, "hello say HELLO of " + std::string(kMagic)};
    if (peer.id.empty()) return {false, "stranger introduce yourself with HELLO first"};
    const auto parsed = Line::parse(line);
    if (!parsed) return {false, "syntax a line is VERB key=value ... :text"};
    if (const auto offered = Offer::parse(*parsed)) return receive_file(*offered);
    if (const auto message = Message::parse(*parsed)) {
      events->push({Event::Kind::message, "", peer, peer_address(), 0, 0, 0, *message});
      return {true, ""};
    }
    const bool known = parsed->verb == "MSG" || parsed->verb == "OFFER";
    return {false, known ? "syntax a field is missing or wrong" : "unknown no such request"};
  }

  Reply greet(const Announcement& hello) {
    if (hello.id == self.id) return {false, "self you are talking to yourself"};
    peer = hello;
    report(Event::Kind::introduced, 0, "");
    Announcement here = self;
    here.verb = Verb::here;
    here.ip = local_address(socket.get()).ip;
    here.to = peer.id;
    return {true, here.format()};
  }

  // From the offer to the reply for its last byte. Whatever goes wrong is told to both users and ends the connection.
  Reply receive_file(const Offer& offered) {
    report(Event::Kind::offered, ticket, offered.name, offered.size);
    try {
      auto name = safe_file_name(offered.name);
      if (!name) throw Refusal{"name a file cannot be stored under that name"};
      if (offered.files != 1) throw Refusal{"files only one file at a time"};
      struct statvfs disk{};
      check(::statvfs(folder.c_str(), &disk), "cannot write to " + folder);
      const uint64_t room = uint64_t{disk.f_bavail} * disk.f_frsize;
      if (offered.size > room) throw Refusal{"space only " + std::to_string(room) + " bytes are free"};
      await_consent(*name);
      return receive_bytes(offered.size, *name);
    } catch (const Refusal& refusal) {
      report(Event::Kind::failed, ticket, refusal.sentence());
      throw;
    } catch (const std::exception& error) {
      const std::string why = cancelled ? "the receiver cancelled it" : error.what();
      report(Event::Kind::failed, ticket, why);
      throw Refusal{"failed " + why};
    }
  }

  void await_consent(std::string& name) {
    if (accept == Accept::always) return;
    if (accept == Accept::never) throw Refusal{"declined this user accepts no files"};
    const auto deadline = Clock::now() + kOfferTime;
    std::unique_lock lock(mutex);
    while (orders.empty()) {
      if (cancelled) throw std::runtime_error("cancelled");
      if (Clock::now() > deadline) throw Refusal{"timeout nobody answered the offer within 120 s"};
      // A thread can wait for a condition variable or for a socket, not for both: so it looks at the socket in turn.
      ordered.wait_for(lock, 200ms);
      if (orders.empty() && input_waits()) throw Refusal{"early wait for the answer; this came instead: " + read_part()};
    }
    const Order order = std::move(orders.front());
    orders.pop_front();
    if (order.consent == Accept::never) throw Refusal{"declined the user does not want it"};
    if (!order.store_as.empty()) name = order.store_as;
  }

  // The next line of a sender, who may have no more to say than STOP.
  std::string read_part() {
    std::string line;
    if (!read_line(line, kSilence)) throw std::runtime_error("the sender has gone");
    if (const auto parsed = Line::parse(line); parsed && parsed->verb == "STOP")
      throw std::runtime_error(std::string(parsed->text.value_or("the sender stopped")));
    return line;
  }

  Reply receive_bytes(uint64_t size, const std::string& name) {
    PartFile part(folder, name, size);
    send_all("OK\n");
    report(Event::Kind::started, ticket, name, size);
    Cksum sum;
    std::string bytes(kChunk, '\0');
    for (;;) {
      const std::string line = read_part();
      const auto parsed = Line::parse(line);
      if (const auto end = parsed ? End::parse(*parsed) : std::nullopt) {
        if (end->size != size || sum.size() != size || end->crc != sum.value())
          throw Refusal{"checksum the file did not arrive as it was sent"};
        const std::string stored = part.publish();
        report(Event::Kind::stored, ticket, folder + "/" + stored, size, sum.value());
        return {true, ":" + stored};
      }
      const auto data = parsed ? Data::parse(*parsed) : std::nullopt;
      if (!data || data->offset != sum.size() || data->size > size - sum.size())
        throw Refusal{"syntax DATA or END was expected, with no more bytes than were offered"};
      for (uint64_t left = data->size; left > 0;) {
        // The first bytes often came along with the line: those wait in the buffer, before the ones in the socket.
        const size_t most = static_cast<size_t>(std::min<uint64_t>(left, bytes.size()));
        const size_t early = lines.take(bytes.data(), most);
        const size_t got = early > 0 ? early : receive(bytes.data(), most, kSilence);
        if (got == 0) throw std::runtime_error("the connection ended in the middle of the file");
        sum.add(bytes.data(), got);
        part.write({bytes.data(), got});
        left -= got;
      }
    }
  }

  // ---- Bytes in and out, each wait with a bound ------------------------------------------------

  // Until the socket is ready for one of `flags`, or has an error, which the next call will tell. False at the deadline.
  bool wait(int flags, Clock::time_point deadline) const {
    for (;;) {
      const auto left = std::chrono::duration_cast<std::chrono::microseconds>(deadline - Clock::now()).count();
      if (left <= 0) return false;
      // select() overwrites its sets and, on Linux, its timeout: all are made anew each time.
      fd_set readable, writable;
      FD_ZERO(&readable);
      FD_ZERO(&writable);
      if (flags & kReadable) FD_SET(socket.get(), &readable);
      if (flags & kWritable) FD_SET(socket.get(), &writable);
      timeval timeout{left / 1000000, left % 1000000};
      const int ready = ::select(socket.get() + 1, &readable, &writable, nullptr, &timeout);
      if (ready > 0) return true;
      if (ready == -1 && errno != EINTR) check(-1, "select");
    }
  }

  // What has arrived, one byte at least; 0 at the end of the connection.
  size_t receive(char* into, size_t size, Clock::duration patience) const {
    const auto deadline = Clock::now() + patience;
    for (;;) {
      const ssize_t got = uninterrupted([&] { return ::recv(socket.get(), into, size, 0); });
      if (got >= 0) return static_cast<size_t>(got);
      if (errno != EAGAIN && errno != EWOULDBLOCK) check(-1, "connection lost");
      if (!wait(kReadable, deadline)) throw std::runtime_error("no answer in time");
    }
  }

  // The next line. False where the other side closed the connection between two lines, as it may. `patience` is for the
  // line to begin; once begun it has kSilence to end, however slowly its bytes trickle in.
  bool read_line(std::string& line, Clock::duration patience) {
    auto deadline = Clock::now() + (lines.empty() ? patience : kSilence);
    for (;;) {
      const auto status = lines.next_line(line);
      if (status == LineBuffer::Status::too_long) throw Refusal{"long a line has at most 4096 bytes"};
      if (status == LineBuffer::Status::line && !is_text(line)) throw Refusal{"text a line is UTF-8, no control characters"};
      if (status == LineBuffer::Status::line) return true;
      std::array<char, kMaxLine> bytes;
      const bool fresh = lines.empty();
      const size_t got = receive(bytes.data(), bytes.size(), deadline - Clock::now());
      if (got == 0 && fresh) return false;
      if (got == 0) throw std::runtime_error("the connection ended in the middle of a line");
      if (fresh) deadline = Clock::now() + kSilence;
      lines.append({bytes.data(), got});
    }
  }

  // All of it: send() may take only a part. A line is given to it in one call; in two, it would travel in two segments.
  // SIGPIPE is ignored by main(), so a peer that is gone shows as EPIPE here instead of ending the program.
  void send_all(std::string_view bytes) const {
    // Who sends a file listens as well: the receiver may refuse the rest and stop reading. Waiting only to write,
    // we would sit out the full time and miss its reason.
    const bool listens = role == Role::send_file;
    while (!bytes.empty()) {
      const ssize_t sent = uninterrupted([&] { return ::send(socket.get(), bytes.data(), bytes.size(), 0); });
      if (sent >= 0) {
        bytes.remove_prefix(static_cast<size_t>(sent));
        continue;
      }
      if (errno != EAGAIN && errno != EWOULDBLOCK) check(-1, "connection lost");
      if (!wait(listens ? kReadable | kWritable : kWritable, Clock::now() + kSilence))
        throw std::runtime_error("the other side stopped reading");
      if (listens && input_waits()) return;
    }
  }

  // Is there something that read_line() would take at once, the end of the connection included?
  bool input_waits() const {
    char byte;
    const ssize_t got = uninterrupted([&] { return ::recv(socket.get(), &byte, 1, MSG_PEEK); });
    return !lines.empty() || got >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
  }

  // A socket that is closed with unread data in it sends a reset, which may overtake the NO that we sent. So: say that
  // we have finished, and read what still comes until the other side has too, for a bounded time.
  void linger() const {
    const auto deadline = Clock::now() + kLinger;
    std::array<char, kMaxLine> bytes;
    ::shutdown(socket.get(), SHUT_WR);
    while (wait(kReadable, deadline) && ::recv(socket.get(), bytes.data(), bytes.size(), 0) > 0) {}
  }
};

// ============================================================================
// The main thread's side
// ============================================================================



Transfer::Transfer(const Announcement& self, std::string folder, Accept accept, EventQueue& events,
                   std::function<bool(Address)> may_talk_to)
    : self_(self), folder_(std::move(folder)), accept_(accept), events_(events), may_talk_to_(std::move(may_talk_to)),
      listener_(check(::socket(AF_INET, SOCK_STREAM, 0), "socket")) {
  const int on = 1;
  // Without SO_REUSEADDR the port of a peer that ended stays taken while its old connections are in TIME_WAIT.
  check(::setsockopt(listener_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), "setsockopt SO_REUSEADDR");
  sockaddr_in raw = Address{INADDR_ANY, self.port}.to_sockaddr();
  check(::bind(listener_.get(), generic(raw), sizeof raw), "bind TCP port " + std::to_string(self.port));
  // With SO_REUSEADDR two may bind one port as long as neither listens: here at the latest the second one fails.
  check(::listen(listener_.get(), SOMAXCONN), "listen on TCP port " + std::to_string(self.port));
  // A client that gives up between select() and accept() would leave a blocking accept() waiting for the next one.
  set_nonblocking(listener_.get());
}

Transfer::~Transfer() { stop(); }

void Transfer::accept_connection() {
  sockaddr_in raw{};
  socklen_t length = sizeof raw;
  Descriptor fd(uninterrupted([&] { return ::accept(listener_.get(), generic(raw), &length); }));
  // Out of descriptors, the connection stays in the queue and the listener readable: select() would spin. So look away
  // for a moment. Any other failure is that of one connection, gone before we got to it.
  if (fd.get() == -1 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM))
    accept_after_ = Clock::now() + 200ms;
  const Address from = Address::from_sockaddr(raw);
  if (fd.get() == -1 || !may_talk_to_(from)) return;
  size_t accepted = 0, from_one = 0;
  for (const auto& s : sessions_) {
    accepted += s->role == Role::serve;
    from_one += s->role == Role::serve && s->target.address.ip == from.ip;
  }
  // A descriptor past FD_SETSIZE must never reach FD_SET(), which would write outside its array without a word.
  if (accepted >= kMaxAccepted || from_one >= kMaxAcceptedFromOne || fd.get() >= FD_SETSIZE) {
    constexpr std::string_view kBusy = "NO busy too many connections, try again later\n";
    ::send(fd.get(), kBusy.data(), kBusy.size(), MSG_DONTWAIT);
    return;
  }
  auto session = std::make_unique<Session>();
  session->socket = std::move(fd);
  session->target.address = from;
  session->folder = folder_;
  session->accept = accept_;
  try {
    start(std::move(session));
  } catch (const std::system_error&) {  // no more threads to be had
    accept_after_ = Clock::now() + 200ms;
  }
}

// A session for a connection that start() will open.
std::unique_ptr<Transfer::Session> Transfer::opened(const Target& to) const {
  if (!may_talk_to_(to.address)) throw std::runtime_error("no usable route leads to " + to.address.text());
  auto session = std::make_unique<Session>();
  session->target = to;
  session->peer.name = to.name;
  session->socket = Descriptor(check(::socket(AF_INET, SOCK_STREAM, 0), "socket"));
  if (session->socket.get() >= FD_SETSIZE) throw std::runtime_error("too many connections are open");
  return session;
}

// Gives a session what all have in common, and its thread.
uint64_t Transfer::start(std::unique_ptr<Session> session) {
  Session& s = *session;
  const int on = 1;
  s.ticket = next_session_++;
  s.self = self_;
  s.events = &events_;
  set_nonblocking(s.socket.get());  // all I/O is "try, and if there is nothing, wait": select() may promise too much
  // Nagle's algorithm holds a small segment back until the one before is acknowledged, and the other side delays its
  // acknowledgement: 44 ms for a reply instead of 0.06.
  check(::setsockopt(s.socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), "setsockopt TCP_NODELAY");
  s.thread = std::thread([&s] { s.run(); });
  sessions_.push_back(std::move(session));
  return s.ticket;
}

void Transfer::introduce_as(const std::string& name, const std::string& group) {
  self_.name = name;
  self_.group = group;
}

void Transfer::send_message(uint64_t ticket, const Target& to, Scope scope, const std::string& text) {
  give(to, {ticket, Message{next_number_++, scope, text}.format()});
}

void Transfer::knock(const Target& to) try {
  give(to, {});
} catch (const std::exception&) {
  // Not to be reached over TCP either. Discovery will see that nothing came of it.
}

// To the conversation with `to` that is open, or to a new one.
void Transfer::give(const Target& to, Order order) {
  for (const auto& s : sessions_) {
    if (s->role != Role::converse || s->target.address != to.address || s->target.id != to.id) continue;
    const std::lock_guard lock(s->mutex);
    if (s->closing) continue;
    s->orders.push_back(std::move(order));
    return s->ordered.notify_one();
  }
  auto session = opened(to);
  session->role = Role::converse;
  if (order.ticket != 0) session->orders.push_back(std::move(order));  // its introduction comes by itself
  start(std::move(session));
}

Event Transfer::send_file(const Target& to, const std::string& path) {
  auto session = opened(to);
  session->role = Role::send_file;
  // O_NONBLOCK: to open a FIFO would wait until somebody writes to it.
  session->file = Descriptor(check(::open(path.c_str(), O_RDONLY | O_NONBLOCK), "cannot read " + path));
  struct stat info{};
  check(::fstat(session->file.get(), &info), "cannot read " + path);
  if (!S_ISREG(info.st_mode)) throw std::runtime_error(path + " is not a file; only files can be sent");
  const auto name = safe_file_name(path);
  if (!name) throw std::runtime_error("the name of " + path + " cannot be sent; give the file a plain name");
  session->offer = {static_cast<uint64_t>(info.st_size), 1, *name};
  const Offer offer = session->offer;
  return {Event::Kind::offered, offer.name, {}, to.address, start(std::move(session)), offer.size};
}

Transfer::Session* Transfer::session(uint64_t ticket) {
  const auto found = std::find_if(sessions_.begin(), sessions_.end(), [&](auto& s) { return s->ticket == ticket; });
  return found == sessions_.end() ? nullptr : found->get();
}

void Transfer::answer(uint64_t ticket, Accept consent, const std::string& store_as) {
  if (Session* s = session(ticket)) s->order({0, "", 0, consent, store_as});
}

void Transfer::cancel(uint64_t ticket) {
  if (Session* s = session(ticket)) s->cancel(SHUT_RD);
}

bool Transfer::sending() const {
  return std::any_of(sessions_.begin(), sessions_.end(), [](const auto& s) {
    const std::lock_guard lock(s->mutex);
    return s->role == Role::send_file || (s->role == Role::converse && !s->orders.empty());
  });
}

// A message that is tried again on a new connection may have arrived over the old one. Numbers of one sender only grow;
// its IP address is part of the key, lest somebody use up another's numbers by claiming its id.
bool Transfer::is_repeat(const Event& event) {
  constexpr size_t kMaxSenders = 4096;
  const std::pair key(event.who.id, event.address.ip);
  if (last_number_.size() >= kMaxSenders && last_number_.count(key) == 0) last_number_.erase(last_number_.begin());
  uint64_t& last = last_number_[key];
  return event.message.number <= std::exchange(last, std::max(last, event.message.number));
}

void Transfer::reap() {
  for (size_t i = 0; i < sessions_.size();) {
    if (!sessions_[i]->done) {
      ++i;
      continue;
    }
    const std::unique_ptr<Session> ended = std::move(sessions_[i]);
    sessions_.erase(sessions_.begin() + static_cast<std::ptrdiff_t>(i));
    ended->thread.join();
    if (ended->role == Role::converse) finish_conversation(*ended);
    if (ended->role == Role::send_file && !ended->failure.empty())
      ended->report(Event::Kind::failed, ended->ticket, ended->failure);
  }
}

// What was not acknowledged is tried once more on a new connection, if the old one had worked: it may have gone stale
// unnoticed. A new one that fails is the truth; TCP itself has tried more than once. All that wait then share its fate.
void Transfer::finish_conversation(Session& ended) {
  bool again = !ended.peer.id.empty() && !ended.cancelled && !ended.orders.empty() && ended.orders.front().attempts < 2;
  for (const Order& order : ended.orders) {
    if (order.ticket == 0) continue;
    try {
      if (again) give(ended.target, order);
    } catch (const std::exception& error) {
      ended.failure = error.what();
      again = false;
    }
    if (!again) ended.report(Event::Kind::undelivered, order.ticket, ended.failure);
  }
}

void Transfer::stop() {
  events_.close();
  for (const auto& s : sessions_) s->cancel(SHUT_RDWR);
  while (!sessions_.empty()) {
    std::this_thread::sleep_for(1ms);
    reap();
  }
}

// ============================================================================
// The event queue
// ============================================================================

EventQueue::EventQueue() {
  int ends[2];
  check(::pipe(ends), "pipe");
  reader_ = Descriptor(ends[0]);
  writer_ = Descriptor(ends[1]);
  for (const int end : ends) set_nonblocking(end);
}

void EventQueue::push(Event event) {
  {
    const std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
  }
  wake();
}

// A full pipe refuses the byte, and that is as good: it is readable already. errno is put back, for a signal handler
// may run between a system call and the line that looks at its errno.
void EventQueue::wake() const {
  const int saved = errno;
  if (::write(writer_.get(), "", 1) == -1) errno = saved;
}

std::deque<Event> EventQueue::take_all() {
  std::array<char, 256> bytes;
  while (::read(reader_.get(), bytes.data(), bytes.size()) > 0) {}  // before the events: a later push wakes us again
  const std::lock_guard lock(mutex_);
  room_.notify_all();
  return std::exchange(events_, {});
}

void EventQueue::wait_for_room() {
  std::unique_lock lock(mutex_);
  room_.wait(lock, [this] { return events_.size() < kMaxEvents || closed_; });
}

void EventQueue::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  room_.notify_all();
}
