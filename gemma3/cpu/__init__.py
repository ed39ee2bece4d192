"""The native CPU core: the model of ``gemma3/torch_model/model.py`` on quantised weights, a whole step in one call to C++.

``packed_layout`` says how weights lie in memory, ``packing`` brings any checkpoint into that form, ``packed_file`` keeps it
on disk for the next start, ``load`` chooses between the two, ``model`` computes. The C++ is in ``src``, its Python face in
``_native.pyi``; it is compiled when the package is installed. Where that failed, or the processor has no fast kernels, the
torch path serves instead. Nothing here imports torch, and only packing needs numpy.
"""

PORTABLE = "portable"


def why_unavailable() -> str | None:
    """Why the core cannot run at all, in words that end a sentence; ``None`` if it can."""
    try:
        import gemma3.cpu._native  # noqa: F401
    except ModuleNotFoundError:
        return f"the native core was not compiled when this package was installed ({_why_not_compiled()})"
    except ImportError as error:
        return f"the native core cannot be loaded ({' '.join(str(error).split())[:200]})"
    return None


def _why_not_compiled() -> str:
    """What compiling needs and this machine lacks now, with the names of Debian's packages."""
    import shutil
    import sysconfig
    from pathlib import Path

    is_here = {
        "a C++ compiler (g++)": any(map(shutil.which, ("c++", "g++", "clang++"))),
        "Python's headers (python3-dev)": (Path(sysconfig.get_path("include")) / "Python.h").is_file(),
    }
    missing = [name for name, found in is_here.items() if not found]
    return f"this machine lacks {' and '.join(missing)}" if missing else "'pip install -v' shows why"


def why_slow() -> str | None:
    """Why torch may well be faster than the core, or the core cannot run at all; ``None`` where the core has fast kernels."""
    reason = why_unavailable()
    if reason is not None:
        return reason
    from gemma3.cpu import _native

    if _native.supported_isas()[-1] == PORTABLE:
        return "the native core has no fast kernels for this processor"
    return None
