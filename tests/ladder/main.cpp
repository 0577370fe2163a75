// Draws what several peers traced as one ladder: make trace, and the picture in
// docs/first-contact.md. tests/first-contact.sh calls it.
//
//   .build/ladder ann=FILE bob=FILE                   as text, 80 columns wide
//   .build/ladder --svg ann=FILE bob=FILE             as an SVG
//   --title=TEXT                                      the title of the SVG
//
// A line of a trace (docs/interface.md, 5):
//
//   14:03:07.123456 UDP 10.77.0.1:25253 -> 10.77.0.2:25253  ChatByP2P/1 HELLO id=...
//
// What one peer sent and another received is one arrow, drawn where it was sent: both ends and the
// text are the same in both traces. What nobody received is an arrow that is lost. A peer's own
// broadcasts come back to it; these lines are left out.

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <set>
#include <sstream>

#include "support/ladder.h"

namespace {

struct Line {
  std::string peer;       // whose trace it is
  double seconds = 0;     // since midnight
  std::string protocol;   // UDP, TCP
  std::string ours;       // IP:PORT
  std::string direction;  // ->, <-, --
  std::string other;
  std::string what;
  std::set<std::string> reached;  // of one that was sent: the peers who received it
  bool is_matched = false;        // of one that was received: who sent it is known
};

std::string ip_of(const std::string& address) { return address.substr(0, address.find(':')); }
std::string port_of(const std::string& address) { return address.substr(address.find(':') + 1); }

double seconds_of(const std::string& time) {
  if (time.size() < 8) return 0;
  const double hours = std::atof(time.substr(0, 2).c_str());
  const double minutes = std::atof(time.substr(3, 2).c_str());
  const double seconds = std::atof(time.substr(6).c_str());
  return hours * 3600 + minutes * 60 + seconds;
}

Line parse(const std::string& peer, const std::string& text) {
  std::istringstream words(text);
  std::string time;
  Line line;
  line.peer = peer;
  words >> time >> line.protocol >> line.ours >> line.direction >> line.other;
  line.seconds = seconds_of(time);
  std::getline(words >> std::ws, line.what);
  return line;
}

// Whether `received` may be `sent`, at its other end.
bool are_one(const Line& sent, const Line& received) {
  if (sent.direction != "->" || received.direction != "<-") return false;
  if (sent.protocol != received.protocol || sent.what != received.what) return false;
  if (sent.seconds > received.seconds) return false;
  const bool is_from_there = sent.ours == received.other;
  const bool is_to_here = port_of(sent.other) == port_of(received.ours);
  return is_from_there && is_to_here;
}

class Traces {
 public:
  // False where the file cannot be read.
  bool read(const std::string& peer, const std::string& file) {
    std::ifstream in(file);
    if (!in) return false;
    std::string text;
    while (std::getline(in, text)) {
      const Line line = parse(peer, text);
      lines_.push_back(line);
      if (line.direction == "->") ips_.emplace(peer, ip_of(line.ours));
    }
    peers_.push_back(peer);
    return true;
  }

  Ladder draw() {
    const auto by_time = [](const Line& a, const Line& b) { return a.seconds < b.seconds; };
    std::stable_sort(lines_.begin(), lines_.end(), by_time);
    for (Line& line : lines_)
      if (line.direction == "<-") match(line);
    for (const std::string& peer : peers_) ladder_.add_column(peer, ips_[peer]);
    for (const Line& line : lines_) draw(line);
    return ladder_;
  }

 private:
  // With the last one before it: an earlier one of the same text may have been lost.
  void match(Line& received) {
    for (auto sent = lines_.rbegin(); sent != lines_.rend(); ++sent) {
      if (!are_one(*sent, received)) continue;
      if (sent->reached.count(received.peer) > 0) continue;
      sent->reached.insert(received.peer);
      received.is_matched = true;
      return;
    }
  }

  void draw(const Line& line) {
    const double time = line.seconds - lines_.front().seconds;
    if (line.direction == "->") {
      draw_sent(time, line);
    } else if (line.direction == "--") {
      ladder_.note(time, line.peer, ends_of(line, " -- ") + "  " + line.what);
    } else if (!line.is_matched) {
      ladder_.note(time, line.peer, ends_of(line, " <- ") + "  " + line.what);
    }
  }

  void draw_sent(double time, const Line& line) {
    const std::string text = ends_of(line, " > ") + "  " + shortened(line.what);
    const std::string target = peer_at(ip_of(line.other));
    if (target == line.peer) return ladder_.message(time, line.peer, line.peer, text);
    bool is_lost = true;
    for (const std::string& peer : line.reached) {
      if (peer == line.peer) continue;
      ladder_.message(time, line.peer, peer, text);
      is_lost = false;
    }
    if (!is_lost) return;
    const std::string neighbour = line.peer == peers_.front() ? peers_.back() : peers_.front();
    ladder_.lost(time, line.peer, target.empty() ? neighbour : target, text);
  }

  // Of the other end the port is enough where the arrow shows whose it is.
  std::string ends_of(const Line& line, const std::string& arrow) const {
    const std::string ours = line.protocol + " " + port_of(line.ours);
    if (line.other == "*") return ours;
    const bool is_known = !peer_at(ip_of(line.other)).empty();
    return ours + arrow + (is_known ? port_of(line.other) : line.other);
  }

  std::string peer_at(const std::string& ip) const {
    for (const auto& [peer, its_ip] : ips_)
      if (its_ip == ip) return peer;
    return "";
  }

  // A long text is shown whole when it first comes.
  std::string shortened(const std::string& what) {
    constexpr size_t kLong = 60;
    constexpr size_t kKept = 34;  // up to the end of an id
    const bool is_new = shown_.insert(what).second;
    if (is_new || what.size() <= kLong) return what;
    return what.substr(0, what.find(' ', kKept)) + " ...";
  }

  std::vector<std::string> peers_;
  std::map<std::string, std::string> ips_;
  std::vector<Line> lines_;
  std::set<std::string> shown_;
  Ladder ladder_;
};

}  // namespace

int main(int argc, char** argv) {
  Traces traces;
  std::string title;
  bool is_svg = false;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    const std::string value = argument.substr(std::min(equals, argument.size() - 1) + 1);
    if (argument == "--svg") {
      is_svg = true;
    } else if (argument.rfind("--title=", 0) == 0) {
      title = value;
    } else if (equals == std::string::npos || !traces.read(argument.substr(0, equals), value)) {
      std::cerr << "ladder: " << argument << " is no NAME=FILE of a trace that can be read\n";
      return 2;
    }
  }
  const Ladder ladder = traces.draw();
  std::cout << (is_svg ? ladder.svg(title) : ladder.text());
}
