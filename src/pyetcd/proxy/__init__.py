"""What stands between clients and a cluster: the TCP gateway and the gRPC proxy, as etcd has them."""
