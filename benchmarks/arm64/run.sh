#!/usr/bin/env bash
# Installs the wheel on an emulated arm64 Debian trixie and has it answer with ONNX Runtime and with LiteRT.
#
#   PYTHON=.venv/bin/python benchmarks/arm64/run.sh [FOLDER]
#
# No chroot, no binfmt_misc and no root rights: packages are unpacked into FOLDER (a temporary one if none is named; one
# that is there already is gone on with), and the emulator runs Debian's interpreter out of it. PYTHON is a developers'
# environment (`make dev`); it makes the bundles and asks. Fetches 130 MB from Debian and 70 MB from the package index.
#
# Exit code 0: both answers are right. 77: skipped, the line says why. Anything else: a failure.
# bookworm's emulator (7.2) crashes on onnxruntime from 1.28 on; trixie's (10.0), taken here, does not.
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
project="$(cd "$here/../.." && pwd)"
PYTHON="$(realpath -sm "${PYTHON:-$project/.venv/bin/python}")"
KEYRING="${KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}"
# Wheels name the C library they were built for; trixie's is newer than all of these.
platforms=()
for platform in manylinux2014 manylinux_2_17 manylinux_2_26 manylinux_2_27 manylinux_2_28 manylinux_2_31 manylinux_2_34; do
  platforms+=(--platform "${platform}_aarch64")
done

skip() { echo "skipped: $*"; exit 77; }
step() { echo "[arm64] $*" >&2; }

for tool in apt-get dpkg-deb; do
  command -v "$tool" >/dev/null || skip "no $tool here; the emulated system is made of Debian's packages"
done
# Where this machine has its own Debian packages from, security updates aside.
MIRROR="${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)}"
[ -n "$MIRROR" ] || skip "no Debian mirror is configured here; set MIRROR"
[ -r "$KEYRING" ] || skip "no $KEYRING to check Debian's packages with (package debian-archive-keyring)"
[ -x "$PYTHON" ] || skip "no interpreter $PYTHON; run \`make dev\` or set PYTHON"
[ "$(uname -m)" = x86_64 ] || skip "this is $(uname -m); the emulator's package is taken for x86_64"

folder="${1:-}"
if [ -z "$folder" ]; then
  folder="$(mktemp -d)"
  trap 'rm -rf "$folder"' EXIT
fi
mkdir -p "$folder"
folder="$(cd "$folder" && pwd)"

# Debian's packages NAME... of trixie for ARCHITECTURE, without touching this machine's own package lists.
debian() {
  local architecture="$1" verb="$2"; shift 2
  local apt="$folder/apt-$architecture"
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
  : >"$apt/status"
  echo "deb [signed-by=$KEYRING] $MIRROR trixie main" >"$apt/sources.list"
  local options=(
    -qq -o "APT::Architecture=$architecture" -o "APT::Architectures=$architecture" -o APT::Sandbox::User=root
    -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=- -o Dir::Etc::Parts=-
    -o "Dir::State::lists=$apt/lists" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt/cache"
    -o Debug::NoLocking=1
  )
  apt-get "${options[@]}" update || skip "$MIRROR cannot be reached"
  (cd "$apt/cache/archives" && apt-get "${options[@]}" "$verb" "$@" >/dev/null)
}

unpack() { for package in "$1"/*.deb; do dpkg-deb -x "$package" "$2"; done; }

if [ ! -x "$folder/qemu/usr/bin/qemu-aarch64" ]; then
  step "fetching the emulator"
  debian amd64 download qemu-user
  unpack "$folder/apt-amd64/cache/archives" "$folder/qemu"
fi
if [ ! -e "$folder/root/usr/bin/python3" ]; then
  step "fetching an arm64 system with Python"
  debian arm64 install --yes --no-install-recommends --download-only python3 python3-pip-whl libstdc++6
  mkdir -p "$folder/root"
  for name in bin lib sbin; do ln -sfn "usr/$name" "$folder/root/$name"; done # what base-files' scripts would do
  unpack "$folder/apt-arm64/cache/archives" "$folder/root"
fi

# Its own name is given to the interpreter (-0), so that the processes it starts are emulated as well.
device="$folder/python"
cat >"$device" <<DEVICE
#!/bin/sh
export PYTHONHOME='$folder/root/usr' PYTHONPATH='$folder/site'
exec '$folder/qemu/usr/bin/qemu-aarch64' -0 '$device' -L '$folder/root' '$folder/root/usr/bin/python3' "\$@"
DEVICE
chmod +x "$device"
version="$("$device" -c 'import sys; print("{}.{}".format(*sys.version_info))')"

step "building the wheel, fetching what it needs for Python $version on aarch64"
rm -rf "$folder/wheels"/edgewright-* "$folder/site"
"$PYTHON" -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir "$folder/wheels" "$project"
wheel="$(echo "$folder/wheels"/edgewright-*.whl)"
"$PYTHON" -m pip --disable-pip-version-check download --quiet --dest "$folder/wheels" --only-binary :all: \
  --python-version "$version" --implementation cp "${platforms[@]}" \
  --constraint "$project/constraints.txt" "$wheel[tflite]"

step "installing it there (a minute or more: pip is emulated)"
pip="$(echo "$folder/root/usr/share/python-wheels"/pip-*.whl)/pip"
"$device" "$pip" install --quiet --no-compile --root-user-action ignore --no-index --find-links "$folder/wheels" \
  --target "$folder/site" "$wheel[tflite]"

step "asking it"
"$device" -c 'import platform, sys; print(platform.machine(), "Python", sys.version.split()[0], file=sys.stderr)'
rm -rf "$folder/bundles"
"$PYTHON" "$here/bundles.py" "$folder/bundles"
"$PYTHON" "$here/ask.py" "$device" "$folder/bundles"
