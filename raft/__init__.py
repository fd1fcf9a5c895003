"""The replicated ledger: what the five groups agreed on, and who leads; PySyncObj stays behind `syncobj.py`."""
