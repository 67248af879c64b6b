// Writes a database of everything that bbolt's files may have and etcd's have not: buckets within buckets, inline
// and not, sequences, empty buckets, names that are no text, values larger than pages, free pages. With a second
// argument its freelist is not stored.
package main

import (
	"fmt"
	"os"
	"strings"

	bolt "go.etcd.io/bbolt"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func put(bucket *bolt.Bucket, key, value string) {
	must(0, bucket.Put([]byte(key), []byte(value)))
}

func main() {
	database := must(bolt.Open(os.Args[1], 0o600, &bolt.Options{NoFreelistSync: len(os.Args) > 2}))
	must(0, database.Update(fill))
	must(0, database.Update(func(tx *bolt.Tx) error {
		for number := 1000; number < 3000; number++ {
			must(0, tx.Bucket([]byte("big")).Delete(fmt.Appendf(nil, "key%06d", number)))
		}
		return nil
	}))
	must(0, database.Close())
}

func fill(tx *bolt.Tx) error {
	big := must(tx.CreateBucket([]byte("big")))
	for number := range 5000 {
		put(big, fmt.Sprintf("key%06d", number), strings.Repeat("v", number%300))
	}
	must(0, big.SetSequence(77))
	small := must(tx.CreateBucket([]byte("small\xff<&>")))
	put(small, "k\xffk", "\x00\x01")
	nest := must(tx.CreateBucket([]byte("nest")))
	put(nest, "long", strings.Repeat("l", 9000))
	for number := range 5 {
		child := must(nest.CreateBucket(fmt.Appendf(nil, "sub%d", number)))
		must(0, child.SetSequence(uint64(number)))
		for key := range number * 100 {
			put(child, fmt.Sprint(key), "x")
		}
		put(must(child.CreateBucket([]byte("deep"))), "z", "z")
	}
	must(tx.CreateBucket([]byte("empty")))
	return nil
}
