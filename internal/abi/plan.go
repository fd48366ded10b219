package abi

import "encoding/json"

// AnnotationPlan names the program that tells what the run entrypoint would
// make of a pod, without touching anything. A stage1 need not have it. It reads
// a PlanRequest from its standard input and writes a Plan.
const AnnotationPlan = prefix + "plan"

// MaxPlan bounds both documents.
const MaxPlan = 64 << 20

// PlanRequest describes a pod that is not there.
type PlanRequest struct {
	// Args are those of the run entrypoint.
	Args []string `json:"args"`
	// Dir is where the pod's directory would be, Machine its name with machined,
	// Unit the unit whose main process would run it.
	Dir     string `json:"dir"`
	Machine string `json:"machine"`
	Unit    string `json:"unit"`
	// Pod is the pod manifest.
	Pod  json.RawMessage `json:"pod"`
	Apps []PlanApp       `json:"apps"`
}

// PlanApp is the image of an app: its manifest, and the directories that make
// up its root, the uppermost first.
type PlanApp struct {
	Name     string          `json:"name"`
	Manifest json.RawMessage `json:"manifest"`
	Roots    []string        `json:"roots"`
}

// Plan is what would be made of it.
type Plan struct {
	// Command and Environment are those of the supervisor.
	Command     []string `json:"command"`
	Environment []string `json:"environment,omitempty"`
	// Files are written in the pod's root before.
	Files []PlanFile `json:"files"`
	Apps  []PlanSpec `json:"apps"`
	// Warnings are what the run entrypoint would warn of.
	Warnings []string `json:"warnings,omitempty"`
}

// PlanFile is a file of the pod's root; Path is relative to that.
type PlanFile struct {
	Path string `json:"path"`
	Text string `json:"text"`
	Mode uint32 `json:"mode"`
}

// PlanSpec is how an app would be confined.
type PlanSpec struct {
	Name            string   `json:"name"`
	Exec            []string `json:"exec"`
	UID             uint32   `json:"uid"`
	GID             uint32   `json:"gid"`
	Capabilities    []string `json:"capabilities"`
	NoNewPrivileges bool     `json:"noNewPrivileges"`
	// Filter is the app's own list of system calls: "default", "own" or "none".
	Filter       string `json:"filter"`
	ReadOnlyRoot bool   `json:"readOnlyRoot"`
	MaskedPaths  bool   `json:"maskedPaths"`
	SELinux      string `json:"selinux,omitempty"`
	AppArmor     string `json:"apparmor,omitempty"`
	// Mounts are the volumes of the host that the app sees, and whether it can write there.
	Mounts []PlanMount `json:"mounts,omitempty"`
}

// PlanMount is a volume of the host in an app.
type PlanMount struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"readOnly"`
}
