// goclient does what Go programs do with etcd, by its own client library, and reports each step as one line of
// JSON. Where the server is to be stopped and started again, it says so and waits for a line on its input.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

const stepTime = 30 * time.Second

// report is one line of output.
type report struct {
	Step    string  `json:"step"`
	Error   string  `json:"error,omitempty"`
	Restart bool    `json:"restart,omitempty"` // the server is to be restarted now
	Seconds float64 `json:"seconds"`
}

type step struct {
	name string
	run  func(ctx context.Context, client *clientv3.Client) error
}

var (
	steps = []step{
		{"puts, gets and deletions", putsAndGets},
		{"gets of ranges", ranges},
		{"a range in a stream", rangeStream},
		{"gets at older revisions", revisions},
		{"transactions", transactions},
		{"errors by their identity", refusals},
		{"watchers", watchers},
		{"watchers of the past", pastWatchers},
		{"progress of watchers", progress},
		{"large events", largeEvents},
		{"many watchers", manyWatchers},
		{"a watcher over a restart", watcherOverRestart},
		{"leases", leases},
		{"leases that run out", expiry},
		{"a lease over a restart", leaseOverRestart},
		{"sessions and mutexes", mutexes},
		{"elections", elections},
		{"software transactional memory", memory},
		{"namespaces", namespaces},
		{"the cluster and its maintenance", maintenance},
	}
	input = bufio.NewReader(os.Stdin)
	lines = json.NewEncoder(os.Stdout)
)

func main() {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            []string{os.Args[1]},
		DialTimeout:          10 * time.Second,
		DialKeepAliveTime:    5 * time.Second,
		DialKeepAliveTimeout: 2 * time.Second,
		Logger:               zap.NewNop(),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "goclient:", err)
		os.Exit(1)
	}
	defer client.Close()
	for _, each := range steps {
		ctx, cancel := context.WithTimeout(context.Background(), stepTime)
		begin := time.Now()
		done := report{Step: each.name}
		if err := each.run(ctx, client); err != nil {
			done.Error = err.Error()
		}
		cancel()
		done.Seconds = time.Since(begin).Seconds()
		_ = lines.Encode(done)
	}
}

// restart asks for a restart of the server and returns when it has been done.
func restart(name string) error {
	if err := lines.Encode(report{Step: name, Restart: true}); err != nil {
		return err
	}
	_, err := input.ReadString('\n')
	return err
}

// expect is an error unless what was found is what was wanted.
func expect(what string, found, wanted any) error {
	if f, w := fmt.Sprint(found), fmt.Sprint(wanted); f != w {
		return fmt.Errorf("%s: %s, wanted %s", what, f, w)
	}
	return nil
}

// first is the first of some errors that is one.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
