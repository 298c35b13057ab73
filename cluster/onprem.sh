#!/usr/bin/env bash
# This machine as a node of a Ray cluster, until the script is ended (Ctrl-C, or a systemd unit's stop).
#
#   cluster/onprem.sh head                      the head: schedules, holds the dashboard, runs no trials
#   cluster/onprem.sh worker HEAD_HOST:6379     a worker with all its CPUs and GPUs
#
# Whatever follows goes to `ray start` (`ray start --help`) and has the last word: --node-ip-address=..., --port=...
# The token is a file that only its owner reads, the same on every machine; it is made once, and copied by scp:
#   (umask 077 && mkdir -p ~/.ray && openssl rand -hex 32 > ~/.ray/raykd_token)
set -euo pipefail

role=${1:?"head, or worker HEAD_HOST:PORT"}
shift

export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/raykd_token}
export RAY_USAGE_STATS_ENABLED=0
if [[ ! -s $RAY_AUTH_TOKEN_PATH ]]; then
    echo "$RAY_AUTH_TOKEN_PATH: no token; make one and copy it to every node (see the head of $0)" >&2
    exit 2
fi

case $role in
head)
    # The dashboard, which takes jobs, listens on loopback: come through `ssh -L 8265:localhost:8265 HEAD_HOST`.
    exec ray start --head --block --port=6379 --num-cpus=0 --num-gpus=0 --dashboard-host=127.0.0.1 "$@"
    ;;
worker)
    head=${1:?"worker needs HEAD_HOST:PORT"}
    shift
    exec ray start --block --address="$head" "$@"
    ;;
*)
    echo "$role: should be head or worker" >&2
    exit 2
    ;;
esac
