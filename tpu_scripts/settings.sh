# Sourced by the scripts beside it: what is asked of Google Cloud. Every value is an environment variable with a default.
# Three have none that works, because a wrong guess costs money: PROJECT, ZONE and, for runs, SHARED_DIR.
# shellcheck shell=bash disable=SC2034,SC2153

NAME="${NAME:-jaxpolya}"                  # the slice; with several slices NAME-0, NAME-1, …
TYPE="${TYPE:-v5litepod-16}"              # accelerator type: v5litepod-16, v6e-16, v4-32, …
SLICES="${SLICES:-1}"                     # more than one is a multislice: needs QUEUED=1, and mesh.replica=SLICES in the run
SPOT="${SPOT:-0}"                         # 1: cheaper, may be taken away at any time; resume.sh gets another one
QUEUED="${QUEUED:-0}"                     # 1: wait in the queue for the slice instead of failing when there is none
VALID_FOR="${VALID_FOR:-24h}"             # how long a queued request may wait
FILESTORE="${FILESTORE:-}"                # NFS export that setup.sh mounts at SHARED_DIR, such as 10.0.0.2:/share
SHARED_DIR="${SHARED_DIR:-}"              # a directory that all hosts see alike; runs are written below it
PYTHON_VERSION="${PYTHON_VERSION:-3.12}"  # installed on the hosts, whose own Python is too old
POLL_SECONDS="${POLL_SECONDS:-30}"        # between two looks at a run
MAX_RESTARTS="${MAX_RESTARTS:-20}"        # of one run on one slice
DRY_RUN="${DRY_RUN:-0}"                   # 1: print the commands that would be run, and run none

# The software of the TPU's hosts, by its generation.
case "$TYPE" in
  v6e-*) RUNTIME="${RUNTIME:-v2-alpha-tpuv6e}" ;;
  v5p-*) RUNTIME="${RUNTIME:-v2-alpha-tpuv5}" ;;
  v5litepod-*) RUNTIME="${RUNTIME:-v2-alpha-tpuv5-lite}" ;;
  *) RUNTIME="${RUNTIME:-tpu-ubuntu2204-base}" ;;
esac

CHECKOUT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
GONE=75  # exit code: the slice was taken away (EX_TEMPFAIL)

die() {  # says what is wrong and leaves with 2, as jaxpolya does for a wrong command line
  echo "${0##*/}: $*" >&2
  exit 2
}

require() {  # NAME MEANING: a setting that has no default
  [[ -n "${!1:-}" ]] || die "$1 is not set: $2. Set it in the environment, for example $1=… $0"
}

require_cloud() {
  require PROJECT "the Google Cloud project that pays"
  require ZONE "the zone that has the TPUs, such as us-west4-a"
  [[ "$SLICES" == 1 || "$QUEUED" == 1 ]] || die "SLICES=$SLICES needs QUEUED=1: only queued requests join slices to one multislice"
  WHERE=(--project="$PROJECT" --zone="$ZONE")
}

run() {  # runs a command, or prints it so that it can be pasted
  if [[ "$DRY_RUN" == 1 ]]; then
    printf '%q ' "$@" | sed 's/ $//'
    echo
  else
    "$@"
  fi
}

nodes() {  # the names of the slices
  if [[ "$SLICES" == 1 ]]; then
    echo "$NAME"
  else
    for ((i = 0; i < SLICES; i++)); do echo "$NAME-$i"; done
  fi
}

on_all() {  # COMMAND: runs a shell command on every host of every slice at once; fails if it fails anywhere
  local node pid pids="" failed=0
  for node in $(nodes); do
    run gcloud compute tpus tpu-vm ssh "$node" "${WHERE[@]}" --worker=all --command="$1" </dev/null &
    pids="$pids $!"
    [[ "$DRY_RUN" != 1 ]] || wait "$!"  # printed one after another
  done
  for pid in $pids; do wait "$pid" || failed=1; done
  return "$failed"
}

slice_phase() {  # ready, coming (in the queue, being made or repaired), gone (taken away, failed) or absent; of several slices, the worst
  local node state=READY
  if [[ "$QUEUED" == 1 ]]; then
    state="$(gcloud compute tpus queued-resources describe "$NAME" "${WHERE[@]}" --format='value(state.state)')" || state=ABSENT
    [[ "$state" != ACTIVE ]] || state=READY
  fi
  for node in $(nodes); do
    [[ "$state" == READY ]] || break
    state="$(gcloud compute tpus tpu-vm describe "$node" "${WHERE[@]}" --format='value(state)')" || state=ABSENT
  done
  case "$state" in
    READY) echo ready ;;
    ABSENT) echo absent ;;
    PREEMPTED | TERMINATED | STOPPING | STOPPED | DELETING | SUSPENDING | SUSPENDED | FAILED) echo gone ;;
    *) echo coming ;;
  esac
}

usage() {  # prints the comment at the head of the script
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
  exit 0
}

case "${1:-}" in -h | --help) usage ;; esac
