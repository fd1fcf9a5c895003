"""Drills: load, faults, what subscribers saw, and the checker that judges it."""
