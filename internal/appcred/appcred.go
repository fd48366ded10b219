// Package appcred says which credentials an app of a pod gets and where it
// finds them, and carries that from stage0 to stage1 in an annotation of the
// app. It never sees what a credential holds.
//
// The generator links it by way of podfile: no fmt, no encoding/json.
package appcred

import (
	"errors"
	"path"
	"strconv"
	"strings"

	"github.com/rkt-systemd/rkt/internal/jsonpos"
)

// Annotation holds the credentials of an app in a pod manifest: a JSON list of
// [name, file, variable].
const Annotation = "coreos.com/rkt/stage2/credentials"

// Limits; those on sizes are systemd's own.
const (
	MaxCredentials = 128
	MaxSize        = 1 << 20
	maxName        = 128
)

// Credential is one that an app gets.
type Credential struct {
	Name string
	// File is a path of the app where it is seen, too; "" for none.
	File string
	// Env is a variable that holds the path of the file; "" for none.
	Env string
}

// Dir is the credentials directory of an app, in the app.
func Dir(app string) string { return "/run/credentials/" + app + ".service" }

// Path is where the app finds the credential.
func (c Credential) Path(app string) string {
	if c.File != "" {
		return c.File
	}
	return Dir(app) + "/" + c.Name
}

// CheckName says what is wrong with the name of a credential, "" if nothing.
func CheckName(s string) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
	if s == "" || len(s) > maxName || strings.Trim(s, letters) != "" || s[0] == '.' {
		return strconv.Quote(clip(s)) + " is no name of a credential: up to 128 letters, digits and -_. are, not beginning with a dot"
	}
	return ""
}

// CheckFile says what is wrong with a path for a credential in the app.
func CheckFile(s string) string {
	switch {
	case !strings.HasPrefix(s, "/") || path.Clean(s) != s || s == "/" || len(s) > 4000 || strings.IndexByte(s, 0) >= 0:
		return strconv.Quote(clip(s)) + " is no absolute path of a file, without \"//\", \".\" and \"..\""
	}
	for _, d := range []string{"/proc", "/sys", "/dev", "/run/credentials"} {
		if s == d || strings.HasPrefix(s, d+"/") {
			return "no credential can be put into " + d
		}
	}
	return ""
}

// CheckEnv says what is wrong with the name of a variable.
func CheckEnv(s string) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
	if s == "" || len(s) > 256 || strings.Trim(s, letters+"0123456789") != "" || strings.Trim(s[:1], letters) != "" {
		return strconv.Quote(clip(s)) + " is no name of a variable: letters, digits and \"_\" are, a digit not first"
	}
	if s == "CREDENTIALS_DIRECTORY" {
		return s + " is set by rkt itself"
	}
	return ""
}

// Check says what is wrong with a list of them, "" if nothing.
func Check(cs []Credential) string {
	if len(cs) > MaxCredentials {
		return "an app can have " + strconv.Itoa(MaxCredentials) + " credentials"
	}
	seen := map[string]bool{}
	twice := func(kind, s string) string {
		if s == "" || !seen[kind+s] {
			seen[kind+s] = true
			return ""
		}
		return strconv.Quote(s) + " is given twice"
	}
	for _, c := range cs {
		msgs := []string{CheckName(c.Name), twice("n", c.Name), twice("f", c.File), twice("e", c.Env)}
		if c.File != "" {
			msgs = append(msgs, CheckFile(c.File))
		}
		if c.Env != "" {
			msgs = append(msgs, CheckEnv(c.Env))
		}
		for _, m := range msgs {
			if m != "" {
				return m
			}
		}
	}
	return ""
}

// Encode makes the value of the annotation.
func Encode(cs []Credential) string {
	list := jsonpos.Value{Kind: jsonpos.Array}
	for _, c := range cs {
		v := &jsonpos.Value{Kind: jsonpos.Array}
		for _, s := range []string{c.Name, c.File, c.Env} {
			v.Items = append(v.Items, &jsonpos.Value{Kind: jsonpos.String, Text: s})
		}
		list.Items = append(list.Items, v)
	}
	return string(list.AppendJSON(nil))
}

// Decode is the inverse of Encode. The value may come from anybody's manifest:
// everything is checked again.
func Decode(text string) ([]Credential, error) {
	bad := func(msg string) ([]Credential, error) {
		return nil, errors.New("annotation " + Annotation + ": " + msg)
	}
	v, problems := jsonpos.Decode("", []byte(text))
	if v == nil || len(problems) > 0 || v.Kind != jsonpos.Array {
		return bad("it is no list")
	}
	var out []Credential
	for _, it := range v.Items {
		if it.Kind != jsonpos.Array || len(it.Items) != 3 {
			return bad("an entry is no list of name, file and variable")
		}
		var s [3]string
		for i, x := range it.Items {
			if x.Kind != jsonpos.String {
				return bad("an entry is no list of strings")
			}
			s[i] = x.Text
		}
		out = append(out, Credential{s[0], s[1], s[2]})
	}
	if msg := Check(out); msg != "" {
		return bad(msg)
	}
	return out, nil
}

func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}
