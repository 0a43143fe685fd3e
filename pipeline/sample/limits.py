"""The limits under which the sample is built; its traps are made to fit them."""

from __future__ import annotations

from typing import Any

CAP = 200
"""`balance.cap`: no phrase of the good captions reaches it, one trap's word passes it."""
BOILERPLATE_URLS = 12
"""`text.boilerplate_urls`."""

LIMITS: dict[str, dict[str, Any]] = {
    "text": {"boilerplate_urls": BOILERPLATE_URLS},
    "balance": {"cap": CAP},
    "image": {"min_side": 32},
    "fetch": {
        "timeout": 2.0,
        "deadline": 2.5,
        "max_bytes": 2 * 2**20,
        "backoff": 0.1,
        "host_rate": 0,
    },
}
"""By section of `pipeline.config.ShardsConfig`: small and quick."""
