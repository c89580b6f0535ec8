"""Begin a training from weights that are there."""

from __future__ import annotations

from torch import nn

from hyperprep.exceptions import UsageError
from hyperprep.models.train.loop import first_reason
from hyperprep.models.weights import find_weights, load_state


def begin_from(network: nn.Module, name: str, *, keep: str = "") -> None:
    """Fill a network with the weights of a name.

    Parameters
    ----------
    network
        A network like the one whose weights they are.
    name
        Name of the weights, found as everywhere (``HYPERPREP_WEIGHTS_DIR``); nothing happens when empty.
    keep
        What begins with this word in the network's state stays as it is.

    Raises
    ------
    UsageError
        When the weights are those of another network.
    WeightsError
        When there are none of that name.
    """
    if not name:
        return
    own = {k: v for k, v in network.state_dict().items() if keep and k.startswith(keep)}
    try:
        network.load_state_dict({**load_state(find_weights(name)), **own})
    except RuntimeError as error:
        raise UsageError(
            f"[model] begin_from = {name!r}: those weights are of a network of another shape "
            f"({first_reason(error)}). Give the configuration the width and features of their training."
        ) from error
