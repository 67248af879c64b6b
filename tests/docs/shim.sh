#!/bin/bash
# Where the page leaves ports to their defaults, they are those of this run; what a server prints goes to a file.
program={program} client={client} peer={peer} logs={logs} kind={kind}
given=" $* "
case $kind in
etcdctl)
  [[ $given == *" --endpoints"* || -n $ETCDCTL_ENDPOINTS || $1 == completion ]] || set -- --endpoints=127.0.0.1:$client "$@" ;;
etcd)
  case $given in *" --version "*|*" --help "*|*" --config-file"*) ;; *)
    name=default previous=
    for word in "$@"; do [[ $previous == --name ]] && name=$word; previous=$word; done
    [[ $given == *" --listen-client-urls"* ]] ||
      set -- --listen-client-urls=http://localhost:$client --advertise-client-urls=http://localhost:$client "$@"
    [[ $given == *" --initial-cluster "* || $given == *" --listen-peer-urls"* ]] ||
      set -- --initial-cluster=$name=http://localhost:$peer "$@"
    [[ $given == *" --listen-peer-urls"* ]] ||
      set -- --listen-peer-urls=http://localhost:$peer --initial-advertise-peer-urls=http://localhost:$peer "$@"
  esac
  case $given in *" --version "*|*" --help "*) ;; *) exec "$program" "$@" >>"$logs/$$" 2>&1 ;; esac ;;
esac
exec "$program" "$@"
