package podfile

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
)

// series is a list of n values; %d is the number of one, from from on.
func series(n, from int, format string) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		if strings.Contains(format, "%d") {
			fmt.Fprintf(&b, format, from+i)
		} else {
			b.WriteString(format)
		}
	}
	return b.String()
}

type costly struct {
	label, name string
	valid       bool
	files       []File
}

// costlyFiles are pods that took from seconds to minutes when names were looked
// up one by one, and suggestions made that nobody saw.
func costlyFiles() []costly {
	const app = `"apps":[{"image":"a"}]`
	pod := func(label, name string, valid bool, text string) costly {
		return costly{label, name, valid, []File{{"web.json", []byte(text)}}}
	}
	out := []costly{
		pod("mounts", "web", true, `{"volumes":[`+series(26000, 0, `"v%d,kind=empty"`)+`],"apps":[{"image":"a","mounts":[`+series(18000, 8000, `"volume=v%d,target=/"`)+`]}]}`),
		pod("unknown volumes", "web", false, `{"volumes":[`+series(3000, 0, `"v%d,kind=empty"`)+`],"apps":[{"image":"a","mounts":[`+series(3000, 0, `"volume=x%d,target=/"`)+`]}]}`),
		pod("unknown apps", "web", false, `{"apps":[`+series(511, 0, `{"name":"app%d","image":"a"}`)+`,{"image":"z","systemd":{"unit":{"After":[`+series(50000, 0, `"apq%d"`)+`]}}}]}`),
		pod("unknown credentials", "web", false, `{"rkt":{"credentials":{`+series(15000, 0, `"c%d":{"load":"/x"}`)+`}},"apps":[{"image":"a","credentials":[`+series(10000, 0, `"d%d"`)+`]}]}`),
		pod("unknown directives", "web", true, `{`+app+`,"systemd":{"service":{`+series(50000, 0, `"Unit%d":0`)+`}}}`),
		pod("own directives", "web", true, `{`+app+`,"systemd":{"service":{`+series(50000, 0, `"X-%d":0`)+`}}}`),
		pod("directive of an app", "web", false, `{"apps":[{"image":"a","systemd":{"service":{"Restrat":[`+series(65000, 0, "0")+`]}}}]}`),
		pod("insecure options", "web", false, `{`+app+`,"rkt":{"insecureOptions":"`+strings.Repeat("imaag,", 100000)+`"}}`),
		pod("parameters", "web", false, `{`+app+`,"volumes":["x,`+strings.Repeat("kin=,", 100000)+`"]}`),
		pod("unknown keys", "web", true, `{`+series(50000, 0, `"ap%d":0`)+`,`+app+`}`),
		pod("profile", "web", true, `{`+series(30000, 0, `"k%d":0`)+`,"apps":[`+series(512, 0, `{"name":"a%d","image":"a"}`)+`],"rkt":{"profile":"strict"}}`),
		pod("long key", "web@x", true, `{`+app+`,"`+strings.Repeat("k", 500000)+`":[`+series(60000, 0, "0")+`]}`),
		pod("specifiers under a long key", "web@x", false, `{`+app+`,"`+strings.Repeat("k", 500000)+`":[`+series(60000, 0, `"%z"`)+`]}`),
		pod("drop-ins", "web", true, `{`+series(30000, 0, `"k%d":0`)+`,`+app+`}`),
	}
	last := &out[len(out)-1]
	for i := range maxDropIns - 1 {
		last.files = append(last.files, File{fmt.Sprintf("%d.json", i), []byte(`{"rkt":{"hostname":"h"}}`)})
	}
	return out
}

// TestCostlyFiles: what is said of one pod takes a bounded amount of work, whatever
// its files hold. It would go on for minutes if it did not.
func TestCostlyFiles(t *testing.T) {
	for _, c := range costlyFiles() {
		t.Run(c.label, func(t *testing.T) {
			p := &parser{}
			if root := p.pod0(c.name, c.files); !Failed(p.problems) {
				p.document(root)
			}
			if Failed(p.problems) == c.valid || len(p.problems) > maxProblems {
				t.Errorf("%d problems:\n%.500s", len(p.problems), lines(p.problems))
			}
			if p.looked > maxLooked || p.cells > maxCells+maxWord*maxWord*2 {
				t.Errorf("suggestions looked at %d names in %d steps", p.looked, p.cells)
			}
			for _, pr := range p.problems {
				if len(pr.Path) > 2000 {
					t.Errorf("a path of %d characters", len(pr.Path))
				}
			}
		})
	}
}

// TestManyDropIns: a drop-in costs what it holds itself, and no copy of the pod.
func TestManyDropIns(t *testing.T) {
	all := costlyFiles()
	c := all[len(all)-1]
	allocated := func(files []File) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		(&parser{}).pod0(c.name, files)
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	if one, many := allocated(c.files[:1]), allocated(c.files); many > 4*one {
		t.Errorf("%d bytes for the pod alone, %d with drop-ins", one, many)
	}
}

func BenchmarkCostlyFiles(b *testing.B) {
	for _, c := range costlyFiles() {
		b.Run(c.label, func(b *testing.B) {
			for b.Loop() {
				Parse(c.name, c.files)
			}
		})
	}
}

// TestSuggestionsOfMany: a few mistakes have suggestions also in a pod of many names.
func TestSuggestionsOfMany(t *testing.T) {
	_, ps := parse("web", `{"apps":[`+series(510, 0, `{"name":"worker-%d","image":"a"}`)+`,{"image":"z","systemd":{"unit":{"After":["workr-7","worker509"],"Wants":"wroker-88"}}}],
		"systemd":{"service":{"Restrat":"always"}}}`)
	for _, want := range []string{`no app "workr-7" in this pod (did you mean "worker-7"?)`, `"worker509" in this pod (did you mean "worker-509"?)`,
		`"wroker-88" in this pod (did you mean "worker-88"?)`, `Restrat= (did you mean "Restart"?)`} {
		if !strings.Contains(lines(ps), want) {
			t.Errorf("no %s in\n%s", want, lines(ps))
		}
	}
}

// TestNearest: what is left out early would not have been the nearest.
func TestNearest(t *testing.T) {
	plain := func(word string, known []string) string {
		best, limit := "", max(1, len(word)/3)+1
		for _, k := range known {
			if strings.EqualFold(k, word) {
				return k
			}
			if d := distance(word, k); d < limit {
				best, limit = k, d
			}
		}
		return best
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	known := Directives("service")
	for range 1000 {
		word := []byte(known[rnd.IntN(len(known))])
		for range rnd.IntN(6) {
			i := rnd.IntN(len(word))
			switch rnd.IntN(4) {
			case 0:
				word = append(word[:i], word[i+1:]...)
			case 1:
				word = append(word[:i], append([]byte{byte('a' + rnd.IntN(26))}, word[i:]...)...)
			case 2:
				word[i] ^= 0x20
			default:
				word[0], word[i] = word[i], word[0]
			}
			if len(word) == 0 {
				word = []byte("x")
			}
		}
		p := &parser{}
		if got, want := p.nearest(string(word), known), plain(string(word), known); got != want {
			t.Fatalf("nearest to %q is %q, want %q", word, got, want)
		}
	}
}
