"""How much memory a pod may take, and who may take it: the budgets (`limits`), and how they are shared out
(`ledger` decides, `budget` waits).

Imports nothing of the server: every layer of the data path takes from these budgets.
"""
