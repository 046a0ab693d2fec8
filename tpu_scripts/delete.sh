#!/usr/bin/env bash
# Delete the slice, or the queued request with all its slices. What lies in SHARED_DIR stays.
#
#   PROJECT=… ZONE=… tpu_scripts/delete.sh
#
# Asks nothing. Give it the settings that create.sh had (NAME, QUEUED). All settings: tpu_scripts/settings.sh.
# DRY_RUN=1 prints the commands instead.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
require_cloud

if [[ "$QUEUED" == 1 ]]; then
  run gcloud compute tpus queued-resources delete "$NAME" "${WHERE[@]}" --force --quiet
else
  run gcloud compute tpus tpu-vm delete "$NAME" "${WHERE[@]}" --quiet
fi
