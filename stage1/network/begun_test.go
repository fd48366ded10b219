package network

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rkt-systemd/rkt/internal/podfs"
)

func TestBegun(t *testing.T) {
	pod := t.TempDir()
	if err := os.Mkdir(filepath.Join(pod, podfs.NetDir), 0o755); err != nil {
		t.Fatal(err)
	}
	leaving, info := filepath.Join(pod, podfs.NetDir, leavingFile), filepath.Join(pod, podfs.NetInfo)
	for i, c := range []struct {
		prepare func() error
		want    bool
	}{
		{func() error { return nil }, true}, // set up but half
		{func() error { return os.WriteFile(info, nil, 0o644) }, true},
		{func() error { return os.Remove(leaving) }, false},
		{func() error { return nil }, true}, // again
	} {
		if err := c.prepare(); err != nil {
			t.Fatal(err)
		}
		if got, err := begun(pod); err != nil || got != c.want {
			t.Errorf("%d: %v, %v", i, got, err)
		}
	}
}
