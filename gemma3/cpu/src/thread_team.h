// The threads of one model: they run a whole step together, in phases.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace gemma3 {

// `run` gives every thread the same function. Inside it the threads meet at `for_each` (shared work) and `once`.
// Waiting threads spin for a moment, since phases last microseconds, and then sleep: a thread that spins on while
// another process has its partner's core would halve the machine's speed for nothing.
class ThreadTeam {
public:
    explicit ThreadTeam(int num_threads);
    ~ThreadTeam();
    ThreadTeam(const ThreadTeam&) = delete;
    ThreadTeam& operator=(const ThreadTeam&) = delete;

    int size() const { return num_threads_; }

    // Runs `body(thread)` on every thread, the caller being thread 0, and returns when all are done. Throws what an item threw
    // first; from there on no further item was begun.
    void run(const std::function<void(int)>& body);

    // Called by every thread inside `run`: the items [0, count) are handed out one by one to whoever is free. All
    // items are done when it returns, unless one of the run's items has thrown: memory can run out in any of them.
    template <typename Item>
    void for_each(int count, const Item& item) {
        for_each_and_last(count, item, [] {});
    }

    // The same, and the thread that finishes last runs `last()` before any other goes on.
    template <typename Item, typename Last>
    void for_each_and_last(int count, const Item& item, const Last& last) {
        if (num_threads_ == 1) {
            for (int i = 0; i < count; ++i) item(i);
            last();
            return;
        }
        const uint32_t phase = phase_.load(std::memory_order_acquire);
        std::atomic<int>& next = next_item_[phase & 1];
        for (int i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) attempt([&] { item(i); });
        if (num_arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == num_threads_) {
            attempt(last);
            num_arrived_.store(0, std::memory_order_relaxed);
            next.store(0, std::memory_order_relaxed);
            advance(phase_, phase);
        } else {
            wait_while(phase_, phase);
        }
    }

private:
    // Nobody could catch what a thread throws, and the others would wait for it: kept for the end of `run`.
    template <typename Work>
    void attempt(const Work& work) {
        if (has_failed_.load(std::memory_order_relaxed)) return;
        try {
            work();
        } catch (...) {
            if (!has_failed_.exchange(true)) failure_ = std::current_exception();
        }
    }
    // What a thread does all its life: runs every `body`.
    void work(int thread);
    // Returns when `word` is no longer `value`: looks for a moment, then sleeps.
    void wait_while(std::atomic<uint32_t>& word, uint32_t value);
    // Sets `word` to value + 1 and wakes those that sleep.
    void advance(std::atomic<uint32_t>& word, uint32_t value);

    const int num_threads_;
    alignas(64) std::atomic<uint32_t> phase_{0};
    alignas(64) std::atomic<int> num_arrived_{0};
    alignas(64) std::atomic<int> next_item_[2]{};
    alignas(64) std::atomic<uint32_t> generation_{0};  // of `run`
    alignas(64) std::atomic<uint32_t> num_sleeping_{0};
    alignas(64) std::atomic<bool> has_failed_{false};
    std::exception_ptr failure_;  // of the first that threw
    const std::function<void(int)>* body_ = nullptr;
    bool stopping_ = false;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<std::thread> threads_;
};

}  // namespace gemma3
