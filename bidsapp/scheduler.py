"""Nipype's scheduler for one machine, with workers that cannot be lost or left behind."""

from __future__ import annotations

import logging
import multiprocessing as mp
import os
import threading
from collections.abc import Iterable
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from multiprocessing.connection import wait as wait_for
from traceback import format_exception
from typing import Any

from nipype.pipeline.plugins.multiproc import MultiProcPlugin as _MultiProcPlugin
from nipype.pipeline.plugins.multiproc import run_node

from hyperprep.bidsapp.environment import OFFLINE_VARIABLE, refuse_network

#: How often a step is tried whose worker was killed from outside, before it counts as failed.
ATTEMPTS = 2


def start_worker(cwd: str, log_level: int, monitor: bool) -> None:
    """Prepare a fresh worker process.

    Parameters
    ----------
    cwd
        Folder in which nodes without one of their own run.
    log_level
        Level of Nipype's messages.
    monitor
        Whether nodes record their memory and CPU load.
    """
    os.chdir(cwd)
    if os.environ.get(OFFLINE_VARIABLE):
        refuse_network()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addHandler(logging.NullHandler())
    logging.getLogger("py.warnings").propagate = log_level <= logging.DEBUG
    for name in ("nipype", "nipype.workflow", "nipype.interface", "nipype.utils"):
        logging.getLogger(name).setLevel(log_level)
    if monitor:
        from nipype import config

        config.enable_resource_monitor()


def _end_with_parent() -> None:
    """End this process at once when the one that started it is gone (even if it was killed)."""
    parent = mp.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


class MultiProcPlugin(_MultiProcPlugin):
    """Nipype's MultiProc plugin, made safe against killed processes.

    Nipype waits for ever for a step whose worker was killed (for example for lack of memory); here it is
    tried again, alone in a worker of its own, then counts as failed, and the others go on. Workers end
    when the main process is killed, so that a second run does not meet the first one's leftovers. One scan
    is finished after the other, where Nipype would do the same step of all scans first.

    Parameters
    ----------
    plugin_args
        As Nipype's plugin takes them, with ``log_level`` and ``monitor`` for the workers beside them, and
        ``n_gpus``: among so many GPUs the nodes are spread whose device is ``cuda``. A node takes ``n_procs``
        of the ``n_gpu_procs``, so that nodes share a GPU only where a plugin file sets ``n_gpu_procs`` above
        ``n_gpus`` times the threads of a node.
    """

    pool: ProcessPoolExecutor

    def __init__(self, plugin_args: dict[str, Any] | None = None) -> None:
        super().__init__(plugin_args=plugin_args)
        self.pool.shutdown(wait=False)
        self._jobs: dict[int, tuple[Any, bool, int, ProcessPoolExecutor]] = {}
        self._gpus: dict[int, int] = {}
        self.pool = self._new_pool()

    def _new_pool(self, workers: int | None = None) -> ProcessPoolExecutor:
        context = mp.get_context(self.plugin_args.get("mp_context") or "forkserver")
        if hasattr(context, "set_forkserver_preload"):
            context.set_forkserver_preload(["nipype.pipeline.engine"])
        arguments = (
            self._cwd,
            self.plugin_args.get("log_level", logging.WARNING),
            bool(self.plugin_args.get("monitor", False)),
        )
        return ProcessPoolExecutor(
            max_workers=workers or self.processors,
            mp_context=context,
            initializer=start_worker,
            initargs=arguments,
        )

    def _sort_jobs(self, jobids: Iterable[int], scheduler: str | None = None) -> list[int]:
        """Prefer the scans that come first, so that one is finished before many are begun."""
        return sorted(jobids, key=lambda job: (self.procs[job].fullname.split(".")[1:3], job))

    def _submit_job(self, node: Any, updatehash: bool = False) -> int:
        self._taskid += 1
        if node.is_gpu_node() and getattr(node.inputs, "device", "") == "cuda":
            self._gpus[self._taskid] = gpu = self._free_gpu()
            node.inputs.device = f"cuda:{gpu}"  # no part of the node's hash
        self._start(self._taskid, node, updatehash, attempt=1)
        return int(self._taskid)

    def _free_gpu(self) -> int:
        """Choose the GPU with the fewest nodes on it."""
        load = {gpu: 0 for gpu in range(self.plugin_args.get("n_gpus", 1))}
        for gpu in self._gpus.values():
            load[gpu] += 1
        return min(load, key=lambda gpu: (load[gpu], gpu))

    def _start(self, taskid: int, node: Any, updatehash: bool, attempt: int) -> None:
        pool = self.pool if attempt == 1 else self._new_pool(1)
        try:
            future = pool.submit(run_node, node, updatehash, taskid)
        except BrokenExecutor:
            self.pool = pool = self._new_pool()
            future = pool.submit(run_node, node, updatehash, taskid)
        self._jobs[taskid] = (node, updatehash, attempt, pool)
        self._task_obj[taskid] = future

    def _get_result(self, taskid: int) -> dict[str, Any] | None:
        future = self._task_obj[taskid]
        if not future.done():
            return None
        try:
            result: dict[str, Any] = future.result()
            return result
        except BrokenExecutor as error:
            node, updatehash, attempt, pool = self._jobs[taskid]
            if pool is self.pool:
                self.pool = self._new_pool()
            if attempt < ATTEMPTS:
                self._start(taskid, node, updatehash, attempt + 1)
                return None
            return _failed(taskid, WorkerKilledError(_why_killed(node)), error)
        except Exception as error:
            return _failed(taskid, error, None)

    def _clear_task(self, taskid: int) -> None:
        super()._clear_task(taskid)
        self._gpus.pop(taskid, None)
        job = self._jobs.pop(taskid, None)
        if job is not None and job[3] is not self.pool and job[2] > 1:
            job[3].shutdown(wait=False)

    def close(self) -> None:
        """Stop all workers at once, whatever they do; safe to call at any time."""
        for pool in {self.pool, *(job[3] for job in self._jobs.values())}:
            processes = list((getattr(pool, "_processes", None) or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.kill()


class WorkerKilledError(RuntimeError):
    """The process that ran a step was ended from outside."""


def _why_killed(node: Any) -> str:
    return (
        f"the process that ran this step was killed {ATTEMPTS} times from outside, most likely because "
        f"memory ran out (the step expects {node.mem_gb:g} GB); "
        "give more memory, or a smaller --nprocs or --mem"
    )


def _failed(taskid: int, error: BaseException, cause: BaseException | None) -> dict[str, Any]:
    error.__cause__ = cause
    return {"result": None, "traceback": format_exception(error), "taskid": taskid}
