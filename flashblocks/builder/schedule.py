"""When the flashblocks of a block are published.

The formula is op-rbuilder's: triggers are anchored to the block's timestamp, so a late forkchoice update costs
flashblocks, never the cadence.  Times here are whole milliseconds counted from the moment the schedule is made.

The defaults make the cadence uniform *across* blocks.  op-node asks for the payload 50 ms before the timestamp T and
sends the next forkchoice update at about T.  With an offset of -110 ms the ten triggers of an on-time 2 s block lie at
90, 290, … 1890 ms: the last one has 60 ms to be judged and committed before getPayload, and the first one of the next
block (T + 90 ms) comes 200 ms after it.  Without the offset the last trigger would lie at T itself and race getPayload.
"""

from dataclasses import dataclass

BLOCK_TIME_MS_DEFAULT = 2000
FLASHBLOCK_TIME_MS_DEFAULT = 200
SEND_OFFSET_MS_DEFAULT = -110
END_BUFFER_MS_DEFAULT = 0


@dataclass(frozen=True, slots=True)
class Timing:
    """The cadence of a chain in ms; the offset moves every trigger (negative: earlier), the buffer is a quiet end."""

    block_time_ms: int = BLOCK_TIME_MS_DEFAULT
    flashblock_time_ms: int = FLASHBLOCK_TIME_MS_DEFAULT
    send_offset_ms: int = SEND_OFFSET_MS_DEFAULT
    end_buffer_ms: int = END_BUFFER_MS_DEFAULT

    def __post_init__(self) -> None:
        if not 0 < self.flashblock_time_ms <= self.block_time_ms:
            raise ValueError(
                f"flashblock time {self.flashblock_time_ms} ms must lie within block time {self.block_time_ms} ms"
            )
        if abs(self.send_offset_ms) >= self.block_time_ms:
            raise ValueError(f"send offset {self.send_offset_ms} ms must be shorter than the block")
        if not 0 <= self.end_buffer_ms < self.block_time_ms:
            raise ValueError(f"end buffer {self.end_buffer_ms} ms must lie within the block")

    @property
    def flashblocks_per_block(self) -> int:
        """Flashblocks of an on-time block, the opening one (index 0) not counted."""
        return self.block_time_ms // self.flashblock_time_ms


def remaining_ms(timing: Timing, timestamp_s: int, now_s: float) -> int:
    """Milliseconds left until the block's timestamp: at most a block time, 0 when it is past (a late update)."""
    return max(0, min(timestamp_s * 1000 - round(now_s * 1000), timing.block_time_ms))


def triggers_ms(timing: Timing, remaining: int) -> tuple[int, ...]:
    """Publish times of indices 1, 2, … in ms from now when ``remaining`` ms are left until the block's timestamp."""
    interval = timing.flashblock_time_ms
    trigger = max(0, max(0, remaining - 1) % interval + 1 + timing.send_offset_ms)
    deadline = max(0, max(0, remaining - timing.end_buffer_ms) + timing.send_offset_ms)
    triggers = []
    while trigger < deadline:
        triggers.append(trigger)
        trigger += interval
    triggers.append(deadline)
    return tuple(triggers[: timing.flashblocks_per_block])


def trigger_times_s(timing: Timing, timestamp_s: int, now_s: float) -> tuple[float, ...]:
    """The same as points in time (Unix seconds)."""
    return tuple(now_s + trigger / 1000 for trigger in triggers_ms(timing, remaining_ms(timing, timestamp_s, now_s)))
