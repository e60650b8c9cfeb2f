#!/usr/bin/env bash
# From nothing to crates/allpet/weights/{tasks,pairs}.safetensors and the U-Net that the first is compared with: 500 simulated pairs
# for each task (low dose at 1/4 and at 1/100), then the runs from the shipped `small` weights on (docs/model-card-tasks.md,
# docs/model-card-pairs.md). Run it at the root of the repository; a run that was stopped goes on where it was. `allpet reproduce
# tasks` does the same for the tasks and judges both.
set -euo pipefail
out=${1:-runs/tasks}
mkdir -p "$out"
# ALLPET names an installed program; without it the one of this workspace is built.
allpet() { ${ALLPET:-cargo run --release --quiet --bin allpet --} "$@"; }

data=
simulate() {
  test -s "$out/$1.safetensors" || allpet simulate "${@:2}" --split train --count 500 --subjects 100 --seed 11 --out "$out/$1.safetensors"
  data+=${data:+,}$out/$1.safetensors
}
simulate quarter --task low-dose --dose 0.25
simulate hundredth --task low-dose --dose 0.01
for task in attenuation delayed conversion separation; do simulate "$task" --task "$task"; done

allpet train task --config docs/recipes/tasks.toml --data "$data" --out "$out/ours" --resume
allpet train task --config docs/recipes/tasks-unet.toml --data "$data" --out "$out/unet" --resume
allpet train pairs --config docs/recipes/pairs.toml --data "$data" --out "$out/pairs" --resume
echo "$out/ours/model.safetensors $out/pairs/model.safetensors"
