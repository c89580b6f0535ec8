"""Without network, without home, without a user name, in a folder that cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.environment import prepare_environment, templateflow_home


def prepared(settings: Settings, **environ: str) -> dict[str, str]:
    prepare_environment(settings, environ)
    return environ


def test_threads_and_downloads(settings: Settings) -> None:
    found = prepared(replace(settings, nprocs=8, omp_nthreads=3), HOME="/tmp", OMP_NUM_THREADS="64")
    assert found["OMP_NUM_THREADS"] == found["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] == "3"
    assert (found["NO_ET"], found["TEMPLATEFLOW_AUTOUPDATE"], found["MPLBACKEND"]) == ("1", "off", "Agg")


def test_a_home_that_can_be_written_is_left_alone(settings: Settings, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    found = prepared(settings, HOME=str(home))
    assert found["HOME"] == str(home)
    assert "MPLCONFIGDIR" not in found
    assert not list(home.iterdir())


def test_a_filled_template_cache_in_a_home_that_is_read_only_stays_in_use(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "home" / ".cache" / "templateflow"
    cache.mkdir(parents=True)
    (cache / "tpl-X").mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path / "home")
    found = prepared(settings, HOME=str(tmp_path / "home"))
    assert found["HOME"] != str(tmp_path / "home")
    assert templateflow_home(found) == cache


@pytest.mark.parametrize("home", [{}, {"HOME": "/nowhere"}, {"HOME": "/dev/null"}], ids=str)
def test_without_a_home_caches_go_to_the_working_folder(settings: Settings, home: dict[str, str]) -> None:
    found = prepared(settings, **home)
    for name in ("HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME", "NIPYPE_CONFIG_DIR", "TEMPLATEFLOW_HOME"):
        assert found[name].startswith(str(settings.work_dir)), name
    assert found["LOGNAME"]


def test_a_template_cache_that_is_there_is_kept(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "cache/tpl-X").mkdir(parents=True)
    found = prepared(settings, HOME="/tmp", TEMPLATEFLOW_HOME=str(tmp_path / "cache"))
    assert templateflow_home(found) == tmp_path / "cache"


OFFLINE = """
    import socket, sys, urllib.request
    from pathlib import Path
    import nipype.interfaces.utility as niu
    from nipype.pipeline import engine as pe
    from hyperprep.bidsapp.config import Settings
    from hyperprep.bidsapp.environment import prepare_environment
    from hyperprep.bidsapp.run import execute

    def reach(address):
        import socket
        try:
            socket.create_connection((address, 80), timeout=1)
        except OSError as error:
            return str(error)
        return "connected"

    def main():
        root = Path(sys.argv[1])
        settings = Settings(bids_dir=root, output_dir=root / "out", analysis_level="participant",
                            work_dir=root / "work", nprocs=1, run_uuid="r", offline=True)
        prepare_environment(settings)
        print(reach("192.0.2.1"), reach("example.org"), sep="|")
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname()).close()
        inner = pe.Workflow(name="sub_01_wf")
        node = pe.Node(niu.Function(function=reach, output_names=["said"]), name="reach")
        node.inputs.address = "192.0.2.1"
        inner.add_nodes([node])
        outer = pe.Workflow(name="hyperprep_wf", base_dir=str(settings.work_dir))
        outer.add_nodes([inner])
        assert execute(outer, ["01"], settings) == {"01": ()}
        node.base_dir = outer.base_dir
        node.config = outer.config
        node._hierarchy = "hyperprep_wf.sub_01_wf"
        print(node.result.outputs.said)

    if __name__ == "__main__":
        main()
"""


def test_offline_refuses_the_network_here_and_in_workers(tmp_path: Path, repository: Path) -> None:
    script = tmp_path / "offline.py"
    script.write_text(textwrap.dedent(OFFLINE))
    environ = {**os.environ, "PYTHONPATH": str(repository / "src")}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "--offline" in line]
    assert lines == [
        "--offline: refused to connect to 192.0.2.1|--offline: refused to connect to example.org",
        "--offline: refused to connect to 192.0.2.1",
    ]


NOBODY = """
    import os, sys
    from pathlib import Path
    root = Path(sys.argv[1])
    from hyperprep.bidsapp.config import Settings
    from hyperprep.bidsapp.environment import prepare_environment
    settings = Settings(bids_dir=root / "in", output_dir=root / "out", analysis_level="participant",
                        work_dir=root / "work", nprocs=1, run_uuid="r")
    prepare_environment(settings)
    import nipype.interfaces.utility as niu
    from nipype.pipeline import engine as pe
    from hyperprep.bidsapp.graph import send_crashes_to
    from hyperprep.bidsapp.logs import participant_log_dir
    from hyperprep.bidsapp.run import execute

    def fail():
        raise ValueError("on purpose")

    def main():
        inner = pe.Workflow(name="sub_01_wf")
        inner.add_nodes([pe.Node(niu.Function(function=fail, output_names=["x"]), name="fail")])
        send_crashes_to(inner, participant_log_dir(settings, "01"))
        outer = pe.Workflow(name="hyperprep_wf", base_dir=str(settings.work_dir))
        outer.add_nodes([inner])
        print("told:", execute(outer, ["01"], settings)["01"][0])
        import matplotlib.pyplot
        print("uid:", os.getuid(), os.environ["LOGNAME"])

    if __name__ == "__main__":
        main()
"""


def test_an_unknown_user_without_home_in_a_folder_of_others(tmp_path: Path, repository: Path) -> None:
    become = ["unshare", "--user", "--map-user=23456", "--map-group=23456"]
    try:
        able = subprocess.run([*become, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        able = False
    if not able:
        pytest.skip("this system lets nobody become an unknown user (unshare)")
    script = tmp_path / "nobody.py"
    script.write_text(textwrap.dedent(NOBODY))
    done = subprocess.run(
        [*become, sys.executable, "-B", str(script), str(tmp_path)],
        env={"PYTHONPATH": str(repository / "src"), "PATH": os.environ["PATH"]},
        cwd="/proc",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ValueError: on purpose (details: " in done.stdout
    assert "uid: 23456 uid23456" in done.stdout
