"""The gateway: the fleet for programs that speak HTTP. It needs no ccxt, no way to the exchanges, no keys."""
