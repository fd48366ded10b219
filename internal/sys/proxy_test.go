package sys

import (
	"net"
	"testing"
	"time"
)

// Connections that wait are closed, those that come later are not.
func TestRefuseWaiting(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	waiting := []net.Conn{dial(), dial(), dial()}
	RefuseWaiting([]int{int(f.Fd())})
	for _, c := range waiting {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := c.Read(make([]byte, 1))
		if e, ok := err.(net.Error); n != 0 || err == nil || ok && e.Timeout() {
			t.Errorf("a waiting connection reads %d bytes, %v", n, err)
		}
	}
	later := dial()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.RemoteAddr().String() != later.LocalAddr().String() {
		t.Errorf("accepted %s, not %s", c.RemoteAddr(), later.LocalAddr())
	}
}
