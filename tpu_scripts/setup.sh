#!/usr/bin/env bash
# Put jaxpolya on every host of the slice: wait for it, mount what is shared, copy this checkout's commit, install.
#
#   PROJECT=… ZONE=… SHARED_DIR=/mnt/shared FILESTORE=10.0.0.2:/share tpu_scripts/setup.sh
#
# What is installed is HEAD, not what isn't committed: the run's provenance names a commit. Run it again after a new commit.
# Without FILESTORE nothing is mounted. All settings: tpu_scripts/settings.sh. DRY_RUN=1 prints the commands instead.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
require_cloud
[[ -z "$FILESTORE" ]] || require SHARED_DIR "where FILESTORE is mounted on the hosts, such as /mnt/shared"

until [[ "$DRY_RUN" == 1 ]]; do
  case "$(slice_phase)" in
    ready) break ;;
    gone) die "$NAME was taken away or failed; tpu_scripts/resume.sh replaces it" ;;
    absent) die "there is no $NAME in $ZONE; tpu_scripts/create.sh makes it" ;;
  esac
  echo "waiting for $NAME" >&2
  sleep "$POLL_SECONDS"
done

mkdir -p "$CHECKOUT/.cache"
run git -C "$CHECKOUT" bundle create --quiet "$CHECKOUT/.cache/jaxpolya.bundle" HEAD
for node in $(nodes); do
  run gcloud compute tpus tpu-vm scp "$CHECKOUT/.cache/jaxpolya.bundle" "$node:jaxpolya.bundle" "${WHERE[@]}" --worker=all
done

if [[ -n "$FILESTORE" ]]; then
  # nolock: run locks stay on the host that takes them (always the first). A lock held on the server would outlive a host that
  # was taken away, and keep the next one out.
  on_all "set -e
mountpoint -q $SHARED_DIR && exit 0
sudo apt-get -qq update && sudo apt-get -qq install -y nfs-common >/dev/null
sudo mkdir -p $SHARED_DIR
sudo mount -t nfs -o hard,nolock $FILESTORE $SHARED_DIR
sudo chmod a+rwx $SHARED_DIR"
fi

on_all "set -e
[ -d jaxpolya ] || git init -q jaxpolya
cd jaxpolya
git fetch -q ../jaxpolya.bundle HEAD
git checkout -q --force FETCH_HEAD
python3 -m pip install -q --user uv
[ -x .venv/bin/python ] || python3 -m uv venv -q --seed --python $PYTHON_VERSION .venv
.venv/bin/python -m pip install -q -c constraints.txt -e '.[tpu]'"
