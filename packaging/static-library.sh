#!/bin/sh
# static-library.sh IN.a OUT.a: makes one object of the members of IN.a, in which only the symbols
# sss_* are global, so that a program may have functions of the same names as LMDB's or ring's, and
# may link other static libraries written in Rust. Removes the bitcode of Rust's own library, which
# confuses the linkers of other LLVM versions. Needs binutils.
set -eu
in=$1 out=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The entry points are the roots of the garbage collection of sections.
roots=$("${NM:-nm}" -g --defined-only "$in" 2>/dev/null | sed -n 's/.* T \(sss_[a-z_]*\)$/-u \1/p')
"${LD:-ld}" -r --gc-sections $roots --whole-archive "$in" -o "$work/all.o"
"${OBJCOPY:-objcopy}" --wildcard --keep-global-symbol='sss_*' --strip-unneeded \
  --remove-section=.llvmbc --remove-section=.llvmcmd "$work/all.o" "$work/libsss.o"
mkdir -p "$(dirname "$out")"
rm -f "$out"
# D: no times or owners, so that the same sources give the same file.
"${AR:-ar}" rcsD "$out" "$work/libsss.o"
