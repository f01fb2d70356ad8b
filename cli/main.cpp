// spiloctl: a thin command line over libspilo.
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "cli/command_line.hpp"
#include "cli/interrupt.hpp"

int main(int argc, char** argv) {
  spilo::cli::install_interrupt_handler();
  try {
    const auto terminal = spilo::cli::system_terminal();
    return spilo::cli::run(std::vector<std::string>(argv, argv + argc), *terminal);
  } catch (const std::exception& broken) {
    std::fprintf(stderr, "Error: spiloctl has a bug: %s\n", broken.what());
    return static_cast<int>(spilo::cli::Exit::unknown);
  }
}
