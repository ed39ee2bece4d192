"""llama.cpp through the C functions that llama-cpp-python binds: all streams in one batch, as ``llama-batched-bench`` does."""

import ctypes

import llama_cpp as c
import numpy as np

from workers.protocol import Generate, Watch, serve

BATCH_TOKENS, CONTEXT_TOKENS, STREAM_TOKENS = 2048, 4096, 128


@c.llama_log_callback
def _silent(level: int, text: bytes, data: object) -> None:
    pass


def load(path: str, num_threads: int) -> Generate:
    c.llama_log_set(_silent, ctypes.c_void_p(0))
    c.llama_backend_init()
    model = c.llama_model_load_from_file(path.encode(), c.llama_model_default_params())
    assert model, f"{path} was refused"
    vocab_size = c.llama_vocab_n_tokens(c.llama_model_get_vocab(model))
    batch = c.llama_batch_init(BATCH_TOKENS, 0, 1)
    contexts: dict[int, object] = {}

    def new_context(num_streams: int) -> object:
        """Each stream has cells of its own: faster than one pool for all."""
        params = c.llama_context_default_params()
        params.n_ctx = CONTEXT_TOKENS if num_streams == 1 else num_streams * STREAM_TOKENS
        params.n_seq_max = num_streams
        params.n_batch = BATCH_TOKENS
        params.n_threads = params.n_threads_batch = num_threads
        params.swa_full = False
        return c.llama_init_from_model(model, params)

    def step(context: object, tokens: list[tuple[int, int, int, bool]]) -> None:
        """``tokens``: id, position, stream, whether its logits are wanted."""
        batch.n_tokens = len(tokens)
        for i, (token_id, position, stream, is_last) in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token_id, position, is_last
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, stream
        assert c.llama_decode(context, batch) == 0, "llama_decode failed"

    def choose(context: object, index: int) -> int:
        logits = np.ctypeslib.as_array(c.llama_get_logits_ith(context, index), (vocab_size,))
        return int(logits.argmax())

    def generate(prompts: list[list[int]], num_new: int, watch: Watch) -> None:
        num = len(prompts)
        if num not in contexts:
            contexts[num] = new_context(num)
        context = contexts[num]
        c.llama_memory_clear(c.llama_get_memory(context), 0)
        tokens = [(t, p, s, p == len(ids) - 1) for s, ids in enumerate(prompts) for p, t in enumerate(ids)]
        lasts = [i for i, token in enumerate(tokens) if token[3]]
        position = len(prompts[0])
        step(context, tokens)
        for _ in range(num_new):
            chosen = [choose(context, i) for i in lasts]
            watch.got({s: [t] for s, t in enumerate(chosen)})
            if len(watch.token_ids[0]) < num_new:
                step(context, [(t, position, s, True) for s, t in enumerate(chosen)])
                lasts, position = list(range(num)), position + 1

    return generate


if __name__ == "__main__":
    serve(load)
