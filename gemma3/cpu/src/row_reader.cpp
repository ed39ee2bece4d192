#include "row_reader.h"

#include <algorithm>
#include <numeric>

namespace gemma3 {
namespace {

static_assert(kChunkPanels * kPanel == kChunk);
constexpr int kRowsAtOnce = 128;  // 512 KiB of logits; the planes are joined once for all of them

bool wants_peaks(const RowRequest& request) { return !request.has_target() || request.num_logprobs > 0; }

}  // namespace

RowReader::RowReader(const Kernels& kernels, const Embedding& embedding, int num_threads)
    : kernels_(kernels), embedding_(embedding), scratch_(size_t(num_threads)) {
    for (Scratch& scratch : scratch_) scratch.bytes.reserve(joined_bytes(embedding));
}

void RowReader::begin(const Activations& in, const std::vector<RowRequest>& requests, const std::vector<int>& rows) {
    const int num_rows = int(rows.size());
    in_ = in_memory_.gather(in, rows);
    requests_.clear();
    for (const int row : rows) requests_.push_back(&requests[size_t(row)]);
    target_logits_.resize(rows.size());
    masses_.reserve(int64_t{num_rows} * embedding_.num_chunks());
    nums_likelier_.reserve(int64_t{num_rows} * embedding_.num_chunks());
    peaks_.reserve(int64_t{num_rows} * embedding_.num_panels());
    for (Scratch& scratch : scratch_) scratch.logits.reserve(int64_t{std::min(num_rows, kRowsAtOnce)} * kChunk);
}

void RowReader::run(ThreadTeam& team, int thread) {
    if (in_.num_rows == 0) return;
    Scratch& scratch = scratch_[size_t(thread)];
    const auto wants_rank = [](const RowRequest* request) { return request->wants_rank; };
    if (std::any_of(requests_.begin(), requests_.end(), wants_rank))
        team.for_each(in_.num_rows, [&](int i) { find_target(i, scratch); });
    team.for_each(embedding_.num_chunks(), [&](int chunk) { read_chunk(chunk, scratch); });
}

void RowReader::find_target(int i, Scratch& scratch) {
    const RowRequest& request = *requests_[size_t(i)];
    if (!request.has_target() || !request.wants_rank) return;
    const int panel = request.target / kPanel;
    float logits[kPanel];
    exact_logits(kernels_, embedding_, in_.slice(i, 1), panel, panel + 1, logits, kPanel, scratch.bytes);
    target_logits_[size_t(i)] = logits[request.target % kPanel];
}

void RowReader::read_chunk(int chunk, Scratch& scratch) {
    const auto [first, last] = embedding_.chunk(chunk);
    float* logits = scratch.logits.data();
    for (int row = 0; row < in_.num_rows; row += kRowsAtOnce) {
        const Activations rows = in_.slice(row, std::min(kRowsAtOnce, in_.num_rows - row));
        exact_logits(kernels_, embedding_, rows, first, last, logits, kChunk, scratch.bytes);
        for (int i = 0; i < rows.num_rows; ++i) read(row + i, chunk, logits + i * kChunk);
    }
}

void RowReader::read(int i, int chunk, const float* logits) {
    const RowRequest& request = *requests_[size_t(i)];
    const auto [first, last] = embedding_.chunk(chunk);
    const int first_id = first * kPanel, num_ids = std::min(kChunk, embedding_.vocab_size - first_id);
    const int64_t place = int64_t{i} * embedding_.num_chunks() + chunk;
    masses_[place] = mass_of({logits, nullptr, num_ids});
    if (request.wants_rank)
        nums_likelier_[place] = num_likelier(logits, num_ids, target_logits_[size_t(i)], request.target - first_id);
    if (wants_peaks(request)) find_panel_peaks(logits, last - first, peaks_.data() + int64_t{i} * embedding_.num_panels() + first);
}

double RowReader::log_mass(int i) const {
    return log_mass_of(masses_.data() + int64_t{i} * embedding_.num_chunks(), embedding_.num_chunks());
}

int32_t RowReader::rank(int i) const {
    const int32_t* nums = nums_likelier_.data() + int64_t{i} * embedding_.num_chunks();
    return std::accumulate(nums, nums + embedding_.num_chunks(), 1);
}

}  // namespace gemma3
