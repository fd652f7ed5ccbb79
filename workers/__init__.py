"""The workers: run attempts on ccxt within the budget, publish results and reports."""
