// Package journal owns what rkt and the journal say to each other: the names
// of rkt's fields, a writer (a logrus hook that speaks journald's native
// protocol) and a reader (over journalctl's export format). docs/journal-fields.md
// is the list for users.
//
// stage0 and stage1 may import it; it imports only internal packages and
// logrus. Printing for people is the caller's, except for the one line format
// of Entry.Short.
package journal
