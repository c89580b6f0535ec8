"""Neuralizer: a task is given by examples of input and output, not by training (Czolbe and Dalca 2023)."""

from __future__ import annotations

from collections.abc import Generator

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from hyperprep.models.nets.few_shot_start import first_answer
from hyperprep.models.nn.residual import ResidualUnit, halve, joined

INPUT_CHANNELS = 3
"""Images that an input may have; channels without one are zero."""


class PairwiseConvAvg(nn.Module):
    """One block: residual units, each context member joined with the target, average over the context.

    The pair's 1 x 1 convolutions are linear, so that of the target is applied to the mean of the context
    instead of to each member, and the target's share of that of the context is computed once; both give
    what the formulas of section 3.3 give.

    Parameters
    ----------
    channels
        Channels of all representations.
    last
        The last block of a network: nothing reads its context, so it has no kernel for that.
    """

    def __init__(self, channels: int, *, last: bool = False) -> None:
        super().__init__()
        self.channels = channels
        self.target_unit = ResidualUnit(channels)
        self.context_unit = ResidualUnit(channels)
        self.to_target = nn.Conv2d(2 * channels, channels, 1)
        self.to_context = None if last else nn.Conv2d(2 * channels, channels, 1)

    def update_target(self, target: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        """Give r_x + mean_i(cat(r_x, r_Ci) * k_x) from (B, C, H, W) and the mean of the context."""
        pair: torch.Tensor = self.to_target(torch.cat([target, mean], dim=1))
        return target + pair

    def update_context(self, target: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Give r_Ci + cat(r_x, r_Ci) * k_C; target (B, C, H, W), context (B N, C, H, W)."""
        assert self.to_context is not None
        weight, c = self.to_context.weight, self.channels
        shared = F.conv2d(target, weight[:, :c], self.to_context.bias)
        own = F.conv2d(context, weight[:, c:])
        n = len(context) // len(target)
        return context + (own.unflatten(0, (-1, n)) + shared[:, None]).flatten(0, 1)


class Neuralizer(nn.Module):
    """Seven pairwise blocks in a U-Net of four stages; any size of context, whatever its order.

    At 64 channels the network has 1,265,345 parameters. The paper says 1.27 M; its figures (39.1 GFLOP with
    one context member, 0.62 M and 9.84 M parameters of the baseline) pin the wiring: skips are joined by
    1 x 1 convolutions, in the path of the target and in that of the context. A kernel for the context of the
    last block, which nothing reads, would make 1,273,601.

    Parameters
    ----------
    channels
        Channels of all representations.
    levels
        Number of resolutions.
    start
        Begin from the answer in closed form of :mod:`hyperprep.models.nets.few_shot_start`, which is one more
        input, and learn what it leaves open; the paper's network begins from nothing.
    """

    def __init__(self, channels: int = 64, levels: int = 4, *, start: bool = False) -> None:
        super().__init__()
        self.levels, self.start = levels, start
        inputs = INPUT_CHANNELS + int(start)
        self.embed_target = nn.Conv2d(inputs, channels, 1)
        self.embed_context = nn.Conv2d(inputs + 1, channels, 1)
        count = 2 * levels - 1
        self.blocks = nn.ModuleList(PairwiseConvAvg(channels, last=i == count - 1) for i in range(count))
        self.target_mixes, self.context_mixes = (
            nn.ModuleList(nn.Conv2d(2 * channels, channels, 1) for _ in range(levels - 1)) for _ in range(2)
        )
        self.tail = ResidualUnit(channels)
        self.last = nn.Conv2d(channels, 1, 1)
        if start:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        self.save_memory = False

    @property
    def divisor(self) -> int:
        """What each side of a slice must be divisible by."""
        return int(2 ** (self.levels - 1))

    def _resized(
        self, features: torch.Tensor, place: int, skips: list[torch.Tensor], mixes: nn.ModuleList
    ) -> torch.Tensor:
        """Bring the output of one block to the size of block ``place``; skips are kept on the way down."""
        if place == 0:
            return features
        if place < self.levels:
            skips.append(features)
            return halve(features)
        mix = mixes[place - self.levels]
        assert isinstance(mix, nn.Conv2d)
        return joined(features, skips.pop(), mix)

    def _context_unit(self, block: PairwiseConvAvg, features: torch.Tensor) -> torch.Tensor:
        if self.save_memory and torch.is_grad_enabled():
            out: torch.Tensor = checkpoint(block.context_unit, features, use_reentrant=False)
            return out
        return block.context_unit(features)

    def _context_path(self, context: torch.Tensor) -> Generator[torch.Tensor, torch.Tensor, None]:
        """Walk some context members through the blocks.

        Yields at each block the sum of their representations, (B, C, H, W), and must be sent the target's.
        """
        batch = len(context)
        x: torch.Tensor = self.embed_context(context.flatten(0, 1))
        skips: list[torch.Tensor] = []
        for place, block in enumerate(self.blocks):
            assert isinstance(block, PairwiseConvAvg)
            inner = self._context_unit(block, self._resized(x, place, skips, self.context_mixes))
            target = yield inner.unflatten(0, (batch, -1)).sum(1)
            if block.to_context is not None:
                x = block.update_context(target, inner)

    def forward(
        self, target: torch.Tensor, context: torch.Tensor, *, chunk: int | None = None
    ) -> torch.Tensor:
        """Predict the output of a target from examples.

        Parameters
        ----------
        target
            (B, 3, H, W) in [0, 1]; unused channels zero; sides divisible by :attr:`divisor`.
        context
            (B, N, 4, H, W): the three input channels and the output of each example.
        chunk
            Context members in memory at the same time. With fewer than N the context's path is walked again
            for each block, which takes up to four times as long and gives the same result.

        Returns
        -------
        torch.Tensor
            (B, 1, H, W), not bounded; masks and images alike lie in [0, 1] when perfectly predicted.
        """
        n = context.shape[1]
        begun: torch.Tensor | None = None
        if self.start:
            begun, others = (found.to(target.dtype) for found in first_answer(target, context))
            target, context = torch.cat([target, begun], dim=1), torch.cat([context, others], dim=2)
        groups = [context] if chunk is None or chunk >= n else list(context.split(chunk, dim=1))
        whole = self._context_path(groups[0]) if len(groups) == 1 else None
        sent: list[torch.Tensor] = []
        skips: list[torch.Tensor] = []
        x = self.embed_target(target)
        for place, block in enumerate(self.blocks):
            assert isinstance(block, PairwiseConvAvg)
            inner = block.target_unit(self._resized(x, place, skips, self.target_mixes))
            if whole is not None:
                total = next(whole) if place == 0 else whole.send(sent[-1])
            else:
                total = torch.zeros_like(inner)
                for group in groups:
                    total = total + self._walked_again(group, sent)
            sent.append(inner)
            x = block.update_target(inner, total / n)
        out: torch.Tensor = self.last(self.tail(x))
        return out if begun is None else begun + out

    def _walked_again(self, group: torch.Tensor, sent: list[torch.Tensor]) -> torch.Tensor:
        """Give the sum over a group at the block after those whose target representations were sent."""
        path = self._context_path(group)
        total = next(path)
        for target in sent:
            total = path.send(target)
        return total
