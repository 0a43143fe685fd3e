"""What the SQL of the rules on rows is told: the thresholds, and what a file name looks like."""

from __future__ import annotations

from typing import Any

from pipeline.config import ShardsConfig

# A name with the ending of an image, or what cameras, phones and screens call their pictures.
FILE_NAME = (
    r"^\S+( \S+){0,4}\.(jpe?g|jfif|png|gif|webp|bmp|tiff?|heic|avif|svg|psd)$"
    r"|^(img|dsc[a-z]?|dcim|pict|pic|image|photo|picture|foto|screen ?shot|wp|pxl|mvi|gopr|sam|cimg"
    r"|imag|hpim|scan|unnamed|untitled)[-_ .(]{0,2}[0-9]{3,}"
    r"([-_ .()]*([0-9]+|wa|at|am|pm|copy|edit|edited|scaled|hdr|mp|e|x))*[-_ .()]*$"
)


def repeats_params(config: ShardsConfig) -> dict[str, Any]:
    """What counts as boilerplate."""
    text = config.text
    return {
        "boilerplate_urls": text.boilerplate_urls,
        "boilerplate_domains": text.boilerplate_domains,
    }


def filter_params(config: ShardsConfig) -> dict[str, Any]:
    """The thresholds of 30_filter.sql."""
    text = config.text.model_dump(exclude={"boilerplate_urls", "boilerplate_domains"})
    return {
        **text,
        "file_name_pattern": FILE_NAME,
        "block_extensions": config.url.block_extensions,
        "allow": [pattern.lower() for pattern in config.license.allow],
        "block": [pattern.lower() for pattern in config.license.block],
        "min_side": config.image.declared_min_side,
        "max_aspect": config.image.declared_max_aspect or 2.0**31,
        "keep": config.dedupe.keep,
    }
