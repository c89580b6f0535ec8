#!/bin/bash
{{ head }}
# The group level, written by bidsapp-slurm. The exit code is left in {{ state }}/group.exit.
set -u
state={{ state }}/group
work=${SLURM_TMPDIR:-${TMPDIR:-/tmp}}/hyperprep-group-${SLURM_JOB_ID:-$$}
mkdir -p "$work" || exit 73
rm -f "$state.exit"
printf '%s\t%s\t%s\n' "${SLURM_JOB_ID:-0}" "$(date +%s)" "$(hostname)" > "$state.run"
{{ run }}
"${run[@]}" {{ bids }} {{ out }} group -w "$work"
code=$?
printf '%s\t%s\n' "$code" "$(date +%s)" > "$state.exit.partial" && mv "$state.exit.partial" "$state.exit"
cd / && rm -rf "$work"
exit $code
