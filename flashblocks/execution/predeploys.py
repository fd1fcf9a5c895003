"""The contracts that our genesis installs at 0x4200…, in assembly of our own after the interfaces of OP's contracts.

Only behaviour that the protocol and its clients rely on is there, without the upgrade proxies of the originals.
"""

from flashblocks.execution.assembler import assemble, selector
from flashblocks.execution.keccak import keccak256

DEPOSITOR = bytes.fromhex("deaddeaddeaddeaddeaddeaddeaddeaddead0001")

SET_VALUES_ECOTONE = selector("setL1BlockValuesEcotone()")
SET_VALUES_ISTHMUS = selector("setL1BlockValuesIsthmus()")
SET_VALUES_JOVIAN = selector("setL1BlockValuesJovian()")
NOT_DEPOSITOR = selector("NotDepositor()")

# L1Block's view functions: name → (storage slot, bits to shift right, bits wide).
L1_BLOCK_GETTERS = {
    "number()": (0, 0, 64),
    "timestamp()": (0, 64, 64),
    "basefee()": (1, 0, 256),
    "hash()": (2, 0, 256),
    "sequenceNumber()": (3, 0, 64),
    "blobBaseFeeScalar()": (3, 64, 32),
    "baseFeeScalar()": (3, 96, 32),
    "batcherHash()": (4, 0, 256),
    "blobBaseFee()": (7, 0, 256),
    "operatorFeeConstant()": (8, 0, 64),
    "operatorFeeScalar()": (8, 64, 32),
    "daFootprintGasScalar()": (8, 96, 16),
}

# The attributes' calldata is packed after the selector: basefeeScalar u32, blobBaseFeeScalar u32, sequenceNumber u64,
# timestamp u64, number u64, basefee, blobBaseFee, hash, batcherHash, then (Isthmus) operatorFeeScalar u32 and
# operatorFeeConstant u64, then (Jovian) daFootprintGasScalar u16.


def l1_block_code() -> bytes:
    """L1Block: written by the L1-attributes deposit, read by everybody (storage layout of L1Block.json)."""
    source = ["push0 calldataload 224 shr"]
    for name, label in (
        (SET_VALUES_ISTHMUS, "isthmus"),
        (SET_VALUES_JOVIAN, "jovian"),
        (SET_VALUES_ECOTONE, "ecotone"),
    ):
        source.append(f"dup1 0x{name.hex()} eq @{label} jumpi")
    for index, signature in enumerate(L1_BLOCK_GETTERS):
        source.append(f"dup1 0x{selector(signature).hex()} eq @get{index} jumpi")
    source.append(f"dup1 0x{selector('DEPOSITOR_ACCOUNT()').hex()} eq @depositor jumpi")
    source.append("push0 push0 revert")
    for index, (slot, shift, width) in enumerate(L1_BLOCK_GETTERS.values()):
        mask = "" if width == 256 else f"0x{'ff' * (width // 8)} and"
        source.append(f"get{index}: {slot} sload {shift} shr {mask} push0 mstore 32 push0 return")
    source.append(f"depositor: 0x{DEPOSITOR.hex()} push0 mstore 32 push0 return")
    operator = "164 calldataload 160 shr"  # calldata[164:176]: operatorFeeScalar ++ operatorFeeConstant
    footprint = "176 calldataload 240 shr 96 shl"  # calldata[176:178]: daFootprintGasScalar, to bit 96
    source.append(f"jovian: {_require_depositor('jovian')} {operator} {footprint} or 8 sstore @common jump")
    source.append(f"isthmus: {_require_depositor('isthmus')} {operator} 8 sstore @common jump")
    source.append(f"ecotone: {_require_depositor('ecotone')} @common jump")
    source.append(
        """
        common:
            4 calldataload 128 shr 3 sstore      ; scalars and sequence number
            20 calldataload 128 shr push0 sstore ; timestamp and number
            36 calldataload 1 sstore             ; base fee
            68 calldataload 7 sstore             ; blob base fee
            100 calldataload 2 sstore            ; hash
            132 calldataload 4 sstore            ; batcher hash
            stop
        """
    )
    return assemble("\n".join(source))


def _require_depositor(label: str) -> str:
    allowed = f"{label}_allowed"
    refuse = f"0x{NOT_DEPOSITOR.hex()} 224 shl push0 mstore 4 push0 revert"
    return f"caller 0x{DEPOSITOR.hex()} eq @{allowed} jumpi {refuse} {allowed}:"


INITIATE_WITHDRAWAL = selector("initiateWithdrawal(address,uint256,bytes)")
MESSAGE_PASSED_TOPIC = keccak256(b"MessagePassed(uint256,address,address,uint256,uint256,bytes,bytes32)")
RECEIVE_GAS_LIMIT = 100_000

SENT_MESSAGES_SLOT = 0
MESSAGE_NONCE_SLOT = 1


def message_passer_code() -> bytes:
    """L2ToL1MessagePasser: records withdrawals, whose storage root every Isthmus header carries.

    sentMessages (mapping, slot 0) and msgNonce (slot 1) lie where the original has them, so that the original's proofs
    apply. Plain ether sent to it is a withdrawal to the sender with 100,000 gas, as in the original.
    """
    # Memory: the ABI encoding (nonce, sender, target, value, gas limit, 0xc0, data length, data) is hashed; then the
    # event's (value, gas limit, 0x80, hash, data length, data) is laid over its tail, from 0x40 on.
    return assemble(
        f"""
        calldatasize iszero @receive jumpi
        push0 calldataload 224 shr
        dup1 0x{INITIATE_WITHDRAWAL.hex()} eq @initiate jumpi
        dup1 0x{selector("messageNonce()").hex()} eq @nonce jumpi
        dup1 0x{selector("sentMessages(bytes32)").hex()} eq @sent jumpi
        push0 push0 revert

        nonce:
            @nonce_returned @versioned_nonce jump
        nonce_returned:
            push0 mstore 32 push0 return

        sent:
            4 calldataload push0 mstore {SENT_MESSAGES_SLOT} 32 mstore 64 push0 keccak256 sload
            push0 mstore 32 push0 return

        versioned_nonce:            ; (return address) -> nonce with version 1 in its two highest bytes
            {MESSAGE_NONCE_SLOT} sload 1 240 shl or swap1 jump

        receive:
            caller 64 mstore {RECEIVE_GAS_LIMIT} 128 mstore push0 192 mstore
            push0                   ; padded data length
            @record jump

        initiate:
            4 calldataload 0x{"ff" * 20} and 64 mstore
            36 calldataload 128 mstore
            68 calldataload 4 add   ; where the data's length lies
            dup1 calldataload       ; (at, length)
            dup1 0xffffffff lt @bad jumpi
            dup1 192 mstore
            dup2 32 add dup2 add calldatasize lt @bad jumpi   ; data beyond the calldata
            dup1 dup3 32 add 224 calldatacopy                 ; copy length bytes to 0xe0
            swap1 pop
            31 add 0xffffffe0 and                             ; padded length
            @record jump
        bad:
            push0 push0 revert

        record:                     ; (padded length)
            @have_nonce @versioned_nonce jump
        have_nonce:                 ; (padded, nonce)
            dup1 push0 mstore
            caller 32 mstore
            callvalue 96 mstore
            192 160 mstore
            dup2 224 add push0 keccak256          ; (padded, nonce, hash)
            64 mload swap1                        ; (padded, nonce, target, hash)
            dup1 push0 mstore {SENT_MESSAGES_SLOT} 32 mstore
            1 64 push0 keccak256 sstore           ; sentMessages[hash] = true
            128 mload                             ; (padded, nonce, target, hash, gas limit)
            callvalue 64 mstore
            96 mstore
            128 128 mstore
            160 mstore                            ; (padded, nonce, target)
            swap1 caller swap1                    ; (padded, target, caller, nonce)
            0x{MESSAGE_PASSED_TOPIC.hex()}        ; (padded, target, caller, nonce, topic)
            dup5 160 add 64                       ; (…, size, at)
            log4
            pop
            {MESSAGE_NONCE_SLOT} sload 1 add {MESSAGE_NONCE_SLOT} sstore
            stop
        """
    )
