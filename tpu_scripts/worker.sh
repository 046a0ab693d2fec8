#!/usr/bin/env bash
# The host's part of launch.sh: starts a run in the background, says how it stands, stops it. Runs on the TPU's hosts.
#
#   worker.sh start ARGUMENTS OF jaxpolya run     worker.sh state     worker.sh stop
#
# `state` prints one line, "jaxpolya-state running", "jaxpolya-state exit CODE" or "jaxpolya-state lost" (killed without a word,
# or never started). The run survives the connection that started it.
set -euo pipefail
case "${1:-}" in -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p .cache/launch
log=.cache/launch/log pid=.cache/launch/pid code=.cache/launch/code

alive() { [[ -s $pid ]] && kill -0 -- "-$(<$pid)" 2>/dev/null; }

case "${1:-}" in
  start)
    shift
    if alive; then
      echo "a run is going on here already; stop it first" >&2
      exit 1
    fi
    rm -f "$pid" "$code"
    # A session of its own: its process group is what `stop` ends, verifier processes included.
    export JAXPOLYA_DISTRIBUTED=1 pid code
    # shellcheck disable=SC2016
    setsid bash -c 'echo $$ >"$pid"; .venv/bin/jaxpolya run "$@"; echo $? >"$code"' run "$@" </dev/null >>"$log" 2>&1 &
    until [[ -s $pid ]]; do sleep 0.1; done
    ;;
  state)
    if [[ -s $code ]]; then
      echo "jaxpolya-state exit $(<$code)"
    elif alive; then
      echo "jaxpolya-state running"
      tail -n 1 "$log" >&2
    else
      echo "jaxpolya-state lost"
    fi
    ;;
  stop)
    # Politely first: jaxpolya then ends as at Ctrl-C, and leaves what the same command goes on from.
    for signal in TERM TERM KILL; do
      alive || break
      kill -s "$signal" -- "-$(<$pid)" 2>/dev/null || true
      for ((i = 0; i < 20; i++)); do
        alive || break
        sleep 0.5
      done
    done
    ;;
  *)
    echo "worker.sh: start, state or stop; see worker.sh --help" >&2
    exit 2
    ;;
esac
