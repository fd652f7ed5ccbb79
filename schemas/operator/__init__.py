"""What an operator does by hand: `python -m schemas` and what stands behind it."""
