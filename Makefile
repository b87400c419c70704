# Short names for meson and tools/.
#   make           install what the build lacks, build build/waybill
#   make demo      send and deliver events while processes are killed
#   make test      every suite and check; last line: N passed, N failed, N skipped
#   make torture   run the long campaigns      make bench    run the benchmarks
#   make install   to $(DESTDIR)$(PREFIX)      make format   run clang-format
PREFIX ?= /usr/local
BUILD = build

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet

$(BUILD)/build.ninja:
	@tools/install_deps build
	@meson setup $(BUILD) --prefix=$(PREFIX) --libdir=lib -Dtests=disabled \
	    >/dev/null

demo: all
	@tools/demo $(if $(EVENTS),--events '$(EVENTS)')

test:
	@tools/install_deps build test
	@tools/run_tests

# All campaigns in full length.
torture: all
	@tools/install_deps build test
	@tools/torture

bench: all
	@tools/bench

# The build folder may be configured for another prefix. The dynamic linker
# finds a new library in libdir only after ldconfig, and only where it searches.
install: all
	@case '$(PREFIX)' in /*) ;; *) echo "make install: PREFIX is an absolute \
	path, not $(PREFIX)" >&2; exit 1 ;; esac
	@mkdir -p '$(DESTDIR)$(PREFIX)' 2>/dev/null; \
	    test -w '$(DESTDIR)$(PREFIX)' || { echo "make install: cannot \
	write to $(DESTDIR)$(PREFIX); use sudo, or set PREFIX=" >&2; exit 1; }
	@meson introspect $(BUILD) --buildoptions | \
	    grep -q '"name": "prefix", "value": "$(PREFIX)"' || \
	    { meson configure $(BUILD) -Dprefix='$(PREFIX)' && \
	    ninja -C $(BUILD) --quiet; }
	@meson install -C $(BUILD) --no-rebuild
	@[ -z '$(DESTDIR)' ] || exit 0; PATH="$$PATH:/sbin:/usr/sbin"; \
	    [ "$$(id -u)" != 0 ] || ldconfig; \
	    ldconfig -p | grep -qF '$(PREFIX)/lib/libwaybill.so.0' || \
	    printf '%s\n' 'Programs find this prefix with:' \
	    '    export PATH="$(PREFIX)/bin:$$PATH"' \
	    '    export PKG_CONFIG_PATH="$(PREFIX)/lib/pkgconfig"' \
	    '    export LD_LIBRARY_PATH="$(PREFIX)/lib"'

format:
	@tools/install_deps format
	@git ls-files '*.c' '*.h' | xargs clang-format -i

clean:
	@rm -rf $(BUILD) build-test

.PHONY: all demo test torture bench install format clean
