"""The errors are etcd's: same code, same text, none missing; and they are safe to raise again and again."""

from pathlib import Path

import pytest

from pyetcd.proto import errors

KNOWN = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.KnownError) and value is not errors.KnownError
}
# etcd 3.7.1's server sends this one with another code than rpctypes has; see errors.py.
SENT_OTHERWISE = {"TOO_MANY_REQUESTS": "ResourceExhausted"}


def upstream() -> set[tuple[str, str]]:
    lines = (Path(__file__).parent / "rpctypes.tsv").read_text().splitlines()[1:]
    return {(code, text) for code, text in (line.split("\t") for line in lines)}


def test_every_error_of_rpctypes_is_here_with_its_code_and_text() -> None:
    ours = {
        (SENT_OTHERWISE.get(name, errors.CODE_NAMES[error.code]), error.message)
        for name, error in KNOWN.items()
    }
    assert ours == upstream()


def test_a_constant_is_named_like_the_class_it_holds() -> None:
    assert {name: error.__name__ for name, error in KNOWN.items()} == {name: name for name in KNOWN}


def test_raising_a_constant_twice_leaves_no_trace_of_the_first_time() -> None:
    raised = []
    for _ in range(2):
        with pytest.raises(errors.COMPACTED) as caught:
            raise errors.COMPACTED
        raised.append(caught.value)
    first, second = raised
    assert first is not second
    assert second.code == errors.OUT_OF_RANGE
    assert str(second) == second.message == "etcdserver: mvcc: required revision has been compacted"
    traceback = second.__traceback__
    assert traceback is not None
    assert traceback.tb_next is None


def test_an_error_made_up_on_the_spot_carries_its_own_status() -> None:
    error = errors.EtcdError(errors.UNKNOWN, "strange")
    assert (error.code, error.message, str(error)) == (2, "strange", "strange")
