"""rollup-boost's rules: which flashblocks are judged and promised, what getPayload answers, how healthy we are."""
