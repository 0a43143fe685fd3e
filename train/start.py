"""A run that starts from the weights of another: `init` in the config."""

from __future__ import annotations

from train import checkpoint, parallel
from train.config import TrainConfig
from train.loaded import LoadedModel, load_model
from train.model import CLIP
from train.model.resize import resize_positions
from wit.errors import CheckpointError


def starting_point(config: TrainConfig) -> LoadedModel | None:
    """The model that `init` names, for a run without checkpoints of its own."""
    if config.init is None or checkpoint.marks(config.run):
        return None
    return load_model(config.init)


def take_weights(config: TrainConfig, model: CLIP, source: LoadedModel) -> None:
    """Give `model` the weights of `source`, position embeddings fitted to its pictures.

    Raises:
        CheckpointError: the models differ in more than the picture size.
    """
    theirs, ours = resize_positions(source.clip.state_dict(), config.model), model.state_dict()
    for name in sorted(theirs.keys() | ours.keys()):
        there, here = (list(s[name].shape) if name in s else "missing" for s in (theirs, ours))
        if there != here:
            raise CheckpointError(
                f"init = {config.init}: {name} is {there} there and {here} here;"
                " give the model.* settings of that run, all but image_size"
            )
    parallel.load_model(model, theirs)
