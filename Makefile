# What people do here. `make help` lists it.
.DEFAULT_GOAL := help
.PHONY: help demo build images manifests test test-full lint bench bench-agent bench-waypoint scale agents attack fuzz mutants soak e2e e2e-kubernetes docs

CARGO ?= cargo

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-15s %s\n", $$1, $$2 }'

demo: ## a two-node mesh of a small bookshop on this machine (ONCE=1: show everything, then end)
	@ONCE="$(ONCE)" deploy/demo/demo

build: ## the commands, in target/release
	$(CARGO) build --release --workspace --bins

images: ## container images of them, in target/images, without an engine (HUB=registry.example/lateen TAG=…)
	$(CARGO) build --profile dist --bin ctrl --bin node-agent --bin waypoint
	RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build --profile dist --bin lateen-cni --target "$$(uname -m)-unknown-linux-gnu"
	@PROFILE=dist HUB="$(HUB)" TAG="$(TAG)" deploy/images/build

manifests: ## deploy/manifests from the charts
	@scripts/manifests

test: ## every test, in its short form (PREBUILT=1: run what was built before; ONLY="e2e cli": these packages)
	@PREBUILT="$(PREBUILT)" ONLY="$(ONLY)" scripts/test

test-full: ## every test at its full size
	@LATEEN_FULL=1 PREBUILT="$(PREBUILT)" scripts/test

e2e: ## only the end-to-end tests
	@ONLY=e2e scripts/test

e2e-kubernetes: ## the tests on a real Kubernetes, with times (built once, ten minutes; root only; SHORT=1: installation alone)
	@CARGO="$(CARGO)" SHORT="$(SHORT)" ONLY="$(ONLY)" scripts/e2e-kubernetes

lint: ## formatting, lints, licences
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny check bans licenses sources; \
	else echo "cargo-deny is not installed (cargo install cargo-deny): licences were not checked"; fi

bench: bench-agent bench-waypoint ## all comparisons: agents, waypoints, changes; some twenty minutes

bench-agent: ## the table of ratios against plain TCP and Envoy (ZTUNNEL=PATH adds ztunnel)
	$(CARGO) build --profile dist -p bench -p node-agent -p hbone --bins --example tunnel_end
	target/dist/bench table $(if $(ZTUNNEL),--ztunnel $(ZTUNNEL)) $(if $(ENVOY),--envoy $(ENVOY)) $(BENCH_ARGS)

bench-waypoint: ## the waypoint beside Envoy and AGENTGATEWAY=PATH (WAYPOINT_ARGS=--quick), and from a file to the first request by it
	$(CARGO) build --profile dist -p bench -p waypoint -p ctrl
	target/dist/bench waypoint $(if $(ENVOY),--envoy $(ENVOY)) $(if $(AGENTGATEWAY),--agentgateway $(AGENTGATEWAY)) $(WAYPOINT_ARGS)
	target/dist/bench change $(CHANGE_ARGS)

scale: ## what 100,000 pods and a million workloads cost (SCALE_ARGS=--quick for a hundredth)
	$(CARGO) build --profile dist -p bench -p node-agent -p ctrl
	target/dist/bench scale $(SCALE_ARGS)

agents: ## what a thousand agents cost a controller, and how soon each has a change (AGENTS_ARGS=--quick for a twentieth)
	$(CARGO) build --profile dist -p bench -p ctrl
	target/dist/bench agents $(AGENTS_ARGS)

attack: ## attacks on ours beside ZTUNNEL=PATH and ENVOY=PATH, and whether others notice (ATTACK_ARGS=--quick)
	$(CARGO) build --profile dist -p bench -p node-agent
	target/dist/bench attack $(if $(ZTUNNEL),--ztunnel $(ZTUNNEL)) $(if $(ENVOY),--envoy $(ENVOY)) $(ATTACK_ARGS)

fuzz: ## ten minutes of fuzzing, shared by all targets, two at a time (SECONDS=600)
	fuzz/run $(or $(SECONDS),600)

mutants: ## which changes of the deciding code no test notices (MUTANTS_ARGS="--shard 1/4")
	scripts/mutants $(MUTANTS_ARGS)

soak: ## two hours of chaos (SECONDS=7200 SEED=a number that was printed)
	$(CARGO) build --workspace --bins --examples
	LATEEN_CHAOS_SECONDS=$(or $(SECONDS),7200) $(if $(SEED),LATEEN_CHAOS_SEED=$(SEED)) \
	$(CARGO) test --workspace --test chaos -- --nocapture

docs: ## docs/configuration.md, docs/compatibility.md and docs/verdicts.md from their tables
	UPDATE_DOCS=1 $(CARGO) test -q -p node-agent -p waypoint -p ctrl -p cli -p manifest the_documentation_agrees
	UPDATE_DOCS=1 $(CARGO) test -q -p e2e --test verdicts the_documentation_agrees
