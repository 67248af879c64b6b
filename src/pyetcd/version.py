"""The versions this server speaks for: those of the etcd it stands in for."""

SERVER_VERSION = "3.7.1"
CLUSTER_VERSION = "3.7.0"
API_VERSION = "3.7"
MIN_CLUSTER_VERSION = "3.0.0"
