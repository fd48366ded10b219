package filtergen

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/stage1/filter"
)

// Numbers of the 32-bit entry's calls that carry others, and what they carry
// (linux/net.h, linux/ipc.h). Of ipc's first argument the upper half is a
// version.
const (
	nrSocketcall = 102
	nrIPC        = 117
)

func socketCalls() map[uint32]string {
	return map[uint32]string{1: "socket", 2: "bind", 3: "connect", 4: "listen", 5: "accept", 6: "getsockname", 7: "getpeername",
		8: "socketpair", 9: "send", 10: "recv", 11: "sendto", 12: "recvfrom", 13: "shutdown", 14: "setsockopt", 15: "getsockopt",
		16: "sendmsg", 17: "recvmsg", 18: "accept4", 19: "recvmmsg", 20: "sendmmsg"}
}

func ipcCalls() map[uint32]string {
	return map[uint32]string{1: "semop", 2: "semget", 3: "semctl", 4: "semtimedop", 11: "msgsnd", 12: "msgrcv", 13: "msgget",
		14: "msgctl", 21: "shmat", 22: "shmdt", 23: "shmget", 24: "shmctl"}
}

// carried answers socketcall and ipc by what they carry: a list that names
// connect means connect, whichever way a 32-bit program takes.
func (p Policy) carried() filter.Program {
	if !p.Carried {
		return nil
	}
	act := p.answers()
	// send is sendto without an address, and recv alike: who forbids one means both
	for short, long := range map[string]string{"send": "sendto", "recv": "recvfrom"} {
		if a, ok := act[long]; ok && a != filter.Allow {
			act[short] = a
		}
	}
	return slices.Concat(p.carrier(nrSocketcall, "socketcall", socketCalls(), act), p.carrier(nrIPC, "ipc", ipcCalls(), act))
}

func (p Policy) carrier(nr uint32, name string, calls map[uint32]string, act map[string]uint32) filter.Program {
	if _, ok := act[name]; ok {
		return nil // the list names all of it; the search finds it
	}
	body := filter.Program{load(offArg0), {Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0xffff}}
	for _, n := range slices.Sorted(maps.Keys(calls)) {
		a, ok := act[calls[n]]
		if !ok || a == p.Default {
			continue
		}
		body = append(body, filter.Insn{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: n, Jf: 1}, ret(a))
	}
	body = append(body, ret(p.Default))
	return append(filter.Program{jeq(nr, 1), ja(len(body))}, body...)
}
