"""Features of other models, for probes beside a CLIP model's: timm, or rows of an .npy file.

Figures 6, 10 and 12 of the CLIP paper compare with ResNet-50, BiT-M and others. Neither kind
reads text, so only the tasks `probe` and `fewshot` can be run on them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from eval.evalset import EvalSet, file_sha256
from eval.features import Encoder, ImageFeatures
from wit.errors import ConfigError, InputError, MissingExtra

if TYPE_CHECKING:
    from eval.config import EvalConfig

TASKS = ("probe", "fewshot")


@dataclass(frozen=True)
class TimmModel:
    """A timm model without its classification head, as `eval.features.Model`."""

    net: torch.nn.Module
    transform: Any
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    device: torch.device
    step: int = 0
    logit_scale: float = 1.0
    predictive: bool = False

    def preprocess(self, picture: Image.Image, /) -> NDArray[np.uint8]:
        """timm's own evaluation transform, up to the normalisation."""
        pixels: NDArray[np.uint8] = (self.transform(picture) * 255).round().byte().numpy()
        return pixels

    def tokenize(self, texts: Sequence[str], /) -> NoReturn:
        raise ConfigError("a timm model reads no text")

    def encode_text(self, tokens_BL: Tensor, /) -> NoReturn:
        raise ConfigError("a timm model reads no text")

    def image_features(self, img_BCSS: Tensor, /) -> tuple[Tensor, Tensor]:
        """Pooled features; there is no projection, so both are the same."""
        img_BCSS = img_BCSS.to(self.device).float() / 255
        mean_C11, std_C11 = (img_BCSS.new_tensor(v)[:, None, None] for v in (self.mean, self.std))
        features_BD = self.net((img_BCSS - mean_C11) / std_C11)
        return features_BD, features_BD


def load_timm(spec: str, device: torch.device) -> TimmModel:
    """A model by timm's name, with timm's pre-trained weights or, after @, those of a file.

    Raises:
        MissingExtra: timm is not installed.
        InputError: no such model, or weights that don't fit it.
    """
    try:
        import timm
        from timm.data import create_transform, resolve_model_data_config
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "timm") from None
    name, _, file = spec.partition("@")
    try:
        net = timm.create_model(name, pretrained=not file, num_classes=0)
        if file:
            from safetensors.torch import load_file

            weights = {k: v for k, v in load_file(file).items() if k in net.state_dict()}
            net.load_state_dict(weights)
    except (RuntimeError, OSError, ValueError) as error:
        raise InputError(f"timm:{spec}: {str(error).splitlines()[0]}") from None
    digest = hashlib.sha256(name.encode())
    for key, tensor in sorted(net.state_dict().items()):
        digest.update(key.encode() + tensor.contiguous().numpy().tobytes())
    about = resolve_model_data_config(net)
    plain = {**about, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    return TimmModel(
        net.eval().to(device),
        create_transform(**plain, is_training=False),
        int(about["input_size"][-1]),
        tuple(about["mean"]),
        tuple(about["std"]),
        digest.hexdigest()[:16],
        device,
    )


@dataclass(frozen=True)
class TextlessEncoder(Encoder):
    """An encoder whose model reads no text."""

    @property
    def reads_text(self) -> bool:
        return False

    def preprocessing(self) -> dict[str, Any]:
        return super().preprocessing() | {"transform": "timm's own for the model"}


@dataclass(frozen=True)
class StoredModel:
    """Stands for whatever made the features of a folder."""

    fingerprint: str
    device: torch.device
    image_size: int = 0
    step: int = 0


@dataclass(frozen=True)
class StoredEncoder(Encoder):
    """Features read from FOLDER/SET-SPLIT.npy in place of being computed."""

    folder: Path = Path()

    @property
    def reads_text(self) -> bool:
        return False

    def preprocessing(self) -> dict[str, Any]:
        return {"features": str(self.folder)}

    def images(self, data: EvalSet) -> ImageFeatures:
        """The rows of the file, one for each image of the set, in its order.

        Raises:
            InputError: no such file, no .npy of numbers, or another number of rows.
        """
        file = self.folder / f"{data.name}-{data.split}.npy"
        try:
            x_ND = np.load(file, allow_pickle=False)
        except OSError as error:
            raise InputError(f"{file}: can't be read: {error.strerror or error}") from None
        except ValueError as error:
            raise InputError(f"{file}: not an .npy file of numbers: {error}") from None
        if x_ND.ndim != 2 or x_ND.dtype.kind != "f" or len(x_ND) != len(data.samples):
            raise InputError(
                f"{file}: {x_ND.dtype} of shape {x_ND.shape}, where {len(data.samples)} rows of"
                " floats belong, one for each image"
            )
        x_ND = x_ND.astype(np.float32)
        if not np.isfinite(x_ND).all():
            raise InputError(f"{file}: holds values that are not finite")
        return ImageFeatures(x_ND, x_ND, np.arange(len(x_ND)), ())


def encoder(config: EvalConfig, device: torch.device, make: Callable[..., Encoder]) -> Encoder:
    """The encoder of the trained model, or of what `--extractor` names.

    Args:
        make: `Encoder` with everything given but the model.

    Raises:
        ConfigError: a task that needs texts, with an extractor.
        CheckpointError: no model in `--run`.
        InputError: nothing of use where `--extractor` points to.
    """
    if not config.extractor:
        from train import load_model

        return make(
            load_model(config.run, device, activation=config.activation, vocab=config.vocab)
        )
    for name in config.task or ("zeroshot",):
        if name not in TASKS:
            raise ConfigError(
                f"--extractor reads no text, task {name} does: give --task {' --task '.join(TASKS)}"
            )
    kind, _, what = config.extractor.partition(":")
    if kind == "timm":
        return TextlessEncoder(**vars(make(load_timm(what, device))))
    folder = Path(what)
    files = sorted(folder.glob("*.npy"))
    if not files:
        raise InputError(f"{folder}: no .npy file there; check --extractor")
    digest = hashlib.sha256("".join(file_sha256(file) for file in files).encode())
    stored: Any = StoredModel(digest.hexdigest()[:16], device)
    return StoredEncoder(**vars(make(stored)), folder=folder)


def describe(config: EvalConfig, encoder: Encoder) -> dict[str, Any]:
    """What a result records about the model behind it."""
    from train.cost import image_cost
    from train.loaded import LoadedModel

    model = encoder.model
    about = {"run": str(config.run), "fingerprint": model.fingerprint, "step": model.step}
    if isinstance(model, LoadedModel):
        cost = image_cost(model.config).flops / 1e9
        return about | {"name": model.config.name, "source": model.source, "gflop_image": cost}
    return about | {"run": config.extractor, "name": config.extractor.partition(":")[0]}
