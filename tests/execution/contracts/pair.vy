# pragma version ~=0.4.3
"""
@notice A constant-product pool of two tokens with a fee of 0.3 %, after the interface of Uniswap V2's pair.
        Whoever calls has sent the tokens before; shares are counted here, without being a token of their own.
"""

interface Token:
    def balanceOf(holder: address) -> uint256: view
    def transfer(receiver: address, amount: uint256) -> bool: nonpayable

event Mint:
    sender: indexed(address)
    amount0: uint256
    amount1: uint256

event Burn:
    sender: indexed(address)
    amount0: uint256
    amount1: uint256
    to: indexed(address)

event Swap:
    sender: indexed(address)
    amount0In: uint256
    amount1In: uint256
    amount0Out: uint256
    amount1Out: uint256
    to: indexed(address)

event Sync:
    reserve0: uint112
    reserve1: uint112

LOCKED_SHARES: constant(uint256) = 1000

factory: public(immutable(address))
token0: public(immutable(address))
token1: public(immutable(address))
totalSupply: public(uint256)
balanceOf: public(HashMap[address, uint256])
price0CumulativeLast: public(uint256)
_reserve0: uint112
_reserve1: uint112
_changed_at: uint32


@deploy
def __init__(one: address, two: address):
    factory = msg.sender
    token0 = one
    token1 = two


@external
@view
def getReserves() -> (uint112, uint112, uint32):
    return self._reserve0, self._reserve1, self._changed_at


@internal
def _update(balance0: uint256, balance1: uint256):
    now: uint32 = convert(block.timestamp % 2**32, uint32)
    elapsed: uint256 = convert(now - self._changed_at, uint256)
    if self._reserve0 != 0:
        price: uint256 = convert(self._reserve1, uint256) * 2**112 // convert(self._reserve0, uint256)
        self.price0CumulativeLast = unsafe_add(self.price0CumulativeLast, unsafe_mul(price, elapsed))
    self._reserve0 = convert(balance0, uint112)
    self._reserve1 = convert(balance1, uint112)
    self._changed_at = now
    log Sync(reserve0=self._reserve0, reserve1=self._reserve1)


@external
@nonreentrant
def mint(to: address) -> uint256:
    balance0: uint256 = staticcall Token(token0).balanceOf(self)
    balance1: uint256 = staticcall Token(token1).balanceOf(self)
    reserve0: uint256 = convert(self._reserve0, uint256)
    reserve1: uint256 = convert(self._reserve1, uint256)
    amount0: uint256 = balance0 - reserve0
    amount1: uint256 = balance1 - reserve1
    supply: uint256 = self.totalSupply
    shares: uint256 = 0
    if supply == 0:
        shares = isqrt(amount0 * amount1) - LOCKED_SHARES
        self.balanceOf[empty(address)] = LOCKED_SHARES
        supply = LOCKED_SHARES
    else:
        shares = min(amount0 * supply // reserve0, amount1 * supply // reserve1)
    assert shares > 0, "no liquidity"
    self.totalSupply = supply + shares
    self.balanceOf[to] += shares
    self._update(balance0, balance1)
    log Mint(sender=msg.sender, amount0=amount0, amount1=amount1)
    return shares


@external
def transfer(receiver: address, shares: uint256) -> bool:
    self.balanceOf[msg.sender] -= shares
    self.balanceOf[receiver] += shares
    return True


@external
@nonreentrant
def burn(to: address) -> (uint256, uint256):
    balance0: uint256 = staticcall Token(token0).balanceOf(self)
    balance1: uint256 = staticcall Token(token1).balanceOf(self)
    shares: uint256 = self.balanceOf[self]
    amount0: uint256 = shares * balance0 // self.totalSupply
    amount1: uint256 = shares * balance1 // self.totalSupply
    assert amount0 > 0 and amount1 > 0, "no liquidity"
    self.balanceOf[self] = 0
    self.totalSupply -= shares
    assert extcall Token(token0).transfer(to, amount0)
    assert extcall Token(token1).transfer(to, amount1)
    self._update(staticcall Token(token0).balanceOf(self), staticcall Token(token1).balanceOf(self))
    log Burn(sender=msg.sender, amount0=amount0, amount1=amount1, to=to)
    return amount0, amount1


@external
@nonreentrant
def swap(out0: uint256, out1: uint256, to: address):
    assert out0 > 0 or out1 > 0, "nothing out"
    reserve0: uint256 = convert(self._reserve0, uint256)
    reserve1: uint256 = convert(self._reserve1, uint256)
    assert out0 < reserve0 and out1 < reserve1, "not enough liquidity"
    if out0 > 0:
        assert extcall Token(token0).transfer(to, out0)
    if out1 > 0:
        assert extcall Token(token1).transfer(to, out1)
    balance0: uint256 = staticcall Token(token0).balanceOf(self)
    balance1: uint256 = staticcall Token(token1).balanceOf(self)
    in0: uint256 = balance0 - (reserve0 - out0)
    in1: uint256 = balance1 - (reserve1 - out1)
    assert in0 > 0 or in1 > 0, "nothing in"
    adjusted0: uint256 = balance0 * 1000 - in0 * 3
    adjusted1: uint256 = balance1 * 1000 - in1 * 3
    assert adjusted0 * adjusted1 >= reserve0 * reserve1 * 1000000, "K"
    self._update(balance0, balance1)
    log Swap(sender=msg.sender, amount0In=in0, amount1In=in1, amount0Out=out0, amount1Out=out1, to=to)
