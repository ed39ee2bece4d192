"""GGUF checkpoints as other tools leave them: in parts, without a suffix, with other keys or fewer,
with a head."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from gemma3.checkpoints.checkpoint import open_checkpoint
from gemma3.checkpoints.gguf_checkpoint import GGUFCheckpoint
from gemma3.checkpoints.gguf_head import is_same_up_to_rounding
from gemma3.checkpoints.locate import locate_weights
from gemma3.checkpoints.tensor_names import EMBEDDING, HEAD
from gemma3.config import FULL, SLIDING, Gemma3TextConfig
from gemma3.cpu.load import load_packed
from gemma3.errors import CheckpointError, ConfigError, Gemma3Error
from gemma3.files.ggml_types import BLOCK_SIZES, GGMLType
from gemma3.torch_model.load import load_model
from tests.gemma3 import tiny
from tests.gemma3.gguf_files import Tensors, write_gguf

SHAPE = {
    "vocab_size": tiny.VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "sliding_window": 512,
    "query_pre_attn_scalar": 32,
    "max_position_embeddings": 32_768,
}
MODEL = tiny.oracle_model(SHAPE, 5)
CONFIG = tiny.config_of(MODEL)
ENTRIES = tiny.gguf_entries(tiny.weights_of(MODEL))
NUM_PARTS = 3


def written(
    path: Path, changes: dict[str, Any] | None = None, entries: Tensors | None = None, *, without: tuple[str, ...] = ()
) -> Path:
    metadata = tiny.gguf_metadata(CONFIG) | (changes or {})
    kept = {key: value for key, value in metadata.items() if key not in without}
    return write_gguf(path, kept, ENTRIES if entries is None else entries)


def values_of(checkpoint: GGUFCheckpoint) -> dict[str, bytes]:
    return {name: checkpoint.read_rows(name, slice(None)).tobytes() for name in checkpoint.tensor_names}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> GGUFCheckpoint:
    return GGUFCheckpoint.open(written(tmp_path_factory.mktemp("whole") / "model.gguf"))


# Keys

OPTIONAL = [
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "rope.freq_base",
]


@pytest.mark.parametrize("keys", [[key] for key in OPTIONAL] + [OPTIONAL], ids=lambda keys: "+".join(keys)[:40])
def test_a_missing_key_is_told_from_the_tensors_or_is_as_in_270m(tmp_path: Path, keys: list[str]) -> None:
    path = written(tmp_path / "x.gguf", without=tuple(f"gemma3.{key}" for key in keys))
    found = GGUFCheckpoint.open(path).config
    assert found.rms_norm_eps == pytest.approx(1e-6)  # the file has it as float32
    assert replace(found, rms_norm_eps=1e-6) == CONFIG


ROPE = {"gemma3.rope.global.freq_base": 5e5, "gemma3.rope.local.freq_base": 2e4}


def test_ollamas_keys_of_rope(tmp_path: Path) -> None:
    config = GGUFCheckpoint.open(written(tmp_path / "x.gguf", ROPE, without=("gemma3.rope.freq_base",))).config
    assert (config.rope_theta, config.rope_local_theta) == (5e5, 2e4)


def test_llama_cpps_key_of_the_local_base(tmp_path: Path) -> None:
    path = written(tmp_path / "x.gguf", {"gemma3.rope.freq_base_swa": 3e4, "gemma3.rope.freq_base": 1_000_000})
    config = GGUFCheckpoint.open(path).config
    assert (config.rope_theta, config.rope_local_theta) == (1e6, 3e4)


@pytest.mark.parametrize("pattern", [3, [True, False, True, False, True, True, False]], ids=["period", "by layer"])
def test_which_layers_slide(tmp_path: Path, pattern: int | list[bool]) -> None:
    path = written(tmp_path / "x.gguf", {"gemma3.attention.sliding_window_pattern": pattern})
    slides = pattern if isinstance(pattern, list) else [(i + 1) % pattern != 0 for i in range(7)]
    assert GGUFCheckpoint.open(path).config.layer_types == tuple(SLIDING if each else FULL for each in slides)


def test_a_size_may_be_given_by_layer(tmp_path: Path) -> None:
    path = written(tmp_path / "x.gguf", {"gemma3.attention.head_count": [4] * 7})
    assert GGUFCheckpoint.open(path).config.num_attention_heads == 4


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "two bases": (ROPE, "gemma3.rope.freq_base=1000000.0 and gemma3.rope.global.freq_base=500000.0 differ"),
    "heads by layer": (
        {"gemma3.attention.head_count": [4, 4, 2]},
        "gemma3.attention.head_count is [4, 4, 2]; one number",
    ),
    "pattern": (
        {"gemma3.attention.sliding_window_pattern": [True] * 6},
        "has 6 values, must have a bool for each of 7",
    ),
    "eps": ({"gemma3.attention.layer_norm_rms_epsilon": "small"}, "is 'small', must be a float"),
    "infinite": ({"gemma3.rope.freq_base": float("inf")}, "'gemma3.rope.freq_base' is inf, must be in"),
    "negative": ({"gemma3.rope.freq_base": -1.0}, "rope_theta=-1.0 is not allowed"),
    "softcap": ({"gemma3.final_logit_softcapping": 30.0}, "gemma3.final_logit_softcapping=30.0 is not implemented"),
    "softcap 1": ({"gemma3.attn_logit_softcapping": 1.0}, "gemma3.attn_logit_softcapping=1.0 is not implemented"),
    "scaled": ({"gemma3.rope.scaling.factor": 8.0}, "gemma3.rope.scaling.factor=8.0 is not implemented"),
    "both ways": ({"gemma3.attention.causal": False}, "gemma3.attention.causal=False is not implemented"),
    "gemma2": ({"general.architecture": "gemma2"}, "general.architecture is 'gemma2', Gemma 2, not Gemma 3 text"),
    "gemma3n": ({"general.architecture": "gemma3n"}, "general.architecture is 'gemma3n', Gemma 3n, not Gemma 3 text"),
    "llama": (
        {"general.architecture": "llama"},
        "general.architecture is 'llama', not Gemma 3 text; 'gemma3' is needed",
    ),
    "mmproj": ({"general.architecture": "clip"}, "'clip', the image part of a multimodal model (mmproj), not Gemma 3"),
    "adapter": ({"general.type": "adapter"}, "general.type='adapter' is no model"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_metadata_is_refused_by_key(tmp_path: Path, kind: str) -> None:
    changes, words = REFUSED[kind]
    with pytest.raises(Gemma3Error) as caught:
        open_checkpoint(written(tmp_path / "x.gguf", changes))
    assert str(caught.value).startswith("x.gguf: ") or isinstance(caught.value, ConfigError)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


# The file


@pytest.mark.parametrize("name", ["sha256-0123abc", "MODEL.GGUF", "model.Gguf", "0123abc"])
def test_a_file_is_told_by_its_first_bytes(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name)
    (tmp_path / "params").write_text("{}")
    for given in (path, tmp_path):
        checkpoint = open_checkpoint(given)
        assert isinstance(checkpoint, GGUFCheckpoint)
        assert checkpoint.path == path


def test_several_models_in_a_folder_are_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.gguf")
    shutil.copy(path, tmp_path / "mmproj-a.gguf")
    assert open_checkpoint(tmp_path).name == "a", "the image part is no choice"
    shutil.copy(path, tmp_path / "b.GGUF")
    with pytest.raises(CheckpointError, match=r"holds 2 GGUF models \(a\.gguf, b\.GGUF\); give the path of one"):
        open_checkpoint(tmp_path)


# Parts


def part_name(number: int, count: int = NUM_PARTS, name: str = "m") -> str:
    return f"{name}-{number:05d}-of-{count:05d}.gguf"


def part(number: int, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metadata and tensors of part ``number``, from 1, as gguf-split writes them."""
    entries = {name: entry for i, (name, entry) in enumerate(ENTRIES.items()) if i % NUM_PARTS == number - 1}
    metadata: dict[str, Any] = {"split.no": np.uint16(number - 1), "split.count": np.uint16(NUM_PARTS)}
    metadata |= {"split.tensors.count": np.int32(len(ENTRIES))} | changes
    return (tiny.gguf_metadata(CONFIG) | metadata if number == 1 else metadata), entries


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    return [write_gguf(tmp_path / part_name(number), *part(number)) for number in range(1, NUM_PARTS + 1)]


@pytest.mark.parametrize("given", [0, 1, 2, None])
def test_any_part_or_their_folder_is_the_whole(parts: list[Path], whole: GGUFCheckpoint, given: int | None) -> None:
    checkpoint = open_checkpoint(parts[0].parent if given is None else parts[given])
    assert isinstance(checkpoint, GGUFCheckpoint)
    assert checkpoint.config == whole.config
    assert checkpoint.weight_files == parts
    assert checkpoint.name == "m"
    assert given is None or locate_weights(str(parts[given])).name == "m"
    assert values_of(checkpoint) == values_of(whole)
    assert checkpoint.load_tokenizer().encode("abc") == whole.load_tokenizer().encode("abc")
    checkpoint.drop_pages()


def test_the_first_part_may_hold_metadata_alone(parts: list[Path], whole: GGUFCheckpoint) -> None:
    (metadata, one), (_, two) = part(1), part(2)
    write_gguf(parts[0], metadata, {})
    write_gguf(parts[1], part(2)[0], one | two)
    assert values_of(GGUFCheckpoint.open(parts[1])) == values_of(whole)


def rewritten(number: int, entries: Tensors | None = None, **changes: Any) -> Callable[[list[Path]], object]:
    metadata, own = part(number, **changes)
    return lambda paths: write_gguf(paths[number - 1], metadata, own if entries is None else entries)


OTHER_ENTRIES = part(2)[1] | {"token_embd.weight": ENTRIES["token_embd.weight"]}
BAD_PARTS: dict[str, tuple[Callable[[list[Path]], object], str]] = {
    "first missing": (lambda paths: paths[0].unlink(), f"{part_name(1)}: this part of the split model"),
    "last missing": (lambda paths: paths[2].unlink(), f"{part_name(3)}: this part of the split model"),
    "cut": (lambda paths: paths[2].write_bytes(paths[2].read_bytes()[:-64]), f"{part_name(3)}: tensor"),
    "other number": (rewritten(3, **{"split.no": np.uint16(1)}), "has split.no=1 and split.count=3, must be 2 and 3"),
    "no part": (
        lambda paths: write_gguf(paths[2], {}, part(3)[1]),
        "has split.no=None and split.count=None, must be 2",
    ),
    "other count": (
        rewritten(3, **{"split.count": np.uint16(4)}),
        "split.count=4, must be 2 and 3: it does not belong to",
    ),
    "other model": (
        rewritten(3, **{"general.architecture": "llama"}),
        "is 'llama', but 'gemma3' in m-00001-of-00003.gguf",
    ),
    "other total": (rewritten(3, **{"split.tensors.count": np.int32(7)}), "split.tensors.count is 7, but"),
    "tensor twice": (rewritten(2, OTHER_ENTRIES), "tensor 'token_embd.weight' is there and in m-00001-of-00003.gguf"),
    "tensor lost": (rewritten(2, {}), f"split.tensors.count is {len(ENTRIES)}, but its parts hold"),
}


@pytest.mark.parametrize("kind", BAD_PARTS)
def test_parts_that_do_not_belong_together(parts: list[Path], kind: str) -> None:
    damage, words = BAD_PARTS[kind]
    damage(parts)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(parts[1])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["renamed.gguf", part_name(3), part_name(2, 4)])
def test_a_part_of_another_name_says_its_own(parts: list[Path], name: str) -> None:
    path = parts[1].rename(parts[1].with_name(name))
    with pytest.raises(
        CheckpointError, match="is part 2 of 3 of a split model, so its name must end in -00002-of-00003"
    ):
        open_checkpoint(path)


@pytest.mark.parametrize("count", [0, 1])
def test_a_split_into_one_file_has_any_name(tmp_path: Path, count: int) -> None:
    assert open_checkpoint(written(tmp_path / "x.gguf", {"split.count": np.uint16(count)})).name == "x"


# A head of its own


def head_of(kind: str, change: float = 0.0, row: slice = slice(None)) -> tuple[int, tuple[int, ...], bytes]:
    """The embedding once more, in another type; ``change`` is added to some of its rows."""
    values = tiny.weights_of(MODEL)[EMBEDDING].numpy().copy()
    values[row] += change
    quantised = gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind])
    return (GGMLType[kind], values.shape, np.ascontiguousarray(quantised).tobytes())


OWN_HEAD = r"^x\.gguf: output\.weight differs from token_embd\.weight; this model ties them"
QUANTISABLE = ["F32", "F16", "BF16", "Q8_0", "Q5_0", "Q5_1", "Q4_0", "Q4_1", "MXFP4"]


@pytest.mark.parametrize("kind", QUANTISABLE)
@pytest.mark.parametrize("embedding", ["F32", "Q8_0", "Q4_0"])
def test_the_embedding_once_more_is_no_head(tmp_path: Path, kind: str, embedding: str) -> None:
    entries = ENTRIES | {"token_embd.weight": head_of(embedding), "output.weight": head_of(kind)}
    checkpoint = GGUFCheckpoint.open(written(tmp_path / "x.gguf", entries=entries))
    assert HEAD not in checkpoint.tensor_names
    checkpoint.read_rows(EMBEDDING, slice(0, 100))
    assert HEAD not in checkpoint.load_arrays("bfloat16", lambda *_: None)


@pytest.mark.parametrize("kind", QUANTISABLE)
@pytest.mark.parametrize("rows", [slice(None), slice(361, 362)], ids=["all rows", "one row"])
def test_a_head_of_its_own_is_refused_by_name(tmp_path: Path, kind: str, rows: slice) -> None:
    entries = ENTRIES | {"output.weight": head_of(kind, 0.3, rows)}
    checkpoint = GGUFCheckpoint.open(written(tmp_path / "x.gguf", entries=entries))
    with pytest.raises(CheckpointError, match=OWN_HEAD):
        checkpoint.read_rows(EMBEDDING, slice(None))


def test_no_model_is_made_without_its_own_head(tmp_path: Path) -> None:
    entries = ENTRIES | {"output.weight": head_of("Q8_0", 0.3, slice(361, 362))}
    checkpoint = GGUFCheckpoint.open(written(tmp_path / "x.gguf", entries=entries))
    with pytest.raises(CheckpointError, match=OWN_HEAD):
        load_model(checkpoint)
    with pytest.raises(CheckpointError, match=OWN_HEAD):
        load_packed(checkpoint, "int8", cache_dir=tmp_path)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0"])
def test_two_copies_of_one_type_must_be_equal(tmp_path: Path, kind: str) -> None:
    entries = ENTRIES | {"token_embd.weight": head_of(kind), "output.weight": head_of(kind, 0.01, slice(7, 8))}
    with pytest.raises(CheckpointError, match=r"output\.weight differs"):
        GGUFCheckpoint.open(written(tmp_path / "x.gguf", entries=entries)).read_rows(EMBEDDING, slice(None))


def test_what_rounding_changes_is_within_the_bound() -> None:
    """The bound of ``gguf_head``: 4 times 2 ** -b of a row's length, for b bits a value."""
    values = torch.randn(64, 1024, generator=torch.Generator().manual_seed(0)).numpy()
    for kind in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4"):
        theirs = gguf.GGMLQuantizationType[kind]
        rounded = gguf.quants.dequantize(gguf.quants.quantize(values, theirs), theirs)
        errors = np.linalg.norm(rounded - values, axis=1) / np.linalg.norm(values, axis=1)
        block = BLOCK_SIZES[GGMLType[kind]]
        assert 1.5 < errors.max() * 2 ** (8 * block.num_bytes / block.num_values) < 4


@pytest.mark.parametrize("kind", [GGMLType.TQ1_0, GGMLType.IQ1_S, GGMLType.Q2_K], ids=lambda kind: kind.name)
def test_unrelated_rows_are_no_rounding_of_the_coarsest_type(kind: GGMLType) -> None:
    one, other = np.random.default_rng(0).standard_normal((2, 64, 256), np.float32)
    assert not is_same_up_to_rounding(one, other, [kind, kind])


def test_the_defaults_are_those_of_270m() -> None:
    assert Gemma3TextConfig.context_length == SHAPE["max_position_embeddings"]
    assert Gemma3TextConfig.sliding_window == SHAPE["sliding_window"]
