# Usage: bash build_image.sh [FOLDER], where docker and enroot are; Dynamo's sources go to FOLDER/dynamo.
# Source of the steps: NVIDIA's MLPerf Inference v5.1 submission, README of the 18-node launch; Dynamo,
# container/build.sh (a92bc53); enroot, doc/cmd/import.md (3.2).
set -euo pipefail

die() {
    echo "build_image.sh: $*" >&2
    exit 1
}

for program in git docker enroot sha256sum; do
    command -v "$program" >/dev/null || die "found no $program on the PATH, expected it. Run this where images are built."
done
[ ! -e "$SQUASH_FILE" ] || die "found $SQUASH_FILE, expected no file there. Remove it to build it anew."
case "$PLATFORM:$(uname -m)" in
arm64:aarch64 | arm64:arm64 | amd64:x86_64) ;;
*) echo "build_image.sh: this machine is $(uname -m); an image for $PLATFORM is emulated, which is slow" >&2 ;;
esac

folder="${1:-.}"
mkdir -p "$folder" "$(dirname "$SQUASH_FILE")"
cd "$folder"
[ -d dynamo/.git ] || git clone https://github.com/ai-dynamo/dynamo.git
cd dynamo
git checkout --detach "$DYNAMO_COMMIT"
[ -x container/build.sh ] || die "found no container/build.sh in Dynamo $DYNAMO_COMMIT, which is too new for these steps. Import a released image instead: enroot import -o $SQUASH_FILE docker://..."

# The framework has another name since August 2025.
if grep -q TENSORRTLLM\"\\] container/build.sh; then framework=tensorrtllm; else framework=trtllm; fi
./container/build.sh --framework "$framework" --tensorrtllm-commit "$ENGINE_COMMIT" --platform "linux/$PLATFORM" --tag "$IMAGE"

# dockerd:// is the image just built; docker:// would look for it in a registry. A part of a file is never left under
# the name that jobs use.
enroot import --output "$SQUASH_FILE.part" "dockerd://$IMAGE"
mv "$SQUASH_FILE.part" "$SQUASH_FILE"
sha256sum "$SQUASH_FILE"
