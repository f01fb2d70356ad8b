// One agent for each data directory: two of them would end each other's server and build their
// copies in the same place.
#pragma once

#include <string>
#include <utility>

#include "spilo/core/error.hpp"

namespace spilo::node {

// Held by the object, and gone with its process however that ends. Move only; one thread.
class DataDirLock {
 public:
  DataDirLock() = default;
  DataDirLock(DataDirLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  DataDirLock& operator=(DataDirLock&& other) noexcept {
    std::swap(fd_, other.fd_);  // what was held here goes with the other
    return *this;
  }
  ~DataDirLock();

  // The lock is the file <data_dir>.lock; where none can be made, the directory itself.
  //   conflict     another agent has it; the text names its process
  //   unavailable  neither can be locked here (a file system without locks, no rights)
  static Result<DataDirLock> take(const std::string& data_dir);

 private:
  explicit DataDirLock(int fd) noexcept : fd_(fd) {}
  int fd_ = -1;
};

}  // namespace spilo::node
