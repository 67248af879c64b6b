"""What is asked of each member: `endpoint health`, `status`, `hashkv`, `defrag`; and of the cluster: `alarm
list`, `disarm`, `downgrade`."""

from __future__ import annotations

import sys
import time

from pyetcd.cli import gotext
from pyetcd.cli.etcdctl import output
from pyetcd.cli.etcdctl.client import CallError, Client, Deadline
from pyetcd.cli.etcdctl.output import Health, emit, flush
from pyetcd.cli.etcdctl.session import Session
from pyetcd.cli.etcdctl.settings import Settings
from pyetcd.cli.exits import BAD_ARGS, ERROR, Exit
from pyetcd.proto import lite
from pyetcd.proto.lite import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.cli.command import Invocation

ALARM = "/etcdserverpb.Maintenance/Alarm"
GET, DEACTIVATE = 0, 2
DOWNGRADE = "/etcdserverpb.Maintenance/Downgrade"
DOWNGRADE_ACTIONS = {"validate": 0, "enable": 1, "cancel": 2}
PERMISSION_DENIED = "etcdserver: permission denied"


def settings_of(call: Invocation) -> Settings:
    """With `--cluster` a client that cannot be made has an exit code of its own, as in etcdctl."""
    return Settings(call, bad_tls=ERROR if call.on("cluster") else BAD_ARGS)


def asked_endpoints(call: Invocation, settings: Settings) -> list[str]:
    """Those all other commands use, or with `--cluster` those all members advertise.

    Here etcdctl forgets to strip spaces off an endpoint, and a domain given by `--discovery-srv`, and so asks
    nobody; this does what was meant.
    """
    if not call.on("cluster"):
        return settings.endpoints
    try:
        client = Client(settings)
    except Exit as unusable:
        raise Exit(ERROR, unusable.message) from None
    try:
        answer = client.call(
            "/etcdserverpb.Cluster/MemberList",
            Message("etcdserverpb.MemberListRequest", linearizable=True),
            "etcdserverpb.MemberListResponse",
            Deadline(settings.command_timeout),
            reads=True,
        )
    except CallError as error:
        message = f"failed to fetch endpoints from etcd cluster member list: {error}"
        raise Exit(ERROR, message) from None
    finally:
        client.close()
    return [url for member in answer.children("members") for url in member.texts("clientURLs")]


def _ask(settings: Settings, endpoint: str, method: str, request: Message) -> Message:
    """Ask one member. CallError when that fails."""
    client = Client(settings, [endpoint])
    deadline = Deadline(settings.command_timeout)
    answer_type = f"etcdserverpb.{method}Response"
    try:
        return client.call(
            f"/etcdserverpb.Maintenance/{method}",
            request,
            answer_type,
            deadline,
            reads=method != "Defragment",
        )
    finally:
        client.close()


def endpoint_status(call: Invocation) -> None:
    settings = settings_of(call)
    printer = output.printer(settings)
    statuses: list[tuple[str, Message]] = []
    endpoints = asked_endpoints(call, settings)
    for endpoint in endpoints:
        try:
            answer = _ask(settings, endpoint, "Status", Message("etcdserverpb.StatusRequest"))
        except CallError as error:
            _complain(f"Failed to get the status of endpoint {endpoint} ({error})")
        else:
            statuses.append((endpoint, answer))
    printer.endpoint_status(statuses)
    if len(statuses) < len(endpoints):
        raise Exit(ERROR)


def endpoint_hash_kv(call: Invocation) -> None:
    settings = settings_of(call)
    printer = output.printer(settings)
    hashes: list[tuple[str, Message]] = []
    last = ""
    for endpoint in asked_endpoints(call, settings):
        request = Message("etcdserverpb.HashKVRequest", revision=call.number("rev"))
        try:
            hashes.append((endpoint, _ask(settings, endpoint, "HashKV", request)))
        except CallError as error:
            last = str(error)
            _complain(f"Failed to get the hash of endpoint {endpoint} ({error})")
    printer.endpoint_hash_kv(hashes)
    if last:
        raise Exit(ERROR, last)


def endpoint_health(call: Invocation) -> None:
    settings = settings_of(call)
    printer = output.printer(settings)
    endpoints = asked_endpoints(call, settings)
    if len(endpoints) == 1:
        healths = [_health(settings, endpoints[0])]
    else:
        from concurrent.futures import ThreadPoolExecutor, as_completed

        # All at once, so that dead members do not add up their timeouts; told in the order of the answers.
        with ThreadPoolExecutor(max_workers=max(1, len(endpoints))) as pool:
            asked = [pool.submit(_health, settings, endpoint) for endpoint in endpoints]
            healths = [health.result() for health in as_completed(asked)]
    printer.endpoint_health(healths)
    if any(health.error for health in healths):
        raise Exit(ERROR, "unhealthy cluster")


def _health(settings: Settings, endpoint: str) -> Health:
    """A linearizable read tells that the member has a quorum behind it; alarms still make it unhealthy."""
    try:
        client = Client(settings, [endpoint], "client")
    except Exit as unusable:
        return Health(endpoint, False, "", unusable.message or "")
    started = time.monotonic_ns()
    deadline = Deadline(settings.command_timeout)
    error = ""
    try:
        request = Message("etcdserverpb.RangeRequest", key=b"health")
        client.call("/etcdserverpb.KV/Range", request, "etcdserverpb.RangeResponse", deadline, reads=True)
    except CallError as failure:
        error = "" if failure.message == PERMISSION_DENIED else str(failure)
    took = gotext.duration(time.monotonic_ns() - started)
    if not error:
        error = _alarms_of(client, deadline)
    client.close()
    return Health(endpoint, not error, took, error)


def _alarms_of(client: Client, deadline: Deadline) -> str:
    """The alarms as a complaint; empty without any."""
    try:
        answer = client.call(
            ALARM, Message("etcdserverpb.AlarmRequest"), "etcdserverpb.AlarmResponse", deadline, reads=True
        )
    except CallError:
        return "Unable to fetch the alarm list"
    names = [lite.enum_name("etcdserverpb.AlarmType", a.number("alarm")) for a in answer.children("alarms")]
    known = [name if name in ("NOSPACE", "CORRUPT") else "UNKNOWN" for name in names]
    return "Active Alarm(s): " + "".join(f"{name} " for name in known) if known else ""


def defragment(call: Invocation) -> None:
    settings = settings_of(call)
    failed = False
    for endpoint in asked_endpoints(call, settings):
        started = time.monotonic_ns()
        error = ""
        try:
            _ask(settings, endpoint, "Defragment", Message("etcdserverpb.DefragmentRequest"))
        except CallError as failure:
            error = str(failure)
        took = gotext.duration(time.monotonic_ns() - started)
        if error:
            failed = True
            _complain(f"Failed to defragment etcd member[{endpoint}]. took {took}. ({error})")
        else:
            emit(f"Finished defragmenting etcd member[{endpoint}]. took {took}\n")
            flush()
    if failed:
        raise Exit(ERROR)


def alarm_list(call: Invocation) -> None:
    if call.args:
        raise Exit(BAD_ARGS, "alarm list command accepts no arguments")
    session = Session(call)
    session.printer.alarms(_alarm(session, GET, reads=True))


def alarm_disarm(call: Invocation) -> None:
    """Take back every alarm that is raised, one by one."""
    if call.args:
        raise Exit(BAD_ARGS, "alarm disarm command accepts no arguments")
    session = Session(call)
    disarmed = Message("etcdserverpb.AlarmResponse")
    for alarm in _alarm(session, GET, reads=True).children("alarms"):
        answer = _alarm(session, DEACTIVATE, alarm.number("memberID"), alarm.number("alarm"))
        disarmed.values["alarms"] = [*disarmed.children("alarms"), *answer.children("alarms")]
    session.printer.alarms(disarmed)


def _alarm(session: Session, action: int, member: int = 0, alarm: int = 0, *, reads: bool = False) -> Message:
    request = Message("etcdserverpb.AlarmRequest", action=action, memberID=member, alarm=alarm)
    return session.call(ALARM, request, "etcdserverpb.AlarmResponse", reads=reads)


def downgrade_validate(call: Invocation) -> None:
    _downgrade(call, "validate", _target(call))


def downgrade_enable(call: Invocation) -> None:
    _downgrade(call, "enable", _target(call))


def downgrade_cancel(call: Invocation) -> None:
    _downgrade(call, "cancel", "")


def _target(call: Invocation) -> str:
    if len(call.args) > 1:
        raise Exit(BAD_ARGS, "too many arguments")
    if not call.args:
        raise Exit(BAD_ARGS, "TARGET_VERSION not provided")
    if not call.args[0]:
        raise Exit(BAD_ARGS, "target version not provided")
    return call.args[0]


def _downgrade(call: Invocation, what: str, version: str) -> None:
    session = Session(call)
    request = Message("etcdserverpb.DowngradeRequest", action=DOWNGRADE_ACTIONS[what], version=version)
    answer = session.call(DOWNGRADE, request, "etcdserverpb.DowngradeResponse", reads=what == "validate")
    session.printer.downgrade(what, answer)


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
