"""ONNX Runtime GenAI: its generator over one padded batch."""

import numpy as np
import onnxruntime_genai as og

from workers.protocol import Generate, Watch, serve

MIN_CONTEXT_TOKENS = 512


def load(path: str, num_threads: int) -> Generate:
    config = og.Config(path)
    config.overlay(f'{{"model": {{"decoder": {{"session_options": {{"intra_op_num_threads": {num_threads}}}}}}}}}')
    model = og.Model(config)

    def generate(prompts: list[list[int]], num_new: int, watch: Watch) -> None:
        params = og.GeneratorParams(model)
        length = len(prompts[0]) + num_new
        # Below the sliding window it refuses to run; the end of text is suppressed up to min_length.
        params.set_search_options(
            do_sample=False,
            batch_size=len(prompts),
            min_length=length,
            max_length=max(length, MIN_CONTEXT_TOKENS),
            past_present_share_buffer=True,
        )
        generator = og.Generator(model, params)
        generator.append_tokens(np.array(prompts, np.int32))
        for _ in range(num_new):
            generator.generate_next_token()
            watch.got({i: [int(t)] for i, t in enumerate(generator.get_next_tokens())})

    return generate


if __name__ == "__main__":
    serve(load)
