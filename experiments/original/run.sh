#!/usr/bin/env bash
# The original script's recipe on the real CamVid, to its end. Needs CAMVID_ROOT; a GPU makes it minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec "${PYTHON:-.venv/bin/python}" -m src.train experiment=original loader.num_workers="${WORKERS:-4}" "$@"
