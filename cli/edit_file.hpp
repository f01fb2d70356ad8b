// Lets a person edit a text in their editor.
#pragma once

#include <string>

#include "cli/app.hpp"

namespace spilo::cli {

// $EDITOR (or $VISUAL), else `editor`, else `vi`, on a private temporary file. Stop when there is no
// terminal, no editor, or the editor fails.
std::string edit_in_editor(App& app, const std::string& text);

}  // namespace spilo::cli
