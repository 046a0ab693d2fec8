#!/usr/bin/env bash
# Keep a run going until it ends, on as many slices one after another as that takes.
#
#   PROJECT=… ZONE=… SHARED_DIR=… SPOT=1 QUEUED=1 tpu_scripts/resume.sh configs/llama3.2_3b_paper.yaml [--set KEY=VALUE …]
#
# Takes launch.sh's arguments. Where there is no slice one is made; one that was taken away is replaced; then setup.sh and
# launch.sh. It ends when the run does, with the run's exit code. All settings: tpu_scripts/settings.sh.
# DRY_RUN=1 prints the commands instead, those for a slice that was taken away.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
require_cloud
require SHARED_DIR "a directory that all hosts see alike, such as /mnt/shared"
[[ $# -ge 1 ]] || die "name a configuration, such as configs/llama3.2_3b_paper.yaml"
here="$(dirname "${BASH_SOURCE[0]}")"

while true; do
  phase=gone
  [[ "$DRY_RUN" == 1 ]] || phase="$(slice_phase)"
  [[ "$phase" != gone ]] || "$here/delete.sh"
  [[ "$phase" != gone && "$phase" != absent ]] || "$here/create.sh"
  "$here/setup.sh"
  code=0
  "$here/launch.sh" "$@" || code=$?
  [[ "$code" == "$GONE" ]] || exit "$code"
done
