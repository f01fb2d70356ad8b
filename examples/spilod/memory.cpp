#include "memory.hpp"

#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

namespace spilo {
namespace {

// Code that was relocated in place would be lost, not reread.
bool has_relocated_text(const dl_phdr_info& object) noexcept {
  for (int n = 0; n < object.dlpi_phnum; ++n) {
    const auto& header = object.dlpi_phdr[n];
    if (header.p_type != PT_DYNAMIC) continue;
    const auto* entry = reinterpret_cast<const ElfW(Dyn)*>(object.dlpi_addr + header.p_vaddr);
    for (; entry->d_tag != DT_NULL; ++entry)
      if (entry->d_tag == DT_TEXTREL ||
          (entry->d_tag == DT_FLAGS && (entry->d_un.d_val & DF_TEXTREL) != 0))
        return true;
  }
  return false;
}

int drop_clean_pages(dl_phdr_info* object, std::size_t, void*) noexcept {
  if (std::strstr(object->dlpi_name, "vdso") != nullptr || has_relocated_text(*object)) return 0;
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  for (int n = 0; n < object->dlpi_phnum; ++n) {
    const auto& header = object->dlpi_phdr[n];
    // What is mapped writable may differ from its file, also where it is read-only by now.
    if (header.p_type != PT_LOAD || (header.p_flags & PF_W) != 0) continue;
    const auto begin = (object->dlpi_addr + header.p_vaddr) / page * page;
    const auto end = object->dlpi_addr + header.p_vaddr + header.p_memsz;
    ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  }
  return 0;
}

}  // namespace

void give_back_startup_memory() noexcept {
  ::malloc_trim(0);
  ::dl_iterate_phdr(drop_clean_pages, nullptr);
}

}  // namespace spilo
