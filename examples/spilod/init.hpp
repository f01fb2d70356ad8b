// What process 1 of a container has to do besides its own work.
#pragma once

namespace spilod {

// As process 1: starts a child, which returns from here; the first process stays, hands signals on
// to the child, reaps whoever loses his parent, and ends with the child's status. Otherwise returns
// at once.
void become_init_if_first();

}  // namespace spilod
