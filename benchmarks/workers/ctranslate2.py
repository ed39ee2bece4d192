"""CTranslate2: its generator over one batch, tokens by callback."""

import json
from pathlib import Path

import ctranslate2

from workers.protocol import Generate, Watch, serve


def load(path: str, num_threads: int) -> Generate:
    generator = ctranslate2.Generator(path, device="cpu", compute_type="int8", intra_threads=num_threads)
    vocabulary = json.loads((Path(path) / "vocabulary.json").read_text())

    def generate(prompts: list[list[int]], num_new: int, watch: Watch) -> None:
        def got(result: ctranslate2.GenerationStepResult) -> bool:
            watch.got({result.batch_id: [result.token_id]})
            return False

        generator.generate_batch(
            [[vocabulary[i] for i in ids] for ids in prompts],
            max_length=num_new,
            min_length=num_new,
            sampling_topk=1,
            include_prompt_in_result=False,
            callback=got,
        )

    return generate


if __name__ == "__main__":
    serve(load)
