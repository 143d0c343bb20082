#!/bin/sh
# Builds and runs all C tests: as C99, as C++11, linked statically, with sealed stores, under AddressSanitizer and UBSan,
# and under valgrind; the races with fewer rounds after the first time. Last the conformance scenarios on lmdb:.
# Prints what failed or cannot run there and why, a line per variant, and last `C: N passed, M failed, K not run`; exits
# non-zero on any failure. The numbers are test cases, once for each variant; a conformance scenario is one, and counts
# twice, because it runs by sss_get and by sss_get_buf.
# LIBDIR and INCLUDE say where the library and sss.h are. Must not change anything outside of build/.
#
# Leaks: definite and indirect losses are failures, in every program and in forked children too. What may be left at exit
# is what lives as long as the process: the handle table, the registry of named stores, the process-wide store, the mark
# that notices forks. Valgrind calls parts of it "possibly lost", because Rust's hash tables keep a pointer to their middle.

cd "$(dirname "$0")" || exit 2
export LIBDIR="${LIBDIR:-../../target/release}" INCLUDE="${INCLUDE:-../../include}" # relative: make splits at spaces
LD_LIBRARY_PATH=$(cd "$LIBDIR" && pwd) || exit 2
export LD_LIBRARY_PATH
unset ASAN_OPTIONS # leaks are errors by default; fork.c decides for itself
export UBSAN_OPTIONS=print_stacktrace=1

mkdir -p build
if ! make -s -j2 all >build/make.log 2>&1; then
    cat build/make.log
    echo "C: 0 passed, 1 failed, 0 not run"
    exit 1
fi

passed=0 failed=0 not_run=0
names=$(make -s --no-print-directory names)

# run_one VARIANT NAME COMMAND...: adds the program's counts to the variant's
run_one() {
    variant=$1 name=$2
    shift 2
    log=build/$variant.$name.log
    if [ "$name" = conformance ]; then set -- "$@" ../conformance/*.txt; fi
    timeout 170 "$@" >"$log" 2>&1
    code=$?
    counts=$(sed -n 's/^[^:]*: \([0-9]*\) passed, \([0-9]*\) failed, [0-9]* skipped ([0-9]* checks)$/\1 \2/p' "$log" | tail -n 1)
    if [ "$name" = lifecycle ] && [ $code -eq 0 ]; then # the example: no counts, but it must not print a whole id
        if grep -qE '[A-Za-z0-9_-]{128}' "$log"; then code=1; else counts="1 0"; fi
    fi
    p=${counts% *} f=${counts#* }
    if [ -z "$counts" ]; then p=0 f=1; fi                    # it died, or hung
    if [ "$f" -eq 0 ] && [ $code -ne 0 ]; then f=1; fi       # a tool found something
    if [ "$f" -gt 0 ]; then
        echo "--- $variant: $name failed (exit code $code), the end of tests/c/$log:"
        tail -n 60 "$log"
    fi
    sed -n "s/^skip /not run under $variant: /p" "$log"
    not_run=$((not_run + $(grep -c '^skip ' "$log")))
    variant_passed=$((variant_passed + p)) variant_failed=$((variant_failed + f))
}

# run_all VARIANT LABEL DIRECTORY COMMAND...: runs $names
run_all() {
    label=$2 directory=$3 key=$1
    shift 3
    variant_passed=0 variant_failed=0
    for program in $names; do run_one "$key" "$program" "$@" "$directory/$program"; done
    echo "C ($label): $variant_passed passed, $variant_failed failed"
    passed=$((passed + variant_passed)) failed=$((failed + variant_failed))
}

run_all c99 "C99" build/c99 env
run_all cxx "C++11" build/cxx env SSS_TEST_SCALE=10
run_all static "C99, static library" build/static env SSS_TEST_SCALE=10
run_all asan "AddressSanitizer and UBSan" build/asan env SSS_TEST_SCALE=10
if command -v valgrind >/dev/null; then
    run_all valgrind "valgrind" build/c99 env SSS_TEST_SCALE=2 SSS_TEST_VALGRIND=1 valgrind -q --fair-sched=try \
        --error-exitcode=99 --leak-check=full --show-leak-kinds=definite,indirect \
        --errors-for-leak-kinds=definite,indirect
else
    echo "C (valgrind): not installed (apt-get install valgrind)"
    failed=$((failed + 1))
fi

names="api fork handles limits principals races secrets" # those whose stores may just as well be sealed
run_all sealed "C99, seal=on" build/c99 env SSS_TEST_SCALE=10 SSS_TEST_OPTIONS=seal=on

for engine in lmdb lmdb-power; do
    names=conformance
    run_all $engine "conformance on $engine" build/c99 env SSS_TEST_ENGINE=$engine
    sed -n 's/^\(conformance: .* not applicable .*\)/\1/p' build/$engine.conformance.log
done
names="cancel fork_contention"
run_all lmdb-threads "threads on lmdb" build/c99 env SSS_TEST_ENGINE=lmdb SSS_TEST_SCALE=25

echo "C: $passed passed, $failed failed, $not_run not run"
[ "$failed" -eq 0 ]
