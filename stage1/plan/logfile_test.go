package plan

import (
	"strings"
	"testing"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/stdio"
	"github.com/rkt-systemd/rkt/stage1/launch"
)

func annotations(pairs ...string) types.Annotations {
	var out types.Annotations
	for i := 0; i < len(pairs); i += 2 {
		out.Set(types.ACIdentifier(pairs[i]), pairs[i+1])
	}
	return out
}

func TestLogFile(t *testing.T) {
	for _, c := range []struct {
		name, mode, dir, file, err string
	}{
		{"as it should be", "k8s-plain", "/var/log/pods/x", "app_0.log", ""},
		{"a folder of its own", "k8s-plain", "/var/log/pods", "app/0.log", ""},
		{"unknown mode", "json", "/var/log", "x", "is no log mode"},
		{"no directory", "k8s-plain", "", "x", "is no absolute path"},
		{"relative directory", "k8s-plain", "var/log", "x", "is no absolute path"},
		{"no file", "k8s-plain", "/var/log", "", "wants annotation"},
		{"outside", "k8s-plain", "/var/log", "../x", "is no file of the log directory"},
		{"outside, later", "k8s-plain", "/var/log", "a/../../x", "is no file of the log directory"},
		{"absolute", "k8s-plain", "/var/log", "/etc/x", "is no file of the log directory"},
	} {
		pod := &schema.PodManifest{Annotations: annotations(abi.AnnotationLogMode, c.mode, abi.AnnotationLogDir, c.dir)}
		ra := &schema.RuntimeApp{Annotations: annotations(abi.AnnotationLogPath, c.file)}
		m, s := stdio.Modes{In: stdio.Null, Out: stdio.Log, Err: stdio.Null}, &launch.Spec{}
		err := (&Plan{}).logFile(Input{Pod: pod}, ra, s, &m)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %q", c.name, err, c.err)
			}
			continue
		}
		if err != nil || s.LogFile != c.file || m.Out != stdio.File || m.Err != stdio.Null {
			t.Errorf("%s: %v, file %q, modes %v", c.name, err, s.LogFile, m)
		}
	}
	m, s := stdio.Default(), &launch.Spec{}
	if err := (&Plan{}).logFile(Input{Pod: &schema.PodManifest{}}, &schema.RuntimeApp{}, s, &m); err != nil || s.LogFile != "" || m != stdio.Default() {
		t.Errorf("a pod without a log mode: %v, %q, %v", err, s.LogFile, m)
	}
}
