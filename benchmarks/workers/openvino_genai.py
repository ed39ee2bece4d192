"""OpenVINO GenAI: its continuous batching pipeline, step by step, for one stream and for many."""

import numpy as np
import openvino
import openvino_genai as ov

from workers.protocol import Generate, Watch, serve

CACHE_GB = 1


def load(path: str, num_threads: int) -> Generate:
    scheduler = ov.SchedulerConfig()
    scheduler.cache_size = CACHE_GB
    scheduler.max_num_batched_tokens = 4096
    scheduler.max_num_seqs = 64
    scheduler.enable_prefix_caching = False
    pipeline = ov.ContinuousBatchingPipeline(path, scheduler, "CPU", {"INFERENCE_NUM_THREADS": num_threads})

    def generate(prompts: list[list[int]], num_new: int, watch: Watch) -> None:
        params = ov.GenerationConfig(max_new_tokens=num_new, ignore_eos=True, do_sample=False)
        handles = [
            pipeline.add_request(i, openvino.Tensor(np.array([ids], np.int64)), params) for i, ids in enumerate(prompts)
        ]
        while pipeline.has_non_finished_requests():
            pipeline.step()
            ready = {i: handle for i, handle in enumerate(handles) if handle.can_read()}
            watch.got({i: next(iter(handle.read().values())).generated_ids for i, handle in ready.items()})

    return generate


if __name__ == "__main__":
    serve(load)
