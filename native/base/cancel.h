// A flag that one thread raises and the engine reads at chunk and token boundaries.
#pragma once

#include <atomic>
#include <memory>

#include "base/error.h"

namespace longview {

class CancelToken {
 public:
  void cancel() { flag_->store(true, std::memory_order_relaxed); }
  bool cancelled() const { return flag_->load(std::memory_order_relaxed); }
  void throw_if_cancelled() const { LONGVIEW_CHECK(!cancelled(), kCancelled, "Stopped."); }

 private:
  std::shared_ptr<std::atomic<bool>> flag_ = std::make_shared<std::atomic<bool>>(false);
};

}  // namespace longview
