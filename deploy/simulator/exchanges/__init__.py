"""The exchanges that the simulator plays."""
