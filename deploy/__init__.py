"""Stands the fleet up: local stack, simulator, configuration."""
