"""The ingress' rules: which raw transactions are let in, where they still have to go, and when one may be forgotten."""
