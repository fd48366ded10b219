package podunit

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rkt-systemd/rkt/internal/hostile"
	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/unitfile"
)

// A pod file with every kind of string; see hostile.Marks.
const hostilePod = `{"acVersion":"«version|0.8.11»","acKind":"PodManifest","apps":[{"name":"«app|a»","image":"«image|example.com/x»","exec":["«EXEC|/bin/a»","«ARG|b»"],"args":["«ARGS|c»"],
"user":"«USER|0»","group":"«GROUP|0»","workingDirectory":"«DIR|/w»","environment":{"«env name|N»":"«VALUE|v»"},
"mounts":[{"volume":"«mount|vol»","path":"«mount path|/data»"},"«short mount|volume=vol,target=/x»"],"annotations":{"«annotation|x»":"«annotation value|y»"},
"stdin":"«stdin|null»","stdout":"«stdout|log»","isolators":[{"name":"«isolator|resource/memory»","value":{"limit":"«memory|64M»"}}],
"systemd":{"unit":{"After":["«after|b»"]},"service":{"Restart":"«restart|always»","RestartSec":"«restart seconds|5»"}}},{"name":"b","image":{"name":"«image name|example.com/y»","labels":{"«label|version»":"«label value|1»"}}}],
"volumes":[{"name":"«volume|vol»","kind":"«kind|host»","source":"«source|/srv»","owner":"«owner|idmap»"},{"name":"e","kind":"empty","mode":"«mode|0755»"},"«short volume|v2,kind=host,source=/srv/y»"],
"isolators":[{"name":"resource/cpu","value":{"limit":"«cpu|500m»"}}],"annotations":{"«pod annotation|x»":"«pod annotation value|y»"},
"ports":[{"name":"«port|p»","hostPort":80,"hostIP":"«host IP|127.0.0.1»"},"«short port|q:81»",{"name":"«active port|r»","hostPort":82,"hostIP":"«active IP|127.0.0.1»","activate":true,"idleTime":"«idle|5min»"}],
"userAnnotations":{"«user annotation name|k»":"«user annotation|v»"},"userLabels":{"«user label name|k»":"«user label|v»"},
"systemd":{"unit":{"Description":"«description|d»","After":"«unit after|x.service»","«unit key|Documentation»":"«unit value|man:x»"},
"service":{"Nice":"«nice|5»","«service key|LimitNOFILE»":"«service value|100»"},"socket":{"ListenStream":"«listen|80»","«socket key|Backlog»":"«socket value|100»"},
"timer":{"OnCalendar":"«calendar|daily»","«timer key|AccuracySec»":"«timer value|5»"},"path":{"PathExists":"«watched|/a»","«path key|DirectoryMode»":"«path value|0755»"},"install":{"WantedBy":["«wanted|multi-user.target»"],"Alias":"«alias|other@web.service»"}},
"rkt":{"net":"«net|default»","hostname":"«hostname|web»","stage1":"«stage1|/s.aci»","pullPolicy":"«pull|new»","insecureOptions":["«insecure|image»"],
"dns":["«dns|1.1.1.1»"],"dnsSearch":["«dns search|x»"],"dnsOptions":["«dns option|y»"],"dnsDomain":"«dns domain|z»","hostsEntries":["«hosts entry|1.1.1.1=x»"],"ipc":"«ipc|auto»",
"environment":{"«pod env|A»":"«pod env value|b»"},"environmentFiles":["«environment file|/e»"]}}`

func TestHostilePodFiles(t *testing.T) {
	const name, path = "web", "/etc/rkt/pods/web.json"
	shape := func(out Output) map[string]int {
		all := map[string]int{}
		for _, f := range out.Files {
			if ext := filepath.Ext(f.Path); strings.HasPrefix(f.Path, "rkt-proxy-web-") && unitfile.IsUnitName(f.Path) {
				all["rkt-proxy"+ext]++ // the port's name is in it
			} else {
				all[f.Path]++
			}
			sections, err := unitfile.Parse(string(f.Data))
			if err != nil {
				t.Errorf("%v in\n%s", err, f.Data)
			}
			for _, s := range sections {
				for _, l := range s.Entries {
					all["["+s.Name+"] "+l.Key]++
				}
			}
		}
		for _, l := range out.Links {
			if !filepath.IsLocal(l.Path) || strings.ContainsAny(l.Path, "\n\x00") || !slices.Contains([]string{DefaultUnitDir + "/rkt@.service", "../rkt@web.service", "rkt@web.service", "../rkt@web.socket", "../rkt@web.timer", "../rkt@web.path"}, l.Target) && !strings.HasPrefix(l.Target, "../rkt-proxy-web-") {
				t.Errorf("a link %q to %q", l.Path, l.Target)
			}
		}
		return all
	}
	p, problems := podfile.Parse(name, []podfile.File{{Path: path, Data: hostile.Fill(hostilePod, "", nil)}})
	if podfile.Failed(problems) {
		t.Fatal(problems)
	}
	good, err := Pod(p, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := shape(good)
	bad := []podfile.File{{Path: path, Data: hostile.Fill(hostilePod, "ipc", []byte("x"))}}
	_, problems = podfile.Parse(name, bad)
	out, err := Broken(podfile.ParseInstall(name, bad), problems, Options{})
	if err != nil || !podfile.Failed(problems) {
		t.Fatal(problems, err)
	}
	broken := shape(out)
	strs := hostile.Strings()
	var written []string
	for _, mark := range hostile.Marks(hostilePod) {
		t.Run(mark, func(t *testing.T) {
			taken := 0
			for _, s := range strs {
				files := []podfile.File{{Path: path, Data: hostile.Fill(hostilePod, mark, hostile.JSONText(s))}}
				p, problems := podfile.Parse(name, files)
				for _, pr := range problems {
					if text := pr.Error(); len(text) > 4096 || strings.ContainsAny(text, "\x00\x1b\n\r") || !strings.HasPrefix(text, path+":") {
						t.Errorf("%.80q: the problem is unfit to be shown: %.300q", s, text)
					}
				}
				if podfile.Failed(problems) {
					out, err := Broken(podfile.ParseInstall(name, files), problems, Options{})
					if err != nil {
						t.Errorf("%.80q: the unit of the broken file: %v", s, err)
						continue
					}
					for key := range shape(out) {
						if broken[key] == 0 {
							t.Errorf("%.80q: %q in the unit of the broken file", s, key)
						}
					}
					continue
				}
				taken++
				if mark == strings.ToUpper(mark) {
					o := p.Apps[0].Override
					got := map[string]string{"EXEC": o.Exec[0], "USER": o.User, "GROUP": o.Group, "DIR": o.WorkingDirectory}
					if len(o.Exec) > 1 {
						got["ARG"] = o.Exec[1]
					}
					if len(o.Args) > 0 {
						got["ARGS"] = o.Args[0]
					}
					for _, e := range o.Environment {
						got["VALUE"] = e.Value
					}
					if got[mark] != s {
						t.Errorf("%.80q became %.80q", s, got[mark])
					}
				}
				out, err := Pod(p, Options{})
				if err != nil {
					continue // no unit can say it
				}
				for key, n := range shape(out) {
					// the keys of directives are the user's own
					if n > want[key] && !slices.Contains([]string{"unit key", "service key", "socket key", "timer key", "path key"}, mark) {
						t.Errorf("%.80q adds %s", s, key)
					}
				}
				if taken%61 == 1 {
					written = append(written, string(out.Files[0].Data))
				}
			}
			t.Logf("%d taken", taken)
		})
	}
	verifyUnits(t, written)
}

// verifyUnits has systemd read drop-ins.
func verifyUnits(t *testing.T, dropIns []string) {
	t.Helper()
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("systemd-analyze is not installed: the units are not verified")
		return
	}
	dir := t.TempDir()
	args := []string{"verify", "--man=no", "--generators=no", "--recursive-errors=no"}
	dropIns = dropIns[:min(len(dropIns), 80)]
	for i, d := range dropIns {
		unit := filepath.Join(dir, fmt.Sprintf("hostile%d.service", i))
		if err := os.Mkdir(unit+".d", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(unit, []byte("[Service]\nExecStart=/bin/true\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(unit+".d/50-rkt.conf", []byte(d), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, unit)
	}
	cmd := exec.Command(tool, args...)
	cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir, "SYSTEMD_LOG_LEVEL=warning")
	out, _ := cmd.CombinedOutput() // of units it does not know as well
	for l := range strings.Lines(string(out)) {
		if strings.Contains(l, "hostile") && (strings.Contains(l, "Unknown") || strings.Contains(l, "Missing '='") || strings.Contains(l, "Assignment outside")) {
			t.Errorf("systemd-analyze verify: %s", l)
		}
	}
	t.Logf("%d drop-ins verified", len(dropIns))
}
