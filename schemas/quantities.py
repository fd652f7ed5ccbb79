"""Kinds of numbers in the configuration, with their bounds."""

from typing import Annotated, TypeAlias

from msgspec import Meta

Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=1e6)]  # TOML knows `inf` and `nan`
Mebibytes: TypeAlias = Annotated[float, Meta(ge=0.0625, le=1024)]  # 64 KiB to 1 GiB
Count: TypeAlias = Annotated[int, Meta(ge=1, le=65_535)]  # AMQP says prefetch and heartbeat in 16 bits
