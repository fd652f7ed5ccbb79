"""What both services need as processes: connections, deliveries, results, what they keep in Redis."""
