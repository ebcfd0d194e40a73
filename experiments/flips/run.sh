#!/usr/bin/env bash
# Does the vertical flip cost accuracy? Six short runs on the CPU: augmentation original and flip, three seeds each.
# Needs CAMVID_ROOT. JOBS=2 runs two at a time with one thread each, which two cores finish sooner than one with two.
# Further words go to every run, and NAME names them: NAME=annealed bash experiments/flips/run.sh scheduler=cosine
set -euo pipefail
cd "$(dirname "$0")/../.."
JOBS=${JOBS:-1}
EXTRA="$*"
export JOBS EXTRA NAME=${NAME:-flips} PYTHON=${PYTHON:-.venv/bin/python}
one_run() {
    # shellcheck disable=SC2086  # EXTRA is several words
    "$PYTHON" -m src.train name="${NAME}_$1" augmentation="$1" seed="$2" device=cpu threads=$((2 / JOBS)) precision=fp32 \
        model=attunet 'model.channels=[16,32,64,128,256]' optimizer=sgd optimizer.lr=0.1 'dataset.image_size=[224,224]' \
        loader.batch_size=8 training.epochs=12 training.panel_every=12 $EXTRA
}
export -f one_run
printf '%s %s\n' original 0 flip 0 original 1 flip 1 original 2 flip 2 | xargs -P "$JOBS" -L 1 bash -c 'one_run "$0" "$1"'
