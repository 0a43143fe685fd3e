"""What a run begins with: samples, vocabulary, and the weights of another run (`init`)."""

from __future__ import annotations

from train import checkpoint, parallel
from train.config import TrainConfig
from train.dist import World
from train.loaded import LoadedModel, load_model
from train.model import CLIP
from train.model.resize import resize_positions
from train.pairs import BadSamples, Pairs
from wit.errors import CheckpointError
from wit.tokenizer import Tokenizer


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


def vocabulary(
    config: TrainConfig, pairs: Pairs, bad: BadSamples, here: World, inherited: Tokenizer | None
) -> Tokenizer:
    """The run's own vocabulary, made by the main process the first time, or that of `init`."""
    path = config.run / "tokenizer.json"
    if here.main and not checkpoint.marks(config.run):
        if inherited is not None:
            inherited.save(path)
        elif config.vocab == "corpus":
            Tokenizer.train(pairs.texts(bad), config.vocab_size).save(path)
        else:
            Tokenizer.load(config.vocab).save(path)
    here.barrier()
    return Tokenizer.load(path)
