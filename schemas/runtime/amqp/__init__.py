"""One process on RabbitMQ, below `broker`: connections that come back, and what is done on each of them."""
