"""What a call costs: the tables of the exchanges' limits and what reads them."""
