#!/usr/bin/env bash
# From nothing to crates/allpet/weights/small.safetensors: simulated data, autoencoder, denoiser in two runs
# (docs/model-card-small.md). Training took three hours on two shared cores. Run it at the root of the repository; a run that was stopped goes on where it was.
set -euo pipefail
out=${1:-runs/small}
mkdir -p "$out"
# ALLPET names an installed program; without it the one of this workspace is built.
allpet() { ${ALLPET:-cargo run --release --quiet --bin allpet --} "$@"; }

simulate() { test -s "$out/$1.safetensors" || allpet simulate --task synthesis --split train --subjects 20 --counts 1e7 --out "$out/$1.safetensors" "${@:2}"; }
simulate brain --region brain --count 400 --seed 1
simulate trunk --region chest,abdomen --count 400 --seed 2
simulate ct --modality ct --region brain,chest,abdomen --count 150 --seed 3
data="$out/brain.safetensors,$out/trunk.safetensors,$out/ct.safetensors"

cp docs/recipes/small-{autoencoder,foundation,second}.toml "$out/"
allpet train autoencoder --config "$out/small-autoencoder.toml" --data "$data" --out "$out/autoencoder" --resume
allpet train foundation --config "$out/small-foundation.toml" --data "$data" --out "$out/foundation" --resume
allpet train foundation --config "$out/small-second.toml" --data "$data" --out "$out/second" --resume
echo "$out/second/model.safetensors"
