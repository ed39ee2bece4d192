"""``benchmarks/export_checkpoint.py``: transformers opens what it writes, and computes the same."""

import importlib
import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gemma3.checkpoints.checkpoint import open_checkpoint
from tests.gemma3 import tiny
from tests.gemma3.program import ROOT


@pytest.mark.parametrize("as_gguf", [False, True])
def test_transformers_opens_the_folder(as_gguf: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    export = importlib.import_module("export_checkpoint").export
    oracle = tiny.oracle_model(tiny.random_shape(random.Random(4)), 4)
    folder = tiny.save_directory(tmp_path / "model", oracle)
    model = tiny.save_gguf(tmp_path / "model.gguf", oracle) if as_gguf else folder
    export(str(model), tmp_path / "exported", tokenizer=folder, dtype="float32")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "exported", attn_implementation="eager")
    token_ids = torch.tensor([[2, 9, 300, 17, 41, 5, 8, 110]])
    torch.testing.assert_close(exported(token_ids).logits, oracle(token_ids).logits)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "exported")
    ours = open_checkpoint(folder).load_tokenizer()
    assert tokenizer("ab\u00e9", add_special_tokens=False).input_ids == ours.encode("ab\u00e9")


def test_wrong_flags_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setattr("sys.argv", ["export_checkpoint.py", "folder"])
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module("export_checkpoint").main()
    words = "export_checkpoint.py: error: the following arguments are required: --tokenizer\n"
    assert capsys.readouterr().err == words


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    export = importlib.import_module("export_checkpoint").export
    model = tiny.save_directory(tmp_path / "model", tiny.oracle_model(tiny.random_shape(random.Random(4)), 4))
    with pytest.raises(ValueError, match=r"holds no tokenizer\.json"):
        export(str(model), tmp_path / "exported", tokenizer=tmp_path, dtype="float32")
    assert not (tmp_path / "exported").exists()
