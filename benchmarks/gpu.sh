#!/usr/bin/env bash
# What one GPU does, in at most 8 minutes: attention, training, decoding, the host. Prints one table and writes one JSON.
#
#   benchmarks/gpu.sh [--small] [OUT]
#
# OUT (a directory, by default .cache/gpu) keeps every benchmark's own output and gpu.json, which holds all of it. --small is the same with
# tiny shapes, to see that it runs, on whatever device is there. A benchmark that fails or takes too long is named, and the others go on.
# PYTHON is the interpreter (by default the checkout's). torch and transformers are measured beside, where they are installed.
set -uo pipefail
small=
[ "${1:-}" = --small ] && small=1 && shift
out=${1:+$(realpath -m "$1")}
cd "$(dirname "$0")/.."
out=${out:-$PWD/.cache/gpu}
python=${PYTHON:-.venv/bin/python}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
mkdir -p "$out"
rm -f "$out"/{kernels,sft,decode,host}.{txt,json} "$out"/{gpu.json,steps}

device=$("$python" -c 'import jax; print(jax.default_backend(), jax.devices()[0].device_kind, sep="\t")') || exit 1
if [ -z "$small" ] && [ "${device%%$'\t'*}" != gpu ]; then
  echo "gpu.sh: jax sees no GPU here but ${device##*$'\t'}; --small runs tiny shapes on it" >&2
  exit 2
fi

# takes SCRIPT OPTION: whether a benchmark has an option.
takes() { grep -q -- "\"$2\"" "benchmarks/$1.py"; }

# step NAME SECONDS SCRIPT ARGUMENT…: one benchmark, its output and, where it writes any, its JSON.
step() {
  local name=$1 limit=$2 script=$3
  shift 3
  takes "$script" --json && set -- "$@" --json "$out/$name.json"
  local start=$SECONDS
  timeout --kill-after=5 "$limit" "$python" "benchmarks/$script.py" "$@" >"$out/$name.txt" 2>&1
  local status=$?
  printf '%s\t%s\t%s\t%s\n' "$name" "$status" "$((SECONDS - start))" "$script.py $*" >>"$out/steps"
  echo "$name: $((SECONDS - start)) s, exit $status"
}

if [ "$small" ]; then
  step kernels 100 kernels 1.5B-one --small --rounds 1 --least 0.01
  step sft 100 train sft --model layers=2,width=64,ff=128,heads=4,kv_heads=2,head_width=16,vocab=512 --row-tokens 64 --rounds 1 --remat block
  step decode 100 decode distinct --rounds 1 --model layers=2,width=64,ff=128,heads=4,kv_heads=2,head_width=16,vocab=512
  step host 100 host --prompts 8 --samples 8 --new-tokens 4 --rows 64 --rounds 1 --workers 2
else
  step decode 150 decode --model 1.5B --rounds 2 --decode pallas xla
  step sft 190 train sft --model 1.5B --dtype bfloat16 --batch-rows 16 --micro-rows 8 --row-tokens 2048 --remat none block --rounds 2
  step kernels 90 kernels 1.5B 1.5B-one window --rounds 2
  step host 50 host --rounds 2
fi

"$python" - "$out" "$device" <<'PYTHON'
import json
import sys
from pathlib import Path

out, device = Path(sys.argv[1]), sys.argv[2].split("\t")[-1]
found = {"device": device, "steps": {}}
for line in (out / "steps").read_text().splitlines():
    name, status, seconds, command = line.split("\t")
    text, figures = (out / f"{name}.txt").read_text(), out / f"{name}.json"
    found["steps"][name] = {
        "command": command, "exit": int(status), "seconds": int(seconds), "output": text.splitlines(),
        "figures": json.loads(figures.read_text()) if figures.exists() else None,
    }  # fmt: skip
(out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")

rows = []
for name, step in found["steps"].items():
    if step["exit"]:
        why = "took too long" if step["exit"] in (124, 137) else f"exit {step['exit']}: {(step['output'] or [''])[-1]}"
        rows.append((name, "", why))
    elif name == "kernels":
        for case, of_case in step["figures"]["cases"].items():
            for side, it in of_case["by"].items():
                share = f", {it['gradient_share']:.0%} of the matmul rate" if "gradient_share" in it else ""
                figures = it.get("failed") or f"{it['forward_ms']:.2f} ms, with gradient {it['gradient_ms']:.2f} ms{share}"
                rows.append((f"attention {case}", side, figures))
    elif name == "sft":
        for it in step["figures"]:
            for side in ("jaxpolya", "torch"):
                if side in it:
                    share = f", {it[side]['matmul_share']:.0%} of the matmul rate" if "matmul_share" in it[side] else ""
                    rate, memory = it[side]["tokens_per_second"], it[side]["memory"] / 2**30
                    what = f"{it['case']['objective']} step, remat {it['case']['remat']}"
                    rows.append((what, side, f"{rate:,.0f} tokens/s, {memory:.1f} GiB{share}"))
    else:
        rows += [(name, "", line.strip()) for line in step["output"] if any(of in line for of in ("tokens/s", "responses/s", "bound"))]
widths = [max(len(row[i]) for row in rows) for i in range(2)]
print(f"\n{device}, {sum(step['seconds'] for step in found['steps'].values())} s; all of it is in {out / 'gpu.json'}")
for what, side, figures in rows:
    print(f"  {what:{widths[0]}}  {side:{widths[1]}}  {figures}")
sys.exit(any(step["exit"] for step in found["steps"].values()))
PYTHON
