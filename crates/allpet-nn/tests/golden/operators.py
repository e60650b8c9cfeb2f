#!/usr/bin/env python3
"""PyTorch's values of every operator of allpet-nn: inputs, a weighting r of the output, the output y, and the gradients of the sum of r * y.

    pip install numpy torch safetensors
    python3 crates/allpet-nn/tests/golden/operators.py crates/allpet-nn/tests/golden/operators.safetensors

Inputs are f32; PyTorch computes in f64, and its values are rounded to f32 at the end. Names are `case.in0 ..`, `case.r`, `case.y`,
`case.grad0 ..`; the version of PyTorch is in the metadata. Nothing here is ours: only PyTorch's functional operators."""
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file


def attention(qkv, heads):
    b, c, h, w = qkv.shape
    q, k, v = qkv.view(b, 3, heads, c // 3 // heads, h * w).transpose(3, 4).unbind(1)
    return F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(b, c // 3, h, w)


def channel_attention(qkv, temperature):
    b, c, h, w = qkv.shape
    q, k, v = qkv.view(b, 3, len(temperature), c // 3 // len(temperature), h * w).unbind(1)
    scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-1, -2) * temperature[:, None, None]
    return (scores.softmax(-1) @ v).reshape(b, c // 3, h, w)


def gelu_gate(x):
    a, b = x.chunk(2, 1)
    return F.gelu(a) * b


CASES = {
    "conv3x3": (lambda x, w, b: F.conv2d(x, w, b, padding=1), [(2, 5, 7, 9), (6, 5, 3, 3), (6,)]),
    "conv3x3_wide": (lambda x, w, b: F.conv2d(x, w, b, padding=1), [(1, 4, 4, 32), (5, 4, 3, 3), (5,)]),
    "conv1x1": (F.conv2d, [(2, 5, 4, 6), (7, 5, 1, 1), (7,)]),
    "conv3x3_stride2": (lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1), [(2, 4, 9, 8), (6, 4, 3, 3), (6,)]),
    "conv3x3_stride2_wide": (lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1), [(1, 3, 4, 64), (5, 3, 3, 3), (5,)]),
    "conv3x3_grouped": (lambda x, w, b: F.conv2d(x, w, b, padding=1, groups=2), [(2, 6, 5, 7), (4, 3, 3, 3), (4,)]),
    "conv3x3_depthwise": (lambda x, w, b: F.conv2d(x, w, b, padding=1, groups=5), [(2, 5, 6, 7), (5, 1, 3, 3), (5,)]),
    "group_norm": (lambda x, s, t: F.group_norm(x, 3, s, t), [(2, 6, 5, 7), (6,), (6,)]),
    "group_norm_silu": (lambda x, s, t: F.silu(F.group_norm(x, 3, s, t)), [(2, 6, 5, 7), (6,), (6,)]),
    "layer_norm": (lambda x, s, t: F.layer_norm(x, (11,), s, t), [(3, 5, 11), (11,), (11,)]),
    "linear": (F.linear, [(3, 7), (5, 7), (5,)]),
    "attention": (lambda x: attention(x, 2), [(2, 24, 5, 6)]),
    "channel_attention": (channel_attention, [(2, 24, 5, 6), (2,)]),
    "gelu_gate": (gelu_gate, [(2, 6, 4, 5)]),
    "upsample_nearest": (lambda x: F.interpolate(x, scale_factor=2.0), [(2, 3, 4, 5)]),
}


def main():
    torch.manual_seed(4)
    tensors = {}
    for case, (operator, shapes) in CASES.items():
        inputs = [torch.randn(shape) for shape in shapes]
        exact = [x.double().requires_grad_() for x in inputs]
        y = operator(*exact)
        r = torch.randn(y.shape)
        (r.double() * y).sum().backward()
        for i, (x, tracked) in enumerate(zip(inputs, exact)):
            tensors[f"{case}.in{i}"], tensors[f"{case}.grad{i}"] = x, tracked.grad.float()
        tensors[f"{case}.r"], tensors[f"{case}.y"] = r, y.detach().float().contiguous()
    save_file(tensors, sys.argv[1], {"torch": torch.__version__})


if __name__ == "__main__":
    main()
