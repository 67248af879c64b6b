"""The lessor by itself, on virtual time."""

from __future__ import annotations

import math

import pytest
from lease_fakes import MIN_TTL, World

from pyetcd.lease.lease import MAX_TTL_SECONDS, BadLease
from pyetcd.lease.lessor import CHECKPOINT_INTERVAL_SECONDS, SCAN_MAX, SLICE_LEASES, NotRenewed
from pyetcd.mvcc.answer import finish
from pyetcd.proto import errors
from pyetcd.proto.lease_pb2 import Lease as Record


def ids(world: World, cost_max: int = 1 << 30) -> list[int]:
    return [lease.id for lease in world.lessor.take_expired(cost_max)]


# What every member does alike


def test_a_grant_is_written_down_with_id_and_ttl() -> None:
    world = World()
    lease = world.lessor.grant(-7, 30)
    assert (lease.id, lease.ttl) == (-7, 30)
    assert world.lessor.exists(-7)
    assert world.bucket.rows == {
        (-7).to_bytes(8, "big", signed=True): Record(ID=-7, TTL=30).SerializeToString()
    }


@pytest.mark.parametrize("ttl", [0, -5, 1, MIN_TTL])
def test_a_short_ttl_is_made_as_long_as_two_leaders_need(ttl: int) -> None:
    world = World()
    assert world.lessor.grant(1, ttl).ttl == MIN_TTL
    assert Record.FromString(world.bucket.rows[(1).to_bytes(8, "big")]).TTL == MIN_TTL


def test_bad_grants_are_refused_in_the_order_in_which_etcd_looks() -> None:
    lessor = World().lessor
    with pytest.raises(errors.LEASE_NOT_FOUND):
        lessor.grant(0, MAX_TTL_SECONDS + 1)
    lessor.grant(1, MAX_TTL_SECONDS)
    with pytest.raises(errors.LEASE_TTL_TOO_LARGE):
        lessor.grant(1, MAX_TTL_SECONDS + 1)
    with pytest.raises(errors.LEASE_EXISTS):
        lessor.grant(1, 10)
    assert lessor.granted == 1


def test_a_key_hangs_on_the_lease_it_was_attached_to_last() -> None:
    lessor = World().lessor
    first, second = lessor.grant(1, 10), lessor.grant(2, 10)
    lessor.attach(1, b"k")
    lessor.detach(1, b"k")
    lessor.attach(2, b"k")
    assert lessor.lease_of(b"k") == 2
    assert (list(first.keys), list(second.keys)) == ([], [b"k"])
    lessor.detach(2, b"k")
    assert lessor.lease_of(b"k") == 0
    assert not second.keys


def test_a_key_cannot_be_attached_to_a_lease_there_is_not() -> None:
    with pytest.raises(errors.LEASE_NOT_FOUND):
        World().lessor.attach(5, b"k")


def test_revoking_deletes_all_keys_at_once_and_forgets_the_lease() -> None:
    world = World()
    world.lessor.grant(1, 10)
    world.lessor.grant(2, 10)
    for key in (b"b", b"a", b"c"):
        world.lessor.attach(1, key)
    world.lessor.revoke(1)
    assert world.deleted == [[b"b", b"a", b"c"]]
    assert not world.lessor.exists(1)
    assert world.lessor.lease_of(b"a") == 0
    assert list(world.bucket.rows) == [(2).to_bytes(8, "big")]
    world.lessor.revoke(2)
    assert world.deleted == [[b"b", b"a", b"c"]], "there was nothing to delete, so there is no revision"
    assert world.lessor.revoked == 2
    with pytest.raises(errors.LEASE_NOT_FOUND):
        world.lessor.revoke(1)


def test_keys_whose_deletion_is_settled_later_do_not_hang_on_a_lease_granted_anew() -> None:
    world = World()
    later: list[bytes] = []
    world.lessor._delete_keys = later.extend
    world.lessor.grant(1, 10)
    world.lessor.attach(1, b"k")
    world.lessor.revoke(1)
    again = world.lessor.grant(1, 10)
    assert later == [b"k"]
    assert not again.keys
    world.lessor.detach(world.lessor.lease_of(b"k"), b"k")  # as the store does when it settles
    assert world.lessor.lease_of(b"k") == 0
    world.lessor.attach(1, b"k")
    assert list(again.keys) == [b"k"]


def test_leases_and_their_keys_are_there_after_a_restart() -> None:
    world = World()
    for number in range(1, 2 * SLICE_LEASES + 2):
        world.lessor.grant(number, 10 + number)
    world.lessor.attach(5, b"five")
    again = world.restarted()
    assert len(again.lessor) == 2 * SLICE_LEASES + 1
    found = again.lessor.lookup(5)
    assert found is not None
    assert (found.ttl, list(found.keys)) == (15, [b"five"])
    again.lessor.attach_all({b"orphan": 10**6})
    assert again.lessor.lease_of(b"orphan") == 0, "its lease is gone, so it hangs on none"


def test_a_stored_ttl_below_the_minimum_counts_as_the_minimum_and_stays_as_it_is_stored() -> None:
    world = World()
    key, record = (1).to_bytes(8, "big"), Record(ID=1, TTL=1).SerializeToString()
    world.bucket.rows[key] = record
    again = world.restarted()
    found = again.lessor.lookup(1)
    assert found is not None
    assert found.ttl == MIN_TTL
    assert again.bucket.rows[key] == record


@pytest.mark.parametrize("record", [b"\xff", Record(ID=2, TTL=9).SerializeToString()])
def test_a_damaged_record_is_refused_by_the_name_of_its_lease(record: bytes) -> None:
    world = World()
    world.bucket.rows[(1).to_bytes(8, "big")] = record
    with pytest.raises(BadLease, match="the record of lease 0000000000000001 is damaged"):
        world.restarted()


# What the primary does


def test_nothing_runs_out_on_a_member_that_is_not_primary() -> None:
    world = World()
    lease = world.lessor.grant(1, 10)
    world.loop.advance(1000)
    assert ids(world) == []
    assert world.lessor.remaining_seconds(lease) == math.inf
    assert world.lessor.renew(1) is NotRenewed.NOT_PRIMARY


def test_a_lease_runs_out_after_its_ttl_and_not_before() -> None:
    world = World()
    world.promote()
    lease = world.lessor.grant(1, 10)
    world.loop.advance(9.99)
    assert world.lessor.remaining_seconds(lease) == pytest.approx(0.01)
    assert ids(world) == []
    world.loop.advance(0.14)  # it is queued at ticks of an eighth of a second
    assert ids(world) == [1]
    assert ids(world) == [], "it is being revoked"
    assert world.lessor.exists(1), "only its revocation in the log ends it"


def test_a_renewed_lease_lives_its_whole_ttl_from_then_on() -> None:
    world = World()
    world.promote()
    lease = world.lessor.grant(1, 10)
    for _ in range(20):
        world.loop.advance(9)
        assert world.lessor.renew(1) == 10
        assert world.lessor.remaining_seconds(lease) == 10
        assert ids(world) == []
    assert world.lessor.renewed == 20
    world.loop.advance(10.13)
    assert ids(world) == [1]


def test_renewals_leave_the_queue_alone() -> None:
    world = World()
    world.promote()
    for number in range(1, 101):
        world.lessor.grant(number, 10)
    for _ in range(50):
        for number in range(1, 101):
            world.lessor.renew(number)
        world.loop.advance(0.01)
    assert len(world.lessor._expiries) == 100
    world.loop.advance(9.8)  # later than the first deadline, earlier than the last
    assert ids(world) == []
    assert len(world.lessor._expiries) == 100
    world.loop.advance(0.4)
    assert len(ids(world)) == 100


def test_a_lease_that_has_run_out_cannot_be_renewed_any_more() -> None:
    world = World()
    world.promote()
    world.lessor.grant(1, 10)
    world.loop.advance(10)
    assert world.lessor.renew(1) is NotRenewed.EXPIRED
    assert world.lessor.renew(2) is NotRenewed.UNKNOWN


def test_who_waits_for_the_end_of_a_lease_is_told_when_it_is_revoked() -> None:
    world = World()
    told: list[str] = []
    world.promote()
    world.lessor.grant(1, 10)
    world.loop.advance(10)
    world.lessor.when_ended(1, lambda: told.append("first"))
    world.lessor.when_ended(1, lambda: told.append("second"))
    assert told == []
    world.lessor.revoke(1)
    assert told == ["first", "second"]
    world.lessor.when_ended(1, lambda: told.append("gone already"))
    assert told == ["first", "second", "gone already"]


def test_who_waits_for_the_end_of_a_lease_is_told_when_this_member_is_no_longer_primary() -> None:
    world = World()
    told: list[str] = []
    world.promote()
    world.lessor.grant(1, 10)
    world.lessor.when_ended(1, lambda: told.append("demoted"))
    world.lessor.demote()
    assert told == ["demoted"]
    world.lessor.when_ended(1, lambda: told.append("at once"))
    assert told == ["demoted", "at once"]


def test_a_new_primary_gives_every_lease_its_ttl_anew_and_an_election_timeout_more() -> None:
    world = World()
    world.promote()
    lease = world.lessor.grant(1, 10)
    world.loop.advance(9)
    world.lessor.demote()
    world.loop.advance(100)
    world.promote(extend_seconds=1.5)
    assert world.lessor.remaining_seconds(lease) == 11.5
    world.loop.advance(11.4)
    assert ids(world) == []
    world.loop.advance(0.3)
    assert ids(world) == [1]


def test_a_promotion_is_in_force_before_its_job_has_queued_anything() -> None:
    world = World()
    for number in range(1, 3 * SLICE_LEASES + 1):
        world.lessor.grant(number, 10)
    job = world.lessor.promote(1.0)
    last = world.lessor.lookup(3 * SLICE_LEASES)
    assert last is not None
    assert world.lessor.remaining_seconds(last) == 11
    assert world.lessor.renew(last.id) == 10
    assert world.lessor.remaining_seconds(last) == 10, "renewed from now on, without what the election gave"
    steps = sum(1 for _ in job)
    assert steps == 3
    assert len(world.lessor._expiries) == 3 * SLICE_LEASES
    assert world.lessor.remaining_seconds(last) == 10, "the job leaves alone what was touched before it came"


def test_a_demotion_ends_the_job_of_the_promotion_before_it() -> None:
    world = World()
    for number in range(1, 2 * SLICE_LEASES + 1):
        world.lessor.grant(number, 10)
    job = world.lessor.promote(0.0)
    next(job)
    world.lessor.demote()
    assert list(job) == []
    assert len(world.lessor._expiries) == 0
    world.loop.advance(100)
    assert ids(world) == []


def test_a_lease_revoked_and_granted_anew_has_its_own_deadline() -> None:
    world = World()
    world.promote()
    world.lessor.grant(1, 10)
    world.loop.advance(5)
    world.lessor.revoke(1)
    world.lessor.grant(1, 20)
    world.loop.advance(19.9)
    assert ids(world) == []
    world.loop.advance(0.3)
    assert ids(world) == [1]


def test_a_lost_revocation_is_tried_again_when_it_is_time() -> None:
    world = World()
    world.promote()
    lease = world.lessor.grant(1, 10)
    world.loop.advance(11)
    assert ids(world) == [1]
    world.lessor.not_revoked(lease, world.loop.time() + 7)
    world.loop.advance(6.9)
    assert ids(world) == []
    assert world.lessor.renew(1) is NotRenewed.EXPIRED, "it stays expired meanwhile"
    world.loop.advance(0.3)
    assert ids(world) == [1]
    world.lessor.revoke(1)
    world.lessor.not_revoked(lease, world.loop.time())
    assert ids(world) == [], "there is nothing left to try"


def test_one_lease_can_be_taken_out_of_turn_but_only_once_and_only_when_it_has_run_out() -> None:
    world = World()
    world.promote()
    world.lessor.grant(1, 10)
    world.loop.advance(9)
    assert world.lessor.take(1) is None
    world.loop.advance(1.5)
    assert world.lessor.take(1) is not None
    assert world.lessor.take(1) is None
    assert ids(world) == []
    assert world.lessor.take(2) is None


def test_expired_leases_are_taken_by_cost_and_a_turn_looks_at_a_bounded_number() -> None:
    world = World()
    world.promote()
    for number in range(1, 11):
        world.lessor.grant(number, 10)
        for key in range(number):
            world.lessor.attach(number, b"%d-%d" % (number, key))
    world.loop.advance(11)
    taken = world.lessor.take_expired(20)
    assert 20 <= sum(lease.cost for lease in taken) < 20 + 11
    rest = world.lessor.take_expired(1)
    assert len(rest) == 1
    world = World()
    world.promote()
    for number in range(1, 2 * SCAN_MAX + 1):
        world.lessor.grant(number, 10)
    world.loop.advance(9)
    for number in range(1, 2 * SCAN_MAX + 1):
        world.lessor.renew(number)
    world.loop.advance(5)
    assert ids(world) == []
    assert world.lessor.next_expiry is not None
    assert world.lessor.next_expiry <= world.loop.time(), "more is to be looked at in the next turn"
    ids(world)
    assert world.lessor.next_expiry > world.loop.time()


# Lists


@pytest.mark.parametrize("count", [0, 5, SLICE_LEASES, 3 * SLICE_LEASES + 7])
def test_leases_are_listed_by_what_is_left_of_them(count: int) -> None:
    world = World()
    world.promote()
    for number in range(1, count + 1):
        world.lessor.grant(number, 10 + number * 7919 % 1000)
    listed = finish(world.lessor.ids_by_expiry())
    expected = sorted(range(1, count + 1), key=lambda number: (10 + number * 7919 % 1000, number))
    assert listed == expected


def test_a_long_list_takes_slices_and_bears_changes_between_them() -> None:
    world = World()
    world.promote()
    for number in range(1, 3 * SLICE_LEASES + 1):
        world.lessor.grant(number, 10)
    job = world.lessor.ids_by_expiry()
    next(job)
    world.lessor.revoke(1)
    world.lessor.grant(10**6, 5)
    world.lessor.renew(7)
    assert sorted(finish(job)) == list(range(1, 3 * SLICE_LEASES + 1))


def test_a_short_list_takes_one_step_and_needs_no_primary() -> None:
    world = World()
    world.lessor.grant(2, 10)
    world.lessor.grant(1, 99)
    with pytest.raises(StopIteration) as stop:
        next(world.lessor.ids_by_expiry())
    assert stop.value.value == [1, 2]


# Checkpoints


def test_a_checkpoint_is_what_a_new_primary_goes_by() -> None:
    world = World()
    lease = world.lessor.grant(1, 1000)
    world.lessor.checkpoint(1, 400)
    assert Record.FromString(world.bucket.rows[(1).to_bytes(8, "big")]) == Record(
        ID=1, TTL=1000, RemainingTTL=400
    )
    again = world.restarted()
    again.promote(extend_seconds=1.0)
    found = again.lessor.lookup(1)
    assert found is not None
    assert again.lessor.remaining_seconds(found) == 401
    assert lease.ttl == found.ttl == 1000
    world.lessor.checkpoint(2, 5)  # of no lease: nothing
    assert list(world.bucket.rows) == [(1).to_bytes(8, "big")]


def test_a_checkpoint_is_not_written_down_where_a_member_would_not_know_it() -> None:
    world = World(persists=False)
    world.lessor.grant(1, 1000)
    world.lessor.checkpoint(1, 400)
    assert Record.FromString(world.bucket.rows[(1).to_bytes(8, "big")]).RemainingTTL == 0
    world.promote()
    found = world.lessor.lookup(1)
    assert found is not None
    assert world.lessor.remaining_seconds(found) == 400


def test_a_checkpoint_does_not_move_the_deadline_of_the_lease() -> None:
    world = World(checkpoints=True)
    world.promote()
    lease = world.lessor.grant(1, 1000)
    world.loop.advance(300)
    world.lessor.checkpoint(1, 650)
    assert world.lessor.remaining_seconds(lease) == 700


def test_a_lease_with_a_checkpoint_is_renewed_only_when_that_is_taken_back() -> None:
    world = World(checkpoints=True)
    world.promote()
    lease = world.lessor.grant(1, 1000)
    world.loop.advance(300)
    world.lessor.checkpoint(1, 700)
    assert world.lessor.renew(1) is NotRenewed.CHECKPOINTED
    world.lessor.checkpoint(1, 0)
    assert world.lessor.renew(1) == 1000
    assert world.lessor.remaining_seconds(lease) == 1000


def test_without_the_feature_a_checkpoint_shortens_renewals_as_in_etcd() -> None:
    world = World(checkpoints=False)
    world.promote()
    lease = world.lessor.grant(1, 1000)
    world.lessor.checkpoint(1, 50)
    assert world.lessor.renew(1) == 1000
    assert world.lessor.remaining_seconds(lease) == 50
    world.loop.advance(50.2)
    assert ids(world) == [1], "the earlier deadline has found its place in the queue"


def test_long_leases_are_noted_every_interval_and_short_ones_never() -> None:
    world = World(checkpoints=True)
    world.promote()
    world.lessor.grant(1, CHECKPOINT_INTERVAL_SECONDS)
    world.lessor.grant(2, CHECKPOINT_INTERVAL_SECONDS + 1)
    world.lessor.grant(3, 10 * CHECKPOINT_INTERVAL_SECONDS)
    assert world.lessor.take_checkpoints(10) == []
    world.loop.advance(CHECKPOINT_INTERVAL_SECONDS + 0.2)
    noted = {each.ID: each.remaining_TTL for each in world.lessor.take_checkpoints(10)}
    assert noted == {2: 1, 3: 9 * CHECKPOINT_INTERVAL_SECONDS}
    world.lessor.checkpoint(3, 9 * CHECKPOINT_INTERVAL_SECONDS)
    world.loop.advance(CHECKPOINT_INTERVAL_SECONDS + 0.2)
    (again,) = world.lessor.take_checkpoints(10)
    assert (again.ID, again.remaining_TTL) == (3, 8 * CHECKPOINT_INTERVAL_SECONDS)


def test_a_lease_renewed_just_now_has_nothing_to_note_and_comes_again() -> None:
    world = World(checkpoints=True)
    world.promote()
    world.lessor.grant(1, 1000)
    world.loop.advance(CHECKPOINT_INTERVAL_SECONDS + 0.2)
    world.lessor.renew(1)
    assert world.lessor.take_checkpoints(10) == []
    world.loop.advance(CHECKPOINT_INTERVAL_SECONDS + 0.2)
    assert [each.remaining_TTL for each in world.lessor.take_checkpoints(10)] == [700]


def test_nothing_is_noted_of_leases_that_are_gone_or_by_a_member_that_does_not_lead() -> None:
    world = World(checkpoints=True)
    world.promote()
    world.lessor.grant(1, 1000)
    world.lessor.grant(2, 1000)
    world.lessor.revoke(1)
    world.loop.advance(CHECKPOINT_INTERVAL_SECONDS + 0.2)
    assert [each.ID for each in world.lessor.take_checkpoints(10)] == [2]
    world.lessor.checkpoint(2, 700)
    world.lessor.demote()
    world.loop.advance(CHECKPOINT_INTERVAL_SECONDS + 0.2)
    assert world.lessor.take_checkpoints(10) == []
