#!/usr/bin/env python3
"""Times `allpet bench nn` beside PyTorch (CPU, f32): operators, whole training steps of the `small` networks, a sampling step.

    pip install numpy torch safetensors
    cargo build --release --bin allpet
    python3 benches/peers/networks.py [--program target/release/allpet] [--rounds 3] [--threads 2] > figures.jsonl

Every round times PyTorch and then the program, so that a machine that slows down slows both. One JSON object a line: the
case, its shape, median milliseconds of both over all rounds, and PyTorch's time divided by the program's.

    python3 benches/peers/networks.py --golden FOLDER

trains the networks of FOLDER/denoiser.safetensors and FOLDER/autoencoder.safetensors (written by the test `golden_training`
of allpet-foundation, see there) and prints the losses as JSON: the values that test compares with."""
import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn


class Norm(nn.Module):
    """GroupNorm and optional SiLU; `film [B, 2C]` scales by 1 + its first half and shifts by its second."""

    def __init__(self, channels, groups, silu):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.groups, self.silu = groups, silu

    def forward(self, x, film=None):
        if film is None:
            y = F.group_norm(x, self.groups, self.scale, self.shift)
        else:
            gain, offset = film.chunk(2, 1)
            scale, shift = self.scale * (1 + gain), self.shift + offset
            y = F.group_norm(x, self.groups) * scale[:, :, None, None] + shift[:, :, None, None]
        return F.silu(y) if self.silu else y


class Residual(nn.Module):
    def __init__(self, inputs, outputs, groups, embedding):
        super().__init__()
        self.norm_in, self.conv_in = Norm(inputs, groups, True), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * outputs) if embedding else None
        self.norm_out, self.conv_out = Norm(outputs, groups, True), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x, embedding=None):
        h = self.conv_in(self.norm_in(x))
        h = self.conv_out(self.norm_out(h, None if self.film is None else self.film(embedding)))
        return (x if self.skip is None else self.skip(x)) + h


class Attention(nn.Module):
    def __init__(self, channels, groups, heads):
        super().__init__()
        self.norm, self.heads = Norm(channels, groups, False), heads
        self.qkv, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, 3, self.heads, c // self.heads, h * w).transpose(3, 4).unbind(1)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(mixed.transpose(2, 3).reshape(b, c, h, w))


class Stage(nn.Module):
    def __init__(self, c, inputs, level):
        super().__init__()
        width = c["widths"][level]
        self.residual = Residual(inputs, width, c["groups"], c["embedding"])
        self.attention = Attention(width, c["groups"], c["heads"]) if level in c["attention"] else None

    def forward(self, x, embedding):
        x = self.residual(x, embedding)
        return x if self.attention is None else self.attention(x)


class UNet(nn.Module):
    """The denoiser, with the parameter names of allpet-foundation's."""

    def __init__(self, c, channels):
        super().__init__()
        widths, e, blocks = c["widths"], c["embedding"], c["blocks"]
        self.c, self.levels = c, len(widths)
        skips, width = [widths[0]], widths[0]
        add = lambda name, module: setattr(self, name, module)
        add("time0", nn.Linear(e, e)), add("time1", nn.Linear(e, e)), add("prompt", nn.Linear(e, e))
        add("enter", nn.Conv2d(channels + 4, widths[0], 3, padding=1))
        for level in range(self.levels):
            down = nn.ModuleDict()
            for i in range(blocks):
                down[f"stage{i}"] = Stage(c, width, level)
                width = widths[level]
                skips.append(width)
            if level + 1 < self.levels:
                skips.append(width)
                down["halve"] = nn.Conv2d(width, width, 3, stride=2, padding=1)
            add(f"down{level}", down)
        add("middle0", Stage(c, width, self.levels - 1)), add("middle1", Stage(c, width, self.levels - 1))
        for level in reversed(range(self.levels)):
            up = nn.ModuleDict()
            for i in range(blocks + 1):
                up[f"stage{i}"] = Stage(c, width + skips.pop(), level)
                width = widths[level]
            if level > 0:
                # `double` is also the name of a method of modules, which `add_module` would refuse to hide.
                up._modules["double"] = nn.Conv2d(width, widths[level - 1], 3, padding=1)
                width = widths[level - 1]
            add(f"up{level}", up)
        add("norm", Norm(widths[0], c["groups"], True)), add("leave", nn.Conv2d(widths[0], channels, 3, padding=1))

    def forward(self, x, t, prompt, mask):
        b, _, h, w = x.shape
        n = self.c["embedding"] // 2
        angle = t.double()[:, None] * torch.exp(-math.log(10000) * torch.arange(n, dtype=torch.float64) / n)
        waves = torch.cat([angle.cos(), angle.sin()], 1).float()
        embedding = F.silu(self.time1(F.silu(self.time0(waves))) + self.prompt(prompt))
        theta = (math.pi * (torch.arange(h, dtype=torch.float64) + 0.5) / h).float()[:, None].expand(h, w)
        bins = ((2 * torch.arange(w) + 1) / w - 1)[None, :].expand(h, w)
        position = torch.stack([theta.cos(), theta.sin(), bins])[None].expand(b, 3, h, w)
        x = self.enter(torch.cat([x, mask, position], 1))
        skips = [x]
        for level in range(self.levels):
            down = getattr(self, f"down{level}")
            for i in range(self.c["blocks"]):
                x = down[f"stage{i}"](x, embedding)
                skips.append(x)
            if "halve" in down:
                x = down["halve"](x)
                skips.append(x)
        x = self.middle1(self.middle0(x, embedding), embedding)
        for level in reversed(range(self.levels)):
            up = getattr(self, f"up{level}")
            for i in range(self.c["blocks"] + 1):
                x = up[f"stage{i}"](torch.cat([x, skips.pop()], 1), embedding)
            if "double" in up:
                x = F.interpolate(up["double"](x), scale_factor=2.0)
        return self.leave(self.norm(x))


class Level(nn.ModuleDict):
    def run(self, x):
        for name, block in self.items():
            if name != "next":
                x = block(x)
        return x


class Autoencoder(nn.Module):
    """The autoencoder (KL), with the parameter names of allpet-autoencoder's."""

    def __init__(self, c):
        super().__init__()
        widths, patch, latent, groups = c["widths"], c["patch"], c["latent"], c["groups"]
        self.c, self.factor = c, patch * 2 ** (len(widths) - 1)
        inputs, f2 = 3 * patch * patch, self.factor**2
        level = lambda width: Level({f"block{i}": Residual(width, width, groups, 0) for i in range(c["blocks"])})
        same = lambda i, o: nn.Conv2d(i, o, 3, padding=1)
        self.encoder, self.decoder = nn.ModuleDict(), nn.ModuleDict()
        self.encoder["shortcut"], self.decoder["shortcut"] = nn.Conv2d(3 * f2, latent, 1), nn.Conv2d(latent, 3 * f2, 1)
        self.encoder["enter"], self.decoder["enter"] = same(inputs, widths[0]), same(latent, widths[-1])
        for i, width in enumerate(widths):
            self.encoder[f"level{i}"] = level(width)
            if i + 1 < len(widths):
                self.encoder[f"level{i}"]["next"] = nn.Conv2d(width, widths[i + 1], 3, stride=2, padding=1)
            self.decoder[f"level{i}"] = level(width)
            if i > 0:
                self.decoder[f"level{i}"]["next"] = same(width, widths[i - 1])
        self.encoder["norm"], self.encoder["leave"] = Norm(widths[-1], groups, True), same(widths[-1], 2 * latent)
        self.decoder["norm"], self.decoder["leave"] = Norm(widths[0], groups, True), same(widths[0], inputs)

    def forward(self, c_all, noise):
        e, d, c = self.encoder, self.decoder, self.c
        x = e["enter"](F.pixel_unshuffle(c_all, c["patch"]))
        for i in range(len(c["widths"])):
            x = e[f"level{i}"].run(x)
            if "next" in e[f"level{i}"]:
                x = e[f"level{i}"]["next"](x)
        mean, log_variance = e["leave"](e["norm"](x)).chunk(2, 1)
        mean = mean + e["shortcut"](F.pixel_unshuffle(c_all, self.factor))
        log_variance = (log_variance - 8).clamp(-30, 20)
        code = mean + (log_variance * 0.5).exp() * noise
        kl = (mean.square() + log_variance.exp() - log_variance - 1).mean()
        x = d["enter"](code)
        for i in reversed(range(len(c["widths"]))):
            x = d[f"level{i}"].run(x)
            if "next" in d[f"level{i}"]:
                x = d[f"level{i}"]["next"](F.interpolate(x, scale_factor=2.0))
        x = F.pixel_shuffle(d["leave"](d["norm"](x)), c["patch"]) + F.pixel_shuffle(d["shortcut"](code), self.factor)
        return x, kl

    def loss(self, c_all, mask, noise):
        decoded, kl = self(c_all, noise)
        linear = F.relu(0.5 * decoded + 0.5).square()
        positive, full, negative = linear.chunk(3, 1)
        consistency = (positive - mask * full).square().mean() + (negative - (1 - mask) * full).square().mean()
        c = self.c
        return (decoded - c_all).square().mean() + 0.5 * c["kl_weight"] * kl + c["consistency_weight"] * consistency


class Training:
    """Clipping by global norm, AdamW without decay on vectors, and the moving average."""

    def __init__(self, model, rate=1e-3, decay=0.01, clip=1.0, ema=0.99):
        self.params = [p for p in model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in self.params if p.dim() > 1], "weight_decay": decay},
            {"params": [p for p in self.params if p.dim() <= 1], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW([g for g in groups if g["params"]], lr=rate, fused=True)
        self.average = [p.detach().clone() for p in self.params]
        self.clip, self.ema = clip, ema

    def update(self):
        torch.nn.utils.clip_grad_norm_(self.params, self.clip, foreach=True)
        self.optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, [p.detach() for p in self.params], 1 - self.ema)

    def step(self, loss):
        for p in self.params:
            p.grad = None
        value = loss()
        value.backward()
        self.update()
        return value.item()


SMALL_UNET = dict(widths=[48, 96, 160], blocks=1, attention=[1, 2], heads=4, groups=8, embedding=256)
SMALL_AUTOENCODER = dict(patch=2, widths=[16, 48], blocks=1, latent=16, groups=8, kl_weight=1e-6, consistency_weight=0.1)


def leaf(*shape):
    return torch.randn(*shape, requires_grad=True)


class ChannelAttention(nn.Module):
    """Transposed attention over channels (Restormer's): softmax(t·q̂k̂ᵀ)v with rows of q and k normalised."""

    def __init__(self, heads):
        super().__init__()
        self.temperature, self.heads = nn.Parameter(torch.ones(heads)), heads

    def forward(self, qkv):
        b, c, h, w = qkv.shape
        q, k, v = qkv.view(b, 3, self.heads, c // 3 // self.heads, h * w).unbind(1)
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-1, -2) * self.temperature[:, None, None]
        return (scores.softmax(-1) @ v).reshape(b, c // 3, h, w)


class Gate(nn.Module):
    def forward(self, x):
        a, b = x.chunk(2, 1)
        return F.gelu(a) * b


def operators():
    for s in [(4, 64, 64, 64), (4, 128, 32, 32), (4, 32, 128, 128), (16, 64, 32, 32)]:
        yield "conv3x3", s, nn.Conv2d(s[1], s[1], 3, padding=1), [leaf(*s)]
    s = (4, 64, 64, 64)
    yield "conv3x3_stride2", s, nn.Conv2d(64, 64, 3, stride=2, padding=1), [leaf(*s)]
    yield "conv1x1", (4, 128, 32, 32), nn.Conv2d(128, 128, 1), [leaf(4, 128, 32, 32)]
    yield "depthwise3x3", s, nn.Conv2d(64, 64, 3, padding=1, groups=64), [leaf(*s)]
    for s in [(4, 64, 64, 64), (4, 32, 128, 128)]:
        yield "groupnorm_silu", s, nn.Sequential(nn.GroupNorm(8, s[1]), nn.SiLU()), [leaf(*s)]
    yield "layernorm", (4, 4096, 64), nn.LayerNorm(64), [leaf(4, 4096, 64)]
    s = (4, 8, 1024, 16)
    yield "attention", s, lambda q, k, v: F.scaled_dot_product_attention(q, k, v), [leaf(*s), leaf(*s), leaf(*s)]
    yield "channel_attention", (4, 192, 64, 64), ChannelAttention(4), [leaf(4, 192, 64, 64)]
    yield "gelu_gate", (4, 128, 64, 64), Gate(), [leaf(4, 128, 64, 64)]
    yield "upsample_nearest2", (4, 64, 32, 32), lambda x: F.interpolate(x, scale_factor=2.0), [leaf(4, 64, 32, 32)]


def times(call, seconds=1.0):
    call(), call()
    taken, began = [], time.perf_counter()
    while len(taken) < 5 or (time.perf_counter() - began < seconds and len(taken) < 50):
        start = time.perf_counter()
        call()
        taken.append((time.perf_counter() - start) * 1e3)
    return taken


def peer(seconds):
    """(case, shape, part) -> milliseconds of one round."""
    found = {}
    for name, shape, module, inputs in operators():
        params = list(module.parameters()) if isinstance(module, nn.Module) else []

        def train():
            for p in (*params, *inputs):
                p.grad = None
            module(*inputs).square().sum().backward()

        with torch.no_grad():
            found[name, shape, "forward"] = times(lambda: module(*inputs), seconds)
        found[name, shape, "train"] = times(train, seconds)
    params = [leaf(1_000_000) for _ in range(5)]
    for p in params:
        p.grad = torch.randn_like(p)
    module = nn.ParameterList(params)
    training = Training(module)
    for p, g in zip(module, params):
        p.grad = g.grad
    found["adamw_clip_ema", (5_000_000,), "step"] = times(training.update, seconds)

    unet = UNet(SMALL_UNET, 16)
    x, target, t = torch.randn(16, 16, 32, 32), torch.randn(16, 16, 32, 32), torch.rand(16) * 1000
    prompt, mask = torch.randn(16, 256), torch.rand(16, 1, 32, 32)
    with torch.no_grad():
        found["sampling_step", (16, 16, 32, 32), "step"] = times(lambda: unet(x, t, prompt, mask), seconds)
    training = Training(unet)
    step = lambda: training.step(lambda: (unet(x, t, prompt, mask) - target).square().mean())
    found["denoiser_training_step", (16, 16, 32, 32), "step"] = times(step, seconds)
    model = Autoencoder(SMALL_AUTOENCODER)
    training = Training(model)
    c_all, mask, noise = torch.rand(16, 3, 128, 128), torch.rand(16, 1, 128, 128), torch.randn(16, 16, 32, 32)
    step = lambda: training.step(lambda: model.loss(c_all, mask, noise))
    found["autoencoder_training_step", (16, 3, 128, 128), "step"] = times(step, seconds)
    return found


def ours(program):
    lines = json.loads(subprocess.run([program, "bench", "nn", "--json"], check=True, capture_output=True, text=True).stdout)
    found = {}
    for case in lines["cases"]:
        for part in ("forward", "train", "step"):
            if case.get(f"{part}_ms") is not None:
                found[case["case"], tuple(case["shape"]), part] = case[f"{part}_ms"]
    return found


def peak_of(which):
    """Peak resident memory of 3 training steps beyond what is resident before the network is made, in a process of its own, MiB."""
    torch.manual_seed(0)
    resident = lambda: int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
    before = resident()
    if which == "denoiser_training_step":
        model = UNet(SMALL_UNET, 16)
        data = torch.randn(16, 16, 32, 32), torch.rand(16) * 1000, torch.randn(16, 256), torch.rand(16, 1, 32, 32)
        loss = lambda: (model(*data) - data[0]).square().mean()
    else:
        model = Autoencoder(SMALL_AUTOENCODER)
        data = torch.rand(16, 3, 128, 128), torch.rand(16, 1, 128, 128), torch.randn(16, 16, 32, 32)
        loss = lambda: model.loss(*data)
    training = Training(model)
    for _ in range(3):
        training.step(loss)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 2**20


def golden(folder):
    from safetensors.torch import load_file

    losses = {}
    for name in ("denoiser", "autoencoder"):
        file = load_file(os.path.join(folder, f"{name}.safetensors"))
        c = json.load(open(os.path.join(folder, f"{name}.json")))
        model = UNet(c, file["batch.x"].shape[2]) if name == "denoiser" else Autoencoder(c)
        model.load_state_dict({k.removeprefix("model."): v for k, v in file.items() if k.startswith("model.")})
        training = Training(model, decay=c["decay"], clip=c["clip"])
        b = {k.removeprefix("batch."): v for k, v in file.items() if k.startswith("batch.")}
        losses[name] = []
        for step in range(c["steps"]):
            training.ema = c["averages"][step]
            for group in training.optimiser.param_groups:
                group["lr"] = c["rates"][step]
            if name == "denoiser":
                loss = lambda: (model(b["x"][step], b["t"][step], b["prompt"][step], b["mask"][step]) - b["target"][step]).square().mean()
            else:
                loss = lambda: model.loss(b["c_all"][step], b["mask"][step], b["noise"][step])
            losses[name].append(training.step(loss))
        losses[f"{name}_average_norm"] = math.sqrt(sum(a.double().square().sum().item() for a in training.average))
    print(json.dumps({"torch": torch.__version__, **losses}, indent=1))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default="target/release/allpet")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--golden")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.golden:
        return golden(args.golden)
    if args.peak:
        return print(peak_of(args.peak))
    both = {}
    for _ in range(args.rounds):
        for key, taken in peer(args.seconds).items():
            both.setdefault(key, ([], []))[0].extend(taken)
        for key, taken in ours(args.program).items():
            both.setdefault(key, ([], []))[1].append(taken)
    for (case, shape, part), (theirs, mine) in both.items():
        line = {"case": case, "shape": shape, "part": part}
        if theirs and mine:
            t, m = statistics.median(theirs), statistics.median(mine)
            line |= {"pytorch_ms": round(t, 3), "allpet_ms": round(m, 3), "ratio": round(t / m, 2)}
        else:
            line |= {"missing": "allpet" if theirs else "pytorch"}
        print(json.dumps(line), flush=True)
    for case in ("denoiser_training_step", "autoencoder_training_step"):
        theirs = float(subprocess.run([sys.executable, __file__, "--peak", case], check=True, capture_output=True, text=True).stdout)
        mine = json.loads(subprocess.run([args.program, "bench", "nn", "--peak", case, "--json"], check=True, capture_output=True, text=True).stdout)["peak_mib"]
        print(json.dumps({"case": case, "part": "peak MiB", "pytorch": round(theirs, 1), "allpet": round(mine, 1), "ratio": round(theirs / mine, 2)}))


if __name__ == "__main__":
    main()
