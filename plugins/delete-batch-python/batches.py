"""The logic: which records a message is about, and which of them a batch deletes. It needs no WebAssembly and is tested natively."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

LARGEST = 2**64 - 1


class Malformed(Exception):
    """What is wrong with a message, a state or a setting, in words for the one who sent it."""


@dataclass(frozen=True)
class Settings:
    """What the route's `config` says."""

    batch: int = 10
    delay_ms: int = 5000

    @staticmethod
    def read(get: Callable[[str], str | None]) -> "Settings":
        return Settings(
            batch=_setting(get, "batch", Settings.batch, least=1),
            delay_ms=_setting(get, "delay-ms", Settings.delay_ms, least=0),
        )


def _setting(get: Callable[[str], str | None], key: str, default: int, least: int) -> int:
    text = get(key)
    if text is None:
        return default
    # Not int() alone: it takes "1_000" and the digits of every script. 20 digits hold every number of 64 bits.
    digits = re.fullmatch(r"\+?0*([0-9]{1,20})", text.strip())
    if digits is None or not least <= int(digits[1]) <= LARGEST:
        raise Malformed(f"config key `{key}` is `{text}`, which is no whole number from {least}")
    return int(digits[1])


@dataclass
class Batches:
    """The records of one message; what a step hands on to the next."""

    id: str
    records: int
    deleted: int = 0

    @staticmethod
    def begin(value: bytes | None) -> "Batches":
        """What a message asks for: a JSON string (the id), an array whose first element is the id, or {"id": .., "records": ..}."""
        if value is None:
            raise Malformed('the message has no value; expected an id, [id] or {"id", "records"}')
        try:
            json_value = _parse(value)
        except (ValueError, RecursionError) as e:
            raise Malformed(f"the value is not JSON ({e}): {_excerpt(value)}") from e
        match json_value:
            case list():
                id, records = (json_value[0] if json_value else None), None
            case dict():
                id, records = json_value.get("id"), json_value.get("records")
            case _:
                id, records = json_value, None
        # In Python True is a number, in JSON it is none.
        if isinstance(id, (int, float)) and not isinstance(id, bool):
            id = str(id)
        if not isinstance(id, str) or id == "":
            raise Malformed(f"the value holds no id (a text or a number): {_excerpt(value)}")
        if records is None:
            records = derived_count(id)
        elif not _is_count(records):
            raise Malformed(f"`records` is {json.dumps(records)}, which is no whole number from 0")
        return Batches(id, records)

    @staticmethod
    def resume(state: bytes) -> "Batches":
        """What the previous step handed on."""
        try:
            fields = _parse(state)
            batches = Batches(fields["id"], fields["records"], fields["deleted"])
            if not (isinstance(batches.id, str) and _is_count(batches.records) and _is_count(batches.deleted)):
                raise ValueError("a field is of another type")
            return batches
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            raise Malformed(f"the state of the previous step can't be read ({e}): {_excerpt(state)}") from e

    def state(self) -> bytes:
        """What the next step needs."""
        fields = {"id": self.id, "records": self.records, "deleted": self.deleted}
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()

    @property
    def remaining(self) -> int:
        """How many records there are left."""
        return max(self.records - self.deleted, 0)

    def delete_next(self, batch: int, step_key: str) -> range:
        """Deletes the next batch; the numbers count from 1, and there are none when nothing was left."""
        numbers = range(self.deleted + 1, self.deleted + min(self.remaining, batch) + 1)
        delete(self.id, numbers, step_key)
        self.deleted = numbers.stop - 1
        return numbers

    def log_line(self, numbers: range) -> str:
        """What is logged about a batch."""
        # Not len(): it fails beyond 2**31 here.
        count = numbers.stop - numbers.start
        return f'deleted {count} of {self.records} records of "{self.id}", {self.remaining} remain'


def delete(id: str, numbers: range, step_key: str) -> None:
    """Where a plugin for real would delete, under `step_key` so that a repetition of the call does no harm."""


def derived_count(id: str) -> int:
    """A number of records from 1 to 60 for a message that names none, the same every time (FNV-1a)."""
    hash = 0xCBF29CE484222325
    for byte in id.encode():
        hash = (hash ^ byte) * 0x100000001B3 % 2**64
    return 1 + hash % 60


def _parse(text: bytes) -> object:
    """JSON as the standard has it: UTF-8 only, no NaN, and no text that UTF-8 can't hold."""

    def refuse(constant: str) -> object:
        raise ValueError(f"{constant} is no JSON")

    value = json.loads(text.decode("utf-8"), parse_constant=refuse)
    json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST


def _excerpt(value: bytes) -> str:
    """The beginning of a text for an error message."""
    longest = 60
    text = value[: 4 * longest].decode("utf-8", errors="replace")
    quoted = json.dumps(text[:longest], ensure_ascii=False)
    return quoted + "..." if len(text) > longest else quoted
