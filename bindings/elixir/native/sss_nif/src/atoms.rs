//! The atoms of arguments and replies.

rustler::atoms! {
    ok, error, not_found, keep, clear, inherit, infinity, would_block,
    sessions, bytes, created, hits, misses, puts, deleted, renewed, conflicts, revoked, expired, rejected, errors,
}
