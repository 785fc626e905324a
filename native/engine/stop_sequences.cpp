#include "engine/stop_sequences.h"

#include <algorithm>

namespace longview {

StopSequences::StopSequences(std::vector<std::vector<int32_t>> sequences) : sequences_(std::move(sequences)) {
  std::erase_if(sequences_, [](const std::vector<int32_t>& sequence) { return sequence.empty(); });
}

bool StopSequences::begins(const std::vector<int32_t>& sequence, size_t begin) const {
  const size_t count = held_.size() - begin;
  return count <= sequence.size() && std::equal(held_.begin() + static_cast<std::ptrdiff_t>(begin), held_.end(), sequence.begin());
}

bool StopSequences::push(int32_t token) {
  held_.push_back(token);
  // A whole sequence at the end stops, also where a longer one might have begun before it.
  for (certain_ = 0; certain_ < held_.size(); ++certain_)
    for (const std::vector<int32_t>& sequence : sequences_)
      if (held_.size() - certain_ == sequence.size() && begins(sequence, certain_)) return true;
  // Else all before the first place where one may have begun is certain.
  for (certain_ = 0; certain_ < held_.size(); ++certain_)
    for (const std::vector<int32_t>& sequence : sequences_)
      if (begins(sequence, certain_)) return false;
  return false;
}

bool StopSequences::ends_alone(int32_t token) const {
  return std::any_of(sequences_.begin(), sequences_.end(), [&](const std::vector<int32_t>& sequence) { return sequence.size() == 1 && sequence[0] == token; });
}

bool StopSequences::release(int32_t& token) {
  if (certain_ == 0) return false;
  token = held_.front();
  held_.pop_front();
  --certain_;
  return true;
}

}  // namespace longview
