"""The builder's rules: when a flashblock is due, what fits into it in which order, and what a building job does."""
