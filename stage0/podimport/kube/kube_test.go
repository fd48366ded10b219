package kube

import (
	"strings"
	"testing"

	"github.com/rkt-systemd/rkt/stage0/podimport"
)

func TestCalendar(t *testing.T) {
	for in, want := range map[string]string{
		"@daily": "daily", "0 3 * * *": "*-*-* 3:0:00", "*/5 * * * *": "*-*-* *:0/5:00", "0 0 1,15 * *": "*-*-1,15 0:0:00", "0 9 * * 1-5": "Mon..Fri *-*-* 9:0:00",
		"0 0 1 * 1": "", "x * * * *": "", "60 * * * *": "", "* * * *": "", "0 0 * JAN *": "",
	} {
		if got, ok := calendar(in); got != want && ok || ok != (want != "") {
			t.Errorf("%q: %q %v, want %q", in, got, ok, want)
		}
	}
}

func FuzzConvert(f *testing.F) {
	f.Add("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b, env: [{name: A, value: $(A)}]}], volumes: [{name: v, emptyDir: {}}]}\n")
	f.Add("apiVersion: v1\nkind: List\nitems: [{kind: CronJob, metadata: {name: x}, spec: {schedule: '* * * * *', jobTemplate: {spec: {template: {spec: {containers: []}}}}}}]\n")
	f.Fuzz(func(_ *testing.T, text string) {
		if !strings.Contains(text, "&") { // what aliases multiply is bounded, but slow to fuzz
			_, _ = Convert([]podimport.Source{{Path: "x", Data: []byte(text)}}, Options{})
		}
	})
}
