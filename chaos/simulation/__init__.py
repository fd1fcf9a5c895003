"""The whole system on a virtual clock and network, by seed: the real rules, a model of Raft, a stand-in for the EVM."""
