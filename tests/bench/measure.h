// What bench.cpp and segment.cpp measure with.

#ifndef CHATBYP2P_MEASURE_H
#define CHATBYP2P_MEASURE_H

#include <algorithm>
#include <chrono>
#include <vector>

using Clock = std::chrono::steady_clock;

inline double since(Clock::time_point start) {  // in seconds
  return std::chrono::duration<double>(Clock::now() - start).count();
}

inline double median(std::vector<double> values) {  // of an even number, the mean of the middle two
  std::sort(values.begin(), values.end());
  return (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
}

#endif
