//! Notices `fork` without a system call and without a lock, so that a child can refuse inherited state at once:
//! a lock that another thread of the parent held at the fork would never open here.

use std::sync::atomic::{AtomicU32, Ordering};

use once_cell::race::OnceBox;

use crate::sys::ForkMark;

/// The number of this process along its line of ancestors: never zero, and different from every ancestor's.
pub(crate) fn generation() -> u32 {
    static MARK: OnceBox<ForkMark> = OnceBox::new();
    let mark = MARK.get_or_init(|| Box::new(ForkMark::new())).get();
    match mark.load(Ordering::Acquire) {
        0 => next_generation(mark),
        generation => generation,
    }
}

/// The first call in a process. Threads may race here; all of them leave with the same number.
#[cold]
fn next_generation(mark: &AtomicU32) -> u32 {
    // Ordinary memory: the child goes on where its parent was.
    static LAST: AtomicU32 = AtomicU32::new(0);
    let next = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    match mark.compare_exchange(0, next, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => next,
        Err(winner) => winner,
    }
}

/// A value that every process has its own of: after a fork the child begins with a new one, and the inherited one
/// is neither locked, changed nor freed. Reaching it takes no lock.
#[derive(Default)]
pub(crate) struct PerProcess<T> {
    first: OnceBox<Node<T>>,
}

struct Node<T> {
    generation: u32,
    value: T,
    after_fork: OnceBox<Node<T>>,
}

impl<T: Default> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        PerProcess { first: OnceBox::new() }
    }

    /// This process's own value.
    pub(crate) fn get(&self) -> &T {
        let generation = generation();
        let new = || Box::new(Node { generation, value: T::default(), after_fork: OnceBox::new() });
        let mut node = self.first.get_or_init(new);
        while node.generation != generation {
            node = node.after_fork.get_or_init(new);
        }
        &node.value
    }

    /// The ancestors' values, as they were at the fork. Only their lock-free parts may be looked at.
    pub(crate) fn inherited(&self) -> impl Iterator<Item = &T> {
        let generation = generation();
        std::iter::successors(self.first.get(), |node| node.after_fork.get())
            .take_while(move |node| node.generation != generation)
            .map(|node| &node.value)
    }
}
