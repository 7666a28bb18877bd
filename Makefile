# make        builds build/dlc              make demo   installs what is missing, compiles the digits model, runs it
# make test   installs, builds, runs all tests          make deps   installs what is missing (Debian packages)
BUILD ?= build
JOBS  ?= $(shell nproc)
PACKAGES := gcc g++ cmake pkg-config binutils clang-19 llvm-19-dev liblld-19-dev lld-19 zlib1g-dev libzstd-dev \
            protobuf-c-compiler libprotobuf-c-dev nettle-dev libcunit1-dev python3 python3-venv valgrind
SUDO  := $(if $(filter 0,$(shell id -u)),,sudo)

all: $(BUILD)/Makefile
	@cmake --build $(BUILD) -j $(JOBS)

# what a failed attempt has found out must not outlive it
$(BUILD)/Makefile:
	@cmake -B $(BUILD) -S . $(CMAKE_FLAGS) || { rm -f $(BUILD)/CMakeCache.txt; exit 1; }

deps:
	@missing=; for p in $(PACKAGES); do \
	   dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'install ok installed' || missing="$$missing $$p"; done; \
	 if [ -n "$$missing" ]; then echo "installing:$$missing"; $(SUDO) apt-get update -qq && \
	   DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends $$missing; fi

demo: deps
	@$(MAKE) --no-print-directory all
	@$(MAKE) --no-print-directory -C examples/digits run DLC=$(abspath $(BUILD))/dlc

# The Python packages of the tests: the ONNX test suite's data and a second implementation to compare with.
$(BUILD)/venv/done:
	@python3 -m venv $(BUILD)/venv
	@$(BUILD)/venv/bin/pip install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.31.1 numpy
	@touch $@

test: deps
	@$(MAKE) --no-print-directory all
	@$(MAKE) --no-print-directory $(BUILD)/venv/done
	@ctest --test-dir $(BUILD) --output-on-failure -j $(JOBS)

clean:
	@rm -rf $(BUILD)

.PHONY: all deps demo test clean
