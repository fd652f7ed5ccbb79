"""An exchange as ccxt shows it: calls that are charged, answers that are bounded, errors that are understood."""
