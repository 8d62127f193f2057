"""Objects by kind, namespace and name, their history for watches, and the SQLite file behind them."""
