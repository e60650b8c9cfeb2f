"""Golden values of the image metrics, from programs that this crate shares no code with.

    python image_metrics.py > image_metrics.json

Needs numpy, scikit-image, torch, torchmetrics, pytorch-msssim; their versions stand in the output.
The images are formulas that the test computes too, so only values are stored.
"""

import json
import platform

import numpy as np
import pytorch_msssim
import skimage
import torch
import torchmetrics
from importlib.metadata import version
from skimage.metrics import mean_squared_error, normalized_root_mse, peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional import mean_absolute_error
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio as torch_psnr,
    structural_similarity_index_measure,
)

torch.set_num_threads(1)
# torchmetrics makes constants (the weights of the scales among them) in torch's default type.
torch.set_default_dtype(torch.float64)
# pytorch-msssim makes its window in f32 unless it is given one.
WINDOW = torch.exp(-((torch.arange(11.0) - 5.0) ** 2) / (2.0 * 1.5**2))
WINDOW = (WINDOW / WINDOW.sum()).reshape(1, 1, 1, 11)


def uniforms(seed, n):
    """Knuth's MMIX linear congruential generator, its upper 53 bits in [0, 1)."""
    state, out = seed, np.empty(n)
    for k in range(n):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        out[k] = (state >> 11) / 2.0**53
    return out


def anchor(rows, cols, data_range):
    i, j = np.mgrid[:rows, :cols]
    x = (37 * i + 17 * j) % 101 / 100.0
    y = np.clip(x + 0.1 * np.sin(0.7 * i + 0.3 * j), 0.0, 1.0)
    return data_range * x, data_range * y


def noisy(seed, rows, cols, data_range):
    """A blob with noise against the blob alone: smooth structure and flat background."""
    i, j = np.mgrid[:rows, :cols]
    blob = np.exp(-((i - 0.4 * rows) ** 2 + (j - 0.6 * cols) ** 2) / (0.05 * rows * cols))
    noise = uniforms(seed, rows * cols).reshape(rows, cols) - 0.5
    return data_range * (blob + 0.2 * noise), data_range * blob


def unrelated(seed, rows, cols, data_range):
    both = uniforms(seed, 2 * rows * cols).reshape(2, rows, cols)
    return data_range * both[0], data_range * both[1]


def case(kind, seed, rows, cols, data_range):
    if kind == "anchor":
        x, y = anchor(rows, cols, data_range)
    else:
        x, y = {"noisy": noisy, "unrelated": unrelated}[kind](seed, rows, cols, data_range)
    tx, ty = (torch.from_numpy(np.ascontiguousarray(v))[None, None] for v in (x, y))
    out = {
        "mse": mean_squared_error(y, x),
        "psnr": peak_signal_noise_ratio(y, x, data_range=data_range),
        "psnr_torchmetrics": float(torch_psnr(tx, ty, data_range=data_range)),
        "nrmse": normalized_root_mse(y, x, normalization="euclidean"),
        "mae": float(mean_absolute_error(tx, ty)),
    }
    side = min(rows, cols)
    if side >= 6:
        out["ssim_torchmetrics"] = float(structural_similarity_index_measure(tx, ty, data_range=data_range))
    if side >= 7:
        out["ssim_skimage"] = structural_similarity(x, y, data_range=data_range)
    if side >= 11:
        out["ssim_wang"] = structural_similarity(
            x, y, data_range=data_range, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
    if side >= 176:
        out["ms_ssim_torchmetrics"] = float(
            multiscale_structural_similarity_index_measure(tx, ty, data_range=data_range)
        )
        # At odd sides pytorch-msssim pads with zeros, which no other program does.
        if all(side // 2**k % 2 == 0 for side in (rows, cols) for k in range(4)):
            out["ms_ssim_wang"] = float(
                pytorch_msssim.ms_ssim(tx, ty, data_range=data_range, size_average=False, win=WINDOW)[0]
            )
    values = {key: float(value) for key, value in out.items()}
    return {"kind": kind, "seed": seed, "rows": rows, "cols": cols, "data_range": data_range, "values": values}


CASES = [
    ("anchor", 0, 64, 64, 1.0),
    ("anchor", 0, 33, 150, 255.0),
    ("anchor", 0, 300, 20, 3.5),
    ("noisy", 1, 6, 6, 1.0),
    ("noisy", 2, 6, 40, 7.5),
    ("noisy", 3, 7, 7, 1.0),
    ("noisy", 4, 11, 11, 1.0),
    ("noisy", 5, 12, 75, 100.0),
    ("noisy", 6, 96, 80, 1.0),
    ("noisy", 7, 176, 176, 1.0),
    ("noisy", 8, 192, 208, 255.0),
    ("noisy", 9, 187, 201, 4.0),
    ("noisy", 10, 270, 190, 4.0),
    ("unrelated", 11, 64, 65, 1.0),
    ("unrelated", 12, 71, 11, 2.0),
    ("unrelated", 13, 176, 192, 1.0),
]

print(
    json.dumps(
        {
            "versions": {
                "python": platform.python_version(),
                "numpy": np.__version__,
                "scikit-image": skimage.__version__,
                "torch": torch.__version__,
                "torchmetrics": torchmetrics.__version__,
                "pytorch-msssim": version("pytorch-msssim"),
            },
            "cases": [case(*c) for c in CASES],
        },
        indent=1,
    )
)
