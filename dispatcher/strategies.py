"""How one lane is chosen among those that could take a request. Pure decisions with their state; no clock, no I/O."""

from collections.abc import Mapping, Sequence

from schemas.messages import Strategy


class Chooser:
    """Chooses by smooth weighted round robin, plain round robin, or the order given.

    Smooth means spread out: weights 3 and 1 give a a b a, not a a a b (the algorithm of nginx's upstream module).
    The state is kept per strategy for all lanes together, so shares hold over requests with different candidates too.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = dict(weights)
        self._smooth = dict.fromkeys(weights, 0.0)
        self._even = dict.fromkeys(weights, 0.0)

    def choose(self, strategy: Strategy, lanes: Sequence[str]) -> str:
        """The lane for the next request.

        Args:
            strategy: how to choose.
            lanes: the candidates in the order of preference; at least one.
        """
        if len(lanes) == 1 or strategy == "failover":
            return lanes[0]
        if strategy == "round_robin":
            return _smooth(self._even, dict.fromkeys(lanes, 1.0))
        return _smooth(self._smooth, {lane: self._weights[lane] for lane in lanes})


def _smooth(credit: dict[str, float], weights: Mapping[str, float]) -> str:
    """Everyone earns its weight, the richest is chosen and pays what was earned by all."""
    for lane, weight in weights.items():
        credit[lane] += weight
    chosen = max(weights, key=lambda lane: credit[lane])
    credit[chosen] -= sum(weights.values())
    return chosen
