"""The metrics of several processes as one text: each sample gets the label `process`. Pure.

They are not added up. A sum falls when one process starts again at 0, and Prometheus takes a counter that falls for one
that began anew: `rate()` would show all that the others had counted as if it had just happened. Nor has the sum of
gauges a meaning, as that of how full a limit is. Who wants one writes `sum without (process) (...)`.
"""

from collections.abc import Mapping


def merged(texts: Mapping[str, str]) -> str:
    """One text in Prometheus's format of several; each family stands once, with the samples of all.

    Args:
        texts: by process.
    """
    families: dict[str, tuple[list[str], list[str]]] = {}
    for process, text in texts.items():
        head: list[str] = []
        samples: list[str] = []
        for line in text.splitlines():
            if line.startswith("# HELP "):
                head, samples = families.setdefault(line.split(" ", 3)[2], ([], []))
            if not line.startswith("#"):
                samples.append(labelled(line, process))
            elif line not in head:
                head.append(line)
    return "".join(f"{line}\n" for head, samples in families.values() for line in (*head, *samples))


def labelled(sample: str, process: str) -> str:
    """A sample with the label `process` before all others; a metric's name holds neither a brace nor a space."""
    name, brace, rest = sample.partition("{")
    if brace and " " not in name:
        return f'{name}{{process="{process}",{rest}'
    name, _, value = sample.partition(" ")
    return f'{name}{{process="{process}"}} {value}'
