"""Golden values for tests/distribution_golden.rs: python distribution.py > distribution.json

Needs torch, pytorch-fid, torch-fidelity, torchmetrics, scipy. Features come from a linear congruential generator that
the test runs too, so only the values are stored.
"""

import json

import numpy as np
import pytorch_fid.fid_score
import scipy
import torch
import torch_fidelity
import torchmetrics
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd


def uniform(seed, samples, features, scale, shift):
    """Knuth's MMIX generator, top 31 bits over 2^31; value·scale + shift·(column mod 3)."""
    state, out = seed, np.empty((samples, features))
    for i in range(samples):
        for j in range(features):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            out[i, j] = (state >> 33) / 2**31 * scale + shift * (j % 3)
    return out


def case(candidate, reference, square):
    mu_a, mu_b = candidate.mean(axis=0), reference.mean(axis=0)
    cov_a, cov_b = np.cov(candidate, rowvar=False), np.cov(reference, rowvar=False)
    a, b = torch.from_numpy(candidate), torch.from_numpy(reference)
    prc = prc_features_to_metric(a, b, prc_neighborhood=3, prc_batch_size=10000, save_cpu_ram=False, verbose=False)
    values = {
        "fid_pytorch_fid": float(
            pytorch_fid.fid_score.calculate_frechet_distance(mu_a, cov_a, mu_b, cov_b)
        ),
        "fid_torch_fidelity": fid_statistics_to_metric(
            fid_features_to_statistics(a), fid_features_to_statistics(b), verbose=False
        )["frechet_inception_distance"],
        "fid_torchmetrics": _compute_fid(
            torch.from_numpy(mu_a), torch.from_numpy(cov_a), torch.from_numpy(mu_b), torch.from_numpy(cov_b)
        ).item(),
        "precision": prc["precision"],
        "recall": prc["recall"],
    }
    if square:  # both tools require sets of one size; the whole set is one subset
        values["mmd_torch_fidelity"] = kid_features_to_metric(
            a, b, kid_subsets=1, kid_subset_size=len(a), verbose=False, rng_seed=0
        )["kernel_inception_distance_mean"]
        values["mmd_torchmetrics"] = poly_mmd(b, a).item()
    return values


logits = torch.from_numpy(uniform(5, 100, 37, 6.0, 0.5))
scores = isc_features_to_metric(logits, splits=10, shuffle=False)
whole = isc_features_to_metric(logits, splits=1, shuffle=False)
print(
    json.dumps(
        {
            "versions": {
                "numpy": np.__version__,
                "scipy": scipy.__version__,
                "torch": torch.__version__,
                "torchmetrics": torchmetrics.__version__,
                "pytorch_fid": pytorch_fid.__version__,
                "torch_fidelity": torch_fidelity.__version__,
            },
            "tall": case(uniform(1, 60, 16, 1.1, 0.05), uniform(2, 60, 16, 1.0, 0.0), True),
            "uneven": case(uniform(3, 60, 16, 0.8, 0.1), uniform(4, 75, 16, 1.0, 0.0), False),
            "wide": case(uniform(6, 40, 64, 1.1, 0.05), uniform(7, 40, 64, 1.0, 0.0), True),
            "mixed": case(uniform(8, 20, 32, 1.1, 0.05), uniform(9, 50, 32, 1.0, 0.0), False),
            "inception_score": {
                "mean": scores["inception_score_mean"],
                "sd": scores["inception_score_std"],
                "whole": whole["inception_score_mean"],
            },
        },
        indent=2,
    )
)
