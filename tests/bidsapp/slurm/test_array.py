"""The array job without a Slurm: its scripts are run by bash, its states come from programs that pretend."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hyperprep.bidsapp.participants import count_sessions
from hyperprep.bidsapp.slurm.cli import main
from hyperprep.bidsapp.slurm.job import ArrayJob, read_job
from hyperprep.bidsapp.slurm.measured import task_minutes
from hyperprep.bidsapp.slurm.scripts import group_script, task_script
from hyperprep.bidsapp.slurm.status import read_status

Programs = Callable[[str, str], Path]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "my out"


def job_of(out: Path) -> ArrayJob:
    return read_job(out / "logs" / "slurm")


def run_task(job: ArrayJob, index: int, offset: int = 0, **environ: str) -> subprocess.Popen[bytes]:
    given = {"SLURM_ARRAY_TASK_ID": str(index), "SLURM_ARRAY_JOB_ID": "7", **environ}
    command = ["bash", str(job.job_dir / "task.sh"), str(offset)]
    return subprocess.Popen(command, env={**os.environ, **given})


def test_write_counts_participants_and_asks_for_what_was_measured(
    dataset: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(dataset), str(out), "write", "--", "--lambda", "0.3"]) == 0
    job = job_of(out)
    assert job.participants == ("01", "02", "03")
    assert (job.threads, job.memory_gb, job.minutes) == (2, 6.0, task_minutes(2, 2))
    assert job.options == ("--lambda", "0.3")
    said = capsys.readouterr().out
    assert "3 participant(s), each 2 core(s), 6 GB" in said
    assert f"To submit: bash '{out}/logs/slurm/submit.sh'" in said
    task = (job.job_dir / "task.sh").read_text()
    assert "#SBATCH --mem=6000M" in task
    assert "--lambda 0.3" in task
    assert subprocess.run(["bash", "-n", str(job.job_dir / "task.sh")], check=False).returncode == 0


def test_sessions_are_counted(dataset: Path) -> None:
    assert [count_sessions(dataset, label) for label in ("01", "02")] == [2, 1]
    assert count_sessions(dataset, "01", ["pre"]) == 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--participant-label", "99"], 66, "unknown participant 99"),
        (["--", "--lambda", "7"], 2, "after --: argument --lambda"),
        (["--", "--nprocs", "7"], 2, "--nprocs: give it before --"),
        (["--", "--mem=7GB"], 2, "--mem: give it before --"),
        (["--time", "soon"], 2, "is no time limit"),
        (["--image", "/no/such.sif"], 2, "/no/such.sif does not exist"),
        (["--mem", "1500MB"], 2, "--mem 1.5GB: the registration alone needs"),
    ],
)
def test_mistakes_are_told_before_anything_is_submitted(
    dataset: Path, out: Path, words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(dataset), str(out), "write", *words]) == code
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_the_database_is_made_once_and_bound(dataset: Path, out: Path, tmp_path: Path) -> None:
    image = tmp_path / "image.sif"
    image.touch()
    base = tmp_path / "data base"
    words = [str(dataset), str(out), "write", "--image", str(image), "--", "--bids-database-dir", str(base)]
    assert main(words) == 0
    file = base / "layout_index.sqlite"
    made = file.stat().st_mtime_ns
    assert f"--bind '{base}:{base}:ro'" in (out / "logs" / "slurm" / "task.sh").read_text()
    assert main(words) == 0
    assert file.stat().st_mtime_ns == made


def test_a_task_leaves_its_exit_code(dataset: Path, out: Path, programs: Programs, tmp_path: Path) -> None:
    program = programs("ours", f'printf "%s\\n" "$@" > "{tmp_path}/words"; exit ${{CODE:-0}}')
    assert main([str(dataset), str(out), "write", "--command", str(program), "--", "--symmetric"]) == 0
    job = job_of(out)
    assert run_task(job, 1, SLURM_MEM_PER_NODE="5000").wait() == 0
    words = (tmp_path / "words").read_text().split("\n")
    assert words[:5] == [str(dataset), str(out), "participant", "--participant-label", "02"]
    assert words[words.index("--mem") + 1] == "4500MB"
    assert "--symmetric" in words
    assert not Path(words[words.index("-w") + 1]).exists()
    assert run_task(job, 0, 2, CODE="73").wait() == 73
    status = {task.label: (task.status, task.code, task.reason) for task in read_status(job)}
    assert status["02"] == ("done", 0, "")
    assert status["03"] == ("failed", 73, "the output cannot be written")
    assert status["01"][0] == "not submitted"


def test_a_shared_work_folder_is_kept_for_what_failed(
    dataset: Path, out: Path, programs: Programs, tmp_path: Path
) -> None:
    program = programs("ours", "exit ${CODE:-0}")
    work = tmp_path / "work dir"
    assert main([str(dataset), str(out), "write", "--command", str(program), "-w", str(work)]) == 0
    job = job_of(out)
    assert run_task(job, 0, CODE="1").wait() == 1
    assert run_task(job, 1).wait() == 0
    assert ((work / "sub-01").is_dir(), (work / "sub-02").exists()) == (True, False)


def test_a_task_that_is_asked_to_end_passes_it_on(dataset: Path, out: Path, programs: Programs) -> None:
    program = programs("ours", "trap 'exit 143' TERM; while true; do sleep 0.1; done")
    assert main([str(dataset), str(out), "write", "--command", str(program)]) == 0
    job = job_of(out)
    task = run_task(job, 0)
    until = time.monotonic() + 30
    while not (job.state_dir / "sub-01.run").exists() and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(1)
    task.send_signal(signal.SIGTERM)
    assert task.wait(60) == 143
    (first, *_) = read_status(job)
    assert (first.status, first.code) == ("failed", 143)
    assert "--time" in first.reason


def test_an_image_sees_the_examples_of_few_shot_tasks(dataset: Path, out: Path, tmp_path: Path) -> None:
    image, examples = tmp_path / "our.sif", tmp_path / "lab"
    image.touch()
    examples.mkdir()
    options = ["--", "--few-shot", f"claustrum={examples}"]
    assert main([str(dataset), str(out), "write", "--image", str(image), *options]) == 0
    assert f"--bind {examples}:{examples}:ro" in task_script(job_of(out))


def test_an_image_is_run_with_what_it_has_to_see(
    dataset: Path, out: Path, programs: Programs, tmp_path: Path
) -> None:
    programs("apptainer", f'printf "%s\\n" "$@" > "{tmp_path}/words"')
    image, weights = tmp_path / "our image.sif", tmp_path / "weights"
    image.touch()
    weights.mkdir()
    words = ["write", "--image", str(image), "--", "--weights-dir", str(weights), "--device", "cuda"]
    assert main([str(dataset), str(out), *words]) == 0
    job = job_of(out)
    assert "#SBATCH --gres=gpu:1" in task_script(job)
    assert run_task(job, 0).wait() == 0
    given = (tmp_path / "words").read_text().splitlines()
    assert given[:4] == ["run", "--cleanenv", "--no-home", "--nv"]
    assert {f"{dataset}:{dataset}:ro", f"{weights}:{weights}:ro", str(out)} <= set(given)
    assert given[given.index(str(image)) + 1] == str(dataset)
    assert "--gres" not in group_script(job)


SBATCH = """
n=$(cat "$COUNT" 2>/dev/null || echo 40); n=$((n + 1))
echo $n > "$COUNT"; shift; echo "$@" >> "$COUNT.words"; echo $n
"""


@pytest.fixture
def submitting(programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slurm that takes every job; returns where the words of ``sbatch`` are noted."""
    programs("sbatch", SBATCH)
    programs("scontrol", 'echo "MaxArraySize            = 2"')
    programs("squeue", 'cat "$COUNT.states" 2>/dev/null')
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))
    return tmp_path / "count.words"


def test_large_arrays_are_divided_and_the_group_waits_for_all(
    dataset: Path, out: Path, submitting: Path
) -> None:
    assert main([str(dataset), str(out), "submit", "--max-running", "5"]) == 0
    first, second, group = submitting.read_text().splitlines()
    assert first.startswith("--array=0-1%5 ")
    assert first.endswith("task.sh 0")
    assert second.startswith("--array=0%5 ")
    assert second.endswith("task.sh 2")
    assert group.startswith("--dependency=afterany:41:42 ")


def test_what_failed_is_submitted_again_and_nothing_else(
    dataset: Path, out: Path, submitting: Path, capsys: pytest.CaptureFixture[str], programs: Programs
) -> None:
    program = programs("ours", 'case " $* " in *" 01 "*) exit 1;; esac')
    base = [str(dataset), str(out)]
    assert main([*base, "submit", "--command", str(program)]) == 0
    job = job_of(out)
    states = submitting.with_name("count.states")
    states.write_text("41_0|PENDING\n41_1|PENDING\n42_0|RUNNING\n43|PENDING\n")
    assert main([*base, "status"]) == 75
    assert "2 waiting" in capsys.readouterr().out.replace("1 running, 2", "2")
    run_task(job, 0, SLURM_ARRAY_JOB_ID="41").wait()
    run_task(job, 1, SLURM_ARRAY_JOB_ID="41").wait()
    states.write_text("42_0|OUT_OF_MEMORY\n")
    assert main([*base, "status"]) == 1
    said = capsys.readouterr().out
    assert "3 participants: 1 done, 1 failed, 1 killed" in said
    assert "Slurm: OUT_OF_MEMORY; give more by --mem" in said

    assert main([*base, "resubmit", "--mem", "9GB", "--time", "2:00:00"]) == 0
    first, second, group = submitting.read_text().splitlines()[3:]
    assert first.startswith("--array=0 --mem=9000M --time=120 ")
    assert second.endswith("task.sh 2")
    assert "afterany:44:45" in group
    states.write_text("44_0|PENDING\n45_0|PENDING\n")
    assert main([*base, "status"]) == 75  # the codes of the first time do not count any more
    assert main([*base, "resubmit"]) == 0
    assert "nothing to submit" in capsys.readouterr().out


def test_another_array_needs_another_folder(dataset: Path, out: Path, submitting: Path) -> None:
    assert main([str(dataset), str(out), "submit"]) == 0
    assert main([str(dataset), str(out), "submit", "--participant-label", "02"]) == 2
    assert (
        main([str(dataset), str(out), "submit", "--participant-label", "02", "--job-dir", str(out / "b")])
        == 0
    )


def test_without_slurm_it_is_said(
    dataset: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main([str(dataset), str(out), "submit"]) == 2
    assert "no sbatch here" in capsys.readouterr().err
    assert main([str(dataset), str(out), "status"]) == 66


def test_where_slurm_cannot_be_asked_the_end_can_be_told(
    dataset: Path,
    out: Path,
    submitting: Path,
    programs: Programs,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = programs("ours", "exit 0")
    base = [str(dataset), str(out)]
    assert main([*base, "submit", "--command", str(program)]) == 0
    run_task(job_of(out), 0, SLURM_ARRAY_JOB_ID="41").wait()
    programs("squeue", "exit 1")
    assert main([*base, "status"]) == 75
    assert "1 done, 2 unknown" in capsys.readouterr().out
    assert main([*base, "status", "--ended"]) == 1
    assert "1 done, 2 killed" in capsys.readouterr().out
    monkeypatch.setenv("PATH", "/nowhere")
    assert main([*base, "resubmit", "--ended"]) == 0
    assert "no sbatch here. To submit: bash" in capsys.readouterr().out
    script = (out / "logs/slurm/submit.sh").read_text()
    assert "submit array 0 1 --array=1" in script
    assert "submit array 2 0 --array=0" in script


def test_status_is_also_a_table_on_disk(dataset: Path, out: Path) -> None:
    assert main([str(dataset), str(out), "write"]) == 0
    assert main([str(dataset), str(out), "status"]) == 1
    rows = (out / "logs/slurm/status.tsv").read_text().splitlines()
    assert rows[1] == "sub-01\tnot submitted\tn/a\tn/a\tn/a\tn/a"
    assert json.loads((out / "logs/slurm/job.json").read_text())["threads"] == 2
