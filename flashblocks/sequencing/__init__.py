"""The op-node's rules: simulated L1, attributes and deposits, the sequencer's schedule, the import of payloads."""
