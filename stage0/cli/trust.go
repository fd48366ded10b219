package cli

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/rkt-systemd/rkt/stage0/image"
	"github.com/rkt-systemd/rkt/stage0/keystore"
)

// maxKey bounds a key file.
const maxKey = 1 << 20

// trustFlags are the flags of rkt trust.
type trustFlags struct {
	prefix                string
	root, skip, allowHTTP bool
	list, remove          bool
	format                string
}

func (a *app) trustCmd() *cobra.Command {
	var t trustFlags
	cmd := &cobra.Command{
		Use: "trust [--prefix=PREFIX|--root] [PUBKEY…] | --list | --remove FINGERPRINT…", Short: "Trust keys to sign images",
		Long: `Add public keys to the trusted ones: for the images whose names begin with PREFIX, or with --root for all.
PUBKEY is a file or an https URL: an armoured OpenPGP key, or a sigstore public key (PEM), whose PREFIX is
HOST[:PORT]/REPOSITORY. Without PUBKEY the keys of PREFIX are discovered. Fingerprints are shown and confirmed.

With --list the trusted keys are shown. With --remove keys are trusted no longer: the key of the prefix, the root
key, or the key wherever it is; a key of the system configuration is masked.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			insecure, err := a.insecure()
			if err != nil {
				return err
			}
			t.prefix = strings.TrimSuffix(strings.TrimSuffix(t.prefix, "*"), "/")
			if err := t.check(insecure, args, cmd.Flags().Changed); err != nil {
				return err
			}
			switch {
			case t.list:
				return a.trustList(t)
			case t.remove:
				return a.trustRemove(t, args)
			}
			return a.trustAdd(cmd.Context(), t, insecure, args)
		},
	}
	f := cmd.Flags()
	f.StringVar(&t.prefix, "prefix", "", "image name `PREFIX` the key may sign")
	f.BoolVar(&t.root, "root", false, "trust the key for all images")
	f.BoolVar(&t.skip, "skip-fingerprint-review", false, "do not ask")
	f.BoolVar(&t.allowHTTP, "insecure-allow-http", false, "allow keys over plain http")
	f.BoolVar(&t.list, "list", false, "show the trusted keys")
	f.BoolVar(&t.remove, "remove", false, "trust keys no longer")
	f.StringVar(&t.format, "format", "", "with --list: `FORMAT` json or json-pretty instead of a table")
	return cmd
}

func (t trustFlags) check(insecure image.Insecure, args []string, changed func(string) bool) error {
	switch {
	case t.list && t.remove:
		return errors.New("--list and --remove exclude each other")
	case t.list && len(args) > 0:
		return errors.New("--list takes no keys")
	case t.format != "" && !t.list:
		return errors.New("--format goes with --list")
	case t.format != "" && t.format != "json" && t.format != "json-pretty":
		return fmt.Errorf("unknown format %q: must be one of json, json-pretty", t.format)
	case t.prefix != "" && t.root:
		return errors.New("--prefix and --root exclude each other")
	case strings.Contains(t.prefix, "://"):
		return fmt.Errorf("the prefix %q is an image name without a scheme", t.prefix)
	case changed("prefix") && t.prefix == "":
		return errors.New("--prefix is empty; --root trusts a key for everything")
	case t.remove && len(args) == 0:
		return errors.New("--remove takes the fingerprints of keys; rkt trust --list shows them")
	case t.list || t.remove:
		return nil
	case insecure.Has(image.InsecureImage):
		return errors.New("--insecure-options=image switches the key store off; it makes no sense with trust")
	case t.prefix == "" && !t.root && len(args) > 0:
		return hint(errors.New("--root is not set and no --prefix is given: the key would be trusted for everything"),
			"give --prefix=PREFIX, or --root if you mean it")
	case t.prefix == "" && !t.root:
		return errors.New("trust takes --prefix or --root, and keys; see rkt help trust")
	case t.root && len(args) == 0:
		return errors.New("--root takes a key: keys are discovered for a prefix only")
	}
	return nil
}

func (a *app) keys() *keystore.Store { return keystore.New(a.systemConfig, a.localConfig) }

func (a *app) trustAdd(ctx context.Context, t trustFlags, insecure image.Insecure, args []string) error {
	c, err := a.config()
	if err != nil {
		return err
	}
	f := &image.Fetcher{Keys: a.keys(), Config: c, Insecure: insecure, Log: a.log}
	found := ""
	if len(args) == 0 {
		found = t.prefix
		if args, err = f.DiscoverKeys(ctx, t.prefix, t.allowHTTP); err != nil {
			return hint(err, "name a key file or URL: rkt trust --prefix=%s PUBKEY", t.prefix)
		}
	}
	for _, arg := range args {
		if err := a.trust(ctx, f, t, found, arg); err != nil {
			return fmt.Errorf("key %q: %w", arg, err)
		}
	}
	return nil
}

// trust adds the keys of one file or URL. Found is the name whose discovery
// led to it, if any did.
func (a *app) trust(ctx context.Context, f *image.Fetcher, t trustFlags, found, arg string) error {
	data, err := a.readKey(ctx, f, t, found, arg)
	if err != nil {
		return err
	}
	keys, err := keystore.ReadKeys(data)
	if err != nil {
		return err
	}
	a.showKeys(t.prefix, arg, a.Stdout, keys)
	https := strings.HasPrefix(arg, "https://") && !f.Insecure.Has(image.InsecureTLS)
	if !t.skip && !(https && a.trustHTTPS) {
		ok, err := a.confirm()
		if err != nil {
			return err
		}
		if !ok {
			a.log.Infof("key %q is not trusted", arg)
			return nil
		}
	}
	added, err := f.Keys.Add(t.prefix, data)
	for _, k := range added {
		if t.prefix == "" {
			a.log.Infof("Added root key at %q", k.Path)
		} else {
			a.log.Infof("Added key for prefix %q at %q", t.prefix, k.Path)
		}
	}
	return err
}

func (a *app) showKeys(prefix, from string, w io.Writer, keys []keystore.Key) {
	where := "all images"
	if prefix != "" {
		where = fmt.Sprintf("prefix %q", prefix)
	}
	fmt.Fprintf(a.Stderr, "trust: %s, key %q\n", where, from)
	for _, k := range keys {
		fmt.Fprintln(w, k.Describe())
	}
}

// askKeys shows discovered keys during a fetch and asks for them.
func (a *app) askKeys(_ context.Context, q image.KeyQuestion) (bool, error) {
	if !a.interactive() {
		return false, errors.New("without a terminal nobody can be asked")
	}
	a.showKeys(q.Prefix, q.URL, a.Stderr, q.Keys)
	return yesOrNo(a.Stdin, a.Stderr)
}

// interactive says whether somebody sees a question and can answer it.
func (a *app) interactive() bool {
	return a.Terminal && a.Stdin != nil && term.IsTerminal(int(a.Stdin.Fd()))
}

// confirm asks until the answer is yes or no.
func (a *app) confirm() (bool, error) {
	if !a.interactive() {
		return false, hint(errors.New("the fingerprint must be reviewed on a terminal"),
			"compare the fingerprint above with the signer's, then use --skip-fingerprint-review")
	}
	return yesOrNo(a.Stdin, a.Stderr)
}

// yesOrNo asks until the whole answer is one of the two.
func yesOrNo(from io.Reader, to io.Writer) (bool, error) {
	in := bufio.NewReader(from)
	for {
		fmt.Fprint(to, "Are you sure you want to trust this key (yes/no)? ")
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
		fmt.Fprintln(to, "Please type yes or no.")
	}
}

func (a *app) readKey(ctx context.Context, f *image.Fetcher, t trustFlags, found, arg string) ([]byte, error) {
	scheme, _, isURL := strings.Cut(arg, "://")
	switch {
	case isURL && scheme == "http" && !t.allowHTTP:
		return nil, hint(errors.New("keys over plain http can be replaced on the way"), "use https, or --insecure-allow-http")
	case isURL && (scheme == "http" || scheme == "https"):
		return f.DownloadKey(ctx, found, arg, t.allowHTTP)
	case isURL:
		return nil, fmt.Errorf("unknown URL scheme %q: want https, or the path of a file", scheme)
	}
	file, err := os.Open(arg)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxKey+1))
	if err == nil && len(data) > maxKey {
		err = fmt.Errorf("a key of more than %d bytes is not read", maxKey)
	}
	return data, err
}

// trustEntry is one key of rkt trust --list, as JSON.
type trustEntry struct {
	Prefix      string   `json:"prefix"` // "" for a root key
	Root        bool     `json:"root"`
	Fingerprint string   `json:"fingerprint"`
	Type        string   `json:"type,omitempty"`
	Masked      bool     `json:"masked"` // the file is a mask
	Problem     string   `json:"problem,omitempty"`
	Subkeys     []string `json:"subkeys,omitempty"`
	Identities  []string `json:"identities,omitempty"`
	Path        string   `json:"path"`
}

// trustList shows the key files; with a prefix those that count for it.
func (a *app) trustList(t trustFlags) error {
	keys, listErr := a.keys().List()
	entries := []trustEntry{}
	for _, k := range keys {
		if t.root && !k.Root || t.prefix != "" && !k.Root && t.prefix != k.Prefix && !strings.HasPrefix(t.prefix, k.Prefix+"/") {
			continue
		}
		entries = append(entries, trustEntry{k.Prefix, k.Root, k.Fingerprint, k.Type, k.Masked, k.Problem, k.Subkeys, k.Identities, k.Path})
	}
	if err := a.printTrust(entries, t.format); err != nil {
		return err
	}
	return listErr
}

func (a *app) printTrust(entries []trustEntry, format string) error {
	if format != "" {
		enc := json.NewEncoder(a.Stdout)
		if format == "json-pretty" {
			enc.SetIndent("", "\t")
		}
		return enc.Encode(entries)
	}
	w := tabwriter.NewWriter(a.Stdout, 0, 8, 1, '\t', 0)
	fmt.Fprintln(w, "PREFIX\tFINGERPRINT\tTYPE\tIDENTITIES")
	for _, e := range entries {
		prefix, kind, identities := e.Prefix, e.Type, strings.Join(e.Identities, ", ")
		if e.Root {
			prefix = "(all)"
		}
		switch {
		case e.Masked:
			kind, identities = "mask", ""
		case e.Problem != "":
			identities = "(" + e.Problem + ") " + identities
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", prefix, e.Fingerprint, kind, keystore.Printable(identities))
	}
	return w.Flush()
}

// trustRemove takes trust back; what fails does not keep the rest.
func (a *app) trustRemove(t trustFlags, args []string) error {
	var errs []error
	for _, arg := range args {
		fpr := strings.ToLower(strings.Join(strings.Fields(arg), ""))
		if _, err := hex.DecodeString(fpr); err != nil || len(fpr) < 40 {
			errs = append(errs, fmt.Errorf("%q is not the whole fingerprint of a key", arg))
			continue
		}
		done, err := a.keys().Remove(t.prefix, t.root, fpr)
		for _, d := range done {
			if d.Masked {
				a.log.Infof("Masked the key of the system configuration by %q", d.Path)
			} else {
				a.log.Infof("Removed the key %q", d.Path)
			}
		}
		if errors.Is(err, os.ErrNotExist) {
			err = hint(fmt.Errorf("key %q is not trusted there", arg), "rkt trust --list shows the trusted keys")
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
