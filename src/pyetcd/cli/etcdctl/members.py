"""`member list`, `add`, `remove`, `update`, `promote`, and `move-leader`."""

from __future__ import annotations

from pyetcd.cli import gotext
from pyetcd.cli.etcdctl import output
from pyetcd.cli.etcdctl.client import CallError, Client, Deadline
from pyetcd.cli.etcdctl.kv import serializable
from pyetcd.cli.etcdctl.output import emit
from pyetcd.cli.etcdctl.session import Session
from pyetcd.cli.etcdctl.settings import Settings
from pyetcd.cli.exits import BAD_ARGS, ERROR, Exit
from pyetcd.proto.lite import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.cli.command import Invocation

MAINTENANCE = "/etcdserverpb.Maintenance"


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


def move_leader(call: Invocation) -> None:
    """Only the leader moves the leadership, so the endpoints are asked in turn until one is it."""
    if len(call.args) != 1:
        raise Exit(BAD_ARGS, "move-leader command needs 1 argument")
    try:
        target = gotext.parse_uint(call.args[0], 16)
    except gotext.GoValueError as error:
        raise Exit(BAD_ARGS, str(error)) from None
    settings = Settings(call)
    printer = output.printer(settings)
    Client(settings).close()  # whoever may not log in is told so before anything is asked
    deadline = Deadline(settings.command_timeout)
    try:
        leader, client = _leader(settings, deadline)
        request = Message("etcdserverpb.MoveLeaderRequest", targetID=target)
        answer_type = "etcdserverpb.MoveLeaderResponse"
        # To ask again is safe: who has moved the leadership is the leader no more, and says so.
        answer = client.call(f"{MAINTENANCE}/MoveLeader", request, answer_type, deadline, reads=True)
    except CallError as error:
        raise Exit(ERROR, str(error)) from None
    printer.move_leader(leader, target, answer)


def _leader(settings: Settings, deadline: Deadline) -> tuple[int, Client]:
    """The leader's ID and a client of its endpoint. CallError when one asked before it does not answer."""
    for endpoint in settings.endpoints:
        client = Client(settings, [endpoint])
        request = Message("etcdserverpb.StatusRequest")
        status = client.call(
            f"{MAINTENANCE}/Status", request, "etcdserverpb.StatusResponse", deadline, reads=True
        )
        leader = status.number("leader")
        if leader == status.child("header").number("member_id"):
            return leader, client
        client.close()
    raise Exit(BAD_ARGS, f"no leader endpoint given at [{' '.join(settings.endpoints)}]")


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
    if all(_is_plain(url) for url in urls):
        return  # to load what knows all the rules takes as long as the whole command
    from pyetcd.cluster.urls import UrlError, parse_urls

    try:
        parse_urls(urls)
    except UrlError as error:
        raise Exit(ERROR, str(error)) from None


def _is_plain(url: str) -> bool:
    """Whether nothing can be wrong with it: `http(s)://name:port` of ASCII letters, digits, dots, dashes."""
    scheme, _, host_port = url.partition("://")
    host, _, port = host_port.rpartition(":")
    word = host.replace(".", "").replace("-", "")
    return scheme in ("http", "https") and url.isascii() and word.isalnum() and port.isdigit()
