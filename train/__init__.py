"""Stage two: a corpus directory to a checkpoint. Read `loop.py` first.

    from train import load_model

gives a trained model ready for use, of a run or of anyone's checkpoint (loaded.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.loaded import LoadedModel, load_model

__all__ = ["LoadedModel", "load_model"]


def __getattr__(name: str) -> Any:
    """The public names, imported when first asked for: torch takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from train import loaded

    return getattr(loaded, name)
