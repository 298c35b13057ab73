#!/usr/bin/env bash
# A study on Slurm: one small node as the head, which runs no trials, and GPU nodes beside it, in one job of two parts.
#
#   sbatch cluster/slurm.sh launch studies/imagenet/crd.yaml --storage /shared/runs --data /shared/data
#
# What follows the script's name goes to raykd. Preempted, or out of time, the job is queued again and goes on where
# it stood; cancelled, it ends, resumable. Every node needs the same environment (RAYKD_HOME, a clone with its .venv) and
# the same /shared.
#
#SBATCH --job-name=raykd
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@180
#SBATCH --output=raykd-%j.log
#SBATCH --open-mode=append
#SBATCH --partition=cpu --nodes=1 --ntasks-per-node=1 --cpus-per-task=4 --mem=16G
#SBATCH hetjob
#SBATCH --partition=gpu --nodes=4 --ntasks-per-node=1 --cpus-per-task=32 --gpus-per-node=4 --mem=128G
set -euo pipefail

export PATH=${RAYKD_HOME:-/shared/raykd}/.venv/bin:$PATH
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600

# The job's own token, in a file that its owner alone reads, on the storage that all nodes share.
RAY_AUTH_TOKEN_PATH=${RAYKD_TOKENS:-$HOME/.ray}/raykd-$SLURM_JOB_ID
export RAY_AUTH_TOKEN_PATH
(umask 077 && mkdir -p "$(dirname "$RAY_AUTH_TOKEN_PATH")" && openssl rand -hex 32 >"$RAY_AUTH_TOKEN_PATH")
RAYKD_PID=$(mktemp)   # raykd's process, on the head, where this script runs too
export RAYKD_PID
trap 'rm -f "$RAY_AUTH_TOKEN_PATH" "$RAYKD_PID"' EXIT

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST_HET_GROUP_0" | head -n 1)
gpu_nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST_HET_GROUP_1" | wc -l)
address=$(getent ahostsv4 "$head" | awk 'NR == 1 {print $1}'):$((20000 + SLURM_JOB_ID % 20000))

# Every node runs the same: Ray, whose head offers nothing; and on the head raykd, which writes down its process. A step asks
# for its CPUs itself, since srun does not take them over from the job; Ray counts the GPUs that Slurm gave.
# shellcheck disable=SC2016
driver='echo $$ >"$RAYKD_PID"; exec raykd "$@"'
ray=(ray symmetric-run --address "$address" --min-nodes $((gpu_nodes + 1)))
study=(-- bash -c "$driver" raykd "$@" --address "$address")
head_cpus=$SLURM_CPUS_PER_TASK_HET_GROUP_0 cpus=$SLURM_CPUS_PER_TASK_HET_GROUP_1
srun --kill-on-bad-exit=1 \
    --het-group=0 --cpus-per-task="$head_cpus" \
    "${ray[@]}" --num-cpus=0 --num-gpus=0 --dashboard-host=127.0.0.1 "${study[@]}" : \
    --het-group=1 --cpus-per-task="$cpus" "${ray[@]}" --num-cpus="$cpus" "${study[@]}" &
step=$!

# USR1 comes ahead of the end of the job's time: raykd, told TERM, leaves a run that goes on, and the job is queued again.
# (srun, told TERM, would kill it.) With scancel, and with preemption, after which Slurm queues the job again by itself, TERM
# comes to raykd and to all of Ray at once: the run goes on from its last checkpoints.
again() {
    kill -TERM "$(<"$RAYKD_PID")" || kill -TERM "$step" || true
    wait "$step" || true
    scontrol requeue "$SLURM_JOB_ID"
}
trap again USR1
wait "$step"
