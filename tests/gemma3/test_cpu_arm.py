"""The kernels for 64-bit ARM under emulation, and those of this machine, by the C++ program in ``kernel_twins``.

Cross-compiled with the options of the product's own CMakeLists.txt, linked statically, and run as each generation of
processors would run it. It shows that results are right, not how fast they come.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from gemma3 import cpu
from tests.gemma3.program import ROOT

pytestmark = pytest.mark.slow

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"


def build(folder: Path, *options: str) -> Path:
    """The program, compiled as CMake's ``options`` say."""
    needed = ["cmake", *(tool for tool in (COMPILER, EMULATOR) if any(COMPILER in option for option in options))]
    missing = [tool for tool in needed if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    source = ["-S", str(ROOT / "gemma3" / "cpu"), "-B", str(folder)]
    source += ["-G", "Ninja"] if shutil.which("ninja") else []
    for command in (
        ["cmake", *source, "-DGEMMA3_TWINS=ON", "-DGEMMA3_WERROR=ON", *options],
        ["cmake", "--build", str(folder), "--parallel", "2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "kernel_twins"


def run(*command: str) -> list[str]:
    """The instruction sets that were tested."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[0].removeprefix("isas: ").split()


@pytest.fixture(scope="module")
def arm_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(
        tmp_path_factory.mktemp("arm"),
        *("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"),
        *(f"-DCMAKE_CXX_COMPILER={COMPILER}", "-DCMAKE_EXE_LINKER_FLAGS=-static"),
    )


@pytest.mark.parametrize(
    ("processor", "isas"),
    [
        ("cortex-a72", ["portable", "neon"]),
        ("neoverse-n1", ["portable", "neon", "dotprod"]),
        ("max", ["portable", "neon", "dotprod", "i8mm"]),
    ],
)
def test_arm(arm_program: Path, processor: str, isas: list[str]) -> None:
    """Each processor takes the kernels it has, no others, and their results are right."""
    assert run(EMULATOR, "-cpu", processor, str(arm_program)) == isas


def test_this_machine(tmp_path: Path) -> None:
    """The same program, native: so that the program itself is known to be right where nothing is emulated."""
    isas = run(str(build(tmp_path)))
    assert isas[0] == "portable"
    if cpu.why_unavailable() is None:
        from gemma3.cpu import _native

        assert isas == _native.supported_isas()
