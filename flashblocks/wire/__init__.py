"""The formats on every link: Engine API, flashblocks, internal frames, JSON-RPC, JWT; bytes in, frozen types out."""
