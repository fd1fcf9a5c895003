"""The rules of the chain and of the sequencers; pure, no socket, no clock, no Ray."""
