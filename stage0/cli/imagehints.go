package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// oldCommand is what became of a command that rkt had before version 1.
func oldCommand(word string) (now string, ok bool) {
	switch word {
	case "images":
		return "rkt image list", true
	case "rmimage":
		return "rkt image rm", true
	}
	return "", false
}

// oldFlag is what became of a flag that rkt had before version 1.
func oldFlag(text string) (now string, ok bool) {
	_, rest, unknown := strings.Cut(text, "unknown flag")
	if !unknown {
		return "", false
	}
	flag, _, _ := strings.Cut(strings.TrimLeft(rest, ": "), " ")
	switch strings.TrimRight(flag, ";:,") {
	case "--local":
		return "--pull-policy=never", true
	case "--stage1-image":
		return "--stage1-path=FILE or --stage1-url=URL", true
	case "--insecure-skip-verify":
		return "--insecure-options=image", true
	}
	return "", false
}

// hintOf is what can be done about an error, "" if nobody knows.
func hintOf(err error) string {
	var h *hinted
	if errors.As(err, &h) {
		return h.hint
	}
	var other interface{ Hint() string }
	if errors.As(err, &other) {
		return other.Hint()
	}
	if now, ok := oldFlag(err.Error()); ok {
		return "write " + now
	}
	return ""
}

// unknownCommand is the error of a word that is no command.
func unknownCommand(cmd *cobra.Command, word string) error {
	if now, ok := oldCommand(word); ok {
		return hint(fmt.Errorf("unknown command %q", word), "%s", now)
	}
	return fmt.Errorf("unknown command %q; %srkt help lists the commands", word, didYouMean(cmd, word))
}
