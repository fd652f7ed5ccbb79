"""Runs the fleet on one machine: servers, services, simulated exchanges; the configuration and the wheel that ship."""
