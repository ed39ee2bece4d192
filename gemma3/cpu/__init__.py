"""The native CPU core: the model of ``gemma3/torch_model/model.py`` on quantised weights, a whole step in one call to C++.

``packed_layout`` says how weights lie in memory, ``packing`` brings any checkpoint into that form, ``packed_file`` keeps it on
disk for the next start, ``model`` computes with it. The C++ is in ``src``, its Python face in ``_native.pyi``; a compiler makes it
when the package is installed. Without one, or on a processor that has no fast kernels, the torch path serves instead.
Nothing here imports torch, and only packing needs numpy.
"""

PORTABLE = "portable"


def why_unavailable() -> str | None:
    """Why the core cannot run at all, in words that end a sentence; ``None`` if it can."""
    try:
        import gemma3.cpu._native  # noqa: F401
    except ModuleNotFoundError:
        return "the native core was not compiled when this package was installed (no C++ compiler, or its build failed)"
    except ImportError as error:
        return f"the native core cannot be loaded ({' '.join(str(error).split())[:200]})"
    return None


def is_available() -> bool:
    """Whether the core can run."""
    return why_unavailable() is None


def why_slow() -> str | None:
    """Why torch may well be faster than the core, or the core cannot run at all; ``None`` where the core has fast kernels."""
    reason = why_unavailable()
    if reason is not None:
        return reason
    from gemma3.cpu import _native

    if _native.supported_isas()[-1] == PORTABLE:
        return "the native core has no fast kernels for this processor"
    return None
