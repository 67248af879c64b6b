// etcd is real etcd's own executable, with all its flags, so that clusters can be made of its members and ours.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
