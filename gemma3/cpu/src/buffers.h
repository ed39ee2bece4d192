// Memory of the core: aligned, growing, zero where it was never written.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#if defined(__linux__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "kernels/kernels.h"

namespace gemma3 {

// An array whose start is aligned to a cache line. Growing loses the contents.
template <typename T>
class Buffer {
public:
    Buffer() = default;
    explicit Buffer(int64_t size) { reserve(size); }

    void reserve(int64_t size) {
        if (size <= size_) return;
        // Zero pages of the system cost no memory until they are written, so no memset for large ones: calloc.
        constexpr int64_t kAlign = 64;
        memory_.reset();
        size_ = 0;  // and stays so, if there is no memory
        memory_.reset(static_cast<uint8_t*>(std::calloc(static_cast<size_t>(size * int64_t{sizeof(T)} + kAlign), 1)));
        if (!memory_) throw std::bad_alloc();
        const auto address = reinterpret_cast<uintptr_t>(memory_.get());
        data_ = reinterpret_cast<T*>((address + kAlign - 1) / kAlign * kAlign);
        size_ = size;
    }

    // `count` elements from `first` on lose their values: the pages that hold nothing else are the system's until they are
    // written. Where it does not take them, nothing changes.
    void release([[maybe_unused]] int64_t first, [[maybe_unused]] int64_t count) {
#if defined(__linux__) || defined(__APPLE__)
        const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
        const uintptr_t start = (reinterpret_cast<uintptr_t>(data_ + first) + page - 1) / page * page;
        const uintptr_t end = reinterpret_cast<uintptr_t>(data_ + first + count) / page * page;
#if defined(__linux__)
        constexpr int kAdvice = MADV_DONTNEED;
#else
        constexpr int kAdvice = MADV_FREE;
#endif
        if (start < end) madvise(reinterpret_cast<void*>(start), end - start, kAdvice);
#endif
    }

    T* data() { return data_; }
    const T* data() const { return data_; }
    int64_t size() const { return size_; }
    T& operator[](int64_t i) { return data_[i]; }
    const T& operator[](int64_t i) const { return data_[i]; }

private:
    struct Free {
        void operator()(uint8_t* p) const { std::free(p); }
    };
    std::unique_ptr<uint8_t, Free> memory_;
    T* data_ = nullptr;
    int64_t size_ = 0;
};

// A view of rows that begin `stride` elements apart.
template <typename T>
struct Rows {
    T* data;
    int64_t stride;

    T* row(int64_t index) const { return data + index * stride; }
};

// Rows with memory of their own. Growing loses the contents; padding between them is zero until it is written.
template <typename T>
class RowBuffer {
public:
    explicit RowBuffer(int64_t stride) : stride_(stride) {}

    void reserve(int num_rows) { memory_.reserve(num_rows * stride_); }
    int64_t stride() const { return stride_; }
    T* row(int64_t index) { return memory_.data() + index * stride_; }
    const T* row(int64_t index) const { return memory_.data() + index * stride_; }
    Rows<T> rows() { return {memory_.data(), stride_}; }
    Rows<const T> rows() const { return {memory_.data(), stride_}; }

private:
    const int64_t stride_;
    Buffer<T> memory_;
};

// Memory behind `Activations`, with room for whole pairs of tiles of 16 rows: AMX reads rows that nobody asked for.
class ActivationBuffer {
public:
    // Activations of `num_rows` rows of `num_inputs` (padded) inputs each, over this memory.
    Activations of(int num_rows, int num_inputs) {
        const int64_t rows = round_up(num_rows, 32);
        values_.reserve(rows * num_inputs);
        scales_.reserve(rows);
        sums_.reserve(rows);
        group_sums_.reserve(rows * (num_inputs / kGroup));
        Activations view;
        view.values = values_.data();
        view.scales = scales_.data();
        view.group_sums = group_sums_.data();
        view.sums = sums_.data();
        view.num_inputs = num_inputs;
        view.num_rows = num_rows;
        return view;
    }

    // Copies of some rows of `in`, one after the other.
    Activations gather(const Activations& in, const std::vector<int>& rows) {
        const Activations out = of(int(rows.size()), in.num_inputs);
        const int64_t width = in.num_inputs, groups = width / kGroup;
        for (size_t to = 0; to < rows.size(); ++to) {
            const int64_t from = rows[to];
            std::copy_n(in.values + from * width, width, out.values + int64_t(to) * width);
            std::copy_n(in.group_sums + from * groups, groups, out.group_sums + int64_t(to) * groups);
            out.scales[to] = in.scales[from];
            out.sums[to] = in.sums[from];
        }
        return out;
    }

private:
    Buffer<int8_t> values_;
    Buffer<float> scales_;
    Buffer<int32_t> sums_, group_sums_;
};

}  // namespace gemma3
