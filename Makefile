# Fanrate. `make help` lists what can be done.
PYTHON ?= python3
PORT ?= 8080
BROKER ?= nats
DISPATCH ?= group
DURABILITY ?= confirmed
REPLICAS ?= 1
PROCESSES ?= 1
BALANCER ?= none
URL ?= http://127.0.0.1:$(PORT)
TIMES ?= 20
USERS ?= 200
TIME ?= 60s
SHAPE ?=
QUICK ?= 0
RESUME ?= 0
AGAIN ?= 0
HEADLESS ?= 0
P99_MS ?= 100
ARGS ?=

BIN := .venv/bin
HOT = $(BIN)/python -m bench brokers --only hot --only heads --only read --only idle $(if $(filter 1,$(QUICK)),--quick)
LAB = $(if $(filter 1,$(QUICK)),--quick) $(if $(filter 1,$(RESUME)),--resume) $(if $(filter 1,$(AGAIN)),--again) $(ARGS)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes

.DEFAULT_GOAL := help
.PHONY: help run replay up services peers test check wheel trouble compose-check bench bench-peers bench-scale bench-hot bench-full bench-lesson bench-spine bench-brokers locust cluster-check lab lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/runtime.stamp ## the embedded service, nothing but Python: [PORT=8080]
	@$(BIN)/python -m stack run --port $(PORT)

replay: .venv/bench.stamp ## 5 307 real ratings through HTTP, every one accounted for: [URL=http://127.0.0.1:PORT TIMES=20]
	@$(BIN)/python -m bench replay --url $(URL) --times $(TIMES)

up: .venv/runtime.stamp ## real servers as local processes: [BROKER=nats|nats+core|kafka|rabbit|redis DISPATCH=group|topics|inline DURABILITY=relaxed|confirmed|fsync REPLICAS=1 PROCESSES=1 BALANCER=none|nginx-plain|nginx-tuned|nginx-random|nginx-hash PORT=8080 KEEP=0|1]
	@$(BIN)/python -m stack up --broker $(BROKER) --dispatch $(DISPATCH) --durability $(DURABILITY) --replicas $(REPLICAS) --processes $(PROCESSES) --balancer $(BALANCER) --port $(PORT)

services: .venv/runtime.stamp ## install the servers that a topology needs: [BROKER=nats|nats+core|kafka|rabbit|redis|all]
	@$(BIN)/python -m stack services --broker $(BROKER)

peers: .venv/bench.stamp ## build the other programs that the lab compares with; what no toolchain is there for is left out: [ARGS="--only go"]
	-@$(MAKE) --no-print-directory .venv/peers.stamp
	@$(BIN)/python -m bench.peers $(ARGS)

test: .venv/dev.stamp ## all tests, with a smoke of every trouble; missing servers are skipped: [ARGS=...]
	@if [ "$$CI" = true ]; then $(BIN)/python -m stack services --broker all; fi
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup $(ARGS)

check: .venv/dev.stamp ## lint, types, imports
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

wheel: .venv/dev.stamp ## the wheel and the source archive, into dist/
	@rm -rf dist && $(BIN)/python -m build --no-isolation

trouble: .venv/dev.stamp ## the whole trouble suite, about an hour on two cores, on all brokers or some: [BROKER=nats,kafka ARGS=...]
	@$(BIN)/python -m pytest tests/trouble tests/locks --whole --timeout 600 $(if $(filter command,$(origin BROKER)),--broker $(BROKER)) $(ARGS)

compose-check: .venv/dev.stamp ## bring the compose files up for real, without and with locks, where a container engine answers: [BROKER=nats|kafka|rabbit ARGS=...]
	@$(BIN)/python -m tests.deploy.check $(if $(filter command,$(origin BROKER)),--broker $(BROKER)) $(ARGS)

bench-spine: .venv/bench.stamp ## speed and memory against their bars, on NATS: [ARGS="--quick"]
	@$(BIN)/python -m bench spine $(ARGS)

bench-brokers: .venv/bench.stamp ## speed and memory of every broker against the bars, in one table: [ARGS=...]
	@$(BIN)/python -m bench brokers $(ARGS)

lab: .venv/lab.stamp ## install what `.venv/bin/python -m bench` needs

bench: .venv/lab.stamp ## which broker, how many replicas, which dispatch: a report in bench/out/report.html, about 40 minutes: [QUICK=1: ten  RESUME=1: go on AGAIN=1: measure the disturbed again ARGS=...]
	@$(BIN)/python -m bench experiment brokers $(LAB)

bench-peers: .venv/lab.stamp ## the same work done by FastAPI + FastStream, aiohttp, Go and mq-bridge: [QUICK=1 RESUME=1 AGAIN=1 ARGS=...]
	-@$(MAKE) --no-print-directory peers ARGS=
	@$(BIN)/python -m bench experiment peers $(LAB)

bench-scale: .venv/lab.stamp ## how cost grows with replicas, balancers, connections, subjects, rates per request and offered load: [QUICK=1 RESUME=1 AGAIN=1 ARGS=...]
	@$(BIN)/python -m bench experiment scale $(LAB)

bench-full: .venv/lab.stamp ## all experiments into one report; says how long: [QUICK=1 RESUME=1 AGAIN=1 ARGS=...]
	-@$(MAKE) --no-print-directory peers ARGS=
	@echo "four experiments, of which the next lines tell the time; then the generator and the hot route's bars, $(if $(filter 1,$(QUICK)),3,16) minutes"
	@$(BIN)/python -m bench experiment brokers peers scale hot $(LAB); ended=$$?; [ $$ended -le 1 ] || exit $$ended; \
	$(BIN)/python -m bench generator || ended=$$?; $(HOT) --only post || ended=$$?; \
	$(BIN)/python -m bench bars brokers peers scale hot && exit $$ended

bench-hot: .venv/lab.stamp ## the hot route beside aiohttp's and beside Go and mq-bridge: [QUICK=1 RESUME=1 AGAIN=1 ARGS=...]
	-@$(MAKE) --no-print-directory peers ARGS=
	@$(BIN)/python -m bench experiment hot $(LAB); ended=$$?; [ $$ended -le 1 ] || exit $$ended; \
	$(HOT) || ended=$$?; $(BIN)/python -m bench bars hot && exit $$ended

bench-lesson: .venv/bench.stamp ## wrk -c5 -t5 on one server, three, topics, a handler per message: the lesson this grew from, explained: [ARGS=...]
	@$(BIN)/python -m bench lesson $(ARGS)

locust: .venv/lab.stamp ## users for a running topology: locust's web page on http://127.0.0.1:8089, or none: [USERS=200 TIME=60s URL=http://127.0.0.1:PORT HEADLESS=0|1 SHAPE=steps P99_MS=100 ARGS=...]
	@SHAPE=$(SHAPE) P99_MS=$(P99_MS) $(BIN)/python -m locust -f bench/locustfile.py --host $(URL) --users $(USERS) --spawn-rate $(USERS) \
	  $(if $(SHAPE),,--run-time $(TIME)) $(if $(filter 1,$(HEADLESS)),--headless --only-summary,--autostart --web-host 127.0.0.1) $(ARGS)

cluster-check: .venv/bench.stamp ## kill nodes of three-node clusters under load, on all or one: [BROKER=nats|kafka|rabbit|redis (the store's)|all]
	@$(BIN)/python -m bench clusters $(if $(filter command,$(origin BROKER)),--kinds $(BROKER))

lock: ## resolve the locks anew (needs uv)
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 pyproject.toml -o requirements/runtime.txt
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --extra bench -c requirements/runtime.txt pyproject.toml -o requirements/bench.txt
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --extra bench --extra lab --extra dev -c requirements/bench.txt pyproject.toml -o requirements/dev.txt
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --extra bench --extra lab -c requirements/dev.txt pyproject.toml -o requirements/lab.txt
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 bench/peers/requirements.in -o requirements/peers.txt
	sed -n 's/^requires = \["\(.*\)"\]$$/\1/p' pyproject.toml | uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 -c requirements/dev.txt - -o requirements/build.txt

clean: ## remove what make made
	rm -rf .venv .stack dist bench/out

.venv/runtime.stamp: requirements/runtime.txt | .venv/python.stamp
	@echo "installing what requirements/runtime.txt pins"
	@$(PIP) -r $<
	@touch $@

.venv/bench.stamp: requirements/bench.txt .venv/runtime.stamp
	@echo "installing what requirements/bench.txt pins"
	@$(PIP) -r $<
	@touch $@

.venv/lab.stamp: requirements/lab.txt .venv/bench.stamp
	@echo "installing what requirements/lab.txt pins"
	@$(PIP) -r $<
	@touch $@

.venv/dev.stamp: requirements/dev.txt .venv/lab.stamp
	@echo "installing what requirements/dev.txt pins"
	@$(PIP) -r $<
	@touch $@

.venv/peers.stamp: requirements/peers.txt | .venv/python.stamp
	@echo "installing what requirements/peers.txt pins into .venv/peers"
	@$(PYTHON) -m venv --clear .venv/peers
	@.venv/peers/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $< || { rm -rf .venv/peers; exit 1; }
	@touch $@

.venv/python.stamp:
	@version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); \
	case "$$version" in \
	3.1[1-9]|3.[2-9][0-9]) ;; \
	[0-9]*) echo "$(PYTHON) is Python $$version, Fanrate needs 3.11 or newer: make run PYTHON=/path/to/python3.11" >&2; exit 2 ;; \
	*) echo "$(PYTHON) is no working Python: install Python 3.11 or newer, or name it: make run PYTHON=/path/to/python3" >&2; exit 2 ;; \
	esac
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) lacks the venv module: on Debian or Ubuntu, apt install python3-venv" >&2; exit 2; }
	@$(PYTHON) -m venv --clear .venv
	@touch $@
