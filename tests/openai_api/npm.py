"""Packages from the npm registry, for tests that need some."""

import shutil
import subprocess
from pathlib import Path

import pytest


def with_packages(sources: Path, folder: Path) -> Path:
    """``sources`` in ``folder``, with what its ``package.json`` names; skips where that cannot be had."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("npm or node is not installed")
    shutil.copytree(sources, folder, dirs_exist_ok=True)
    command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        pytest.skip(f"npm could not fetch the packages: {done.stderr.strip()[-200:]}")
    return folder
