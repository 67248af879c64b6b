package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/metadata"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// fanout has many watchers on one key and counts events delivered; latency is from put to the last watcher's event.
func fanout(ctx context.Context, pool []*clientv3.Client) Result {
	var delivered atomic.Int64
	arrived := make(chan struct{}, *watchers)
	for i := range *watchers {
		// The client puts watchers with equal metadata on one gRPC stream; these have one each.
		own := metadata.AppendToOutgoingContext(ctx, "watcher", strconv.Itoa(i))
		watch := pool[i%len(pool)].Watch(own, "watched", clientv3.WithCreatedNotify())
		<-watch
		go func() {
			for r := range watch {
				delivered.Add(int64(len(r.Events)))
				for range r.Events {
					arrived <- struct{}{}
				}
			}
		}()
	}
	say("begin")
	begin := time.Now()
	end := begin.Add(time.Duration(*seconds * float64(time.Second)))
	var laps []time.Duration
	for time.Now().Before(end) {
		start := time.Now()
		if _, err := pool[0].Put(ctx, "watched", value()); err != nil {
			fail(err)
		}
		for range *watchers {
			<-arrived
		}
		laps = append(laps, time.Since(start))
	}
	took := time.Since(begin)
	say("end")
	r := summary([][]time.Duration{laps}, took, 0)
	r.Ops = delivered.Load()
	return r
}

// fill puts every key of the key space once, with transactions of 100 puts.
func fill(ctx context.Context, pool []*clientv3.Client) Result {
	var next atomic.Int64
	say("begin")
	begin := time.Now()
	var group sync.WaitGroup
	for i := range *clients {
		group.Add(1)
		go func() {
			defer group.Done()
			for {
				from := (next.Add(1) - 1) * 100
				if from >= int64(*keys) {
					return
				}
				var ops []clientv3.Op
				for n := from; n < min(from+100, int64(*keys)); n++ {
					ops = append(ops, clientv3.OpPut(key(n), value()))
				}
				if _, err := pool[i%len(pool)].Txn(ctx).Then(ops...).Commit(); err != nil {
					fail(err)
				}
			}
		}()
	}
	group.Wait()
	took := time.Since(begin)
	say("end")
	return Result{Ops: int64(*keys), Seconds: took.Seconds()}
}

// page walks all keys at one old revision, 500 a page, while others write; it gives up after -seconds and says how far it came.
func page(ctx context.Context, pool []*clientv3.Client) Result {
	first, err := pool[0].Get(ctx, key(0))
	if err != nil {
		fail(err)
	}
	revision := first.Header.Revision
	stop := make(chan struct{})
	var group sync.WaitGroup
	for i := range 4 {
		group.Add(1)
		go func() {
			defer group.Done()
			for n := int64(i); ; n += 7919 {
				select {
				case <-stop:
					return
				case <-time.After(2 * time.Millisecond):
				}
				if _, err := pool[i%len(pool)].Put(ctx, key(n), value()); err != nil {
					fail(err)
				}
			}
		}()
	}
	time.Sleep(200 * time.Millisecond)
	say("begin")
	begin := time.Now()
	from, seen := "/registry/", int64(0)
	var laps []time.Duration
	for time.Since(begin).Seconds() < *seconds {
		start := time.Now()
		r, err := pool[len(pool)-1].Get(ctx, from, clientv3.WithRange("/registry0"), clientv3.WithLimit(500), clientv3.WithRev(revision))
		if err != nil {
			fail(err)
		}
		laps = append(laps, time.Since(start))
		seen += int64(len(r.Kvs))
		if !r.More {
			break
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
	took := time.Since(begin)
	say("end")
	close(stop)
	group.Wait()
	r := summary([][]time.Duration{laps}, took, 0)
	r.Ops = seen
	return r
}

// expire grants -keys leases that all run out at one moment, each with a key, and measures how late the last key goes.
func expire(ctx context.Context, pool []*clientv3.Client) Result {
	// Long enough that all are granted well before, at 700 a second.
	ttl := 30 + int64(*keys)/700
	say("begin")
	begin := time.Now()
	var next, last atomic.Int64
	var group sync.WaitGroup
	for i := range *clients {
		group.Add(1)
		go func() {
			defer group.Done()
			c := pool[i%len(pool)]
			for n := next.Add(1); n <= int64(*keys); n = next.Add(1) {
				// The later a lease is granted the shorter it lives, so that all end together.
				left := ttl - int64(time.Since(begin).Seconds())
				l, err := c.Grant(ctx, max(left, 2))
				if err != nil {
					fail(err)
				}
				if _, err = c.Put(ctx, fmt.Sprintf("leased/%08d", n), "x", clientv3.WithLease(l.ID)); err != nil {
					fail(err)
				}
				due := time.Now().Add(time.Duration(max(left, 2)) * time.Second).UnixMicro()
				for old := last.Load(); due > old && !last.CompareAndSwap(old, due); old = last.Load() {
				}
			}
		}()
	}
	group.Wait()
	for {
		r, err := pool[0].Get(ctx, "leased/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			fail(err)
		}
		if r.Count == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	late := time.Since(time.UnixMicro(last.Load())).Seconds()
	say("end")
	return Result{Ops: int64(*keys), Seconds: time.Since(begin).Seconds(), Extra: late}
}

// stream reads every key through one RangeStream.
func stream(ctx context.Context, pool []*clientv3.Client) Result {
	say("begin")
	begin := time.Now()
	chunks, err := pool[0].GetStream(ctx, "/registry/", clientv3.WithPrefix())
	if err != nil {
		fail(err)
	}
	var seen int64
	for chunk := range chunks {
		if err := chunk.Err(); err != nil {
			fail(err)
		}
		seen += int64(len(chunk.RangeResponse.GetKvs()))
	}
	took := time.Since(begin)
	say("end")
	if seen != int64(*keys) {
		fail(fmt.Errorf("a stream of %d keys", seen))
	}
	return Result{Ops: seen, Seconds: took.Seconds()}
}
