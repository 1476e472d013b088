#!/usr/bin/env bash
# Check and measure this package on your graphics card, in less than ten minutes.
#
# Usage: benchmarks/gpu.sh [DEVICE]          (auto by default; cpu runs everything at small sizes)
#
# First it compares the fused layers with the plain ones and stops if they differ; then it measures
# each change beside the state without it, in the same process. All figures are kept in
# benchmarks/records/, as JSON with the card's name: please send them in. PYTHON names another
# interpreter, OUT another folder, SECONDS_EACH the time for a measurement.
set -euo pipefail
cd "$(dirname "$0")/.."
device=${1:-auto}
python=${PYTHON:-.venv/bin/python}
out=${OUT:-benchmarks/records}
mkdir -p "$out"
exec "$python" benchmarks/gpu.py --device "$device" --out "$out" --seconds "${SECONDS_EACH:-20}"
