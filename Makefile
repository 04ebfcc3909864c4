# Verbs for people: build test race lint fuzz crash stress soak bench bench-coldstart demo install clean.
# Everything that is needed beyond Go, gcc, git, make and apt is fetched by
# integration/tools/install.sh into a cache outside the tree.

GO       ?= go
BINDIR   ?= bin
PREFIX   ?= /usr/local
DESTDIR  ?=
FUZZTIME ?= 60s
KILLS    ?= 200
STRESS_TIME ?= 20m
SOAK_TIME ?= 1h
VERSION  ?= $(shell git describe --always --dirty --tags 2>/dev/null || echo unknown)

TOOLS     = integration/tools/install.sh
LDFLAGS   = -s -w -X main.version=$(VERSION)
GOBUILD   = CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)"
UNITPKGS  = $$($(GO) list ./... | grep -v /integration)

.PHONY: help build test unit e2e race lint fuzz crash stress soak bench bench-coldstart demo install tools clean

help: ## show the verbs
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

build: ## static binaries into bin/
	$(GOBUILD) -o $(BINDIR)/ ./cmd/...

test: tools unit e2e ## every test; those with containerd and runc need root

# What takes longest begins first.
unit:
	$(GO) test ./snapshot ./backstore/fusedev ./cache $(UNITPKGS)

# Two packages at a time: integration/e2e, which takes longest and begins first, and
# one of the others. The first run builds images of Debian packages, which takes
# minutes. With E2E=full the largest of them is more than 1 GB.
e2e:
	$(GO) test -p 2 -count 1 -timeout 45m ./integration/e2e ./integration/...

race: ## unit tests with the race detector
	CGO_ENABLED=1 $(GO) test -race $(UNITPKGS)

lint: ## formatting, vet and golangci-lint
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt -w needed: $$out"; exit 1; fi
	$(GO) vet ./...
	cd integration/bench/estargz && $(GO) vet ./...
	cd integration/bench/distribution && $(GO) vet ./...
	$$($(TOOLS) lint)/lint/golangci-lint run ./...

fuzz: ## every fuzz target for FUZZTIME (60s)
	@for pkg in $(UNITPKGS); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "== $$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s $$pkg || exit 1; \
		done; \
	done

crash: ## kill the daemon of writable devices KILLS (200) times in each crash test (root)
	CRASH_KILLS=$(KILLS) $(GO) test -count 1 -timeout 60m -v ./integration/crash

stress: ## load writable devices for STRESS_TIME (20m) with 128 MB of memory (root)
	@$(TOOLS) bench >/dev/null
	$(GO) run ./integration/stress -time $(STRESS_TIME) $(STRESS)

soak: ## run the registry cache for SOAK_TIME (1h) with kills, an upstream that lies and a small disk
	$(GO) run ./integration/soak -time $(SOAK_TIME) $(SOAK)

bench: ## ratios against plain loop devices, bare libraries, overlayfs, other converters (root)
	@$(TOOLS) bench >/dev/null
	$(GO) run ./integration/bench $(BENCH)

bench-coldstart: ## time from a registry to a service over slow and far lines, see COLDSTART=-help (root)
	@$(TOOLS) bench >/dev/null
	$(GO) run ./integration/bench/coldstart $(COLDSTART)

demo: ## build, convert, lazily pull and run an image (root); cleans up after itself
	@$(TOOLS) demo >/dev/null
	$(GO) run ./integration/demo

install: build ## binaries, systemd units and configuration examples
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/share/reprise
	install -m 0755 $(BINDIR)/reprise-snapshotter $(BINDIR)/registry-cache $(BINDIR)/trace-replayer $(BINDIR)/reprise $(BINDIR)/ctr $(DESTDIR)$(PREFIX)/bin/
	for unit in contrib/reprise-snapshotter.service contrib/registry-cache/registry-cache.service; do \
		sed 's#/usr/local/bin#$(PREFIX)/bin#g' $$unit >$(DESTDIR)$(PREFIX)/lib/systemd/system/$${unit##*/}; done
	install -m 0644 contrib/*.* $(DESTDIR)$(PREFIX)/share/reprise/
	install -d $(DESTDIR)$(PREFIX)/share/reprise/registry-cache
	install -m 0644 contrib/registry-cache/* $(DESTDIR)$(PREFIX)/share/reprise/registry-cache/
	install -d $(DESTDIR)$(PREFIX)/share/reprise/bin
	for tool in create commit merge; do ln -sfn ../../../bin/reprise $(DESTDIR)$(PREFIX)/share/reprise/bin/overlaybd-$$tool; done

tools:
	@$(TOOLS) test >/dev/null

clean: ## what make build left
	rm -rf $(BINDIR)
