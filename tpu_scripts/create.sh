#!/usr/bin/env bash
# Create a TPU slice, or several that are joined to a multislice.
#
#   PROJECT=my-project ZONE=us-west4-a tpu_scripts/create.sh
#   PROJECT=… ZONE=… TYPE=v6e-16 SPOT=1 QUEUED=1 tpu_scripts/create.sh
#   PROJECT=… ZONE=… TYPE=v4-32 SLICES=2 QUEUED=1 tpu_scripts/create.sh
#
# QUEUED=1 returns once the request is in the queue; setup.sh waits for the slice. All settings: tpu_scripts/settings.sh.
# DRY_RUN=1 prints the commands instead.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
require_cloud

options=(--accelerator-type="$TYPE")
[[ "$SPOT" == 1 ]] && options+=(--spot)

if [[ "$QUEUED" == 1 ]]; then
  if [[ "$SLICES" == 1 ]]; then
    which=(--node-id="$NAME")
  else
    which=(--node-count="$SLICES" --node-prefix="$NAME")
  fi
  run gcloud compute tpus queued-resources create "$NAME" "${WHERE[@]}" "${which[@]}" "${options[@]}" \
    --runtime-version="$RUNTIME" --valid-until-duration="$VALID_FOR"
else
  run gcloud compute tpus tpu-vm create "$NAME" "${WHERE[@]}" "${options[@]}" --version="$RUNTIME"
fi
