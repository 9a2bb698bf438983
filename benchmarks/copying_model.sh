#!/usr/bin/env bash
# Tasks and models for benchmarks/copying.py: bash benchmarks/copying_model.sh DATA OUT (see copying_data.py for DATA).
# Copying is learnt on corrections, of which there are plenty, between steps 300 and 800: the loss falls from 4 to 1.
set -euo pipefail
here=$(dirname "$0") data=$1 out=$2
settings=(--batch-size 32 --optimiser scaled-adamw --schedule cosine --warmup-share 0.03 --precision bfloat16 --checkpoint-every 250)

python "$here/copying_data.py" "$data" "$out/tasks"
unmask pretrain "$here/copying.toml" --data "$out/tasks/corpus.jsonl" --out "$out/fresh"
unmask finetune "$out/tasks/correction.toml" "$out/fresh/model" --out "$out/correction" \
    --epochs 0.25 --learning-rate 2e-2 "${settings[@]}"
unmask finetune "$out/tasks/wikisplit.toml" "$out/correction/model" --out "$out/wikisplit" \
    --epochs 3 --learning-rate 1e-2 "${settings[@]}"
