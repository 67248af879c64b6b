"""Every error a client can meet, with the gRPC code and the text etcd 3.7 gives it (`api/v3rpc/rpctypes`).

Rooms raise these where the rule is broken; the dispatcher finishes the call with their code and message.
There is no second table anywhere.

Each constant is a class, not an instance: `raise errors.COMPACTED` makes a fresh exception (0.3 us), whereas
an instance raised twice would drag the frames of its first raise along for ever. So `except errors.COMPACTED`
works, as do `errors.COMPACTED.code` and `errors.COMPACTED.message`; where an instance is needed,
`errors.COMPACTED()`. An error whose text is made up on the spot is a plain `EtcdError(code, message)`.
"""

from __future__ import annotations

OK = 0
CANCELED_CODE = 1
UNKNOWN = 2
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED_CODE = 4
NOT_FOUND = 5
ALREADY_EXISTS = 6
PERMISSION_DENIED_CODE = 7
RESOURCE_EXHAUSTED = 8
FAILED_PRECONDITION = 9
ABORTED = 10
OUT_OF_RANGE = 11
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14
DATA_LOSS = 15
UNAUTHENTICATED = 16

CODE_NAMES = (
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
)  # as Go prints them, by code


class EtcdError(Exception):
    """A call fails with this gRPC status."""

    code: int
    message: str

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class KnownError(EtcdError):
    """Base of the errors below, whose code and message belong to the class."""

    def __init__(self) -> None:
        Exception.__init__(self, self.message)


def _known(name: str, code: int, message: str) -> type[KnownError]:
    return type(name, (KnownError,), {"code": code, "message": message, "__module__": __name__})


# Requests.
EMPTY_KEY = _known("EMPTY_KEY", INVALID_ARGUMENT, "etcdserver: key is not provided")
KEY_NOT_FOUND = _known("KEY_NOT_FOUND", INVALID_ARGUMENT, "etcdserver: key not found")
VALUE_PROVIDED = _known("VALUE_PROVIDED", INVALID_ARGUMENT, "etcdserver: value is provided")
LEASE_PROVIDED = _known("LEASE_PROVIDED", INVALID_ARGUMENT, "etcdserver: lease is provided")
TOO_MANY_OPS = _known("TOO_MANY_OPS", INVALID_ARGUMENT, "etcdserver: too many operations in txn request")
DUPLICATE_KEY = _known("DUPLICATE_KEY", INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request")
INVALID_CLIENT_API_VERSION = _known(
    "INVALID_CLIENT_API_VERSION", INVALID_ARGUMENT, "etcdserver: invalid client api version"
)
INVALID_SORT_OPTION = _known("INVALID_SORT_OPTION", INVALID_ARGUMENT, "etcdserver: invalid sort option")
REQUEST_TOO_LARGE = _known("REQUEST_TOO_LARGE", INVALID_ARGUMENT, "etcdserver: request is too large")
# rpctypes says ResourceExhausted, but the 3.7.1 server looks up the client's twin of it and so sends Unknown.
TOO_MANY_REQUESTS = _known("TOO_MANY_REQUESTS", UNKNOWN, "etcdserver: too many requests")

# The store.
COMPACTED = _known("COMPACTED", OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")
FUTURE_REVISION = _known(
    "FUTURE_REVISION", OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision"
)
NO_SPACE = _known("NO_SPACE", RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")
WATCH_CANCELED = _known("WATCH_CANCELED", CANCELED_CODE, "etcdserver: watch canceled")

# Leases.
LEASE_NOT_FOUND = _known("LEASE_NOT_FOUND", NOT_FOUND, "etcdserver: requested lease not found")
LEASE_EXISTS = _known("LEASE_EXISTS", FAILED_PRECONDITION, "etcdserver: lease already exists")
LEASE_TTL_TOO_LARGE = _known("LEASE_TTL_TOO_LARGE", OUT_OF_RANGE, "etcdserver: too large lease TTL")

# Members.
MEMBER_EXISTS = _known("MEMBER_EXISTS", FAILED_PRECONDITION, "etcdserver: member ID already exist")
PEER_URL_EXISTS = _known("PEER_URL_EXISTS", FAILED_PRECONDITION, "etcdserver: Peer URLs already exists")
MEMBER_NOT_ENOUGH_STARTED = _known(
    "MEMBER_NOT_ENOUGH_STARTED",
    FAILED_PRECONDITION,
    "etcdserver: re-configuration failed due to not enough started members",
)
MEMBER_BAD_URLS = _known("MEMBER_BAD_URLS", INVALID_ARGUMENT, "etcdserver: given member URLs are invalid")
MEMBER_NOT_FOUND = _known("MEMBER_NOT_FOUND", NOT_FOUND, "etcdserver: member not found")
MEMBER_NOT_LEARNER = _known(
    "MEMBER_NOT_LEARNER", FAILED_PRECONDITION, "etcdserver: can only promote a learner member"
)
LEARNER_NOT_READY = _known(
    "LEARNER_NOT_READY",
    FAILED_PRECONDITION,
    "etcdserver: can only promote a learner member which is in sync with leader",
)
TOO_MANY_LEARNERS = _known(
    "TOO_MANY_LEARNERS", FAILED_PRECONDITION, "etcdserver: too many learner members in cluster"
)
CLUSTER_ID_MISMATCH = _known("CLUSTER_ID_MISMATCH", FAILED_PRECONDITION, "etcdserver: cluster ID mismatch")

# Authentication.
ROOT_USER_NOT_EXIST = _known(
    "ROOT_USER_NOT_EXIST", FAILED_PRECONDITION, "etcdserver: root user does not exist"
)
ROOT_ROLE_NOT_EXIST = _known(
    "ROOT_ROLE_NOT_EXIST", FAILED_PRECONDITION, "etcdserver: root user does not have root role"
)
USER_ALREADY_EXISTS = _known(
    "USER_ALREADY_EXISTS", FAILED_PRECONDITION, "etcdserver: user name already exists"
)
USER_EMPTY = _known("USER_EMPTY", INVALID_ARGUMENT, "etcdserver: user name is empty")
USER_NOT_FOUND = _known("USER_NOT_FOUND", FAILED_PRECONDITION, "etcdserver: user name not found")
ROLE_ALREADY_EXISTS = _known(
    "ROLE_ALREADY_EXISTS", FAILED_PRECONDITION, "etcdserver: role name already exists"
)
ROLE_NOT_FOUND = _known("ROLE_NOT_FOUND", FAILED_PRECONDITION, "etcdserver: role name not found")
ROLE_EMPTY = _known("ROLE_EMPTY", INVALID_ARGUMENT, "etcdserver: role name is empty")
AUTH_FAILED = _known(
    "AUTH_FAILED", INVALID_ARGUMENT, "etcdserver: authentication failed, invalid user ID or password"
)
PERMISSION_NOT_GIVEN = _known("PERMISSION_NOT_GIVEN", INVALID_ARGUMENT, "etcdserver: permission not given")
PERMISSION_DENIED = _known("PERMISSION_DENIED", PERMISSION_DENIED_CODE, "etcdserver: permission denied")
ROLE_NOT_GRANTED = _known(
    "ROLE_NOT_GRANTED", FAILED_PRECONDITION, "etcdserver: role is not granted to the user"
)
PERMISSION_NOT_GRANTED = _known(
    "PERMISSION_NOT_GRANTED", FAILED_PRECONDITION, "etcdserver: permission is not granted to the role"
)
AUTH_NOT_ENABLED = _known(
    "AUTH_NOT_ENABLED", FAILED_PRECONDITION, "etcdserver: authentication is not enabled"
)
INVALID_AUTH_TOKEN = _known("INVALID_AUTH_TOKEN", UNAUTHENTICATED, "etcdserver: invalid auth token")
INVALID_AUTH_MANAGEMENT = _known(
    "INVALID_AUTH_MANAGEMENT", INVALID_ARGUMENT, "etcdserver: invalid auth management"
)
AUTH_OLD_REVISION = _known("AUTH_OLD_REVISION", INVALID_ARGUMENT, "etcdserver: revision of auth store is old")

# The state of the member and its cluster.
NO_LEADER = _known("NO_LEADER", UNAVAILABLE, "etcdserver: no leader")
NOT_LEADER = _known("NOT_LEADER", FAILED_PRECONDITION, "etcdserver: not leader")
LEADER_CHANGED = _known("LEADER_CHANGED", UNAVAILABLE, "etcdserver: leader changed")
NOT_CAPABLE = _known("NOT_CAPABLE", FAILED_PRECONDITION, "etcdserver: not capable")
STOPPED = _known("STOPPED", UNAVAILABLE, "etcdserver: server stopped")
TIMEOUT = _known("TIMEOUT", UNAVAILABLE, "etcdserver: request timed out")
TIMEOUT_LEADER_FAIL = _known(
    "TIMEOUT_LEADER_FAIL",
    UNAVAILABLE,
    "etcdserver: request timed out, possibly due to previous leader failure",
)
TIMEOUT_CONNECTION_LOST = _known(
    "TIMEOUT_CONNECTION_LOST",
    UNAVAILABLE,
    "etcdserver: request timed out, possibly due to connection lost",
)
TIMEOUT_WAIT_APPLIED_INDEX = _known(
    "TIMEOUT_WAIT_APPLIED_INDEX",
    UNAVAILABLE,
    "etcdserver: request timed out, waiting for the applied index took too long",
)
UNHEALTHY = _known("UNHEALTHY", UNAVAILABLE, "etcdserver: unhealthy cluster")
CORRUPT = _known("CORRUPT", DATA_LOSS, "etcdserver: corrupt cluster")
NOT_SUPPORTED_FOR_LEARNER = _known(
    "NOT_SUPPORTED_FOR_LEARNER", FAILED_PRECONDITION, "etcdserver: rpc not supported for learner"
)
BAD_LEADER_TRANSFEREE = _known(
    "BAD_LEADER_TRANSFEREE", FAILED_PRECONDITION, "etcdserver: bad leader transferee"
)
CANCELED = _known("CANCELED", CANCELED_CODE, "etcdserver: request canceled")
DEADLINE_EXCEEDED = _known(
    "DEADLINE_EXCEEDED", DEADLINE_EXCEEDED_CODE, "etcdserver: context deadline exceeded"
)

# Downgrades.
WRONG_DOWNGRADE_VERSION_FORMAT = _known(
    "WRONG_DOWNGRADE_VERSION_FORMAT", INVALID_ARGUMENT, "etcdserver: wrong downgrade target version format"
)
INVALID_DOWNGRADE_TARGET_VERSION = _known(
    "INVALID_DOWNGRADE_TARGET_VERSION", INVALID_ARGUMENT, "etcdserver: invalid downgrade target version"
)
CLUSTER_VERSION_UNAVAILABLE = _known(
    "CLUSTER_VERSION_UNAVAILABLE",
    FAILED_PRECONDITION,
    "etcdserver: cluster version not found during downgrade",
)
DOWNGRADE_IN_PROCESS = _known(
    "DOWNGRADE_IN_PROCESS", FAILED_PRECONDITION, "etcdserver: cluster has a downgrade job in progress"
)
NO_INFLIGHT_DOWNGRADE = _known(
    "NO_INFLIGHT_DOWNGRADE", FAILED_PRECONDITION, "etcdserver: no inflight downgrade job"
)
