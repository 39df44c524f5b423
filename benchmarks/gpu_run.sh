#!/usr/bin/env bash
# Measure everything that needs a GPU, in one go: `bash benchmarks/gpu_run.sh FOLDER [STEP ...]`.
#
# Each step has its own time limit, and what it measured lies in FOLDER when it ends, however it ends: a log a step, and
# the result files. Whatever imports `retr` may run it: PYTHON names the interpreter. All steps take under 8 minutes on
# an H100 with 16 cores.
set -u
cd "$(dirname "$0")/.."
out=${1:?a folder for the results}
shift
mkdir -p "$out"
python=${PYTHON:-python3}
results=$out/results
mkdir -p "$results"
export PYTHONUNBUFFERED=1 RETR_RESULTS=$results

step() { # step NAME SECONDS COMMAND...
    local name=$1 limit=$2 start=$SECONDS
    shift 2
    case " ${steps[*]} " in *" $name "*) ;; *) return ;; esac
    timeout "$limit" "$@" >"$out/$name.log" 2>&1
    local status=$?
    echo "$name: exit $status after $((SECONDS - start)) s"
    tail -c 3000 "$out/$name.log" | tail -n "${TAIL:-15}"
    tar -C "$out" -cf "$out/results.tar" results
}

steps=("$@")
[ $# -gt 0 ] || steps=(tests tiles search256 search768 encoders)
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
weights=$(mktemp -d)
trap 'rm -rf "$weights"' EXIT
step tests 100 "$python" -m pytest -q -m gpu -o filterwarnings=default -p no:cacheprovider --durations=5 \
    tests/index/gpu tests/retrieval/encoders/systems/test_lite.py
step tiles 60 "$python" -m retr.benchmarks.gpu_tiles --dim 256
step search256 110 "$python" -m retr.benchmarks.gpu --rows 10000000 --dim 256 --ann-rows 1000000
step search768 90 "$python" -m retr.benchmarks.gpu --rows 10000000 --dim 768 --ann-rows 0 --beside torch
case " ${steps[*]} " in *" encoders "*) "$python" tests/parity/standin.py "$weights" ;; esac
step encoders 170 "$python" -m retr.benchmarks.gpu_encoders --weights "$weights" --seconds 0.3
