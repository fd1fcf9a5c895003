"""What can be wrong with input to the execution rules; anything else that is raised is our own bug."""


class ExecutionError(Exception):
    """The base of every refusal of this room; the text is what a client may be shown."""


class InvalidTransaction(ExecutionError):
    """A transaction that cannot be included here and now; the texts are geth's where geth has one."""


class InvalidBlock(ExecutionError):
    """A block that breaks a rule of the chain."""


class InvalidAttributes(ExecutionError):
    """Payload attributes from which no valid block can be built."""


class InvalidEncoding(ExecutionError):
    """Bytes that are not canonical RLP of the expected shape."""


class MissingState(ExecutionError):
    """A trie node or a contract code that this partial state (a witness) does not contain."""


class CallReverted(ExecutionError):
    """A gas estimate found that the call fails at any gas limit; `revert_data` is the contract's answer."""

    def __init__(self, text: str, revert_data: bytes = b"") -> None:
        super().__init__(text)
        self.revert_data = revert_data


class OutOfTime(ExecutionError):
    """The caller's deadline passed while a transaction ran. Says nothing about the transaction's validity."""
