#!/usr/bin/env bash
# Makes the peers' environments in a folder: make_envs.sh FOLDER [PYTHON]. What does not install is left out.
set -u
folder=$1 python=${2:-python3}
mkdir -p "$folder"
while read -r name packages; do
    "$python" -m venv "$folder/$name" &&
        # shellcheck disable=SC2086 # several words
        "$folder/$name/bin/pip" install --quiet $packages ||
        { echo "$name: does not install; left out"; rm -rf "${folder:?}/$name"; }
done <<'PACKAGES'
optuna optuna==5.0.0
syne syne-tune[basic,sklearn]==0.16.0 xgboost statsmodels
neps neural-pipeline-search==0.17.0
PACKAGES
