"""The command line `ccxt-fleet`, in the checkout `python -m schemas`: a file a noun."""
