#!/bin/sh
# Start the member of this pod. ETCD_* are its settings, CLUSTER are client URLs of the cluster.
#
# With data it goes on. Without, it is one of those that begin the cluster (it is named in ETCD_INITIAL_CLUSTER, and
# nobody at CLUSTER knows of any member), or it joins: as a learner, promoted once it has caught up. A member whose
# data is lost joins anew under its name: with an empty log it must not go on under its old ID.
set -eu

joined() { [ -n "$(ls "$ETCD_DATA_DIR/member/wal" 2>/dev/null)" ]; }

# ID of the member that has our peer URL, if any: "id, status, name, peer URLs, client URLs, is learner".
our_id() {
    ctl member list | awk -F', ' -v url="$ETCD_INITIAL_ADVERTISE_PEER_URLS" '$4 == url { print $1 }'
}

ctl() { etcdctl --endpoints="$CLUSTER" --command-timeout=10s "$@"; }

promote() {
    while sleep 2; do
        if ctl member list | grep "^$1, .*, false\$" >/dev/null; then return; fi
        if ctl member promote "$1" 2>/dev/null; then return; fi
    done
}

if joined; then
    export ETCD_INITIAL_CLUSTER_STATE=existing
    # One that ended as a learner is promoted after all.
    id=$(our_id 2>/dev/null || true)
    if [ -n "$id" ]; then promote "$id" & fi
    exec etcd
fi

case ",$ETCD_INITIAL_CLUSTER" in
*",$ETCD_NAME="*) begins=yes ;;
*) begins=no ;;
esac

# Whether there is a cluster is asked with little patience: at the very first start nobody answers.
ask() { etcdctl --endpoints="$CLUSTER" --command-timeout="${ASK_SECONDS:-3}s" member list "$@" 2>/dev/null; }

until members=$(ask); do
    # Without a quorum those that still run know the members: then there is a cluster to wait for.
    if [ "$begins" = yes ] && [ -z "$(ask --consistency=s)" ]; then
        export ETCD_INITIAL_CLUSTER_STATE=new
        exec etcd
    fi
    echo "waiting for the cluster at $CLUSTER"
    sleep 2
done

# What changes members is tried until it shows: a cluster refuses it while it is not in good health.
id=$(our_id)
if [ -n "$id" ] && ! echo "$members" | grep "^$id, unstarted" >/dev/null; then
    # A name without data, so the data is lost. One without a name was added before and never started.
    while [ "$(our_id)" = "$id" ]; do ctl member remove "$id" || sleep 2; done
fi
while id=$(our_id) && [ -z "$id" ]; do
    ctl member add "$ETCD_NAME" --learner --peer-urls="$ETCD_INITIAL_ADVERTISE_PEER_URLS" >/dev/null || sleep 2
done

# Those that have started, under their names, and this one.
ETCD_INITIAL_CLUSTER=$(ctl member list | awk -F', ' -v id="$id" -v name="$ETCD_NAME" '
    { if ($1 == id) $3 = name; if ($3 == "") next; n = split($4, urls, ",")
      for (at = 1; at <= n; at++) { printf "%s%s=%s", sep, $3, urls[at]; sep = "," } }')
ETCD_INITIAL_CLUSTER_STATE=existing
export ETCD_INITIAL_CLUSTER ETCD_INITIAL_CLUSTER_STATE
promote "$id" &
exec etcd
