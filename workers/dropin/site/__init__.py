"""The folder that ``ccxt-fleet run`` puts first where Python looks: what runs as a program starts, and nothing else."""
