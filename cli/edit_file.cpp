#include "cli/edit_file.hpp"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

namespace spilo::cli {
namespace {

// A file of its own that goes away with the object; mkstemps makes it readable by us only.
class TemporaryFile {
 public:
  TemporaryFile() {
    const char* directory = std::getenv("TMPDIR");
    path_ = std::string(directory && *directory ? directory : "/tmp") + "/spiloctl-XXXXXX.yaml";
    const int descriptor = ::mkstemps(path_.data(), 5);
    if (descriptor < 0)
      throw Stop(Exit::error,
                 fmt::format("No temporary file can be made as {}: {}", path_, std::strerror(errno)));
    ::close(descriptor);
  }
  ~TemporaryFile() { ::unlink(path_.c_str()); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::string& path() const noexcept { return path_; }

 private:
  std::string path_;
};

// The editor's command line may have arguments ("code --wait"), hence the shell; the file's name
// comes as an argument of its own and is not interpreted.
int run_editor(const std::string& editor, const std::string& file) {
  const pid_t child = ::fork();
  if (child < 0) throw Stop(Exit::error, "No process can be started for the editor");
  if (child == 0) {
    const std::string script = "exec " + editor + " \"$1\"";
    ::execl("/bin/sh", "sh", "-c", script.c_str(), "spiloctl-edit", file.c_str(), nullptr);
    ::_exit(127);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

}  // namespace

std::string edit_in_editor(App& app, const std::string& text) {
  if (!app.terminal().stdin_is_terminal())
    throw Stop(Exit::usage,
               "Standard input is no terminal to edit in. Say what to change: -s KEY=VALUE, "
               "-p PARAMETER=VALUE, --apply FILE or --replace FILE (- is standard input).");
  TemporaryFile file;
  std::ofstream(file.path()) << text;
  std::string editor;
  for (const char* name : {"EDITOR", "VISUAL"})
    if (const char* value = std::getenv(name); editor.empty() && value) editor = value;
  const std::string command =
      editor.empty() ? "$(command -v editor || command -v vi || echo vi)" : editor;
  if (const int status = run_editor(command, file.path()); status != 0)
    throw Stop(Exit::error,
               fmt::format("The editor ended with status {}{}. Nothing was changed.", status,
                           status == 127 ? " (it was not found; set EDITOR)" : ""));
  std::ifstream in(file.path());
  return std::string(std::istreambuf_iterator<char>(in), {});
}

}  // namespace spilo::cli
