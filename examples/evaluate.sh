#!/usr/bin/env bash
# Two models through every step of an evaluation, on drawn scenes and without a download:
#
#   examples/evaluate.sh [CHECKPOINT] [FOLDER]
#
# CHECKPOINT is a model that knows scenes; `mfpo scenes --train_model CHECKPOINT` trains one in minutes. Without
# it (or with "") a LLaVA is trained for seconds, which shows that everything runs, and whose figures mean
# nothing. The second model is a LoRA adapter of the first. FOLDER gets everything; its report.html is the result.
set -euo pipefail
base=${1:-}
out=${2:-runs/evaluate}
scenes=${SCENES:-24}
# The model is so small that a second thread mostly waits.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
mkdir -p "$out"

if [ -z "$base" ]; then
  base=$out/llava
  mfpo scenes --train_model "$base" --quick
fi

# Preference rows from the drawings, with exact regions, and an adapter trained on them.
mfpo scenes --num_samples 32 --output_dir "$out/scenes" --overwrite
mfpo build --dataset "$out/scenes" --annotations "$out/scenes/annotations.jsonl" --output_dir "$out/pairs" --overwrite
mfpo train --dataset "$out/pairs" --model_name_or_path "$base" --output_dir "$out/tuned" --use_lora --lora_r 8 \
  --lora_alpha 16 --learning_rate 1e-3 --gradient_accumulation_steps 1 --num_train_epochs 3 --stages none

for run in base tuned; do
  model=$base
  if [ "$run" = tuned ]; then model=$out/tuned; fi
  answers=$out/$run/answers/scenes.jsonl
  mfpo generate --benchmark scenes --num_samples "$scenes" --model_name_or_path "$model" --output_file "$answers"
  mfpo score --benchmark scenes --num_samples "$scenes" --predictions "$answers"
  for probe in distortion attention; do
    mfpo probe --probe "$probe" --dataset "$out/pairs" --model_name_or_path "$model" --output_dir "$out/$run"
  done
  mfpo probe --probe grounding --num_samples "$scenes" --model_name_or_path "$model" --output_dir "$out/$run"
done

mfpo compare "$out/base" "$out/tuned" --output_file "$out/comparison.md"
mfpo report "$out/base" "$out/tuned" --output_file "$out/report.html" --title "An evaluation from end to end"
