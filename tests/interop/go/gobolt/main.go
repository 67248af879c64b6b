// Command gobolt lets Go's bbolt look at, check and change database files for the tests of our engine.
//
//	gobolt check FILE              Tx.Check; prints what it finds
//	gobolt dump FILE               all buckets as JSON: name, sequence, keys and values in hexadecimal
//	gobolt change FILE SEED COUNT FREELIST
//	                               COUNT transactions of random puts and deletes as etcd makes them; FREELIST is
//	                               none (as etcd), array or map: whether and how free pages are written down
package main

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"math/rand"
	"os"
	"strconv"

	bolt "go.etcd.io/bbolt"
)

type bucket struct {
	Sequence uint64
	Items    map[string]string
}

func main() {
	log.SetFlags(0)
	command, path := os.Args[1], os.Args[2]
	options := &bolt.Options{NoFreelistSync: true, FreelistType: bolt.FreelistMapType}
	if command == "change" {
		options.NoFreelistSync = os.Args[5] == "none"
		if os.Args[5] == "array" {
			options.FreelistType = bolt.FreelistArrayType
		}
	}
	db, err := bolt.Open(path, 0o600, options)
	must(err)
	defer db.Close()
	switch command {
	case "check":
		check(db)
	case "dump":
		dump(db)
	case "change":
		seed, err := strconv.ParseInt(os.Args[3], 10, 64)
		must(err)
		count, err := strconv.Atoi(os.Args[4])
		must(err)
		for i := 0; i < count; i++ {
			must(db.Update(func(tx *bolt.Tx) error { return change(tx, rand.New(rand.NewSource(seed+int64(i)))) }))
		}
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func check(db *bolt.DB) {
	must(db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			fmt.Println(err)
		}
		return nil
	}))
}

func dump(db *bolt.DB) {
	buckets := map[string]bucket{}
	must(db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			items := map[string]string{}
			buckets[string(name)] = bucket{b.Sequence(), items}
			return b.ForEach(func(k, v []byte) error {
				items[hex.EncodeToString(k)] = hex.EncodeToString(v)
				return nil
			})
		})
	}))
	must(json.NewEncoder(os.Stdout).Encode(buckets))
}

func change(tx *bolt.Tx, rnd *rand.Rand) error {
	key, err := tx.CreateBucketIfNotExists([]byte("key"))
	if err != nil {
		return err
	}
	key.FillPercent = 0.9
	next, err := key.NextSequence()
	if err != nil {
		return err
	}
	revision := make([]byte, 17)
	for sub := 0; sub < rnd.Intn(200); sub++ {
		binary.BigEndian.PutUint64(revision, 1<<20+next)
		revision[8] = '_'
		binary.BigEndian.PutUint64(revision[9:], uint64(sub))
		value := make([]byte, []int{0, 40, 300, 300, 300, 6000}[rnd.Intn(6)])
		rnd.Read(value)
		if err := key.Put(revision, value); err != nil {
			return err
		}
	}
	var gone [][]byte
	cursor, skip := key.Cursor(), 1+rnd.Intn(5)
	for k, _ := cursor.First(); k != nil && len(gone) < 150; k, _ = cursor.Next() {
		if rnd.Intn(skip) == 0 {
			gone = append(gone, append([]byte{}, k...))
		}
	}
	for _, k := range gone {
		if err := key.Delete(k); err != nil {
			return err
		}
	}
	for _, name := range []string{"lease", "meta", "empty"} {
		b, err := tx.CreateBucketIfNotExists([]byte(name))
		if err != nil {
			return err
		}
		for i := 0; name != "empty" && i < rnd.Intn(60); i++ {
			k := []byte(fmt.Sprintf("%d", rnd.Intn(300)))
			if rnd.Intn(3) == 0 {
				err = b.Delete(k)
			} else {
				err = b.Put(k, k)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}
