"""The reference path beside transformers: same weights, threads and prompts, alternately in one process.

    python benchmarks/bench_reference.py [--rounds 5] [--dtype bfloat16] [--device cpu]

Prints the median, the spread and the ratio for decode (32-token prompt, 128 new tokens, greedy) and prefill (512 tokens),
the share of the machine's own memory bandwidth, and one JSON line.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import machine
import torch
from transformers import Gemma3ForCausalLM as PeerModel
from transformers import Gemma3TextConfig as PeerConfig

from gemma3.checkpoints import embedded_weights as embedded
from gemma3.checkpoints.checkpoint import open_checkpoint
from gemma3.torch_model.kv_cache import ContiguousKVCache
from gemma3.torch_model.load import load_model
from gemma3.torch_model.model import Gemma3ForCausalLM

NUM_PROMPT, NUM_NEW, NUM_PREFILL = 32, 128, 512


def peer_of(model: Gemma3ForCausalLM) -> PeerModel:
    """A transformers model over copies of our weights, its norms in the model's dtype as transformers has them."""
    config = model.config
    dtype, device = model.model.embed_tokens.weight.dtype, model.model.embed_tokens.weight.device
    shape = {name: getattr(config, name) for name in ("vocab_size", "hidden_size", "intermediate_size", "head_dim")}
    shape |= {
        name: getattr(config, name) for name in ("num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    }
    peer = PeerModel(PeerConfig(**shape, sliding_window=config.sliding_window, query_pre_attn_scalar=256)).to(dtype)
    peer.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()}, strict=False)
    return peer.to(device).eval()


def sync(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def timed(work: Callable[[], object], device: torch.device) -> float:
    sync(device)
    began = time.perf_counter()
    work()
    sync(device)
    return time.perf_counter() - began


@torch.inference_mode()
def our_text(model: Gemma3ForCausalLM, ids: torch.Tensor, num_new: int) -> torch.Tensor:
    cache, chosen = ContiguousKVCache(model.config), []
    token = model.compute_logits(model.step(ids, cache)[-1:]).float().argmax(-1)
    for _ in range(num_new - 1):
        chosen.append(token)
        token = model.compute_logits(model.step(token, cache)[-1:]).float().argmax(-1)
    return torch.cat([*chosen, token])


@torch.inference_mode()
def peer_text(peer: PeerModel, ids: torch.Tensor, num_new: int) -> torch.Tensor:
    out = peer.generate(ids[None], max_new_tokens=num_new, min_new_tokens=num_new, do_sample=False, eos_token_id=None)
    return out[0, len(ids) :]


def measure(model: Gemma3ForCausalLM, peer: PeerModel, rounds: int) -> dict[str, list[float]]:
    """Tokens per second of each round, ours and the peer's alternately. Decode time is the whole less the prefill."""
    device = model.model.embed_tokens.weight.device
    torch.manual_seed(0)
    short, long = (torch.randint(1_000, 200_000, (n,), device=device) for n in (NUM_PROMPT, NUM_PREFILL))
    figures: dict[str, list[float]] = {name: [] for name in ("decode", "decode_peer", "prefill", "prefill_peer")}
    runners = {"": lambda ids, n: our_text(model, ids, n), "_peer": lambda ids, n: peer_text(peer, ids, n)}
    for round_no in range(rounds + 1):
        for suffix, run in runners.items():
            prefill_s = timed(lambda run=run: run(short, 1), device)
            whole_s = timed(lambda run=run: run(short, NUM_NEW), device)
            long_s = timed(lambda run=run: run(long, 1), device)
            if round_no > 0:  # the first round warms up
                figures[f"decode{suffix}"].append((NUM_NEW - 1) / (whole_s - prefill_s))
                figures[f"prefill{suffix}"].append(NUM_PREFILL / long_s)
    return figures


def report(figures: dict[str, list[float]], model: Gemma3ForCausalLM) -> None:
    medians = {name: statistics.median(values) for name, values in figures.items()}
    for name, values in figures.items():
        print(f"{name:14} median {medians[name]:8.1f} tokens/s   [{min(values):.1f}, {max(values):.1f}]")
    ratios = {
        work: statistics.median(map(lambda a, b: a / b, figures[work], figures[f"{work}_peer"]))
        for work in ("decode", "prefill")
    }
    print("ratio          " + ", ".join(f"{work} {ratio:.2f}x" for work, ratio in ratios.items()))
    num_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    share = None
    if model.model.embed_tokens.weight.device.type == "cpu":
        bandwidth = machine.read_bandwidth()
        share = medians["decode"] * num_bytes / bandwidth
        print(f"decode reads {num_bytes / 1e6:.0f} MB a step: {share:.0%} of the measured {bandwidth / 1e9:.1f} GB/s")
    print(json.dumps({"machine": machine.describe(), **medians, "ratios": ratios, "bandwidth_share": share}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--gguf", type=Path, help="another GGUF file than the embedded default")
    args = parser.parse_args()
    checkpoint = open_checkpoint(args.gguf or embedded.embedded_gguf()[0])
    model = load_model(checkpoint, dtype=args.dtype, device=args.device)
    peer = peer_of(model)
    print(f"{machine.describe()}\n{checkpoint.name}, {args.dtype}, {args.device}, {args.rounds} rounds")
    report(measure(model, peer, args.rounds), model)


if __name__ == "__main__":
    main()
