package main

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"
)

func pairs(resp *clientv3.GetResponse) []string {
	found := []string{}
	for _, kv := range resp.Kvs {
		found = append(found, fmt.Sprintf("%s=%s", kv.Key, kv.Value))
	}
	return found
}

func putsAndGets(ctx context.Context, c *clientv3.Client) error {
	if _, err := c.Put(ctx, "kv/a", "1"); err != nil {
		return err
	}
	put, err := c.Put(ctx, "kv/a", "2", clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	got, err := c.Get(ctx, "kv/a")
	if err != nil {
		return err
	}
	serializable, err := c.Get(ctx, "kv/a", clientv3.WithSerializable())
	if err != nil {
		return err
	}
	kept, err := c.Put(ctx, "kv/a", "", clientv3.WithIgnoreValue(), clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	deleted, err := c.Delete(ctx, "kv/a", clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	gone, err := c.Get(ctx, "kv/a")
	if err != nil {
		return err
	}
	return first(
		expect("previous value", string(put.PrevKv.Value), "1"),
		expect("pairs", pairs(got), "[kv/a=2]"),
		expect("version", got.Kvs[0].Version, 2),
		expect("pairs read here", pairs(serializable), "[kv/a=2]"),
		expect("value kept", string(kept.PrevKv.Value), "2"),
		expect("deleted", deleted.Deleted, 1),
		expect("version of what was deleted", deleted.PrevKvs[0].Version, 3),
		expect("what is left", pairs(gone), "[]"),
		expect("revision", deleted.Header.Revision, put.Header.Revision+2),
	)
}

func fill(ctx context.Context, c *clientv3.Client, prefix string, count int) error {
	for i := range count {
		if _, err := c.Put(ctx, fmt.Sprintf("%s%03d", prefix, i), fmt.Sprint(count-i)); err != nil {
			return err
		}
	}
	return nil
}

func ranges(ctx context.Context, c *clientv3.Client) error {
	if err := fill(ctx, c, "ranges/", 25); err != nil {
		return err
	}
	prefix := clientv3.WithPrefix()
	all, err := c.Get(ctx, "ranges/", prefix)
	if err != nil {
		return err
	}
	count, err := c.Get(ctx, "ranges/", prefix, clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	keys, err := c.Get(ctx, "ranges/", prefix, clientv3.WithKeysOnly(), clientv3.WithLimit(2))
	if err != nil {
		return err
	}
	sorted, err := c.Get(ctx, "ranges/", prefix, clientv3.WithLimit(3),
		clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend))
	if err != nil {
		return err
	}
	filtered, err := c.Get(ctx, "ranges/", prefix, clientv3.WithMinModRev(all.Kvs[23].ModRevision))
	if err != nil {
		return err
	}
	last, err := c.Get(ctx, "ranges/", clientv3.WithLastKey()...)
	if err != nil {
		return err
	}
	fromKey, err := c.Get(ctx, "ranges/023", clientv3.WithFromKey(), clientv3.WithLimit(2))
	if err != nil {
		return err
	}
	deleted, err := c.Delete(ctx, "ranges/", prefix)
	if err != nil {
		return err
	}
	return first(
		expect("all", len(all.Kvs), 25),
		expect("count", count.Count, 25),
		expect("pairs of a count", len(count.Kvs), 0),
		expect("keys", pairs(keys), "[ranges/000= ranges/001=]"),
		expect("more keys", keys.More, true),
		expect("sorted", pairs(sorted), "[ranges/024=1 ranges/023=2 ranges/022=3]"),
		expect("filtered", pairs(filtered), "[ranges/023=2 ranges/024=1]"),
		expect("last", pairs(last), "[ranges/024=1]"),
		expect("from a key on", pairs(fromKey), "[ranges/023=2 ranges/024=1]"),
		expect("deleted", deleted.Deleted, 25),
	)
}

func revisions(ctx context.Context, c *clientv3.Client) error {
	old, err := c.Put(ctx, "old", "1")
	if err != nil {
		return err
	}
	if _, err = c.Put(ctx, "old", "2"); err != nil {
		return err
	}
	before, err := c.Get(ctx, "old", clientv3.WithRev(old.Header.Revision))
	if err != nil {
		return err
	}
	if _, err = c.Compact(ctx, old.Header.Revision+1, clientv3.WithCompactPhysical()); err != nil {
		return err
	}
	_, compacted := c.Get(ctx, "old", clientv3.WithRev(old.Header.Revision))
	_, again := c.Compact(ctx, old.Header.Revision)
	_, future := c.Get(ctx, "old", clientv3.WithRev(1<<40))
	return first(
		expect("the value before", pairs(before), "[old=1]"),
		expect("a compacted revision", compacted, rpctypes.ErrCompacted),
		expect("a compaction of the compacted", again, rpctypes.ErrCompacted),
		expect("a future revision", future, rpctypes.ErrFutureRev),
	)
}

func transactions(ctx context.Context, c *clientv3.Client) error {
	create := func() (*clientv3.TxnResponse, error) {
		return c.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision("txn/a"), "=", 0)).
			Then(clientv3.OpPut("txn/a", "first")).
			Else(clientv3.OpGet("txn/a")).
			Commit()
	}
	won, err := create()
	if err != nil {
		return err
	}
	lost, err := create()
	if err != nil {
		return err
	}
	nested, err := c.Txn(ctx).
		If(clientv3.Compare(clientv3.Value("txn/a"), "=", "first"), clientv3.Compare(clientv3.Version("txn/a"), "<", 2)).
		Then(
			clientv3.OpTxn(
				[]clientv3.Cmp{clientv3.Compare(clientv3.Value("txn/").WithPrefix(), "!=", "none")},
				[]clientv3.Op{clientv3.OpPut("txn/b", "inner"), clientv3.OpGet("txn/", clientv3.WithPrefix())},
				nil,
			),
			clientv3.OpDelete("txn/a", clientv3.WithPrevKV()),
		).
		Commit()
	if err != nil {
		return err
	}
	inner := nested.Responses[0].GetResponseTxn()
	return first(
		expect("the first", won.Succeeded, true),
		expect("the second", lost.Succeeded, false),
		expect("what the second saw", string(lost.Responses[0].GetResponseRange().Kvs[0].Value), "first"),
		expect("the inner one", inner.Succeeded, true),
		expect("what the inner one saw", len(inner.Responses[1].GetResponseRange().Kvs), 2),
		expect("deleted", nested.Responses[1].GetResponseDeleteRange().Deleted, 1),
	)
}

func refusals(ctx context.Context, c *clientv3.Client) error {
	tooMany := []clientv3.Op{}
	for i := range 129 {
		tooMany = append(tooMany, clientv3.OpPut(fmt.Sprint("many/", i), ""))
	}
	wanted := map[error]func() error{
		rpctypes.ErrEmptyKey:      func() error { _, err := c.Put(ctx, "", "x"); return err },
		rpctypes.ErrKeyNotFound:   func() error { _, err := c.Put(ctx, "nobody", "", clientv3.WithIgnoreValue()); return err },
		rpctypes.ErrTooManyOps:    func() error { _, err := c.Txn(ctx).Then(tooMany...).Commit(); return err },
		rpctypes.ErrLeaseNotFound: func() error { _, err := c.Put(ctx, "a", "", clientv3.WithLease(12345)); return err },
		rpctypes.ErrDuplicateKey: func() error {
			_, err := c.Txn(ctx).Then(clientv3.OpPut("a", ""), clientv3.OpPut("a", "")).Commit()
			return err
		},
		rpctypes.ErrRequestTooLarge: func() error { _, err := c.Put(ctx, "a", string(make([]byte, 1600*1024))); return err },
	}
	for want, ask := range wanted {
		if err := ask(); !errors.Is(err, want) {
			return fmt.Errorf("%v, wanted %w", err, want)
		}
	}
	return nil
}

func namespaces(ctx context.Context, c *clientv3.Client) error {
	kv := namespace.NewKV(c.KV, "space/")
	if _, err := kv.Put(ctx, "a", "1"); err != nil {
		return err
	}
	inside, err := kv.Get(ctx, "", clientv3.WithFromKey())
	if err != nil {
		return err
	}
	outside, err := c.Get(ctx, "space/", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	return first(
		expect("inside", pairs(inside), "[a=1]"),
		expect("outside", pairs(outside), "[space/a=1]"),
	)
}

func maintenance(ctx context.Context, c *clientv3.Client) error {
	members, err := c.MemberList(ctx)
	if err != nil {
		return err
	}
	endpoint := c.Endpoints()[0]
	status, err := c.Status(ctx, endpoint)
	if err != nil {
		return err
	}
	hash, err := c.HashKV(ctx, endpoint, 0)
	if err != nil {
		return err
	}
	alarms, err := c.AlarmList(ctx)
	if err != nil {
		return err
	}
	return first(
		expect("members", len(members.Members), 1),
		expect("leader", status.Leader, members.Members[0].ID),
		expect("hashed revision", hash.HashRevision, status.Header.Revision),
		expect("alarms", len(alarms.Alarms), 0),
		c.Sync(ctx),
	)
}

func rangeStream(ctx context.Context, c *clientv3.Client) error {
	if err := fill(ctx, c, "stream/", 60); err != nil {
		return err
	}
	chunks, err := c.GetStream(ctx, "stream/", clientv3.WithPrefix(), clientv3.WithLimit(50))
	if err != nil {
		return err
	}
	found, messages := 0, 0
	var last *clientv3.GetResponse
	for chunk := range chunks {
		if err := chunk.Err(); err != nil {
			return err
		}
		messages++
		found += len(chunk.RangeResponse.Kvs)
		last = (*clientv3.GetResponse)(chunk.RangeResponse)
	}
	_, err = c.Delete(ctx, "stream/", clientv3.WithPrefix())
	return first(
		err,
		expect("pairs", found, 50),
		expect("several messages", messages > 1, true),
		expect("count", last.Count, 60),
		expect("more", last.More, true),
	)
}
