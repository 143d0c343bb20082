//! A value of which every process has its own, also after `fork`.

use once_cell::race::OnceBox;

use crate::os::fork_mark::generation;

/// A value of which every process has its own. After a fork the child starts with a new one, and
/// the inherited one is neither locked, changed nor freed. Access takes no lock.
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

    /// The ancestors' values, as they were at the fork. Only their lock-free parts may be looked
    /// at.
    pub(crate) fn inherited(&self) -> impl Iterator<Item = &T> {
        let generation = generation();
        std::iter::successors(self.first.get(), |node| node.after_fork.get())
            .take_while(move |node| node.generation != generation)
            .map(|node| &node.value)
    }
}
