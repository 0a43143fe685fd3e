#!/usr/bin/env bash
# A trained model on real photographs: retrieval, zero-shot, linear probe, few-shot; one report.
#
#   runs/flickr8k-eval.sh RUN PHOTOS CLASSES     (RUN: data/flickr8k/run, or any checkpoint)
#
# PHOTOS   folder of Flickr8k: images/*.jpg and captions.parquet (image, captions, split); the
#          photographs of split val are held out of training and asked for here
# CLASSES  folder of photographs with one sub-folder for each class. Zero-shot sees all of them;
#          for probes, three fifths of each class are trained on and the others tested
#
# Results go to RUN/eval (OUT=...); photographs are encoded once. A minute or two on two cores.
set -euo pipefail

run=${1:?give a run directory or a checkpoint as the first argument}
photos=$(realpath "${2:-${FLICKR8K:?give the folder of Flickr8k as the second argument}}")
classes=$(realpath "${3:-${FLOWERS:?give a folder of class folders as the third argument}}")
run=$(realpath "$run")
cd "$(dirname "$0")/.."
out=${OUT:-$run/eval}
python=${PYTHON:-.venv/bin/python}
export PYTHONPATH=.

sets=$out/sets
name=$(basename "$classes")
"$python" runs/flickr8k.py prepare "$photos" "$sets"
"$python" runs/flickr8k.py split "$classes" "$sets/$name-split.csv"

wit() { "$python" -m wit.cli eval --run "$run" --out "$out" "$@"; }
wit --set "$sets/retrieval" --set "$classes"
wit --set "$sets/$name-split.csv" --task zeroshot --task probe --task fewshot
