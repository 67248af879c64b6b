package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func leases(ctx context.Context, c *clientv3.Client) error {
	granted, err := c.Grant(ctx, 60)
	if err != nil {
		return err
	}
	for _, key := range []string{"lease/a", "lease/b"} {
		if _, err = c.Put(ctx, key, "", clientv3.WithLease(granted.ID)); err != nil {
			return err
		}
	}
	left, err := c.TimeToLive(ctx, granted.ID, clientv3.WithAttachedKeys())
	if err != nil {
		return err
	}
	renewed, err := c.KeepAliveOnce(ctx, granted.ID)
	if err != nil {
		return err
	}
	all, err := c.Leases(ctx)
	if err != nil {
		return err
	}
	known := false
	for _, lease := range all.Leases {
		known = known || lease.ID == granted.ID
	}
	if _, err = c.Revoke(ctx, granted.ID); err != nil {
		return err
	}
	gone, err := c.Get(ctx, "lease/", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	after, err := c.TimeToLive(ctx, granted.ID)
	if err != nil {
		return err
	}
	_, again := c.Revoke(ctx, granted.ID)
	_, dead := c.KeepAliveOnce(ctx, granted.ID)
	_, tooLong := c.Grant(ctx, 9_000_000_001)
	return first(
		expect("granted for", granted.TTL, 60),
		expect("keys", len(left.Keys), 2),
		expect("time left", left.TTL > 50 && left.TTL <= 60, true),
		expect("renewed for", renewed.TTL, 60),
		expect("listed", known, true),
		expect("keys after it", pairs(gone), "[]"),
		expect("time left after it", after.TTL, -1),
		expect("revoked again", again, rpctypes.ErrLeaseNotFound),
		expect("renewed after it", dead, rpctypes.ErrLeaseNotFound),
		expect("too long", tooLong, rpctypes.ErrLeaseTTLTooLarge),
	)
}

// expiry: one lease is kept alive beyond its time, another runs out, and its key with it.
func expiry(ctx context.Context, c *clientv3.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := c.Watch(ctx, "expiry/", clientv3.WithPrefix(), clientv3.WithFilterPut())
	ids := map[string]clientv3.LeaseID{}
	for _, name := range []string{"kept", "left"} {
		granted, err := c.Grant(ctx, 2)
		if err != nil {
			return err
		}
		ids[name] = granted.ID
		if _, err = c.Put(ctx, "expiry/"+name, "", clientv3.WithLease(granted.ID)); err != nil {
			return err
		}
	}
	keep, stop := context.WithCancel(ctx)
	defer stop()
	renewals, err := c.KeepAlive(keep, ids["kept"])
	if err != nil {
		return err
	}
	begin := time.Now()
	found, err := take(ctx, events, 1)
	if err != nil {
		return err
	}
	took := time.Since(begin)
	heard := 0
	for heard < 3 { // each a third of its time after the other
		if _, ok := <-renewals; !ok {
			return errors.New("the renewals have ended")
		}
		heard++
	}
	kept, err := c.Get(ctx, "expiry/kept")
	if err != nil {
		return err
	}
	stop()
	last, err := take(ctx, events, 1)
	return first(
		err,
		expect("the first to go", found, "[DELETE expiry/left=]"),
		expect(fmt.Sprint("gone in time, but after ", took), took > time.Second && took < 6*time.Second, true),
		expect("kept", len(kept.Kvs), 1),
		expect("the last to go", last, "[DELETE expiry/kept=]"),
	)
}

func leaseOverRestart(ctx context.Context, c *clientv3.Client) error {
	granted, err := c.Grant(ctx, 100)
	if err != nil {
		return err
	}
	if _, err = c.Put(ctx, "kept", "x", clientv3.WithLease(granted.ID)); err != nil {
		return err
	}
	renewals, err := c.KeepAlive(ctx, granted.ID)
	if err != nil {
		return err
	}
	<-renewals
	if err = restart("a lease over a restart"); err != nil {
		return err
	}
	left, err := c.TimeToLive(ctx, granted.ID, clientv3.WithAttachedKeys())
	for err != nil && ctx.Err() == nil {
		left, err = c.TimeToLive(ctx, granted.ID, clientv3.WithAttachedKeys())
	}
	if err != nil {
		return err
	}
	_, err = c.Revoke(ctx, granted.ID)
	return first(
		err,
		expect("granted for", left.GrantedTTL, 100),
		expect("keys", fmt.Sprintf("%s", left.Keys), "[kept]"),
		expect("time left", left.TTL > 60, true),
	)
}
