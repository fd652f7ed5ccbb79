"""The contract: the messages, and all that another program needs to talk to the fleet.

Users install this package as ``ccxt_fleet``, with the other folders below it (`deploy/wheel.py`). It imports relatively
inside itself, and nothing of the other folders. Its modules need msgspec and what comes with aio-pika. Those of
`runtime`, which both services share as processes, and of `operator`, the command line, need more; no module here
imports them.
"""
