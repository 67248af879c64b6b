"""Members that listen elsewhere than they say they can be reached, and peers on Unix sockets."""

from __future__ import annotations

from pathlib import Path

from cluster import Cluster
from cluster_load import Load
from conftest import Start, kinds_of


def test_members_on_unix_sockets(mixture: str, start: Start) -> None:
    cluster = start(mixture, 3, unix_peers=True)
    with Load(cluster) as load:
        load.wait_writes(20)
        leader = cluster.leader()
        leader.kill()
        cluster.leader()
        load.wait_writes(20)
        cluster.restart(leader)
        load.wait_writes(20)
    cluster.same_hashes()


def test_members_that_listen_on_all_addresses_and_advertise_a_name(mixture: str, tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, kinds_of(mixture, 3))
    for member in cluster.members:
        member.peer_url = f"http://localhost:{member.peer_port}"
        member.listen_peer_url = f"http://0.0.0.0:{member.peer_port}"
        member.flags |= {
            "listen-client-urls": f"http://0.0.0.0:{member.port}",
            "advertise-client-urls": f"http://localhost:{member.port}",
        }
    with cluster, Load(cluster) as load:
        load.wait_writes(20)
        told = cluster.leader().client.members().members
        assert {url for one in told for url in one.peerURLs} == {m.peer_url for m in cluster.members}
        assert {url for one in told for url in one.clientURLs} == {
            f"http://localhost:{member.port}" for member in cluster.members
        }
        cluster.leader().kill()
        cluster.leader()
        load.wait_writes(20)
