"""Golden values for tests/inception.rs: python inception.py > inception.json

Needs torch, torchvision, pytorch-fid, torch-fidelity. Weights and images come from formulas that the test computes
too, so only the names and shapes of the tensors and what the programs make of them are stored.
"""

import json
import math
import os
import tempfile

import numpy as np
import pytorch_fid
import pytorch_fid.inception
import torch
import torch.nn.functional as F
import torch_fidelity
import torchvision
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

RANGE = 4.0


def uniform(tensor, count):
    """SplitMix64's finaliser of (tensor·2^32 + element + 1)·φ, top 53 bits over 2^53."""
    z = (np.uint64(tensor << 32) + np.arange(1, count + 1, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def fill(tensor, name, shape):
    u = uniform(tensor, math.prod(shape))
    if name.endswith((".conv.weight", "fc.weight")):
        values = (2.0 * u - 1.0) * math.sqrt(6.0 / math.prod(shape[1:]))
    elif name.endswith((".bn.weight", ".bn.running_var")):
        values = 0.75 + 0.5 * u
    else:  # biases and running means
        values = 0.4 * u - 0.2
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def image(n, rows, columns):
    """Values k/96 of the data range."""
    i, j = np.mgrid[:rows, :columns]
    k = (i * i + (n + 2) * j + i * j // (n + 3)) % 97
    return (k / 96.0 * RANGE).astype(np.float32)


def sparse(plane):
    return [round(v, 9) for v in plane.flatten()[::1009].tolist()]


def rounded(values):
    return [float(f"{v:.8g}") for v in values.flatten().tolist()]


def eight_bit(picture):
    return torch.from_numpy(np.floor(picture.astype(np.float64) / RANGE * 255.0 + 0.5).astype(np.uint8))


pytorch_fid.inception.load_state_dict_from_url = lambda *_, **__: SHELL.state_dict()
SHELL = pytorch_fid.inception._inception_v3(num_classes=1008, aux_logits=False, weights=None)
shapes = {k: list(v.shape) for k, v in sorted(SHELL.state_dict().items()) if not k.endswith("num_batches_tracked")}
state = dict(SHELL.state_dict())
state.update({name: fill(index, name, shape) for index, (name, shape) in enumerate(shapes.items())})
pytorch_fid.inception.load_state_dict_from_url = lambda *_, **__: state

torch.set_grad_enabled(False)
fid = pytorch_fid.inception.fid_inception_v3().eval()
features = pytorch_fid.inception.InceptionV3().eval()
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "weights.pth")
    torch.save(state, path)
    fidelity = FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], path)

pictures = [image(0, 64, 48), image(1, 64, 48)]
batch = torch.stack([torch.from_numpy(p / np.float32(RANGE)).expand(3, -1, -1) for p in pictures])
bytes_ = torch.stack([eight_bit(p).expand(3, -1, -1) for p in pictures])


def pool3():
    return features(batch)[0].flatten(1)


published = pool3()
logits = published @ fid.fc.weight.T
their_features, their_logits = fidelity(bytes_)

# The variants that a careless port falls into: same weights, torchvision's own pools.
average = F.avg_pool2d
F.avg_pool2d = lambda x, **settings: average(x, **{**settings, "count_include_pad": True})
padded = pool3()
F.avg_pool2d = average
maximum = F.max_pool2d
F.max_pool2d = lambda x, kernel_size, stride=None, padding=0, *_, **__: (
    average(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)
    if padding == 1
    else maximum(x, kernel_size, stride, padding)
)
averaged = pool3()
F.max_pool2d = maximum


def resized(rows, columns):
    picture = image(2, rows, columns)
    tensor = torch.from_numpy(picture / np.float32(RANGE))[None, None]
    half_pixel = F.interpolate(tensor, size=(299, 299), mode="bilinear", align_corners=False)
    eight = eight_bit(picture)[None, None].float()
    tensorflow = interpolate_bilinear_2d_like_tensorflow1x(eight, size=(299, 299), align_corners=False)
    return {
        "rows": rows,
        "columns": columns,
        "pytorch_fid": sparse(2 * half_pixel - 1),
        "torch_fidelity": sparse((tensorflow - 128) / 128),
    }


print(
    json.dumps(
        {
            "versions": {
                "numpy": np.__version__,
                "torch": torch.__version__,
                "torchvision": torchvision.__version__,
                "pytorch_fid": pytorch_fid.__version__,
                "torch_fidelity": torch_fidelity.__version__,
            },
            "tensors": shapes,
            "range": RANGE,
            "pytorch_fid": {"features": [rounded(f) for f in published], "logits": [rounded(v) for v in logits]},
            "torch_fidelity": {"features": rounded(their_features[0]), "logits": rounded(their_logits[0])},
            "count_include_pad": rounded(padded[0]),
            "last_average": rounded(averaged[0]),
            "resized": [resized(7, 5), resized(64, 48), resized(310, 400)],
        }
    )
)
