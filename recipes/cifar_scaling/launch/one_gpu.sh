#!/usr/bin/env bash
# One machine with one or more NVIDIA GPUs. Extra flags are passed on:
#   ./one_gpu.sh --preset paper --data ~/data --out runs/paper
#   ./one_gpu.sh --preset paper --dry-run --calibrate      how long that takes here
# Look at it from another terminal with: twore status runs/paper --watch 60
# Stopped by Ctrl-C, a crash or a reboot: the same command goes on from there.
# RECIPE=wmt14_regime before the command runs the translation study instead.
set -euo pipefail

PYTHON=${PYTHON:-python}

# These models are too small to fill a GPU, so several workers share it; with several GPUs the workers take turns over
# them. More workers help until the GPU is busy or the processor's cores are used up.
WORKERS=${WORKERS:-6}

# bf16 is named, not measured, so that the study has the same numbers on whatever GPU it is taken up again.
exec "$PYTHON" -m "twore.recipes.${RECIPE:-cifar_scaling}" --device cuda --numerics.precision bf16 --workers "$WORKERS" "$@"
