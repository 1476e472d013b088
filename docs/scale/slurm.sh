#!/bin/bash
# Plan and submit: animatediff-v2v batch ... --plan-only && sbatch --array=0-7 slurm.sh OUT
#SBATCH --job-name=animatediff-v2v
#SBATCH --array=0-7
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --mem=24G
#SBATCH --requeue
set -euo pipefail
animatediff-v2v work "$1" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
