"""Registrations of one pair at different lambdas, each computed once, and the choice among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hyperprep.models.nets.hypermorph import HyperMorph
from hyperprep.models.predict.pair import BrainPair
from hyperprep.models.predict.tune import search_lambda

MAX_SD_LOG_JACOBIAN = 0.35
"""Without labels, lambda is the one of highest similarity whose sd of log |J| stays below this."""

SIMILARITY_KEPT = 0.98
"""With labels, lambda keeps at least this share of the similarity that lambda 0.25 reaches."""

REFERENCE_LAMBDA = 0.25


class Trials:
    """What the network makes of one pair, by lambda.

    Parameters
    ----------
    network
        Registration network.
    pair
        The two brains on its grid.
    regions
        Names of ``pair.groups`` whose overlap counts; all labels together when empty.
    symmetric
        Average the velocities of both directions; the network then runs twice for each lambda.
    others
        The network's hyperparameters after lambda, scaled to [0, 1]; they stay as they are.
    """

    def __init__(
        self,
        network: HyperMorph,
        pair: BrainPair,
        regions: Sequence[str] = (),
        *,
        symmetric: bool = False,
        others: Sequence[float] = (),
    ) -> None:
        self.network, self.pair, self.symmetric = network, pair, symmetric
        self.others = tuple(others)
        self.targets = [f"dice_{name}" for name in regions] or ["dice_all"]
        self._velocity: dict[float, torch.Tensor] = {}
        self._row: dict[float, dict[str, Any]] = {}

    @property
    def evaluations(self) -> int:
        """How often the network has run."""
        return len(self._velocity) * (2 if self.symmetric else 1)

    def velocity(self, lam: float) -> torch.Tensor:
        """Give the network's velocity (1, 3, *coarse) at this lambda."""
        if lam not in self._velocity:
            value = torch.tensor([lam, *self.others], dtype=torch.float32, device=self.pair.fixed.device)
            velocity = self.network(self.pair.fixed, self.pair.moving, value)
            if self.symmetric:
                velocity = (velocity - self.network(self.pair.moving, self.pair.fixed, value)) / 2
            self._velocity[lam] = velocity
        return self._velocity[lam]

    def row(self, lam: float) -> dict[str, Any]:
        """Measure the registration at this lambda: one row of the curve."""
        if lam not in self._row:
            self._row[lam] = {"lam": lam, **self.pair.measure(self.velocity(lam))}
        return self._row[lam]

    def score(self, lam: float) -> float:
        """Say how good this lambda is: overlap of the labels, else similarity, with regularity bounded.

        Labels may only choose among registrations that also fit the images: segmentations that resemble
        the template's more than the brain's would otherwise ask for no deformation at all.
        """
        row = self.row(lam)
        excess = max(0.0, row["sd_log_jacobian"] - MAX_SD_LOG_JACOBIAN)
        excess += max(0.0, row["folding_percent"] - 0.1)
        if not self.pair.numbers:
            return float(row["similarity"] - 10 * excess)
        lost = max(0.0, SIMILARITY_KEPT * self.row(REFERENCE_LAMBDA)["similarity"] - row["similarity"])
        present = [row[name] for name in self.targets if name in row] or [row["dice_all"]]
        return float(sum(present) / len(present) - 4 * lost - 10 * excess)

    def choose(self) -> float:
        """Search lambda in [0, 1] for the highest score."""
        return search_lambda(self.score).best

    def curve(self, chosen: float) -> list[dict[str, Any]]:
        """Give all rows in order of lambda, the chosen one marked."""
        return [{**self._row[lam], "chosen": int(lam == chosen)} for lam in sorted(self._row)]
