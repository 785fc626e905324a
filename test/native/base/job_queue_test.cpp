// The queue of an engine's jobs, by itself.
#include "binding/job_queue.h"

#include <chrono>
#include <future>
#include <string>

#include "check.h"

using namespace longview::binding;

namespace {

// What a job holds, as a load holds the threads that read ahead: it goes when `gone` allows it to.
struct Held {
  std::shared_future<void> gone;
  std::promise<void>& going;
  ~Held() {
    going.set_value();
    gone.wait();
  }
};

}  // namespace

TEST("jobs go by their priority, equals in order, a step at a time") {
  std::string order;
  std::promise<void> all_there;
  {
    JobQueue queue;
    queue.add({9, [there = all_there.get_future().share()] { return there.wait(), false; }});
    for (const auto& [priority, letter] : {std::pair{1, 'c'}, {2, 'a'}, {1, 'd'}, {2, 'b'}})
      queue.add({priority, [&order, letter = letter, left = 2]() mutable {
                   order += letter;
                   return --left > 0;
                 }});
    all_there.set_value();
  }
  CHECK(order == "aabbccdd");
}

TEST("what a job that is over still waits for holds up nobody who adds another") {
  std::promise<void> gone, going;
  JobQueue queue;
  queue.add({0, [held = std::shared_ptr<Held>(new Held{gone.get_future().share(), going})] { return false; }});
  going.get_future().wait();
  const auto added = std::async(std::launch::async, [&] { queue.add({0, [] { return false; }}); });
  const bool meanwhile = added.wait_for(std::chrono::seconds(20)) == std::future_status::ready;
  gone.set_value();
  CHECK(meanwhile);
}

TEST_MAIN()
