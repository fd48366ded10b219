// Package podlog names where the lines of a pod's apps go, for pod files, stage0
// and stage1. It imports nothing: the generator links it.
package podlog

import "strings"

// Annotations of a pod. AnnotationJournal with the value Guest has a journald in
// the pod; AnnotationNamespace names a journald of the host's (LogNamespace= in
// systemd.exec(5)).
const (
	AnnotationJournal   = "coreos.com/rkt/stage1/journal"
	AnnotationNamespace = "coreos.com/rkt/stage1/log-namespace"
	Guest               = "guest"
)

// CheckNamespace says what is wrong with the name of a namespace, "" if nothing.
func CheckNamespace(s string) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	if s == "" || len(s) > 64 || strings.Trim(s, letters+"-_.") != "" || strings.Trim(s[:1], letters) != "" {
		return "the name of a journal namespace has up to 64 letters, digits and -_., a letter or digit first"
	}
	return ""
}

// Sockets is the directory with journald's sockets for a namespace, "" for the
// host's own.
func Sockets(namespace string) string {
	if namespace == "" {
		return "/run/systemd/journal"
	}
	return "/run/systemd/journal." + namespace
}

// Units are the host's units that a pod in the namespace needs.
func Units(namespace string) []string {
	return []string{"systemd-journald@" + namespace + ".socket", "systemd-journald-varlink@" + namespace + ".socket"}
}
