// What the head must know of a row, which decides how much it reads. A matter of speed alone: every way gives the same token.
#pragma once

#include <algorithm>

#include "row_request.h"

namespace gemma3 {

enum class RowPath {
    kMasked,   // the panels of the few ids that a mask allows: an answer of one word in five costs 50 KB of weights
    kBounded,  // the high plane, 84 MB, which bounds all logits, and the panels whose bounds reach the likeliest ids
    kRead,     // both planes, 168 MB: log probabilities need the sum over all logits, none of which is kept
    kKept,     // both planes, and all logits in memory: a draw from any of them
};

constexpr int kMostBest = 256;  // likeliest ids that are looked for by panels
// Panels that are kept of a row: of rows of real texts, the 256 likeliest ids take 1,617 in the mean, one row in a hundred
// 3,019. Flat rows would take all, a megabyte each; they get all logits, some rows at a time.
constexpr int kMostPanels = 4096;
constexpr int kMostPanelsOfStep = 64 * kMostPanels;  // 16 MiB of logits

// Few panels are at most one in four. Beside others a row costs the ways that read everything less than alone, since they
// unpack a panel once for all of them: then one in sixteen.
inline bool allows_few(const TokenMask& mask, int num_panels, int num_rows) {
    constexpr int kFewShare = 4, kMostSharing = 4;
    const int few = num_panels / (kFewShare * std::min(num_rows, kMostSharing));
    return mask.restricts() && mask.num_panels() <= std::min(few, kMostPanels);
}

// Of one of `num_rows` rows, before a head of `num_panels`.
inline RowPath path_of(const RowRequest& request, int num_panels, int num_rows) {
    const bool is_of_few = request.num_best() > 0 && request.num_best() <= kMostBest;
    if (request.reports()) return request.has_target() || is_of_few ? RowPath::kRead : RowPath::kKept;
    if (allows_few(request.allowed, num_panels, num_rows)) return RowPath::kMasked;
    return is_of_few ? RowPath::kBounded : RowPath::kKept;
}

}  // namespace gemma3
