"""The hot pieces of a training step, each beside its plain twin.

`normalise.py`, `contrastive.py` and `pixels.py` hold the plain twins: short, differentiable torch
that is documentation, truth in tests and baseline in bench/. `chunked.py` is the loss in tiles of
library operations, for CPUs; `triton_*.py` hold the GPU kernels; `ops.py` registers both as torch
operators, so that one call serves every device. `train.loss` puts them together.
"""
