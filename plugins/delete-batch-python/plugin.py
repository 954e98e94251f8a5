"""The sample plugin `delete-batch` as a component: translates between the contract and the logic in `batches`."""

from componentize_py_types import Err
from wit_world.exports import Handler as HandlerProtocol
from wit_world.exports.handler import (
    Continuation,
    Failure_Permanent,
    Failure_Transient,
    Message,
    Outcome,
    Outcome_Again,
    Outcome_Done,
    Progress,
    Retry,
)
from wit_world.imports import store

from batches import Batches, Malformed, Settings


class Handler(HandlerProtocol):
    def handle(self, message: Message, progress: Progress) -> Outcome:
        try:
            settings = Settings.read(read_config)
        except Malformed as e:
            # It may be mended while messages wait, so it is a reason to try again.
            raise Err(Failure_Transient(Retry(reason=str(e), after_ms=None))) from e
        try:
            batches = Batches.begin(message.value) if progress.state is None else Batches.resume(progress.state)
        except Malformed as e:
            raise Err(Failure_Permanent(str(e))) from e

        numbers = batches.delete_next(settings.batch, progress.step_key)
        print(batches.log_line(numbers))

        if batches.remaining == 0:
            return Outcome_Done([])
        return Outcome_Again(Continuation(state=batches.state(), delay_ms=settings.delay_ms, events=[]))


def read_config(key: str) -> str | None:
    try:
        return store.get(key)
    except Err as e:
        raise Malformed(f"config key `{key}` can't be read: {e.value}") from e
