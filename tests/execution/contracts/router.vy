# pragma version ~=0.4.3
"""
@notice What wallets call: adds liquidity in the pool's ratio, swaps along a path of tokens, checks limits and deadlines.
"""

interface Token:
    def transferFrom(sender: address, receiver: address, amount: uint256) -> bool: nonpayable

interface Pair:
    def token0() -> address: view
    def getReserves() -> (uint112, uint112, uint32): view
    def mint(to: address) -> uint256: nonpayable
    def swap(out0: uint256, out1: uint256, to: address): nonpayable

interface Factory:
    def getPair(one: address, two: address) -> address: view
    def createPair(one: address, two: address) -> address: nonpayable

factory: public(immutable(address))


@deploy
def __init__(of_factory: address):
    factory = of_factory


@internal
@view
def _reserves(one: address, two: address) -> (address, uint256, uint256):
    pair: address = staticcall Factory(factory).getPair(one, two)
    assert pair != empty(address), "no pair"
    reserve0: uint112 = 0
    reserve1: uint112 = 0
    changed_at: uint32 = 0
    reserve0, reserve1, changed_at = staticcall Pair(pair).getReserves()
    if staticcall Pair(pair).token0() == one:
        return pair, convert(reserve0, uint256), convert(reserve1, uint256)
    return pair, convert(reserve1, uint256), convert(reserve0, uint256)


@internal
@pure
def _amount_out(amount: uint256, reserve_in: uint256, reserve_out: uint256) -> uint256:
    with_fee: uint256 = amount * 997
    return with_fee * reserve_out // (reserve_in * 1000 + with_fee)


@internal
@view
def _amounts(amount: uint256, path: DynArray[address, 4]) -> DynArray[uint256, 4]:
    amounts: DynArray[uint256, 4] = [amount]
    for step: uint256 in range(len(path) - 1, bound=3):
        pair: address = empty(address)
        reserve_in: uint256 = 0
        reserve_out: uint256 = 0
        pair, reserve_in, reserve_out = self._reserves(path[step], path[step + 1])
        amounts.append(self._amount_out(amounts[step], reserve_in, reserve_out))
    return amounts


@external
@view
def getAmountsOut(amount: uint256, path: DynArray[address, 4]) -> DynArray[uint256, 4]:
    return self._amounts(amount, path)


@external
def addLiquidity(
    one: address, two: address, most_one: uint256, most_two: uint256, to: address, deadline: uint256
) -> (uint256, uint256, uint256):
    assert block.timestamp <= deadline, "expired"
    pair: address = staticcall Factory(factory).getPair(one, two)
    if pair == empty(address):
        pair = extcall Factory(factory).createPair(one, two)
    reserve_one: uint256 = 0
    reserve_two: uint256 = 0
    pair, reserve_one, reserve_two = self._reserves(one, two)
    amount_one: uint256 = most_one
    amount_two: uint256 = most_two
    if reserve_one > 0:
        amount_two = most_one * reserve_two // reserve_one
        if amount_two > most_two:
            amount_two = most_two
            amount_one = most_two * reserve_one // reserve_two
    assert extcall Token(one).transferFrom(msg.sender, pair, amount_one)
    assert extcall Token(two).transferFrom(msg.sender, pair, amount_two)
    return amount_one, amount_two, extcall Pair(pair).mint(to)


@external
def swapExactTokensForTokens(
    amount: uint256, least: uint256, path: DynArray[address, 4], to: address, deadline: uint256
) -> DynArray[uint256, 4]:
    assert block.timestamp <= deadline, "expired"
    amounts: DynArray[uint256, 4] = self._amounts(amount, path)
    assert amounts[len(amounts) - 1] >= least, "output too low"
    first: address = staticcall Factory(factory).getPair(path[0], path[1])
    assert extcall Token(path[0]).transferFrom(msg.sender, first, amount)
    for step: uint256 in range(len(path) - 1, bound=3):
        pair: address = staticcall Factory(factory).getPair(path[step], path[step + 1])
        receiver: address = to
        if step + 2 < len(path):
            receiver = staticcall Factory(factory).getPair(path[step + 1], path[step + 2])
        if staticcall Pair(pair).token0() == path[step]:
            extcall Pair(pair).swap(0, amounts[step + 1], receiver)
        else:
            extcall Pair(pair).swap(amounts[step + 1], 0, receiver)
    return amounts
