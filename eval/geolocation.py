"""The task `geolocation`: where a picture was taken, by its nearest neighbour (table 17).

Every image of the set gets the place of the image of split train whose features are most alike
(CLIP paper, section 3.1.5 and table 17: IM2GPS over a million reference images). A set for this is
a CSV file with columns `latitude` and `longitude`, in degrees, beside those that it has anyway.

Shapes: N images, M reference images, E dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eval import stats
from eval.report import Metric, Result, Table
from eval.task import protocol
from wit.errors import InputError

if TYPE_CHECKING:
    from eval.config import EvalConfig
    from eval.evalset import EvalSample, EvalSet
    from eval.features import Encoder, Features

WITHIN_KM = (1, 25, 200, 750, 2500)  # street, city, region, country, continent
EARTH_KM = 6371.0088  # mean radius
BLOCK = 1024  # images, and reference images times 16, of one block of scores


def nearest(image_NE: Features, reference_ME: Features) -> NDArray[np.int64]:
    """The reference image of the highest cosine; the first of equals. Never holds N x M.

    Args:
        image_NE, reference_ME: of unit length.
    """
    best_N = np.zeros(len(image_NE), np.int64)
    for start in range(0, len(image_NE), BLOCK):
        image_BE = image_NE[start : start + BLOCK]
        top_B = np.full(len(image_BE), -np.inf, np.float32)
        for at in range(0, len(reference_ME), 16 * BLOCK):
            score_BM = image_BE @ reference_ME[at : at + 16 * BLOCK].T
            first_B = score_BM.argmax(axis=1)
            high_B = np.take_along_axis(score_BM, first_B[:, None], axis=1)[:, 0]
            better_B = high_B > top_B
            best_N[start : start + BLOCK][better_B] = first_B[better_B] + at
            top_B[better_B] = high_B[better_B]
    return best_N


def distance_km(from_N2: NDArray[np.float64], to_N2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Great-circle distances between latitudes and longitudes in degrees, by the haversine."""
    (lat_N, lon_N), (other_lat_N, other_lon_N) = np.radians(from_N2.T), np.radians(to_N2.T)
    h_N = (
        np.sin((other_lat_N - lat_N) / 2) ** 2
        + np.cos(lat_N) * np.cos(other_lat_N) * np.sin((other_lon_N - lon_N) / 2) ** 2
    )
    kilometres: NDArray[np.float64] = 2 * EARTH_KM * np.arcsin(np.sqrt(h_N.clip(0, 1)))
    return kilometres


def places(samples: Sequence[EvalSample], where: str) -> NDArray[np.float64]:
    """Latitude and longitude (N, 2) in degrees.

    Raises:
        InputError: one is absent, or no number of degrees.
    """
    found = np.empty((len(samples), 2))
    for i, sample in enumerate(samples):
        for column, (name, most) in enumerate((("latitude", 90), ("longitude", 180))):
            text = sample.meta.get(name, "")
            try:
                found[i, column] = float(text)
            except ValueError:
                found[i, column] = np.nan
            if not abs(found[i, column]) <= most:
                raise InputError(f"{where}: {sample.key} has {name} {text!r}: no degrees to {most}")
    return found


def run(data: EvalSet, encoder: Encoder, config: EvalConfig) -> Result:
    """Share of images placed within 1, 25, 200, 750 and 2,500 km, and the median distance.

    Raises:
        InputError: no split train, or an image without a place.
    """
    if data.train is None:
        raise InputError(f"{data.path}: places come from images of a split train, which it lacks")
    reference, images = encoder.images(data.train), encoder.images(data)
    samples = [data.samples[i] for i in images.kept_N]
    beside = [data.train.samples[i] for i in reference.kept_N]
    true_N2 = places(samples, f"{data.path} {data.split}")
    known_M2 = places(beside, f"{data.path} {data.train.split}")
    best_N = nearest(images.image_NE, reference.image_NE)
    km_N = distance_km(true_N2, known_M2[best_N])
    n = len(km_N)
    found = []
    for km in WITHIN_KM:
        hits = int((km_N <= km).sum())
        # chance: the place of any reference image
        chance = float(
            np.mean([(distance_km(np.tile(at, (len(known_M2), 1)), known_M2) <= km).mean()
                     for at in true_N2[:: max(1, n // 200)]])
        )  # fmt: skip
        found.append(Metric(f"within {km} km", hits / n, stats.wilson(hits, n), n, chance))
    return Result(
        data.name,
        "geolocation",
        tuple(found),
        protocol("geolocation", data, encoder)
        | {"reference": data.train.fingerprint, "earth_km": EARTH_KM},
        pa.table(
            {
                "key": [sample.key for sample in samples],
                "nearest": [beside[i].key for i in best_N],
                "km": km_N,
            }
        ),
        bad=images.bad,
        tables=(Table("distances", ("", "km"), (("median", float(np.median(km_N))),)),),
        split=data.split,
        entry=data.entry,
        main="within 25 km",
    )
