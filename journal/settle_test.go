package journal

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

func TestSettle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w, err := NewWriter(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Send([]Field{{"MESSAGE", []byte("last words")}}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		w.settle(time.Minute)
		close(done)
	}()
	b := make([]byte, 100)
	if n, err := l.Read(b); err != nil || n == 0 {
		t.Fatalf("entry: %d bytes, %v", n, err)
	}
	select {
	case <-done:
		t.Fatal("settled before the reader was done with the entry")
	default:
	}
	if n, err := l.Read(b); err != nil || n != 0 {
		t.Fatalf("end: %d bytes, %v", n, err)
	}
	<-done
}
