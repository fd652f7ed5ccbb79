"""``python -m workers --processes N``: a parent that imports once, forks N workers and starts again what ends."""
