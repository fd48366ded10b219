package quadlet

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/rkt-systemd/rkt/stage0/podimport"
)

func none(path string) (podimport.Source, error) {
	return podimport.Source{}, fmt.Errorf("%s: %w", path, errors.ErrUnsupported)
}

func convert(t *testing.T, files map[string]string) *podimport.Result {
	t.Helper()
	var sources []podimport.Source
	for name, text := range files {
		sources = append(sources, podimport.Source{Path: "/nowhere/" + name, Data: []byte(text)})
	}
	r, err := Convert(sources, none)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func pods(t *testing.T, r *podimport.Result) string {
	t.Helper()
	b, err := json.Marshal(struct {
		Pods  any
		Files any
	}{r.Pods, r.Files})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestKeys goes through the keys that podman-systemd.unit(5) has: each changes what
// the unit becomes, or is told in the report; those that need neither are
// named here, with the reason.
func TestKeys(t *testing.T) {
	const base = "[Container]\nImage=example.com/x:1\n"
	// KEY=VALUE, in which KEY: alone is what is right without a word.
	tests := map[string]struct {
		files map[string]string // beside the one that gets the key
		file  string
		text  string
		keys  string
	}{
		"Container": {nil, "x.container", base, `AddCapability=NET_ADMIN
AddDevice=/dev/ttyS0
AddHost=a.example.com:192.0.2.1
Annotation=a=b
AppArmor=p
AutoUpdate=registry
CgroupsMode=no-conmon
ContainerName=y
ContainersConfModule=/m
DNS=192.0.2.1
DNSOption=ndots:1
DNSSearch=example.com
DropCapability=CHOWN
Entrypoint=/bin/sh
Environment=A=b
EnvironmentFile=/e
EnvironmentHost=true
Exec=a b
ExposeHostPort=80
GIDMap=0:1:2
GlobalArgs=--x
Group=5
GroupAdd=6
HealthCmd=true
HealthInterval=1s
HealthLogDestination=/x
HealthMaxLogCount=1
HealthMaxLogSize=1
HealthOnFailure=kill
HealthRetries=2
HealthStartPeriod=1s
HealthStartupCmd=true
HealthStartupInterval=1s
HealthStartupRetries=1
HealthStartupSuccess=1
HealthStartupTimeout=1s
HealthTimeout=1s
HostName=h
HttpProxy=false
Image=example.com/y:2
IP=192.0.2.9
IP6=2001:db8::9
Label=a=b
LogDriver=json-file
LogOpt=a=b
Mask=/x
Memory=1g
Mount=type=tmpfs,destination=/x
Network=host
NetworkAlias=al
NoNewPrivileges=true
Notify=true
PidsLimit=5
PodmanArgs=--cpus=2
PublishPort=80:80
Pull=never
ReadOnly=true
ReadOnlyTmpfs=false:ReadOnly=true
ReloadCmd=/bin/reload
ReloadSignal=HUP
RemapGid=1
RemapUid=1
RemapUidSize=1
RemapUsers=keep-id
Retry=1
RetryDelay=1s
Rootfs=/x
RunInit=true
SeccompProfile=/x
Secret=s
SecurityLabelDisable=true
SecurityLabelFileType=x
SecurityLabelLevel=x
SecurityLabelNested=true
SecurityLabelType=x
ServiceName=other:.
ShmSize=1m
StartWithPod=false
StopSignal=INT
StopTimeout=5
SubGIDMap=x
SubUIDMap=x
Sysctl=net.ipv4.ip_forward=1
Timezone=local
Tmpfs=/x
UIDMap=0:1:2
Ulimit=nofile=5
Unmask=ALL
User=u
UserNS=host
VolatileTmp=true
Volume=/a:/b
WorkingDir=/w
NoSuchKey=1`},
		"Pod": {map[string]string{"y.container": base + "Pod=x.pod\n"}, "x.pod", "[Pod]\n", `AddHost=a:192.0.2.1
ContainersConfModule=/m
DNS=192.0.2.1
DNSOption=ndots:1
DNSSearch=example.com
ExitPolicy=continue
GIDMap=0:1:2
GlobalArgs=--x
HostName=h
IP=192.0.2.9
IP6=2001:db8::9
Label=a=b
Network=host
NetworkAlias=al
PodmanArgs=--x
PodName=n
PublishPort=80:80
RemapGid=1
RemapUid=1
RemapUidSize=1
RemapUsers=x
ServiceName=other:.
ShmSize=1m
StopTimeout=5
SubGIDMap=x
SubUIDMap=x
UIDMap=0:1:2
UserNS=keep-id
Volume=/a:/b
NoSuchKey=1`},
		"Network": {map[string]string{"y.container": base + "Network=x.network\n"}, "x.network", "[Network]\nSubnet=192.0.2.0/24\n", `ContainersConfModule=/m
DisableDNS=true
DNS=192.0.2.1
Driver=macvlan
Gateway=192.0.2.2
GlobalArgs=--x
InterfaceName=br9
Internal=true
IPAMDriver=none
IPRange=192.0.2.128/25
IPv6=true
Label=a=b
NetworkDeleteOnStop=true
NetworkName=other
Options=mtu=1400
PodmanArgs=--x
ServiceName=other:.
Subnet=198.51.100.0/24
NoSuchKey=1`},
		"Volume": {map[string]string{"y.container": base + "Volume=x.volume:/d\n"}, "x.volume", "[Volume]\n", `ContainersConfModule=/m
Copy=true
Device=/dev/sdz1
Driver=local
GlobalArgs=--x
Group=5
Image=example.com/z
Label=a=b
Options=nodev
PodmanArgs=--x
ServiceName=other:.
Type=ext4
User=5
VolumeName=other
NoSuchKey=1`},
		"Image": {map[string]string{"y.container": "[Container]\nImage=x.image\n"}, "x.image", "[Image]\nImage=example.com/x:1\n", `AllTags=true
Arch=arm64
AuthFile=/x
CertDir=/x
ContainersConfModule=/m
Creds=a:b
DecryptionKey=/x
GlobalArgs=--x
Image=example.com/y:2
ImageTag=x
OS=linux
PodmanArgs=--x
Policy=always
Retry=1
RetryDelay=1s
ServiceName=other:.
TLSVerify=false
Variant=v7
NoSuchKey=1`},
		"Build": {map[string]string{"y.container": "[Container]\nImage=x.build\n"}, "x.build", "[Build]\nImageTag=example.com/x:1\n", `Annotation=a=b
Arch=arm64
AuthFile=/x
BuildArg=a=b
ContainersConfModule=/m
DNS=192.0.2.1
DNSOption=x
DNSSearch=x
Environment=A=b
File=/x
ForceRM=true
GlobalArgs=--x
GroupAdd=5
IgnoreFile=/x
ImageTag=example.com/y:2
Label=a=b
Network=host
PodmanArgs=--x
Pull=always
Retry=1
RetryDelay=1s
Secret=s
ServiceName=other:.
SetWorkingDirectory=unit
TLSVerify=false
Target=x
Variant=v7
Volume=/a:/b
NoSuchKey=1`},
		"Unit": {nil, "x.container", base + "[Unit]\n", `Description=d
After=a.service
Requires=b.service
ConditionPathExists=/x
JoinsNamespaceOf=c.service
SourcePath=/x`},
		"Service": {nil, "x.container", base + "[Service]\n", `Restart=always
Type=oneshot
RemainAfterExit=yes
KillMode=process
ExecStartPre=/bin/true
ExecStopPost=/bin/true
Environment=A=b
EnvironmentFile=/x
Slice=x.slice
WatchdogSec=10
TimeoutStartSec=900
User=u
Sockets=x.socket`},
		"Install": {nil, "x.container", base + "[Install]\n", `WantedBy=multi-user.target
RequiredBy=y.service
Alias=z.service
Also=z.service
DefaultInstance=z`},
		"Quadlet":    {nil, "x.container", base + "[Quadlet]\n", "DefaultDependencies=false\nNoSuchKey=1"},
		"NoSuchPart": {nil, "x.container", base + "[NoSuchPart]\n", "A=1"},
	}
	for section, c := range tests {
		for _, line := range strings.Split(c.keys, "\n") {
			t.Run(section+"/"+line, func(t *testing.T) {
				line, silent := strings.CutSuffix(line, ":.")
				head := c.text
				if l, needs, ok := strings.Cut(line, ":ReadOnly"); ok {
					line, head = l, head+"ReadOnly"+needs+"\n"
				}
				make := func(text string) *podimport.Result {
					files := map[string]string{c.file: text}
					for name, text := range c.files {
						files[name] = text
					}
					return convert(t, files)
				}
				before, after := make(head), make(head+line+"\n")
				key, _, _ := strings.Cut(line, "=")
				said := false
				for _, n := range after.Notes {
					said = said || strings.HasSuffix(n.Key, "."+key) && n.Line > 0
					if strings.Contains(n.Text, "it cannot be read") {
						t.Errorf("%v", n)
					}
				}
				if !silent && !said && pods(t, before) == pods(t, after) {
					t.Errorf("it is left out silently: %s", pods(t, after))
				}
				if strings.HasPrefix(key, "NoSuch") && !said {
					t.Error("an unknown key is not told")
				}
				for _, p := range after.Pods {
					if text, problems, err := p.File.Bytes(p.Name); err != nil || len(problems) > 0 {
						t.Errorf("%s\n%v %v", text, problems, err)
					}
				}
			})
		}
	}
}

func TestErrors(t *testing.T) {
	for text, want := range map[string]string{
		"[Container]\nExec=x":                         "no Image=",
		"[Container\nImage=x":                         "bad section header",
		"Image=x":                                     "in a section",
		"[Container]\nImage":                          "KEY=VALUE",
		"[Container]\nImage=a\\":                      "continued line",
		"[Container]\nImage=example.com/x\nPod=q.pod": "not among the files",
	} {
		_, err := Convert([]podimport.Source{{Path: "x.container", Data: []byte(text)}}, none)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "x.container") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := Convert([]podimport.Source{{Path: "x_.container", Data: []byte("[Container]\nImage=a\n")}}, none); err == nil {
		t.Error("a name that no pod can have")
	}
}

func TestReferences(t *testing.T) {
	r := convert(t, map[string]string{
		"a.container":  "[Unit]\nRequires=b.container c.pod w@1.service n.network v-volume.service other.service\n[Container]\nImage=example.com/a\nVolume=v.volume:/v\nNetwork=n.network\n",
		"b.container":  "[Container]\nImage=example.com/b\nServiceName=bee\n[Install]\nWantedBy=a.service c-pod.service\n",
		"c.pod":        "[Pod]\n[Unit]\nAfter=bee.service\n",
		"d.container":  "[Unit]\nAfter=e.service a.service\n[Container]\nImage=example.com/d\nPod=c.pod\n",
		"e.container":  "[Container]\nImage=example.com/e\nPod=c.pod\n",
		"w@.container": "[Container]\nImage=example.com/w\nHostName=h-%i\nEnvironment=A=100%% B=%n\n",
		"n.network":    "[Network]\n", "v.volume": "[Volume]\n",
	})
	all := pods(t, r)
	for _, want := range []string{
		`"Requires":"rkt@b.service rkt@c.service rkt@w@1.service other.service"`, `"WantedBy":["rkt@a.service","rkt@c.service"]`, `"After":["rkt@a.service","rkt@b.service"]`,
		`"unit":{"After":"e"}`, `"hostname":"h-%i"`, `"A":"100%%"`, `"B":"w@%i.service"`, `"hostname":"systemd-a"`,
	} {
		if !strings.Contains(all, want) {
			t.Errorf("%s is missing in\n%s", want, all)
		}
	}
	if len(r.Pods) != 4 {
		t.Errorf("%d pods", len(r.Pods))
	}
}

// TestStopTimeout: the host waits longer for the pod than the pod for its apps,
// unless a unit says by itself how long it waits.
func TestStopTimeout(t *testing.T) {
	const base = "[Container]\nImage=example.com/x\n"
	for name, tc := range map[string]struct {
		files map[string]string
		want  string // all TimeoutStopSec in the order of the file
	}{
		"short":             {map[string]string{"x.container": base + "StopTimeout=20\n"}, "20s"},
		"none":              {map[string]string{"x.container": base + "StopTimeout=0\n"}, "1s"},
		"long":              {map[string]string{"x.container": base + "StopTimeout=300\n"}, "300s 320s"},
		"of podman":         {map[string]string{"x.container": base + "PodmanArgs=--stop-timeout=300\n"}, "300s 320s"},
		"the unit's":        {map[string]string{"x.container": base + "StopTimeout=300\n[Service]\nTimeoutStopSec=500\n"}, "300s 500"},
		"the unit's alone":  {map[string]string{"x.container": base + "[Service]\nTimeoutStopSec=500\n"}, "500"},
		"no number":         {map[string]string{"x.container": base + "StopTimeout=5min\n"}, ""},
		"of a pod":          {map[string]string{"p.pod": "[Pod]\nStopTimeout=200\n", "x.container": base + "Pod=p.pod\n", "y.container": base + "Pod=p.pod\nStopTimeout=30\n"}, "200s 30s 220s"},
		"in a pod":          {map[string]string{"p.pod": "[Pod]\n", "x.container": base + "Pod=p.pod\nStopTimeout=90\n", "y.container": base + "Pod=p.pod\nStopTimeout=300\n"}, "90s 300s 320s"},
		"a service's":       {map[string]string{"p.pod": "[Pod]\n", "x.container": base + "Pod=p.pod\n[Service]\nTimeoutStopSec=5min\n"}, "5min 320s"},
		"both":              {map[string]string{"p.pod": "[Pod]\n", "x.container": base + "Pod=p.pod\nStopTimeout=20\n[Service]\nTimeoutStopSec=400\n"}, "20s"},
		"the shorter":       {map[string]string{"p.pod": "[Pod]\nStopTimeout=200\n", "x.container": base + "Pod=p.pod\n[Service]\nTimeoutStopSec=0\n"}, "200s 220s"},
		"no limit":          {map[string]string{"p.pod": "[Pod]\n", "x.container": base + "Pod=p.pod\n[Service]\nTimeoutStopSec=infinity\n", "y.container": base + "Pod=p.pod\nStopTimeout=300\n"}, "infinity 300s infinity"},
		"the pod's service": {map[string]string{"p.pod": "[Pod]\nStopTimeout=200\n[Service]\nTimeoutStopSec=250\n", "x.container": base + "Pod=p.pod\n"}, "200s 250"},
	} {
		t.Run(name, func(t *testing.T) {
			r := convert(t, tc.files)
			text, _, err := r.Pods[0].File.Bytes(r.Pods[0].Name)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, m := range regexp.MustCompile(`"TimeoutStopSec": "([^"]*)"`).FindAllStringSubmatch(string(text), -1) {
				got = append(got, m[1])
			}
			if s := strings.Join(got, " "); s != tc.want {
				t.Errorf("%q, want %q in\n%s", s, tc.want, text)
			}
			if tc.want == "" && !strings.Contains(fmt.Sprint(r.Notes), "it cannot be read") {
				t.Errorf("%v", r.Notes)
			}
		})
	}
}

// TestVariables: Exec= is read as systemd would, see replace_env_argv() there.
func TestVariables(t *testing.T) {
	const service = "\n[Service]\nEnvironment=A=a \"B=b c\" E= \"Q='x y' z\" \"BAD='x\"\nEnvironment=A=last P=100%%\n"
	for exec, want := range map[string]string{
		"/x $A":           `["/x","last"]`,
		"/x $B ${B}":      `["/x","b","c","b c"]`,
		"/x \"$B\" '$B'":  `["/x","b","c","b","c"]`,
		"/x $E ${E} y":    `["/x","","y"]`,
		"/x $Q":           `["/x","x y","z"]`,
		"/x a$B a${B}d":   `["/x","a$B","ab cd"]`,
		"/x $$B $$ $${B}": `["/x","$B","$","${B}"]`,
		"/x ${P}":         `["/x","100%"]`,
		"/x $NONE":        `["/x","$NONE"] todo $NONE`,
		"/x ${NONE}-$B":   `["/x","${NONE}-$B"] todo ${NONE}`,
		"/x $A/b":         `["/x","$A/b"] todo $A/b`,
		"/x $BAD":         `["/x","$BAD"] todo $BAD`,
	} {
		r := convert(t, map[string]string{"x.container": "[Container]\nImage=example.com/x\nExec=" + exec + service})
		b, err := json.Marshal(r.Pods[0].File.Apps[0].Args)
		if err != nil {
			t.Fatal(err)
		}
		got := string(b)
		for _, n := range r.Notes {
			if n.Level == podimport.Todo {
				_, rest, _ := strings.Cut(n.Text, "replace ")
				name, _, _ := strings.Cut(rest, " ")
				got += " todo " + name
			}
		}
		if got != want {
			t.Errorf("%s: %s, want %s", exec, got, want)
		}
	}
}

func FuzzConvert(f *testing.F) {
	f.Add("[Container]\nImage=redis\nExec=a \"b c\" %i $A\nPublishPort=[::]:1-2:3-4/udp\nVolume=a.volume:/b:ro,U\n", "[Unit]\nAfter=x.service\n[Service]\nRestart=no\n")
	f.Add("[Container]\nImage=a\nPodmanArgs=--memory=1g -p 80:80 -it --privileged\nMount=type=bind,src=/a,dst=/b\nSecret=a,type=env\n", "[Network]\nSubnet=fd00::/64\nIPRange=fd00::1-fd00::5\n")
	f.Fuzz(func(t *testing.T, a, b string) {
		r, err := Convert([]podimport.Source{{Path: "x@.container", Data: []byte(a)}, {Path: "y.container", Data: []byte(a + "\n" + b)}, {Path: "z.network", Data: []byte(b)}}, none)
		if err == nil {
			if _, err := json.Marshal(r); err != nil {
				t.Error(err)
			}
		}
	})
}
