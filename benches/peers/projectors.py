#!/usr/bin/env python3
"""Times `allpet bench projector` beside other projectors: parallel beam, 2D, f32, one run on one machine.

    pip install numpy scipy astra-toolbox scikit-image
    cargo build --release --bin allpet
    python3 benches/peers/projectors.py [--program target/release/allpet] [--rounds 3] > figures.jsonl

Every round times each peer and then the program, so that a machine that slows down slows both. One JSON object a line:
who, operation, image/views/bins, slices, median ms over all rounds, and for a peer how many times slower it is than the program.
A peer without batches loops over slices. scikit-image takes as many bins as the image has columns."""
import argparse
import json
import statistics
import subprocess
import time

import numpy as np

CASES = [
    # image, views, bins, slices, peers
    (256, 360, 367, 1, ["astra", "csr", "skimage"]),
    (256, 360, 367, 16, ["csr"]),
    (512, 512, 512, 1, ["astra"]),
]


def timed(call, seconds=1.0):
    call()
    times, began = [], time.perf_counter()
    while len(times) < 2 or (time.perf_counter() - began < seconds and len(times) < 30):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return times


class Astra:
    """ASTRA's CPU projector with linear interpolation (Joseph), one thread."""

    def __init__(self, n, views, bins, slices):
        import astra

        self.astra, self.slices = astra, slices
        volume = astra.create_vol_geom(n, n)
        rays = astra.create_proj_geom("parallel", 1.0, bins, np.linspace(0, np.pi, views, endpoint=False))
        self.projector = astra.create_projector("linear", rays, volume)
        rng = np.random.default_rng(0)
        image = astra.data2d.create("-vol", volume, rng.random((n, n), np.float32))
        sinogram = astra.data2d.create("-sino", rays, rng.random((views, bins), np.float32))
        self.algorithms = {}
        for name, kind, extra in [("forward", "FP", {}), ("adjoint", "BP", {}), ("fbp", "FBP", {"FilterType": "Ram-Lak"})]:
            config = astra.astra_dict(kind)
            config.update(ProjectorId=self.projector, **extra)
            config["VolumeDataId" if kind == "FP" else "ReconstructionDataId"] = image
            config["ProjectionDataId"] = sinogram
            self.algorithms[name] = astra.algorithm.create(config)

    def calls(self):
        def call(algorithm):
            for _ in range(self.slices):
                self.astra.algorithm.run(algorithm)

        return {name: lambda a=a: call(a) for name, a in self.algorithms.items()}


class Csr:
    """ASTRA's matrix as SciPy CSR: hundreds of MB, one product for all slices, one thread."""

    def __init__(self, n, views, bins, slices):
        astra = Astra(n, views, bins, 1)
        matrix = astra.astra.projector.matrix(astra.projector)
        self.matrix = astra.astra.matrix.get(matrix).astype(np.float32).tocsr()
        self.transposed = self.matrix.T.tocsr()
        rng = np.random.default_rng(0)
        columns = (slices,) if slices > 1 else ()
        self.image = rng.random((n * n, *columns), np.float32)
        self.sinogram = rng.random((views * bins, *columns), np.float32)

    def calls(self):
        return {
            "forward": lambda: self.matrix @ self.image,
            "adjoint": lambda: self.transposed @ self.sinogram,
        }


class Skimage:
    def __init__(self, n, views, _bins, _slices):
        from skimage.transform import iradon, radon

        angles = np.linspace(0, 180, views, endpoint=False)
        rng = np.random.default_rng(0)
        axis = np.arange(n) - n // 2
        image = rng.random((n, n)) * (axis[:, None] ** 2 + axis**2 <= (n // 2) ** 2)
        sinogram = rng.random((n, views))
        self.table = {
            "forward": lambda: radon(image, angles, circle=True),
            "adjoint": lambda: iradon(sinogram, angles, filter_name=None),
            "fbp": lambda: iradon(sinogram, angles),
        }

    def calls(self):
        return self.table


def ours(program, n, views, bins, slices):
    sizes = ["--size", n, "--views", views, "--bins", bins, "--batch", slices, "--json"]
    out = subprocess.run([program, "bench", "projector", *map(str, sizes)], capture_output=True, text=True, check=True)
    report = json.loads(out.stdout)
    return {name: report[name]["median_ms"] for name in ("forward", "adjoint", "fbp")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/allpet")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    kinds = {"astra": Astra, "csr": Csr, "skimage": Skimage}
    for n, views, bins, slices, names in CASES:
        peers = {name: kinds[name](n, views, bins, slices) for name in names}
        times = {}
        for _ in range(args.rounds):
            for name, peer in peers.items():
                for operation, call in peer.calls().items():
                    times.setdefault((name, operation), []).extend(timed(call))
                for operation, median in ours(args.program, n, views, bins, slices).items():
                    times.setdefault(("allpet", operation), []).append(median)
        for (name, operation), values in times.items():
            median = statistics.median(values)
            line = {"who": name, "operation": operation, "case": f"{n}/{views}/{bins}", "slices": slices}
            line["median_ms"] = round(median, 2)
            if name != "allpet":
                line["times_slower"] = round(median / statistics.median(times["allpet", operation]), 1)
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
