// Command gowal reads and writes logs and snapshot files with etcd's own packages, for the interop tests.
//
//	gowal read  <wal dir> <index> <term>       print what etcd's log reader finds from that marker on
//	gowal markers <wal dir>                    print the snapshot markers etcd would start from, the last one first
//	gowal write <wal dir> <entries> <size>     write a log with etcd's writer, small segments, many saves
//	gowal snap  <file>                         print what etcd's reader finds in a .snap file
//	gowal member                               read member JSON lines, print how Go writes each
package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"

	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
)

type entry struct {
	Term, Index uint64
	Type        int32
	Data        string
}

type content struct {
	Metadata string
	State    [3]uint64
	Entries  []entry
	Markers  [][2]uint64
}

func main() {
	var err error
	switch os.Args[1] {
	case "read":
		err = read(os.Args[2], number(os.Args[3]), number(os.Args[4]))
	case "markers":
		err = markers(os.Args[2])
	case "write":
		err = write(os.Args[2], number(os.Args[3]), number(os.Args[4]))
	case "snap":
		err = readSnap(os.Args[2])
	case "member":
		err = members()
	default:
		err = fmt.Errorf("unknown command %q", os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func number(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func show(value any) error {
	return json.NewEncoder(os.Stdout).Encode(value)
}

func markers(dir string) error {
	found, err := validMarkers(dir)
	if err != nil {
		return err
	}
	slices.Reverse(found)
	return show(found)
}

func validMarkers(dir string) ([][2]uint64, error) {
	markers, err := wal.ValidSnapshotEntries(zap.NewNop(), dir)
	found := [][2]uint64{}
	for _, m := range markers {
		found = append(found, [2]uint64{m.GetIndex(), m.GetTerm()})
	}
	return found, err
}

func read(dir string, index, term uint64) error {
	logger := zap.NewNop()
	markers, err := validMarkers(dir)
	if err != nil {
		return err
	}
	w, err := wal.Open(logger, dir, &walpb.Snapshot{Index: &index, Term: &term})
	if err != nil {
		return err
	}
	defer w.Close()
	metadata, state, entries, err := w.ReadAll()
	if err != nil {
		return err
	}
	found := content{Metadata: hex.EncodeToString(metadata), Markers: markers}
	found.State = [3]uint64{state.GetTerm(), state.GetVote(), state.GetCommit()}
	for _, e := range entries {
		found.Entries = append(found.Entries, entry{e.GetTerm(), e.GetIndex(), int32(e.GetType()), hex.EncodeToString(e.Data)})
	}
	return show(found)
}

func write(dir string, count, size uint64) error {
	wal.SegmentSizeBytes = 64 * 1024
	w, err := wal.Create(zap.NewNop(), dir, []byte("go metadata"))
	if err != nil {
		return err
	}
	defer w.Close()
	term, vote := uint64(3), uint64(0x8e9e05c52164694d)
	for i := uint64(1); i <= count; i++ {
		e := &raftpb.Entry{Term: &term, Index: &i}
		if n := i * 7 % (size + 1); n > 0 {
			e.Data = bytes.Repeat([]byte{byte(i)}, int(n))
		}
		commit := i - 1
		if err := w.Save(&raftpb.HardState{Term: &term, Vote: &vote, Commit: &commit}, []*raftpb.Entry{e}); err != nil {
			return err
		}
		if i == count/2 {
			marked := i - 1
			conf := &raftpb.ConfState{Voters: []uint64{vote}}
			if err := w.SaveSnapshot(&walpb.Snapshot{Index: &marked, Term: &term, ConfState: conf}); err != nil {
				return err
			}
		}
	}
	return nil
}

func readSnap(file string) error {
	s, err := snap.Read(zap.NewNop(), file)
	if err != nil {
		return err
	}
	return show(map[string]any{
		"Index":  s.Metadata.GetIndex(),
		"Term":   s.Metadata.GetTerm(),
		"Voters": s.Metadata.ConfState.GetVoters(),
		"Data":   hex.EncodeToString(s.Data),
	})
}

func members() error {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var m membership.Member
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			return err
		}
		b, err := json.Marshal(m)
		if err != nil {
			return err
		}
		fmt.Println(string(b))
	}
	return lines.Err()
}
