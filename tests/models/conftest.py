"""Label maps of a few simple heads, small enough for a test."""

import pytest
import torch

from hyperprep.models.synth.maps import LabelMaps


@pytest.fixture(scope="session")
def few_maps() -> LabelMaps:
    """Four heads: nested boxes of cortex, white matter and ventricle, each a little larger than the last."""
    numbers = (0, 2, 3, 4, 24, 41, 42, 43, 500)
    maps = torch.zeros(4, 192, 224, 192, dtype=torch.uint8)
    for one in range(4):
        for label, margin in ((2, 30 - one), (1, 45 + one), (3, 70 - one)):
            maps[one, margin : 192 - margin, margin : 224 - margin, margin : 192 - margin] = label
        right = maps[one, 96:]
        right[right > 0] += 4  # the numbers of the right hemisphere
    return LabelMaps(maps, (maps > 0).to(torch.uint8), numbers)
