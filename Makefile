# Verbs for people: build test race lint fuzz bench bench-coldstart demo install clean.
# Everything that is needed beyond Go, gcc, git, make and apt is fetched by
# integration/tools/install.sh into a cache outside the tree.

GO       ?= go
BINDIR   ?= bin
PREFIX   ?= /usr/local
DESTDIR  ?=
FUZZTIME ?= 60s
VERSION  ?= $(shell git describe --always --dirty --tags 2>/dev/null || echo unknown)

TOOLS     = integration/tools/install.sh
LDFLAGS   = -s -w -X main.version=$(VERSION)
GOBUILD   = CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)"
UNITPKGS  = $$($(GO) list ./... | grep -v /integration)

.PHONY: help build test unit e2e race lint fuzz bench bench-coldstart demo install tools clean

help: ## show the verbs
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

build: ## static binaries into bin/
	$(GOBUILD) -o $(BINDIR)/ ./cmd/...

test: tools unit e2e ## every test; those with containerd and runc need root

unit:
	$(GO) test $(UNITPKGS)

# One package at a time: each starts a containerd, and their time limits
# assume that they have the machine for themselves. The first run builds images
# of Debian packages for some ten minutes.
e2e:
	$(GO) test -p 1 -count 1 -timeout 45m ./integration/...

race: ## unit tests with the race detector
	CGO_ENABLED=1 $(GO) test -race $(UNITPKGS)

lint: ## formatting, vet and golangci-lint
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt -w needed: $$out"; exit 1; fi
	$(GO) vet ./...
	cd integration/bench/estargz && $(GO) vet ./...
	$$($(TOOLS) lint)/lint/golangci-lint run ./...

fuzz: ## every fuzz target for FUZZTIME (60s)
	@for pkg in $(UNITPKGS); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "== $$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s $$pkg || exit 1; \
		done; \
	done

bench: ## ratios against plain loop devices, bare libraries, overlayfs, other converters (root)
	@$(TOOLS) bench >/dev/null
	$(GO) run ./integration/bench $(BENCH)

bench-coldstart: ## time from a registry to a service over slow and far lines, see COLDSTART=-help (root)
	@$(TOOLS) bench >/dev/null
	$(GO) run ./integration/bench/coldstart $(COLDSTART)

demo: ## build, convert, lazily pull and run an image (root); cleans up after itself
	@$(TOOLS) demo >/dev/null
	$(GO) run ./integration/demo

install: build ## binaries, systemd unit and configuration examples
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/share/reprise
	install -m 0755 $(BINDIR)/reprise-snapshotter $(BINDIR)/reprise $(BINDIR)/ctr $(DESTDIR)$(PREFIX)/bin/
	sed 's#/usr/local/bin#$(PREFIX)/bin#g' contrib/reprise-snapshotter.service \
		>$(DESTDIR)$(PREFIX)/lib/systemd/system/reprise-snapshotter.service
	install -m 0644 contrib/* $(DESTDIR)$(PREFIX)/share/reprise/
	install -d $(DESTDIR)$(PREFIX)/share/reprise/bin
	for tool in create commit merge; do ln -sfn ../../../bin/reprise $(DESTDIR)$(PREFIX)/share/reprise/bin/overlaybd-$$tool; done

tools:
	@$(TOOLS) test >/dev/null

clean: ## what make build left
	rm -rf $(BINDIR)
