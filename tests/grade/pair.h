// Two programs of different authors on one virtual network: do they work together? For tests/grade/class.sh --pairs.

#ifndef CHATBYP2P_PAIR_H
#define CHATBYP2P_PAIR_H

#include <string>

namespace grade {

// Prints two words, what worked from the one to the other and from the other to the one: "ok", or what did not, as
// "found,message,file". Then the capture stays, for Wireshark; else there is none. True if both are "ok".
bool play_pair(const std::string& one, const std::string& other, const std::string& capture);

}  // namespace grade

#endif
