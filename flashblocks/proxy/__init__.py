"""The websocket-proxy's rules: order and dedupe many upstreams, remember for late joiners, limit and filter clients."""
