package abi

import (
	"fmt"
	"strconv"
	"strings"
)

// IDRange are the ids of the host that a pod's user namespace has: Shift is
// its root's. The zero value is no range, for a pod without a namespace.
type IDRange struct {
	Shift, Count uint32
}

// String is the form of arguments and records, SHIFT:COUNT.
func (r IDRange) String() string { return fmt.Sprintf("%d:%d", r.Shift, r.Count) }

// ParseIDRange reads the form of String.
func ParseIDRange(s string) (IDRange, error) {
	shift, count, ok := strings.Cut(s, ":")
	a, err1 := strconv.ParseUint(shift, 10, 32)
	b, err2 := strconv.ParseUint(count, 10, 32)
	if !ok || err1 != nil || err2 != nil || a == 0 || b == 0 || a+b > 1<<31 {
		return IDRange{}, fmt.Errorf("%.50q is no range of user ids: SHIFT:COUNT is, above 0 and within 2147483648", s)
	}
	return IDRange{uint32(a), uint32(b)}, nil
}

// Outside is the host's id for one of the pod, if it has one.
func (r IDRange) Outside(id uint32) (uint32, bool) {
	if r.Count == 0 {
		return id, true
	}
	return r.Shift + id, id < r.Count
}

// Inside is the pod's id for one of the host, if it is in the range.
func (r IDRange) Inside(id uint32) (uint32, bool) {
	if r.Count == 0 {
		return id, true
	}
	return id - r.Shift, id >= r.Shift && id-r.Shift < r.Count
}
