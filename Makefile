# A thin front: meson and Go build, tests/host/check tests.  "make help" lists the targets.
# sudo hides the place where go.dev's archive is unpacked.
export PATH := $(PATH):/usr/local/go/bin
SUITE ?= bookworm trixie
RUN ?=
FUZZTIME ?= 20s
# Static analysis runs beside the module, which does not depend on it.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0
export STATICCHECK SUITE RUN

.PHONY: all help demo check check-static check-unit check-boot check-vm bench fuzz vulncheck deb dist install clean

all: build/build.ninja ## build into build/ (the default)
	meson compile -C build

build/build.ninja: meson.build
	@tests/host/deps build
	@tests/host/deps go >/dev/null
	@mkdir -p build
	[ -e $@ ] || meson setup build
	@touch $@

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 22

demo: ## show a pod on a throw-away host (as root)
	tests/demo/demo

check: ## all tests: static, unit, package, integration on both suites, virtual machine (as root)
	tests/host/check static unit deb boot vm

check-static: ## gofmt, go vet, staticcheck
	tests/host/check static

check-unit: ## go test ./...
	tests/host/check unit

check-boot: ## integration tests on nested hosts (as root); SUITE="bookworm trixie", RUN=REGEXP
	tests/host/check deb boot

check-vm: ## integration tests in a virtual machine (as root); SUITE=bookworm, RUN=REGEXP
	VM_SUITE="$(if $(filter file,$(origin SUITE)),bookworm,$(SUITE))" tests/host/check deb vm

bench: deb ## comparisons with peers (as root)
	@if [ -x tests/bench/run ]; then exec tests/bench/run; else echo "no benchmarks yet (tests/bench/run)"; fi

fuzz: ## every fuzz target for FUZZTIME
	tests/host/check fuzz FUZZTIME=$(FUZZTIME)

vulncheck: ## known vulnerabilities in what is linked in (asks vuln.go.dev)
	GOFLAGS= go run $(GOVULNCHECK) ./...

deb: ## Debian package in build/, linted
	packaging/deb

dist: ## source tarball with all modules, in build/
	packaging/dist

install: all ## install below DESTDIR
	meson install -C build --no-rebuild

clean: ## remove what was built here (the test cache stays)
	rm -rf build
