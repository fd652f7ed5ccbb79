"""The command line `python -m schemas`, and its parts: dead letters, pauses."""
