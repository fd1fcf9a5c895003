"""Tests here send spans to collectors that do not exist."""

import logging

# The exporter's thread complains to stderr when the interpreter ends: behind pytest's closing line, which is the last.
logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
