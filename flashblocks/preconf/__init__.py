"""The rpc-node's rules: what becomes `pending`, when it falls through to `latest`, what subscribers hear."""
