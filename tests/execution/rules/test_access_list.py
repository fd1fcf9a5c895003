"""eth_createAccessList: what a message touches, however deep, and that the list is worth having."""

from typing import Any

from flashblocks.execution.access_list import create_access_list
from flashblocks.execution.assembler import assemble
from flashblocks.execution.calls import call
from flashblocks.execution.code import Code
from flashblocks.execution.state import Account

OUTER, INNER, READER, SENDER = (bytes([0x61 + n]) * 20 for n in range(4))

INNER_CODE = assemble("5 sload pop 6 sload pop push0 push0 revert")
OUTER_CODE = assemble(
    f"1 sload pop 2 1 sstore push0 push0 push0 push0 push0 0x{INNER.hex()} gas call pop "
    f"0x{READER.hex()} balance pop 0x04 balance pop stop"
)


def chain_of(new_chain: Any, code: bytes) -> Any:
    return new_chain(
        {
            OUTER: Account(1, 0, Code.of(code), None),
            INNER: Account(1, 0, Code.of(INNER_CODE), None),
            READER: Account(0, 5, Code.of(b""), None),
        }
    )


def test_everything_touched_is_listed_also_by_frames_that_reverted(new_chain: Any) -> None:
    chain = chain_of(new_chain, OUTER_CODE)
    made = create_access_list(chain.spec, chain.head, chain.state, sender=SENDER, to=OUTER)
    # The callee is warm anyway and is named for its slots alone; the precompile is not named at all.
    assert made.access_list == ((OUTER, (1,)), (INNER, (5, 6)), (READER, ()))
    assert made.error is None
    again = call(chain.spec, chain.head, chain.state, sender=SENDER, to=OUTER, access_list=made.access_list)
    assert again.gas_used == made.gas_used


def test_a_failing_message_says_why_and_is_listed_all_the_same(new_chain: Any) -> None:
    chain = chain_of(new_chain, OUTER_CODE)
    made = create_access_list(chain.spec, chain.head, chain.state, sender=SENDER, to=INNER)
    assert made.access_list == ((INNER, (5, 6)),)
    assert made.error == "execution reverted"


def test_what_depends_on_the_list_itself_is_found_in_further_rounds(new_chain: Any) -> None:
    # Slot 9 is read only when slot 1 is warm: without a list reading it costs 2,100.
    code = assemble("gas 1 sload pop gas swap1 sub 1000 lt @end jumpi 9 sload pop end: stop")
    chain = chain_of(new_chain, code)
    made = create_access_list(chain.spec, chain.head, chain.state, sender=SENDER, to=OUTER)
    assert made.access_list == ((OUTER, (1, 9)),)


def test_a_list_that_is_given_is_kept(new_chain: Any) -> None:
    chain = chain_of(new_chain, assemble("stop"))
    given = ((READER, (3,)),)
    made = create_access_list(chain.spec, chain.head, chain.state, sender=SENDER, to=OUTER, access_list=given)
    assert made.access_list == given


def test_a_creation(new_chain: Any) -> None:
    chain = chain_of(new_chain, OUTER_CODE)
    initcode = assemble(f"7 4 sstore 0x{INNER.hex()} extcodesize pop push0 push0 return")
    made = create_access_list(chain.spec, chain.head, chain.state, sender=SENDER, data=initcode)
    places = dict(made.access_list)
    assert places.pop(INNER) == ()
    assert list(places.values()) == [(4,)]  # the slots of the contract being created
