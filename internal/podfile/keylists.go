// Code generated from the table of internal/podfile/keys; DO NOT EDIT.

package podfile

// Keys of each object, for suggestions; the parser's switches decide.
var (
	podKeys           = []string{"$schema", "acVersion", "acKind", "apps", "volumes", "ports", "isolators", "annotations", "userAnnotations", "userLabels", "systemd", "rkt"}
	appKeys           = []string{"name", "image", "app", "exec", "args", "user", "group", "supplementaryGIDs", "workingDirectory", "environment", "isolators", "mounts", "ports", "health", "credentials", "readOnlyRootFS", "annotations", "stdin", "stdout", "stderr", "update", "systemd"}
	appImageKeys      = []string{"name", "id", "labels"}
	appMountKeys      = []string{"volume", "path", "appVolume"}
	appPortKeys       = []string{"name", "port", "protocol", "count", "socketActivated"}
	appHealthKeys     = []string{"exec", "http", "tcp", "notify", "interval", "timeout", "retries", "startPeriod", "startInterval", "action"}
	appCredentialKeys = []string{"name", "file", "env"}
	appSystemdKeys    = []string{"unit", "service"}
	sectionKeys       = []string{"exec", "eventHandlers", "user", "group", "supplementaryGIDs", "workingDirectory", "environment", "mountPoints", "ports", "isolators", "userAnnotations", "userLabels"}
	volumeKeys        = []string{"name", "kind", "source", "readOnly", "recursive", "mode", "uid", "gid", "owner"}
	portKeys          = []string{"name", "hostPort", "hostIP", "podPort", "activate", "idleTime"}
	systemdKeys       = []string{"unit", "service", "install", "socket", "timer", "path"}
	rktKeys           = []string{"net", "hostname", "stage1", "pullPolicy", "update", "insecureOptions", "noOverlay", "privateUsers", "profile", "environment", "environmentFiles", "dns", "dnsSearch", "dnsOptions", "dnsOpt", "dnsDomain", "hostsEntries", "credentials", "journal", "logNamespace", "ready", "ipc"}
	rktUpdateKeys     = []string{"policy", "timeout", "settle", "keep"}
	rktCredentialKeys = []string{"load", "set", "encrypted"}
	pairKeys          = []string{"name", "value"}
)
