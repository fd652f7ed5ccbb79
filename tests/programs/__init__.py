"""Real programs that use ccxt, unmodified, through a fleet on the simulator: ``python -m tests.programs``."""
