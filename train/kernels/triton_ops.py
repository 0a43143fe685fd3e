"""What `ops.py` and `train.loss` call of the Triton kernels, under the names of `chunked.py`."""

from train.kernels.triton_contrastive import sigmoid_pass, softmax_gradients, softmax_sweep
from train.kernels.triton_normalise import normalise, normalise_backward

__all__ = [
    "normalise",
    "normalise_backward",
    "sigmoid_pass",
    "softmax_gradients",
    "softmax_sweep",
]
