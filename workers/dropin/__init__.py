"""ccxt's classes whose public calls the fleet makes: in place of ``import ccxt``, or where a program has that inside.

`ccxt`, `ccxt_async` and `ccxt_pro` are the modules to import in place of ccxt's. `hook` puts the same calls below
ccxt's own classes, for programs that ``ccxt-fleet run`` starts. Signing, parsing, markets and errors stay ccxt's: only
what sends is another one (`blocking`, `awaited`).
"""
