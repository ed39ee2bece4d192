"""ONNX Runtime GenAI's model builder, run by the Python that has it, with its reading of Gemma 3's RoPE put right.

    python benchmarks/convert_onnx.py -i hf -o ort-int8 -p int8 -e cpu -c cache

The builder (0.18) takes ``rope_parameters`` for one flat table; transformers 5 keeps one for each type of layer.
"""

import runpy
import sys
from pathlib import Path

import onnxruntime_genai

FOLDER = Path(onnxruntime_genai.__file__).parent / "models"
sys.path.insert(0, str(FOLDER))

from builders.gemma import Gemma3Model  # noqa: E402

_init = Gemma3Model.__init__


def _init_with_thetas(self: Gemma3Model, config: object, *args: object) -> None:
    config.rope_theta = config.rope_parameters["full_attention"]["rope_theta"]
    config.rope_local_base_freq = config.rope_parameters["sliding_attention"]["rope_theta"]
    _init(self, config, *args)


Gemma3Model.__init__ = _init_with_thetas
Gemma3Model.make_rope_init = lambda self, config: None
runpy.run_path(str(FOLDER / "builder.py"), run_name="__main__")
