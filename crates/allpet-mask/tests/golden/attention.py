"""Golden values of the lesion search, from programs that this crate shares no code with.

    python attention.py > attention.json

Needs numpy, scipy and scikit-image; their versions stand in the output. The images are formulas of a linear congruential
generator that the test computes too, so only what was found is stored. Images are f32, the arithmetic on them f64.
"""

import json
import platform
from importlib.metadata import version

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_local, threshold_otsu, threshold_sauvola
from skimage.morphology import disk


def uniforms(seed, n):
    """Knuth's MMIX linear congruential generator, its upper 53 bits in [0, 1)."""
    state, out = seed, np.empty(n)
    for k in range(n):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        out[k] = (state >> 11) / 2.0**53
    return out


def field(seed, rows, cols):
    """Uniform noise."""
    return uniforms(seed, rows * cols).reshape(rows, cols)


def image(seed, rows, cols):
    """A bright disc in noise, a hot and a cold square in it, a tilt over all."""
    r, c = np.mgrid[0:rows, 0:cols].astype(np.float64)
    inside = (r - rows / 2) ** 2 + (c - cols / 2) ** 2 < (0.4 * min(rows, cols)) ** 2
    x = np.where(inside, 4.0, 0.5) + field(seed, rows, cols) + 0.01 * r
    x[rows // 2 - 6 : rows // 2 - 2, cols // 2 - 6 : cols // 2 - 2] += 4.0
    x[rows // 2 + 3 : rows // 2 + 7, cols // 2 + 3 : cols // 2 + 7] -= 3.0
    return x.astype(np.float32).astype(np.float64)


def text(mask):
    return ["".join("#" if v else "." for v in row) for row in mask]


otsu = []
for seed, rows, cols, bins in [(1, 40, 36, 256), (2, 64, 48, 256), (3, 33, 57, 64), (4, 64, 64, 17), (5, 30, 30, 2)]:
    for power in (1, 3):
        x = (image(seed, rows, cols) ** power).astype(np.float32).astype(np.float64)
        otsu.append(
            dict(seed=seed, rows=rows, cols=cols, power=power, bins=bins, threshold=float(threshold_otsu(x, nbins=bins)))
        )

local = []
for seed, rows, cols, window, k, factor in [(6, 40, 36, 9, 0.2, 1.3), (7, 52, 61, 15, 0.35, 1.5), (8, 48, 40, 5, 0.1, 1.2)]:
    x = image(seed, rows, cols)
    r = (x.max() - x.min()) / 2
    mean = threshold_local(x, window, method="mean", offset=0)
    sauvola = threshold_sauvola(x, window_size=window, k=k, r=r)
    mirror = threshold_sauvola(x, window_size=window, k=-k, r=r)
    local.append(
        dict(
            seed=seed, rows=rows, cols=cols, window=window, k=k, factor=factor,
            hot_mean=text(x > factor * mean), cold_mean=text(x < mean / factor),
            cold_sauvola=text(x < sauvola), hot_sauvola=text(x > mirror),
        )
    )

components = []
for seed, rows, cols, share in [(9, 40, 50, 0.35), (10, 64, 64, 0.45), (11, 31, 77, 0.59), (12, 50, 50, 0.72), (13, 1, 60, 0.5)]:
    mask = field(seed, rows, cols) < share
    entry = dict(seed=seed, rows=rows, cols=cols, share=share)
    for name, structure in [("four", None), ("eight", np.ones((3, 3)))]:
        labels, count = ndimage.label(mask, structure)
        entry[name] = dict(
            count=int(count),
            pixels=np.bincount(labels.ravel())[1:].tolist(),
            # Sees a pixel in the wrong component even where all sizes agree.
            checksum=int((labels.ravel().astype(np.int64) * np.arange(labels.size)).sum() % 1_000_003),
        )
    components.append(entry)

outlines = []
for seed, rows, cols, level, margin in [(14, 60, 64, 0.55, 0.0), (15, 64, 60, 0.5, 1.0), (16, 72, 72, 0.62, 2.0), (17, 80, 70, 0.55, 3.0)]:
    # Smooth noise: few large blobs, with holes.
    x = ndimage.uniform_filter(field(seed, rows, cols), 3, mode="constant")
    x += 0.35 * image(seed, rows, cols) / 4.0
    x = x.astype(np.float32).astype(np.float64)
    labels, _ = ndimage.label(x > level, np.ones((3, 3)))
    body = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    body = ndimage.binary_fill_holes(body)
    if margin > 0:
        body = ndimage.binary_erosion(body, disk(int(margin)))
    outlines.append(dict(seed=seed, rows=rows, cols=cols, level=level, margin=margin, body=text(body)))

print(
    json.dumps(
        dict(
            versions=dict(python=platform.python_version(), **{n: version(n) for n in ("numpy", "scipy", "scikit-image")}),
            otsu=otsu, local=local, components=components, outlines=outlines,
        ),
        indent=1,
    )
)
