"""Elections, with the optional first round that asks whether one could be won (Raft thesis, section 9.6)."""

from __future__ import annotations

from enum import Enum

from pyetcd.raft.core import Raft
from pyetcd.raft.quorum import Vote
from pyetcd.raft.replication import broadcast_append
from pyetcd.raft.roles import become_candidate, become_follower, become_leader, become_pre_candidate
from pyetcd.raft.types import NONE, EntryType, Message, MessageType, Role

TRANSFER_CONTEXT = (
    b"CampaignTransfer"  # on the wire: this vote was asked for by the leader, so ignore its lease
)


class Campaign(Enum):
    PRE_ELECTION = "CampaignPreElection"
    ELECTION = "CampaignElection"
    TRANSFER = "CampaignTransfer"


def hup(raft: Raft, campaign: Campaign) -> None:
    """Start an election unless we must not."""
    if raft.role is Role.StateLeader:
        raft.logger.debug(f"{raft.id:x} ignoring MsgHup because already leader")
    elif not raft.promotable():
        raft.logger.warning(f"{raft.id:x} is unpromotable and can not campaign")
    elif _has_unapplied_conf_change(raft):
        raft.logger.warning(
            f"{raft.id:x} cannot campaign at term {raft.term} since there are still pending "
            "configuration changes to apply"
        )
    else:
        raft.logger.info(f"{raft.id:x} is starting a new election at term {raft.term}")
        start(raft, campaign)


def _has_unapplied_conf_change(raft: Raft) -> bool:
    """Our idea of who votes may be old as long as a committed change waits to be applied."""
    log = raft.log
    unapplied = log.scan(log.applied + 1, log.committed + 1, log.max_applying_bytes)
    return any(entry.type != EntryType.EntryNormal for entry in unapplied)


def start(raft: Raft, campaign: Campaign) -> None:
    if campaign is Campaign.PRE_ELECTION:
        become_pre_candidate(raft)
        ask, answer = MessageType.MsgPreVote, MessageType.MsgPreVoteResp
        term = raft.term + 1  # the term it would be
    else:
        become_candidate(raft)
        ask, answer = MessageType.MsgVote, MessageType.MsgVoteResp
        term = raft.term
    context = TRANSFER_CONTEXT if campaign is Campaign.TRANSFER else b""
    last, last_term = raft.log.last_index(), raft.log.last_term()
    for id in raft.tracker.config.voters.ids():
        if id == raft.id:
            # Our own vote counts once it is on disk, as anybody's.
            raft.send(Message(answer, to=id, term=term))
            continue
        raft.logger.info(
            f"{raft.id:x} [logterm: {last_term}, index: {last}] sent {ask.name} request to "
            f"{id:x} at term {raft.term}"
        )
        raft.send(Message(ask, to=id, term=term, index=last, log_term=last_term, context=context))


def handle_hup(raft: Raft, message: Message) -> None:
    hup(raft, Campaign.PRE_ELECTION if raft.pre_vote else Campaign.ELECTION)


def handle_vote_request(raft: Raft, message: Message) -> None:
    """MsgVote or MsgPreVote, of our term or (pre-vote) a later one."""
    real = message.type is MessageType.MsgVote
    may_vote = (
        raft.vote == message.from_  # a repetition
        or (raft.vote == NONE and raft.lead == NONE)
        or (not real and message.term > raft.term)
    )
    # Learners vote too: the candidate may know of a promotion that has not reached us, and its quorum may
    # need us.
    granted = may_vote and raft.log.is_up_to_date(message.index, message.log_term)
    log_vote(raft, message, "cast" if granted else "rejected", "for" if granted else "from")
    answer = MessageType.MsgVoteResp if real else MessageType.MsgPreVoteResp
    if granted:
        # In the request's term, not ours: before it is won, a pre-vote's term is nobody's.
        raft.send(Message(answer, to=message.from_, term=message.term))
        if real:
            raft.election_elapsed = 0
            raft.vote = message.from_
    else:
        raft.send(Message(answer, to=message.from_, term=raft.term, reject=True))


def leader_lease_holds(raft: Raft) -> bool:
    """We heard from a leader not long ago, so whoever campaigns has merely lost touch with it.

    Section 6 of the Raft paper; without this, a removed member would disturb the others for ever.
    """
    return raft.check_quorum and raft.lead != NONE and raft.election_elapsed < raft.election_timeout


def log_vote(raft: Raft, message: Message, verdict: str, preposition: str, why: str = "") -> None:
    raft.logger.info(
        f"{raft.id:x} [logterm: {raft.log.last_term()}, index: {raft.log.last_index()}, vote: "
        f"{raft.vote:x}] {verdict} "
        f"{message.type.name} {preposition} {message.from_:x} [logterm: {message.log_term}, "
        f"index: {message.index}] "
        f"at term {raft.term}{why}"
    )


def handle_vote_response(raft: Raft, message: Message) -> None:
    """An answer of the kind we are campaigning for."""
    verdict = " rejection" if message.reject else ""
    raft.logger.info(
        f"{raft.id:x} received {message.type.name}{verdict} from {message.from_:x} at term {raft.term}"
    )
    raft.tracker.record_vote(message.from_, not message.reject)
    granted, rejected, outcome = raft.tracker.tally()
    raft.logger.info(
        f"{raft.id:x} has received {granted} {message.type.name} votes and {rejected} vote rejections"
    )
    if outcome is Vote.LOST:
        become_follower(raft, raft.term, NONE)
    elif outcome is Vote.WON and raft.role is Role.StatePreCandidate:
        start(raft, Campaign.ELECTION)
    elif outcome is Vote.WON:
        become_leader(raft)
        broadcast_append(raft)


def handle_timeout_now(raft: Raft, message: Message) -> None:
    """The leader wants us to take over. No pre-vote: nobody can be disturbed that does not know."""
    raft.logger.info(
        f"{raft.id:x} [term {raft.term}] received MsgTimeoutNow from {message.from_:x} and "
        "starts an election to get "
        "leadership."
    )
    hup(raft, Campaign.TRANSFER)


def ignore_timeout_now(raft: Raft, message: Message) -> None:
    raft.logger.debug(
        f"{raft.id:x} [term {raft.term} state {raft.role.name}] ignored MsgTimeoutNow from {message.from_:x}"
    )
