"""The small teaching loop: a prompt in, text out, one sequence at a time.

Prefill once, then decode token by token through a KV cache. The server's engine does the same for many sequences at once.
"""

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gemma3.text.tokenizer import Gemma3Tokenizer
from gemma3.torch_model.kv_cache import ContiguousKVCache
from gemma3.torch_model.model import Gemma3ForCausalLM


@dataclass(frozen=True, slots=True)
class Chunk:
    """One generated token and the text that became certain with it (often, not always, the token's own)."""

    token_id: int
    text: str


class Gemma3Generator:
    """Text from a model and its tokenizer.

    Worked example::

        generator = Gemma3Generator(model, tokenizer)
        generator.generate("The capital of France is", max_new_tokens=8)
    """

    def __init__(
        self, model: Gemma3ForCausalLM, tokenizer: Gemma3Tokenizer, *, device: torch.device | str | None = None
    ) -> None:
        self.model = model if device is None else model.to(device)
        self.tokenizer = tokenizer
        self.device = model.model.embed_tokens.weight.device

    def generate(self, prompt: str | Sequence[int], **settings: object) -> str:
        """The whole continuation; takes the settings of ``stream``."""
        return "".join(chunk.text for chunk in self.stream(prompt, **settings))  # type: ignore[arg-type]

    def stream(
        self,
        prompt: str | Sequence[int],
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: str | Sequence[str] = (),
        stop_token_ids: Sequence[int] = (),
        seed: int | None = None,
    ) -> Iterator[Chunk]:
        """Yield the continuation of ``prompt`` (text, or token ids with BOS) as it is made.

        ``temperature`` 0 is argmax. Ends at the model's end token, a stop token, a stop string (which is not part of the text)
        or ``max_new_tokens``. A prompt that leaves no room in the context is cut to its last tokens.
        """
        token_ids = self.tokenizer.encode(prompt, add_bos=True) if isinstance(prompt, str) else list(prompt)
        sampler = Sampler(temperature, top_k, top_p, seed, self.device)
        ends = {self.tokenizer.eos_token_id, *stop_token_ids}
        text = StopText([stop] if isinstance(stop, str) else list(stop))
        for token_id in self._tokens(token_ids, max_new_tokens, sampler):
            if token_id in ends:
                break
            yield Chunk(token_id, text.push(self.tokenizer.token_to_bytes(token_id)))
            if text.is_stopped:
                return
        yield Chunk(self.tokenizer.eos_token_id, text.finish())

    @torch.inference_mode()
    def _tokens(self, token_ids: list[int], max_new_tokens: int, sampler: "Sampler") -> Iterator[int]:
        """Token ids without end. The context restarts from its newer half when it is full."""
        context = self.model.config.context_length
        token_ids = list(window(token_ids, context, max_new_tokens))
        cache, num_computed = ContiguousKVCache(self.model.config), 0
        for _ in range(max_new_tokens):
            if len(token_ids) > context:
                token_ids, cache, num_computed = (
                    token_ids[-(context // 2 + 1) :],
                    ContiguousKVCache(self.model.config),
                    0,
                )
            new_T = torch.tensor(token_ids[num_computed:], device=self.device)
            hidden_TD = self.model.step(new_T, cache)
            num_computed = len(token_ids)
            token_ids.append(sampler(self.model.compute_logits(hidden_TD[-1:])[0]))
            yield token_ids[-1]


def window(token_ids: Sequence[int], context_length: int, max_new_tokens: int) -> Sequence[int]:
    """The last tokens of a prompt that leave room for the answer, but at least half a context of them."""
    room = max(context_length - max_new_tokens, context_length // 2, 1)
    return token_ids[-room:]


class Sampler:
    """Temperature, then top-k, then top-p, then one draw."""

    def __init__(
        self, temperature: float, top_k: int | None, top_p: float | None, seed: int | None, device: torch.device
    ) -> None:
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self.random = torch.Generator(device)
        if seed is None:
            self.random.seed()
        else:
            self.random.manual_seed(seed)

    def __call__(self, logits_V: Tensor) -> int:
        if self.temperature == 0:
            return int(logits_V.float().argmax())  # argmax of bfloat16 is ten times slower
        values, ids = (logits_V.float() / self.temperature).sort(descending=True, stable=True)
        values, ids = values[: self.top_k or None], ids[: self.top_k or None]
        probs = values.softmax(-1)
        if self.top_p is not None:
            # Keep a token while the mass before it is below top_p: the likeliest one always stays.
            probs = probs * (probs.cumsum(-1) - probs < self.top_p)
        return int(ids[torch.multinomial(probs, 1, generator=self.random)])


class StopText:
    """Bytes to text; holds back half a character, and what may still be the start of a stop string."""

    def __init__(self, stop: list[str]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = [text for text in stop if text]
        self._held = ""
        self.is_stopped = False

    def push(self, piece: bytes, *, final: bool = False) -> str:
        self._held += self._decoder.decode(piece, final)
        found = [at for at in (self._held.find(text) for text in self._stop) if at >= 0]
        if found:
            self.is_stopped = True
            ready, self._held = self._held[: min(found)], ""
            return ready
        keep = 0 if final else self._num_held()
        ready, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return ready

    def finish(self) -> str:
        return self.push(b"", final=True)

    def _num_held(self) -> int:
        """Length of the longest end of the text that begins a stop string."""
        longest = max((len(text) for text in self._stop), default=1) - 1
        for num in range(min(longest, len(self._held)), 0, -1):
            if any(text.startswith(self._held[-num:]) for text in self._stop):
                return num
        return 0
