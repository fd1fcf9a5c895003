"""One spelling for every span and attribute, here only (OpenTelemetry semantic conventions where they exist)."""

# attributes
GROUP = "service.instance.id"
TX_HASH = "tx.hash"
PAYLOAD_ID = "payload.id"
BLOCK_NUMBER = "block.number"
BLOCK_HASH = "block.hash"
FLASHBLOCK_INDEX = "flashblock.index"
EPOCH = "epoch"
OUTCOME = "outcome"
TRANSACTIONS = "transactions"

CAUSE = "failover.cause"
SUBSCRIBERS = "subscribers"

# spans of a block trace, in the order of a flashblock's life
BLOCK = "block"
FORKCHOICE_UPDATED = "engine_forkchoiceUpdated"
BUILD = "flashblock build"
JUDGE = "flashblock judge"
COMMIT = "flashblock commit"
PUBLISH = "flashblock publish"
FAN_OUT = "flashblock fan-out"
PENDING = "flashblock pending"
GET_PAYLOAD = "engine_getPayload"
NEW_PAYLOAD = "engine_newPayload"
COMMIT_PAYLOAD = "conductor_commitUnsafePayload"
SEAL = "block seal"
IMPORT = "block import"

# spans of a transaction trace
SEND = "eth_sendRawTransaction"
ADMIT = "transaction admit"
POOL = "transaction pool"
INCLUDE = "transaction include"
LOST = "transaction not seen again"
PRECONFIRM = "transaction preconfirm"

# spans of a failover trace
FAILOVER = "failover"
DETECT = "failover detect"
HAND_OVER = "failover hand-over"
ELECT = "failover elect"
CLAIM = "failover claim"
CATCH_UP = "failover catch-up"
RESUME = "failover resume"
FIRST_FLASHBLOCK = "failover first flashblock"
