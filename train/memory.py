"""How this process deals with main memory."""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt, as in glibc's malloc.h


def keep_freed() -> None:
    """Keep the memory of freed tensors for the next ones; does nothing without glibc.

    By default glibc gives every large block back to the system and takes a new one, whose pages
    the kernel fills with zeros on first touch: at each step, for each activation.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)
