import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtsd.channel import Channel
from fedtsd.errors import PrivacyError, ProtocolError
from fedtsd.messages import (
    ClientReply,
    ClientRequest,
    Describe,
    Evaluate,
    Halve,
    Incident,
    Probe,
    Reply,
    Request,
    Train,
)
from fedtsd.refusal import LARGEST, MOST_EXAMPLES
from fedtsd.sums import Sums
from fedtsd.traffic import SENT_OUTPUTS, SENT_PUBLIC, ClientTraffic, ItemTraffic, Traffic
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


def answers(*rows: ClientReply, public=None, round: int = 3) -> Reply:
    """What the door makes of the answers to a request of client 7."""
    return Channel(Scripted(Reply(round, rows)), SHAPES, num_classes=5).exchange(request(public))


def refusal(*rows: ClientReply, **asked) -> str:
    """Why the answers are refused; the round goes on with none."""
    reply = answers(*rows, **asked)
    assert not reply.rows
    (incident,) = (i for i in reply.incidents if i.outcome == "refused")
    return incident.reason


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (good(tensors={}), "not the tensors that were asked for: body"),
        (
            good(tensors={"body": BODY, "extra": HEAD}),
            "not the tensors that were asked for: 'extra'",
        ),
        (good(tensors={"body": BODY[:1]}), "body is torch.float32 (1, 3), must be"),
        (good(tensors={"body": BODY[:, :1]}), "body is torch.float32 (2, 1)"),  # would broadcast
        (good(tensors={"body": torch.tensor(1.0)}), "body is torch.float32 ()"),  # so would this
        (good(tensors={"body": BODY[None]}), "body is torch.float32 (1, 2, 3)"),
        (good(tensors={"body": BODY.double()}), "body is torch.float64"),
        (good(tensors={"body": BODY.int()}), "body is torch.int32"),
        (good(tensors={"body": BODY * NAN}), "body has NaN or infinite values"),
        (good(tensors={"body": BODY * INF}), "body has NaN or infinite values"),
        (good(tensors={"body": BODY * 2 * LARGEST}), "body has values beyond 1e+06"),
        (good(tensors={"body": -BODY * 2 * LARGEST}), "body has values beyond 1e+06"),
        (good(num_examples=0), "num_examples is 0"),
        (good(num_examples=-3), "num_examples is -3"),
        (good(num_examples=MOST_EXAMPLES + 1), "num_examples is 536870912"),
        (good(num_examples=NAN), "num_examples is nan"),
        (good(num_examples=1.5), "num_examples is 1.5"),
        (good(outputs=torch.full((3, 5), 0.2)), "outputs on public samples were not as asked"),
        (good(losses=(1.0,)), "0 finite losses were asked for"),
        (good(subspace=torch.eye(2)), "directions of the data were not as asked"),
        (good(noise=0.1), "a divergence of two models was not as asked for"),
        (good(flaw="it lies"), "it lies"),
    ],
)
def test_a_wrong_answer_is_refused_with_a_reason(row: ClientReply, message: str) -> None:
    assert message in refusal(row)


def test_values_and_weights_at_the_bounds_are_taken() -> None:
    for row in (good(tensors={"body": BODY * LARGEST}), good(num_examples=MOST_EXAMPLES)):
        assert answers(row).rows == (row,)


@pytest.mark.parametrize(
    "outputs",
    [
        None,
        torch.full((2, 5), 0.2),
        torch.full((3, 5), 0.2, dtype=torch.float64),
        torch.full((3, 5), NAN),
        torch.full((3, 5), 0.3),
        torch.tensor([[1.5, -0.5, 0, 0, 0]] * 3),
    ],
)
def test_outputs_that_are_no_probabilities_are_refused(outputs) -> None:
    assert "outputs" in refusal(good(outputs=outputs), public=PUBLIC)


def test_an_answer_of_another_round_is_refused() -> None:
    assert refusal(good(), round=2) == "a reply of round 2 came in round 3"


def test_who_was_not_asked_is_refused_and_who_was_is_missed() -> None:
    reply = answers(good(client=8))
    assert reply.rows == ()
    assert reply.incidents == (
        Incident(8, "refused", "was not asked"),
        Incident(7, "lost", "no reply came"),
    )


def test_an_answer_that_comes_twice_is_taken_once_and_paid_twice() -> None:
    copy = good(tensors={"body": BODY * 2})
    channel = Channel(Scripted(Reply(3, (good(), copy))), SHAPES, num_classes=5)
    reply = channel.exchange(request())
    assert [row.client for row in reply.rows] == [7]
    assert [i.outcome for i in reply.incidents] == ["duplicated"]
    assert channel.drain().bytes_up == 2 * 24


def test_two_different_answers_in_one_name_are_both_refused() -> None:
    third = good(tensors={"body": BODY * 2})
    for rows in ((good(), good(num_examples=11)), (good(), good(tensors={"body": BODY}), third)):
        reply = answers(*rows)
        assert reply.rows == ()
        assert {i.outcome for i in reply.incidents} == {"refused"}
        assert "two different replies" in reply.incidents[0].reason


def test_the_round_goes_on_with_those_who_answer_well() -> None:
    asked = request()
    second = dataclasses.replace(asked.rows[0], client=9)
    asked = dataclasses.replace(asked, rows=(*asked.rows, second))
    rows = (good(tensors={"body": BODY * NAN}), good(client=9))
    reply = Channel(Scripted(Reply(3, rows)), SHAPES, num_classes=5).exchange(asked)
    assert [row.client for row in reply.rows] == [9]
    assert [(i.client, i.outcome) for i in reply.incidents] == [(7, "refused")]


def test_a_model_that_is_refused_must_not_be_in_the_sum() -> None:
    rows = (good(tensors={}, flaw="it lies"),)
    empty = Channel(Scripted(Reply(3, rows, (Sums({}, {}),))), SHAPES, num_classes=5)
    assert empty.exchange(request(sums="samples")).rows == ()
    full = Channel(Scripted(Reply(3, rows, (of_body(),))), SHAPES, num_classes=5)
    with pytest.raises(PrivacyError, match="tensors that nobody shares"):
        full.exchange(request(sums="samples"))


def test_answers_to_questions_are_checked() -> None:
    def ask(task, row: ClientReply) -> str:
        asked = Request(3, task, ({"body": BODY, "head": HEAD},), request().rows)
        reply = Channel(Scripted(Reply(3, (row,))), SHAPES, num_classes=5).exchange(asked)
        return "" if reply.rows else reply.incidents[0].reason

    bare = good(tensors={})
    assert ask(Probe(look=False), dataclasses.replace(bare, losses=(0.5,))) == ""
    for losses in ((), (0.5, 0.5), (NAN,), (INF,)):
        told = dataclasses.replace(bare, losses=losses)
        assert "1 finite losses were asked for" in ask(Probe(look=False), told)
    assert ask(Describe(2), dataclasses.replace(bare, subspace=torch.eye(4)[:, :2])) == ""
    for wrong in (torch.ones(4, 2), torch.eye(4), torch.eye(4)[0], torch.eye(4)[:, :2] * NAN):
        assert "directions" in ask(Describe(2), dataclasses.replace(bare, subspace=wrong))
    halve = Halve((PHASE,), PUBLIC)
    for noise in (0.0, 0.3, 1.0):
        assert ask(halve, dataclasses.replace(bare, noise=noise)) == ""
    for noise in (None, NAN, -0.1, 1.1):
        assert "divergence" in ask(halve, dataclasses.replace(bare, noise=noise))


def test_a_look_that_goes_wrong_is_a_defect_of_ours() -> None:
    asked = Request(3, Probe(look=True), request().models, request().rows)
    channel = Channel(Scripted(Reply(3, (good(tensors={}, losses=(NAN,)),))), SHAPES, 5)
    with pytest.raises(ProtocolError, match="round 3, client 7: 1 finite losses"):
        channel.exchange(asked)


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
        ((Sums({"body": BODY.double() * float("nan")}, {"body": 10.0}),), "body is not finite"),
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
    assert "outputs on public samples were not as asked" in told.exchange(quiet).incidents[0].reason


BAD_NUMBERS = st.one_of(
    st.sampled_from([NAN, INF, -INF]),
    st.floats(1.001 * LARGEST, 1e38),
    st.floats(-1e38, -1.001 * LARGEST),
)
BAD_WEIGHTS = st.one_of(st.integers(max_value=0), st.integers(MOST_EXAMPLES + 1), st.floats())
BAD_SHAPES = st.lists(st.integers(0, 4), max_size=4).filter(lambda shape: shape != [2, 3])
BAD_TYPES = st.sampled_from([torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool])


@st.composite
def spoilt(draw) -> ClientReply:
    """A good answer with one thing wrong in it."""
    body, outputs = BODY * 2, torch.full((3, 5), 0.2)
    kind = draw(st.integers(0, 6))
    if kind == 0:
        body = body.clone()
        body.view(-1)[draw(st.integers(0, 5))] = draw(BAD_NUMBERS)
    elif kind == 1:
        body = torch.ones(draw(BAD_SHAPES))
    elif kind == 2:
        body = body.to(draw(BAD_TYPES))
    elif kind == 3:
        return good(num_examples=draw(BAD_WEIGHTS), outputs=outputs)
    elif kind == 4:
        outputs = outputs.clone()
        outputs.view(-1)[draw(st.integers(0, 14))] += draw(st.floats(0.01, 1e30))
    elif kind == 5:
        name = draw(st.text(min_size=1).filter(lambda name: name not in SHAPES))
        return good(tensors={"body": body, name: HEAD}, outputs=outputs)
    else:
        outputs = draw(st.sampled_from([None, outputs[:2], outputs.double(), outputs[:, :4]]))
    return good(tensors={"body": body}, outputs=outputs)


@settings(max_examples=400, deadline=None)
@given(spoilt())
def test_one_thing_wrong_is_enough(row: ClientReply) -> None:
    """Four hundred bad answers: each is refused in one line, none raises, the next one is taken."""
    reason = refusal(row, public=PUBLIC)
    assert reason
    assert "\n" not in reason
    assert answers(good(outputs=torch.full((3, 5), 0.2)), public=PUBLIC).rows
