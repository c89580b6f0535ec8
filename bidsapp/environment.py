"""Environment variables that keep libraries quiet, offline and inside the folders they may write to."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from hyperprep.bidsapp.config import Settings

OFFLINE_VARIABLE = "HYPERPREP_OFFLINE"

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


def prepare_environment(settings: Settings, environ: MutableMapping[str, str] = os.environ) -> None:
    """Set what libraries read from the environment; call it before importing them.

    No telemetry, no template download, no window system, as many threads as one node may use, caches
    in the working directory where there is no home that can be written, and a user name where the
    user id has none.

    Parameters
    ----------
    settings
        Settings of this run.
    environ
        Environment that is changed; the process's own by default.
    """
    cache = settings.work_dir / ".cache"
    environ.update(dict.fromkeys(_THREAD_VARIABLES, str(settings.threads_per_node)))
    environ.update(
        {
            "NO_ET": "1",
            "NIPYPE_NO_ET": "1",
            "MPLBACKEND": "Agg",
            "TEMPLATEFLOW_AUTOUPDATE": "off",
            "NIPYPE_CONFIG_DIR": str(cache / "nipype"),
        }
    )
    filled = templateflow_home(environ)
    usable = settings.prefetch or _has_files(filled)
    environ["TEMPLATEFLOW_HOME"] = str(filled if usable else cache / "templateflow")
    home = Path(environ.get("HOME") or "/nonexistent")
    if not (home.is_dir() and os.access(home, os.W_OK)):
        environ["HOME"] = str(cache)
        environ.setdefault("MPLCONFIGDIR", str(cache / "matplotlib"))
        environ.setdefault("XDG_CACHE_HOME", str(cache))
    if not _has_temporary_folder():
        environ["TMPDIR"] = str(cache / "tmp")
        (cache / "tmp").mkdir(parents=True, exist_ok=True)
        tempfile.tempdir = None
    if not any(environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
        environ["LOGNAME"] = _user_name()
    if settings.offline:
        environ[OFFLINE_VARIABLE] = "1"
        refuse_network()


def templateflow_home(environ: MutableMapping[str, str] = os.environ) -> Path:
    """Return the folder of TemplateFlow's cache; it need not exist."""
    explicit = environ.get("TEMPLATEFLOW_HOME")
    if explicit:
        return Path(explicit)
    return Path(environ.get("HOME") or "/nonexistent") / ".cache" / "templateflow"


def refuse_network() -> None:
    """Make every later attempt of this process to reach another machine an error.

    Sockets of this machine (UNIX domain, loopback) stay usable. It cannot be undone.
    """
    sys.addaudithook(_refuse_remote_address)


def _refuse_remote_address(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        address = args[1]
        host = address[0] if isinstance(address, tuple) else None
    elif event == "socket.getaddrinfo":
        host = args[0]
    else:
        return
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host is None or host == "localhost" or host == "::1" or str(host).startswith("127."):
        return
    raise ConnectionRefusedError(f"--offline: refused to connect to {host}")


def _has_temporary_folder() -> bool:
    try:
        return os.access(tempfile.gettempdir(), os.W_OK)
    except FileNotFoundError:
        return False


def _has_files(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError:
        return False


def _user_name() -> str:
    """Name the user by account, or by number where the account has no name."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid{os.getuid()}"
