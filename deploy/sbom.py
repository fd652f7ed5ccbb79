"""What is in an image, as CycloneDX 1.6: `python -m deploy.sbom`, by its own Python."""

import json
import re
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from typing import Any


def bom(found: Iterable[Distribution]) -> dict[str, Any]:
    """The bill of materials of these distributions."""
    parts = {re.sub(r"[-_.]+", "-", each.name).lower(): each for each in found}
    whole = {"type": "application", "name": "ccxt-fleet", "version": parts["ccxt-fleet"].version}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": whole},
        "components": [_component(name, parts[name]) for name in sorted(parts)],
    }


def _component(name: str, part: Distribution) -> dict[str, Any]:
    about = part.metadata
    said = next((about[key] for key in ("License-Expression", "License") if key in about), "")
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": f"pkg:pypi/{name}@{part.version}",
        "name": name,
        "version": part.version,
        "purl": f"pkg:pypi/{name}@{part.version}",
    }
    if said and "\n" not in said:
        component["licenses"] = [{"license": {"name": said}}]
    return component


if __name__ == "__main__":
    print(json.dumps(bom(distributions()), indent=1))
