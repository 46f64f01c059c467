#!/bin/bash
# Captions by an array of jobs, each with a share of the input and an output of its own: sbatch slurm.sh
#SBATCH --job-name=blip2
#SBATCH --array=1-16
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=48G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=INT@120
#SBATCH --output=%x-%a.log
#SBATCH --open-mode=append

SHARDS=16 # as many as the array has; it stays so when single jobs are sent again: sbatch --array=3,7 slurm.sh
INPUT=${INPUT:-/shared/manifest.parquet}
OUT=${OUT:-/shared/captions}

mkdir -p "$OUT"
srun blip2 caption "$INPUT" --shard "$SLURM_ARRAY_TASK_ID/$SHARDS" \
    --model "${BLIP2_MODEL:-Salesforce/blip2-opt-2.7b}" \
    --out "$OUT/$SLURM_ARRAY_TASK_ID.parquet" --summary "$OUT/$SLURM_ARRAY_TASK_ID.json" --resume
code=$?

case $code in
    0 | 3) exit 0 ;; # all is done; with 3 some rows carry errors
    130) scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" ;; # the time was up: go on in the next job
    *) exit "$code" ;;
esac
