// transfer.cpp: everything that goes over TCP: conversations and files.
//
// Read protocol.h first, then discovery.cpp; peer.cpp is next. There is one thread per connection:
//
//   a conversation   we opened it, to send messages; kept while it is used      converse()
//   a file           we opened it, to send one file                             send_file()
//   an accepted one  someone else opened it, and we answer what it asks         serve()
//
// In order of reading: Connection, bytes and lines with a bound to every wait; PartFile, a file on its way in; Session,
// what a connection's thread does, asking or answering; and at the end, what the main thread calls.
//
// A thread ends by itself: at the end of its dialogue, at an error, or soon after cancel(), for while it waits it looks
// at the flag every quarter of a second. At the end of the program, shutdown() of the socket wakes whoever still waits;
// close() would not: a recv() goes on waiting, and meanwhile another connection may be given the descriptor's number.
//
// Left out on purpose, for now: folders and resuming. The protocol has room for both [6.5].

#include <netinet/tcp.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <atomic>
#include <stdexcept>
#include <thread>

#include "protocol.h"

using namespace std::chrono_literals;

namespace {

// ---- Timers and limits [2.2], [2.3] ------------------------------------------------------

constexpr auto kConnectTime = 4s;
constexpr auto kSilence = 10s;         // in the middle of a line, a file, a reply
constexpr auto kIdle = 30s;            // a conversation unused for so long is closed by its opener
constexpr auto kForsaken = 60s;        // and, should the opener have vanished, by who accepted it
constexpr auto kOfferTime = 120s;      // to accept or reject a file, and to bring it to a slow disk
constexpr auto kSlice = 250ms;         // the poll interval: between two looks at `cancelled`
constexpr size_t kMaxAccepted = 512;
constexpr size_t kMaxAcceptedFromOne = 128;
constexpr int kMaxKnocks = 32;
constexpr size_t kChunk = 256 * 1024;  // bytes of a file in one DATA

const Reply kCancelled{false, "cancelled the other user has cancelled it"};

// ---- State: set before the first thread starts, or the main thread's own ------------------

bool (*can_reach)(uint32_t ip);
Descriptor listening_socket;
Clock::time_point accept_after;               // the listening socket is not looked at before
uint64_t next_number = 1, next_ticket = 1;    // of a message; of a session
std::map<std::pair<std::string, uint32_t>, std::deque<uint64_t>> numbers_seen;  // by the sender's id and IP address

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
  Connection(Descriptor fd, const std::atomic<bool>& cancelled) : socket_(std::move(fd)), cancelled_(cancelled) {
    // Nagle's algorithm holds a small segment back until the one before is acknowledged, and the other side delays
    // that acknowledgement: 44 ms for a reply instead of 0.06.
    const int on = 1;
    check(::setsockopt(socket_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), "setsockopt TCP_NODELAY");
    limit(SO_RCVTIMEO, kSlice);
    limit(SO_SNDTIMEO, kSlice);
  }

  void shut_down() const { ::shutdown(socket_.get(), SHUT_RDWR); }
  uint32_t local_ip() const { return local_address(socket_.get()).ip; }

  // Left to itself, the kernel tries for two minutes. On Linux SO_SNDTIMEO holds for connect() as well: socket(7).
  void connect(Address to) const {
    sockaddr_in raw = to.to_sockaddr();
    limit(SO_SNDTIMEO, kConnectTime);
    const int result = uninterrupted([&] { return ::connect(socket_.get(), generic(raw), sizeof raw); });
    if (result == -1 && (errno == EINPROGRESS || errno == EALREADY)) errno = ETIMEDOUT;
    check(result, "cannot connect to " + to.text());
    limit(SO_SNDTIMEO, kSlice);
  }

  // All of it: send() may take only a part. A line is given to it in one call; in two, it would travel in two segments.
  // SIGPIPE is ignored by main(), so a peer that is gone shows as EPIPE here instead of ending the program.
  void send(std::string_view bytes) const {
    for (auto deadline = Clock::now() + kSilence; !bytes.empty();) {
      const ssize_t sent = uninterrupted([&] { return ::send(socket_.get(), bytes.data(), bytes.size(), 0); });
      if (sent >= 0) {
        bytes.remove_prefix(static_cast<size_t>(sent));
        deadline = Clock::now() + kSilence;
        continue;
      }
      if (errno != EAGAIN && errno != EWOULDBLOCK) check(-1, "connection lost");
      if (cancelled_ || Clock::now() > deadline) throw std::runtime_error("the other side stopped reading");
    }
  }

  // Waits until something can be read. False where the other side has closed the connection.
  bool await(Clock::duration patience) const {
    char byte;
    return !buffer_.empty() || receive(&byte, 1, MSG_PEEK, Clock::now() + patience) > 0;
  }

  // Whether there is something to read at once; the end of the connection, and an error, are that, too.
  bool has_input() const {
    char byte;
    const ssize_t got = ::recv(socket_.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return !buffer_.empty() || got >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
  }

  // The next line. It has kSilence to end, however slowly its bytes trickle in.
  std::string read_line() {
    std::string line;
    std::array<char, kMaxLine> bytes;
    for (const auto deadline = Clock::now() + kSilence;;) {
      const LineStatus status = take_line(buffer_, line);
      if (status == LineStatus::too_long) throw Reply{false, "long a line has at most 4096 bytes"};
      if (status == LineStatus::whole && is_text(line)) return line;
      if (status == LineStatus::whole) throw Reply{false, "text a line is UTF-8 without control characters"};
      const size_t got = receive(bytes.data(), bytes.size(), 0, deadline);
      if (got == 0) throw std::runtime_error("the connection ended in the middle of a line");
      buffer_.append(bytes.data(), got);
    }
  }

  // Bytes as they are, at least one: those that came along with the last line, or else what the socket has.
  size_t read(char* into, size_t most) {
    size_t got = buffer_.copy(into, most);
    buffer_.erase(0, got);
    if (got == 0) got = receive(into, most, 0, Clock::now() + kSilence);
    if (got == 0) throw std::runtime_error("the connection ended in the middle of the file");
    return got;
  }

  // Our last line. A socket that is closed with unread data in it sends a reset, which may overtake what we sent last.
  // So: half-close it, that is, say that we have finished, and read on until the other side has, too.
  void finish(const std::string& line) const {
    send(line + "\n");
    ::shutdown(socket_.get(), SHUT_WR);
    std::array<char, kMaxLine> bytes;
    for (const auto deadline = Clock::now() + kSilence; receive(bytes.data(), bytes.size(), 0, deadline) > 0;) {}
  }

 private:
  void limit(int option, std::chrono::milliseconds time) const {
    const timeval limit{time.count() / 1000, time.count() % 1000 * 1000};
    check(::setsockopt(socket_.get(), SOL_SOCKET, option, &limit, sizeof limit), "setsockopt of a time limit");
  }

  // What has arrived, at least one byte; 0 at the end of the connection.
  size_t receive(char* into, size_t most, int flags, Clock::time_point deadline) const {
    while (Clock::now() < deadline) {
      const ssize_t got = uninterrupted([&] { return ::recv(socket_.get(), into, most, flags); });
      if (got >= 0) return static_cast<size_t>(got);
      if (errno != EAGAIN && errno != EWOULDBLOCK) check(-1, "connection lost");
      if (cancelled_) throw kCancelled;
    }
    throw std::runtime_error("no answer in time");
  }

  Descriptor socket_;
  const std::atomic<bool>& cancelled_;
  std::string buffer_;  // what was received, and not yet taken
};

// ============================================================================
// A file on its way in
// ============================================================================

// It has a name that ends in .part until it is whole. O_EXCL: a name that is taken is left alone, whatever has it, a
// symbolic link included, that would lead our bytes out of the folder.
class PartFile {
 public:
  explicit PartFile(const std::string& name) : name_(name) {
    ::mkdir(download_folder.c_str(), 0777);  // should it have gone missing; if that fails, open() says why
    for (unsigned n = 0; fd_.get() == -1; ++n) {
      path_ = download_folder + "/" + numbered_name(name_, n, ".part");
      fd_ = Descriptor(::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0666));
      if (fd_.get() == -1 && errno != EEXIST) check(-1, "cannot store " + name_);
    }
  }
  ~PartFile() { ::unlink(path_.c_str()); }
  PartFile(const PartFile&) = delete;

  void write(std::string_view bytes) {
    while (!bytes.empty())
      bytes.remove_prefix(static_cast<size_t>(check(
          uninterrupted([&] { return ::write(fd_.get(), bytes.data(), bytes.size()); }), "cannot store " + name_)));
  }

  // Onto the disk, and then under the first name that is free. Not by rename(): it would replace a file of that name.
  std::string publish() {
    check(::fsync(fd_.get()), "cannot store " + name_);
    for (unsigned n = 0;; ++n) {
      const std::string final_name = numbered_name(name_, n);
      if (::link(path_.c_str(), (download_folder + "/" + final_name).c_str()) == 0) return final_name;
      if (errno != EEXIST) check(-1, "cannot store " + final_name);
    }
  }

 private:
  const std::string name_;
  std::string path_;
  Descriptor fd_;
};

// ============================================================================
// A session: a connection and its thread
// ============================================================================

enum class Role { serve, converse, send_file, knock };  // knock: open the connection, introduce us, close it

// What the main thread gives to a conversation.
struct Order {
  uint64_t ticket;   // of the message
  std::string to;    // the id of the peer it is for; empty: whoever is there
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
  Descriptor file;                     // of send_file
  Offer offer;                         // of send_file
  std::thread thread;

  std::atomic<bool> cancelled{false};  // set by the main thread
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

  void report(Event::Kind kind, uint64_t about, const std::string& text = "", uint64_t size = 0, uint32_t crc = 0) {
    events.push({kind, peer, text, about, size, crc, {}});
  }

  void run() {
    std::string failure;
    try {
      if (role == Role::serve) serve();
      else if (role == Role::converse) converse();
      else if (role == Role::send_file) send_file();
      else open();
    } catch (const Reply& no) {
      failure = no.sentence();
    } catch (const std::exception& error) {
      failure = error.what();
    }
    if (cancelled) failure = "cancelled";
    if (role == Role::send_file && !failure.empty()) report(Event::Kind::failed, ticket, failure);
    const std::lock_guard lock(mutex);
    closing = true;
    for (; !orders.empty(); orders.pop_front()) report(Event::Kind::undelivered, orders.front().ticket, failure);
    done = true;
    events.wake();
  }

  // ---- Asking: we open the connection ------------------------------------------------------

  // One request, one reply.
  Reply request(const std::string& line, Clock::duration patience = kSilence) {
    connection->send(line + "\n");
    return read_reply(patience);
  }

  Reply read_reply(Clock::duration patience) {
    if (!connection->await(patience)) throw std::runtime_error("the other side closed the connection");
    const std::string answer = connection->read_line();
    const auto reply = Reply::parse(answer);
    if (!reply) throw std::runtime_error("what came is not a reply: " + answer);
    return *reply;
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
      connection.emplace(Descriptor(check(::socket(AF_INET, SOCK_STREAM, 0), "socket")), cancelled);
    }
    connection->connect(target.address);
    const auto here = Announcement::parse(demand(introduction(Verb::hello)));
    if (!here || here->verb != Verb::here) throw std::runtime_error("what answers there is not a peer");
    peer = here->who;
    peer.address = target.address;
    is_introduced = true;
    report(Event::Kind::introduced, 0);
  }

  std::string introduction(Verb verb, const std::string& to = "") const {
    Identity us = self;
    us.said_ip = connection->local_ip();
    return Announcement{verb, us, to}.format();
  }

  // The peer we look for, or another one that has its address by now.
  void expect(const std::string& id) const {
    if (!id.empty() && id != peer.id) throw Reply{false, "other another user is at " + target.address.text() + " now"};
  }

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
    for (int attempt = 1;; ++attempt) try {
        if (!is_introduced || connection->has_input()) open();  // what nobody asked for is the end of it
        expect(order.to);
        const Reply reply = request(order.line);
        return report(reply.ok ? Event::Kind::delivered : Event::Kind::undelivered, order.ticket, reply.sentence());
      } catch (const std::runtime_error& error) {
        const bool was_sent = attempt == 2 || is_introduced;
        if (!was_sent) throw;
        if (attempt == 2 || cancelled) throw std::runtime_error(std::string(error.what()) + "; it may have arrived");
        is_introduced = false;
      }
  }

  void send_file() {
    open();
    expect(target.id);
    try {
      demand(offer.format(), kOfferTime + kSilence);
      report(Event::Kind::started, ticket, offer.name, offer.size);
      send_bytes();
    } catch (const Reply& ours) {
      connection->finish("STOP :" + ours.sentence());
      throw;
    }
  }

  void send_bytes() {
    Cksum sum;
    std::string chunk;
    while (sum.size() < offer.size) {
      if (cancelled) throw kCancelled;
      if (connection->has_input()) throw std::runtime_error("refused: " + read_reply(kSilence).sentence());
      chunk.resize(static_cast<size_t>(std::min<uint64_t>(kChunk, offer.size - sum.size())));
      const ssize_t got = uninterrupted([&] { return ::read(file.get(), chunk.data(), chunk.size()); });
      if (got == -1) throw Reply{false, "read the file cannot be read: " + std::generic_category().message(errno)};
      if (got == 0) throw Reply{false, "shrunk the file became shorter while it was sent"};
      chunk.resize(static_cast<size_t>(got));
      const std::string header = Data{sum.size(), chunk.size()}.format() + "\n";
      sum.add(chunk.data(), chunk.size());
      connection->send(header + chunk);
    }
    char more;
    if (::read(file.get(), &more, 1) == 1) throw Reply{false, "grown the file grew while it was sent"};
    const std::string stored = demand(End{sum.size(), sum.value()}.format(), kOfferTime);
    const std::string name = stored.empty() ? offer.name : stored.substr(stored[0] == ':');
    report(Event::Kind::stored, ticket, name, sum.size(), sum.value());
  }

  // ---- Answering: the connection was opened to us --------------------------------------------

  void serve() {
    while (connection->await(peer.id.empty() ? kSilence : kForsaken)) try {
        while (!events.wait_for_room(kSlice) && !cancelled) {}
        connection->send(answer(connection->read_line()).format() + "\n");
      } catch (const Reply& no) {
        return refuse(no);
      } catch (const std::exception& error) {
        return refuse({false, std::string("failed ") + error.what()});
      }
  }

  // The last reply of a connection. It ends a transfer, too, if there was one.
  void refuse(const Reply& no) {
    report(Event::Kind::failed, ticket, cancelled ? "cancelled" : no.sentence());
    connection->finish(no.format());
  }

  Reply answer(const std::string& line) {
    if (const auto hello = Announcement::parse(line); hello && hello->verb == Verb::hello) return greet(hello->who);
    if (peer.id.empty()) return {false, "stranger introduce yourself first, with a HELLO of " + std::string(kMagic)};
    const auto parsed = Line::parse(line);
    if (!parsed) return {false, "syntax a line is VERB key=value ... :text"};
    if (const auto offered = Offer::parse(*parsed)) return receive_file(*offered);
    if (const auto message = Message::parse(*parsed)) {
      events.push({Event::Kind::message, peer, "", 0, 0, 0, *message});
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

  // From the offer to the reply for its last byte. What goes wrong is thrown; serve() tells both users.
  Reply receive_file(const Offer& offered) {
    {
      const std::lock_guard lock(mutex);
      consent = accept_policy;  // anew for each file, and before the user hears of it, lest the answer come first
    }
    report(Event::Kind::offered, ticket, offered.name, offered.size);
    const auto name = safe_file_name(offered.name);
    if (!name) throw Reply{false, "name a file cannot be stored under that name"};
    if (offered.files != 1) throw Reply{false, "files only one file at a time"};
    struct statvfs disk{};
    const bool is_known = ::statvfs(download_folder.c_str(), &disk) == 0;
    const uint64_t room = uint64_t{disk.f_bavail} * disk.f_frsize;
    if (is_known && offered.size > room) throw Reply{false, "space only " + to_string(room) + " bytes are free"};
    PartFile part(await_consent(*name));
    connection->send("OK\n");
    report(Event::Kind::started, ticket, offered.name, offered.size);
    const Cksum sum = receive_bytes(offered.size, part);
    const std::string stored = part.publish();
    report(Event::Kind::stored, ticket, download_folder + "/" + stored, sum.size(), sum.value());
    return {true, ":" + stored};
  }

  // The name under which the user wants it.
  std::string await_consent(const std::string& name) {
    if (accept_policy == Accept::never) throw Reply{false, "declined this user accepts no files"};
    const auto deadline = Clock::now() + kOfferTime;
    std::unique_lock lock(mutex);
    // A thread can wait for a condition variable or for a socket, not for both: so it looks at the socket in turn.
    while (!changed.wait_for(lock, kSlice, [this] { return consent != Accept::ask; })) {
      if (cancelled) throw kCancelled;
      if (Clock::now() > deadline) throw Reply{false, "timeout nobody answered the offer within 120 s"};
      if (!connection->has_input()) continue;
      lock.unlock();  // a lock held while the network is waited for would make the main thread wait, too
      read_part();    // a STOP, perhaps
      throw Reply{false, "early an offer has to be answered before anything else comes"};
    }
    if (consent == Accept::never) throw Reply{false, "declined the user does not want it"};
    return store_as.empty() ? name : store_as;
  }

  // The next line of a sender, who may have no more to say than STOP.
  std::string read_part() {
    if (!connection->await(kSilence)) throw std::runtime_error("the sender has gone");
    const std::string line = connection->read_line();
    const auto parsed = Line::parse(line);
    if (parsed && parsed->verb == "STOP")
      throw Reply{false, "stopped " + printable(parsed->text.value_or("by the sender").substr(0, 999))};
    return line;
  }

  Cksum receive_bytes(uint64_t size, PartFile& part) {
    Cksum sum;
    std::string bytes(kChunk, '\0');
    for (;;) {
      const std::string line = read_part();
      const auto parsed = Line::parse(line);
      const auto data = parsed ? Data::parse(*parsed) : std::nullopt;
      const auto end = parsed ? End::parse(*parsed) : std::nullopt;
      if (end && end->size == size && sum.size() == size && end->crc == sum.value()) return sum;
      if (end) throw Reply{false, "checksum the file did not arrive as it was sent"};
      if (!data || data->offset != sum.size() || data->size > size - sum.size())
        throw Reply{false, "syntax DATA or END was expected, with no more bytes than were offered"};
      for (uint64_t left = data->size; left > 0;) {
        if (cancelled) throw kCancelled;
        const size_t got = connection->read(bytes.data(), static_cast<size_t>(std::min<uint64_t>(left, bytes.size())));
        sum.add(bytes.data(), got);
        part.write({bytes.data(), got});
        left -= got;
      }
    }
  }
};

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
  check(::bind(fd, generic(raw), sizeof raw), "bind TCP port " + port);
  // With SO_REUSEADDR two may bind one port as long as neither listens: here at the latest the second one fails.
  check(::listen(fd, SOMAXCONN), "listen on TCP port " + port);
}

void transfer::watch(fd_set& readable) {
  if (Clock::now() >= accept_after) FD_SET(listening_socket.get(), &readable);
}

void transfer::accept_connection(const fd_set& readable) try {
  if (!FD_ISSET(listening_socket.get(), &readable)) return;
  sockaddr_in raw{};
  socklen_t length = sizeof raw;
  const int result = uninterrupted([&] { return ::accept(listening_socket.get(), generic(raw), &length); });
  Descriptor fd(check(result, "accept"));
  const Identity from{"", "", "", Address::from_sockaddr(raw), 0};
  if (!can_reach(from.address.ip)) return;
  size_t accepted = 0, from_one = 0;
  for (const auto& s : sessions) {
    accepted += s->role == Role::serve;
    from_one += s->role == Role::serve && s->target.address.ip == from.address.ip;
  }
  if (accepted >= kMaxAccepted || from_one >= kMaxAcceptedFromOne) {
    constexpr std::string_view kBusy = "NO busy too many connections, try again later\n";
    ::send(fd.get(), kBusy.data(), kBusy.size(), MSG_DONTWAIT);
    return;
  }
  auto session = std::make_unique<Session>(Role::serve, from);
  session->connection.emplace(std::move(fd), session->cancelled);
  start(std::move(session));
} catch (const std::system_error&) {
  // Out of descriptors: the connection stays in the queue and the listener readable, and select() would return at once,
  // again and again. So look away for a moment. Out of threads, the connection is closed.
  accept_after = Clock::now() + kSlice;
}

void transfer::send_message(const Identity& to, const std::string& scope, const std::string& text, uint64_t ticket) {
  give(to, {ticket, to.id, Message{next_number++, scope, text}.format()});
}

void transfer::knock(const Identity& to) try {
  // Whoever floods us with names of peers that do not answer shall not cost us a thread for each.
  const auto knocks = std::count_if(sessions.begin(), sessions.end(), [](auto& s) { return s->role == Role::knock; });
  if (knocks >= kMaxKnocks) return;
  start(session_to(to, Role::knock));
} catch (const std::exception&) {
  // Not to be reached over TCP either. Discovery will see that nothing came of it.
}

Event transfer::send_file(const Identity& to, const std::string& path) {
  auto session = session_to(to, Role::send_file);
  // O_NONBLOCK: to open a FIFO would wait until somebody writes to it.
  session->file = Descriptor(check(::open(path.c_str(), O_RDONLY | O_NONBLOCK), "cannot read " + path));
  struct stat info{};
  check(::fstat(session->file.get(), &info), "cannot read " + path);
  if (!S_ISREG(info.st_mode)) throw std::runtime_error(path + " is not a file; only files can be sent");
  const auto name = safe_file_name(path);
  if (!name) throw std::runtime_error("the name of " + path + " cannot be sent; give the file a plain name");
  session->offer = {static_cast<uint64_t>(info.st_size), 1, *name};
  const Offer offer = session->offer;
  return {Event::Kind::offered, to, offer.name, start(std::move(session)), offer.size};
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
  for (const auto& s : sessions)
    if (ticket == 0 || s->ticket == ticket) s->cancel();
}

bool transfer::is_sending() {
  return std::any_of(sessions.begin(), sessions.end(), [](const auto& s) {
    const std::lock_guard lock(s->mutex);
    return s->role == Role::send_file || !s->orders.empty();
  });
}

// A message that is tried again on a new connection may have arrived over the old one. The IP address is part of the
// key, lest somebody elsewhere use up another's numbers by claiming its id.
bool transfer::is_repeat(const Event& event) {
  constexpr size_t kMaxSenders = 4096, kRemembered = 32;
  const std::pair sender(event.who.id, event.who.address.ip);
  if (numbers_seen.size() >= kMaxSenders && numbers_seen.count(sender) == 0) numbers_seen.erase(numbers_seen.begin());
  std::deque<uint64_t>& seen = numbers_seen[sender];
  if (std::find(seen.begin(), seen.end(), event.message.number) != seen.end()) return true;
  seen.push_back(event.message.number);
  if (seen.size() > kRemembered) seen.pop_front();
  return false;
}

bool transfer::is_open() { return !sessions.empty(); }
void transfer::close() { sessions.clear(); }

void transfer::reap() {
  const auto ended = [](const auto& s) { return s->done.load(); };
  sessions.erase(std::remove_if(sessions.begin(), sessions.end(), ended), sessions.end());
}
