package plan

import (
	"errors"
	"fmt"
	"path"

	"github.com/appc/spec/schema"

	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/podlog"
)

// guestJournal is the unit of the journald in the pod.
const guestJournal = "systemd-journald.service"

// guestJournalDir is where it writes, in the pod.
const guestJournalDir = "/var/log/journal"

// GuestJournal says that the pod has a journald of its own.
func GuestJournal(pod *schema.PodManifest) bool {
	v, _ := pod.Annotations.Get(podlog.AnnotationJournal)
	return v == podlog.Guest
}

// LogNamespace is the journald of the host that takes the apps' lines, "" for the
// host's own.
func LogNamespace(pod *schema.PodManifest) string {
	v, _ := pod.Annotations.Get(podlog.AnnotationNamespace)
	return v
}

// checkJournal looks at the annotations that say where lines go, which may come
// from anybody's manifest.
func checkJournal(in Input) error {
	ns, ok := in.Pod.Annotations.Get(podlog.AnnotationNamespace)
	if msg := podlog.CheckNamespace(ns); ok && msg != "" {
		return fmt.Errorf("annotation %s: %s", podlog.AnnotationNamespace, msg)
	}
	v, given := in.Pod.Annotations.Get(podlog.AnnotationJournal)
	switch {
	case given && v != podlog.Guest && v != "host":
		return fmt.Errorf("annotation %s: %q is neither host nor guest", podlog.AnnotationJournal, v)
	case v == podlog.Guest && ns != "":
		return errors.New("a pod with a journal of its own cannot log into a namespace of the host's")
	case v == podlog.Guest && in.Run.Mutable:
		return errors.New("a mutable pod cannot have a journal of its own")
	}
	return nil
}

// journalArgs are the binds by which the pod has a journal: sockets of the
// host's, or a directory for its own.
func (p *Plan) journalArgs(in Input) string {
	if !GuestJournal(in.Pod) {
		// read-only: sockets can be connected to, but the pod's root cannot remove them
		from, to := podlog.Sockets(LogNamespace(in.Pod)), podlog.Sockets("")
		if from == to {
			return "--bind-ro=" + to
		}
		return "--bind-ro=" + from + ":" + to
	}
	// to be mounted on, also where ids are mapped
	p.file(path.Join(guestJournalDir[1:], ".rkt"), 0o644, nil)
	b := "--bind=" + escaped(path.Join(in.Facts.PodDir, podfs.GuestJournal)) + ":" + guestJournalDir
	if in.Facts.IDs.Count > 0 {
		b += ":idmap"
	}
	return b
}
