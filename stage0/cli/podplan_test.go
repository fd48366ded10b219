package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rkt-systemd/rkt/internal/podfile"
)

// TestActionsBlind: a pod whose old file says nothing, since it is broken or gone, may run all the same.
func TestActionsBlind(t *testing.T) {
	const (
		plain  = `{"apps": [{"image": "example.com/a"}]}`
		wanted = `{"apps": [{"image": "example.com/a"}], "systemd": {"install": {"WantedBy": "multi-user.target"}}}`
		timer  = `{"apps": [{"image": "example.com/a"}], "systemd": {"timer": {"OnCalendar": "daily"}}}`
		bad    = `{"apps": [`
		mask   = ""
		none   = "none"
		units  = "stop rkt@web.path, stop rkt@web.socket, stop rkt@web.timer, "
	)
	load := func(text string) (*podfile.Pod, []podfile.Problem) {
		root := t.TempDir()
		if text != none {
			path := filepath.Join(root, "etc/rkt/pods/web.json")
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return podfile.Load(podfile.SearchOptions{Root: root}, "web")
	}
	for _, c := range []struct {
		name, change, old, text string
		running                 bool
		want                    string
	}{
		{"corrected", changeNew, bad, plain, true, units + "try-restart rkt@web.service"},
		{"corrected, perhaps about to run", changeNew, bad, wanted, false, units + "try-restart rkt@web.service, start rkt@web.service"},
		{"corrected, with a timer", changeNew, bad, timer, true,
			"stop rkt@web.path, stop rkt@web.socket, stop rkt@web.service, try-restart rkt@web.timer, start rkt@web.service, start rkt@web.timer"},
		{"left, broken", changeRemoved, bad, none, true, units + "stop rkt@web.service"},
		{"left, broken, not running", changeRemoved, bad, mask, false, units + "stop rkt@web.service"},
		{"runs without a file", changeNew, none, plain, true, units + "try-restart rkt@web.service"},
		{"runs though masked", changeNew, mask, plain, true, units + "try-restart rkt@web.service"},
		{"really new", changeNew, none, wanted, false, "start rkt@web.service"},
		{"no mask any more", changeNew, mask, wanted, false, "start rkt@web.service"},
		{"still masked", changeSame, mask, mask, true, ""},
		{"a mask for nothing", changeRemoved, none, mask, false, ""},
		{"left", changeRemoved, plain, none, true, "stop rkt@web.service"},
		{"without meaning", changeChanged, plain, plain + "\n", true, ""},
		{"a timer now", changeChanged, plain, timer, true, "try-restart rkt@web.service, start rkt@web.timer"},
	} {
		old, before := load(c.old)
		p, _ := load(c.text)
		got, err := actions(c.change, "web", old, p, c.running, broken(before))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		var words []string
		for _, a := range got {
			words = append(words, a.Verb+" "+a.Unit)
		}
		if s := strings.Join(words, ", "); s != c.want {
			t.Errorf("%s: %q, want %q", c.name, s, c.want)
		}
	}
	if got, err := actions(changeRemoved, "web@", nil, nil, false, true); len(got) != 0 || err != nil {
		t.Errorf("a template has no unit: %v, %v", got, err)
	}
}
