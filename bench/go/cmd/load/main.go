// load drives an etcd server with one workload and prints what it saw as one line of JSON.
//
// The same binary drives pyetcd and real etcd, so that its own cost is equal on both sides. It also prints a line
// "begin" and a line "end" around what it measures: preparations and warm-up lie before, sums and sorting behind, so
// whoever reads the server's CPU time at these lines has it for the operations counted and no others.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

var (
	endpoint = flag.String("endpoint", "127.0.0.1:2379", "server; several by commas, which connections take in turn")
	workload = flag.String("workload", "put", "one of those in main")
	clients  = flag.Int("clients", 64, "requests under way at once")
	conns    = flag.Int("conns", 0, "connections; 0: a quarter of the clients, at least one")
	seconds  = flag.Float64("seconds", 3, "how long to run, for workloads that repeat")
	keys     = flag.Int("keys", 10000, "size of the key space")
	size     = flag.Int("value-bytes", 256, "size of a value")
	watchers = flag.Int("watchers", 100, "watchers on one key")
	user     = flag.String("user", "", "who logs in, as name:password; empty: nobody")
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
			r, err := c.Get(ctx, "/registry/", clientv3.WithPrefix(), clientv3.WithLimit(1000))
			if err == nil && len(r.Kvs) != min(1000, *keys) {
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
	case "keepalive":
		result = keepAlive(ctx, pool)
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
	members := strings.Split(*endpoint, ",")
	for i := range pool {
		name, password, _ := strings.Cut(*user, ":")
		c, err := clientv3.New(clientv3.Config{
			Endpoints: []string{members[i%len(members)]}, DialTimeout: 10 * time.Second, Logger: zap.NewNop(),
			MaxCallRecvMsgSize: 1 << 30, Username: name, Password: password,
		})
		if err != nil {
			fail(err)
		}
		pool[i] = c
	}
	return pool
}

// key is the n-th key of the key space, which is -keys large and walked round and round.
func key(n int64) string {
	n %= int64(*keys)
	return fmt.Sprintf("/registry/pods/namespace-%02d/pod-%08d", n%50, n)
}

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
	return repeatAs(pool, func(c *clientv3.Client, _ int, n int64) error { return op(c, n) })
}

// repeatAs is repeat for operations that must know which client asks.
func repeatAs(pool []*clientv3.Client, op func(c *clientv3.Client, client int, n int64) error) Result {
	value()
	var next, errors atomic.Int64
	warm := time.Duration(*seconds * 0.1 * float64(time.Second))
	begin := time.Now().Add(warm)
	end := begin.Add(time.Duration(*seconds * float64(time.Second)))
	all := make([][]time.Duration, *clients)
	time.AfterFunc(warm, func() { say("begin") })
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
				if err := op(c, i, next.Add(1)*7919); err != nil {
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
	took := time.Since(begin)
	say("end")
	return summary(all, took, errors.Load())
}

// say prints a line for whoever measures the server's process.
func say(word string) { fmt.Println(word) }

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
	known := make([]atomic.Int64, *keys)
	for from := "/registry/"; ; {
		r, err := pool[0].Get(ctx, from, clientv3.WithRange("/registry0"), clientv3.WithLimit(10000), clientv3.WithKeysOnly())
		if err != nil {
			fail(err)
		}
		for _, kv := range r.Kvs {
			known[number(string(kv.Key))].Store(kv.ModRevision)
		}
		if !r.More {
			break
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
	return repeat(pool, func(c *clientv3.Client, n int64) error {
		k := key(n)
		revision := &known[n%int64(*keys)]
		r, err := c.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(k), "=", revision.Load())).
			Then(clientv3.OpPut(k, value())).
			Else(clientv3.OpGet(k)).Commit()
		if err != nil {
			return err
		}
		if r.Succeeded {
			revision.Store(r.Header.Revision)
		} else if kvs := r.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
			revision.Store(kvs[0].ModRevision)
		}
		return nil
	})
}

// number is the inverse of key.
func number(key string) int64 {
	n, err := strconv.ParseInt(key[strings.LastIndexByte(key, '-')+1:], 10, 64)
	if err != nil || n >= int64(*keys) {
		fail(fmt.Errorf("a key that this load did not write: %q", key))
	}
	return n
}

// keepAlive renews leases: every client has one, and one stream of its own to do it on.
func keepAlive(ctx context.Context, pool []*clientv3.Client) Result {
	streams := make([]pb.Lease_LeaseKeepAliveClient, *clients)
	leases := make([]clientv3.LeaseID, *clients)
	for i := range streams {
		c := pool[i%len(pool)]
		granted, err := c.Grant(ctx, 600)
		if err != nil {
			fail(err)
		}
		leases[i] = granted.ID
		if streams[i], err = pb.NewLeaseClient(c.ActiveConnection()).LeaseKeepAlive(ctx); err != nil {
			fail(err)
		}
	}
	return repeatAs(pool, func(_ *clientv3.Client, client int, _ int64) error {
		if err := streams[client].Send(&pb.LeaseKeepAliveRequest{ID: int64(leases[client])}); err != nil {
			return err
		}
		renewed, err := streams[client].Recv()
		if err == nil && renewed.TTL != 600 {
			err = fmt.Errorf("lease renewed for %d s", renewed.TTL)
		}
		return err
	})
}
