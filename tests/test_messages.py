import torch

from fedtsd.messages import ClientRequest, Request, Train


def test_what_a_client_is_sent_leaves_out_what_it_keeps() -> None:
    body, head = torch.ones(2, 3), torch.ones(4)
    row = ClientRequest(7, 1, frozenset({"head"}))
    models = ({"body": body * 0, "head": head}, {"body": body, "head": head})
    asked = Request(3, Train((), None, None), models, (row,))
    sent = asked.sent(row)
    assert sent.keys() == {"body"}
    assert torch.equal(sent["body"], body)


def test_outputs_are_asked_of_those_that_tell() -> None:
    public = torch.tensor([3, 5], dtype=torch.int32)
    task = Train((), public, None)
    assert task.public_for(ClientRequest(1, 0, frozenset())) is public
    assert task.public_for(ClientRequest(1, 0, frozenset(), tells=False)) is None
