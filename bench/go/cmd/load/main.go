// load drives an etcd server with one workload and prints what it saw as one line of JSON.
//
// The same binary drives pyetcd and real etcd, so that its own cost is equal on both sides.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	clientv3 "go.etcd.io/etcd/client/v3"
)

var (
	endpoint = flag.String("endpoint", "127.0.0.1:2379", "server")
	workload = flag.String("workload", "put", "put, get, get-serializable, txn, list, watch, lease, keepalive, fill, page, expire, stream")
	clients  = flag.Int("clients", 64, "requests under way at once")
	conns    = flag.Int("conns", 0, "connections; 0: a quarter of the clients, at least one")
	seconds  = flag.Float64("seconds", 3, "how long to run, for workloads that repeat")
	keys     = flag.Int("keys", 10000, "size of the key space")
	size     = flag.Int("value-bytes", 256, "size of a value")
	watchers = flag.Int("watchers", 100, "watchers on one key")
)

// Result is what a run prints: operations, seconds, and latencies in microseconds.
type Result struct {
	Workload string  `json:"workload"`
	Clients  int     `json:"clients"`
	Ops      int64   `json:"ops"`
	Seconds  float64 `json:"seconds"`
	P50      float64 `json:"p50_us"`
	P99      float64 `json:"p99_us"`
	Max      float64 `json:"max_us"`
	Errors   int64   `json:"errors"`
	Extra    float64 `json:"extra,omitempty"`
}

func main() {
	flag.Parse()
	ctx := context.Background()
	pool := dial()
	var result Result
	switch *workload {
	case "put":
		result = repeat(pool, func(c *clientv3.Client, n int64) error {
			_, err := c.Put(ctx, key(n), value())
			return err
		})
	case "get":
		result = repeat(pool, func(c *clientv3.Client, n int64) error {
			_, err := c.Get(ctx, key(n))
			return err
		})
	case "get-serializable":
		result = repeat(pool, func(c *clientv3.Client, n int64) error {
			_, err := c.Get(ctx, key(n), clientv3.WithSerializable())
			return err
		})
	case "txn":
		result = guarded(ctx, pool)
	case "list":
		result = repeat(pool, func(c *clientv3.Client, n int64) error {
			r, err := c.Get(ctx, key(0), clientv3.WithFromKey(), clientv3.WithLimit(1000))
			if err == nil && len(r.Kvs) != 1000 {
				err = fmt.Errorf("%d keys", len(r.Kvs))
			}
			return err
		})
	case "watch":
		result = fanout(ctx, pool)
	case "lease":
		result = repeat(pool, func(c *clientv3.Client, n int64) error {
			l, err := c.Grant(ctx, 600)
			if err == nil {
				_, err = c.KeepAliveOnce(ctx, l.ID)
			}
			return err
		})
	case "fill":
		result = fill(ctx, pool)
	case "page":
		result = page(ctx, pool)
	case "expire":
		result = expire(ctx, pool)
	case "stream":
		result = stream(ctx, pool)
	default:
		fail(fmt.Errorf("unknown workload %q", *workload))
	}
	result.Workload, result.Clients = *workload, *clients
	line, err := json.Marshal(result)
	if err != nil {
		fail(err)
	}
	fmt.Println(string(line))
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "load:", err)
	os.Exit(1)
}

func dial() []*clientv3.Client {
	n := *conns
	if n == 0 {
		n = max(1, *clients/4)
	}
	pool := make([]*clientv3.Client, n)
	for i := range pool {
		c, err := clientv3.New(clientv3.Config{
			Endpoints: []string{*endpoint}, DialTimeout: 10 * time.Second, Logger: zap.NewNop(),
			MaxCallRecvMsgSize: 1 << 30,
		})
		if err != nil {
			fail(err)
		}
		pool[i] = c
	}
	return pool
}

func key(n int64) string { return fmt.Sprintf("/registry/pods/namespace-%02d/pod-%08d", n%50, n%int64(*keys)) }

var payload string

func value() string {
	if payload == "" {
		b := make([]byte, *size)
		for i := range b {
			b[i] = byte('a' + i%26)
		}
		payload = string(b)
	}
	return payload
}

// repeat runs one operation from every client until the time is over; a tenth of it before counts as warm-up.
func repeat(pool []*clientv3.Client, op func(*clientv3.Client, int64) error) Result {
	value()
	var next, errors atomic.Int64
	warm := time.Duration(*seconds * 0.1 * float64(time.Second))
	begin := time.Now().Add(warm)
	end := begin.Add(time.Duration(*seconds * float64(time.Second)))
	all := make([][]time.Duration, *clients)
	var group sync.WaitGroup
	for i := range *clients {
		group.Add(1)
		go func() {
			defer group.Done()
			c := pool[i%len(pool)]
			for {
				start := time.Now()
				if start.After(end) {
					return
				}
				// A large odd stride visits the keys in no order that an index could like.
				if err := op(c, next.Add(1)*7919); err != nil {
					if errors.Add(1) == 1 {
						fmt.Fprintln(os.Stderr, "load:", err)
					}
				}
				if start.After(begin) {
					all[i] = append(all[i], time.Since(start))
				}
			}
		}()
	}
	group.Wait()
	return summary(all, time.Since(begin), errors.Load())
}

func summary(all [][]time.Duration, took time.Duration, errors int64) Result {
	var flat []time.Duration
	for _, one := range all {
		flat = append(flat, one...)
	}
	sort.Slice(flat, func(i, j int) bool { return flat[i] < flat[j] })
	r := Result{Ops: int64(len(flat)), Seconds: took.Seconds(), Errors: errors}
	if len(flat) > 0 {
		r.P50 = float64(flat[len(flat)/2].Nanoseconds()) / 1e3
		r.P99 = float64(flat[len(flat)*99/100].Nanoseconds()) / 1e3
		r.Max = float64(flat[len(flat)-1].Nanoseconds()) / 1e3
	}
	return r
}

// guarded is what a Kubernetes API server does on update: if the key is still at the revision I read, put, else get.
func guarded(ctx context.Context, pool []*clientv3.Client) Result {
	var lock sync.Mutex
	known := make(map[int64]int64)
	return repeat(pool, func(c *clientv3.Client, n int64) error {
		k := n % int64(*keys)
		lock.Lock()
		revision := known[k]
		lock.Unlock()
		r, err := c.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(key(k)), "=", revision)).
			Then(clientv3.OpPut(key(k), value())).
			Else(clientv3.OpGet(key(k))).Commit()
		if err != nil {
			return err
		}
		if r.Succeeded {
			revision = r.Header.Revision
		} else if kvs := r.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
			revision = kvs[0].ModRevision
		}
		lock.Lock()
		known[k] = revision
		lock.Unlock()
		return nil
	})
}
