"""The conductor's rules: control table, health, watchdog, what to publish, and how a node catches up."""
