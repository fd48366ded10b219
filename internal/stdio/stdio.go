// Package stdio names what the standard streams of an app can be connected to
// and where in a pod others reach them. It imports nothing, so that the
// generator, the command line and stage1 can share it.
package stdio

// Annotations of an app in a pod manifest, each with a mode.
const (
	AnnotationStdin  = "coreos.com/rkt/stage2/stdin"
	AnnotationStdout = "coreos.com/rkt/stage2/stdout"
	AnnotationStderr = "coreos.com/rkt/stage2/stderr"
)

// Modes of a stream.
const (
	// Null is /dev/null.
	Null = "null"
	// Log is the journal; output only.
	Log = "log"
	// Stream is a pipe whose other end rkt attach can get.
	Stream = "stream"
	// TTY is the app's own terminal, which rkt attach can get; streams of one app
	// with this mode share it.
	TTY = "tty"
	// File is a log file of the host, see the annotations of package abi for log
	// modes; no mode that could be asked for.
	File = "file"
	// Interactive is the terminal of who runs the pod. It is what --interactive
	// makes of an app, and no mode that could be asked for.
	Interactive = "interactive"
)

// Modes are those of one app's streams.
type Modes struct {
	In, Out, Err string
}

// Default is what an app has that says nothing.
func Default() Modes { return Modes{In: Null, Out: Log, Err: Log} }

// Streams are the names of the streams, as flags and endpoints have them.
func Streams() [3]string { return [3]string{"stdin", "stdout", "stderr"} }

// Annotation is the annotation of a stream; "" if there is no such stream.
func Annotation(stream string) string {
	switch stream {
	case "stdin":
		return AnnotationStdin
	case "stdout":
		return AnnotationStdout
	case "stderr":
		return AnnotationStderr
	}
	return ""
}

// Check returns what is wrong with a mode for a stream, "" if nothing is.
func Check(stream, mode string) string {
	switch {
	case mode == Null, mode == Stream, mode == TTY, mode == Log && stream != "stdin":
		return ""
	case stream == "stdin":
		return "\"" + clip(mode) + "\" is no mode of stdin: null, stream and tty are"
	}
	return "\"" + clip(mode) + "\" is no mode of " + stream + ": log, null, stream and tty are"
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

// Parse returns the modes that an app's annotations give it; get returns an
// annotation's value. The error text is "" when all is well.
func Parse(get func(annotation string) (string, bool)) (Modes, string) {
	m := Default()
	for _, s := range []struct {
		stream string
		mode   *string
	}{{"stdin", &m.In}, {"stdout", &m.Out}, {"stderr", &m.Err}} {
		v, ok := get(Annotation(s.stream))
		if !ok {
			continue
		}
		if msg := Check(s.stream, v); msg != "" {
			return m, "annotation " + Annotation(s.stream) + ": " + msg
		}
		*s.mode = v
	}
	return m, ""
}

// Has reports whether any stream has the mode.
func (m Modes) Has(mode string) bool { return m.In == mode || m.Out == mode || m.Err == mode }

// Of is the mode of a stream.
func (m Modes) Of(stream string) string {
	switch stream {
	case "stdin":
		return m.In
	case "stdout":
		return m.Out
	}
	return m.Err
}

// Endpoints lists what rkt attach can reach of an app: "stdin", "stdout",
// "stderr" and "tty".
func (m Modes) Endpoints() []string {
	var out []string
	for _, s := range Streams() {
		if m.Of(s) == Stream {
			out = append(out, s)
		}
	}
	if m.Has(TTY) {
		out = append(out, "tty")
	}
	return out
}

// Dir is where an app's endpoints lie in the pod's root.
func Dir(app string) string { return "/rkt/iottymux/" + app }

// Socket is the address of an endpoint in the pod's root.
func Socket(app, endpoint string) string { return Dir(app) + "/sock-" + endpoint }

// EndpointsFile is the name of the list of endpoints in Dir.
const EndpointsFile = "endpoints"

// Targets is the content of EndpointsFile as JSON, indented by two spaces and
// with a newline at the end. App names need no quoting in JSON.
func (m Modes) Targets(app string) []byte {
	b := []byte("{\n  \"version\": 1,\n  \"targets\": [")
	for i, e := range m.Endpoints() {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, "\n    {\n      \"name\": \""+e+"\",\n      \"domain\": \"unix\",\n      \"address\": \""+Socket(app, e)+"\"\n    }"...)
	}
	if len(m.Endpoints()) > 0 {
		b = append(b, "\n  "...)
	}
	return append(b, "]\n}\n"...)
}
