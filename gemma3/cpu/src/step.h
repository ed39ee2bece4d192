// What lives for one step of the model: its rows, a row for each token.
#pragma once

#include <cstdint>
#include <vector>

#include "attention.h"
#include "buffers.h"
#include "input_squares.h"
#include "weights.h"

namespace gemma3 {

struct RowPlace {
    int32_t token_id;
    int position;
    const Segment* segment;
};

// Memory stays from step to step and grows; `begin` makes all of it the next step's.
struct Step {
    // Strides that are no multiples of 4 KiB, which would put all rows into the same few lines of the caches.
    explicit Step(const ModelConfig& config)
        : residual(round_up(config.hidden_size, kGroup)),
          qkv(config.qkv_size() + kPanel),
          attended(round_up(config.q_size(), kGroup)),
          projected(round_up(config.hidden_size, kGroup)),
          gate_up(2 * config.mlp_size() + kPanel),
          queries(config.num_heads * config.padded_head_dim()),
          gated_inputs_(round_up(config.intermediate_size, kGroup)) {}

    // The segments must live as long as the step. `observer` may be null.
    void begin(const std::vector<int32_t>& token_ids, const std::vector<Segment>& segments, InputSquares* new_observer) {
        observer = new_observer;
        places.clear();
        last_position = 0;
        for (const Segment& segment : segments)
            for (int i = 0; i < segment.num_tokens; ++i) {
                const int position = segment.start_position + i;
                places.push_back({token_ids[places.size()], position, &segment});
                last_position = position > last_position ? position : last_position;
            }
        reserve_rows(int(token_ids.size()));
    }

    int num_rows() const { return int(places.size()); }

    std::vector<RowPlace> places;  // by row
    int last_position = 0;
    InputSquares* observer = nullptr;

    RowBuffer<float> residual, qkv, attended, projected, gate_up;
    RowBuffer<uint16_t> queries;                      // bfloat16, scaled: (heads, padded head_dim)
    Activations hidden_in, attended_in, gated_in;     // quantised: of qkv and gate_up, of o, of down

private:
    void reserve_rows(int num_rows) {
        for (RowBuffer<float>* rows : {&residual, &qkv, &attended, &projected, &gate_up}) rows->reserve(num_rows);
        queries.reserve(num_rows);
        hidden_in = hidden_memory_.of(num_rows, int(residual.stride()));
        attended_in = attended_memory_.of(num_rows, int(attended.stride()));
        gated_in = gated_memory_.of(num_rows, gated_inputs_);
    }

    const int gated_inputs_;
    ActivationBuffer hidden_memory_, attended_memory_, gated_memory_;
};

}  // namespace gemma3
