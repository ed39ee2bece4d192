#include "thread_team.h"

#include <chrono>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace gemma3 {
namespace {

// Long enough for a phase of a decode step (about 20 to 100 us), short enough not to matter to another process.
constexpr std::chrono::microseconds kSpin{100};
constexpr int kLooksPerClock = 64;

inline void pause() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");  // a few dozen cycles; `yield` does nothing on most processors
#endif
}

}  // namespace

ThreadTeam::ThreadTeam(int num_threads) : num_threads_(num_threads < 1 ? 1 : num_threads) {
    for (int i = 1; i < num_threads_; ++i) threads_.emplace_back([this, i] { work(i); });
}

ThreadTeam::~ThreadTeam() {
    stopping_ = true;
    advance(generation_, generation_.load());
    for (std::thread& thread : threads_) thread.join();
}

void ThreadTeam::run(const std::function<void(int)>& body) {
    body_ = &body;
    if (num_threads_ > 1) advance(generation_, generation_.load(std::memory_order_relaxed));
    body(0);
    for_each(0, [](int) {});  // nobody may still be inside `body` when it goes out of scope
    if (has_failed_.exchange(false)) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void ThreadTeam::work(int thread) {
    for (uint32_t seen = 0;; ++seen) {
        wait_while(generation_, seen);
        if (stopping_) return;
        (*body_)(thread);
        for_each(0, [](int) {});
    }
}

void ThreadTeam::wait_while(std::atomic<uint32_t>& word, uint32_t value) {
    const auto until = std::chrono::steady_clock::now() + kSpin;
    do {
        for (int i = 0; i < kLooksPerClock; ++i) {
            if (word.load(std::memory_order_acquire) != value) return;
            pause();
        }
    } while (std::chrono::steady_clock::now() < until);
    std::unique_lock<std::mutex> lock(mutex_);
    num_sleeping_.fetch_add(1);
    wake_.wait(lock, [&] { return word.load() != value; });
    num_sleeping_.fetch_sub(1);
}

void ThreadTeam::advance(std::atomic<uint32_t>& word, uint32_t value) {
    word.store(value + 1);  // sequentially consistent with num_sleeping_: one of the two sides sees the other
    if (num_sleeping_.load() > 0) {
        const std::lock_guard<std::mutex> lock(mutex_);
        wake_.notify_all();
    }
}

}  // namespace gemma3
