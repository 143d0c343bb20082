//! Decides whether a history is linearizable: the search of Wing and Gong (1993) with Lowe's memory
//! of what was visited (2017). It knows the rules only through `State::steps`, and searches the
//! whole history at once.
//!
//! It could be cut by session, as linearizability is local, but only where no `revoke`, `list` or
//! `max_per_principal` binds sessions together, and the clock binds all of them. It need not be:
//! each thread has one call under way, so the search is about as long as the history however many
//! sessions there are.

use std::{collections::HashSet, fmt::Write};

use super::{
    history::{Id, Op},
    spec::{Rules, State},
};

/// More than any history of the tests has by far. One that needs more is not decided, and that is
/// an error too.
const MOST_VISITED: usize = 3_000_000;

/// The operations that have taken place so far, in the order of the calls: one bit each.
type Bits = Vec<u64>;

/// A state of the search.
struct SearchState {
    done: Bits,
    state: State,
    /// How many of the operations that had returned are done.
    count: usize,
    /// The last of the `taken` steps that led here.
    way: Option<usize>,
}

/// Where the search came furthest.
struct Furthest {
    order: Vec<usize>,
    done: Bits,
    state: State,
    count: usize,
}

enum Verdict {
    Linearizable,
    Not(Furthest),
    Unknown,
}

/// Nothing if the history is linearizable; else why not, with the smallest beginning of it that
/// already is not.
pub fn check(rules: &Rules, history: &[Op]) -> Result<(), String> {
    let mut ops = history.to_vec();
    ops.sort_by_key(|op| op.call);
    match search(rules, &ops, u64::MAX) {
        Verdict::Linearizable => return Ok(()),
        Verdict::Unknown => return Err(format!("not decided: more than {MOST_VISITED} states")),
        Verdict::Not(_) => {}
    }
    // Every beginning of a linearizable history is linearizable, so the first return that cannot be
    // is found by halves.
    let mut ends: Vec<u64> = ops.iter().map(|op| op.ret).collect();
    ends.sort_unstable();
    let fits = |&end: &u64| matches!(search(rules, &ops, end), Verdict::Linearizable);
    let first_bad = ends.partition_point(fits).min(ends.len() - 1);
    match search(rules, &ops, ends[first_bad]) {
        Verdict::Not(furthest) => Err(explain(rules, &ops, ends[first_bad], &furthest)),
        _ => Err("not linearizable, but no beginning of it was found that is not".to_owned()),
    }
}

/// Whether the history up to `end` is linearizable: all that had returned by then took place, and
/// of what was under way then anything may have.
fn search(rules: &Rules, ops: &[Op], end: u64) -> Verdict {
    let ops = &ops[..ops.partition_point(|op| op.call < end)];
    let wanted = ops.iter().filter(|op| op.ret <= end).count();
    let start = SearchState { done: vec![0; ops.len() / 64 + 1], state: State::default(), count: 0, way: None };
    let mut furthest: Option<SearchState> = None;
    let mut visited: HashSet<(Bits, State)> = HashSet::new();
    let mut taken: Vec<(Option<usize>, usize)> = Vec::new();
    let mut places = vec![start];
    while let Some(place) = places.pop() {
        if place.count == wanted {
            return Verdict::Linearizable;
        }
        if visited.len() > MOST_VISITED {
            return Verdict::Unknown;
        }
        let mut next: Vec<SearchState> = Vec::new();
        'ops: for nth in possible(ops, &place.done) {
            for step in place.state.steps(rules, nth, &ops[nth]) {
                taken.push((place.way, nth));
                let way = Some(taken.len() - 1);
                let (mut done, mut count) = (place.done.clone(), place.count);
                if step.completes {
                    done[nth / 64] |= 1 << (nth % 64);
                    count += usize::from(ops[nth].ret <= end);
                }
                let reached = SearchState { done, state: step.state, count, way };
                if step.free {
                    next = vec![reached];
                    break 'ops;
                }
                next.push(reached);
            }
        }
        // The one that was called first is tried first: mostly it was.
        next.reverse();
        next.retain(|place| visited.insert((place.done.clone(), place.state.clone())));
        places.append(&mut next);
        if furthest.as_ref().is_none_or(|furthest| place.count > furthest.count) {
            furthest = Some(place);
        }
    }
    let Some(SearchState { done, state, count, way }) = furthest else { return Verdict::Unknown };
    let mut order: Vec<usize> = std::iter::successors(way, |&way| taken[way].0).map(|way| taken[way].1).collect();
    order.reverse();
    Verdict::Not(Furthest { order, done, state, count })
}

/// What can take place next: what was called before anything that is not done had returned.
fn possible(ops: &[Op], done: &Bits) -> Vec<usize> {
    let undone = (0..ops.len()).filter(|nth| done[nth / 64] & 1 << (nth % 64) == 0);
    let mut first_return = u64::MAX;
    let mut possible = Vec::new();
    for nth in undone {
        if ops[nth].call > first_return {
            break;
        }
        first_return = first_return.min(ops[nth].ret);
        possible.push(nth);
    }
    possible
}

/// How many operations before the failure are worth reading.
const WINDOW: usize = 24;

fn explain(rules: &Rules, ops: &[Op], end: u64, furthest: &Furthest) -> String {
    let mut text = String::new();
    if std::env::var("DUMP").is_ok() {
        for op in ops {
            let _ = writeln!(text, "{op}");
        }
    }
    let ops = &ops[..ops.partition_point(|op| op.call < end)];
    let stuck = possible(ops, &furthest.done);
    // What has to do with the stuck sessions: their ids, and all others that these had.
    let mut ids: HashSet<Id> = stuck.iter().flat_map(|&nth| ops[nth].ids()).collect();
    for (id, session) in &furthest.state.living {
        if stuck.iter().any(|&nth| ops[nth].principal().is_some_and(|who| session.principal == Some(who))) {
            ids.insert(*id);
        }
    }
    loop {
        let before = ids.len();
        let ours: Vec<&Op> = ops.iter().filter(|op| op.ids().any(|id| ids.contains(&id))).collect();
        ids.extend(ours.into_iter().flat_map(Op::ids));
        if ids.len() == before {
            break;
        }
    }
    let concerns = |op: &Op| op.is_wide() || op.ids().any(|id| ids.contains(&id));
    let mut order = furthest.order.clone();
    // A call of several steps stands where the last one was.
    let mut later = HashSet::new();
    order.reverse();
    order.retain(|nth| later.insert(*nth));
    order.reverse();
    let all = order.len();
    order.retain(|&nth| concerns(&ops[nth]));
    let left_out = order.len().saturating_sub(WINDOW);
    let _ = writeln!(text, "no order of the calls explains the answers up to {end}; {} fit so far:", furthest.count);
    let _ = writeln!(text, "  ({left_out} calls before, {} that concern others)", all - order.len());
    for &nth in &order[left_out..] {
        let _ = writeln!(text, "  {}", ops[nth]);
    }
    let _ = writeln!(text, "which leaves, at {}:", furthest.state.now);
    for (id, session) in &furthest.state.living {
        let _ = writeln!(text, "  {id}: {session:?}");
    }
    for (id, (target, until)) in &furthest.state.aliases {
        let _ = writeln!(text, "  {id} reads {target} until {until}");
    }
    let _ = writeln!(text, "then one of these, none of which can lead on:");
    for nth in stuck {
        let _ = writeln!(text, "  {}", ops[nth]);
        if let Some((left, met)) = furthest.state.under_way.get(&nth) {
            let _ = writeln!(text, "      has met {met}, and has still to visit {left:?}");
            continue;
        }
        for (answer, _) in furthest.state.outcomes(rules, &ops[nth]) {
            let verdict = if answer == ops[nth].answer { "could be, but not with what follows" } else { "would be" };
            let _ = writeln!(text, "      {verdict}: {answer}");
        }
    }
    text
}
