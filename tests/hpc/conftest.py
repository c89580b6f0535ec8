"""A Slurm of one node, started for these tests and stopped after them; it needs root, like its packages."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobcomp.txt
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/builtin
ReturnToService=2
KillWait=5
MaxArraySize=1001
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Slurm:
    """A running Slurm.

    Parameters
    ----------
    folder
        Its configuration, state and logs.
    """

    folder: Path

    def ask(self, *command: str) -> str:
        """Run a command of Slurm and return what it prints."""
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def wait(self, seconds: float = 900) -> None:
        """Wait until no job is left."""
        until = time.monotonic() + seconds
        while self.ask("squeue", "-h", "-r"):
            assert time.monotonic() < until, self.ask("squeue")
            time.sleep(1)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Start munge, the controller and the node's daemon; ``SLURM_CONF`` leads every command to them."""
    missing = [
        name for name in NEEDED if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None
    ]
    if missing or os.geteuid() != 0:
        names = ", ".join(missing or NEEDED)
        pytest.skip(f"a Slurm of our own needs root and {names}: make test-hpc installs them")
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    host = socket.gethostname().split(".")[0]
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(
            host=host,
            folder=folder,
            controller=_free_port(),
            daemon=_free_port(),
            cpus=os.cpu_count(),
            memory=int(psutil.virtual_memory().total / 1e6 * 0.9),
        )
    )
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(configuration)
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    commands = [
        ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket",
         f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log",
         f"--seed-file={folder}/munged.seed"],
        ["slurmctld", "-D", "-i", "-f", str(configuration)],
        ["slurmd", "-D", "-f", str(configuration), "-N", host],
    ]  # fmt: skip
    daemons = []
    try:
        for command in commands:
            program = shutil.which(command[0], path=path)
            assert program is not None
            with (folder / f"{command[0]}.out").open("w") as out:
                daemons.append(subprocess.Popen([program, *command[1:]], stdout=out, stderr=out))
            _wait_for(command[0], folder)
        yield Slurm(folder)
    finally:
        subprocess.run(["scancel", "--state=PENDING"], check=False, capture_output=True)
        subprocess.run(["scancel", "--state=RUNNING"], check=False, capture_output=True)
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(30)
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(daemon: str, folder: Path) -> None:
    """Wait until a daemon answers."""
    ready = {
        "munged": lambda: (folder / "munge.socket").exists(),
        "slurmctld": lambda: _succeeds("scontrol", "ping"),
        "slurmd": lambda: "idle" in _said("sinfo", "-h", "-o", "%T"),
    }[daemon]
    until = time.monotonic() + 60
    while not ready():
        if time.monotonic() > until:
            logs = "\n".join(path.read_text()[-2000:] for path in folder.glob("*.out"))
            raise RuntimeError(f"{daemon} does not answer\n{logs}")
        time.sleep(0.5)


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _said(*command: str) -> str:
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout
