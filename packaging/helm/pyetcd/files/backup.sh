#!/bin/sh
# One snapshot of the cluster at CLUSTER into BACKUP_DIR, of which the newest BACKUP_KEEP stay. It takes its name only
# once etcdutl has read it.
set -eu
unproved=$BACKUP_DIR/unproved.db
rm -f "$unproved" "$unproved".part
# A snapshot waits for ever where nobody answers.
etcdctl --endpoints="$CLUSTER" endpoint health
etcdctl --endpoints="$CLUSTER" snapshot save "$unproved"
etcdutl snapshot status "$unproved"
mv "$unproved" "$BACKUP_DIR/snapshot-$(date -u +%Y%m%dT%H%M%SZ).db"
ls -1 "$BACKUP_DIR" | grep '^snapshot-.*\.db$' | sort -r | tail -n "+$((BACKUP_KEEP + 1))" | while read -r old; do
    rm "$BACKUP_DIR/$old"
done
