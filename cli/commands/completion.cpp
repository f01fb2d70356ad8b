// completion: a script for bash or zsh, made from the same tables as --help.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cli/command_line.hpp"
#include "cli/commands/commands.hpp"

namespace spilo::cli {
namespace {

// Members are completed from the cluster itself, silently: a missing answer completes nothing.
constexpr const char* bash_template = R"~(# {0}: eval "$({0} completion bash)"
_{1}_complete() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} verb= i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${{COMP_WORDS[i]}} in
      -c|--config-file|-d|--dcs|--dcs-url|--node) ((i++)) ;;
      -*) ;;
      *) verb=${{COMP_WORDS[i]}}; break ;;
    esac
  done
  case $previous in
    -c|--config-file|--apply|--replace) COMPREPLY=($(compgen -f -- "$word")); return ;;
    -f|-o|--format) COMPREPLY=($(compgen -W "pretty topology tsv json yaml" -- "$word")); return ;;
    -r|--role)
      COMPREPLY=($(compgen -W "leader primary standby-leader replica standby any" -- "$word"))
      return ;;
    --candidate|--leader|--primary|-m|--member)
      COMPREPLY=($(compgen -W "$({0} list -f tsv 2>/dev/null | tail -n +2 | cut -f2)" -- "$word"))
      return ;;
  esac
  local options="{2}"
  case $verb in
    "") COMPREPLY=($(compgen -W "{3} $options" -- "$word")); return ;;
{4}  esac
  if [[ $word == -* ]]; then COMPREPLY=($(compgen -W "$options" -- "$word")); return; fi
  case $verb in
    completion) COMPREPLY=($(compgen -W "bash zsh" -- "$word")) ;;
    restart|reinit|reload|flush|version|why)
      COMPREPLY=($(compgen -W "$({0} list -f tsv 2>/dev/null | tail -n +2 | cut -f1,2)" -- "$word")) ;;
    *) COMPREPLY=($(compgen -W "$({0} list -f tsv 2>/dev/null | tail -n +2 | cut -f1 | sort -u)" -- "$word")) ;;
  esac
}}
complete -F _{1}_complete {0}
)~";

}  // namespace

Exit completion(App& app, const VerbOptions& options) {
  const std::string shell = options.words.empty() ? std::string() : options.words.front();
  if (shell != "bash" && shell != "zsh")
    throw Stop(Exit::usage, "For which shell? Usage: spiloctl completion bash|zsh");
  std::vector<std::string> verbs;
  std::string cases;
  for (const auto& [verb, names] : verbs_and_options()) {
    verbs.push_back(verb);
    cases += fmt::format("    {}) options=\"{}\" ;;\n", verb, fmt::join(names, " "));
  }
  const std::string program = app.options().program;
  std::string function = program;
  for (char& letter : function)
    if (letter == '-' || letter == '.') letter = '_';
  if (shell == "zsh") app.print("autoload -U +X bashcompinit && bashcompinit\n");
  app.print(fmt::format(fmt::runtime(bash_template), program, function,
                        fmt::join(global_option_names(), " "), fmt::join(verbs, " "), cases));
  return Exit::done;
}

}  // namespace spilo::cli
