//! The pools that may serve a request, in the order in which they are asked: what `pick` and `explain` go by.
//!
//! A pool, then the pools that take over from it; then the write side that reads overflow to, likewise. Where a pool's
//! traffic is held at one that took over, that one comes first.

use smallvec::SmallVec;

use crate::base::id::PoolIndex;
use crate::snapshot::Snapshot;
use crate::upstream::failback::BACKUPS;

/// A pool on a request's course.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// It.
    pub pool: PoolIndex,
    /// The pool that it serves for; itself, where it took over from none.
    pub head: PoolIndex,
}

impl Leg {
    /// Whether it took over from another.
    pub fn is_failover(self) -> bool {
        self.pool != self.head
    }
}

/// All of them; one where nothing can take over.
pub type Course = SmallVec<[Leg; 2]>;

impl Snapshot {
    /// The course of a request to `pool`; `die` is drawn where a ramp needs it.
    pub fn course(&self, pool: PoolIndex, overflow: Option<PoolIndex>, die: impl Fn() -> u64) -> Course {
        let mut course = Course::new();
        for head in [Some(pool), overflow].into_iter().flatten() {
            let (begin, spec) = (course.len(), self.pool(head));
            for pool in std::iter::once(head).chain(spec.chain.iter().copied()) {
                if !course.iter().any(|leg| leg.pool == pool) {
                    course.push(Leg { pool, head });
                }
            }
            if let Some(first) = (spec.state.begin(&die)).checked_sub(BACKUPS + 1).and_then(|at| spec.chain.get(at))
                && let Some(legs) = course.get_mut(begin..)
                && let Some(at) = legs.iter().position(|leg| leg.pool == *first)
            {
                legs.get_mut(..=at).into_iter().for_each(|legs| legs.rotate_right(1));
            }
        }
        course
    }
}

/// The places of the pools that take over from the one at `of`, and of those that take over from these, each once.
pub(super) fn chain(failover: &[Vec<PoolIndex>], of: PoolIndex) -> Vec<PoolIndex> {
    fn follow(failover: &[Vec<PoolIndex>], of: PoolIndex, chain: &mut Vec<PoolIndex>, head: PoolIndex) {
        for &next in failover.get(of.at()).into_iter().flatten() {
            if next != head && !chain.contains(&next) {
                chain.push(next);
                follow(failover, next, chain, head);
            }
        }
    }
    let mut found = Vec::new();
    follow(failover, of, &mut found, of);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_pool_comes_first_and_an_operators_order_keeps_the_chain() {
        let pool = |name: &str, more: &str| format!("[pools.{name}]\nendpoints = [\"127.0.0.1:1\"]\n{more}\n");
        let text = format!(
            "config_version = 1\nlisteners.a.address = \"127.0.0.1:0\"\nroutes.r.split = {{ read = \"a\", write = \"w\" }}\n{}{}{}{}",
            pool("a", "failover = [\"b\", \"c\"]"),
            pool("b", ""),
            pool("c", ""),
            pool("w", "failover = [\"c\"]"),
        );
        let (config, _) = crate::config::load::parse_text("t.toml", &text, &|_| None).unwrap();
        let carried = crate::snapshot::Carried::new();
        let built = Snapshot::build(1, std::sync::Arc::new(config), &carried).unwrap();
        for snapshot in [built.renewed(&carried), built] {
            let names = || {
                let course = snapshot.course(PoolIndex(0), Some(PoolIndex(3)), || 0);
                course.iter().map(|leg| snapshot.pool(leg.pool).spec.name.to_string()).collect::<String>()
            };
            assert_eq!(names(), "abcw");
            snapshot.pool(PoolIndex(0)).state.raise(BACKUPS + 2);
            assert_eq!(names(), "cabw");
            let hold = crate::upstream::failback::Hold { held: 0, target: 0, share: 0.0 };
            snapshot.pool(PoolIndex(0)).state.set(BACKUPS + 2, hold, false, false);
        }
    }

    #[test]
    fn a_chain_goes_down_before_it_goes_on_and_meets_each_once() {
        let pools: Vec<Vec<PoolIndex>> =
            [vec![1, 2], vec![3], vec![3, 4], vec![], vec![0]].map(|of| of.into_iter().map(PoolIndex).collect()).into();
        let of = |at| chain(&pools, PoolIndex(at)).into_iter().map(|pool| pool.0).collect::<Vec<_>>();
        assert_eq!(of(0), [1, 3, 2, 4]);
        assert_eq!(of(1), [3]);
        assert_eq!(of(3), [0; 0]);
    }
}
