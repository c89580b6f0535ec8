"""Who is scanned how: the participants of the demo and what makes each of them a test."""

from __future__ import annotations

from dataclasses import dataclass

from hyperprep.bidsapp.demo.scan import Acquisition
from hyperprep.exceptions import UsageError

MAX_PARTICIPANTS = 99

_HEAD = (192.0, 252.0, 228.0)
_BRAIN = (165.0, 207.0, 171.0)

ISOTROPIC = Acquisition(
    (1.5, 1.5, 1.5), "RAS", tilt=(0, 0, 0), extent=_HEAD, whole_head=True, noise=0.025, bias=0.10
)
FOLLOW_UP = Acquisition(
    (1.5, 1.5, 1.5), "LPS", tilt=(0, 0, 0), extent=_HEAD, whole_head=True, noise=0.03, bias=0.08
)
OBLIQUE = Acquisition(
    (1.5, 1.5, 1.6), "RAS", tilt=(11, -6, 14), extent=_HEAD, whole_head=True, noise=0.035, bias=0.14
)
THICK_SLICES = Acquisition(
    (1.0, 1.0, 3.0), "LAS", tilt=(0, 0, 0), extent=_BRAIN, whole_head=False, noise=0.02, bias=0.08
)


@dataclass(frozen=True)
class Visit:
    """One scan of one participant.

    Parameters
    ----------
    session
        Session label without ``ses-``, or None where the participant has no sessions.
    acquisition
        How it is scanned.
    changed
        Whether the focal change is in it.
    """

    session: str | None
    acquisition: Acquisition
    changed: bool = False


@dataclass(frozen=True)
class Participant:
    """One simulated person.

    Parameters
    ----------
    label
        Participant label without ``sub-``.
    number
        Position in the plan; part of the seed.
    visits
        The scans.
    grid, head
        What the participants table says.
    """

    label: str
    number: int
    visits: tuple[Visit, ...]
    grid: str
    head: str


def make_plan(participants: int) -> list[Participant]:
    """Participants of the demo.

    The first has two sessions (the second flipped, with a focal change), the second an oblique grid, the
    third thick slices of a skull-stripped brain; further ones repeat the second, the third and a plain scan.

    Parameters
    ----------
    participants
        How many.

    Raises
    ------
    UsageError
        If it is not between 1 and 99.

    Examples
    --------
    >>> [(person.label, len(person.visits), person.grid) for person in make_plan(3)]
    [('01', 2, 'isotropic'), ('02', 1, 'oblique'), ('03', 1, 'thick slices')]
    """
    if not 1 <= participants <= MAX_PARTICIPANTS:
        raise UsageError(
            f"{participants} participants were asked for: the demo has 1 to {MAX_PARTICIPANTS} of them."
        )
    kinds = (
        (OBLIQUE, "oblique", "whole"),
        (THICK_SLICES, "thick slices", "stripped"),
        (ISOTROPIC, "isotropic", "whole"),
    )
    first = Participant(
        "01", 1, (Visit("01", ISOTROPIC), Visit("02", FOLLOW_UP, changed=True)), "isotropic", "whole"
    )
    people = [first]
    for number in range(2, participants + 1):
        acquisition, grid, head = kinds[(number - 2) % len(kinds)]
        people.append(Participant(f"{number:02d}", number, (Visit(None, acquisition),), grid, head))
    return people
