#!/usr/bin/env bash
# One computer without a GPU. Extra flags are passed on:
#   ./laptop.sh                                            quick: digits, minutes, no download
#   ./laptop.sh --preset cpu --data ~/data                 CIFAR-10, sized for two cores
#   ./laptop.sh --preset cpu --data ~/data --dry-run --calibrate   how long that takes here
# Stopped by Ctrl-C, a crash or a reboot: the same command goes on from there.
# RECIPE=wmt14_regime before the command runs the translation study instead.
set -euo pipefail

PYTHON=${PYTHON:-python}

# One worker a core; each computes with one thread, so results do not depend on how many there are.
cores=$("$PYTHON" -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())')
WORKERS=${WORKERS:-$cores} # each needs about 0.5 GB of memory and its copy of the data

exec "$PYTHON" -m "twore.recipes.${RECIPE:-cifar_scaling}" --device cpu --workers "$WORKERS" "$@"
