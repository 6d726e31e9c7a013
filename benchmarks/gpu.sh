#!/usr/bin/env bash
# How fast training is on this machine's GPU, in one command of less than 9 minutes:
#
#   benchmarks/gpu.sh                  ViT-B, 16 frames of 224 x 224, bf16
#   benchmarks/gpu.sh --cpu-rehearsal  the same at tiny sizes on the CPU; so without a GPU, too
#
# Checks our steps against float32 and plain PyTorch and measures them, then under torch.compile
# with the loader in front (as sweeps/ppma.yaml trains), then features and probes; a table comes
# last, with what each part had measured when its time was up. Needs PyTorch, timm, and PyAV (which
# PPMA reads by) or decord; no Ray, no MLflow. The few small packages that it lacks beside these are
# put into a folder of their own: from WHEELS=FOLDER, else by pip from its index.
# VIDEOS=FOLDER: clips that prepare_dataset made elsewhere; without PyAV none can be made here.
# PYTHON is the interpreter, LOGS=FOLDER keeps what each part printed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

LIMIT=520 # seconds for all parts
ours=.venv/bin/python
[[ -x $ours ]] || ours=python3
PYTHON=${PYTHON:-$ours}
LOGS=${LOGS:-$(mktemp -d)}
mkdir -p "$LOGS"

has() { "$PYTHON" -c "import sys, importlib.util as u; sys.exit(u.find_spec('$1') is None)"; }

for module in torch torchvision timm; do
  if ! has "$module"; then
    echo "$PYTHON has no $module: give one that has by PYTHON=" >&2
    exit 2
  fi
done

lacking=()
has pydantic || lacking+=(pydantic pydantic-core annotated-types typing-extensions typing-inspection)
has yaml || lacking+=(pyyaml)
has cv2 || lacking+=(opencv-contrib-python-headless)
has safetensors || lacking+=(safetensors)
if ((${#lacking[@]})); then
  from=()
  [[ -z "${WHEELS:-}" ]] || from=(--no-index --find-links "$WHEELS")
  echo "installing into $LOGS/packages: ${lacking[*]}"
  # Without what they need: torch's numpy is to stay torch's.
  "$PYTHON" -m pip install -q --no-deps -c constraints.txt "${from[@]}" --target "$LOGS/packages" "${lacking[@]}" || {
    echo "they cannot be had here: bring their wheels, and say where by WHEELS=FOLDER" >&2
    exit 2
  }
  export PYTHONPATH="$LOGS/packages${PYTHONPATH:+:$PYTHONPATH}"
fi

cuda=1
"$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || cuda=0
[[ "${1:-}" != --cpu-rehearsal ]] || cuda=0
if ((cuda)); then
  nvidia-smi --query-gpu=name,driver_version,power.limit --format=csv,noheader || true
  on=(--model vit_base --device cuda --precision bf16)
  steps=(--repeats 5 --seconds 1.5)
  # A process of the loader for each core but one of 16, and as shared memory has room for: two
  # batches of 294 MiB for each, and two more.
  cores=$(($(nproc) < 16 ? $(nproc) : 16))
  room=$(($(df --output=avail --block-size=1M /dev/shm | tail -1) / 600 - 1))
  ((room >= 0)) || room=0
  workers=$((cores - 1 < room ? cores - 1 : room))
  ((room >= cores - 1)) || echo "/dev/shm has room for $room of $((cores - 1)) loader processes"
  fed=(--workers "$workers" --files 48 --file-seconds 10 --seconds 1)
  probe=(--clips 1024 --classes 101 --repeats 5)
else
  echo "A rehearsal on the CPU at tiny sizes: its rates say nothing of a GPU."
  on=(--model vit_tiny --device cpu --precision fp32)
  steps=(--repeats 2 --seconds 0.2)
  fed=(--files 2 --file-seconds 3 --seconds 0.2)
  probe=(--clips 64 --classes 4 --repeats 2)
fi
if [[ -n "${VIDEOS:-}" && ! -d "$VIDEOS" ]]; then
  echo "VIDEOS=$VIDEOS is no folder" >&2
  exit 2
fi
fed+=(--videos "${VIDEOS:-$LOGS/videos}")

# part NAME SECONDS COMMAND...: what takes longer is cut short; what it printed by then counts.
part() {
  local name=$1 limit=$(($2 < LIMIT - SECONDS ? $2 : LIMIT - SECONDS)) status=0
  shift 2
  if ((limit < 1)); then
    echo "$name: no time is left"
    return 0
  fi
  echo "== $name (at most $limit s)"
  timeout "$limit" "$PYTHON" -u "$@" 2>&1 | tee "$LOGS/$name.log" || status=$?
  if ((status == 124)); then
    echo "$name: took more than $limit s"
  elif ((status)); then
    echo "$name: failed"
  fi
  return "$status"
}

part steps 190 benchmarks/training_step.py "${on[@]}" "${steps[@]}" || {
  (($? == 124)) || exit 1 # whoever is not right need not be fast
}
part fed 250 benchmarks/fed_training.py "${on[@]}" "${fed[@]}" --compile || true
part probe 70 benchmarks/probe.py "${on[@]}" "${probe[@]}" || true
"$PYTHON" benchmarks/gpu_table.py "$LOGS" "$SECONDS"
