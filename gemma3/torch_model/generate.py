"""The small teaching loop: a prompt in, text out, one sequence at a time.

Prefill once, then decode token by token through a KV cache. The server's engine does the same for many sequences at once,
and makes the same greedy text; its random numbers are others, so a seed gives another text here. One thread.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gemma3.text.detokenizer import Detokenizer
from gemma3.text.tokenizer import Gemma3Tokenizer
from gemma3.text.window import window
from gemma3.torch_model.kv_cache import ContiguousKVCache
from gemma3.torch_model.model import Gemma3ForCausalLM


@dataclass(frozen=True, slots=True)
class GeneratedToken:
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

    def generate(
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
    ) -> str:
        """The whole continuation; ``stream`` says what the settings do."""
        tokens = self.stream(
            prompt,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            stop=stop,
            stop_token_ids=stop_token_ids,
            seed=seed,
        )
        return "".join(token.text for token in tokens)

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
    ) -> Iterator[GeneratedToken]:
        """Yield the continuation of ``prompt`` (text, or token ids with BOS) as it is made.

        ``temperature`` 0 is argmax. Ends at the model's end token, a stop token, a stop string (which is not part of the text)
        or ``max_new_tokens``. A prompt that leaves no room in the context is cut to its last tokens.
        """
        token_ids = self.tokenizer.encode(prompt, add_bos=True) if isinstance(prompt, str) else list(prompt)
        sampler = Sampler(temperature, top_k, top_p, seed, self.device)
        ends = {self.tokenizer.eos_token_id, *stop_token_ids}
        stops = [stop] if isinstance(stop, str) else stop
        text = Detokenizer(self.tokenizer.token_to_bytes, stop=tuple(each for each in stops if each))
        for token_id in self._tokens(token_ids, max_new_tokens, sampler):
            if token_id in ends:
                break
            yield GeneratedToken(token_id, text.push(token_id))
            if text.stop_match is not None:
                return
        yield GeneratedToken(self.tokenizer.eos_token_id, text.finish())

    @torch.inference_mode()
    def _tokens(self, token_ids: list[int], max_new_tokens: int, sampler: "Sampler") -> Iterator[int]:
        """Token ids without end. The context restarts from its newer half when it is full."""
        context = self.model.config.context_length
        token_ids = list(window(token_ids, context_length=context, max_new_tokens=max_new_tokens))
        cache, num_computed = ContiguousKVCache(self.model.config), 0
        for _ in range(max_new_tokens):
            if len(token_ids) > context:
                token_ids = token_ids[-(context // 2 + 1) :]
                cache, num_computed = ContiguousKVCache(self.model.config), 0
            new_T = torch.tensor(token_ids[num_computed:], device=self.device)
            hidden_TD = self.model.step(new_T, cache)
            num_computed = len(token_ids)
            token_ids.append(sampler(self.model.compute_logits(hidden_TD[-1:])[0]))
            yield token_ids[-1]


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
