package hostile

import "strings"

// Strings are more than 600 strings that would break a file format, a command
// line or a terminal they are put into without thought.
func Strings() []string {
	atoms := []string{"\n", "\r", "\r\n", "\t", "\v", "\f", "\x00", "\x7f", "\x1b[2J", "\x1b]0;x\a", "\b", "\u0085", "\u2028", "\u2029", "\ufeff", "\u202e", "\u200b",
		"\xff\xfe", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x80", "%", "%%", "%i", "%%i", "%n", "%H", "%s%s%s%n", "$", "$$", "${HOME}", "$HOME", "${X", "$(id)", "`id`",
		`"`, `'`, `\`, `\\`, `\n`, `\x0a`, `\u000a`, `\"`, `" "`, "\\\n", "@", "!", "!!", ":", "+", "|", "-", "--", "--help", "-e", "=", "==", ";", ";;", "#", "[Service]", "[", "]",
		",", "&&", "||", ">", "<", "*", "?", "~", "..", "../", "/../../etc/passwd", "//", "/", ".", " ", "  ", "{", "}", "{}", "<!--", "ü", "日本", "e\u0301", "0x0", "-1", "4294967296", "null", "true"}
	contexts := []string{"@", "a@", "@a", "a@b", "@@", "/@", " @ ", "\n[Service]\nExecStartPre=@/evil"}
	seen := map[string]bool{}
	var out []string
	add := func(s string) {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	add("")
	for _, c := range contexts {
		for _, a := range atoms {
			add(strings.ReplaceAll(c, "@", a))
		}
	}
	for _, s := range []string{
		"a\n[Service]\nExecStart=/evil", "a\r\n[Unit]\r\nOnFailure=evil.service", "a\\\nExecStart=/evil", "a\n\n[Install]\nWantedBy=x", "a\n.include /etc/passwd",
		"/x\x00--property=ExecStart=/evil", "x --capability=all", "--capability=all", "-D/", "x:rw:idmap", "a:b:c:norbind", `a\:b`, "/a,/b", "a\",\"exec\":[\"/evil\"],\"x\":\"",
		strings.Repeat("%", 255), strings.Repeat("$", 255), strings.Repeat("\\", 255), strings.Repeat(`"`, 255), strings.Repeat("\n", 255), strings.Repeat("../", 100),
		strings.Repeat("a", 255), strings.Repeat("a", 256), strings.Repeat("a/", 2000), strings.Repeat("a", 64<<10), strings.Repeat("%i\n", 64<<10/3), strings.Repeat("\x00", 4096),
	} {
		add(s)
	}
	return out
}
