#!/bin/sh
# Run `ansible-test sanity` on the staged collection; arguments go to ansible-test (docs/ansible-testing.md).
# PYTHON names the interpreter whose environment has ansible-core; .venv's is taken otherwise.
set -eu

repo=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$repo/.venv/bin/python}
bin=$(dirname "$python")

# A home of its own: what ansible-test keeps between runs is gone with `make clean`, and the user's cache is left alone.
home=$repo/build/sanity-home
mkdir -p "$home/.ansible/test/cache"
ln -sfn "${XDG_CONFIG_HOME:-$HOME/.config}" "$home/.config" # pip's configuration
# ansible-test would download this file; Python brings the same thing along.
printf 'import ensurepip\n\nensurepip.bootstrap(default_pip=True)\n' >"$home/.ansible/test/cache/get_pip_24_2.py"

work=$(mktemp -d "${TMPDIR:-/tmp}/devicevm-sanity-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
log=$work/log

cd "$("$python" "$repo/packaging/stage_collection.py" "$work")"
# The system's Pythons only: wrappers that stand for a Python which is not there make ansible-test stop.
status=0
HOME=$home PATH=$bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    ansible-test sanity --color no "$@" >"$log" 2>&1 || status=$?
# pip's progress, left out, is most of what a first run says.
grep -vE '^(Collecting|Installing|Looking|Processing|Successfully|Using cached|WARNING: Location| +(Downloading|━))' "$log"

# What ansible-test calls success, and is none.
if grep -q 'All targets skipped' "$log"; then
    echo 'sanity.sh: ansible-test looked at nothing' >&2
    exit 1
fi
if grep 'Skipping sanity test' "$log" | grep -v ' on Python ' >&2; then
    echo 'sanity.sh: these tests could not run' >&2
    exit 1
fi
exit "$status"
