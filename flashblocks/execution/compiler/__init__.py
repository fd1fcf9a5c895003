"""The trace compiler: EVM code as Python functions, with exact gas, a budget for compiling and a bound on memory."""
