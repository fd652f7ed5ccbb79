"""The dispatcher: consumes requests, chooses a lane for each, brings failed attempts back."""
