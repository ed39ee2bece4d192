"""transformers in float32 or bfloat16: ``MODEL`` is a directory; the dtype is the checkpoint's."""

import torch
import transformers
from transformers.generation.streamers import BaseStreamer

from workers.protocol import Generate, Watch, serve


class _Stream(BaseStreamer):
    """Called with the prompt first, then with one token of each stream."""

    def __init__(self, watch: Watch) -> None:
        self._watch, self._is_prompt = watch, True

    def put(self, value: torch.Tensor) -> None:
        if not self._is_prompt:
            self._watch.got({i: [t] for i, t in enumerate(value.reshape(-1).tolist())})
        self._is_prompt = False

    def end(self) -> None:
        pass


def load(path: str, num_threads: int) -> Generate:
    torch.set_num_threads(num_threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype="auto").eval()

    @torch.inference_mode()
    def generate(prompts: list[list[int]], num_new: int, watch: Watch) -> None:
        model.generate(
            torch.tensor(prompts),
            max_new_tokens=num_new,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            streamer=_Stream(watch),
        )

    return generate


if __name__ == "__main__":
    serve(load)
