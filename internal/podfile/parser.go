package podfile

import (
	"strconv"
	"strings"

	"github.com/rkt-systemd/rkt/internal/jsonpos"
)

// maxProblems bounds what is reported for one pod.
const maxProblems = 100

// parser collects what is wrong while it turns the tree into a Pod. A method
// that returns a value and ok reports the problem itself when ok is false.
type parser struct {
	pod      *Pod
	problems []Problem
	// volumeNames are the pod's volumes, for suggestions; hasVolume is for look-ups.
	volumeNames []string
	hasVolume   map[string]bool
	// looked and cells are the work that suggestions took; see nearest.
	looked, cells int
}

// tired says that nothing more is suggested.
func (p *parser) tired() bool { return p.full() || p.looked >= maxLooked || p.cells >= maxCells }

// full says that nothing more is reported.
func (p *parser) full() bool { return len(p.problems) >= maxProblems }

func (p *parser) report(s Severity, pos jsonpos.Pos, path, msg, suggestion string) {
	if p.full() {
		if s != Error || Failed(p.problems) {
			return
		}
		// One error must not get lost behind warnings: it refuses the pod.
		p.problems = p.problems[:maxProblems-1]
	}
	p.problems = append(p.problems, Problem{s, pos.File, pos.Line, pos.Column, clipped(path), clipped(msg), suggestion})
}

// reportNear is report for a word that is none of those known, with the one that
// was probably meant.
func (p *parser) reportNear(s Severity, pos jsonpos.Pos, path, msg, word string, known []string) {
	suggestion := ""
	if !p.tired() {
		suggestion = p.nearest(word, known)
	}
	p.report(s, pos, path, msg, suggestion)
}

func (p *parser) errorf(v *jsonpos.Value, path string, msg ...string) {
	p.report(Error, v.Pos, path, strings.Join(msg, ""), "")
}

func (p *parser) warnf(pos jsonpos.Pos, path string, msg ...string) {
	p.report(Warning, pos, path, strings.Join(msg, ""), "")
}

// unknown warns of a key that the object cannot have.
func (p *parser) unknown(m jsonpos.Member, path string, known []string) {
	p.reportNear(Warning, m.Pos, join(path, m.Key), "unknown key "+quote(m.Key)+", ignoring", m.Key, known)
}

func join(path, key string) string {
	if !isPlainKey(key) {
		return path + "[" + quote(key) + "]"
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func isPlainKey(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isAlnum(s[i]) && s[i] != '_' && s[i] != '-' {
			return false
		}
	}
	return s != ""
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// quote quotes for a message, on one line and of bounded length.
func quote(s string) string {
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return strconv.Quote(s)
}

func (p *parser) wrongType(v *jsonpos.Value, path, want string) {
	p.errorf(v, path, "is ", v.Kind.String(), ", want ", want)
}

func (p *parser) object(v *jsonpos.Value, path string) bool {
	if v.Kind != jsonpos.Object {
		p.wrongType(v, path, "an object")
		return false
	}
	return true
}

func (p *parser) list(v *jsonpos.Value, path string) bool {
	if v.Kind != jsonpos.Array {
		p.wrongType(v, path, "a list")
		return false
	}
	return true
}

// str returns a string. No string of a pod may hold a NUL: all end up in
// arguments, paths or files of lines.
func (p *parser) str(v *jsonpos.Value, path string) (string, bool) {
	if v.Kind != jsonpos.String {
		p.wrongType(v, path, "a string")
		return "", false
	}
	if strings.IndexByte(v.Text, 0) >= 0 {
		p.errorf(v, path, "has a NUL character")
		return "", false
	}
	return v.Text, true
}

// nonEmpty is str for strings that must say something.
func (p *parser) nonEmpty(v *jsonpos.Value, path string) (string, bool) {
	s, ok := p.str(v, path)
	if ok && s == "" {
		p.errorf(v, path, "is empty")
		return "", false
	}
	return s, ok
}

// word is nonEmpty without control characters, for what goes into messages,
// command lines and names.
func (p *parser) word(v *jsonpos.Value, path string) (string, bool) {
	s, ok := p.nonEmpty(v, path)
	if ok && strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f }) >= 0 {
		p.errorf(v, path, "has a control character")
		return "", false
	}
	return s, ok
}

// scalar returns a string, number or boolean as text.
func (p *parser) scalar(v *jsonpos.Value, path string) (string, bool) {
	switch v.Kind {
	case jsonpos.Number:
		return v.Text, true
	case jsonpos.Bool:
		return strconv.FormatBool(v.Bool), true
	case jsonpos.String:
		return p.str(v, path)
	}
	p.wrongType(v, path, "a string, number or boolean")
	return "", false
}

func (p *parser) boolean(v *jsonpos.Value, path string) (bool, bool) {
	if v.Kind != jsonpos.Bool {
		p.wrongType(v, path, "true or false")
		return false, false
	}
	return v.Bool, true
}

func (p *parser) integer(v *jsonpos.Value, path string, lo, hi int64) (int64, bool) {
	if v.Kind != jsonpos.Number {
		p.wrongType(v, path, "a number")
		return 0, false
	}
	n, err := strconv.ParseInt(v.Text, 10, 64)
	if err != nil || n < lo || n > hi {
		p.errorf(v, path, "is ", v.Text, ", want a whole number from ", strconv.FormatInt(lo, 10), " to ", strconv.FormatInt(hi, 10))
		return 0, false
	}
	return n, true
}

// acName returns an appc AC name.
func (p *parser) acName(v *jsonpos.Value, path string) (string, bool) {
	s, ok := p.word(v, path)
	if ok && !isACName(s) {
		p.report(Error, v.Pos, path, quote(s)+" is no AC name: lower case letters, digits and single \"-\" between them", AppName(s))
		return "", false
	}
	return s, ok
}

// strings returns a list of strings.
func (p *parser) strings(v *jsonpos.Value, path string) ([]string, bool) {
	if !p.list(v, path) {
		return nil, false
	}
	out := make([]string, 0, len(v.Items))
	good := true
	for i, it := range v.Items {
		s, ok := p.str(it, index(path, i))
		good = good && ok
		out = append(out, s)
	}
	return out, good
}

// oneOrMore returns a list of strings that may be written as one string.
func (p *parser) oneOrMore(v *jsonpos.Value, path string) ([]string, bool) {
	if v.Kind == jsonpos.String {
		s, ok := p.word(v, path)
		return []string{s}, ok
	}
	if v.Kind != jsonpos.Array {
		p.wrongType(v, path, "a string or a list of strings")
		return nil, false
	}
	var out []string
	good := true
	for i, it := range v.Items {
		s, ok := p.word(it, index(path, i))
		good = good && ok
		out = append(out, s)
	}
	return out, good
}

// nameValues returns a list of {"name", "value"}, or an object of the same
// meaning. check looks at a name and returns what is wrong with it.
func (p *parser) nameValues(v *jsonpos.Value, path string, check func(string) string) []NameValue {
	var out []NameValue
	add := func(at *jsonpos.Value, path, name, value string) {
		if msg := check(name); msg != "" {
			p.errorf(at, path, msg)
			return
		}
		out = append(out, NameValue{name, value})
	}
	switch v.Kind {
	case jsonpos.Object:
		for _, m := range v.Members {
			at := join(path, m.Key)
			if s, ok := p.scalar(m.Value, at); ok {
				add(m.Value, at, m.Key, s)
			}
		}
	case jsonpos.Array:
		for i, it := range v.Items {
			at := index(path, i)
			if !p.object(it, at) {
				continue
			}
			name, value := it.Member("name"), it.Member("value")
			for _, m := range it.Members {
				if m.Key != "name" && m.Key != "value" {
					p.unknown(m, at, pairKeys)
				}
			}
			if name == nil {
				p.errorf(it, at, "lacks \"name\"")
				continue
			}
			n, ok := p.str(name, at+".name")
			s, ok2 := "", true
			if value != nil {
				s, ok2 = p.str(value, at+".value")
			}
			if ok && ok2 {
				add(name, at+".name", n, s)
			}
		}
	default:
		p.wrongType(v, path, "a list of {\"name\", \"value\"} or an object")
	}
	return out
}

func checkIdentifier(s string) string {
	if !isACIdentifier(s) {
		return quote(s) + " is no AC identifier: lower case letters, digits and single \"-._~/\" between them"
	}
	return ""
}

func checkEnvName(s string) string {
	if s == "" || strings.ContainsAny(s, "=\x00\n") {
		return quote(s) + " is no name of a variable"
	}
	return ""
}

// stringMap returns an object of strings.
func (p *parser) stringMap(v *jsonpos.Value, path string) map[string]string {
	if !p.object(v, path) {
		return nil
	}
	out := make(map[string]string, len(v.Members))
	for _, m := range v.Members {
		if s, ok := p.str(m.Value, join(path, m.Key)); ok {
			out[m.Key] = s
		}
	}
	return out
}

// Limits of suggestions for one pod: the names that are looked at, and the steps
// of distance. The generator reads thousands of pods.
const (
	maxWord   = 64
	maxLooked = 2048
	maxCells  = 1 << 16
)

// nearest returns the known word that word was probably meant to be, or "". When
// the pod's suggestions took too much work it knows none.
func (p *parser) nearest(word string, known []string) string {
	if len(word) > maxWord {
		return ""
	}
	best, limit := "", max(1, len(word)/3)+1
	var letters [256]int8
	for i := range len(word) {
		letters[word[i]]++
	}
	for _, k := range known {
		if p.looked >= maxLooked {
			break
		}
		p.looked++
		if strings.EqualFold(k, word) {
			return k
		}
		if differs(letters, len(word), k, limit) {
			continue
		}
		// what comes with every distance counts, too
		if p.cells += len(word)*len(k) + maxWord; p.cells > maxCells {
			break
		}
		if d := distance(word, k); d < limit {
			best, limit = k, d
		}
	}
	return best
}

// differs tells cheaply that it takes limit edits or more to make k of a word with
// n letters: an edit adds a letter, removes one or does both.
func differs(letters [256]int8, n int, k string, limit int) bool {
	if len(k)-n >= limit || n-len(k) >= limit {
		return true
	}
	missing := 0
	for i := range len(k) {
		if letters[k[i]]--; letters[k[i]] < 0 {
			missing++
		}
	}
	return missing >= limit || n-len(k)+missing >= limit
}

// distance is the number of edits between two words: insert, remove, replace
// a character, or swap two neighbours.
func distance(a, b string) int {
	prev2 := make([]int, len(b)+1)
	prev := make([]int, len(b)+1)
	cur := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}

// clipped bounds what a message repeats of the file.
func clipped(s string) string {
	const enough = 1500
	if len(s) <= enough {
		return s
	}
	return strings.ToValidUTF8(s[:enough], "") + "…"
}
