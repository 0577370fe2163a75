// The virtual classroom of tests/classroom.sh, for the tests that play it as its users do.

#ifndef CHATBYP2P_CLASSROOM_H
#define CHATBYP2P_CLASSROOM_H

#include <filesystem>
#include <map>

#include "testing.h"

// A run of the script with `hosts` hosts, in a network namespace of its own and with a folder of its own for temporary
// files. All its processes are known by having the name of that folder in their environment.
class Classroom {
 public:
  explicit Classroom(const std::string& hosts, const std::string& path = std::getenv("PATH"),
                     const std::vector<std::string>& command = {script_path()}) {
    std::vector<std::string> words = {"/usr/bin/env",           "HOSTS=" + hosts,           "PATH=" + path,
                                      "PEER=" + peer_program(), "TMPDIR=" + temporary(),    "TERM=xterm",
                                      "SHELL=/bin/sh",          "TMUX_TMPDIR=" + temporary()};
    words.insert(words.end(), command.begin(), command.end());
    script_ = std::make_unique<Process>(network_.descriptor(0), words, folder_.path());
  }

  static std::string script_path() { return std::filesystem::absolute("tests/classroom.sh"); }
  std::string temporary() const { return folder_.path(); }
  Process& script() { return *script_; }
  const Network& network() const { return network_; }

  // What the script says to type in order to get in, without what follows it.
  std::string entrance() {
    const std::string line = script_->wait_for("The class has begun; to see it: nsenter .* attach", 60);
    const size_t begin = line.find("nsenter");
    return begin == std::string::npos ? "false" : line.substr(begin, line.rfind(" attach") - begin);
  }

  size_t processes() const {
    size_t found = 0;
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored))
      found += read_file(entry.path() / "environ").find("TMPDIR=" + temporary()) != std::string::npos;
    return found;
  }

  // Without tmux: a terminal for each machine, and the last for the switch, opened as the script says.
  std::map<std::string, std::unique_ptr<Process>> enter() {
    std::map<std::string, std::unique_ptr<Process>> terminals;
    for (std::string name; name != "switch";) {
      const std::string line = script_->wait_for("  PEER=.* nsenter .* (host \\w+|switch)", 60);
      if (line.empty()) break;
      name = line.substr(line.rfind(' ') + 1);
      const std::vector<std::string> command{"/bin/sh", "-c", line};
      terminals[name] = std::make_unique<Process>(network_.descriptor(0), command, temporary());
    }
    return terminals;
  }

  // Within the time that the kernel takes to end some dozen processes.
  void expect_nothing_left() {
    EXPECT_TRUE(eventually(60, [&] { return processes() == 0; })) << processes() << " processes still run";
    EXPECT_EQ(folder_.names(), std::vector<std::string>());
    EXPECT_FALSE(std::filesystem::exists("/run/class"));
    EXPECT_FALSE(std::filesystem::exists("/run/netns/ann"));
  }

 private:
  const Folder folder_;
  const Network network_{0};
  std::unique_ptr<Process> script_;
};

// A folder for PATH, with what the script uses but for tmux; its path.
inline std::string fill_path(const Folder& folder) {
  for (const std::string name :
       {"sh", "env", "id", "ip", "unshare", "nsenter", "mount", "setpriv", "sleep", "mkdir", "seq"})
    for (const std::string place : {"/sbin/", "/usr/sbin/", "/bin/", "/usr/bin/"})
      if (std::filesystem::exists(place + name) && !std::filesystem::exists(folder.path(name)))
        std::filesystem::create_symlink(place + name, folder.path(name));
  return folder.path();
}

#endif
