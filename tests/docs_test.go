package tests

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestComparison: every line of the comparison names tests, and they exist.
func TestComparison(t *testing.T) {
	text, err := os.ReadFile("../docs/comparison.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, dir := range []string{"boot", "vm", "crash", "softreboot"} {
		files, err := filepath.Glob(dir + "/*_test.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			source, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(source, -1) {
				known[string(m[1])] = true
			}
		}
	}
	lines := 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 9 || strings.HasPrefix(line, "| |") || strings.HasPrefix(line, "| ---") {
			continue
		}
		lines++
		names := regexp.MustCompile(`Test\w+`).FindAllString(cells[7], -1)
		if len(names) == 0 {
			t.Errorf("no test is named in %q", line)
		}
		for _, n := range names {
			if !known[n] {
				t.Errorf("there is no test %q, named in %q", n, line)
			}
		}
	}
	if lines < 40 {
		t.Errorf("only %d lines found", lines)
	}
}
