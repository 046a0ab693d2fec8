#!/usr/bin/env bash
# Run a configuration on all hosts of the slice, and stay with it until it ends.
#
#   PROJECT=… ZONE=… SHARED_DIR=/mnt/shared tpu_scripts/launch.sh configs/llama3.2_3b_paper.yaml [--set KEY=VALUE …]
#
# What follows the configuration goes to `jaxpolya run`. Runs are written to SHARED_DIR/runs. The hosts go on if this script is
# stopped; the same command finds them at it. One place decides for all hosts (two hosts of which only one restarts wait for each
# other for ever), by their exit codes:
#
#   0 everywhere             done
#   2 to 6 anywhere          a person has to mend something: stops all hosts, leaves with that code
#   anything else, or lost   stops all hosts and starts them again: interrupted (130), killed (137), a crash, a rebooted host.
#                            The run goes on from what it has written. At most MAX_RESTARTS times
#   the slice is gone        leaves with 75; resume.sh gets another slice and goes on
#
# All settings: tpu_scripts/settings.sh. DRY_RUN=1 prints the commands instead.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
require_cloud
require SHARED_DIR "a directory that all hosts see alike, such as /mnt/shared"
[[ $# -ge 1 ]] || die "name a configuration, such as configs/llama3.2_3b_paper.yaml"
[[ "$1" == /* ]] || git -C "$CHECKOUT" cat-file -e "HEAD:$1" 2>/dev/null \
  || die "$1 is not part of this checkout's HEAD, which setup.sh installs; commit it, or give a path on the hosts"

worker=jaxpolya/tpu_scripts/worker.sh
start="$worker start $(printf '%q ' "$1" --set "output=$SHARED_DIR/runs" "${@:2}")"

decide() {  # STATES OF ALL HOSTS: prints wait, done, restart, or the exit code to stop with
  local code
  for code in 2 3 4 5 6; do
    if grep -q "jaxpolya-state exit $code\$" <<<"$1"; then
      echo "$code"
      return
    fi
  done
  if grep -qE 'jaxpolya-state (lost|exit [1-9])' <<<"$1"; then
    echo restart
  elif grep -q 'jaxpolya-state running' <<<"$1"; then
    echo wait
  else
    echo "done"
  fi
}

if [[ "$DRY_RUN" == 1 ]]; then
  on_all "$start"
  on_all "$worker state"
  exit 0
fi

[[ "$(slice_phase)" == ready ]] || die "$NAME is not ready; tpu_scripts/setup.sh waits for it"
on_all "test -d $SHARED_DIR && test -x $worker" || die "not every host has $SHARED_DIR and jaxpolya; run tpu_scripts/setup.sh"
states="$(on_all "$worker state")" || true
[[ "$states" == *running* ]] || on_all "$start"

restarts=0 suspicious=0
while true; do
  sleep "$POLL_SECONDS"
  if ! states="$(on_all "$worker state" | tr -d '\r')"; then
    case "$(slice_phase)" in
      gone | absent)
        echo "$NAME was taken away; tpu_scripts/resume.sh gets another one and goes on" >&2
        exit "$GONE"
        ;;
    esac
    echo "some host of $NAME can't be reached; looking again" >&2
    continue
  fi
  verdict="$(decide "$states")"
  case "$verdict" in
    wait) suspicious=0 ;;
    done)
      echo "done: $SHARED_DIR/runs"
      exit 0
      ;;
    restart)
      # One more look first: a host that had its reason (an exit code from 2 to 6) takes the others down with it, and may say so last.
      if ((suspicious == 0)); then
        suspicious=1
        continue
      fi
      suspicious=0
      on_all "$worker stop"
      if ((++restarts > MAX_RESTARTS)); then
        echo "$MAX_RESTARTS restarts didn't help; each host's log is jaxpolya/.cache/launch/log" >&2
        exit 1
      fi
      echo "restart $restarts after: $(sort <<<"$states" | uniq -c | tr -s ' \n' ' ')" >&2
      on_all "$start"
      ;;
    *)
      on_all "$worker stop"
      echo "the run ended with $verdict (jaxpolya --help says what that means); each host's log is jaxpolya/.cache/launch/log" >&2
      exit "$verdict"
      ;;
  esac
done
