#!/bin/bash
# Hands an array to Slurm, written by bidsapp-slurm. Run it where sbatch is.
set -euo pipefail
jobs=
submit() {   # kind, offset, indices, then the words of sbatch
    local kind=$1 offset=$2 indices=$3 id
    shift 3
    id=$(sbatch --parsable "$@")
    id=${id%%;*}
    printf '%s\t%s\t%s\t%s\t%s\n' "$id" "$kind" "$offset" "$indices" "$(date +%s)" >> {{ submissions }}
    jobs=$jobs:$id
    echo "$kind: job $id"
}
{% for line in lines %}
{{ line }}
{% endfor %}
