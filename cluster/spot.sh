#!/usr/bin/env bash
# A worker on a spot machine, until the cloud takes it away: runs `ray start --block ...`, and has it end in time.
#
#   cluster/spot.sh aws ray start --block --address=HEAD:6379
#   cluster/spot.sh gcp ray start --block --address=HEAD:6379
#
# At the cloud's notice Ray gets SIGTERM and drains the node: trials write their state and go on elsewhere. Kubernetes and
# systemd send SIGTERM themselves. How long Ray waits for them (RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S) is a little less
# than AWS gives (120 s), or Google Cloud (30 s).
set -euo pipefail

cloud=${1:?"aws or gcp, and what to run"}
shift

has_notice() {
    case $cloud in
    aws)
        local host=${METADATA:-http://169.254.169.254}/latest token
        token=$(wget --no-proxy -qO- -T 2 -t 1 --method=PUT --header "X-aws-ec2-metadata-token-ttl-seconds: 60" "$host/api/token") &&
            wget --no-proxy -qO /dev/null -T 2 -t 1 --header "X-aws-ec2-metadata-token: $token" "$host/meta-data/spot/instance-action"
        ;;
    gcp)
        local host=${METADATA:-http://metadata.google.internal}/computeMetadata/v1
        [[ $(wget --no-proxy -qO- -T 2 -t 1 --header "Metadata-Flavor: Google" "$host/instance/preempted") == TRUE ]]
        ;;
    *)
        echo "$cloud: should be aws or gcp" >&2
        exit 2
        ;;
    esac
}

has_notice && exit 1 # too late to join
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=${RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S:-$([[ $cloud == aws ]] && echo 110 || echo 25)}
"$@" &
ray=$!
trap 'kill -TERM "$ray"' TERM
while kill -0 "$ray" 2>/dev/null && ! has_notice; do sleep 2; done
kill -TERM "$ray" 2>/dev/null || true
while kill -0 "$ray" 2>/dev/null; do wait "$ray" || true; done
