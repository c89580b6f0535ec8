#!/bin/sh
# Puts HyperPrep into an image; the Dockerfile and the Apptainer definition both call it, so both hold the same.
#   install.sh environment   virtual environment from the pinned lock
#   install.sh app           the program, from the sources beside this folder
#   install.sh check         weights, template and program are whole; nothing is left that only root can read
# Read from the environment: DEVICE (cpu or cuda), TORCH_INDEX, and all that pip reads (PIP_INDEX_URL, PIP_CERT ...).
set -eu
cd "$(dirname "$0")/.."
prefix=${PREFIX:-/opt/hyperprep}

environment() {
    python3.11 -m venv "$prefix"
    # The lock also pins what only tests need; as constraints it gives its versions to what the program needs.
    "$prefix/bin/python" - > /tmp/needed.txt <<'PYTHON'
import tomllib
with open("pyproject.toml", "rb") as stream:
    print("\n".join(tomllib.load(stream)["project"]["dependencies"]))
PYTHON
    torch=$(grep '^torch==' requirements.txt)
    if [ "${DEVICE:-cpu}" = cuda ]; then
        "$prefix/bin/pip" install --no-cache-dir "$torch"
    elif [ "${DEVICE:-cpu}" = cpu ]; then
        "$prefix/bin/pip" install --no-cache-dir --extra-index-url "$TORCH_INDEX" "$torch+cpu"
    else
        echo "DEVICE is cpu or cuda, not '$DEVICE'" >&2
        exit 2
    fi
    "$prefix/bin/pip" install --no-cache-dir -c requirements.txt -r /tmp/needed.txt bids-validator-deno
    rm /tmp/needed.txt
}

app() {
    # setuptools of the lock, for the build only
    "$prefix/bin/pip" install --no-cache-dir "$(grep '^setuptools==' requirements.txt)"
    "$prefix/bin/pip" install --no-cache-dir --no-deps --no-build-isolation .
    "$prefix/bin/python" -m compileall -q -j 0 "$prefix/lib" || true   # some packages carry files of other Pythons
    chmod -R a+rX "$prefix"
}

check() {
    "$prefix/bin/bidsapp" --version
    folder=$(mktemp -d)
    "$prefix/bin/python" - "$folder" <<'PYTHON'
import os, sys
os.chdir(sys.argv[1])
from hyperprep.interfaces.template import LoadTemplate
from hyperprep.models.weights import SHIPPED, find_weights

for name in SHIPPED:
    entry = find_weights(name)
    print(name, entry.sha256, entry.path)
print("template", LoadTemplate().run().outputs.out_file)
PYTHON
    rm -r "$folder"
    unreadable=$(find "$prefix" ! -perm -a=r ! -type l | head -3)
    [ -z "$unreadable" ] || { echo "not readable by everybody: $unreadable" >&2; exit 1; }
}

"$1"
