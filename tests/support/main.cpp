// main() of the tests: it enters a private network first, and prints at the end how many passed, failed and were skipped.
// With STRICT=1, or in CI, a skipped test is a failure.

#include <signal.h>

#include <cstdlib>
#include <iostream>

#include "testing.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  ::signal(SIGPIPE, SIG_IGN);
  enter_private_network();
  const int status = RUN_ALL_TESTS();
  const auto& all = *testing::UnitTest::GetInstance();
  const char *strict = std::getenv("STRICT"), *ci = std::getenv("CI");
  const bool must_not_skip = (strict && *strict == '1') || (ci && std::string(ci) == "true");
  std::cout << all.successful_test_count() << " passed, " << all.failed_test_count() << " failed, "
            << all.skipped_test_count() << " skipped" << std::endl;
  if (must_not_skip && all.skipped_test_count() > 0) std::cout << "skipping counts as failing here" << std::endl;
  return status != 0 || (must_not_skip && all.skipped_test_count() > 0) ? 1 : 0;
}
