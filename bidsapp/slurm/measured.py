"""What a participant takes, as measured; the only place where these figures stand."""

from __future__ import annotations

import math

#: Seconds of one session with ``MEASURED_THREADS`` threads, program start and template included
#: (benchmarks/results/main_job.md: 84 to 102 s).
SECONDS_PER_SESSION = 100.0
MEASURED_THREADS = 2
#: Largest resident memory of a run with its workers, GB (the same table: 2.0 to 3.0 GB).
MEMORY_GB = 3.0
#: Slower processors, a busy file system, larger voxel counts: what a job asks for beyond the figures above.
TIME_FACTOR = 4.0
MEMORY_FACTOR = 2.0
#: No job asks for less than this; schedulers gain nothing from shorter limits.
LEAST_MINUTES = 15

#: The group level over 10,000 sessions (benchmarks/results/clusters.md), with the same factors.
GROUP_MINUTES = 30
GROUP_MEMORY_GB = 4.0

#: Memory (GB) of an interpreter with its libraries, beyond what a step declares, when it is a job of its own.
INTERPRETER_GB = 0.7


def task_minutes(sessions: int, threads: int) -> int:
    """Minutes to ask for a participant.

    More threads than were measured are not taken to be faster.

    Parameters
    ----------
    sessions
        Sessions with a T1w image.
    threads
        Threads the job is granted.

    Examples
    --------
    >>> task_minutes(1, 2), task_minutes(4, 2), task_minutes(4, 1), task_minutes(4, 16)
    (15, 27, 54, 27)
    """
    seconds = SECONDS_PER_SESSION * max(1, sessions) * max(1.0, MEASURED_THREADS / threads)
    return max(LEAST_MINUTES, math.ceil(TIME_FACTOR * seconds / 60))


def task_memory_gb() -> float:
    """Memory (GB) to ask for a participant; sessions are not processed at the same time with few threads.

    Examples
    --------
    >>> task_memory_gb()
    6.0
    """
    return MEMORY_GB * MEMORY_FACTOR
