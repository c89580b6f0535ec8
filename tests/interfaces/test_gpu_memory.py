"""A GPU that runs out of memory is an error in words, and the CPU does not take over by itself."""

import pytest
import torch

from hyperprep.exceptions import DeviceError
from hyperprep.interfaces.base import ModelInterface

CALLS = []


class _Greedy(ModelInterface):
    def _compute(self, folder):
        CALLS.append(self._device())
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.\nMore lines.")


def test_out_of_memory_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    CALLS.clear()
    with pytest.raises(DeviceError, match="out of memory") as raised:
        _Greedy(use_gpu=True).run()
    message = str(raised.value)
    assert "_Greedy ran out of memory on the GPU (cuda)" in message
    assert "9.00 GiB" in message
    assert "--device cpu" in message
    assert "More lines" not in message
    assert CALLS == ["cuda"]
