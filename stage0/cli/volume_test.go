package cli

import (
	"testing"

	"github.com/rkt-systemd/rkt/internal/podfile"
)

// An empty volume of a pod file has defaults; what it says counts.
func TestVolumeOf(t *testing.T) {
	two := 2
	for _, c := range []struct {
		name string
		in   podfile.Volume
		want string
	}{
		{"empty", podfile.Volume{Name: "v", Kind: "empty"}, "v,kind=empty"},
		{"all of it", podfile.Volume{Name: "v", Kind: "empty", Mode: "0123", UID: &two, GID: &two}, "v,kind=empty,mode=0123,uid=2,gid=2"},
		{"host", podfile.Volume{Name: "v", Kind: "host", Source: "/srv"}, "v,kind=host,source=/srv"},
		{"mode of a host volume", podfile.Volume{Name: "v", Kind: "host", Source: "/srv", Mode: "0755"}, ""},
		{"source of an empty volume", podfile.Volume{Name: "v", Kind: "empty", Source: "/srv"}, ""},
		{"no kind", podfile.Volume{Name: "v"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := volumeOf(&c.in)
			if (err != nil) != (c.want == "") {
				t.Fatal(err)
			}
			if err == nil && got.String() != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}
