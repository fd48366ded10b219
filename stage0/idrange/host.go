package idrange

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// maxFile bounds what is read of a file of the host.
const maxFile = 64 << 20

// taken are the ranges, by number, in which users of the host are, or ids that
// the host gives to its users for their containers.
func (h Host) taken() (map[uint32]bool, error) {
	taken := map[uint32]bool{}
	for _, name := range h.Users {
		if err := read(name, func(r io.Reader) error { return users(r, taken) }); err != nil {
			return nil, err
		}
	}
	for _, name := range h.Subordinate {
		if err := read(name, func(r io.Reader) error { return subordinate(r, taken) }); err != nil {
			return nil, err
		}
	}
	return taken, nil
}

func read(name string, parse func(io.Reader) error) error {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		defer f.Close()
		err = parse(io.LimitReader(f, maxFile))
	}
	if err != nil {
		return fmt.Errorf("reading the user ids of the host, %q: %w", name, err)
	}
	return nil
}

// mark notes the ids from first, up to the last there is.
func mark(taken map[uint32]bool, first, count uint64) {
	const end = 1 << 32
	if count == 0 || first >= end {
		return
	}
	last := min(first+min(count, end)-1, end-1)
	for n := first / Count; n <= last/Count; n++ {
		taken[uint32(n)] = true
	}
}

// fields calls f with the fields of every line; lines that are none are left
// out, as by those whose files these are.
func fields(r io.Reader, f func([]string)) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		f(strings.Split(strings.TrimSpace(sc.Text()), ":"))
	}
	return sc.Err()
}

// users reads passwd or group: the third field is the id in both.
func users(r io.Reader, taken map[uint32]bool) error {
	return fields(r, func(f []string) {
		if len(f) < 3 {
			return
		}
		if id, err := strconv.ParseUint(f[2], 10, 32); err == nil {
			mark(taken, id, 1)
		}
	})
}

// subordinate reads subuid or subgid: NAME:FIRST:COUNT.
func subordinate(r io.Reader, taken map[uint32]bool) error {
	return fields(r, func(f []string) {
		if len(f) != 3 {
			return
		}
		first, err1 := strconv.ParseUint(f[1], 10, 64)
		count, err2 := strconv.ParseUint(f[2], 10, 64)
		if err1 == nil && err2 == nil {
			mark(taken, first, count)
		}
	})
}
