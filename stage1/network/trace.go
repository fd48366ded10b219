package network

import (
	"context"
	"encoding/json"
	"path/filepath"
	"time"
)

type traceKey struct{}

// WithTrace has what the plugins are asked, and how long each takes, told to f.
func WithTrace(ctx context.Context, f func(format string, args ...any)) context.Context {
	return context.WithValue(ctx, traceKey{}, f)
}

// trace begins to watch a plugin; the function it returns ends that.
func trace(ctx context.Context, plugin, command string, stdin []byte) func() {
	f, ok := ctx.Value(traceKey{}).(func(string, ...any))
	if !ok {
		return func() {}
	}
	var conf struct {
		Name string `json:"name"`
	}
	_ = json.Unmarshal(stdin, &conf) // the plugin says what is wrong with it
	begin := time.Now()
	return func() {
		f("networking: plugin %s of network %q: %s took %.1f ms", filepath.Base(plugin), conf.Name, command, float64(time.Since(begin).Microseconds())/1000)
	}
}
