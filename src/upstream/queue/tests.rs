use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::AtomicUsize;
use std::task::Wake;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::base::random::Seed;

/// A step of a line's life.
#[derive(Clone, Copy, Debug)]
enum Step {
    Enter(Priority, u64),
    Leave(usize),
    Call,
    CallAndReturn,
    Time(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let priority = prop_oneof![Just(Priority::High), Just(Priority::Normal), Just(Priority::Low)];
    prop_oneof![
        4 => (priority, 1..50_u64).prop_map(|(priority, patience)| Step::Enter(priority, patience)),
        1 => (0..20_usize).prop_map(Step::Leave),
        2 => Just(Step::Call),
        1 => Just(Step::CallAndReturn),
        1 => (0..30_u64).prop_map(Step::Time),
    ]
}

proptest! {
    /// Against the plainest model there is: a list that is sorted by each look.
    #[test]
    fn a_line_is_a_sorted_list_with_a_bound(size in 0..8_usize, steps in proptest::collection::vec(step(), 0..120)) {
        let start = clock::now();
        let (mut line, mut now) = (Line::default(), 0);
        let at = |millis: u64| start + Duration::from_millis(millis);
        // By order: priority, number. The value: deadline, place.
        let mut model: BTreeMap<(Priority, u64), (u64, Place)> = BTreeMap::new();
        for (number, step) in steps.into_iter().enumerate() {
            let number = number as u64;
            match step {
                Step::Time(passed) => now += passed,
                Step::Enter(priority, patience) => {
                    let entered = line.enter(priority, at(now + patience), size, (priority, number));
                    let last = model.last_key_value().map(|(key, _)| *key);
                    match (model.len() < size, last) {
                        (true, _) => prop_assert!(matches!(entered, Ok((_, None)))),
                        (false, Some(last)) if last.0 > priority => {
                            prop_assert!(matches!(entered, Ok((_, Some(out))) if out == last), "the newest of the least");
                            model.remove(&last);
                        }
                        (false, _) => prop_assert_eq!(entered, Err((priority, number))),
                    }
                    if let Ok((place, _)) = entered {
                        model.insert((priority, number), (now + patience, place));
                    }
                }
                Step::Leave(which) => {
                    let Some((&key, &(_, place))) = model.iter().nth(which) else { continue };
                    prop_assert_eq!(line.leave(place), Some(key));
                    prop_assert_eq!(line.leave(place), None);
                    model.remove(&key);
                }
                Step::Call | Step::CallAndReturn => {
                    let mut late = Vec::new();
                    let called = line.call(at(now), |who| late.push(who));
                    let mut expected_late = Vec::new();
                    let mut expected = None;
                    while let Some((key, (deadline, place))) = model.pop_first() {
                        if now < deadline {
                            expected = Some((key, deadline, place));
                            break;
                        }
                        expected_late.push(key);
                    }
                    prop_assert_eq!(called, expected.map(|(key, ..)| key));
                    prop_assert_eq!(late, expected_late);
                    if let (Some((key, deadline, place)), Step::CallAndReturn) = (expected, step) {
                        prop_assert_eq!(line.enter_again(place, at(deadline), size, key), None);
                        prop_assert!(line.is_first(place), "its place is kept");
                        model.insert(key, (deadline, place));
                    }
                }
            }
            prop_assert_eq!(line.len(), model.len());
            prop_assert!(line.len() <= size);
        }
    }
}

/// A day in seconds: more comes than can be served, and what is promised holds at every moment.
#[test]
fn an_overloaded_day_is_served_in_order() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let dice = |n: u64, bound: u64| Seed(seed).below(n, bound);
    let start = clock::now();
    let (patience, size) = (1_000, 50);
    let mut line: Line<(Priority, u64)> = Line::default();
    let (mut served, mut refused) = ([0_u64; 3], [0_u64; 3]);
    for millis in 0..3_600_000_u64 / 4 {
        let now = start + Duration::from_millis(millis);
        // One comes in 2 ms on average, one is served in 4 ms, by turns more and less.
        if dice(millis * 3, 100) < 25 + 25 * (millis / 60_000 % 3) {
            let priority = [Priority::High, Priority::Normal, Priority::Normal, Priority::Low];
            let priority = priority[dice(millis * 3 + 1, 4) as usize];
            match line.enter(priority, now + Duration::from_millis(patience), size, (priority, millis)) {
                Ok((_, None)) => {}
                Ok((_, Some((out, _)))) => {
                    assert!(out > priority, "seed {seed}: {out:?} makes room for {priority:?}");
                    refused[out as usize] += 1;
                }
                Err((out, _)) => refused[out as usize] += 1,
            }
        }
        if dice(millis * 3 + 2, 4) == 0 {
            let called = line.call(now, |(priority, began)| {
                assert!(millis - began >= patience, "seed {seed}");
                refused[priority as usize] += 1;
            });
            if let Some((priority, began)) = called {
                assert!(millis - began < patience, "seed {seed}: nobody is served too late");
                served[priority as usize] += 1;
            }
        }
        assert!(line.len() <= size, "seed {seed}");
    }
    let lost = |at: usize| refused[at] as f64 / (served[at] + refused[at]) as f64;
    println!("lost: high {:.3}, normal {:.3}, low {:.3}", lost(0), lost(1), lost(2));
    assert!(lost(0) < 0.01 && lost(0) < lost(1) && lost(1) < lost(2), "seed {seed}");
}

struct Flag(AtomicUsize);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn told(waiter: &mut Waiter) -> Poll<Word> {
    waiter.poll_told(&Context::from_waker(Waker::noop()))
}

fn soon() -> Instant {
    clock::now() + Duration::from_secs(60)
}

fn pool() -> (Arc<PoolQueue>, Arc<EndpointState>) {
    let queue = Arc::new(PoolQueue::default());
    (queue.clone(), Arc::new(EndpointState::new(false).queued_in(queue)))
}

#[test]
fn a_right_is_handed_over_and_never_free_in_between() {
    let (queue, state) = pool();
    assert!(state.begin_request(Some(1)));
    let mut first = queue.enter(Priority::Normal, soon(), 9).unwrap();
    let mut urgent = queue.enter(Priority::High, soon(), 9).unwrap();
    assert!(!first.is_first() && urgent.is_first());
    release(&state);
    assert!(!state.begin_request(Some(1)), "a newcomer finds it taken");
    let Poll::Ready(Word::Called(Turn::Handed(handed))) = told(&mut urgent) else { panic!("its turn") };
    assert!(Arc::ptr_eq(&handed, &state) && told(&mut first).is_pending());
    urgent.served_by_hand();
    release(&state);
    // It went away between its call and its next look.
    drop(first);
    assert_eq!((state.in_flight(), queue.len()), (0, 0));
    assert!(state.begin_request(Some(1)));
}

#[test]
fn who_is_dropped_hands_its_turn_on_and_who_is_late_or_pushed_out_is_told() {
    let (queue, state) = pool();
    assert!(state.begin_request(Some(1)));
    let mut late = queue.enter(Priority::High, clock::now(), 2).unwrap();
    let mut low = queue.enter(Priority::Low, soon(), 2).unwrap();
    assert!(queue.enter(Priority::Low, soon(), 2).is_none());
    let flag = Arc::new(Flag(AtomicUsize::new(0)));
    assert!(low.poll_told(&Context::from_waker(&Waker::from(flag.clone()))).is_pending());
    let called = queue.enter(Priority::Normal, soon(), 2).unwrap();
    assert!(matches!(told(&mut low), Poll::Ready(Word::Refused)) && flag.0.load(Ordering::SeqCst) == 1);
    drop(low);
    let mut next = queue.enter(Priority::Normal, soon(), 3).unwrap();
    release(&state);
    assert!(matches!(told(&mut late), Poll::Ready(Word::Late)));
    drop(called);
    assert!(matches!(told(&mut next), Poll::Ready(Word::Called(Turn::Handed(_)))));
    next.served_by_hand();
    assert_eq!((state.in_flight(), queue.len()), (1, 0));
}

#[test]
fn who_looks_in_vain_takes_its_old_place_and_who_finds_more_tells_the_next() {
    let (queue, _) = pool();
    let mut first = queue.enter(Priority::Normal, soon(), 9).unwrap();
    let mut second = queue.enter(Priority::Normal, soon(), 9).unwrap();
    queue.look();
    assert!(matches!(told(&mut first), Poll::Ready(Word::Called(Turn::Look))) && told(&mut second).is_pending());
    assert!(second.is_first());
    first.again();
    assert!(first.is_first() && told(&mut second).is_pending(), "what was in vain for one is not told to the next");
    first.served_by_look();
    assert!(matches!(told(&mut second), Poll::Ready(Word::Called(Turn::Look))));
}

/// Threads that take, wait, give up and release at once. Nothing ends a wait but a word: a lost one would hang.
#[test]
fn no_word_is_lost_over_threads() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let (queue, state) = pool();
    let inside = Arc::new(AtomicUsize::new(0));
    let run = |worker: u64| {
        let (queue, state, inside) = (queue.clone(), state.clone(), inside.clone());
        std::thread::spawn(move || {
            let mut dice = fastrand::Rng::with_seed(seed ^ worker);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            for _ in 0..3_000 {
                let gives_up = dice.u8(..8) == 0;
                if !runtime.block_on(take(&queue, &state, gives_up)) {
                    continue;
                }
                assert!(inside.fetch_add(1, Ordering::SeqCst) < 2, "seed {seed}: the cap holds");
                if dice.bool() {
                    std::thread::yield_now();
                }
                inside.fetch_sub(1, Ordering::SeqCst);
                release(&state);
            }
        })
    };
    let workers: Vec<_> = (0..6).map(run).collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    assert_eq!((state.in_flight(), queue.len()), (0, 0), "seed {seed}");
}

/// As the proxy does it, with one endpoint.
async fn take(queue: &Arc<PoolQueue>, state: &Arc<EndpointState>, gives_up: bool) -> bool {
    if state.begin_request(Some(2)) {
        return true;
    }
    let Some(mut waiter) = queue.enter(Priority::Normal, soon(), 100) else { return false };
    let mut looks = waiter.is_first();
    loop {
        if looks && state.begin_request(Some(2)) {
            waiter.served_by_look();
            return true;
        }
        if gives_up {
            // Long enough to be called in the meantime, which it never hears.
            (0..10).for_each(|_| std::thread::yield_now());
            return false;
        }
        let told = poll_fn(|context| waiter.poll_told(context));
        match tokio::time::timeout(Duration::from_secs(30), told).await {
            Ok(Word::Called(Turn::Handed(_))) => {
                waiter.served_by_hand();
                return true;
            }
            Ok(Word::Called(Turn::Look)) => {}
            Ok(word) => panic!("{word:?}"),
            Err(_) => panic!("a wait that nobody ended: {} wait, {} in flight", queue.len(), state.in_flight()),
        }
        if state.begin_request(Some(2)) {
            waiter.served_by_look();
            return true;
        }
        waiter.again();
        looks = waiter.is_first();
    }
}
