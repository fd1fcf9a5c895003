"""The shells: one module per actor, its sockets, timers and tasks around its rules."""
