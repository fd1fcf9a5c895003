"""What the protocol itself writes at the start of a block: beacon roots (EIP-4788) and parent hashes (EIP-2935)."""

from flashblocks.execution.block_state import BlockState
from flashblocks.execution.keccak import keccak256

BEACON_ROOTS_ADDRESS = bytes.fromhex("000f3df6d732807ef1319fb7b8bb8522d0beac02")
BEACON_ROOTS_CODE = bytes.fromhex(
    "3373fffffffffffffffffffffffffffffffffffffffe14604d57602036146024575f5ffd5b5f35801560495762001fff810690815414603c"
    "575f5ffd5b62001fff01545f5260205ff35b5f5ffd5b62001fff42064281555f359062001fff015500"
)
BEACON_ROOTS_RING = 8_191

HISTORY_ADDRESS = bytes.fromhex("0000f90827f1c53a10cb7a02335b175320002935")
HISTORY_CODE = bytes.fromhex(
    "3373fffffffffffffffffffffffffffffffffffffffe14604657602036036042575f35600143038111604257611fff81430311604257611f"
    "ff9006545f5260205ff35b5f5ffd5b5f35611fff60014303065500"
)
HISTORY_RING = 8_191

SYSTEM_ADDRESS = bytes.fromhex("fffffffffffffffffffffffffffffffffffffffe")
SYSTEM_CALL_GAS = 30_000_000

_BEACON_ROOTS_CODE_HASH = keccak256(BEACON_ROOTS_CODE)
_HISTORY_CODE_HASH = keccak256(HISTORY_CODE)


def begin_block(state: BlockState, parent_hash: bytes, parent_beacon_root: bytes) -> None:
    """Run the system calls of a block: both contracts are told, where they exist."""
    timestamp, number = state.timestamp, state.block_number
    code_hash = state.get_code_hash(BEACON_ROOTS_ADDRESS)
    if code_hash == _BEACON_ROOTS_CODE_HASH:
        place = timestamp % BEACON_ROOTS_RING
        state.set_storage(BEACON_ROOTS_ADDRESS, place, timestamp)
        state.set_storage(BEACON_ROOTS_ADDRESS, place + BEACON_ROOTS_RING, int.from_bytes(parent_beacon_root, "big"))
    else:
        _call(state, BEACON_ROOTS_ADDRESS, parent_beacon_root)
    if state.environment.rules.isthmus:
        code_hash = state.get_code_hash(HISTORY_ADDRESS)
        if code_hash == _HISTORY_CODE_HASH:
            place = (number - 1) % HISTORY_RING
            state.set_storage(HISTORY_ADDRESS, place, int.from_bytes(parent_hash, "big"))
        else:
            _call(state, HISTORY_ADDRESS, parent_hash)
    state.end_transaction()


def _call(state: BlockState, address: bytes, data: bytes) -> None:
    """The general form, for a chain whose contract is not the canonical one; no contract, no call."""
    code = state.code_of(address)
    if not code.raw:
        return
    from flashblocks.execution.evm import Message, TransactionContext, frame_class

    state.begin_transaction(frozenset())
    message = Message(SYSTEM_CALL_GAS, address, SYSTEM_ADDRESS, 0, data, code, should_transfer_value=False)
    frame_class(state.environment.rules).apply_message(state, message, TransactionContext(0, SYSTEM_ADDRESS))
