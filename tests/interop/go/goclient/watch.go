package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// take reads events until there are so many; each as TYPE key=value(previous value).
func take(ctx context.Context, events clientv3.WatchChan, count int) ([]string, error) {
	var found []string
	for len(found) < count {
		select {
		case <-ctx.Done():
			return found, fmt.Errorf("%d events of %d: %w", len(found), count, ctx.Err())
		case resp, ok := <-events:
			if !ok {
				return found, errors.New("the watch has ended")
			}
			if err := resp.Err(); err != nil {
				return found, err
			}
			for _, event := range resp.Events {
				text := fmt.Sprintf("%s %s=%s", event.Type, event.Kv.Key, event.Kv.Value)
				if event.PrevKv != nil {
					text += fmt.Sprintf("(%s)", event.PrevKv.Value)
				}
				found = append(found, text)
			}
		}
	}
	return found, nil
}

func write(ctx context.Context, c *clientv3.Client, key string, values ...string) error {
	for _, value := range values {
		if _, err := c.Put(ctx, key, value); err != nil {
			return err
		}
	}
	_, err := c.Delete(ctx, key)
	return err
}

func watchers(ctx context.Context, c *clientv3.Client) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	one := c.Watch(ctx, "watch/a")
	tree := c.Watch(ctx, "watch/", clientv3.WithPrefix(), clientv3.WithPrevKV())
	deletions := c.Watch(ctx, "watch/", clientv3.WithPrefix(), clientv3.WithFilterPut())
	created := c.Watch(ctx, "watch/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if resp := <-created; !resp.Created {
		return errors.New("no notice of the creation")
	}
	if err := first(write(ctx, c, "watch/a", "1", "2"), write(ctx, c, "watch/b", "3")); err != nil {
		return err
	}
	ofOne, err := take(ctx, one, 3)
	if err != nil {
		return err
	}
	ofTree, err := take(ctx, tree, 5)
	if err != nil {
		return err
	}
	ofDeletions, err := take(ctx, deletions, 2)
	if err != nil {
		return err
	}
	cancel()
	for range tree { // ends
	}
	return first(
		expect("of one key", ofOne, "[PUT watch/a=1 PUT watch/a=2 DELETE watch/a=]"),
		expect("of a prefix", ofTree, "[PUT watch/a=1 PUT watch/a=2(1) DELETE watch/a=(2) PUT watch/b=3 DELETE watch/b=(3)]"),
		expect("of deletions", ofDeletions, "[DELETE watch/a= DELETE watch/b=]"),
	)
}

func pastWatchers(ctx context.Context, c *clientv3.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begin, err := c.Put(ctx, "past", "0")
	if err != nil {
		return err
	}
	if err = write(ctx, c, "past", "1", "2"); err != nil {
		return err
	}
	found, err := take(ctx, c.Watch(ctx, "past", clientv3.WithRev(begin.Header.Revision+1), clientv3.WithPrevKV()), 3)
	if err != nil {
		return err
	}
	end, err := c.Put(ctx, "past", "3")
	if err != nil {
		return err
	}
	if _, err = c.Compact(ctx, end.Header.Revision); err != nil {
		return err
	}
	resp := <-c.Watch(ctx, "past", clientv3.WithRev(begin.Header.Revision))
	return first(
		expect("events", found, "[PUT past=1(0) PUT past=2(1) DELETE past=(2)]"),
		expect("of the compacted", resp.Err(), rpctypes.ErrCompacted),
		expect("compact revision", resp.CompactRevision, end.Header.Revision),
		expect("ended", resp.Canceled, true),
	)
}

func progress(ctx context.Context, c *clientv3.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := c.Watch(ctx, "progress", clientv3.WithCreatedNotify(), clientv3.WithProgressNotify())
	<-events
	put, err := c.Put(ctx, "elsewhere", "")
	if err != nil {
		return err
	}
	if err = c.RequestProgress(ctx); err != nil {
		return err
	}
	select {
	case resp := <-events:
		return first(
			expect("a notice of progress", resp.IsProgressNotify(), true),
			expect("revision", resp.Header.Revision, put.Header.Revision),
		)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func largeEvents(ctx context.Context, c *clientv3.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	whole := c.Watch(ctx, "large/", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithFragment())
	value := strings.Repeat("x", 400_000)
	for range 2 {
		_, err := c.Txn(ctx).Then(
			clientv3.OpPut("large/a", value), clientv3.OpPut("large/b", value), clientv3.OpPut("large/c", value),
		).Commit()
		if err != nil {
			return err
		}
	}
	found, err := take(ctx, whole, 6)
	if err != nil {
		return err
	}
	_, err = c.Delete(ctx, "large/", clientv3.WithPrefix())
	return first(
		err,
		expect("the size of the last event", len(found[5]), len("PUT large/c=()")+2*len(value)),
	)
}

func manyWatchers(ctx context.Context, c *clientv3.Client) error {
	const watchers, writes = 200, 20
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	channels := []clientv3.WatchChan{}
	for i := range watchers {
		channel := c.Watch(ctx, fmt.Sprint("many/", i%10), clientv3.WithCreatedNotify())
		<-channel
		channels = append(channels, channel)
	}
	for i := range writes * 10 {
		if _, err := c.Put(ctx, fmt.Sprint("many/", i%10), fmt.Sprint(i/10)); err != nil {
			return err
		}
	}
	for i, channel := range channels {
		found, err := take(ctx, channel, writes)
		if err != nil {
			return err
		}
		for at, event := range found {
			if err := expect("an event", event, fmt.Sprintf("PUT many/%d=%d", i%10, at)); err != nil {
				return err
			}
		}
	}
	return nil
}

func watcherOverRestart(ctx context.Context, c *clientv3.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := c.Watch(ctx, "restart/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-events
	if _, err := c.Put(ctx, "restart/a", "before"); err != nil {
		return err
	}
	before, err := take(ctx, events, 1)
	if err != nil {
		return err
	}
	if _, err = c.Put(ctx, "restart/b", "not read yet"); err != nil {
		return err
	}
	if err = restart("a watcher over a restart"); err != nil {
		return err
	}
	for { // a put is not repeated by itself
		if _, err = c.Put(ctx, "restart/c", "after"); err == nil || ctx.Err() != nil {
			break
		}
	}
	after, more := take(ctx, events, 2)
	return first(
		err,
		more,
		expect("before", before, "[PUT restart/a=before]"),
		expect("over it", after, "[PUT restart/b=not read yet PUT restart/c=after]"),
	)
}
