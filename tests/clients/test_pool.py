import os
import signal
import time

import pytest

from fedtsd.clients.pool import ForkedPool, InlinePool
from fedtsd.errors import EngineError, ProtocolError


class Adder:
    """Adds what it heard to every job; some jobs end badly."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.heard = 0

    def hear(self, message: int) -> None:
        self.heard = message

    def do(self, job):
        if job == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if job == "exit":
            os._exit(3)
        if job == "refuse":
            raise ProtocolError("round 3, client 7: no")
        if job == "fail":
            raise KeyError("lost")
        return job + self.heard, os.getpid()


def forked(count: int = 2) -> ForkedPool:
    return ForkedPool(count, Adder, lambda number: f"client 1{number}")


def answers(pool, jobs: list) -> list:
    """Give all jobs to whoever is free and return the answers as they come."""
    waiting, found = list(jobs), []
    while len(found) < len(jobs):
        while waiting and (free := pool.free()):
            pool.send(free[0], waiting.pop(0))
        found += pool.receive()
    return found


def test_jobs_are_done_in_other_processes_with_what_was_heard() -> None:
    pool = forked()
    pool.tell(100)
    found = answers(pool, [1, 2, 3, 4, 5])
    pool.tell(200)
    later = answers(pool, [1])
    pool.close()
    assert sorted(value for value, _ in found) == [101, 102, 103, 104, 105]
    assert os.getpid() not in {process for _, process in found}
    assert later[0][0] == 201


def test_the_pool_of_this_process_does_the_same() -> None:
    pool = InlinePool(Adder())
    pool.tell(100)
    found = answers(pool, [1, 2])
    pool.close()
    assert found == [(101, os.getpid()), (102, os.getpid())]


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ("kill", "client 10: the process at work on it was killed by SIGKILL; was there enough"),
        ("exit", r"client 10: the process at work on it ended \(3\)"),
        ("fail", "KeyError: 'lost'\n.*Traceback"),
    ],
)
def test_a_process_that_dies_or_fails_is_an_error_not_a_hang(job: str, message: str) -> None:
    pool = forked()
    pool.send(0, job)
    with pytest.raises(EngineError, match=f"(?s){message}"):
        pool.receive()
    pool.close()


def test_a_dead_process_is_noticed_when_it_is_given_a_job() -> None:
    pool = forked(1)
    os.kill(pool._processes[0].pid, signal.SIGKILL)
    pool._processes[0].join()
    with pytest.raises(EngineError, match=r"client 10.*SIGKILL"):
        answers(pool, [1, 2, 3])
    pool.close()


def test_an_error_of_ours_keeps_its_kind() -> None:
    pool = forked()
    pool.send(1, "refuse")
    with pytest.raises(ProtocolError, match="round 3, client 7: no"):
        pool.receive()
    pool.close()


def test_processes_end_with_the_one_that_started_them() -> None:
    """A process that is killed cannot close its pool."""
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        pool = forked(2)
        os.write(writing, " ".join(str(p.pid) for p in pool._processes).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(parent, 0)
    children = [int(number) for number in os.read(reading, 100).split()]
    for _ in range(200):
        left = [child for child in children if _runs(child)]
        if not left:
            break
        time.sleep(0.05)
    assert len(children) == 2
    assert not left


def _runs(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().split()[2] != "Z"
    except FileNotFoundError:
        return False
