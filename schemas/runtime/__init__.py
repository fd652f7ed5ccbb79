"""What the two services share as processes: their connections, their deliveries, what they keep in Redis."""
