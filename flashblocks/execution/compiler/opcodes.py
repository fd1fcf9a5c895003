"""How the compiler sees each opcode: the Python expression it becomes, or how many words it takes and gives.

In the templates, {a} is the top of the stack, {b} the word below it, {c} the one below that.
"""

ADD, MUL, SUB, DIV, SDIV, MOD, SMOD, ADDMOD, MULMOD, EXP, SIGNEXTEND = range(0x01, 0x0C)
LT, GT, SLT, SGT, EQ, ISZERO, AND, OR, XOR, NOT, BYTE, SHL, SHR, SAR = range(0x10, 0x1E)
STOP, KECCAK256 = 0x00, 0x20
ADDRESS, BALANCE, ORIGIN, CALLER, CALLVALUE, CALLDATALOAD, CALLDATASIZE, CALLDATACOPY = range(0x30, 0x38)
CODESIZE, CODECOPY, GASPRICE, EXTCODESIZE, EXTCODECOPY, RETURNDATASIZE, RETURNDATACOPY, EXTCODEHASH = range(0x38, 0x40)
BLOCKHASH, COINBASE, TIMESTAMP, NUMBER, PREVRANDAO, GASLIMIT, CHAINID, SELFBALANCE = range(0x40, 0x48)
BASEFEE, BLOBHASH, BLOBBASEFEE = range(0x48, 0x4B)
POP, MLOAD, MSTORE, MSTORE8, SLOAD, SSTORE, JUMP, JUMPI, PC, MSIZE, GAS, JUMPDEST = range(0x50, 0x5C)
TLOAD, TSTORE, MCOPY, PUSH0 = range(0x5C, 0x60)
PUSH32, DUP1, DUP16, SWAP1, SWAP16, LOG0, LOG4 = 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xA4
CREATE, CALL, CALLCODE, RETURN, DELEGATECALL, CREATE2 = range(0xF0, 0xF6)
STATICCALL, REVERT, INVALID, SELFDESTRUCT = 0xFA, 0xFD, 0xFE, 0xFF

# Words from words, without side effects.
ARITHMETIC = {
    ADD: "({a} + {b}) & WORD_MAX",
    MUL: "({a} * {b}) & WORD_MAX",
    SUB: "({a} - {b}) & WORD_MAX",
    DIV: "{a} // {b} if {b} else 0",
    SDIV: "sdiv({a}, {b})",
    MOD: "{a} % {b} if {b} else 0",
    SMOD: "smod({a}, {b})",
    SIGNEXTEND: "signextend({a}, {b})",
    AND: "{a} & {b}",
    OR: "{a} | {b}",
    XOR: "{a} ^ {b}",
    BYTE: "({b} >> (248 - 8 * {a})) & 255 if {a} < 32 else 0",
    SHL: "({b} << {a}) & WORD_MAX if {a} < 256 else 0",
    SHR: "{b} >> {a} if {a} < 256 else 0",
    SAR: "sar({a}, {b})",
    ADDMOD: "({a} + {b}) % {c} if {c} else 0",
    MULMOD: "({a} * {b}) % {c} if {c} else 0",
    NOT: "{a} ^ WORD_MAX",
    BLOBHASH: "0",  # transactions with blobs do not exist on OP
}
ARITHMETIC_ARGUMENTS = {NOT: 1, BLOBHASH: 1, ADDMOD: 3, MULMOD: 3}  # all others take two words

# The same where one word is a constant: cheaper forms.
SHIFT_BY_CONSTANT = {SHL: "({b} << {a}) & WORD_MAX", SHR: "{b} >> {a}"}
DIVIDE_BY_CONSTANT = {DIV: "{a} // {b}", MOD: "{a} % {b}"}

# Truth values: they become words only where something needs the word.
COMPARISONS = {
    LT: "{a} < {b}",
    GT: "{a} > {b}",
    SLT: "({a} ^ SIGN_BIT) < ({b} ^ SIGN_BIT)",
    SGT: "({a} ^ SIGN_BIT) > ({b} ^ SIGN_BIT)",
    EQ: "{a} == {b}",
}

# What a frame knows of itself and its block, the same from its beginning to its end.
CONSTANT_ENVIRONMENT = {
    ADDRESS: "int.from_bytes(me, 'big')",
    ORIGIN: "int.from_bytes(frame.transaction_context.origin, 'big')",
    CALLER: "int.from_bytes(message.sender, 'big')",
    CALLVALUE: "message.value",
    CALLDATASIZE: "len(message.data)",
    GASPRICE: "frame.transaction_context.gas_price",
    COINBASE: "int.from_bytes(state.coinbase, 'big')",
    TIMESTAMP: "state.timestamp",
    NUMBER: "state.block_number",
    PREVRANDAO: "int.from_bytes(state.mix_hash, 'big')",
    GASLIMIT: "state.gas_limit",
    CHAINID: "state.environment.chain_id",
    BASEFEE: "state.base_fee",
    BLOBBASEFEE: "state.blob_base_fee",
}

# What calls and transfers change.
CHANGING_ENVIRONMENT = {
    RETURNDATASIZE: "len(frame.return_data)",
    SELFBALANCE: "state.get_balance(me)",
}

# Looking at accounts and slots: functions of the runtime that give (word, gas left).
LOOKUPS = {
    SLOAD: "sload(state, me, gas, {a})",
    BALANCE: "balance(state, gas, {a})",
    EXTCODESIZE: "code_size(state, gas, {a})",
    EXTCODEHASH: "code_hash(state, gas, {a})",
}

# Left to py-evm's own functions: (words taken, words given).
FOREIGN = {
    EXTCODECOPY: (4, 0),
    CREATE: (3, 1),
    CREATE2: (4, 1),
    SELFDESTRUCT: (1, 0),
}

CALL_ARGUMENTS = {CALL: 7, CALLCODE: 7, DELEGATECALL: 6, STATICCALL: 6}

# Opcodes whose whole price is charged where they run, not with the segment.
PRICED_WHEN_RUN = {*FOREIGN, *LOOKUPS, *CALL_ARGUMENTS, SSTORE}
