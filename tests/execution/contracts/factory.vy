# pragma version ~=0.4.3
"""
@notice Makes one pair per two tokens from a blueprint (ERC-5202), at an address that follows from the tokens.
"""

event PairCreated:
    token0: indexed(address)
    token1: indexed(address)
    pair: address
    count: uint256

blueprint: immutable(address)
getPair: public(HashMap[address, HashMap[address, address]])
allPairsLength: public(uint256)


@deploy
def __init__(pair_blueprint: address):
    blueprint = pair_blueprint


@external
def createPair(one: address, two: address) -> address:
    assert one != two, "same token"
    token0: address = one
    token1: address = two
    if convert(two, uint160) < convert(one, uint160):
        token0 = two
        token1 = one
    assert token0 != empty(address), "no token"
    assert self.getPair[token0][token1] == empty(address), "pair exists"
    salt: bytes32 = keccak256(abi_encode(token0, token1))
    pair: address = create_from_blueprint(blueprint, token0, token1, salt=salt)
    self.getPair[token0][token1] = pair
    self.getPair[token1][token0] = pair
    self.allPairsLength += 1
    log PairCreated(token0=token0, token1=token1, pair=pair, count=self.allPairsLength)
    return pair
