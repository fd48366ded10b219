package journal

import "strings"

// Journal fields of rkt. The unit rkt@.service puts FieldPodName on every
// line of a pod through LogExtraFields=; the others are on the lines that rkt
// itself writes, since lines of apps carry only what journald adds.
const (
	FieldPodName = "RKT_POD_NAME"
	FieldPodUUID = "RKT_POD_UUID"
	FieldApp     = "RKT_APP"
	FieldImage   = "RKT_IMAGE"
	FieldImageID = "RKT_IMAGE_ID"
	FieldStage   = "RKT_STAGE"
	FieldError   = "RKT_ERROR"
)

// Keys for the structured fields of a log line (logrus.Fields). The hook
// writes each as the journal field of the same meaning.
const (
	KeyPodName = "pod"
	KeyPodUUID = "uuid"
	KeyApp     = "app"
	KeyImage   = "image"
	KeyImageID = "image_id"
	KeyStage   = "stage"
	KeyError   = "error" // logrus.ErrorKey
	// KeyMessageID is a kind of message that the journal's catalog explains.
	KeyMessageID = "message_id"
)

// Fields that journald or every writer sets and rkt reads.
const (
	fieldMessage    = "MESSAGE"
	fieldMessageID  = "MESSAGE_ID"
	fieldPriority   = "PRIORITY"
	fieldIdentifier = "SYSLOG_IDENTIFIER"
	fieldCursor     = "__CURSOR"
	fieldRealtime   = "__REALTIME_TIMESTAMP"
	fieldMonotonic  = "__MONOTONIC_TIMESTAMP"
	fieldInvocation = "_SYSTEMD_INVOCATION_ID"
	fieldUnit       = "_SYSTEMD_UNIT"
	fieldPID        = "_PID"
	fieldSyslogPID  = "SYSLOG_PID"
	fieldComm       = "_COMM"
)

// FieldName returns the journal field for a logrus key: the one of the table
// above, else RKT_ and the key in capitals. It returns "" when that is no
// valid field name.
func FieldName(key string) string {
	switch key {
	case KeyPodName:
		return FieldPodName
	case KeyPodUUID:
		return FieldPodUUID
	case KeyMessageID:
		return fieldMessageID
	}
	name := "RKT_" + strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(key))
	if !ValidField(name) {
		return ""
	}
	return name
}

// ValidField reports whether name may be sent to journald: capitals, digits
// and "_", not a digit or "_" first (those are journald's own), at most 64
// characters; see journal_field_valid() and systemd.journal-fields(7).
func ValidField(name string) bool {
	if name == "" || len(name) > 64 || name[0] < 'A' || name[0] > 'Z' {
		return false
	}
	for i := 0; i < len(name); i++ {
		if c := name[i]; !(c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_') {
			return false
		}
	}
	return true
}
