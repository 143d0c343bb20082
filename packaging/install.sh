#!/bin/sh
# install.sh install|uninstall: what `make install` and `make uninstall` do, with the variables of the
# Makefile in the environment. One list of files serves both. Builds nothing.
set -eu
action=$1
root=$(cd "$(dirname "$0")/.." && pwd)
built=$root/$OUT
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
url=$(sed -n 's/^repository = "\(.*\)"/\1/p' "$root/Cargo.toml")
# build.rs makes the SONAME: this is the one that the library got.
soname=$(readelf --dynamic "$built/libsss.so" | sed -n 's/.*soname: \[\(.*\)\]$/\1/p')
filled=$(mktemp)
trap 'rm -f "$filled"' EXIT

# put MODE SOURCE DESTINATION
put() {
  rm -f "$DESTDIR$3"
  if [ "$action" = install ]; then
    install -d "$(dirname "$DESTDIR$3")"
    install -m "$1" "$2" "$DESTDIR$3"
  fi
}

# link TARGET DESTINATION
link() {
  rm -f "$DESTDIR$2"
  if [ "$action" = install ]; then ln -s "$1" "$DESTDIR$2"; fi
}

# from_template NAME DESTINATION: paths are relative to the file, so that the tree can be moved.
from_template() {
  here=$(dirname "$2")
  relative() { realpath --canonicalize-missing --no-symlinks --relative-to="$here" "$1"; }
  sed -e "s|@PREFIX@|$(relative "$PREFIX")|" -e "s|@LIBDIR@|$(relative "$LIBDIR")|" \
    -e "s|@INCLUDEDIR@|$(relative "$INCLUDEDIR")|" -e "s|@SONAME@|$soname|" -e "s|@VERSION@|$version|" \
    -e "s|@URL@|$url|" "$root/packaging/$1.in" >"$filled"
  put 644 "$filled" "$2"
}

put 755 "$built/libsss.so" "$LIBDIR/libsss.so.$version"
link "libsss.so.$version" "$LIBDIR/$soname"
link "$soname" "$LIBDIR/libsss.so"
put 644 "$built/static/libsss.a" "$LIBDIR/libsss.a"
put 644 "$root/include/sss.h" "$INCLUDEDIR/sss.h"
from_template sss.pc "$PKGCONFIGDIR/sss.pc"
from_template sssConfig.cmake "$CMAKEDIR/sssConfig.cmake"
from_template sssConfigVersion.cmake "$CMAKEDIR/sssConfigVersion.cmake"
put 644 "$built/sss.h.3" "$MANDIR/man3/sss.h.3"

put 755 "$built/sss" "$BINDIR/sss"
put 644 "$built/sss.1" "$MANDIR/man1/sss.1"
put 644 "$built/sss.bash" "$DATADIR/bash-completion/completions/sss"
put 644 "$built/sss.zsh" "$DATADIR/zsh/site-functions/_sss"
put 644 "$built/sss.fish" "$DATADIR/fish/vendor_completions.d/sss.fish"

for licence in LICENSE-APACHE LICENSE-MIT THIRD-PARTY-NOTICES; do
  put 644 "$root/$licence" "$DOCDIR/$licence"
done

if [ "$action" = uninstall ]; then
  rmdir "$DESTDIR$CMAKEDIR" "$DESTDIR$DOCDIR" 2>/dev/null || true
fi
# The cache of the dynamic linker.
if [ -z "$DESTDIR" ] && [ "$(id -u)" -eq 0 ]; then ldconfig; fi
