#pragma once

namespace spilo {

// Gives back what only the start needed: free heap, and the pages of programs and libraries that
// loading and initialising them has touched. Those are clean and stay in the page cache; what is
// still used comes back with the next access, at the price of a minor fault. Half of what such a
// process seems to take is this.
void give_back_startup_memory() noexcept;

}  // namespace spilo
