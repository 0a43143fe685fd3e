#!/usr/bin/env bash
# The paper's first experiment (section 2.3, figure 2): how many pictures until a model that finds
# captions, one that names their words and one that writes them know as much as each other?
#
#   runs/efficiency.sh                    on the embedded corpus; minutes on two cores
#   runs/efficiency.sh PHOTOS [CLASSES]   on Flickr8k, as runs/flickr8k.sh takes it
#
# The three runs differ in model.objective alone, and are evaluated at each checkpoint: on the
# embedded corpus by zero-shot accuracy on combinations seen and unseen in training; on Flickr8k by
# which of 100 held-out captions is a photograph's own, and zero-shot on CLASSES. Results and
# efficiency.svg go to data/efficiency (OUT=...); STEPS= and EVERY= are the budget. Run again after
# an interruption, it goes on from there.
set -euo pipefail

photos=${1:+$(realpath "$1")}
classes=${2:+$(realpath "$2")}
cd "$(dirname "$0")/.."
out=${OUT:-data/efficiency}
steps=${STEPS:-400} every=${EVERY:-50}
python=${PYTHON:-.venv/bin/python}
export PYTHONPATH=.

if [ -n "$photos" ]; then
  corpus=${CORPUS:-$out/flickr8k/corpus} config=runs/flickr8k.toml
  [ -f "$corpus/manifest.json" ] || CORPUS_ONLY=1 OUT="$out/flickr8k" runs/flickr8k.sh "$photos"
  "$python" runs/efficiency.py choices "$photos" "$out/captions"
  sets=("$out/captions" ${classes:+"$classes"})
else
  corpus=${CORPUS:-data/corpus} config=runs/sample.toml
  [ -f "$corpus/manifest.json" ] || "$python" -m wit.cli shards --corpus "$corpus"
  sets=(data/sample/eval/seen data/sample/eval/unseen)
fi
[ -z "${SETS:-}" ] || read -ra sets <<<"$SETS"

for objective in contrastive bag_of_words caption; do
  run="$out/$objective"
  "$python" -m wit.cli train --config "$config" --corpus "$corpus" --run "$run" \
    --model.objective "$objective" --pack --steps "$steps" \
    --loop.save_every "$every" --loop.keep "$steps" --no-loop.tensorboard
  for weights in "$run"/checkpoints/step_*.pt; do
    found="$run/at/$(basename "$weights" .pt)"
    [ -f "$found/results.csv" ] || "$python" -m wit.cli eval --run "$weights" --out "$found" \
      --resamples 200 ${TEMPLATES:+--templates "$TEMPLATES"} "${sets[@]/#/--set=}"
  done
done
"$python" runs/efficiency.py plot "$out"
