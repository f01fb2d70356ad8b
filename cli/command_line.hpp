// The command line: verbs, options, help and exit codes. Everything of main() but the process.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "cli/app.hpp"
#include "cli/exit.hpp"

namespace spilo::cli {

// Runs one verb. `arguments` includes the program's name: called as "patronictl" it behaves as
// that (--compat).
int run(const std::vector<std::string>& arguments, Terminal& terminal);

// Verb -> its options as on the command line ("--force", "-r"); for shell completion.
std::map<std::string, std::vector<std::string>> verbs_and_options();
std::vector<std::string> global_option_names();

}  // namespace spilo::cli
