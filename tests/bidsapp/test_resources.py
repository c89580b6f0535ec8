"""How much memory a run may take, inside and outside of control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperprep.bidsapp.resources import available_memory_gb


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("", {}, None),
        ("0::/\n", {"sys/fs/cgroup/memory.max": "max\n"}, None),
        ("0::/\n", {"sys/fs/cgroup/memory.max": "3000000000\n"}, 3.0),
        (
            "0::/system.slice/slurmstepd.scope/job_7/step_0\n",
            {
                "sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/memory.max": "2000000000\n",
                "sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/step_0/memory.max": "max\n",
            },
            2.0,
        ),
        (
            "5:cpu,cpuacct:/slurm/job_9\n4:memory:/slurm/job_9\n",
            {"sys/fs/cgroup/memory/slurm/job_9/memory.limit_in_bytes": "1500000000\n"},
            1.5,
        ),
    ],
    ids=["no groups", "unlimited", "container", "Slurm, version 2", "Slurm, version 1"],
)
def test_the_tightest_limit_of_all_groups_counts(
    tmp_path: Path, groups: str, limits: dict[str, str], expected: float | None
) -> None:
    _write(tmp_path / "proc/self/cgroup", groups)
    for name, text in limits.items():
        _write(tmp_path / name, text)
    machine = available_memory_gb(tmp_path / "nothing")
    assert available_memory_gb(tmp_path) == pytest.approx(machine if expected is None else expected)
