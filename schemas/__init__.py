"""The contract: what crosses the wire, and what another program needs to talk to the fleet.

This package is also what users install, as ``ccxt_fleet``; it imports relatively inside itself and nothing of the
other folders.
"""
