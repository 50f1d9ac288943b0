#!/bin/bash
# Send the load of the trial with AIPerf, which Dynamo's images have, its lengths normal with the mean and the
# deviation of the trial's. Another client is as good: ENDPOINTS holds the addresses of the frontends between
# spaces, MODEL the name in requests, MODEL_PATH the checkpoint, $1 a folder for results.
set -euo pipefail
urls=()
for endpoint in $ENDPOINTS; do urls+=(--url "$endpoint"); done
exec aiperf profile --model "$MODEL" --tokenizer "$MODEL_PATH" "${urls[@]}" \
    --endpoint-type completions --streaming --arrival-pattern poisson --request-rate 10 \
    --concurrency 2048 --request-count 6000 \
    --isl 1024 --isl-stddev 0 --osl 1024 --osl-stddev 0 --extra-inputs ignore_eos:true \
    --random-seed 0 --output-artifact-dir "$1"
