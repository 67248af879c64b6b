// goetcd runs one real etcd member, from the embed library, so that pyetcd can be measured and compared beside it.
package main

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
)

func main() {
	dir := flag.String("data-dir", "", "data directory")
	client := flag.String("listen-client-urls", "http://127.0.0.1:0", "client URL")
	peer := flag.String("listen-peer-urls", "http://127.0.0.1:0", "peer URL")
	quota := flag.Int64("quota-backend-bytes", 0, "space quota")
	snapshotCount := flag.Uint64("snapshot-count", 10000, "entries between snapshots")
	catchUp := flag.Uint64("snapshot-catchup-entries", 5000, "entries kept in memory behind a snapshot")
	flag.Int64Var(&wal.SegmentSizeBytes, "wal-segment-bytes", wal.SegmentSizeBytes, "size of a segment of the log")
	watchProgress := flag.Duration("watch-progress-notify-interval", 0, "progress interval")
	maxTxnOps := flag.Uint("max-txn-ops", 128, "operations a transaction")
	maxRequestBytes := flag.Uint("max-request-bytes", 1536*1024, "bytes a request")
	flag.Parse()

	cfg := embed.NewConfig()
	cfg.Dir = *dir
	cfg.LogLevel = "warn"
	cfg.QuotaBackendBytes = *quota
	cfg.SnapshotCount = *snapshotCount
	cfg.SnapshotCatchUpEntries = *catchUp
	cfg.MaxTxnOps = *maxTxnOps
	cfg.MaxRequestBytes = *maxRequestBytes
	if *watchProgress != 0 {
		cfg.WatchProgressNotifyInterval = *watchProgress
	}
	cfg.ListenClientUrls = []url.URL{mustParse(*client)}
	cfg.AdvertiseClientUrls = cfg.ListenClientUrls
	cfg.ListenPeerUrls = []url.URL{mustParse(*peer)}
	cfg.AdvertisePeerUrls = cfg.ListenPeerUrls
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)

	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, "goetcd:", err)
		os.Exit(1)
	}
	<-etcd.Server.ReadyNotify()
	fmt.Println("ready to serve client requests")
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	select {
	case <-stop:
	case err = <-etcd.Err():
		fmt.Fprintln(os.Stderr, "goetcd:", err)
	}
	etcd.Close()
}

func mustParse(text string) url.URL {
	u, err := url.Parse(text)
	if err != nil {
		fmt.Fprintln(os.Stderr, "goetcd:", err)
		os.Exit(2)
	}
	return *u
}
