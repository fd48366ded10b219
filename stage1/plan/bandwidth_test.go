package plan

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
)

func TestBandwidth(t *testing.T) {
	isolators := func(limits ...string) types.Isolators {
		text := "["
		for _, l := range limits {
			text += `{"name":"resource/network-bandwidth","value":{"default":true,"limit":"` + l + `"}},`
		}
		var out types.Isolators
		if err := json.Unmarshal([]byte(strings.TrimSuffix(text, ",")+"]"), &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, c := range []struct {
		name, pod string
		apps      []string
		net       string
		want      uint64
		warning   string
	}{
		{name: "none", apps: []string{""}},
		{name: "pod", pod: "1M", apps: []string{""}, want: 8_000_000},
		{name: "the only app's", apps: []string{"1Mi"}, want: 8 << 20},
		{name: "pod and app", pod: "2M", apps: []string{"1M"}, want: 16_000_000, warning: `of app "a0" is not applied: the pod's own is`},
		{name: "the largest", apps: []string{"1M", "3M", "2M"}, want: 24_000_000, warning: "24000000 bits a second"},
		{name: "one without", apps: []string{"1M", ""}, warning: `app "a1" has no limit`},
		{name: "host", net: "host", pod: "1M", apps: []string{""}, want: 8_000_000, warning: "uses the host's network"},
		{name: "more than there is", pod: "9E", apps: []string{""}, want: (1<<63 - 1) / 8 * 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := Input{Pod: &schema.PodManifest{}, Images: map[string]*schema.ImageManifest{}}
			in.Run.Net = []string{"default"}
			if c.net != "" {
				in.Run.Net = []string{c.net}
			}
			if c.pod != "" {
				in.Pod.Isolators = isolators(c.pod)
			}
			for i, l := range c.apps {
				name := types.ACName("a" + string(rune('0'+i)))
				app := &types.App{}
				if l != "" {
					app.Isolators = isolators(l)
				}
				if i%2 == 0 {
					in.Images[name.String()] = &schema.ImageManifest{App: app}
					app = nil
				}
				in.Pod.Apps = append(in.Pod.Apps, schema.RuntimeApp{Name: name, App: app})
			}
			p := &Plan{}
			p.warnBandwidth(in)
			if got := Bandwidth(in); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
			if got := strings.Join(p.Warnings, "\n"); (got == "") != (c.warning == "") || !strings.Contains(got, c.warning) {
				t.Errorf("warnings %q, want %q", got, c.warning)
			}
		})
	}
}
