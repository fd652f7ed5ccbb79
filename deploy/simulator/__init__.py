"""Exchanges to practise on: five REST formats, their limits enforced strictly, faults on demand.

`python -m deploy.simulator --seed 1` serves one loopback port per exchange and one control port, and prints
where they are as one JSON line. `deploy.simulator.process.Simulator` starts that as a child process;
`deploy.simulator.ccxt_config.ccxt_config` points an unmodified ccxt class at it.
"""
