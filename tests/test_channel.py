import dataclasses

import pytest
import torch

from fedtsd.channel import (
    SENT_OUTPUTS,
    SENT_PUBLIC,
    Channel,
    ClientTraffic,
    ItemTraffic,
    Traffic,
)
from fedtsd.errors import PrivacyError, ProtocolError
from fedtsd.messages import (
    ClientReply,
    ClientRequest,
    Evaluate,
    Reply,
    Request,
    Train,
)
from fedtsd.sums import Sums
from fedtsd.training import Phase

BODY, HEAD = torch.ones(2, 3), torch.ones(4)
SHAPES = {"body": BODY.shape, "head": HEAD.shape}
PUBLIC = torch.tensor([0, 5, 6], dtype=torch.int32)
PHASE = Phase("all", 1, 0.0)


class Scripted:
    """An engine that answers what it was told to."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply

    def handle(self, request: Request) -> Reply:
        return self.reply


def request(public=None, sums: str | None = None) -> Request:
    row = ClientRequest(7, 0, frozenset({"head"}))
    return Request(3, Train((PHASE,), public, sums), ({"body": BODY, "head": HEAD},), (row,))


def good(**changes) -> ClientReply:
    return dataclasses.replace(ClientReply(7, {"body": BODY * 2}, 10, 20), **changes)


def exchange(row: ClientReply, public=None, round: int = 3) -> Traffic:
    channel = Channel(Scripted(Reply(round, (row,))), SHAPES, num_classes=5)
    channel.exchange(request(public))
    return channel.drain()


def test_bytes_are_those_of_the_tensors() -> None:
    # down: body 6 floats; up: the same. 4 bytes each.
    assert exchange(good(seconds=1.5)) == Traffic(
        clients=(ClientTraffic(7, 24, 24, 20, 1.5),),
        items=(ItemTraffic("up", "body", 1, 24), ItemTraffic("down", "body", 1, 24)),
    )


def test_outputs_and_public_indices_are_counted() -> None:
    traffic = exchange(good(outputs=torch.full((3, 5), 0.2)), PUBLIC)
    assert traffic.bytes_up == 24 + 4 * 3 * 5
    assert traffic.bytes_down == 24 + 4 * 3
    assert ItemTraffic("up", SENT_OUTPUTS, 1, 60) in traffic.items
    assert ItemTraffic("down", SENT_PUBLIC, 1, 12) in traffic.items


def test_drain_starts_again_from_nothing() -> None:
    channel = Channel(Scripted(Reply(3, (good(),))), SHAPES, 5)
    channel.exchange(request())
    channel.exchange(request())
    assert channel.drain().samples == 40
    assert channel.drain() == Traffic()


def test_evaluation_is_not_traffic() -> None:
    row = request().rows[0]
    channel = Channel(Scripted(Reply(3, (good(tensors={}),))), SHAPES, 5)
    ask = Evaluate(("personalized",), PHASE)
    channel.exchange(Request(3, ask, request().models, (row,)))
    assert channel.drain() == Traffic()


def test_personal_layers_are_refused() -> None:
    with pytest.raises(PrivacyError, match=r"round 3, client 7: personal tensors.*head"):
        exchange(good(tensors={"body": BODY, "head": HEAD}))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (good(tensors={}), "not the tensors that were asked for: body"),
        (good(tensors={"body": BODY, "extra": HEAD}), "not the tensors.*extra"),
        (good(tensors={"body": BODY[:1]}), "body is torch.float32 \\(1, 3\\)"),
        (good(tensors={"body": BODY.double()}), "torch.float64"),
        (good(tensors={"body": BODY * float("nan")}), "NaN or infinite"),
        (good(tensors={"body": BODY * float("inf")}), "NaN or infinite"),
        (good(num_examples=0), "num_examples is 0"),
        (good(client=8), "\\(7,\\) were asked, \\(8,\\) answered"),
        (good(outputs=torch.ones(3, 5)), "outputs on public samples were not as asked"),
    ],
)
def test_a_wrong_reply_is_refused(row: ClientReply, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        exchange(row)


@pytest.mark.parametrize("outputs", [None, torch.ones(2, 5), torch.full((3, 5), float("nan"))])
def test_wrong_outputs_are_refused(outputs) -> None:
    with pytest.raises(ProtocolError, match="outputs"):
        exchange(good(outputs=outputs), PUBLIC)


def test_a_stale_round_is_refused() -> None:
    with pytest.raises(ProtocolError, match="round 2 came in round 3"):
        exchange(good(), round=2)


def summed(sums: tuple[Sums, ...] | None, weighting: str = "samples") -> Traffic:
    reply = Reply(3, (good(tensors={}),), sums)
    channel = Channel(Scripted(reply), SHAPES, num_classes=5)
    channel.exchange(request(sums=weighting))
    return channel.drain()


def of_body(weight: float = 10.0) -> Sums:
    return Sums({"body": BODY.double() * 20}, {"body": weight})


def test_what_clients_sent_into_a_sum_is_counted_as_theirs() -> None:
    assert summed((of_body(),)).clients == (ClientTraffic(7, 24, 24, 20, 0.0),)


def test_a_sum_is_weighted_as_asked() -> None:
    assert summed((of_body(1.0),), "uniform").bytes_up == 24
    with pytest.raises(ProtocolError, match="sum 0: is not of the clients that were asked"):
        summed((of_body(1.0),), "samples")


def test_a_sum_with_personal_layers_is_refused() -> None:
    leaked = Sums({"body": BODY.double(), "head": HEAD.double()}, {"body": 10.0, "head": 10.0})
    with pytest.raises(PrivacyError, match="sum 0: tensors that nobody shares: head"):
        summed((leaked,))


@pytest.mark.parametrize(
    ("sums", "message"),
    [
        (None, "sums of models were not as asked for"),
        ((), "1 sums were asked for, got 0"),
        ((Sums({}, {}),), "not of the clients"),
        ((Sums({"body": BODY}, {"body": 10.0}),), "torch.float32"),
        ((Sums({"body": BODY.double()[:1]}, {"body": 10.0}),), r"\(1, 3\)"),
        ((Sums({"body": BODY.double() * float("nan")}, {"body": 10.0}),), "NaN"),
    ],
)
def test_a_wrong_sum_is_refused(sums, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        summed(sums)


def test_sums_nobody_asked_for_are_refused() -> None:
    channel = Channel(Scripted(Reply(3, (good(),), (of_body(),))), SHAPES, num_classes=5)
    with pytest.raises(ProtocolError, match="sums of models were not as asked for"):
        channel.exchange(request())


def test_outputs_of_who_should_not_tell_are_refused() -> None:
    asked = request(PUBLIC)
    quiet = dataclasses.replace(asked, rows=(dataclasses.replace(asked.rows[0], tells=False),))
    channel = Channel(Scripted(Reply(3, (good(),))), SHAPES, num_classes=5)
    channel.exchange(quiet)
    assert channel.drain().bytes_down == 24  # it is not sent the numbers either
    told = Channel(Scripted(Reply(3, (good(outputs=torch.full((3, 5), 0.2)),))), SHAPES, 5)
    with pytest.raises(ProtocolError, match="outputs on public samples were not as asked"):
        told.exchange(quiet)
