#!/bin/bash
{{ head }}
# One participant of an array, written by bidsapp-slurm. The first argument is added to the index of the task.
# The exit code is left in {{ state }}: sub-LABEL.run from the start, sub-LABEL.exit at the end.
set -u
index=$(( ${SLURM_ARRAY_TASK_ID:?submit this as an array job} + ${1:-0} ))
label=$(sed -n "$(( index + 1 ))p" {{ participants }})
[ -n "$label" ] || { echo "there is no participant number $index" >&2; exit 64; }
state={{ state }}/sub-$label
work={{ work }}
mkdir -p "$work" || exit 73
rm -f "$state.exit"
printf '%s\t%s\t%s\n' "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" "$(date +%s)" "$(hostname)" > "$state.run"

memory=${SLURM_MEM_PER_NODE:-{{ memory }}}
{{ run }}
"${run[@]}" {{ bids }} {{ out }} participant --participant-label "$label" \
    --nprocs "${SLURM_CPUS_PER_TASK:-{{ threads }}}" --mem "$(( memory * {{ percent }} / 100 ))MB" -w "$work"{{ options }} &
child=$!
trap 'kill -TERM $child 2>/dev/null' TERM INT
code=
while [ -z "$code" ]; do   # wait returns early when a signal comes
    wait $child
    code=$?
    if kill -0 $child 2>/dev/null; then code=; fi
done
printf '%s\t%s\n' "$code" "$(date +%s)" > "$state.exit.partial" && mv "$state.exit.partial" "$state.exit"
{% if keep %}
[ "$code" -ne 0 ] || rm -rf "$work"   # what failed goes on from here when it is submitted again
{% else %}
rm -rf "$work"
{% endif %}
exit $code
