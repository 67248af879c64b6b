"""`member list`, `add`, `remove`, `update` and `promote`."""

from __future__ import annotations

from pyetcd.cli import gotext
from pyetcd.cli.etcdctl.kv import serializable
from pyetcd.cli.etcdctl.output import emit
from pyetcd.cli.etcdctl.session import Session
from pyetcd.cli.exits import BAD_ARGS, ERROR, Exit
from pyetcd.proto.lite import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.cli.command import Invocation


def list_members(call: Invocation) -> None:
    # As in etcdctl, a bad value is answered with the default in its place.
    local = serializable(call.text("consistency"), "l")
    session = Session(call)
    answer = session.call(
        "/etcdserverpb.Cluster/MemberList",
        Message("etcdserverpb.MemberListRequest", linearizable=not local),
        "etcdserverpb.MemberListResponse",
        reads=True,
    )
    session.printer.member_list(answer)


def add(call: Invocation) -> None:
    if not call.args:
        raise Exit(BAD_ARGS, "member name not provided")
    if len(call.args) > 1:
        hints = [f", did you mean --peer-urls={arg}" for arg in call.args if arg.lower().startswith("http")]
        raise Exit(BAD_ARGS, "too many arguments" + "".join(hints))
    urls = _peer_urls(call)
    session = Session(call)
    _check_urls(urls)
    answer = session.call(
        "/etcdserverpb.Cluster/MemberAdd",
        Message("etcdserverpb.MemberAddRequest", peerURLs=urls, isLearner=call.on("learner")),
        "etcdserverpb.MemberAddResponse",
    )
    new = answer.child("member").number("ID")
    session.printer.member_change("add", new, answer)
    if session.settings.format == "simple":
        _print_configuration(call, new, answer)


def _print_configuration(call: Invocation, new: int, answer: Message) -> None:
    """The variables the new member is to be started with."""
    name = call.args[0]
    cluster = [
        f"{name if member.number('ID') == new else member.text('name')}={url}"
        for member in answer.children("members")
        for url in member.texts("peerURLs")
    ]
    emit(f"\nETCD_NAME={gotext.quote(name)}\n")
    emit(f"ETCD_INITIAL_CLUSTER={gotext.quote(','.join(cluster))}\n")
    emit(f"ETCD_INITIAL_ADVERTISE_PEER_URLS={gotext.quote(call.text('peer-urls'))}\n")
    emit('ETCD_INITIAL_CLUSTER_STATE="existing"\n')


def remove(call: Invocation) -> None:
    _change(call, "remove", "MemberRemove", [])


def update(call: Invocation) -> None:
    member = _member_id(call)
    _change(call, "update", "MemberUpdate", _peer_urls(call), member)


def promote(call: Invocation) -> None:
    _change(call, "promote", "MemberPromote", [])


def _change(call: Invocation, what: str, method: str, urls: list[str], member: int | None = None) -> None:
    member = _member_id(call) if member is None else member
    session = Session(call)
    request = Message(f"etcdserverpb.{method}Request", ID=member)
    if urls:
        _check_urls(urls)
        request.values["peerURLs"] = urls
    answer = session.call(f"/etcdserverpb.Cluster/{method}", request, f"etcdserverpb.{method}Response")
    session.printer.member_change(what, member, answer)


def _member_id(call: Invocation) -> int:
    if len(call.args) != 1:
        raise Exit(BAD_ARGS, "member ID is not provided")
    try:
        return gotext.parse_uint(call.args[0], 16)
    except gotext.GoValueError as error:
        raise Exit(BAD_ARGS, f"bad member ID arg ({error}), expecting ID in Hex") from None


def _peer_urls(call: Invocation) -> list[str]:
    urls = call.text("peer-urls")
    if not urls:
        raise Exit(BAD_ARGS, "member peer urls not provided")
    return urls.split(",")


def _check_urls(urls: list[str]) -> None:
    """What clientv3 refuses to send. Exit with the reason."""
    from pyetcd.cluster.urls import UrlError, parse_urls

    try:
        parse_urls(urls)
    except UrlError as error:
        raise Exit(ERROR, str(error)) from None
