#!/usr/bin/env bash
# Runs the benchmark of initialisation on a GPU: more steps and seeds than a CPU is good for. The last line says what it took.
#
#     benchmarks/on_gpu.sh DIRECTORY NAME=MODEL=TEXT …
set -euo pipefail
python -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "there is no GPU that torch can use")'
directory=$1
shift
python "$(dirname "$0")/initialisation.py" "$directory" --model "$@" --tokens 512 --steps 0 20 100 400 --batch 32 --seeds 3
