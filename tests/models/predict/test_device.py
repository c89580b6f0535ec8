import psutil
import pytest
import torch

from hyperprep.exceptions import DeviceError
from hyperprep.models.predict.device import pick_device, torch_threads


def gpus(monkeypatch, count):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_auto_takes_what_is_there(monkeypatch):
    gpus(monkeypatch, 0)
    assert pick_device() == torch.device("cpu")
    gpus(monkeypatch, 2)
    assert pick_device() == torch.device("cuda")
    assert pick_device("CPU") == torch.device("cpu")
    assert pick_device("cuda:1") == torch.device("cuda:1")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:2", "gpu", "cuda:", "cuda:x", "", "cuda:-1"])
def test_absent_or_unknown_devices_are_errors(monkeypatch, name):
    gpus(monkeypatch, 2 if name == "cuda:2" else 0)
    with pytest.raises(DeviceError, match=f"'{name}'"):
        pick_device(name)


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with torch_threads(1):
        assert torch.get_num_threads() == 1
    with pytest.raises(RuntimeError, match="stop"), torch_threads(2):
        raise RuntimeError("stop")
    assert torch.get_num_threads() == before
    with torch_threads(None) as threads:
        assert threads == before
    with pytest.raises(ValueError, match="at least 1"), torch_threads(0):
        pass


def use_memory_and_fail():
    with torch_threads(1):
        large = torch.ones(2**26)
        del large
        raise RuntimeError("within")


def test_freed_memory_is_given_back_even_after_an_error():
    before = psutil.Process().memory_info().rss
    with pytest.raises(RuntimeError, match="within"):
        use_memory_and_fail()
    assert psutil.Process().memory_info().rss - before < 2**26
