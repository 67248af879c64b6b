"""The state of one member, and the few things every role does with it.

`Raft` holds state and sends; what a role does with a message stands in the module of that role, and which
function gets which message stands in one table in `step`. Messages gather in two lists: `messages` may be
sent at once, `after_append` only when everything appended and voted so far is on disk, because they promise
just that (an accepted append, a vote). Messages to ourselves are such promises too: a leader counts its own
log like a follower's.
"""

from __future__ import annotations

from typing import Final

from pyetcd.raft.config import Config, ReadOnlyOption
from pyetcd.raft.errors import InvariantBroken
from pyetcd.raft.log import RaftLog
from pyetcd.raft.reads import ReadQueue
from pyetcd.raft.tracker import Tracker
from pyetcd.raft.types import NO_LIMIT, NONE, HardState, Message, MessageType, ReadState, Role, SoftState

_VOTES: Final = frozenset(
    (MessageType.MsgVote, MessageType.MsgVoteResp, MessageType.MsgPreVote, MessageType.MsgPreVoteResp)
)
_PROMISES: Final = frozenset((MessageType.MsgAppResp, MessageType.MsgVoteResp, MessageType.MsgPreVoteResp))
_WITHOUT_TERM: Final = frozenset((MessageType.MsgProp, MessageType.MsgReadIndex))  # forwarded across terms


class Raft:
    __slots__ = (
        "after_append",
        "check_quorum",
        "disable_conf_change_validation",
        "disable_proposal_forwarding",
        "election_elapsed",
        "election_timeout",
        "gather_reads",
        "heartbeat_elapsed",
        "heartbeat_timeout",
        "id",
        "is_learner",
        "lead",
        "lease_reads",
        "log",
        "logger",
        "max_message_bytes",
        "max_uncommitted_bytes",
        "messages",
        "pending_conf_index",
        "postponed_reads",
        "pre_vote",
        "random",
        "randomized_timeout",
        "read_queue",
        "read_states",
        "role",
        "step_down_on_removal",
        "term",
        "tracker",
        "transferee",
        "uncommitted_bytes",
        "vote",
    )

    def __init__(self, config: Config) -> None:
        config.validate()
        self.id = config.id
        self.logger = config.logger
        self.random = config.random
        self.log = RaftLog(
            config.storage, config.logger, config.max_applying_bytes or config.max_message_bytes or NO_LIMIT
        )
        self.tracker = Tracker(config.max_inflight_messages, config.max_inflight_bytes)

        self.term = 0
        self.vote = NONE
        self.lead = NONE
        self.role = Role.StateFollower
        self.is_learner = False

        self.messages: list[Message] = []
        self.after_append: list[Message] = []
        self.read_states: list[ReadState] = []

        # Of a leader
        self.transferee = NONE  # who leadership is moving to
        self.pending_conf_index = 0  # no further membership change may be proposed before this is applied
        self.uncommitted_bytes = 0  # data proposed in this term and not applied, at least
        self.read_queue = ReadQueue()
        self.postponed_reads: list[Message] = []  # came before the first commit of our term

        self.election_elapsed = 0  # ticks since we heard from a leader, or since the last quorum check
        self.heartbeat_elapsed = 0
        self.randomized_timeout = 0

        self.election_timeout = config.election_ticks
        self.heartbeat_timeout = config.heartbeat_ticks
        self.check_quorum = config.check_quorum
        self.pre_vote = config.pre_vote
        self.gather_reads = config.gather_reads
        self.lease_reads = config.read_only is ReadOnlyOption.LEASE
        self.max_message_bytes = config.max_message_bytes
        self.max_uncommitted_bytes = config.max_uncommitted_bytes or NO_LIMIT
        self.disable_proposal_forwarding = config.disable_proposal_forwarding
        self.disable_conf_change_validation = config.disable_conf_change_validation
        self.step_down_on_removal = config.step_down_on_removal

    def soft_state(self) -> SoftState:
        return SoftState(self.lead, self.role)

    def hard_state(self) -> HardState:
        return HardState(self.term, self.vote, self.log.committed)

    def promotable(self) -> bool:
        """May become leader: a voter, whose log is not about to be replaced by a snapshot."""
        own = self.tracker.progress.get(self.id)
        return own is not None and not own.is_learner and self.log.unstable.snapshot is None

    def committed_in_term(self) -> bool:
        """A leader that has committed an entry of its own term knows everything that is committed."""
        return self.log.term_or_zero(self.log.committed) == self.term

    def send(self, message: Message) -> None:
        """Queue `message`, with our ID and, but for votes and what is forwarded, our term."""
        type = message.type
        if message.from_ == NONE:
            message.from_ = self.id
        if type in _VOTES:
            # A campaign's term differs from ours before it is won, so whoever sends a vote says it.
            assert message.term, f"term should be set when sending {type.name}"
        else:
            assert not message.term, f"term should not be set when sending {type.name} (was {message.term})"
            if type not in _WITHOUT_TERM:
                message.term = self.term
        if type in _PROMISES:
            self.after_append.append(message)
        elif message.to == self.id:
            raise InvariantBroken(f"message should not be self-addressed when sending {type.name}")
        else:
            self.messages.append(message)

    def reset(self, term: int) -> None:
        """Whatever belongs to a role or a term is forgotten."""
        if self.term != term:
            self.term = term
            self.vote = NONE
        self.lead = NONE
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.randomized_timeout = self.election_timeout + self.random.randrange(self.election_timeout)
        self.transferee = NONE
        self.tracker.votes = {}
        self.tracker.reset_progress(self.id, self.log.last_index())
        self.pending_conf_index = 0
        self.uncommitted_bytes = 0
        self.read_queue = ReadQueue()
