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
	for flag, now := range map[string]string{
		"--local": "--pull-policy=never", "--stage1-image": "--stage1-path or --stage1-url", "--insecure-skip-verify": "--insecure-options=image",
	} {
		if strings.HasSuffix(text, " "+flag) || strings.Contains(text, " "+flag+";") || strings.Contains(text, " "+flag+" ") {
			return now, true
		}
	}
	return "", false
}

// flagError adds what to type to errors about flags.
func flagError(_ *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	if now, ok := oldFlag(err.Error()); ok {
		return hint(err, "write %s", now)
	}
	return err
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
	return ""
}

// unknownCommand is the error of a word that is no command.
func unknownCommand(cmd *cobra.Command, word string) error {
	if now, ok := oldCommand(word); ok {
		return hint(fmt.Errorf("unknown command %q", word), "%s", now)
	}
	return fmt.Errorf("unknown command %q; %srkt help lists the commands", word, didYouMean(cmd, word))
}
