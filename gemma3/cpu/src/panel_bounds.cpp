#include "panel_bounds.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <functional>

#include "logits.h"

namespace gemma3 {
namespace {

constexpr int kPeakPanels = 16;           // whose largest bound stands for them
constexpr float kLowCentre = 7.5f;        // mean of a low nibble
constexpr float kLowDeviation = 4.6098f;  // sqrt((16 * 16 - 1) / 12)
constexpr float kDeviations = 8.0f;

float largest_rest(const Activations& in, int row) {
    int64_t squares = 0;
    const int8_t* values = in.values + int64_t{row} * in.num_inputs;
    for (int i = 0; i < in.num_inputs; ++i) squares += values[i] * values[i];
    const float sum = static_cast<float>(in.sums[row]);
    return (kLowCentre - 128.0f) * sum + kDeviations * kLowDeviation * std::sqrt(static_cast<float>(squares));
}

}  // namespace

PanelBounds::PanelBounds(const Kernels& kernels, const Embedding& embedding, int num_threads)
    : kernels_(kernels), embedding_(embedding), scratch_(size_t(num_threads)) {
    for (Scratch& scratch : scratch_) scratch.bytes.reserve(product_scratch(kChunkPanels, embedding.high.num_inputs));
}

void PanelBounds::begin(const Activations& in, const std::vector<int>& rows) {
    in_ = in_memory_.gather(in, rows);
    rests_.clear();
    for (int i = 0; i < in_.num_rows; ++i) rests_.push_back(largest_rest(in_, i));
    bounds_.reserve(int64_t(rows.size()) * embedding_.num_panels());
    for (Scratch& scratch : scratch_) scratch.sums.reserve(int64_t(rows.size()) * kChunkPanels * kPanel);
}

void PanelBounds::run(ThreadTeam& team, int thread) {
    if (in_.num_rows > 0)
        team.for_each(embedding_.num_chunks(), [&](int chunk) { bound_chunk(chunk, scratch_[size_t(thread)]); });
}

void PanelBounds::bound_chunk(int chunk, Scratch& scratch) {
    const auto [first, last] = embedding_.chunk(chunk);
    const int width = (last - first) * kPanel;
    int32_t* sums = scratch.sums.data();
    kernels_.matmul_nibbles(embedding_.high, in_, first, last, sums, width, scratch.bytes.data());
    for (int i = 0; i < in_.num_rows; ++i, sums += width)
        kernels_.bound_logits(sums, embedding_.scales + int64_t{first} * kPanel, last - first, in_.scales[i], rests_[size_t(i)],
                              bounds_.data() + int64_t{i} * embedding_.num_panels() + first);
}

float reached_by(const float* bounds, int num_panels, int count, std::vector<float>& peaks) {
    peaks.clear();
    for (int first = 0; first < num_panels; first += kPeakPanels) {
        float peak = -INFINITY;  // of a row that is not finite, too
        for (int panel = first; panel < std::min(first + kPeakPanels, num_panels); ++panel) peak = larger(bounds[panel], peak);
        peaks.push_back(peak);
    }
    if (count > int(peaks.size())) return -INFINITY;
    std::nth_element(peaks.begin(), peaks.begin() + (count - 1), peaks.end(), std::greater<float>());
    return peaks[size_t(count - 1)];
}

void add_panels(const float* bounds, int num_panels, float least, int most, std::vector<int>& panels) {
    least = std::max(least, -FLT_MAX);
    for (int panel = 0; panel < num_panels && int(panels.size()) <= most; ++panel)
        if (bounds[panel] >= least) panels.push_back(panel);
}

}  // namespace gemma3
