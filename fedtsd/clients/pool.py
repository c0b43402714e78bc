"""Forked processes that do jobs, and an error that says so if one of them dies.

Jobs are small messages; whatever is large lies in memory that both sides share.
"""

import multiprocessing
import pickle
import signal
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from fedtsd.errors import EngineError, FedtsdError


class Hand(Protocol):
    """Whoever does the jobs, in a process of its own or in this one."""

    def hear(self, message: Any) -> None:
        """Take note of something that the next jobs are about."""
        ...

    def do(self, job: Any) -> Any:
        """Do a job and return the answer."""
        ...


class Pool(Protocol):
    """Hands that jobs are given to, by number."""

    def tell(self, message: Any) -> None:
        """Let everybody hear a message."""
        ...

    def free(self) -> list[int]:
        """Return who has nothing to do."""
        ...

    def send(self, hand: int, job: Any) -> None:
        """Give somebody a job."""
        ...

    def receive(self) -> list[Any]:
        """Wait until something is done; return the answers that are there.

        Raises what a job raised, or EngineError if a process has died.
        """
        ...

    def close(self) -> None:
        """End all processes."""
        ...


class InlinePool:
    """One hand in this process, which does each job at once."""

    def __init__(self, hand: Hand) -> None:
        self._hand = hand
        self._answers: list[Any] = []

    def tell(self, message: Any) -> None:
        self._hand.hear(message)

    def free(self) -> list[int]:
        return [] if self._answers else [0]

    def send(self, hand: int, job: Any) -> None:
        self._answers.append(self._hand.do(job))

    def receive(self) -> list[Any]:
        answers, self._answers = self._answers, []
        return answers

    def close(self) -> None:
        """Nothing was started."""


class ForkedPool:
    """`count` processes forked from this one.

    make: makes the hand of a process, there, from its number. at_work: words for what the process
    of that number was at, for errors.
    """

    def __init__(
        self, count: int, make: Callable[[int], Hand], at_work: Callable[[int], str]
    ) -> None:
        self._at_work = at_work
        self._busy = [False] * count
        context = multiprocessing.get_context("fork")
        pipes = [context.Pipe() for _ in range(count)]
        self._ends = [ours for ours, _ in pipes]
        self._processes = [
            context.Process(target=_main, args=(n, pipes, make), name=f"fedtsd-{n}", daemon=True)
            for n in range(count)
        ]
        with warnings.catch_warnings():
            # Python warns that threads may hold locks at the fork. What runs in the child takes
            # none of theirs.
            warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
            for process in self._processes:
                process.start()
        for _, theirs in pipes:
            theirs.close()

    def tell(self, message: Any) -> None:
        for hand in range(len(self._ends)):
            self._post(hand, (False, message))

    def free(self) -> list[int]:
        return [hand for hand, busy in enumerate(self._busy) if not busy]

    def send(self, hand: int, job: Any) -> None:
        self._post(hand, (True, job))
        self._busy[hand] = True

    def receive(self) -> list[Any]:
        ready = wait(self._ends)
        return [self._read(hand) for hand, end in enumerate(self._ends) if end in ready]

    def close(self) -> None:
        for end in self._ends:
            end.close()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()

    def _post(self, hand: int, message: tuple[bool, Any]) -> None:
        try:
            self._ends[hand].send_bytes(pickle.dumps(message))
        except OSError:
            raise self._death_of(hand) from None

    def _read(self, hand: int) -> Any:
        try:
            answer, error = _receive(self._ends[hand])
        except (EOFError, OSError):
            raise self._death_of(hand) from None
        self._busy[hand] = False
        if error is not None:
            raise error
        return answer

    def _death_of(self, hand: int) -> EngineError:
        process = self._processes[hand]
        process.join()
        code = process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended ({code})"
        hint = "; was there enough memory?" if code == -signal.SIGKILL else ""
        return EngineError(f"{self._at_work(hand)}: the process at work on it {how}{hint}")


def _main(
    number: int, pipes: list[tuple[Connection, Connection]], make: Callable[[int], Hand]
) -> None:
    # Ctrl-C reaches all processes of a terminal, and the one we were forked from ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # A pipe tells that its other end has gone only if nobody else holds a copy of that.
    for i, (ours, theirs) in enumerate(pipes):
        ours.close()
        if i != number:
            theirs.close()
    _serve(pipes[number][1], make(number))


def _serve(end: Connection, hand: Hand) -> None:
    """Do jobs until the other process closes its end, as it does when it ends, however it ends."""
    try:
        while True:
            is_job, message = _receive(end)
            if is_job:
                end.send_bytes(pickle.dumps(_answer(hand, message)))
            else:
                hand.hear(message)
    except (EOFError, OSError):
        return


def _receive(end: Connection) -> Any:
    # Not `recv`, for which PyTorch has pickling put every tensor into a shared file of its own.
    return pickle.loads(end.recv_bytes())  # noqa: S301  what our own process has sent


def _answer(hand: Hand, job: Any) -> tuple[Any, Exception | None]:
    try:
        return hand.do(job), None
    except FedtsdError as error:
        return None, error
    except Exception as error:
        trace = "".join(traceback.format_exception(error))
        return None, EngineError(f"{type(error).__name__}: {error}\n{trace}")
