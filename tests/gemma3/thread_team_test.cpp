// ThreadTeam, to be built with -fsanitize=thread (see .ci/sanitize): plain memory that threads hand to one another, so that
// a missing order between two phases is a data race, and counts, so that a lost or doubled item is an error without it too.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <numeric>
#include <thread>
#include <vector>

#include "thread_team.h"

namespace {

using gemma3::ThreadTeam;

void require(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "thread_team_test: %s\n", what);
    std::exit(1);
}

// Items of very different length; a rare one outlasts the time that waiting threads spin, so that they sleep.
void work_for(int item, int step) {
    if (item == 0 && step % 16 == 0) std::this_thread::sleep_for(std::chrono::microseconds(300));
    volatile int spun = 0;
    for (int i = 0; i < item % 7 * 50; ++i) spun = spun + i;
}

// One step as the model has them: each phase reads what others wrote in the phase before, with nothing but the team between.
void run_step(ThreadTeam& team, int step, std::vector<int>& first, std::vector<int>& second) {
    const int count = int(first.size());
    int sum = 0, num_last = 0;
    std::vector<int> by_thread(size_t(team.size()), 0);
    team.run([&](int thread) {
        team.for_each(count, [&](int i) {
            work_for(i, step);
            first[size_t(i)] = step + i;
            ++by_thread[size_t(thread)];
        });
        team.for_each_and_last(count, [&](int i) { second[size_t(count - 1 - i)] = first[size_t(i)]; }, [&] {
            sum = std::accumulate(second.begin(), second.end(), 0);
            ++num_last;
        });
        require(sum == count * step + count * (count - 1) / 2, "a thread went on before `last` was done");
        team.for_each(count, [&](int i) { first[size_t(i)] = second[size_t(i)] + sum; });
    });
    require(num_last == 1, "`last` ran more or less than once");
    require(std::accumulate(by_thread.begin(), by_thread.end(), 0) == count, "an item was lost or done twice");
    for (int i = 0; i < count; ++i) require(first[size_t(i)] == step + count - 1 - i + sum, "a result is wrong");
}

// An item throws, or what the last thread does: `run` throws it, nothing behind it is done, and the next step is as ever.
void run_failing_step(ThreadTeam& team, bool in_item) {
    std::atomic<int> num_later{0};
    bool is_thrown = false;
    try {
        team.run([&](int) {
            const auto fail = [] { throw std::bad_alloc(); };
            team.for_each_and_last(7, [&](int i) { if (in_item && i >= 3) fail(); }, [&] { if (!in_item) fail(); });
            team.for_each_and_last(7, [&](int) { ++num_later; }, [&] { ++num_later; });
        });
    } catch (const std::bad_alloc&) {
        is_thrown = true;
    }
    require(is_thrown, "what an item threw was lost");
    require(num_later == 0, "a phase ran behind one that failed");
}

}  // namespace

int main() {
    for (const int num_threads : {1, 2, 3, 5}) {
        ThreadTeam team(num_threads);
        for (int step = 0; step < 400; ++step) {
            const int count = step % 9 == 0 ? 0 : step % 5 == 0 ? 1 : step % 41;
            std::vector<int> first(size_t(count), 0), second(size_t(count), 0);
            run_step(team, step, first, second);
            if (step % 10 == 0) run_failing_step(team, step % 20 == 0);
            if (step % 50 == 0) std::this_thread::sleep_for(std::chrono::microseconds(500));  // the team falls asleep
        }
    }
    for (int i = 0; i < 50; ++i) ThreadTeam short_lived(4);
    std::puts("thread_team_test: ok");
}
