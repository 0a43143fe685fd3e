"""Checkpoints to numbers: zero-shot classification and retrieval with intervals."""
