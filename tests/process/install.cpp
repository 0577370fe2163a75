// What `make install` puts beside the program: the manual page, the completion and the example unit say what the
// program does. tests/distcheck.sh tests that all of it is installed and removed again.

#include <regex>

#include "support/testing.h"

class Install : public OneHost {};

namespace {

using Texts = std::vector<std::string>;

// What the pattern's first group fits, line by line.
Texts found(const std::string& text, const std::string& pattern) {
  Texts all;
  for (const std::string& line : lines_of(text)) {
    std::smatch match;
    if (std::regex_match(line, match, std::regex(pattern))) all.push_back(match[1]);
  }
  return all;
}

std::string output_of(const std::string& command, const Network& network) {
  const Folder folder;
  network.run(0, "{ " + command + "; } >" + folder.path("output") + " 2>&1");
  return read_file(folder.path("output"));
}

}  // namespace

TEST_F(Install, TheManualPageListsTheOptionsAndCommandsThatThereAre) {
  NEEDS_PROGRAM("mandoc", "mandoc");
  const std::string page = output_of("mandoc -T ascii -O width=100 docs/install/chatbyp2p.1 | col -bx", *network);
  const std::string words = "(?: [A-Z\\[][^ ]*)*";
  const Texts options = found(output_of(peer_program() + " --help", *network), "  (-\\S+" + words + ")  .*");
  EXPECT_EQ(options.size(), 11u);
  EXPECT_EQ(found(page, "     (--?[a-z]\\S*" + words + ")(?:  .*)?"), options);
  Process& peer = network->peer(0, "x");
  peer.say("/help");
  peer.say("/quit");
  EXPECT_EQ(peer.exit_status(), 0);
  const Texts commands = found(peer.output(), "help: (/[a-z]+" + words + "): .*");
  EXPECT_EQ(commands.size(), 18u);
  EXPECT_EQ(found(page, "     (/[a-z]+" + words + ")(?:  .*)?"), commands);
}

TEST_F(Install, TheManualPageIsWellFormed) {
  NEEDS_PROGRAM("mandoc", "mandoc");
  EXPECT_EQ(output_of("mandoc -T lint docs/install/chatbyp2p.1", *network), "");
}

// What bash would offer behind these words, the last of which is being typed.
TEST_F(Install, BashCompletesOptionsAndTheirValues) {
  NEEDS_PROGRAM("bash", "bash");
  const Folder folder;
  network->run(0, "ln -s " + peer_program() + " " + folder.path("chatbyp2p") + " && mkdir " + folder.path("inbox"));
  const auto offered = [&](const std::string& words) {
    const std::string script = folder.write(
        "try", "source docs/install/chatbyp2p.bash\n"
               "cd " + folder.path() + "\n"
               "COMP_WORDS=(./chatbyp2p " + words + ") COMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n"
               "complete -p chatbyp2p | grep -q _chatbyp2p || exit 1\n"
               "_chatbyp2p ./chatbyp2p \"${COMP_WORDS[-1]}\" \"${COMP_WORDS[-2]}\"\n"
               "echo \"${COMPREPLY[@]}\"\n");
    return output_of("bash " + script, *network);
  };
  EXPECT_EQ(offered("''"), "--name --group --port --interface --dir --accept --scan --trace --version --help -h\n");
  EXPECT_EQ(offered("--name ann --s"), "--scan\n");
  EXPECT_EQ(offered("--accept ''"), "ask always never\n");
  EXPECT_EQ(offered("--accept = al"), "always\n");
  EXPECT_EQ(offered("--scan ="), "on off\n");
  EXPECT_EQ(offered("--dir in"), "inbox\n");
  EXPECT_EQ(offered("--interface l"), "lo\n");
  EXPECT_EQ(offered("--name ''"), "\n");
}

TEST_F(Install, TheExampleOfAUnitIsWellFormed) {
  NEEDS_PROGRAM("systemd-analyze", "systemd");
  const Folder folder;
  const std::string verify = "XDG_RUNTIME_DIR=" + folder.path() + " systemd-analyze --user --man=no verify ";
  EXPECT_EQ(output_of(verify + "docs/install/chatbyp2p.service", *network), "");
}

// As systemd would, with an input that is empty, and /run/user/1000 and the home folder elsewhere.
TEST_F(Install, TheExampleOfAUnitStaysTakesFilesAndObeysItsFifo) {
  const Folder folder;
  network->run(0, "ln -s " + peer_program() + " " + folder.path("chatbyp2p"));
  std::string unit = read_file("docs/install/chatbyp2p.service");
  unit = std::regex_replace(unit, std::regex("%[th]"), folder.path());
  const auto command = [&](const std::string& key) { return found(unit, key + "=(.*)").at(0); };
  network->run(0, command("ExecStartPre"));
  const std::string start = "PATH=" + folder.path() + ":$PATH; exec " + command("ExecStart");
  Process box(network->descriptor(0), {"/bin/sh", "-c", start + " </dev/null"}, folder.path());
  box.wait_for("ready box@.*");
  Process& ann = network->peer(0, "ann");
  ann.wait_for("joined box@.*");
  box.wait_for("joined ann@.*");
  network->folder("ann").write("poem.txt", "roses are red\n");
  ann.say("/send box poem.txt");
  ann.wait_for("send 1 delivered box@.*");
  EXPECT_EQ(read_file(folder.path("Downloads/poem.txt")), "roses are red\n");
  network->run(0, "echo '/msg ann thank you' >" + folder.path("chatbyp2p.commands"));
  ann.wait_for("message box@.* private: thank you");
}
