"""The models. A trained one ready for use: `train.load_model`."""

from train.model.clip import CLIP

__all__ = ["CLIP"]
