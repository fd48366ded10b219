package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/rkt-systemd/rkt/stage0/image"
	"github.com/rkt-systemd/rkt/stage0/keystore"
)

// maxKey bounds a key file.
const maxKey = 1 << 20

func (a *app) trustCmd() *cobra.Command {
	var prefix string
	var root, skip, allowHTTP bool
	cmd := &cobra.Command{
		Use: "trust [--prefix=PREFIX|--root] PUBKEY…", Short: "Trust keys to sign images",
		Long: `Add public keys to the trusted ones: for the images whose names begin with PREFIX, or with --root for all.
PUBKEY is a file or an https URL of an armoured OpenPGP key. The fingerprint is shown and confirmed.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			insecure, err := a.insecure()
			if err != nil {
				return err
			}
			prefix = strings.TrimSuffix(prefix, "/*")
			switch {
			case insecure.Has(image.InsecureImage):
				return errors.New("--insecure-options=image switches the key store off; it makes no sense with trust")
			case prefix != "" && root:
				return errors.New("--prefix and --root exclude each other")
			case prefix == "" && !root && len(args) > 0:
				return hint(errors.New("--root is not set and no --prefix is given: the key would be trusted for everything"),
					"give --prefix=PREFIX, or --root if you mean it")
			case prefix == "" && !root:
				return errors.New("trust takes --prefix or --root, and keys; see rkt help trust")
			case strings.Contains(prefix, "://"):
				return fmt.Errorf("the prefix %q is an image name without a scheme", prefix)
			case len(args) == 0:
				return errors.New("name a key file or URL; keys are not discovered yet")
			}
			for _, arg := range args {
				if err := a.trust(cmd.Context(), arg, prefix, skip, allowHTTP); err != nil {
					return fmt.Errorf("key %q: %w", arg, err)
				}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&prefix, "prefix", "", "image name `PREFIX` the key may sign")
	f.BoolVar(&root, "root", false, "trust the key for all images")
	f.BoolVar(&skip, "skip-fingerprint-review", false, "do not ask")
	f.BoolVar(&allowHTTP, "insecure-allow-http", false, "allow keys over plain http")
	return cmd
}

func (a *app) trust(ctx context.Context, arg, prefix string, skip, allowHTTP bool) error {
	https := strings.HasPrefix(arg, "https://")
	data, err := readKey(ctx, arg, allowHTTP)
	if err != nil {
		return err
	}
	keys, err := keystore.ReadKeys(data)
	if err != nil {
		return err
	}
	where := "all images"
	if prefix != "" {
		where = fmt.Sprintf("prefix %q", prefix)
	}
	fmt.Fprintf(a.Stderr, "trust: %s, key %q\n", where, arg)
	for _, k := range keys {
		fmt.Fprintln(a.Stdout, k.Describe())
	}
	if !skip && !(https && a.trustHTTPS) {
		ok, err := a.confirm()
		if err != nil {
			return err
		}
		if !ok {
			a.log.Infof("key %q is not trusted", arg)
			return nil
		}
	}
	added, err := keystore.New(a.systemConfig, a.localConfig).Add(prefix, data)
	if err != nil {
		return err
	}
	for _, k := range added {
		if prefix == "" {
			a.log.Infof("Added root key at %q", k.Path)
		} else {
			a.log.Infof("Added key for prefix %q at %q", prefix, k.Path)
		}
	}
	return nil
}

// confirm asks until the answer is yes or no.
func (a *app) confirm() (bool, error) {
	if !a.Terminal || a.Stdin == nil || !term.IsTerminal(int(a.Stdin.Fd())) {
		return false, hint(errors.New("the fingerprint must be reviewed on a terminal"),
			"compare the fingerprint above with the signer's, then use --skip-fingerprint-review")
	}
	in := bufio.NewReader(a.Stdin)
	for {
		fmt.Fprint(a.Stderr, "Are you sure you want to trust this key (yes/no)? ")
		line, err := in.ReadString('\n')
		if err != nil {
			return false, errors.New("no answer")
		}
		switch strings.TrimSpace(line) {
		case "yes":
			return true, nil
		case "no":
			return false, nil
		}
		fmt.Fprintln(a.Stderr, "Please type yes or no.")
	}
}

func readKey(ctx context.Context, arg string, allowHTTP bool) ([]byte, error) {
	plain := strings.HasPrefix(arg, "http://")
	if plain && !allowHTTP {
		return nil, hint(errors.New("keys over plain http can be replaced on the way"), "use https, or --insecure-allow-http")
	}
	if !plain && !strings.HasPrefix(arg, "https://") {
		f, err := os.Open(arg)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return limited(f)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, arg, nil)
	if err != nil {
		return nil, err
	}
	c := &http.Client{CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if r.URL.Scheme != "https" && !allowHTTP {
			return errors.New("redirected to plain http")
		}
		if len(via) >= 10 {
			return errors.New("too many redirects")
		}
		return nil
	}}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("bad HTTP status code: %d", resp.StatusCode)
	}
	return limited(resp.Body)
}

func limited(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxKey+1))
	if err == nil && len(b) > maxKey {
		err = fmt.Errorf("a key of more than %d bytes is not read", maxKey)
	}
	return b, err
}
