#!/usr/bin/env bash
# Real photographs, end to end: metadata to shards to a trained model to recall and zero-shot.
#
#   runs/flickr8k.sh PHOTOS [CLASSES]     (or FLICKR8K=... FLOWERS=... runs/flickr8k.sh)
#
# PHOTOS   folder of Flickr8k: images/*.jpg and captions.parquet (image, captions, split)
# CLASSES  folder of photographs with one sub-folder for each class, for zero-shot
#
# The photographs are served over loopback HTTP and fetched as a corpus from the web would be.
# Results go to data/flickr8k (OUT=...). About half an hour on two cores, most of it training;
# run again after an interruption, it goes on from there. CORPUS_ONLY=1 ends it before training.
set -euo pipefail

photos=$(realpath "${1:-${FLICKR8K:?give the folder of Flickr8k as the first argument}}")
classes=${2:-${FLOWERS:-}}
classes=${classes:+$(realpath "$classes")}
cd "$(dirname "$0")/.."
out=${OUT:-data/flickr8k}
python=${PYTHON:-.venv/bin/python}
host=photos.flickr8k.example
export PYTHONPATH=.

"$python" runs/flickr8k.py prepare "$photos" "$out"

rm -f "$out/port"
"$python" runs/flickr8k.py serve "$photos" "$out/port" &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
until [ -s "$out/port" ]; do
  kill -0 "$server" || { echo "flickr8k: the server did not start" >&2; exit 2; }
  sleep 0.1
done

"$python" -m wit.cli shards --config runs/flickr8k-shards.toml --corpus "$out/corpus" \
  --input "$out/metadata.parquet" --fetch.resolve "$host=127.0.0.1:$(cat "$out/port")"
[ -z "${CORPUS_ONLY:-}" ] || exit 0
"$python" -m wit.cli train --config runs/flickr8k.toml --corpus "$out/corpus" --run "$out/run"
"$python" -m wit.cli eval --run "$out/run" --set "$out/retrieval" ${classes:+--set "$classes"}
