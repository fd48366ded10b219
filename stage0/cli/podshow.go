package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/podunit"
	"github.com/rkt-systemd/rkt/internal/unitfile"
)

// podShowJSON is what rkt pod show tells.
type podShowJSON struct {
	Name         string     `json:"name"`
	Unit         string     `json:"unit"`
	Machine      string     `json:"machine"`
	Profile      string     `json:"profile"`
	Files        []string   `json:"files"`
	PrivateUsers string     `json:"private_users"`
	Units        []textJSON `json:"units"`
	Links        []linkJSON `json:"links"`
	foreseen
	Command     []string       `json:"command,omitempty"`
	Environment []string       `json:"environment,omitempty"`
	AppUnits    []textJSON     `json:"app_units,omitempty"`
	Apps        []abi.PlanSpec `json:"apps,omitempty"`
	Warnings    []string       `json:"warnings,omitempty"`
	Plan        *struct{}      `json:"Plan,omitempty"` // its parts are above
}

type textJSON struct {
	Path string `json:"path"`
	Text string `json:"text"`
}

type linkJSON struct {
	Path   string `json:"path"`
	Target string `json:"target"`
}

func (a *app) podShowCmd() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "show NAME", Short: "Show what systemd gets for a declared pod", Args: exactArgs(1, "the name of a declared pod"),
		Long: `Show what a declared pod is made of: the units of the host, the command line of systemd-nspawn, the units of its apps and
how they would be confined. Nothing is fetched, unpacked or written: of images that are not there yet it is said so, and what depends on them is left
out. What is chosen when a pod starts is taken from the pod that runs, else there are stand-ins: the UUID ` + standInUUID + `,
user ids from 524288 on, no sockets from systemd.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			p, err := a.loadPod(args[0])
			if err != nil {
				return err
			}
			out, err := podunit.Pod(p, podunit.Options{})
			if err != nil {
				return err
			}
			f, err := a.foresee(cmd.Context(), p)
			if err != nil {
				f = &foreseen{Images: []foreseenImage{}, Missing: []string{"it could not be started: " + err.Error()}}
			}
			defer f.close()
			if format == "" {
				showPod(a.Stdout, p, &out, f)
				return nil
			}
			j := podShowJSON{Name: p.Name, Unit: p.UnitName(), Machine: p.MachineName(), Profile: orElse(p.Rkt.Profile, podfile.ProfileDefault), Files: p.Files,
				PrivateUsers: privateUsersText(p), Units: []textJSON{}, Links: []linkJSON{}, foreseen: *f}
			for _, u := range out.Files {
				if u.Secret {
					u.Data = nil // nobody may print it
				}
				j.Units = append(j.Units, textJSON{u.Path, string(u.Data)})
			}
			for _, l := range out.Links {
				j.Links = append(j.Links, linkJSON{l.Path, l.Target})
			}
			if f.Plan != nil {
				j.Command, j.Environment, j.Apps, j.Warnings = f.Plan.Command, f.Plan.Environment, f.Plan.Apps, f.Plan.Warnings
				j.AppUnits = appUnits(f.Plan)
			}
			return printJSON(a.Stdout, format, j)
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "`json` or json-pretty instead of text")
	return cmd
}

// appUnits are the units of the pod's own systemd. Other files of the pod may
// hold variables of apps, and are nobody's business.
func appUnits(p *abi.Plan) []textJSON {
	var out []textJSON
	for _, f := range p.Files {
		if name, ok := strings.CutPrefix(f.Path, podfs.UnitDir+"/"); ok {
			out = append(out, textJSON{name, f.Text})
		}
	}
	return out
}

func showPod(w io.Writer, p *podfile.Pod, out *podunit.Output, f *foreseen) {
	fmt.Fprintf(w, "# pod %s, unit %s, machine %s\n", p.Name, p.UnitName(), p.MachineName())
	for _, file := range p.Files {
		fmt.Fprintf(w, "# file %s\n", file)
	}
	for i, ap := range p.Apps {
		fmt.Fprintf(w, "# app %s, image %s", orDash(ap.Name), imageText(ap.Image))
		if i < len(f.Images) && f.Images[i].ID != "" {
			fmt.Fprintf(w, ", %s", f.Images[i].ID)
			if d := f.Images[i].Digest; d != "" {
				fmt.Fprintf(w, ", digest %s", d)
			}
		}
		fmt.Fprintln(w)
	}
	if f.Generation > 0 {
		fmt.Fprintf(w, "# images: generation %d, %s\n", f.Generation, f.GenerationState)
	}
	fmt.Fprintf(w, "# profile: %s\n", orElse(p.Rkt.Profile, podfile.ProfileDefault))
	fmt.Fprintf(w, "# private users: %s\n", privateUsersText(p))
	for _, u := range out.Files {
		if u.Secret {
			fmt.Fprintf(w, "\n# %s: a secret, %d bytes\n", u.Path, len(u.Data))
			continue
		}
		fmt.Fprintf(w, "\n# %s\n%s", u.Path, u.Data)
	}
	for _, l := range out.Links {
		fmt.Fprintf(w, "\n# %s -> %s\n", l.Path, l.Target)
	}
	for _, m := range f.Missing {
		fmt.Fprintf(w, "\n# not known yet: %s\n", strings.ReplaceAll(m, "\n", " "))
	}
	if f.Plan == nil {
		return
	}
	fmt.Fprintf(w, "\n# systemd-nspawn\n")
	for _, e := range f.Plan.Environment {
		fmt.Fprintf(w, "%s \\\n", unitfile.Quote(e))
	}
	for i, arg := range f.Plan.Command {
		end := " \\\n    "
		if i == len(f.Plan.Command)-1 {
			end = "\n"
		}
		fmt.Fprint(w, unitfile.Quote(arg), end)
	}
	for _, u := range appUnits(f.Plan) {
		fmt.Fprintf(w, "\n# in the pod: %s\n%s", u.Path, u.Text)
	}
	for _, warning := range f.Plan.Warnings {
		fmt.Fprintf(w, "\n# warning: %s\n", warning)
	}
}
