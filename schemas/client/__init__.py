"""The client: `Fleet` and its blocking twin, the errors that they raise, the types of what they answer."""
