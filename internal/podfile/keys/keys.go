// Package keys is the table of every key that a pod file can have. From it
// come the JSON Schema for editors, the reference in rkt.pod(5), and the lists
// by which the parser finds what a misspelt key was meant to be; its tests hold
// all of them, and the parser, to the table. "go test ./internal/podfile/keys
// -update" writes them anew.
//
// Only tests import it: the texts are no part of the generator.
package keys

// Key is a key of a pod file.
type Key struct {
	// Path is where it is: "[]" stands for an entry of a list, a word in
	// capitals for any name.
	Path string
	// Type says what it can be: words and, with arguments, string, path,
	// name, identifier, boolean, integer(LO HI), enum(A B), pattern(REGEXP),
	// directives(SECTION), list(TYPE), map(TYPE), object, any; "or" between
	// them. What an object can have are the keys below its path.
	Type string
	// Default is what its absence means.
	Default string
	// Becomes is the directive or flag that carries it out.
	Becomes string
	// Since is the version that had it first.
	Since string
	// Text is a sentence for people.
	Text string
}

const since = "2.0"

const (
	words       = "string or list(string)"
	environment = "map(scalar) or list(object)"
	account     = "string or integer(0 4294967294)"
	isolators   = "list(object)"
	short       = "pattern(^[a-z0-9]+(-[a-z0-9]+)*,kind=(host|empty)(,(source|readOnly|recursive|mode|uid|gid|owner)=[^,]*)*$)"
	shortMount  = "pattern(^(volume=[^,]+,target=[^,]+|target=[^,]+,volume=[^,]+)$)"
	shortPort   = `pattern(^[a-z0-9]+(-[a-z0-9]+)*:([0-9]{1,3}(\.[0-9]{1,3}){3}:)?[0-9]{1,5}$)`
	address     = `pattern(^([0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9a-fA-F.]*:[0-9a-fA-F:.]*)?$)`
	stream      = "enum(null log stream tty)"
)

// Table returns the keys, those of an object after the object.
func Table() []Key {
	all := [][]Key{pod(), apps(), appParts(), volumes(), ports(), systemd(), rkt()}
	var out []Key
	for _, t := range all {
		out = append(out, t...)
	}
	return out
}

func pod() []Key {
	return []Key{
		{"$schema", "string", "", "", since, "The schema by which an editor checks and completes the file; not read by rkt."},
		{"acVersion", "string", "", "", since, "Version of the appc spec, for pod manifests; not needed."},
		{"acKind", "enum(PodManifest)", "PodManifest", "", since, "For pod manifests; not needed."},
		{"apps", "list(object)", "needed", "one unit NAME.service each in the pod", since, "The apps of the pod, one at least and 512 at most."},
		{"volumes", "list(object or " + short + ")", "none", "--volume", since, "Directories and files for the apps: of the host, or empty ones that go with the pod."},
		{"ports", "list(object or " + shortPort + ")", "none", "--port", since, "Ports of the host that lead to ports the apps declare."},
		{"isolators", isolators, "none", "MemoryMax= MemoryLow= CPUQuota= CPUWeight=", since, "Limits of the whole pod: resource/memory, resource/cpu, os/linux/cpu-shares."},
		{"isolators[].name", "identifier", "needed", "", since, "Name of the isolator."},
		{"isolators[].value", "any", "needed", "", since, "Its value."},
		{"annotations", environment, "none", "", since, "Annotations of the pod manifest."},
		{"annotations[].name", "identifier", "needed", "", since, "Name of the annotation."},
		{"annotations[].value", "string", "empty", "", since, "Its value."},
		{"userAnnotations", "map(string)", "none", "", since, "Any text for people and tools."},
		{"userLabels", "map(string)", "none", "", since, "Any text for people and tools."},
		{"systemd", "object", "none", "", since, "Directives for the units of the host."},
		{"rkt", "object", "none", "", since, "What rkt run has flags for."},
	}
}

func apps() []Key {
	return []Key{
		{"apps[].name", "name", "last component of the image's name", "--name", since, "Name of the app: lower case letters, digits and single dashes."},
		{"apps[].image", "pattern(^[^-]) or object", "needed", "IMAGE", since, "The image: a name, URL, path or hash as rkt run takes it, or an object."},
		{"apps[].image.name", "identifier", "", "", since, "Name of the image."},
		{"apps[].image.id", `pattern(^sha512-[0-9a-f]{2,128}$)`, "", "", since, "Hash of the image; enough without a name."},
		{"apps[].image.labels", environment, "none", "", since, "Labels that the image has."},
		{"apps[].image.labels[].name", "identifier", "needed", "", since, "Name of the label."},
		{"apps[].image.labels[].value", "string", "empty", "", since, "Its value."},
		{"apps[].app", "object", "that of the image", "", since, "An appc app section in place of the image's."},
		{"apps[].exec", "list(string)", "that of the image", "--exec", since, "Program and arguments, in place of the image's."},
		{"apps[].args", "list(string)", "none", "-- ARG", since, "Arguments after the command; of an OCI image, after its entrypoint in place of its CMD."},
		{"apps[].user", account, "that of the image", "--user", since, "User: a name, a number, or a path in the image whose owner counts."},
		{"apps[].group", account, "that of the image", "--group", since, "Group, as user."},
		{"apps[].supplementaryGIDs", "list(integer(0 4294967294))", "those of the image", "--supplementary-gids", since, "Further groups."},
		{"apps[].workingDirectory", "path", "that of the image", "--working-dir", since, "Directory in which the app starts."},
		{"apps[].environment", environment, "none", "--environment", since, "Variables, over those of the image and of rkt.environment."},
		{"apps[].environment[].name", "string", "needed", "", since, "Name of the variable."},
		{"apps[].environment[].value", "string", "empty", "", since, "Its value."},
		{"apps[].isolators", isolators, "those of the image", "--memory --cpu --caps-retain --seccomp …", since, "Limits and confinement; each replaces those of its kind."},
		{"apps[].isolators[].name", "identifier", "needed", "", since, "Name of the isolator."},
		{"apps[].isolators[].value", "any", "needed", "", since, "Its value."},
		{"apps[].mounts", "list(object or " + shortMount + ")", "none", "--mount", since, "Where the app has the pod's volumes."},
		{"apps[].mounts[].volume", "string", "", "", since, "Name of a volume of the pod."},
		{"apps[].mounts[].path", "string", "needed", "", since, "Path in the app, or the name of one of its mount points."},
		{"apps[].mounts[].appVolume", "object(volumes[]) or " + short, "", "", since, "A volume of this mount alone, with the keys of volumes."},
		{"apps[].ports", "list(object)", "those of the image", "", since, "Ports of the app, laid over the image's by name."},
		{"apps[].ports[].name", "name", "needed", "", since, "Name of the port."},
		{"apps[].ports[].port", "integer(1 65535)", "that of the image", "", since, "Number on which the app listens."},
		{"apps[].ports[].protocol", "enum(tcp udp sctp)", "that of the image, else tcp", "", since, "Its protocol."},
		{"apps[].ports[].count", "integer(1 65535)", "1", "", since, "How many ports from that number on."},
		{"apps[].ports[].socketActivated", "boolean", "that of the image", "", since, "The app takes the socket of this port from systemd (sd_listen_fds(3))."},
		{"apps[].health", "object or boolean", "that of the image (HEALTHCHECK)", "", since, "How the app's health is found out; null for no check, even if the image has one."},
		{"apps[].health.exec", "list(string)", "", "", since, "A command of the image, run as the app is; its status is 0 for a healthy app."},
		{"apps[].health.http", "pattern(^http://)", "", "", since, "http://[ADDRESS]:PORT/PATH in the pod's network; answered with 200 to 399 by a healthy app."},
		{"apps[].health.tcp", "string or integer(1 65535)", "", "", since, "[ADDRESS:]PORT in the pod's network, to which one can connect when the app is healthy."},
		{"apps[].health.notify", "boolean", "", "", since, "The app is healthy when it has said so to systemd (Type=notify), and while its watchdog is satisfied."},
		{"apps[].health.interval", "string or integer(0 86400)", "30s", "", since, "Time between two checks."},
		{"apps[].health.timeout", "string or integer(0 86400)", "30s", "", since, "Time that a check may take."},
		{"apps[].health.retries", "integer(1 1000)", "3", "", since, "Checks that fail in a row before the app is unhealthy."},
		{"apps[].health.startPeriod", "string or integer(0 86400)", "0s", "", since, "Time after the start in which failures do not count."},
		{"apps[].health.startInterval", "string or integer(0 86400)", "5s", "", since, "Longest time between two checks while the app starts."},
		{"apps[].health.action", "enum(none restart-app restart-pod)", "none", "", since, "What is done with an app that is unhealthy; restart-pod ends the pod with status 250, see Restart=."},
		{"apps[].credentials", "list(string or object)", "none", "", since, "Names of credentials in rkt.credentials that the app gets, in $CREDENTIALS_DIRECTORY."},
		{"apps[].credentials[].name", "string", "needed", "", since, "Name of the credential."},
		{"apps[].credentials[].file", "path", "none", "", since, "A path of the app at which it is seen, too."},
		{"apps[].credentials[].env", "pattern(^[A-Za-z_][A-Za-z0-9_]*$)", "none", "", since, "A variable that holds the path of the file."},
		{"apps[].readOnlyRootFS", "boolean", "false", "--readonly-rootfs", since, "The app's root can only be read."},
		{"apps[].annotations", environment, "none", "--annotation", since, "Annotations of the app."},
		{"apps[].annotations[].name", "identifier", "needed", "", since, "Name of the annotation."},
		{"apps[].annotations[].value", "string", "empty", "", since, "Its value."},
		{"apps[].stdin", "enum(null stream tty)", "null", "--stdin", since, "Where standard input comes from."},
		{"apps[].stdout", stream, "log", "--stdout", since, "Where standard output goes: log is the host's journal."},
		{"apps[].stderr", stream, "log", "--stderr", since, "Where standard error goes."},
		{"apps[].update", "enum(registry local never)", "that of the pod", "", since, "Whether and how this app's image is updated."},
		{"apps[].systemd", "object", "none", "", since, "The app's own unit in the pod."},
		{"apps[].systemd.unit", "directives(app-unit)", "none", "[Unit] of the app", since, "Dependencies on other apps (After Before Requires Wants BindsTo PartOf, each an app's name or several), StartLimitIntervalSec, StartLimitBurst."},
		{"apps[].systemd.service", "directives(app-service)", "none", "[Service] of the app", since, "Restart, watchdog, reload, time limits and resource control of this app alone."},
	}
}

// appParts are the keys of an appc app section.
func appParts() []Key {
	const p = "apps[].app."
	return []Key{
		{p + "exec", "list(string)", "", "", since, "Program and arguments."},
		{p + "eventHandlers", "list(any)", "none", "", since, "Commands before and after the app: pre-start, post-stop."},
		{p + "user", "string", "needed", "", since, "User."},
		{p + "group", "string", "needed", "", since, "Group."},
		{p + "supplementaryGIDs", "list(integer(0 4294967294))", "none", "", since, "Further groups."},
		{p + "workingDirectory", "pattern(^(/|$))", "/", "", since, "Directory in which the app starts."},
		{p + "environment", "list(object)", "none", "", since, "Variables."},
		{p + "environment[].name", "string", "needed", "", since, "Name of the variable."},
		{p + "environment[].value", "string", "empty", "", since, "Its value."},
		{p + "mountPoints", "list(any)", "none", "", since, "Places for volumes."},
		{p + "ports", "list(any)", "none", "", since, "Ports the app listens on."},
		{p + "isolators", isolators, "none", "", since, "Limits and confinement."},
		{p + "isolators[].name", "identifier", "needed", "", since, "Name of the isolator."},
		{p + "isolators[].value", "any", "needed", "", since, "Its value."},
		{p + "userAnnotations", "map(string)", "none", "", since, "Any text."},
		{p + "userLabels", "map(string)", "none", "", since, "Any text."},
	}
}

func volumes() []Key {
	const p = "volumes[]."
	return []Key{
		{p + "name", "name", "needed", "", since, "Name by which mounts find the volume."},
		{p + "kind", "enum(host empty)", "needed", "", since, "host: a file or directory of the host. empty: a new directory, gone with the pod."},
		{p + "source", "string", "needed for host", "RequiresMountsFor=", since, "Absolute path on the host; the pod's start waits for its mount."},
		{p + "readOnly", "boolean", "false", "", since, "Apps can only read it."},
		{p + "recursive", "boolean", "true", "", since, "With the mounts below the source."},
		{p + "mode", "pattern(^0*[0-7]{0,4}$)", "0755", "", since, "Mode of an empty volume."},
		{p + "uid", "integer(0 4294967294)", "0", "", since, "Owner of an empty volume."},
		{p + "gid", "integer(0 4294967294)", "0", "", since, "Group of an empty volume."},
		{p + "owner", "enum(idmap app host)", "idmap where it can be", "", since, "Whose the files of a host volume are in a pod with private users."},
	}
}

func ports() []Key {
	const p = "ports[]."
	return []Key{
		{p + "name", "name", "needed", "", since, "Name of a port that an app declares."},
		{p + "hostPort", "integer(0 65535)", "0", "", since, "Number on the host."},
		{p + "hostIP", address, "all addresses", "", since, "Address of the host."},
		{p + "podPort", "map(any)", "that of the app", "", since, "appc's direct mapping: name, port, protocol."},
		{p + "activate", "boolean", "false", "rkt-proxy-NAME-PORT.socket", since, "A proxy listens, and starts the pod with the first connection."},
		{p + "idleTime", "string or integer(1 3153600000)", "no end", "--idle-time= of the proxy, StopWhenUnneeded=", since, "Time span without connections after which the proxy ends, and the pod with it."},
	}
}

func systemd() []Key {
	const p = "systemd."
	return []Key{
		{p + "unit", "directives(unit)", "none", "[Unit] of rkt@NAME.service", since, "Dependencies, ordering, conditions."},
		{p + "service", "directives(service)", "none", "[Service] of rkt@NAME.service", since, "Restart, time limits, resource control, logging."},
		{p + "install", "directives(install)", "none", "links, as of systemctl enable", since, "WantedBy, RequiredBy, UpheldBy, Alias, DefaultInstance; in force without systemctl enable."},
		{p + "socket", "directives(socket)", "none", "[Socket] of rkt@NAME.socket", since, "Sockets that start the pod; its apps take them."},
		{p + "timer", "directives(timer)", "none", "[Timer] of rkt@NAME.timer", since, "Times at which the pod is started."},
		{p + "path", "directives(path)", "none", "[Path] of rkt@NAME.path", since, "Files whose appearance or change starts the pod."},
	}
}

func rkt() []Key {
	const p = "rkt."
	return []Key{
		{p + "net", words, "default", "--net", since, "Networks: names, default, default-restricted, host, none, all; NAME:ARG=VALUE;…."},
		{p + "hostname", `pattern(^[A-Za-z0-9.-]{1,64}$)`, "the pod's name", "--hostname", since, "Host name of the pod."},
		{p + "stage1", "pattern(^[^-])", "that of the configuration", "--stage1-path --stage1-name", since, "Stage1 image: an absolute path, or a name."},
		{p + "pullPolicy", "enum(new update never)", "new", "--pull-policy", since, "When to ask an image's source."},
		{p + "update", "enum(registry local never) or object", "only when asked for by hand", "", since, "Updates of images, see rkt-pod-update(1): the policy, or an object."},
		{p + "update.policy", "enum(registry local never)", "only when asked for by hand", "", since, "Ask where the images come from, look into the store alone, or leave them."},
		{p + "update.timeout", "string or integer(1 86400)", "2min", "--timeout", since, "Time span in which an updated pod has to become ready."},
		{p + "update.settle", "string or integer(0 86400)", "30s", "--settle", since, "Time span for which it has to stay up and healthy; otherwise the images before come back."},
		{p + "update.keep", "integer(1 100)", "3", "", since, "How many good generations of images stay for a rollback."},
		{p + "insecureOptions", words, "none", "--insecure-options", since, "Checks to leave out: none image tls ondisk http pubkey capabilities paths seccomp all-fetch all-run all."},
		{p + "noOverlay", "boolean", "false", "--no-overlay", since, "Copy images instead of mounting overlays."},
		{p + "privateUsers", "boolean", "true, with the host's network false", "--private-users", since, "The pod has user ids of its own; its root is nobody on the host."},
		{p + "profile", "enum(default strict trusted nonetwork)", "default", "see docs/profiles.md", since, "A set of isolation settings for the unit and each app, under what the file says itself."},
		{p + "environment", environment, "none", "--set-env", since, "Variables of all apps, over those of the images; what an app sets itself wins."},
		{p + "environment[].name", "string", "needed", "", since, "Name of the variable."},
		{p + "environment[].value", "string", "empty", "", since, "Its value."},
		{p + "environmentFiles", "pattern(^-?/) or list(pattern(^-?/))", "none", "--set-env-file", since, "Files of NAME=VALUE lines, read when the pod starts, under rkt.environment; one with - before it may be missing."},
		{p + "dns", words, "those of the network", "--dns", since, "Name servers, or host, or none."},
		{p + "dnsSearch", words, "none", "--dns-search", since, "Domains to search."},
		{p + "dnsOptions", words, "none", "--dns-opt", since, "Options of resolv.conf(5)."},
		{p + "dnsOpt", words, "none", "--dns-opt", since, "Same as dnsOptions."},
		{p + "dnsDomain", "string", "none", "--dns-domain", since, "Local domain."},
		{p + "hostsEntries", words, "none", "--hosts-entry", since, "Lines of the apps' /etc/hosts: IP=NAME, or host."},
		{p + "credentials", "map(object)", "none", "LoadCredential=, LoadCredentialEncrypted=, SetCredentialEncrypted=", since, "Secrets for those apps that name them; each has one of the keys below."},
		{p + "credentials.NAME.load", "path", "", "LoadCredential=", since, "A file or socket that is read when the pod starts."},
		{p + "credentials.NAME.set", "string", "", "LoadCredential= of a file that only root can read", since, "The secret itself, as it is; only root should be able to read the pod file."},
		{p + "credentials.NAME.encrypted", `pattern(^/|^[A-Za-z0-9+/= \n]+$)`, "", "LoadCredentialEncrypted=, SetCredentialEncrypted=", since, "What systemd-creds encrypt --name=NAME has made: the path of its file, or its text."},
		{p + "journal", "enum(host guest)", "host", "--link-journal=no, a journald in the pod", since, "Where the apps' lines go: the host's journal, or one of the pod's own, for journalctl -M."},
		{p + "logNamespace", "pattern(^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$)", "the host's own journal", "systemd-journald@NAME.socket", since, "Journal namespace of the host that takes the apps' lines, for journalctl --namespace."},
		{p + "ready", "enum(started healthy)", "started", "Type=notify", since, "When the unit counts as started: when its apps have, or when all that have a health check are healthy."},
		{p + "ipc", "enum(auto private parent)", "auto", "--ipc", since, "System V IPC and POSIX queues: the pod's own, or those of the host."},
	}
}
