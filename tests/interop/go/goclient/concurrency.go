package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"strconv"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func mutexes(ctx context.Context, c *clientv3.Client) error {
	const workers, rounds = 4, 5
	var wait sync.WaitGroup
	failures := make(chan error, workers)
	inside, entered := 0, 0 // only touched with the mutex held
	for range workers {
		wait.Add(1)
		go func() {
			defer wait.Done()
			session, err := concurrency.NewSession(c, concurrency.WithTTL(10), concurrency.WithContext(ctx))
			if err != nil {
				failures <- err
				return
			}
			defer session.Close()
			mutex := concurrency.NewMutex(session, "mutex")
			for range rounds {
				if err := mutex.Lock(ctx); err != nil {
					failures <- err
					return
				}
				inside++
				entered++
				if inside != 1 {
					failures <- errors.New("two are inside")
				}
				inside--
				if err := mutex.Unlock(ctx); err != nil {
					failures <- err
					return
				}
			}
		}()
	}
	wait.Wait()
	close(failures)
	for err := range failures {
		return err
	}
	return first(
		expect("times inside", entered, workers*rounds),
		tryLock(ctx, c),
	)
}

// tryLock: what one session holds another does not get, until the session ends.
func tryLock(ctx context.Context, c *clientv3.Client) error {
	holder, err := concurrency.NewSession(c, concurrency.WithTTL(10))
	if err != nil {
		return err
	}
	other, err := concurrency.NewSession(c, concurrency.WithTTL(10))
	if err != nil {
		return err
	}
	defer other.Close()
	held := concurrency.NewMutex(holder, "tried")
	if err = held.Lock(ctx); err != nil {
		return err
	}
	wanted := concurrency.NewMutex(other, "tried")
	if err = wanted.TryLock(ctx); !errors.Is(err, concurrency.ErrLocked) {
		return fmt.Errorf("a held mutex: %w", err)
	}
	locked := make(chan error, 1)
	go func() { locked <- wanted.Lock(ctx) }()
	if err = holder.Close(); err != nil { // gives up its lease, and so the mutex
		return err
	}
	<-holder.Done()
	return first(<-locked, wanted.Unlock(ctx))
}

func elections(ctx context.Context, c *clientv3.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var sessions [2]*concurrency.Session
	var candidates [2]*concurrency.Election
	for i := range candidates {
		session, err := concurrency.NewSession(c, concurrency.WithTTL(10))
		if err != nil {
			return err
		}
		defer session.Close()
		sessions[i] = session
		candidates[i] = concurrency.NewElection(session, "election")
	}
	_, nobody := candidates[0].Leader(ctx)
	observed := candidates[1].Observe(ctx)
	if err := candidates[0].Campaign(ctx, "first"); err != nil {
		return err
	}
	leader, err := candidates[1].Leader(ctx)
	if err != nil {
		return err
	}
	saw := []string{string((<-observed).Kvs[0].Value)}
	if err = candidates[0].Proclaim(ctx, "first again"); err != nil {
		return err
	}
	saw = append(saw, string((<-observed).Kvs[0].Value))
	won := make(chan error, 1)
	go func() { won <- candidates[1].Campaign(ctx, "second") }()
	if err = candidates[0].Resign(ctx); err != nil {
		return err
	}
	if err = <-won; err != nil {
		return err
	}
	saw = append(saw, string((<-observed).Kvs[0].Value))
	return first(
		expect("nobody's leadership", nobody, concurrency.ErrElectionNoLeader),
		expect("the leader", string(leader.Kvs[0].Value), "first"),
		expect("seen", fmt.Sprintf("%q", saw), `["first" "first again" "second"]`),
		candidates[1].Resign(ctx),
	)
}

// memory: transfers between accounts, all at once; nothing is lost.
func memory(ctx context.Context, c *clientv3.Client) error {
	const accounts, workers, transfers, sum = 4, 4, 10, 400
	account := func(i int) string { return fmt.Sprint("account/", i) }
	for i := range accounts {
		if _, err := c.Put(ctx, account(i), fmt.Sprint(sum/accounts)); err != nil {
			return err
		}
	}
	transfer := func(stm concurrency.STM) error {
		from, to := account(rand.Intn(accounts)), account(rand.Intn(accounts))
		if from == to {
			return nil
		}
		has, _ := strconv.Atoi(stm.Get(from))
		gets, _ := strconv.Atoi(stm.Get(to))
		stm.Put(from, fmt.Sprint(has-5))
		stm.Put(to, fmt.Sprint(gets+5))
		return nil
	}
	var wait sync.WaitGroup
	failures := make(chan error, workers)
	for worker := range workers {
		wait.Add(1)
		go func() {
			defer wait.Done()
			isolation := []concurrency.Isolation{concurrency.SerializableSnapshot, concurrency.Serializable}[worker%2]
			for range transfers {
				_, err := concurrency.NewSTM(c, transfer, concurrency.WithIsolation(isolation), concurrency.WithAbortContext(ctx))
				if err != nil {
					failures <- err
					return
				}
			}
		}()
	}
	wait.Wait()
	close(failures)
	for err := range failures {
		return err
	}
	found, err := c.Get(ctx, "account/", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	total := 0
	for _, kv := range found.Kvs {
		has, _ := strconv.Atoi(string(kv.Value))
		total += has
	}
	return expect("the sum", total, sum)
}
