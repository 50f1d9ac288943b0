# Make a virtual environment with tune on a node: bootstrap.sh FOLDER CHECKOUT
#
# Exit code 4: the node lacks what the environment is made of, and the last line says what. A folder that this
# script did not finish is made anew; one that it did not begin is left alone.
set -eu
folder=$1 checkout=$2 begun=$1/.tune-begun
host="$(hostname) ($(uname -m))"

lacks() {
    echo "$host: $1"
    exit 4
}

usable() {
    "$folder/bin/python3" -c 'import mlperf_loadgen, tune.client.run, tune.orchestrator.attempt' 2>/dev/null
}

[ -f "$checkout/pyproject.toml" ] || lacks "found no $checkout, expected tune's folder there as on the submitting machine"
if [ -e "$folder" ] && [ ! -e "$begun" ]; then
    usable || lacks "$folder exists and is no environment with tune, expected a folder to make; remove it or change cluster.python"
    echo "$host: $folder is there already"
    exit 0
fi

base=
for name in python3.13 python3.12 python3.11 python3; do
    suits='import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'
    if command -v "$name" >/dev/null && "$name" -c "$suits" 2>/dev/null; then
        base=$name
        break
    fi
done
[ -n "$base" ] || lacks "found no Python 3.11 to 3.13 with venv on the PATH, expected one"

rm -rf "$folder"
mkdir -p "$folder"
touch "$begun"
"$base" -m venv "$folder"
pip() { "$folder/bin/python3" -m pip --disable-pip-version-check --quiet "$@"; }
if ! pip download --no-deps --only-binary :all: --dest "$folder/loadgen" mlcommons-loadgen 2>/dev/null; then
    header='import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'
    { command -v g++ >/dev/null && "$base" -c "$header"; } ||
        lacks "LoadGen has no wheel for this machine and $base: expected g++ and the headers of Python, to compile it"
    echo "$host: compiling LoadGen"
fi
rm -rf "$folder/loadgen"
pip install --constraint "$checkout/constraints.txt" --editable "$checkout"
usable || "$folder/bin/python3" -c 'import mlperf_loadgen, tune.client.run, tune.orchestrator.attempt'
rm "$begun"
echo "$host: $("$folder/bin/python3" --version), tune and LoadGen in $folder"
