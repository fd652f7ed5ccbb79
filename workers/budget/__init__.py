"""May a call leave, and when: token buckets that all workers share in Redis, and each worker's part without it."""
