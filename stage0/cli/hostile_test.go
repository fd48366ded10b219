package cli

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/hostile"
	"github.com/rkt-systemd/rkt/stage0/image"
)

// TestHostileArguments puts hostile strings into every argument of rkt run: it
// is refused, or the pod's manifest and name service files say that and no more.
func TestHostileArguments(t *testing.T) {
	im, _, err := appc.ParseImageManifest([]byte(`{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/x","labels":[{"name":"os","value":"linux"},{"name":"arch","value":"amd64"}],
		"app":{"exec":["/bin/a"],"user":"0","group":"0"}}`))
	if err != nil {
		t.Fatal(err)
	}
	img := image.Image{Name: "example.com/x", Key: "sha512-" + strings.Repeat("0", 64), Manifest: im}
	// what the pod gets: its app's strings and the number of lines of its files
	type result struct {
		strings map[string]bool
		lines   int
	}
	run := func(args []string) (*result, error) {
		var po podOptions
		var so startOptions
		cmd := &cobra.Command{Use: "run"}
		po.flags(cmd, true)
		so.flags(cmd)
		g, err := parseImages(cmd, args, appFlags(), true)
		if err != nil {
			return nil, err
		}
		names, err := so.check()
		if err != nil {
			return nil, err
		}
		spec, err := testApp().spec(g, &po)
		if err != nil {
			return nil, err
		}
		images := make([]image.Image, len(g.apps))
		for i := range images {
			images[i] = img
		}
		b, _, err := spec.Manifest(images)
		if err != nil {
			return nil, err
		}
		m, _, err := appc.ParsePodManifest(b)
		if err != nil {
			return nil, err
		}
		r := &result{map[string]bool{}, strings.Count(names.resolv.String("x"), "\n")}
		for _, e := range names.hosts {
			r.lines += strings.Count(e.IP+e.Names[0], "\n")
		}
		for i := range m.Apps {
			a := m.Apps[i].App
			for _, s := range append(a.Exec, a.User, a.Group, a.WorkingDirectory) {
				r.strings[s] = true
			}
			for _, e := range a.Environment {
				r.strings[e.Value] = true
			}
			for _, mount := range m.Apps[i].Mounts {
				r.strings[mount.Path] = true
			}
			for _, s := range a.UserAnnotations {
				r.strings[s] = true
			}
		}
		return r, nil
	}
	line := []string{"--volume=v,kind=host,source=/srv", "--dns=1.1.1.1", "--dns-search=x", "--dns-opt=y", "--dns-domain=z", "--hosts-entry=1.1.1.1=h",
		"example.com/x", "--name=a", "--exec=/bin/b"}
	usual, err := run(line)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		arg     string
		arrives bool
	}{
		{"--exec=@", true}, {"--user=@", true}, {"--group=@", true}, {"--working-dir=/@", false}, {"--environment=N=@", true}, {"--environment=@=v", false},
		{"--name=@", false}, {"--mount=volume=v,target=/@", false}, {"--mount=@", false}, {"--annotation=x=@", false}, {"--annotation=@=x", false},
		{"--user-annotation=x=@", true}, {"--user-label=x=@", false}, {"--caps-retain=@", false}, {"--caps-remove=@", false}, {"--seccomp=@", false}, {"--memory=@", false}, {"--cpu=@", false},
		{"--supplementary-gids=@", false}, {"--readonly-rootfs=@", false}, {"--stdin=@", false}, {"--stdout=@", false}, {"--stderr=@", false}, {"--cpu-shares=@", false}, {"--oom-score-adj=@", false},
		{"--volume=@", false}, {"--volume=w,kind=host,source=/@", false}, {"--volume=w,kind=empty,mode=@", false}, {"--volume=w,kind=host,source=/x,owner=@", false}, {"--port=@", false},
		{"--set-env=N=@", true}, {"--set-env=@", false}, {"--dns=@", false}, {"--dns-search=@", false}, {"--dns-opt=@", false}, {"--dns-domain=@", false}, {"--hosts-entry=@", false},
		{"--hosts-entry=1.1.1.1=@", false}, {"--ipc=@", false}, {"@", false}, {"-- @", true},
	} {
		t.Run(c.arg, func(t *testing.T) {
			taken := 0
			for _, s := range hostile.Strings() {
				if strings.ContainsRune(s, 0) {
					continue // ends the argument
				}
				args := append([]string{}, line...)
				if rest, ok := strings.CutPrefix(c.arg, "-- "); ok {
					args = append(args, "--", strings.ReplaceAll(rest, "@", s))
				} else {
					arg := strings.Replace(c.arg, "@", s, 1)
					if strings.HasPrefix(arg, "--exec=") {
						args = args[:len(args)-1]
					}
					args = append(args, arg)
				}
				r, err := run(args)
				if err != nil {
					continue
				}
				taken++
				if c.arrives && s != "" && s != "---" && !r.strings[s] {
					t.Errorf("%.80q did not arrive", s)
				}
				if c.arg != "--dns=@" && !strings.HasPrefix(c.arg, "--dns-") && r.lines != usual.lines || r.lines > usual.lines+1+strings.Count(s, ",") {
					t.Errorf("%.80q makes %d lines, not %d", s, r.lines, usual.lines)
				}
			}
			t.Logf("%d taken", taken)
		})
	}
}
