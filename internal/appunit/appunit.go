// Package appunit says which directives of systemd a pod file may give to the
// unit of an app inside the pod, and carries them from stage0 to stage1 in an
// annotation of the app. Everything the app itself sees (its root, user,
// capabilities, streams …) is the launcher's and not the unit's, so most
// directives of systemd.exec(5) are refused with the key to use instead.
//
// The generator links it by way of podfile: no fmt, no encoding/json.
package appunit

import (
	"errors"
	"strconv"
	"strings"

	"github.com/rkt-systemd/rkt/internal/jsonpos"
	"github.com/rkt-systemd/rkt/internal/unitfile"
)

// Annotation holds the directives of an app in a pod manifest: a JSON list of
// [section, key, value], in the order of the pod file.
const Annotation = "coreos.com/rkt/stage2/systemd"

// Directive is a line of an app's unit. Section is "Unit" or "Service".
type Directive struct{ Section, Key, Value string }

const allowedUnit = " StartLimitIntervalSec StartLimitBurst "

// allowed are the directives of [Service] that are applied as they are.
const allowed = " " +
	"Restart RestartSec RestartSteps RestartMaxDelaySec RestartPreventExitStatus RestartForceExitStatus SuccessExitStatus " +
	"TimeoutStartSec TimeoutStopSec TimeoutSec TimeoutAbortSec RuntimeMaxSec WatchdogSec WatchdogSignal " +
	"KillSignal RestartKillSignal FinalKillSignal SendSIGHUP SendSIGKILL " +
	"CPUWeight CPUQuota CPUQuotaPeriodSec StartupCPUWeight AllowedCPUs AllowedMemoryNodes MemoryMin MemoryLow MemoryHigh MemoryMax " +
	"MemorySwapMax MemoryZSwapMax TasksMax IOWeight StartupIOWeight IODeviceWeight IOReadBandwidthMax IOWriteBandwidthMax IOReadIOPSMax " +
	"IOWriteIOPSMax IODeviceLatencyTargetSec IPAddressAllow IPAddressDeny OOMPolicy OOMScoreAdjust " +
	"CPUAccounting MemoryAccounting TasksAccounting IOAccounting IPAccounting " +
	"LimitCPU LimitFSIZE LimitDATA LimitSTACK LimitCORE LimitRSS LimitNOFILE LimitAS LimitNPROC LimitMEMLOCK LimitLOCKS LimitSIGPENDING " +
	"LimitMSGQUEUE LimitNICE LimitRTPRIO LimitRTTIME UMask Nice CPUSchedulingPolicy CPUSchedulingPriority CPUSchedulingResetOnFork " +
	"CPUAffinity NUMAPolicy NUMAMask IOSchedulingClass IOSchedulingPriority TimerSlackNSec CoredumpFilter IgnoreSIGPIPE NonBlocking "

// ours are directives that rkt carries out itself.
const ours = " Type ExecReload ReloadSignal "

// Known lists the keys that can be set in a section ("unit", "service"), for suggestions.
func Known(section string) []string {
	if section == "unit" {
		return strings.Fields(allowedUnit)
	}
	return strings.Fields(allowed + ours)
}

// Check says what is wrong with a directive, "" if nothing. section is "unit" or "service".
func Check(section, key, value string) string {
	if err := unitfile.CheckKey(key); err != nil {
		return err.Error()
	}
	if err := unitfile.CheckValue(value); err != nil {
		return err.Error()
	}
	if section == "unit" {
		if strings.Contains(allowedUnit, " "+key+" ") {
			return ""
		}
		return "an app's unit can have only dependencies on other apps and" + strings.TrimRight(allowedUnit, " ") + " here"
	}
	switch {
	case strings.Contains(allowed, " "+key+" "):
		return ""
	case key == "Type":
		if value != "notify" && value != "exec" {
			return "an app's Type= is exec (started when its program is executed) or notify (when it says so)"
		}
		return ""
	case key == "ExecReload":
		if _, err := Command(value); err != nil {
			return err.Error()
		}
		return ""
	case key == "ReloadSignal":
		if strings.Trim(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-") != "" || value == "" {
			return strconv.Quote(value) + " is no name of a signal"
		}
		return ""
	}
	return key + "= cannot be set for an app: " + reason(key)
}

func reason(key string) string {
	switch key {
	case "ExecStart", "ExecCondition":
		return "what the app runs is its exec"
	case "ExecStartPre", "ExecStartPost", "ExecStop", "ExecStopPost":
		return "use the event handlers pre-start and post-stop of an app section"
	case "NotifyAccess", "PIDFile", "BusName", "RemainAfterExit", "GuessMainPID", "ExitType", "Sockets":
		return "rkt watches the app's process itself"
	case "KillMode":
		return "all processes of an app end with it"
	case "User", "Group", "DynamicUser", "SupplementaryGroups", "PAMName":
		return "see the app's user, group and supplementaryGIDs"
	case "WorkingDirectory":
		return "see the app's workingDirectory"
	case "Environment", "EnvironmentFile", "PassEnvironment", "UnsetEnvironment":
		return "see the app's environment"
	case "CapabilityBoundingSet", "AmbientCapabilities", "NoNewPrivileges", "SecureBits", "SystemCallFilter", "SystemCallErrorNumber",
		"SystemCallArchitectures", "AppArmorProfile", "SELinuxContext":
		return "see the app's isolators"
	case "StandardInput", "StandardOutput", "StandardError", "TTYPath":
		return "see the app's stdin, stdout and stderr"
	case "SyslogIdentifier", "SyslogFacility", "SyslogLevel", "SyslogLevelPrefix", "LogExtraFields", "LogNamespace", "LogLevelMax",
		"LogRateLimitIntervalSec", "LogRateLimitBurst":
		return "its lines go to the host's journal by way of the pod's unit; set it in the pod's systemd section"
	case "Slice", "Delegate", "DisableControllers":
		return "the pod's control groups are rkt's own"
	case "BindPaths", "BindReadOnlyPaths", "TemporaryFileSystem", "ReadOnlyPaths", "ReadWritePaths", "InaccessiblePaths":
		return "see the app's mounts and readOnlyRootFS"
	}
	return "it is none of those that an app's unit takes"
}

// Command splits a command line of ExecReload as systemd does; $MAINPID alone
// among variables is replaced when it runs.
func Command(line string) ([]string, error) {
	words, err := unitfile.SplitWords(line)
	if err != nil {
		return nil, err
	}
	if len(words) == 0 || !strings.HasPrefix(words[0], "/") {
		return nil, errors.New("the command must begin with the absolute path of a program of the image")
	}
	return words, nil
}

// Encode makes the value of the annotation.
func Encode(ds []Directive) string {
	b := []byte("[")
	for i, d := range ds {
		if i > 0 {
			b = append(b, ',')
		}
		v := jsonpos.Value{Kind: jsonpos.Array}
		for _, s := range []string{d.Section, d.Key, d.Value} {
			v.Items = append(v.Items, &jsonpos.Value{Kind: jsonpos.String, Text: s})
		}
		b = v.AppendJSON(b)
	}
	return string(append(b, ']'))
}

// Decode is the inverse of Encode. The value may come from anybody's manifest:
// every directive is checked again.
func Decode(text string) ([]Directive, error) {
	v, problems := jsonpos.Decode("", []byte(text))
	if v == nil || len(problems) > 0 || v.Kind != jsonpos.Array {
		return nil, errors.New("annotation " + Annotation + " is no list")
	}
	var out []Directive
	for _, it := range v.Items {
		if it.Kind != jsonpos.Array || len(it.Items) != 3 {
			return nil, errors.New("annotation " + Annotation + ": an entry is no list of section, key and value")
		}
		var s [3]string
		for i, x := range it.Items {
			if x.Kind != jsonpos.String {
				return nil, errors.New("annotation " + Annotation + ": an entry is no list of strings")
			}
			s[i] = x.Text
		}
		if s[0] != "Unit" && s[0] != "Service" {
			return nil, errors.New("annotation " + Annotation + ": section " + strconv.Quote(s[0]) + " is not known")
		}
		if msg := Check(strings.ToLower(s[0]), s[1], s[2]); msg != "" {
			return nil, errors.New("annotation " + Annotation + ": " + msg)
		}
		out = append(out, Directive{s[0], s[1], s[2]})
	}
	return out, nil
}
