// The engine's own thread and the jobs that wait for it. A job is a sequence of steps (a chunk, a token); between steps the
// most urgent job goes first, so that an answer never waits for a whole pre-fill.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <thread>

namespace longview::binding {

struct Job {
  int priority = 0;            // larger goes first; equals in order of arrival
  std::function<bool()> step;  // true while there is more to do; must not throw
};

class JobQueue {
 public:
  // Runs what is queued to its end (cancel first), then joins.
  ~JobQueue() {
    let_go();
    if (thread_.joinable()) thread_.join();
  }

  // Throws std::system_error where there is no thread to be had.
  void add(Job job) {
    {
      const std::lock_guard lock(mutex_);
      jobs_.push_back(std::move(job));
      try {
        start();
      } catch (...) {
        jobs_.pop_back();
        throw;
      }
    }
    wake_.notify_all();
  }

  // From now on one thread waits for jobs until let_go(): what they work on may belong to it.
  void keep() {
    const std::lock_guard lock(mutex_);
    kept_ = true;
  }
  // The thread ends with the last job, and begins anew with the next one: who owns this may live long behind its last job.
  void let_go() {
    {
      const std::lock_guard lock(mutex_);
      kept_ = false;
    }
    wake_.notify_all();
  }

  // Blocks while a job above `priority` waits or runs. Not for a job of this queue.
  void give_way(int priority) {
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [&] { return std::none_of(jobs_.begin(), jobs_.end(), [&](const Job& job) { return job.priority > priority; }); });
  }

 private:
  void start() {
    if (working_) return;
    if (thread_.joinable()) thread_.join();  // it needs the lock no more
    thread_ = std::thread([this] { work(); });
    working_ = true;
  }

  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      wake_.wait(lock, [&] { return !kept_ || !jobs_.empty(); });
      if (jobs_.empty()) {
        working_ = false;
        return;
      }
      auto next = jobs_.begin();
      for (auto at = jobs_.begin(); at != jobs_.end(); ++at)
        if (at->priority > next->priority) next = at;
      lock.unlock();
      const bool more = next->step();  // list nodes stay where they are while others are added
      lock.lock();
      if (more) continue;
      std::list<Job> over;
      over.splice(over.begin(), jobs_, next);
      ended_.notify_all();
      lock.unlock();
      over.clear();  // may wait for threads that read ahead: whoever adds jobs does not
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, ended_;
  std::list<Job> jobs_;
  bool kept_ = false, working_ = false;
  std::thread thread_;
};

}  // namespace longview::binding
